//! A workload file as it is written: which keys there are and of which type, by serde. What they mean is checked in [`super::checks`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use super::sizes::SizeRange;

/// A key that may be left out, with its place in the file.
pub type Value<T> = Option<Spanned<T>>;

/// The whole file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileText {
    pub name: Spanned<String>,
    pub about: Option<String>,
    #[serde(default)]
    pub topic: TopicText,
    pub preload: Option<PreloadText>,
    pub producer: Option<ProducerText>,
    pub consumer: Option<ConsumerText>,
    pub churn: Option<ChurnText>,
    pub slow_readers: Option<SlowReadersText>,
    #[serde(default)]
    pub run: RunText,
}

/// `[topic]`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct TopicText {
    pub name: Value<String>,
    pub count: Value<u32>,
    pub partitions: Value<u32>,
    pub replication_factor: Value<i16>,
    pub configs: Option<BTreeMap<String, String>>,
}

/// `[preload]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreloadText {
    pub bytes: Spanned<u64>,
    pub record_bytes: Value<usize>,
    pub batch_bytes: Value<usize>,
}

/// `[producer]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProducerText {
    pub rate: Spanned<toml::Value>,
    pub arrival: Value<String>,
    pub burst_records: Value<u32>,
    pub record_bytes: Value<usize>,
    pub record_sizes: Value<Vec<SizeRange>>,
    pub key_bytes: Value<usize>,
    pub payload_file: Value<PathBuf>,
    pub repetition: Value<f64>,
    pub partitioner: Value<String>,
    pub linger_ms: Value<toml::Value>,
    pub batch_bytes: Value<usize>,
    pub acks: Value<toml::Value>,
    pub compression: Value<String>,
    pub connections: Value<usize>,
    pub in_flight: Value<usize>,
    pub partitions_per_request: Value<usize>,
    pub idempotence: Option<bool>,
    pub buffer_bytes: Value<usize>,
}

/// `[consumer]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsumerText {
    pub start: Value<String>,
    pub repeat: Value<bool>,
    pub connections: Value<usize>,
    pub max_wait_ms: Value<u32>,
    pub min_bytes: Value<u32>,
    pub max_bytes: Value<u32>,
    pub partition_max_bytes: Value<u32>,
    pub check_crc: Option<bool>,
}

/// `[churn]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChurnText {
    pub rate: Spanned<toml::Value>,
}

/// `[slow_readers]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlowReadersText {
    pub connections: Spanned<usize>,
    pub bytes_per_s: Value<u64>,
    pub max_bytes: Value<u32>,
}

/// `[run]`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct RunText {
    pub warmup_s: Value<toml::Value>,
    pub duration_s: Value<toml::Value>,
    pub drain_s: Value<toml::Value>,
}
