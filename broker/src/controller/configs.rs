//! Changing configuration while the broker runs: AlterConfigs and IncrementalAlterConfigs (KIP-339) on topics and brokers.
//!
//! A resource's changes are made all or none. What a key may be set to is the configuration table's business; which broker keys may change
//! at all is there too (KIP-226).

use std::collections::HashMap;

use ringlog_net::messages::{alter_configs, incremental_alter_configs};
use ringlog_net::metadata::{ConfigRecord, MetadataRecord};
use ringlog_net::{ErrorCode, Str};

use super::image::Overrides;
use super::topics::printable;
use super::{Controller, Decision, Refusal};
use crate::config::keys::{self, Update};
use crate::config::kind::Kind;
use crate::config::topic::validate;
use crate::config::{ConfigError, split_list, topic_keys};

/// Kafka's numbers for kinds of resources that have a configuration.
pub const TOPIC: i8 = 2;
/// A broker, by its `node.id`, or all brokers by the empty name.
pub const BROKER: i8 = 4;
/// A broker's log levels.
pub const BROKER_LOGGER: i8 = 8;
/// Client metrics subscriptions (KIP-714).
pub const CLIENT_METRICS: i8 = 16;
/// A consumer group (KIP-848).
pub const GROUP: i8 = 32;

/// What an incremental change does to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Set,
    Delete,
    Append,
    Subtract,
}

/// One change of one key, from either API.
struct Change<'a> {
    name: &'a str,
    operation: Operation,
    value: Option<&'a str>,
}

/// A resource that can be configured.
enum Target {
    Topic,
    Broker,
}

impl Controller {
    /// The legacy form: what is given replaces everything that was set before.
    pub fn alter_configs(
        &mut self,
        request: &alter_configs::AlterConfigsRequest,
    ) -> Decision<alter_configs::AlterConfigsResponse> {
        let mut counts: HashMap<(i8, &str), usize> = HashMap::new();
        for resource in &request.resources {
            *counts
                .entry((resource.resource_type, &resource.resource_name))
                .or_default() += 1;
        }
        let mut records = Vec::new();
        let mut responses = Vec::with_capacity(request.resources.len());
        for resource in &request.resources {
            let (kind, name) = (resource.resource_type, &resource.resource_name);
            let changes = resource.configs.iter().map(|config| {
                Ok(Change {
                    name: &config.name,
                    operation: Operation::Set,
                    value: config.value.as_deref(),
                })
            });
            let altered = match counts.insert((kind, name), 0) {
                Some(0) | None => continue,
                Some(1) => changes
                    .collect::<Result<_, _>>()
                    .and_then(|changes| self.alter(kind, name, changes, true)),
                Some(_) => Err(twice(name)),
            };
            let (error_code, error_message) = take(altered, &mut records);
            responses.push(alter_configs::AlterConfigsResourceResponse {
                error_code,
                error_message,
                resource_type: kind,
                resource_name: name.clone(),
            });
        }
        let records = if request.validate_only {
            Vec::new()
        } else {
            records
        };
        Decision {
            records,
            response: alter_configs::AlterConfigsResponse {
                responses,
                ..Default::default()
            },
        }
    }

    /// The incremental form: what is given changes, all else stays.
    pub fn incremental_alter_configs(
        &mut self,
        request: &incremental_alter_configs::IncrementalAlterConfigsRequest,
    ) -> Decision<incremental_alter_configs::IncrementalAlterConfigsResponse> {
        let mut counts: HashMap<(i8, &str), usize> = HashMap::new();
        for resource in &request.resources {
            *counts
                .entry((resource.resource_type, &resource.resource_name))
                .or_default() += 1;
        }
        let mut records = Vec::new();
        let mut responses = Vec::with_capacity(request.resources.len());
        for resource in &request.resources {
            let (kind, name) = (resource.resource_type, &resource.resource_name);
            let changes = resource.configs.iter().map(|config| {
                let operation = operation(config.config_operation)?;
                Ok(Change {
                    name: &config.name,
                    operation,
                    value: config.value.as_deref(),
                })
            });
            let altered = match counts.insert((kind, name), 0) {
                Some(0) | None => continue,
                Some(1) => changes
                    .collect::<Result<_, _>>()
                    .and_then(|changes| self.alter(kind, name, changes, false)),
                Some(_) => Err(twice(name)),
            };
            let (error_code, error_message) = take(altered, &mut records);
            responses.push(incremental_alter_configs::AlterConfigsResourceResponse {
                error_code,
                error_message,
                resource_type: kind,
                resource_name: name.clone(),
            });
        }
        let records = if request.validate_only {
            Vec::new()
        } else {
            records
        };
        let response = incremental_alter_configs::IncrementalAlterConfigsResponse {
            responses,
            ..Default::default()
        };
        Decision { records, response }
    }

