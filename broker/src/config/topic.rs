//! What holds for a topic or for this broker once static configuration and dynamic changes are laid over each other.
//!
//! Precedence is Kafka's (KIP-226): the topic's own value, this broker's dynamic value, the cluster's dynamic default, the file or command
//! line, the default. Pure: everything comes from the image and the static configuration.

use std::collections::BTreeMap;

use ringlog_engine::batch::{ProduceRules, TimestampType};
use ringlog_engine::config::LogConfig;

use super::keys::{self, Update};
use super::topic_keys::{self, TopicKey};
use super::{BrokerConfig, ConfigError, split_list};
use crate::controller::image::Image;
use crate::shard::settings::TopicSettings;

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Set on the topic.
    Topic,
    /// Set on this broker while it ran.
    DynamicBroker,
    /// Set for all brokers while they ran.
    DynamicDefaultBroker,
    /// In the file or on the command line.
    StaticBroker,
    /// Nobody set it.
    Default,
}

impl Source {
    /// The number in DescribeConfigs answers.
    pub fn code(self) -> i8 {
        match self {
            Source::Topic => 1,
            Source::DynamicBroker => 2,
            Source::DynamicDefaultBroker => 3,
            Source::StaticBroker => 4,
            Source::Default => 5,
        }
    }
}

/// A value, where it comes from, and all it overrides, strongest first (itself included).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectiveValue {
    /// The value.
    pub value: String,
    /// Where it comes from.
    pub source: Source,
    /// Name, value and source of each level that says something.
    pub synonyms: Vec<(String, String, Source)>,
}

impl EffectiveValue {
    fn from_levels(synonyms: Vec<(String, String, Source)>) -> Self {
        let (value, source) = synonyms
            .first()
            .map_or((String::new(), Source::Default), |(_, value, source)| {
                (value.clone(), *source)
            });
        Self {
            value,
            source,
            synonyms,
        }
    }
}

/// What holds for a topic-level key on a topic; a name that is in no table has an empty value.
pub fn effective(name: &str, config: &BrokerConfig, image: &Image, topic: &str) -> EffectiveValue {
    let mut levels = Vec::new();
    if let Some(value) = image.topic_configs(topic).get(name) {
        levels.push((name.to_string(), value.clone(), Source::Topic));
    }
    match topic_keys::topic(name) {
        Some(TopicKey {
            broker_key: Some(broker_key),
            ..
        }) => {
            levels.extend(broker_levels(broker_key, config, image, config.node_id));
        }
        Some(key) => levels.push((name.to_string(), key.default.to_string(), Source::Default)),
        None => {}
    }
    EffectiveValue::from_levels(levels)
}

/// What holds for a broker key on broker `node_id`, as far as this broker knows.
pub fn broker_effective(
    name: &str,
    config: &BrokerConfig,
    image: &Image,
    node_id: i32,
) -> EffectiveValue {
    EffectiveValue::from_levels(broker_levels(name, config, image, node_id))
}

fn broker_levels(
    name: &str,
    config: &BrokerConfig,
    image: &Image,
    node_id: i32,
) -> Vec<(String, String, Source)> {
    let Some(key) = keys::broker(name) else {
        return Vec::new();
    };
    let mut levels = Vec::new();
    if key.update != Update::ReadOnly {
        if let Some(value) = image.broker_configs(Some(node_id)).get(name) {
            levels.push((name.to_string(), value.clone(), Source::DynamicBroker));
        }
        if let Some(value) = image.broker_configs(None).get(name) {
            levels.push((
                name.to_string(),
                value.clone(),
                Source::DynamicDefaultBroker,
            ));
        }
    }
    if config.is_set(name) {
        levels.push((
            name.to_string(),
            config.get(name).to_string(),
            Source::StaticBroker,
        ));
        levels.push((name.to_string(), key.default.to_string(), Source::Default));
    } else {
        levels.push((
            name.to_string(),
            config.get(name).to_string(),
            Source::Default,
        ));
    }
    levels
}

/// Checks the overrides of a topic as a whole.
///
/// # Errors
/// The first key that is unknown or whose value is not allowed.
pub fn validate(overrides: &BTreeMap<String, String>) -> Result<(), ConfigError> {
    for (name, value) in overrides {
        let key = topic_keys::topic(name).ok_or_else(|| {
            ConfigError::new(name, value, "topics have no configuration of this name")
        })?;
        key.kind
            .check(value)
            .map_err(|reason| ConfigError::new(name, value, reason))?;
    }
    Ok(())
}

/// What the engine is told of a topic's logs.
pub fn log_config(config: &BrokerConfig, image: &Image, topic: &str) -> LogConfig {
    let number = |name| number(config, image, topic, name);
    let policy = effective("cleanup.policy", config, image, topic).value;
    LogConfig {
        segment_bytes: number("segment.bytes").max(1) as u64,
        segment_ms: number("segment.ms"),
        segment_index_bytes: number("segment.index.bytes").max(0) as u64,
        index_interval_bytes: number("index.interval.bytes").clamp(0, i64::from(i32::MAX)) as u32,
        retention_bytes: number("retention.bytes"),
        retention_ms: number("retention.ms"),
        delete: split_list(&policy).any(|item| item == "delete"),
        compact: split_list(&policy).any(|item| item == "compact"),
        min_cleanable_dirty_millionths: millionths(
            &effective("min.cleanable.dirty.ratio", config, image, topic).value,
        ),
        min_compaction_lag_ms: number("min.compaction.lag.ms"),
        max_compaction_lag_ms: number("max.compaction.lag.ms"),
        delete_retention_ms: number("delete.retention.ms"),
    }
}

/// What holds for produce to a topic.
pub fn settings(config: &BrokerConfig, image: &Image, topic: &str) -> TopicSettings {
    let min_insync_replicas = number(config, image, topic, "min.insync.replicas");
    TopicSettings {
        rules: produce_rules(config, image, topic),
        min_insync_replicas: usize::try_from(min_insync_replicas).unwrap_or(1),
    }
}

/// What produced batches of a topic are checked against; the caller fills in the time and what the request's version allows.
fn produce_rules(config: &BrokerConfig, image: &Image, topic: &str) -> ProduceRules {
    let number = |name| number(config, image, topic, name);
    let text = |name| effective(name, config, image, topic).value;
    ProduceRules {
        max_message_bytes: number("max.message.bytes").max(0) as usize,
        compacted: split_list(&text("cleanup.policy")).any(|item| item == "compact"),
        timestamp_type: match text("message.timestamp.type").trim() {
            "LogAppendTime" => TimestampType::LogAppendTime,
            _ => TimestampType::CreateTime,
        },
        timestamp_before_max_ms: number("message.timestamp.before.max.ms"),
        timestamp_after_max_ms: number("message.timestamp.after.max.ms"),
        check_compressed: text("verify.compressed.records")
            .trim()
            .eq_ignore_ascii_case("true"),
        decompressed_bytes_max: config.decompressed_bytes_max,
        ..ProduceRules::default()
    }
}

/// A share from 0 to 1 in millionths.
fn millionths(text: &str) -> u32 {
    let share: f64 = text.trim().parse().unwrap_or(0.5);
    (share.clamp(0.0, 1.0) * 1e6) as u32
}

fn number(config: &BrokerConfig, image: &Image, topic: &str, name: &str) -> i64 {
    effective(name, config, image, topic)
        .value
        .trim()
        .parse()
        .unwrap_or(0)
}
