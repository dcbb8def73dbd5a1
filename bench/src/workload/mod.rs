//! Workloads: the TOML files that say what a run does, and the strict reading of them.
//!
//! A file has `[topic]`, `[run]` and any of `[preload]`, `[producer]`, `[consumer]`, `[churn]` and `[slow_readers]`. Which are there decides what is
//! measured: a producer alone gives produce latency or throughput, a consumer alone fetch throughput, both together end-to-end
//! latency. Unknown keys, wrong types and values that make no sense are refused with line and key. Reading opens no connection.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::client::batch::STAMP_BYTES;
use crate::client::compression::Compression;
use sizes::SizeRange;

/// Distinct payloads of a producer, so that compression and deduplication see no single repeated record.
pub const PAYLOADS: usize = 64;

/// A checked workload.
#[derive(Clone, Debug, Serialize)]
pub struct Workload {
    /// Short name, used for result files and topics.
    pub name: String,
    /// One sentence for people.
    pub about: String,
    /// The topics it runs over.
    pub topic: Topic,
    /// Data written before anything is measured.
    pub preload: Option<Preload>,
    /// Producing load.
    pub producer: Option<Producer>,
    /// Consuming load.
    pub consumer: Option<Consumer>,
    /// Connections that come and go beside the load.
    pub churn: Option<Churn>,
    /// Readers beside the load that hardly read.
    pub slow_readers: Option<SlowReaders>,
    /// How long.
    pub run: Run,
}

/// Connections that come and go.
#[derive(Clone, Debug, Serialize)]
pub struct Churn {
    /// Connections per second, each opened, asked for metadata and closed.
    pub rate: f64,
}

/// Readers that hardly read.
#[derive(Clone, Debug, Serialize)]
pub struct SlowReaders {
    /// Clients, each with a connection to every leader.
    pub connections: usize,
    /// What each takes off its socket.
    pub bytes_per_s: u64,
    /// What each asks for at once.
    pub max_bytes: u32,
}

/// The topics of a workload.
#[derive(Clone, Debug, Serialize)]
pub struct Topic {
    /// Name of the topic, or prefix where there are several; a fresh name per run where it is not given.
    pub name: Option<String>,
    /// Number of topics.
    pub count: u32,
    /// Partitions of each.
    pub partitions: u32,
    /// Replicas of each partition.
    pub replication_factor: i16,
    /// Topic configuration, Kafka's keys.
    pub configs: BTreeMap<String, String>,
}

/// Data written before the run.
#[derive(Clone, Debug, Serialize)]
pub struct Preload {
    /// Bytes of record values over all partitions.
    pub bytes: u64,
    /// Bytes of each value.
    pub record_bytes: usize,
    /// Bytes per batch.
    pub batch_bytes: usize,
}

/// When records are due.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rate {
    /// Open loop: this many records per second over all partitions, whatever the broker does.
    PerSecond(f64),
    /// Closed loop: as fast as the in-flight limits allow.
    Max,
}

/// How many acknowledgements a producer asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Acks {
    /// None: no answer comes, so there is no latency to measure.
    None,
    /// The leader's.
    Leader,
    /// All in-sync replicas'.
    All,
}

impl Acks {
    /// The protocol's number.
    pub fn wire(self) -> i16 {
        match self {
            Acks::None => 0,
            Acks::Leader => 1,
            Acks::All => -1,
        }
    }
}

/// When consecutive records are due, at a given rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arrival {
    /// Evenly spaced.
    Uniform,
    /// A Poisson process: exponential gaps, as independent clients give.
    Poisson,
}

/// Which partition a record goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Partitioner {
    /// One after another.
    RoundRobin,
    /// At random.
    Random,
}

/// Producing load.
#[derive(Clone, Debug, Serialize)]
pub struct Producer {
    /// Open-loop rate, or as fast as possible.
    pub rate: Rate,
    /// Spacing of an open loop.
    pub arrival: Arrival,
    /// Records that fall due at one moment; the rate stays the same.
    pub burst_records: u32,
    /// Bytes of a record's value; the mean where they vary.
    pub record_bytes: usize,
    /// Sizes of values that vary; empty where all have `record_bytes`.
    pub record_sizes: Vec<SizeRange>,
    /// Bytes of a record's key; 0 for none.
    pub key_bytes: usize,
    /// What every record's value is, of just `record_bytes`; random where absent.
    pub payload_file: Option<PathBuf>,
    /// How much of the payload repeats, from 0 (random) to 1 (all the same): what compression finds.
    pub repetition: f64,
    /// Partition choice.
    pub partitioner: Partitioner,
    /// How long a batch waits for more records.
    pub linger_ms: f64,
    /// A batch is closed at this many bytes before compression.
    pub batch_bytes: usize,
    /// Acknowledgements.
    pub acks: Acks,
    /// Codec.
    #[serde(serialize_with = "codec_name")]
    pub compression: Compression,
    /// Clients, each with its own connection to every leader.
    pub connections: usize,
    /// Unanswered requests per connection.
    pub in_flight: usize,
    /// Batches of different partitions in one request; 0 for as many as are ready.
    pub partitions_per_request: usize,
    /// Whether records carry producer id and sequence.
    pub idempotence: bool,
    /// Bytes that may wait in the generator; beyond it the backlog is kept as intended times only.
    pub buffer_bytes: usize,
}