    fn alter(
        &self,
        resource_type: i8,
        name: &Str,
        changes: Vec<Change<'_>>,
        replace: bool,
    ) -> Result<Vec<MetadataRecord>, Refusal> {
        let (target, before) = self.target(resource_type, name)?;
        let mut after = if replace {
            Overrides::new()
        } else {
            before.clone()
        };
        let mut seen = std::collections::BTreeSet::new();
        for change in &changes {
            if !seen.insert(change.name) {
                let reason = format!(
                    "configuration key `{}` is given more than once",
                    printable(change.name)
                );
                return Err(Refusal::new(ErrorCode::INVALID_REQUEST, reason));
            }
            self.change(&target, change, &mut after)?;
        }
        if let Target::Topic = target {
            check_topic_overrides(&after)?;
        }
        let record = |key: &String, value: Option<&String>| {
            MetadataRecord::Config(ConfigRecord {
                resource_type,
                resource_name: name.clone(),
                name: Str::from(key),
                value: value.map(Str::from),
            })
        };
        let removed = before
            .keys()
            .filter(|key| !after.contains_key(*key))
            .map(|key| record(key, None));
        let set = after
            .iter()
            .filter(|(key, value)| before.get(*key) != Some(*value));
        Ok(removed
            .chain(set.map(|(key, value)| record(key, Some(value))))
            .collect())
    }

    /// What is to be configured, and what is set on it now.
    fn target(&self, resource_type: i8, name: &Str) -> Result<(Target, &Overrides), Refusal> {
        match resource_type {
            TOPIC if self.image.topic(name).is_some() => {
                Ok((Target::Topic, self.image.topic_configs(name)))
            }
            TOPIC => Err(Refusal::new(
                ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                format!("there is no topic `{}`", printable(name)),
            )),
            BROKER => match broker_name(name)? {
                Some(node) if self.image.broker(node).is_none() => Err(Refusal::new(
                    ErrorCode::INVALID_REQUEST,
                    format!("broker {node} is not registered"),
                )),
                node => Ok((Target::Broker, self.image.broker_configs(node))),
            },
            other => Err(unsupported(other)),
        }
    }

    fn change(
        &self,
        target: &Target,
        change: &Change<'_>,
        after: &mut Overrides,
    ) -> Result<(), Refusal> {
        let kind = match target {
            Target::Topic => topic_kind(change.name)?,
            Target::Broker => broker_kind(change.name, change.operation)?,
        };
        let refuse = |code, reason: &str| {
            Err(Refusal::new(
                code,
                format!("configuration key `{}`: {reason}", printable(change.name)),
            ))
        };
        let value = match (change.operation, change.value) {
            (Operation::Delete, _) => {
                after.remove(change.name);
                return Ok(());
            }
            (_, None) => return refuse(ErrorCode::INVALID_REQUEST, "a value is missing"),
            // As Kafka: blanks around a value are none of it.
            (_, Some(value)) => value.trim(),
        };
        if change.operation == Operation::Set {
            if let Target::Broker = target {
                check_value(change.name, kind, value)?;
            }
            after.insert(change.name.to_string(), value.to_string());
            return Ok(());
        }
        if !matches!(kind, Kind::List | Kind::ListOf(_)) {
            return refuse(
                ErrorCode::INVALID_CONFIG,
                "only lists can be appended to or subtracted from",
            );
        }
        let current = after
            .get(change.name)
            .cloned()
            .unwrap_or_else(|| self.default_of(target, change.name));
        let mut items: Vec<&str> = split_list(&current).collect();
        for item in split_list(value) {
            items.retain(|present| change.operation == Operation::Append || *present != item);
            if change.operation == Operation::Append && !items.contains(&item) {
                items.push(item);
            }
        }
        let value = items.join(",");
        if let Target::Broker = target {
            check_value(change.name, kind, &value)?;
        }
        after.insert(change.name.to_string(), value);
        Ok(())
    }

