//! The loads of a run: what produces and what consumes, each with its connections open.

use std::time::Duration;

use ringlog_net::api::ApiKey;

use super::{Offsets, RunError, Stage, patiently};
use crate::client::batch::STAMP_BYTES;
use crate::client::poller::Poller;
use crate::consumer::{ConsumerLoad, ConsumerSetup};
use crate::drive::Drive;
use crate::latency::Latencies;
use crate::producer::{ProducerLoad, ProducerSetup};
use crate::schedule::Schedule;
use crate::verify::Verifier;
use crate::workload::{Consumer, Producer, Rate};

const PRODUCER_TOKENS: u64 = 0;
const CONSUMER_TOKENS: u64 = 1 << 32;

impl Stage<'_> {
    /// A producing load.
    pub(super) fn producer(
        &mut self,
        config: &Producer,
        window: (u64, u64),
        stamp: Option<bool>,
        poller: &Poller,
    ) -> Result<ProducerLoad, RunError> {
        let version = self.admin.version(ApiKey::Produce, "Produce")?;
        let mut identities = Vec::new();
        if config.idempotence {
            for _ in 0..config.connections {
                identities.push(patiently(|| self.admin.producer_id())?);
            }
        }
        let setup = ProducerSetup {
            clock: self.clock,
            layouts: &self.layouts,
            version,
            identities,
            token_base: PRODUCER_TOKENS,
            run: self.run_id,
            stamp,
            window,
        };
        ProducerLoad::open(config, setup, poller).map_err(RunError::Connect)
    }

    /// Opens everything that the workload measures.
    pub(super) fn drive(
        &mut self,
        window: (u64, u64),
        starts: &Offsets,
        latest: &Offsets,
    ) -> Result<Drive, RunError> {
        let workload = self.workload;
        let poller = Poller::new().map_err(RunError::Connect)?;
        let verify = self.options.verify;
        let stamped = workload.stamped(verify);
        let mut producer = None;
        if let Some(config) = &workload.producer {
            if verify && config.smallest_record() < STAMP_BYTES {
                let reason = format!("--verify needs records of at least {STAMP_BYTES} bytes");
                return Err(RunError::Nonsense(reason));
            }
            producer = Some(self.producer(config, window, stamped.then_some(verify), &poller)?);
        }
        let mut consumer = None;
        if let Some(config) = &workload.consumer {
            let ends = config.repeat.then_some(latest);
            consumer = Some(self.consumer(config, window, stamped, starts, ends, &poller)?);
        }
        // Several readers see each record several times: then it is read back once afterwards.
        let one_reader = workload
            .consumer
            .as_ref()
            .is_some_and(|config| config.connections == 1);
        Ok(Drive {
            clock: self.clock,
            poller,
            await_consumer: producer.is_some() && one_reader,
            verifier: (verify && one_reader).then(Verifier::new),
            producer,
            consumer,
            schedule: self.schedule(window),
            window,
            drain: Duration::from_secs_f64(workload.run.drain_s),
            records_max: None,
            lateness: Latencies::new(window.0),
            never_offered: 0,
            problems: Vec::new(),
            broken: false,
        })
    }

    /// When records are due; absent in a closed loop.
    fn schedule(&self, window: (u64, u64)) -> Option<Schedule> {
        let config = self.workload.producer.as_ref()?;
        let Rate::PerSecond(rate) = config.rate else {
            return None;
        };
        let warmup = (self.workload.run.warmup_s * 1e9) as u64;
        Some(Schedule::new(
            window.0.saturating_sub(warmup),
            rate,
            config.arrival,
            config.burst_records,
            u64::from(self.run_id),
        ))
    }

    /// A consuming load.
    pub(super) fn consumer(
        &self,
        config: &Consumer,
        window: (u64, u64),
        stamped: bool,
        starts: &Offsets,
        ends: Option<&Offsets>,
        poller: &Poller,
    ) -> Result<ConsumerLoad, RunError> {
        let setup = ConsumerSetup {
            clock: self.clock,
            layouts: &self.layouts,
            version: self.admin.version(ApiKey::Fetch, "Fetch")?,
            starts,
            ends,
            token_base: CONSUMER_TOKENS,
            run: self.run_id,
            stamped,
            window,
        };
        ConsumerLoad::open(config, setup, poller).map_err(RunError::Connect)
    }
}
