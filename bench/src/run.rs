//! One run of one workload against one broker: prepares topics and data, drives the loads, gathers what was seen.

use std::collections::HashMap;
use std::time::Duration;

use ringlog_net::api::ApiKey;

use crate::client::admin::{Admin, AdminError, TopicLayout};
use crate::client::clock::Clock;
use crate::client::compression::Compression;
use crate::client::poller::Poller;
use crate::companions::{Companions, Setting};
use crate::consumer::{ConsumerLoad, ConsumerSetup};
use crate::drive::Drive;
use crate::environment::Environment;
use crate::latency::Latencies;
use crate::producer::{ProducerLoad, ProducerSetup};
use crate::results::{ConsumerFigures, Outcome, ProducerFigures};
use crate::schedule::Schedule;
use crate::verify::{Verdict, Verifier};
use crate::watch::Watch;
use crate::workload::{
    Acks, Arrival, Consumer, Partitioner, Preload, Producer, Rate, Start, Workload,
};

const PRODUCER_TOKENS: u64 = 0;
const CONSUMER_TOKENS: u64 = 1 << 32;
/// How long administrative requests may take.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(70);
/// How long a preload or a verification's reading back may take.
const PHASE_PATIENCE: Duration = Duration::from_secs(600);
/// How long partitions may take to be led.
const LEADERS_PATIENCE: Duration = Duration::from_secs(60);
/// Time between opening connections and the first record.
const SETTLE_NS: u64 = 100_000_000;
/// Lateness of the generator's own that makes a run doubtful.
const LATE_P99_MS: f64 = 1.0;
/// Stolen CPU that makes a run doubtful.
const STEAL_MAX: f64 = 0.02;

/// Seconds of standing still that make a run doubtful.
const STOOD_STILL_MAX_S: f64 = 0.25;
/// Share of the window for which a control group may be held back.
const THROTTLED_MAX: f64 = 0.01;
/// Cores busy with something else that make a run doubtful.
const OTHERS_MAX: f64 = 0.15;

/// Offsets by topic and partition.
type Offsets = HashMap<(String, i32), i64>;

/// How to run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// `host:port` of the broker.
    pub bootstrap: String,
    /// The broker's pid, where it runs on this machine and is to be watched.
    pub pid: Option<u32>,
    /// Whether every record is verified.
    pub verify: bool,
    /// Whether the broker's system calls are counted.
    pub syscalls: bool,
    /// Whether topics that this run created stay.
    pub keep_topics: bool,
    /// Whether to write progress to standard error.
    pub progress: bool,
}

/// Why a run produced nothing.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The broker could not be asked, or refused.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The load's connections could not be opened.
    #[error("cannot open the load's connections: {0}")]
    Connect(std::io::Error),
    /// The preload failed.
    #[error("writing the data that the workload starts from failed: {0}")]
    Preload(String),
    /// A combination that makes no sense.
    #[error("{0}")]
    Nonsense(String),
}

/// Runs `workload`.
pub fn run(workload: &Workload, options: &RunOptions) -> Result<Outcome, RunError> {
    let clock = Clock::start();
    let run_id = run_id();
    let mut admin = Admin::connect(&options.bootstrap, ADMIN_TIMEOUT)?;
    let names = topic_names(workload, run_id);
    let configs: Vec<(String, String)> = workload.topic.configs.clone().into_iter().collect();
    let (layouts, created) = admin.ensure_topics(
        &names,
        workload.topic.partitions as usize,
        workload.topic.replication_factor,
        &configs,
    )?;
    let mut stage = Stage {
        workload,
        options,
        clock,
        run_id,
        layouts,
        admin,
    };
    let outcome = stage.measure();
    if !options.keep_topics && !created.is_empty() {
        // Tidying up after a run that is over must not hide its outcome.
        if let Err(error) = stage.admin.delete_topics(&created) {
            eprintln!("the run's topics could not be deleted: {error}");
        }
    }
    outcome
}

/// A number that tells this run's records from others'.
fn run_id() -> u32 {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    (now.as_nanos() as u32).rotate_left(7) ^ std::process::id()
}

