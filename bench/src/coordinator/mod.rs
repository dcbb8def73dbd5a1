//! `coordinator`: what groups, committed offsets and transactions cost, on one running broker or on several that take turns.
//!
//! Each mode is a file that runs once against a [`Target`] and gives an [`Outcome`]: named figures, a latency distribution where there is one, and
//! what was observed of the broker. [`rounds`] starts peers and alternates them; [`report`] prints. One broker is coordinator and leader of
//! everything; a cluster is refused where that matters.

mod bulk;
mod commits;
mod idle;
mod members;
mod million;
mod producer;
pub mod report;
pub mod rounds;
mod transactions;

use std::collections::BTreeMap;
use std::time::Duration;

use ringlog_net::error_code::ErrorCode;
use serde::Serialize;

use crate::client::admin::{Admin, AdminError};
use crate::compare::peer::PeerError;
use crate::latency::Summary;
use crate::watch::Observed;

/// How long one administrative request may take.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(70);

/// What to measure.
#[derive(Clone, Debug, clap::Subcommand, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Concurrent committers, a closed loop: commits/s and their latency
    Commits(commits::Commits),
    /// A classic group from empty to stable, and all its members leaving
    Members(members::Members),
    /// Memory per group that only remembers an offset; needs --pid or --peer
    Idle(idle::Idle),
    /// A transactional producer against the same one without transactions
    Transactions(transactions::Transactions),
    /// Very many committed offsets, and the time to load them when the broker starts again
    Million(million::Million),
}

impl Mode {
    /// Its name on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Mode::Commits(_) => "commits",
            Mode::Members(_) => "members",
            Mode::Idle(_) => "idle",
            Mode::Transactions(_) => "transactions",
            Mode::Million(_) => "million",
        }
    }

    /// Runs it once.
    pub fn run(&self, target: &Target) -> Result<Outcome, CoordinatorError> {
        match self {
            Mode::Commits(plan) => commits::run(target, plan),
            Mode::Members(plan) => members::run(target, plan),
            Mode::Idle(plan) => idle::run(target, plan),
            Mode::Transactions(plan) => transactions::run(target, plan),
            Mode::Million(plan) => million::run(target, plan),
        }
    }

    /// The same with less of everything, for warming up.
    fn brief(&self) -> Mode {
        let mut brief = self.clone();
        match &mut brief {
            Mode::Commits(plan) => (plan.warmup_s, plan.duration_s) = (0.0, 5.0),
            Mode::Members(plan) => plan.groups = 1,
            Mode::Idle(plan) => (plan.steps, plan.rest_s) = (1, 0.1),
            Mode::Transactions(plan) => {
                (plan.pairs, plan.warmup_s, plan.duration_s) = (1, 0.0, 2.5);
            }
            Mode::Million(plan) => plan.groups = plan.groups.min(1_000),
        }
        brief
    }
}

/// A number of seconds that a run may take.
fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=86_400.0).contains(&value) => Ok(value),
        _ => Err("a number of seconds from 0 to 86400 is needed".into()),
    }
}

/// A broker, and the names that one run may use there.
#[derive(Clone, Debug)]
pub struct Target {
    /// `host:port`.
    pub bootstrap: String,
    /// Its pid, where it is to be watched.
    pub pid: Option<u32>,
    /// Configuration of topics that are created.
    pub topic_configs: Vec<(String, String)>,
    /// Makes this run's names its own.
    pub run: String,
}

impl Target {
    fn admin(&self) -> Result<Admin, AdminError> {
        Admin::connect(&self.bootstrap, ADMIN_TIMEOUT)
    }

    /// A name that no other run uses.
    fn name(&self, what: &str) -> String {
        format!("bench-{}-{what}", self.run)
    }

    fn create(&self, admin: &mut Admin, topic: &str, partitions: usize) -> Result<(), AdminError> {
        admin.ensure_topics(&[topic.to_string()], partitions, 1, &self.topic_configs)?;
        Ok(())
    }

    fn drop_topic(&self, admin: &mut Admin, topic: &str) -> Result<(), AdminError> {
        admin.delete_topics(&[topic.to_string()])
    }

    #[cfg(test)]
    fn for_tests() -> Target {
        Target {
            bootstrap: String::new(),
            pid: None,
            topic_configs: Vec::new(),
            run: "test".into(),
        }
    }
}

