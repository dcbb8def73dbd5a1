//! The data that a workload starts from.

use std::time::Duration;

use super::{PHASE_PATIENCE, RunError, Stage};
use crate::client::compression::Compression;
use crate::client::poller::Poller;
use crate::drive::Drive;
use crate::latency::Latencies;
use crate::workload::{Acks, Arrival, Partitioner, Preload, Producer, Rate};

impl Stage<'_> {
    /// Writes the data that the workload starts from, as fast as possible.
    pub(super) fn preload(&mut self, preload: &Preload) -> Result<(), RunError> {
        let config = producer(preload);
        let window = (
            0,
            self.clock.now() + u64::try_from(PHASE_PATIENCE.as_nanos()).unwrap_or(u64::MAX / 2),
        );
        let poller = Poller::new().map_err(RunError::Connect)?;
        let producer = self.producer(&config, window, None, &poller)?;
        let records = preload.bytes.div_ceil(preload.record_bytes as u64);
        let mut drive = Drive {
            clock: self.clock,
            poller,
            producer: Some(producer),
            consumer: None,
            verifier: None,
            schedule: None,
            window,
            drain: Duration::from_secs(60),
            records_max: Some(records),
            await_consumer: false,
            lateness: Latencies::new(0),
            never_offered: 0,
            problems: Vec::new(),
            broken: false,
        };
        drive.run(&mut |_, _, _| {});
        let counts = drive
            .producer
            .map(|load| load.tally.counts)
            .unwrap_or_default();
        if let Some(problem) = drive.problems.first() {
            return Err(RunError::Preload(problem.clone()));
        }
        if let Some((error, records)) = counts.errors.iter().next() {
            return Err(RunError::Preload(format!(
                "{records} records were refused with {error}"
            )));
        }
        Ok(())
    }
}

/// The load that writes it: full batches, as fast as they are taken.
fn producer(preload: &Preload) -> Producer {
    Producer {
        rate: Rate::Max,
        arrival: Arrival::Uniform,
        burst_records: 1,
        record_bytes: preload.record_bytes,
        record_sizes: Vec::new(),
        key_bytes: 0,
        payload_file: None,
        repetition: 0.0,
        partitioner: Partitioner::RoundRobin,
        linger_ms: 0.0,
        batch_bytes: preload.batch_bytes,
        acks: Acks::All,
        compression: Compression::None,
        connections: 1,
        in_flight: 5,
        partitions_per_request: 0,
        idempotence: false,
        buffer_bytes: 64 << 20,
    }
}
