//! `compare`: two or more brokers on one machine, side by side, in turns.
//!
//! All peers run at the same time, each on its own fresh folder and port, and are loaded one at a time: in odd rounds in the
//! order given, in even rounds backwards (A B B A), so that slow drift of the machine falls on all alike. The device and a bare
//! send loop are measured in the same run. Figures of different runs are never compared.

pub mod figures;
pub mod lifecycle;
pub mod peer;
pub mod plan;
pub mod report;
pub mod statistics;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::environment::Environment;
use crate::probe::{self, DeviceFigures, FloorFigures, SendFigures};
use crate::results::Outcome;
use crate::run::{self, RunError, RunOptions};
use crate::workload::{Rate, Workload};
use lifecycle::Life;
use peer::{Peer, PeerError, PeerSpec};
use plan::{Metric, Plan};

/// Ports between one peer's and the next one's.
const PORTS_PER_PEER: u16 = 10;
/// The shipped peers remove deleted topics after a second.
const TOPICS_GO_WITHIN: Duration = Duration::from_secs(3);
/// Time per figure of the device, and per bare server.
const DEVICE_PATIENCE: Duration = Duration::from_secs(3);

/// How to compare.
pub struct CompareOptions {
    /// What to measure.
    pub plan: Plan,
    /// The peers; the first is the one goals are about, the second the one it is held against.
    pub peers: Vec<PeerSpec>,
    /// Rounds.
    pub rounds: usize,
    /// Where `{root}` of the peers' commands points.
    pub root: PathBuf,
    /// Where data is kept while it runs; on the disk that is to be measured.
    pub folder: PathBuf,
    /// First port.
    pub port: u16,
    /// Whether to verify every record.
    pub verify: bool,
    /// Replaces every peer's own warm-up, in seconds.
    pub warmup_s: Option<f64>,
}

/// One run of one workload on one peer.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// Round, from 1.
    pub round: usize,
    /// Peer, by index.
    pub peer: usize,
    /// Workload, by index.
    pub entry: usize,
    /// Whether nothing failed.
    pub complete: bool,
    /// What failed, or what makes it doubtful.
    pub remarks: Vec<String>,
    /// Figures.
    pub metrics: BTreeMap<Metric, f64>,
    /// The whole outcome.
    pub outcome: Option<Box<Outcome>>,
}

/// Everything a comparison found.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The plan.
    pub plan: Plan,
    /// The peers.
    pub peers: Vec<PeerSpec>,
    /// Rounds asked for.
    pub rounds: usize,
    /// Where it ran.
    pub environment: Environment,
    /// The client of record.
    pub client: String,
    /// The device, before each round.
    pub device: Vec<DeviceFigures>,
    /// The bare send loop, before each round.
    pub send_loop: Vec<SendFigures>,
    /// Servers that only answer, before each round.
    pub floor: Vec<FloorFigures>,
    /// Starting, idling and crashing, per peer.
    pub lives: Vec<Life>,
    /// All runs, in the order they happened.
    pub cells: Vec<Cell>,
    /// What could not be done.
    pub problems: Vec<String>,
}