impl Producer {
    /// Bytes of the smallest value.
    pub fn smallest_record(&self) -> usize {
        let sizes = self.record_sizes.iter().map(|size| size.bytes);
        sizes.min().unwrap_or(self.record_bytes)
    }
}

/// Where a consumer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// At the log start.
    Earliest,
    /// At the end as of when the run begins.
    Latest,
}

/// Consuming load.
#[derive(Clone, Debug, Serialize)]
pub struct Consumer {
    /// Where to begin.
    pub start: Start,
    /// Whether to begin again at the end reached by the preload, so that a fetch run lasts as long as asked.
    pub repeat: bool,
    /// Clients, each reading every partition over its own connections.
    pub connections: usize,
    /// Fetch: how long the broker may wait for `min_bytes`.
    pub max_wait_ms: u32,
    /// Fetch: bytes worth an answer.
    pub min_bytes: u32,
    /// Fetch: bytes per answer.
    pub max_bytes: u32,
    /// Fetch: bytes per partition in an answer.
    pub partition_max_bytes: u32,
    /// Whether to check every batch's CRC-32C, as Java's client does.
    pub check_crc: bool,
}

/// How long a run takes.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// Seconds of load that is not measured.
    pub warmup_s: f64,
    /// Seconds that are measured.
    pub duration_s: f64,
    /// Seconds to wait for what is still unanswered or undelivered at the end.
    pub drain_s: f64,
}

fn codec_name<S: serde::Serializer>(codec: &Compression, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(codec.name())
}

/// Why a workload was refused.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// The file could not be read.
    #[error("cannot read workload {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A key is wrong.
    #[error("{file}:{line}: {key}: {reason}")]
    Key {
        /// The file, or `--set`.
        file: String,
        /// Line of the key, from 1.
        line: usize,
        /// Dotted name of the key.
        key: String,
        /// What to do about it.
        reason: String,
    },
    /// Not TOML, an unknown key, or a value of the wrong type.
    #[error("{file}: {message}")]
    Syntax {
        /// The file, or `--set`.
        file: String,
        /// With line, column and key.
        message: String,
    },
    /// An override that does not parse.
    #[error("--set {0}: write KEY=VALUE with a dotted key, for example producer.rate=2000")]
    Override(String),
}

impl Workload {
    /// Reads and checks `path` (TOML, or YAML of the OpenMessaging Benchmark), then applies `overrides` (`producer.rate=2000`) and checks again.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Workload, WorkloadError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| WorkloadError::Read {
            path: name.clone(),
            source,
        })?;
        if omb::is_omb(path) {
            let text = omb::translate(&text, path, overrides)?;
            return Self::parse(&text, &name, overrides);
        }
        Self::parse(&text, &name, overrides)
    }

    /// [`load`](Self::load) on a text; `file` is what errors call it.
    pub fn parse(text: &str, file: &str, overrides: &[String]) -> Result<Workload, WorkloadError> {
        let workload = checks::parse(text, file)?;
        if overrides.is_empty() {
            return Ok(workload);
        }
        let mut table: toml::Table =
            text.parse()
                .map_err(|error: toml::de::Error| WorkloadError::Syntax {
                    file: file.into(),
                    message: error.to_string(),
                })?;
        for one in overrides {
            set(&mut table, one).ok_or_else(|| WorkloadError::Override(one.clone()))?;
        }
        checks::parse(&table.to_string(), &format!("{file} with --set"))
    }

    /// Whether records must carry a stamp: for end-to-end latency, or because everything is verified.
    pub fn stamped(&self, verify: bool) -> bool {
        verify || (self.producer.is_some() && self.consumer.is_some())
    }
}

fn set(table: &mut toml::Table, one: &str) -> Option<()> {
    let (path, value) = one.split_once('=')?;
    let value = format!("v={value}")
        .parse::<toml::Table>()
        .or_else(|_| format!("v={value:?}").parse())
        .ok()?;
    let value = value.get("v")?.clone();
    let mut parts: Vec<&str> = path.trim().split('.').collect();
    let last = parts.pop()?;
    let mut at = table;
    for part in parts {
        at = at
            .entry(part)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()))
            .as_table_mut()?;
    }
    at.insert(last.to_string(), value);
    Some(())
}

mod checks;
mod key;
mod omb;
pub mod sizes;
mod text;
