//! One run, or rounds over peers that take turns: A B, then B A, so that slow drift of the machine falls on all alike.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{CoordinatorError, Mode, Outcome, Target, million};
use crate::compare::peer::{Peer, PeerSpec};
use crate::compare::statistics::{self, Ratio, Spread};
use crate::environment::Environment;

/// Ports between one peer's and the next one's.
const PORTS_PER_PEER: u16 = 10;
/// Rest before each run, in which the run before is forgotten.
const REST: Duration = Duration::from_secs(2);

/// Who is measured.
#[derive(Clone, Debug)]
pub enum Brokers {
    /// One that runs already.
    Running {
        /// `host:port`.
        bootstrap: String,
        /// Its pid, where it is to be watched.
        pid: Option<u32>,
    },
    /// Those that this command starts.
    Peers {
        /// Their descriptions; ratios are of the first to each other.
        specs: Vec<PeerSpec>,
        /// What `{root}` means in their commands.
        root: PathBuf,
        /// Where they keep their data.
        folder: PathBuf,
        /// The first port.
        port: u16,
        /// Replaces their own warm-up, in seconds.
        warmup_s: Option<f64>,
    },
}

/// One run.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// Round, from 1.
    pub round: usize,
    /// Peer, by index.
    pub peer: usize,
    /// What it found; nothing where it failed.
    pub outcome: Option<Outcome>,
    /// Why it failed.
    pub failed: Option<String>,
}

/// Everything that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// What was measured, with all its settings.
    pub mode: Mode,
    /// Names of the peers, or the address of the one broker.
    pub brokers: Vec<String>,
    /// Where it ran.
    pub environment: Environment,
    /// All runs in order.
    pub runs: Vec<Run>,
}

impl Found {
    /// The runs of `peer` that have the figure, by round.
    fn values(&self, peer: usize, figure: &str) -> BTreeMap<usize, f64> {
        let runs = self.runs.iter().filter(|run| run.peer == peer);
        runs.filter_map(|run| {
            let value = *run.outcome.as_ref()?.figures.get(figure)?;
            Some((run.round, value))
        })
        .collect()
    }

    /// Median and extremes of a figure of one peer.
    pub fn spread(&self, peer: usize, figure: &str) -> Option<Spread> {
        let values: Vec<f64> = self.values(peer, figure).into_values().collect();
        statistics::spread(&values)
    }

    /// Ratio of the first peer's figure to another's, by the rounds that both have.
    pub fn ratio(&self, other: usize, figure: &str) -> Option<Ratio> {
        let (first, others) = (self.values(0, figure), self.values(other, figure));
        let pairs = first
            .iter()
            .filter_map(|(round, value)| Some((*value, *others.get(round)?)));
        let (first, others): (Vec<f64>, Vec<f64>) = pairs.unzip();
        statistics::ratio(&first, &others)
    }

    /// Whether every run was made and nothing went wrong in it.
    pub fn complete(&self) -> bool {
        let complete = |run: &Run| run.outcome.as_ref().is_some_and(Outcome::complete);
        !self.runs.is_empty()
            && self
                .runs
                .iter()
                .all(|run| run.failed.is_none() && complete(run))
    }
}

/// Runs `mode` for `rounds` on each broker. A run that fails is kept as such; `checkpoint` sees what there is after each.
pub fn measure(
    mode: &Mode,
    brokers: &Brokers,
    rounds: usize,
    checkpoint: &dyn Fn(&Found),
) -> Result<Found, CoordinatorError> {
    let restarts = matches!(mode, Mode::Million(plan) if plan.restart || plan.crash);
    let mut found = Found {
        mode: mode.clone(),
        brokers: Vec::new(),
        environment: Environment::find(None),
        runs: Vec::new(),
    };
    match brokers {
        Brokers::Running { .. } if restarts => return Err(CoordinatorError::NoPeer),
        Brokers::Running { pid: None, .. } if matches!(mode, Mode::Idle(_)) => {
            return Err(CoordinatorError::NoPid);
        }
        Brokers::Running { bootstrap, pid } => {
            found.environment = Environment::find(*pid);
            found.brokers.push(bootstrap.clone());
            for round in 1..=rounds {
                let target = Target {
                    bootstrap: bootstrap.clone(),
                    pid: *pid,
                    topic_configs: Vec::new(),
                    run: run_name(round),
                };
                let outcome = mode.run(&target);
                // With one broker and one round there is nothing to keep of a failure.
                let outcome = match outcome {
                    Err(error) if rounds == 1 => return Err(error),
                    other => other,
                };
                keep(&mut found, round, 0, outcome);
                checkpoint(&found);
            }
        }
        Brokers::Peers {
            specs,
            root,
            folder,
            port,
            warmup_s,
        } => {
            let work = folder.join(format!("ringlog-bench-coordinator-{}", std::process::id()));
            std::fs::create_dir_all(&work)?;
            let (root, work) = (root.canonicalize()?, work.canonicalize()?);
            found.brokers = specs.iter().map(|spec| spec.name.clone()).collect();
            let mut peers = prepare(specs, &root, &work, *port, *warmup_s);
            take_turns(mode, &mut peers, rounds, &mut found, checkpoint)?;
            for peer in &mut peers {
                peer.stop()?;
            }
            drop(peers);
            // Only these peers' data is in there; after a failure it stays, with what they wrote.
            let _ = std::fs::remove_dir_all(&work);
        }
    }
    Ok(found)
}