/// What one run found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    /// Figures by name; the names end in their unit.
    pub figures: BTreeMap<&'static str, f64>,
    /// The latency that the mode is about.
    pub latency: Option<Summary>,
    /// The broker, this process and the machine meanwhile.
    pub observed: Option<Observed>,
    /// Kafka's errors, counted.
    pub errors: BTreeMap<String, u64>,
    /// Errors after which a producer sent something again, counted.
    pub sent_again: BTreeMap<String, u64>,
    /// What makes the run incomplete.
    pub problems: Vec<String>,
}

impl Outcome {
    fn figure(&mut self, name: &'static str, value: f64) {
        self.figures.insert(name, value);
    }

    fn refused(&mut self, code: ErrorCode) {
        *self.errors.entry(code.to_string()).or_default() += 1;
    }

    /// Adds the broker's CPU per thing done, and its cores and memory, where it was watched.
    fn costs(&mut self, done: u64, per_thing: &'static str) {
        let usage = self.observed.as_ref().and_then(|seen| seen.broker.clone());
        if let Some(usage) = usage {
            if done > 0 {
                self.figure(per_thing, usage.cpu_s() * 1e6 / done as f64);
            }
            self.figure("broker_cores", usage.cores());
            self.figure("broker_rss_max_mb", usage.rss_max_bytes as f64 / 1e6);
        }
    }

    /// Whether nothing went wrong.
    pub fn complete(&self) -> bool {
        self.errors.is_empty() && self.problems.is_empty()
    }
}

/// Why a run could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    /// An administrative request.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// A connection broke, or brought nonsense.
    #[error("the connection to the broker failed: {0}")]
    Io(#[from] std::io::Error),
    /// The broker refused what the measurement needs.
    #[error("the broker refused {what}: {code}")]
    Refused {
        /// What was asked.
        what: String,
        /// Kafka's error.
        code: ErrorCode,
    },
    /// Something took longer than it was given.
    #[error("gave up waiting for {0}")]
    TooSlow(&'static str),
    /// The producer's batches are refused again and again.
    #[error("the producer's batches are refused for now again and again: {0}")]
    Stuck(String),
    /// A committed offset is not what was committed.
    #[error("group {group} is at offset {found} where {expected} was committed")]
    Lost {
        /// The group.
        group: String,
        /// What the broker answered, −1 for nothing.
        found: i64,
        /// What it had acknowledged.
        expected: i64,
    },
    /// Coordinator and leader differ.
    #[error("the coordinator is not the partitions' leader; this measures a single broker")]
    SeveralBrokers,
    /// Memory cannot be read.
    #[error(
        "the broker's memory is needed: give its process id with --pid, or let --peer start it"
    )]
    NoPid,
    /// A restart without a start command.
    #[error("--restart and --crash need --peer: a broker that this command can start")]
    NoPeer,
    /// A peer.
    #[error(transparent)]
    Peer(#[from] PeerError),
}

#[cfg(test)]
mod tests {
    //! The command line is what the README says, and what makes no sense is refused before a broker is asked.
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(subcommand)]
        mode: Mode,
    }

    fn parse(words: &[&str]) -> Result<Mode, clap::Error> {
        Command::try_parse_from([&["coordinator"], words].concat()).map(|command| command.mode)
    }

    #[test]
    fn defaults_are_the_figures_to_reach() {
        let Ok(Mode::Commits(plan)) = parse(&["commits"]) else {
            panic!("commits");
        };
        assert_eq!((plan.committers, plan.one_group), (64, false));
        let Ok(Mode::Members(plan)) = parse(&["members"]) else {
            panic!("members");
        };
        assert_eq!(plan.members, 1_000);
        let Ok(Mode::Million(plan)) = parse(&["million", "--restart"]) else {
            panic!("million");
        };
        assert_eq!(plan.groups * plan.partitions, 1_000_000);
        assert!(plan.restart && !plan.crash);
        let Ok(Mode::Transactions(plan)) = parse(&["transactions"]) else {
            panic!("transactions");
        };
        assert_eq!(
            (plan.transaction_ms, plan.partitions, plan.record_bytes),
            (100, 4, 1024)
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for words in [
            &["commits", "--committers", "0"][..],
            &["commits", "--duration-s", "-1"],
            &["commits", "--duration-s", "nan"],
            &["members", "--members", "1000000"],
            &["transactions", "--record-bytes", "0"],
            &["million", "--groups", "0"],
            &["everything"],
        ] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }
}