/// Why a comparison could not begin.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// A peer.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The folder for data.
    #[error("cannot use {folder} for the peers' data: {source}")]
    Folder {
        /// The folder.
        folder: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Runs the comparison. What fails on the way is kept as a remark or a problem; what was measured until then stays.
/// `checkpoint` sees the comparison after every step, so that an interrupted one leaves its results.
pub fn compare(
    options: &CompareOptions,
    checkpoint: &dyn Fn(&Comparison),
) -> Result<Comparison, CompareError> {
    let folder_error = |source| CompareError::Folder {
        folder: options.folder.display().to_string(),
        source,
    };
    let work = options
        .folder
        .join(format!("ringlog-bench-compare-{}", std::process::id()));
    std::fs::create_dir_all(&work).map_err(folder_error)?;
    let root = options.root.canonicalize().map_err(folder_error)?;
    let work = work.canonicalize().map_err(folder_error)?;
    let mut specs = options.peers.clone();
    for spec in &mut specs {
        spec.warmup_s = options.warmup_s.unwrap_or(spec.warmup_s);
    }
    let mut peers: Vec<Peer> = specs
        .iter()
        .zip(0u16..)
        .map(|(spec, index)| {
            let port = options.port + index * PORTS_PER_PEER;
            Peer::new(
                spec.clone(),
                &root,
                &work.join(format!("peer-{index}")),
                port,
            )
        })
        .collect();
    let mut found = Comparison {
        plan: options.plan.clone(),
        peers: specs.clone(),
        rounds: options.rounds,
        environment: Environment::find(None),
        client: crate::results::CLIENT.to_string(),
        device: Vec::new(),
        send_loop: Vec::new(),
        floor: Vec::new(),
        lives: Vec::new(),
        cells: Vec::new(),
        problems: Vec::new(),
    };
    let outcome = steps(options, &work, &mut peers, &mut found, checkpoint);
    for peer in &mut peers {
        if let Err(error) = peer.stop() {
            found.problems.push(error.to_string());
        }
    }
    drop(peers);
    if outcome.is_ok() {
        // Only data of this comparison is in there; a failed one leaves the peers' output to be read.
        let _ = std::fs::remove_dir_all(&work);
    }
    checkpoint(&found);
    outcome.map(|()| found)
}

fn steps(
    options: &CompareOptions,
    work: &std::path::Path,
    peers: &mut [Peer],
    found: &mut Comparison,
    checkpoint: &dyn Fn(&Comparison),
) -> Result<(), CompareError> {
    if let Some(lifecycle) = &options.plan.lifecycle {
        for peer in peers.iter_mut() {
            eprintln!("{}: starting, idling, crashing", peer.spec.name);
            found.lives.push(lifecycle::live(peer, lifecycle));
            checkpoint(found);
        }
    }
    if options.plan.entries.is_empty() {
        return Ok(());
    }
    for peer in peers.iter_mut() {
        peer.start()?;
        let seconds = peer.spec.warmup_s;
        eprintln!("{}: warming up for {seconds} s", peer.spec.name);
        if let Err(error) = warm_up(peer, &options.plan, seconds) {
            found
                .problems
                .push(format!("{}: warm-up: {error}", peer.spec.name));
        }
    }
    for round in 1..=options.rounds {
        measure_machine(work, found);
        for entry in 0..options.plan.entries.len() {
            let mut order: Vec<usize> = (0..peers.len()).collect();
            if round % 2 == 0 {
                order.reverse();
            }
            for index in order {
                settle();
                let cell = cell(options, round, entry, index, &mut peers[index]);
                eprintln!("{}", line(&cell, found));
                found.cells.push(cell);
                checkpoint(found);
            }
        }
    }
    Ok(())
}

fn measure_machine(work: &std::path::Path, found: &mut Comparison) {
    match probe::device(work, DEVICE_PATIENCE) {
        Ok(figures) => found.device.push(figures),
        Err(error) => found
            .problems
            .push(format!("the device could not be measured: {error}")),
    }
    match probe::send_loop() {
        Ok(figures) => found.send_loop.push(figures),
        Err(error) => found
            .problems
            .push(format!("the send loop could not be measured: {error}")),
    }
    match probe::floor(work, DEVICE_PATIENCE) {
        Ok(figures) => found.floor.push(figures),
        Err(error) => found
            .problems
            .push(format!("bare servers could not be measured: {error}")),
    }
}

/// Lets the machine come to rest, so that a peer pays for its own writes only: topics of the run before are removed, and what a page cache still holds is
/// written out.
fn settle() {
    std::thread::sleep(TOPICS_GO_WITHIN);
    rustix::fs::sync();
}

fn line(cell: &Cell, found: &Comparison) -> String {
    let name = &found.plan.entries[cell.entry].workload.name;
    let figures: Vec<String> = cell
        .metrics
        .iter()
        .take(4)
        .map(|(metric, value)| format!("{} {value:.3}", metric.label()))
        .collect();
    let remarks = if cell.remarks.is_empty() {
        String::new()
    } else {
        format!("  ({})", cell.remarks.join("; "))
    };
    format!(
        "round {} {name} {}: {}{remarks}",
        cell.round,
        found.peers[cell.peer].name,
        figures.join(", ")
    )
}

fn prepared(workload: &Workload, peer: &Peer) -> Workload {
    let mut workload = workload.clone();
    workload
        .topic
        .configs
        .extend(peer.spec.topic_configs.clone());
    workload
}

fn options_for(peer: &Peer, verify: bool) -> RunOptions {
    RunOptions {
        bootstrap: peer.address(),
        pid: peer.pid(),
        verify,
        syscalls: false,
        keep_topics: false,
        progress: false,
    }
}

/// Loads a peer with the plan's own workloads, unmeasured, until the time is up.
fn warm_up(peer: &Peer, plan: &Plan, seconds: f64) -> Result<(), RunError> {
    if seconds <= 0.0 {
        return Ok(());
    }
    let share = seconds / plan.entries.len() as f64;
    for entry in &plan.entries {
        let mut workload = prepared(&entry.workload, peer);
        workload.run.warmup_s = 0.0;
        workload.run.duration_s = share;
        // Overload is for the measured runs: here it would only take time.
        if let Some(producer) = &mut workload.producer
            && let Rate::PerSecond(rate) = producer.rate
        {
            producer.rate = Rate::PerSecond(rate.min(2_000.0));
        }
        run::run(&workload, &options_for(peer, false))?;
    }
    Ok(())
}

fn cell(
    options: &CompareOptions,
    round: usize,
    entry: usize,
    index: usize,
    peer: &mut Peer,
) -> Cell {
    let mut cell = Cell {
        round,
        peer: index,
        entry,
        complete: false,
        remarks: Vec::new(),
        metrics: BTreeMap::new(),
        outcome: None,
    };
    // A peer that an earlier workload brought down gets another chance, and the report says so.
    if !peer.pid().is_some_and(crate::watch::alive) {
        cell.remarks
            .push("the broker was down and was started again".into());
        let restarted = peer.kill().and_then(|()| peer.start());
        if let Err(error) = restarted {
            cell.remarks.push(error.to_string());
            return cell;
        }
    }
    let workload = prepared(&options.plan.entries[entry].workload, peer);
    match run::run(&workload, &options_for(peer, options.verify)) {
        Ok(outcome) => {
            cell.complete = outcome.complete;
            cell.remarks
                .extend(outcome.problems.iter().chain(&outcome.doubts).cloned());
            let goals = options.plan.entries[entry]
                .goals
                .iter()
                .map(|goal| goal.metric);
            for metric in Metric::shown(&workload).into_iter().chain(goals) {
                if let Some(value) = metric.of(&outcome) {
                    cell.metrics.insert(metric, value);
                }
            }
            cell.outcome = Some(Box::new(outcome));
        }
        Err(error) => cell.remarks.push(error.to_string()),
    }
    cell
}
