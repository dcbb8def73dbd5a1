//! A peer's life outside steady load: starting empty, idling, holding many partitions, coming back after kill -9, and being killed
//! and restarted while records are written.
//!
//! Only one peer runs while this is measured. "Ready" is the first answer to Metadata; after a crash it is the first moment at
//! which the end offset of every partition is told, since a broker may answer before it has recovered.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::peer::{Peer, PeerError};
use super::plan::{Lifecycle, Metric};
use crate::client::admin::{Admin, AdminError};
use crate::run::{self, RunError, RunOptions};
use crate::watch::Watch;
use crate::workload::Workload;

const TOPIC: &str = "ringlog-bench-lifecycle";
const ADMIN_TIMEOUT: Duration = Duration::from_secs(120);
/// Time to come to rest after something happened.
const REST: Duration = Duration::from_secs(5);
/// The load under which a peer is ended, half-way.
const LOAD: Duration = Duration::from_secs(4);
const OFFSETS_EVERY: Duration = Duration::from_millis(5);

/// What one peer's life showed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Life {
    /// Figures.
    pub metrics: BTreeMap<Metric, f64>,
    /// What each end left of what was acknowledged before it.
    pub kept: Vec<Kept>,
    /// What failed.
    pub problems: Vec<String>,
}

/// Records over one end of the process.
#[derive(Clone, Debug, Serialize)]
pub struct Kept {
    /// How it ended.
    pub how: String,
    /// Records acknowledged before the end.
    pub acknowledged: u64,
    /// Records there after it; more than were acknowledged is no fault: an answer may have been lost on its way.
    pub found: u64,
}

#[derive(Debug, thiserror::Error)]
enum LifeError {
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("the preload's workload: {0}")]
    Workload(#[from] crate::workload::WorkloadError),
    #[error("the load that the peer was to be ended under was over before: nothing was shown")]
    NoLoad,
    #[error("partitions were still not led after {0:?}")]
    NotLed(Duration),
}