fn topic_names(workload: &Workload, run_id: u32) -> Vec<String> {
    let base = workload
        .topic
        .name
        .clone()
        .unwrap_or_else(|| format!("{}-{run_id:08x}", workload.name));
    match workload.topic.count {
        1 => vec![base],
        count => (0..count).map(|index| format!("{base}-{index}")).collect(),
    }
}

/// Asks again while the broker gives an error that passes: a topic that was just created may not have its leaders everywhere, and a
/// broker that just started may not hand out producer ids yet.
fn patiently<T>(mut ask: impl FnMut() -> Result<T, AdminError>) -> Result<T, AdminError> {
    let begun = std::time::Instant::now();
    loop {
        match ask() {
            Err(AdminError::Refused { code, .. })
                if code.is_retriable() && begun.elapsed() < LEADERS_PATIENCE =>
            {
                std::thread::sleep(Duration::from_millis(50));
            }
            other => return other,
        }
    }
}

struct Stage<'a> {
    workload: &'a Workload,
    options: &'a RunOptions,
    clock: Clock,
    run_id: u32,
    layouts: Vec<TopicLayout>,
    admin: Admin,
}

impl Stage<'_> {
    fn measure(&mut self) -> Result<Outcome, RunError> {
        let workload = self.workload;
        if let Some(preload) = &workload.preload {
            // Offsets are told once every partition is led: before that, writing would be refused.
            self.offsets(-1)?;
            self.preload(preload)?;
        }
        let latest = self.offsets(-1)?;
        let starts = match workload.consumer.as_ref().map(|consumer| consumer.start) {
            Some(Start::Earliest) => self.offsets(-2)?,
            _ => latest.clone(),
        };
        let window_start = self.clock.now() + SETTLE_NS + (workload.run.warmup_s * 1e9) as u64;
        let window = (
            window_start,
            window_start + (workload.run.duration_s * 1e9) as u64,
        );
        let mut drive = self.drive(window, &starts, &latest)?;
        let companions = Companions::start(
            workload.churn.as_ref(),
            workload.slow_readers.as_ref(),
            &Setting {
                bootstrap: &self.options.bootstrap,
                clock: self.clock,
                window,
                layouts: &self.layouts,
                fetch_version: self.admin.version(ApiKey::Fetch, "Fetch")?,
            },
        );
        let delay = Duration::from_nanos(window.0.saturating_sub(self.clock.now()));
        let watch = Watch::start(
            self.options.pid,
            delay,
            Duration::from_secs_f64(workload.run.duration_s),
            self.options.syscalls,
        );
        drive.run(&mut |at_ms, acknowledged, received| {
            if self.options.progress {
                eprintln!(
                    "{:>6.1} s  acknowledged {acknowledged}  received {received}",
                    at_ms as f64 / 1e3
                );
            }
        });
        let observed = watch.finish();
        let (churn, slow_readers) = companions.finish();
        let verdict = self.verdict(&mut drive, &latest)?;
        let mut outcome = Outcome {
            name: workload.name.clone(),
            about: workload.about.clone(),
            workload: workload.clone(),
            verify: self.options.verify,
            complete: true,
            broken: drive.broken,
            problems: std::mem::take(&mut drive.problems),
            doubts: Vec::new(),
            client: crate::results::CLIENT.to_string(),
            environment: Environment::find(self.options.pid),
            producer: None,
            consumer: None,
            end_to_end: None,
            churn,
            slow_readers,
            observed,
            verdict,
        };
        gather(&mut outcome, drive);
        judge(&mut outcome);
        Ok(outcome)
    }

    fn offsets(&mut self, timestamp: i64) -> Result<Offsets, RunError> {
        let mut by_leader: HashMap<std::net::SocketAddr, Vec<(String, i32)>> = HashMap::new();
        for layout in &self.layouts {
            for leader in &layout.partitions {
                by_leader
                    .entry(leader.address)
                    .or_default()
                    .push((layout.name.clone(), leader.partition));
            }
        }
        let mut offsets = Offsets::new();
        for (address, partitions) in by_leader {
            let mut leader = Admin::connect(&address.to_string(), ADMIN_TIMEOUT)?;
            offsets.extend(patiently(|| leader.offsets(&partitions, timestamp))?);
        }
        Ok(offsets)
    }

    fn producer(
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

    fn drive(
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
        let mut schedule = None;
        if let Some(config) = &workload.producer {
            if verify && config.smallest_record() < crate::client::batch::STAMP_BYTES {
                let reason = format!(
                    "--verify needs records of at least {} bytes",
                    crate::client::batch::STAMP_BYTES
                );
                return Err(RunError::Nonsense(reason));
            }
            producer = Some(self.producer(config, window, stamped.then_some(verify), &poller)?);
            if let Rate::PerSecond(rate) = config.rate {
                let start = window
                    .0
                    .saturating_sub((workload.run.warmup_s * 1e9) as u64);
                schedule = Some(Schedule::new(
                    start,
                    rate,
                    config.arrival,
                    config.burst_records,
                    u64::from(self.run_id),
                ));
            }
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
            schedule,
            window,
            drain: Duration::from_secs_f64(workload.run.drain_s),
            records_max: None,
            lateness: Latencies::new(window.0),
            never_offered: 0,
            problems: Vec::new(),
            broken: false,
        })
    }

    fn consumer(
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

    /// Writes the data that the workload starts from, as fast as possible.
    fn preload(&mut self, preload: &Preload) -> Result<(), RunError> {
        let config = Producer {
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
        };
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
        let counts = drive.producer.map(|load| load.counts).unwrap_or_default();
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

    /// With `--verify`: what was consumed beside the load, or everything read back after it.
    fn verdict(
        &mut self,
        drive: &mut Drive,
        begun_at: &Offsets,
    ) -> Result<Option<Verdict>, RunError> {
        if !self.options.verify || self.workload.producer.is_none() {
            return Ok(None);
        }
        if drive.verifier.is_none() && drive.problems.is_empty() {
            let ends = self.offsets(-1)?;
            let config = Consumer {
                start: Start::Earliest,
                repeat: false,
                connections: 1,
                max_wait_ms: 500,
                min_bytes: 1,
                max_bytes: 50 << 20,
                partition_max_bytes: 1 << 20,
                check_crc: true,
            };
            let mut beside = drive.consumer.take();
            if let Some(load) = &mut beside {
                // Its sockets would be taken for those of the load that reads back.
                load.close(&drive.poller);
            }
            drive.consumer =
                Some(self.consumer(&config, (0, 0), true, begun_at, None, &drive.poller)?);
            drive.verifier = Some(Verifier::new());
            drive.read_to(&ends, PHASE_PATIENCE);
            let damaged = drive
                .consumer
                .as_ref()
                .map_or(0, |load| load.counts.damaged);
            if damaged > 0 {
                drive
                    .problems
                    .push(format!("{damaged} batches came back damaged"));
            }
            drive.consumer = beside;
        }
        let Some(verifier) = drive.verifier.take() else {
            return Ok(None);
        };
        let acknowledged: Vec<_> = drive
            .producer
            .iter()
            .flat_map(ProducerLoad::lanes)
            .map(|(topic, partition, client, acknowledged, _)| {
                ((topic, partition, client), acknowledged)
            })
            .collect();
        Ok(Some(verifier.finish(acknowledged.into_iter())))
    }
}

/// Turns counters into figures.
fn gather(outcome: &mut Outcome, drive: Drive) {
    let seconds = (drive.window.1 - drive.window.0) as f64 / 1e9;
    if let Some(load) = drive.producer {
        let counts = load.counts;
        outcome.producer = Some(ProducerFigures {
            closed_loop: drive.schedule.is_none(),
            records_per_s: counts.window_records as f64 / seconds,
            mb_per_s: counts.window_bytes as f64 / seconds / 1e6,
            records: counts.window_records,
            bytes: counts.window_bytes,
            requests: counts.window_requests,
            batches: counts.window_batches,
            records_offered: counts.offered,
            records_acknowledged: counts.acknowledged,
            records_unanswered: counts
                .offered
                .saturating_sub(counts.acknowledged + counts.errors.values().sum::<u64>()),
            records_never_offered: drive.never_offered,
            errors: counts.errors,
            latency: load.latencies.summary(),
            lateness: drive.lateness.summary(),
            series: load.flow.series(),
        });
    }
    if let Some(load) = drive.consumer {
        let counts = load.counts;
        outcome.consumer = Some(ConsumerFigures {
            records_per_s: counts.window_records as f64 / seconds,
            mb_per_s: counts.window_bytes as f64 / seconds / 1e6,
            records: counts.window_records,
            bytes: counts.window_bytes,
            requests: counts.window_requests,
            records_received: counts.received,
            damaged_batches: counts.damaged,
            errors: counts.errors,
            series: load.flow.series(),
        });
        outcome.end_to_end = load.latencies.summary();
    }
}

/// Decides whether the run counts, and what makes it doubtful.
fn judge(outcome: &mut Outcome) {
    if let Some(producer) = &outcome.producer {
        if producer.records_unanswered + producer.records_never_offered > 0 {
            outcome.problems.push(format!(
                "{} records were never answered and {} never sent",
                producer.records_unanswered, producer.records_never_offered
            ));
        }
        for (error, records) in &producer.errors {
            outcome
                .problems
                .push(format!("{records} records were refused with {error}"));
        }
        if let Some(late) = producer
            .lateness
            .as_ref()
            .filter(|late| late.p99_ms > LATE_P99_MS)
        {
            outcome.doubts.push(format!(
                "the generator itself was late (p99 {:.2} ms): it, or the processor it shares with the broker, is part of the latency",
                late.p99_ms
            ));
        }
        if let Some(shortfall) = outcome.shortfall() {
            outcome.doubts.push(shortfall.to_string());
        }
    }
    if let Some(consumer) = &outcome.consumer {
        for (error, times) in &consumer.errors {
            outcome
                .problems
                .push(format!("fetches were answered {times} times with {error}"));
        }
        if consumer.damaged_batches > 0 {
            outcome.problems.push(format!(
                "{} fetched batches were damaged",
                consumer.damaged_batches
            ));
        }
    }
    if let Some(churn) = outcome.churn.as_ref().filter(|churn| churn.failed > 0) {
        outcome.problems.push(format!(
            "{} of {} connections that came and went failed, the first with: {}",
            churn.failed,
            churn.failed + churn.opened,
            churn.first_failure.as_deref().unwrap_or("?")
        ));
    }
    if let Some(slow) = &outcome.slow_readers
        && let Some(failure) = &slow.first_failure
    {
        outcome.problems.push(format!(
            "{} slow readers broke, the first with: {failure}",
            slow.broken
        ));
    }
    if let Some(seen) = &outcome.observed {
        if seen.machine.steal > STEAL_MAX {
            outcome.doubts.push(format!(
                "disturbed: {:.1} % of the CPU time was stolen",
                seen.machine.steal * 100.0
            ));
        }
        if seen.machine.stood_still_s > STOOD_STILL_MAX_S {
            outcome.doubts.push(format!(
                "disturbed: the machine stood still for {:.1} s (a thread that only sleeps was that late)",
                seen.machine.stood_still_s
            ));
        }
        for (who, usage) in [
            ("broker", seen.broker.as_ref()),
            ("generator", Some(&seen.generator)),
        ] {
            if let Some(usage) = usage
                && let Some(held) = usage.throttled
                && held.seconds > usage.seconds * THROTTLED_MAX
            {
                outcome.doubts.push(format!(
                    "disturbed: the {who}'s control group was held back by its CPU limit {} times, for {:.2} s",
                    held.times, held.seconds
                ));
            }
        }
        if let Some(others) = seen.machine.other_cores.filter(|&cores| cores > OTHERS_MAX) {
            outcome.doubts.push(format!(
                "disturbed: other processes kept {others:.2} cores busy"
            ));
        }
        if outcome
            .producer
            .as_ref()
            .is_some_and(|producer| producer.closed_loop)
            && seen.generator.cores() > 0.95
        {
            outcome
                .doubts
                .push("the generator's core was full: the broker may be able to do more".into());
        }
    }
    if let Some(verdict) = &outcome.verdict
        && !verdict.clean()
    {
        outcome.broken = true;
        outcome.problems.push(format!(
            "verification failed: {} lost, {} duplicated, {} reordered, {} corrupted",
            verdict.lost, verdict.duplicated, verdict.reordered, verdict.corrupted
        ));
    }
    outcome.complete = outcome.problems.is_empty();
}