    /// What a list that is not set on the resource starts from: what holds for it without.
    fn default_of(&self, target: &Target, name: &str) -> String {
        match target {
            Target::Topic => {
                crate::config::topic::effective(name, &self.config, &self.image, "").value
            }
            Target::Broker => self.config.get(name).to_string(),
        }
    }
}

/// The node of a BROKER resource's name; none for the default of all brokers.
pub fn broker_name(name: &str) -> Result<Option<i32>, Refusal> {
    if name.is_empty() {
        return Ok(None);
    }
    name.parse()
        .ok()
        .filter(|node| *node >= 0)
        .map(Some)
        .ok_or_else(|| {
            let reason = format!(
                "a broker is named by its number, or by nothing for all of them; `{}` is neither",
                printable(name)
            );
            Refusal::new(ErrorCode::INVALID_REQUEST, reason)
        })
}

/// The answer for a resource whose kind has no configuration here.
pub fn unsupported(resource_type: i8) -> Refusal {
    let what = match resource_type {
        BROKER_LOGGER => "log levels are set at start, with RINGLOG_LOG".to_string(),
        CLIENT_METRICS => "client metrics are not collected".to_string(),
        GROUP => "groups have no configuration of their own".to_string(),
        other => format!("resource type {other} is not known"),
    };
    Refusal::new(
        ErrorCode::INVALID_REQUEST,
        format!("{what}; topics and brokers can be configured"),
    )
}

/// Checks the overrides of a topic against the table.
pub(super) fn check_topic_overrides(overrides: &Overrides) -> Result<(), Refusal> {
    overrides
        .keys()
        .try_for_each(|name| topic_kind(name).map(drop))?;
    validate(overrides).map_err(invalid)
}

/// A value that cannot be used, as it is answered: what a client sent is cut to a length that can be shown.
fn invalid(error: ConfigError) -> Refusal {
    let shown = ConfigError {
        key: printable(&error.key),
        value: error.value.as_deref().map(printable),
        reason: error.reason,
    };
    Refusal::new(ErrorCode::INVALID_CONFIG, shown.to_string())
}

fn topic_kind(name: &str) -> Result<Kind, Refusal> {
    topic_keys::topic(name).map(|key| key.kind).ok_or_else(|| {
        let reason = format!("there is no topic configuration key `{}`", printable(name));
        Refusal::new(ErrorCode::INVALID_CONFIG, reason)
    })
}

fn broker_kind(name: &str, operation: Operation) -> Result<Kind, Refusal> {
    let refuse = |code, reason: String| Err(Refusal::new(code, reason));
    let shown = printable(name);
    let Some(key) = keys::broker(name) else {
        // What an older version set must stay removable.
        return match operation {
            Operation::Delete => Ok(Kind::Text),
            _ => refuse(
                ErrorCode::INVALID_CONFIG,
                format!("there is no broker configuration key `{shown}`"),
            ),
        };
    };
    match key.update {
        Update::ReadOnly => refuse(
            ErrorCode::INVALID_REQUEST,
            format!(
                "configuration key `{shown}` cannot change while the broker runs; set it in its file and start again"
            ),
        ),
        Update::ClusterWide => Ok(key.kind),
    }
}

fn check_value(name: &str, kind: Kind, value: &str) -> Result<(), Refusal> {
    kind.check(value)
        .map_err(|reason| invalid(ConfigError::new(name, value, reason)))
}

fn operation(code: i8) -> Result<Operation, Refusal> {
    match code {
        0 => Ok(Operation::Set),
        1 => Ok(Operation::Delete),
        2 => Ok(Operation::Append),
        3 => Ok(Operation::Subtract),
        other => Err(Refusal::new(
            ErrorCode::INVALID_REQUEST,
            format!("operation {other} is none of set (0), delete (1), append (2), subtract (3)"),
        )),
    }
}

fn twice(name: &str) -> Refusal {
    Refusal::new(
        ErrorCode::INVALID_REQUEST,
        format!(
            "resource `{}` is in the request more than once",
            printable(name)
        ),
    )
}

fn take(
    altered: Result<Vec<MetadataRecord>, Refusal>,
    records: &mut Vec<MetadataRecord>,
) -> (ErrorCode, Option<Str>) {
    match altered {
        Ok(more) => {
            records.extend(more);
            (ErrorCode::NONE, None)
        }
        Err(refusal) => (refusal.code, refusal.text()),
    }
}