/// Leads `peer` through its life on fresh data, and leaves it stopped with its data removed.
pub fn live(peer: &mut Peer, plan: &Lifecycle) -> Life {
    let mut life = Life::default();
    if let Err(error) = steps(peer, plan, &mut life) {
        life.problems.push(error.to_string());
    }
    if let Err(error) = peer.kill() {
        life.problems.push(error.to_string());
    }
    peer.wipe();
    life
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn steps(peer: &mut Peer, plan: &Lifecycle, life: &mut Life) -> Result<(), LifeError> {
    // The first start formats the folder, which is not part of starting.
    peer.start()?;
    std::thread::sleep(REST);
    peer.stop()?;
    life.metrics.insert(Metric::ReadyMs, ms(peer.start()?));
    let idle = rest(peer, plan.idle_s);
    if let Some((rss, cpu)) = idle {
        life.metrics.insert(Metric::IdleRssMb, rss);
        life.metrics.insert(Metric::IdleCpuPercent, cpu);
    }
    let configs: Vec<(String, String)> = peer.spec.topic_configs.clone().into_iter().collect();
    let mut admin = Admin::connect(&peer.address(), ADMIN_TIMEOUT)?;
    admin.ensure_topics(&[TOPIC.to_string()], plan.partitions as usize, 1, &configs)?;
    ends(peer, plan.partitions)?;
    if let Some((rss, cpu)) = rest(peer, plan.idle_s) {
        life.metrics.insert(Metric::PartitionsRssMb, rss);
        life.metrics.insert(Metric::PartitionsCpuPercent, cpu);
    }
    preload(peer, plan)?;
    let before: u64 = ends(peer, plan.partitions)?;
    peer.kill()?;
    let begun = Instant::now();
    peer.start()?;
    let after = ends(peer, plan.partitions)?;
    life.metrics.insert(Metric::RecoveryMs, ms(begun.elapsed()));
    life.keep("kill -9", before, after);
    if let Some(rate) = plan.load_rate {
        under_load(peer, plan, rate, life, End::Kill)?;
        under_load(peer, plan, rate, life, End::Restart)?;
    }
    life.metrics.insert(Metric::StopMs, ms(peer.stop()?));
    Ok(())
}

impl Life {
    fn keep(&mut self, how: &str, acknowledged: u64, found: u64) {
        if found < acknowledged {
            let lost = acknowledged - found;
            self.problems
                .push(format!("{lost} acknowledged records were lost by {how}"));
        }
        self.kept.push(Kept {
            how: how.into(),
            acknowledged,
            found,
        });
    }
}

/// How a peer ends while records are written.
#[derive(Clone, Copy)]
enum End {
    Kill,
    Restart,
}

/// Ends the peer in the middle of a load, starts it again, and counts what it kept of what it had acknowledged.
fn under_load(
    peer: &mut Peer,
    plan: &Lifecycle,
    rate: f64,
    life: &mut Life,
    end: End,
) -> Result<(), LifeError> {
    let before = ends(peer, plan.partitions)?;
    let text = format!(
        "name = 'lifecycle'\n[topic]\nname = '{TOPIC}'\npartitions = {}\n[producer]\nrate = {rate:?}\nrecord_bytes = 1024\n[run]\nwarmup_s = 0\nduration_s = {}\ndrain_s = 5\n",
        plan.partitions,
        LOAD.as_secs()
    );
    let workload = Workload::parse(&text, "lifecycle", &[])?;
    let options = RunOptions {
        bootstrap: peer.address(),
        pid: None,
        verify: false,
        syscalls: false,
        keep_topics: true,
        progress: false,
    };
    let load = std::thread::spawn(move || run::run(&workload, &options));
    std::thread::sleep(LOAD / 2);
    let (how, metric, stopped) = match end {
        End::Kill => {
            peer.kill()?;
            ("kill -9 under load", Metric::LoadRecoveryMs, Duration::ZERO)
        }
        End::Restart => (
            "a clean restart under load",
            Metric::LoadRestartMs,
            peer.stop()?,
        ),
    };
    // The load breaks with its connection, so nothing of it reaches the broker that comes back.
    let outcome = load.join().map_err(|_| LifeError::NoLoad)??;
    let acknowledged = outcome
        .producer
        .as_ref()
        .map_or(0, |producer| producer.records_acknowledged);
    if !outcome.broken || acknowledged == 0 {
        return Err(LifeError::NoLoad);
    }
    let begun = Instant::now();
    peer.start()?;
    let after = ends(peer, plan.partitions)?;
    life.metrics.insert(metric, ms(stopped + begun.elapsed()));
    life.keep(how, before + acknowledged, after);
    Ok(())
}

/// Memory (10⁶ bytes) and CPU (percent of a core) over a while in which nothing is asked.
fn rest(peer: &Peer, seconds: f64) -> Option<(f64, f64)> {
    let watch = Watch::start(peer.pid(), REST, Duration::from_secs_f64(seconds), false);
    std::thread::sleep(REST + Duration::from_secs_f64(seconds));
    let usage = watch.finish()?.broker?;
    Some((usage.rss_bytes as f64 / 1e6, usage.cores() * 100.0))
}

/// Sum of the end offsets of all partitions, asked until all are told.
fn ends(peer: &Peer, partitions: u32) -> Result<u64, LifeError> {
    let wanted: Vec<(String, i32)> = (0..partitions)
        .map(|index| (TOPIC.to_string(), index.cast_signed()))
        .collect();
    let begun = Instant::now();
    let mut admin = Admin::connect(&peer.address(), ADMIN_TIMEOUT)?;
    loop {
        match admin.offsets(&wanted, -1) {
            Ok(offsets) if offsets.len() == wanted.len() => {
                return Ok(offsets
                    .values()
                    .map(|&end| u64::try_from(end).unwrap_or(0))
                    .sum());
            }
            Ok(_) => {}
            Err(AdminError::Refused { code, .. }) if code.is_retriable() => {}
            Err(error) => return Err(error.into()),
        }
        if begun.elapsed() > ADMIN_TIMEOUT {
            return Err(LifeError::NotLed(ADMIN_TIMEOUT));
        }
        std::thread::sleep(OFFSETS_EVERY);
    }
}

fn preload(peer: &Peer, plan: &Lifecycle) -> Result<(), LifeError> {
    let text = format!(
        "name = 'lifecycle'\n[topic]\nname = '{TOPIC}'\npartitions = {}\n[preload]\nbytes = {}\nbatch_bytes = 16384\n[run]\nwarmup_s = 0\nduration_s = 0\n",
        plan.partitions, plan.bytes
    );
    let workload = Workload::parse(&text, "lifecycle", &[])?;
    let options = RunOptions {
        bootstrap: peer.address(),
        pid: None,
        verify: false,
        syscalls: false,
        keep_topics: true,
        progress: false,
    };
    run::run(&workload, &options)?;
    Ok(())
}
