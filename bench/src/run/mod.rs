//! One run of one workload against one broker: prepares topics and data, drives the loads, gathers what was seen.
//!
//! [`preload`] writes what a workload starts from, [`loads`] opens what is measured, [`read_back`] verifies it afterwards, and [`judge`]
//! says what the outcome is worth.

mod judge;
mod loads;
mod preload;
mod read_back;

use std::collections::HashMap;
use std::time::Duration;

use ringlog_net::api::ApiKey;

use crate::client::admin::{Admin, AdminError, TopicLayout};
use crate::client::clock::Clock;
use crate::companions::{Companions, Setting};
use crate::drive::Drive;
use crate::environment::Environment;
use crate::results::{ConsumerFigures, Outcome, ProducerFigures};
use crate::watch::Watch;
use crate::workload::{Start, Workload};

/// How long administrative requests may take.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(70);
/// How long a preload or a verification's reading back may take.
const PHASE_PATIENCE: Duration = Duration::from_secs(600);
/// How long partitions may take to be led.
const LEADERS_PATIENCE: Duration = Duration::from_secs(60);
/// Time between opening connections and the first record.
const SETTLE_NS: u64 = 100_000_000;

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
            verify: self.options.verify,
            broken: drive.broken,
            problems: std::mem::take(&mut drive.problems),
            churn,
            slow_readers,
            observed,
            verdict,
            ..Outcome::new(workload, Environment::find(self.options.pid))
        };
        gather(&mut outcome, drive);
        judge::judge(&mut outcome);
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
}

/// Turns counters into figures.
fn gather(outcome: &mut Outcome, drive: Drive) {
    let seconds = (drive.window.1 - drive.window.0) as f64 / 1e9;
    if let Some(load) = drive.producer {
        let counts = load.tally.counts;
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
            latency: load.tally.latencies.summary(),
            lateness: drive.lateness.summary(),
            series: load.tally.flow.series(),
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