fn prepare(
    specs: &[PeerSpec],
    root: &Path,
    work: &Path,
    port: u16,
    warmup_s: Option<f64>,
) -> Vec<Peer> {
    let numbered = specs.iter().zip(0u16..);
    numbered
        .map(|(spec, index)| {
            let mut spec = spec.clone();
            spec.warmup_s = warmup_s.unwrap_or(spec.warmup_s);
            let data = work.join(format!("peer-{index}"));
            Peer::new(spec, root, &data, port + index * PORTS_PER_PEER)
        })
        .collect()
}

fn take_turns(
    mode: &Mode,
    peers: &mut [Peer],
    rounds: usize,
    found: &mut Found,
    checkpoint: &dyn Fn(&Found),
) -> Result<(), CoordinatorError> {
    // Offsets of an earlier round would be loaded with this one's: then a peer runs alone, and begins anew each time.
    let fresh = matches!(mode, Mode::Million(_));
    if !fresh {
        for peer in peers.iter_mut() {
            peer.start()?;
            warm_up(mode, peer)?;
        }
    }
    for round in 1..=rounds {
        let mut order: Vec<usize> = (0..peers.len()).collect();
        if round % 2 == 0 {
            order.reverse();
        }
        for index in order {
            let peer = &mut peers[index];
            std::thread::sleep(REST);
            rustix::fs::sync();
            let outcome = if fresh {
                let outcome = alone(mode, peer, round);
                peer.kill()?;
                peer.wipe();
                outcome
            } else {
                mode.run(&target_of(peer, round))
            };
            keep(found, round, index, outcome);
            checkpoint(found);
        }
    }
    Ok(())
}

/// Loads a peer with what will be measured until its warm-up is over.
fn warm_up(mode: &Mode, peer: &Peer) -> Result<(), CoordinatorError> {
    let seconds = peer.spec.warmup_s;
    if seconds <= 0.0 {
        return Ok(());
    }
    eprintln!("{}: warming up for {seconds} s", peer.spec.name);
    let begun = Instant::now();
    let brief = mode.brief();
    let mut number = 0;
    while begun.elapsed().as_secs_f64() < seconds {
        let mut target = target_of(peer, 0);
        target.run = format!("{}-{number}", target.run);
        brief.run(&target)?;
        number += 1;
    }
    Ok(())
}

/// A run on a peer that is started for it on an empty folder, and started again as the mode asks.
fn alone(mode: &Mode, peer: &mut Peer, round: usize) -> Result<Outcome, CoordinatorError> {
    peer.start()?;
    let target = target_of(peer, round);
    let mut outcome = mode.run(&target)?;
    if let Mode::Million(plan) = mode {
        for (asked, crash) in [(plan.restart, false), (plan.crash, true)] {
            if asked {
                million::time_start(peer, &target, plan, crash, &mut outcome)?;
            }
        }
    }
    Ok(outcome)
}

fn target_of(peer: &Peer, round: usize) -> Target {
    Target {
        bootstrap: peer.address(),
        pid: peer.pid(),
        topic_configs: peer.spec.topic_configs.clone().into_iter().collect(),
        run: run_name(round),
    }
}

/// Tells this process's rounds from each other and from those of other processes.
fn run_name(round: usize) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seconds = now.unwrap_or_default().as_secs();
    format!("{seconds:x}-{}-{round}", std::process::id())
}

fn keep(found: &mut Found, round: usize, peer: usize, outcome: Result<Outcome, CoordinatorError>) {
    let (outcome, failed) = match outcome {
        Ok(outcome) => (Some(outcome), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let run = Run {
        round,
        peer,
        outcome,
        failed,
    };
    eprintln!("{}", super::report::line(&run, &found.brokers[peer]));
    found.runs.push(run);
}

#[cfg(test)]
mod tests {
    //! Ratios pair rounds, and a run that failed makes neither a pair nor a complete result.
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(subcommand)]
        mode: Mode,
    }

    fn found(runs: &[(usize, usize, Option<f64>)]) -> Found {
        let run = |&(round, peer, value): &(usize, usize, Option<f64>)| Run {
            round,
            peer,
            outcome: value.map(|value| Outcome {
                figures: BTreeMap::from([("commits_per_s", value)]),
                ..Outcome::default()
            }),
            failed: value.is_none().then(|| "broken".to_string()),
        };
        Found {
            mode: Command::parse_from(["coordinator", "commits"]).mode,
            brokers: vec!["one".into(), "other".into()],
            environment: Environment::find(None),
            runs: runs.iter().map(run).collect(),
        }
    }

    #[test]
    fn ratios_pair_rounds() {
        let found = found(&[
            (1, 0, Some(4.0)),
            (1, 1, Some(2.0)),
            (2, 1, Some(100.0)),
            (2, 0, None),
            (3, 0, Some(9.0)),
            (3, 1, Some(3.0)),
        ]);
        let ratio = found.ratio(1, "commits_per_s").unwrap();
        assert_eq!((ratio.median, ratio.count), (2.5, 2));
        assert_eq!(found.spread(1, "commits_per_s").unwrap().median, 3.0);
        assert!(!found.complete());
        assert!(super::super::report::text(&found).contains("broken"));
    }

    #[test]
    fn what_needs_a_peer_or_a_pid_is_refused_without_asking_a_broker() {
        let brokers = Brokers::Running {
            bootstrap: "127.0.0.1:1".into(),
            pid: None,
        };
        for words in [
            &["coordinator", "million", "--restart"][..],
            &["coordinator", "idle"],
        ] {
            let mode = Command::parse_from(words).mode;
            let error = measure(&mode, &brokers, 1, &|_| {}).unwrap_err();
            let expected = matches!(error, CoordinatorError::NoPeer | CoordinatorError::NoPid);
            assert!(expected, "{error}");
        }
    }
}
