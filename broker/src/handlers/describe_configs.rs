//! DescribeConfigs (32), versions 1 to 4: what holds for topics and for this broker, where each value comes from, and what may be changed.
//!
//! Before version 4 a string has at most 32,767 bytes, which a list may exceed: a resource with such a value is refused, as Kafka does, rather than told in part.
//!
//! Everything is read from the configuration tables, the static configuration and the shard's image.

use std::collections::HashSet;

use ringlog_net::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult,
    DescribeConfigsResponse, DescribeConfigsResult, DescribeConfigsSynonym,
};
use ringlog_net::{ErrorCode, Str};

use super::RequestContext;
use crate::authorizer::{Operation, ResourceType};
use crate::config::keys::{BROKER as BROKER_KEYS, Key, Update};
use crate::config::kind::Kind;
use crate::config::topic::{EffectiveValue, Source, broker_effective, effective};
use crate::config::topic_keys::TOPIC as TOPIC_KEYS;
use crate::controller::configs::{BROKER, TOPIC, broker_name, unsupported};
use crate::controller::image::Image;
use crate::controller::{Refusal, names};

/// From this version on strings are compact (KIP-482), and as long as a response.
const COMPACT_FROM: i16 = 4;
/// Most bytes of a string before that.
const STRING_BYTES_MAX: usize = i16::MAX as usize;

/// See the module.
pub async fn handle(
    context: &RequestContext,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let image = context.shard.image();
    let describe = |resource: &DescribeConfigsResource| {
        let view = View {
            context,
            image: &image,
            request: &request,
            keys: wanted(resource),
        };
        let described = view.resource(resource).and_then(|configs| {
            match configs.iter().find(|config| !fits(config, context.version)) {
                None => Ok(configs),
                Some(config) => Err(too_long(&config.name)),
            }
        });
        let (error_code, error_message, configs) = match described {
            Ok(configs) => (ErrorCode::NONE, None, configs),
            Err(refusal) => (refusal.code, Some(Str::from(refusal.message)), Vec::new()),
        };
        DescribeConfigsResult {
            error_code,
            error_message,
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
            configs,
        }
    };
    let mut seen = HashSet::new();
    // A resource that is named twice is described once: answers stay in proportion to what there is.
    let resources = request.resources.iter();
    let resources = resources
        .filter(|resource| seen.insert((resource.resource_type, resource.resource_name.as_str())));
    DescribeConfigsResponse {
        results: resources.map(describe).collect(),
        ..DescribeConfigsResponse::default()
    }
}

/// Whether a version of the response can carry what is said of a key.
fn fits(config: &DescribeConfigsResourceResult, version: i16) -> bool {
    let synonyms = config.synonyms.iter().map(|synonym| &synonym.value);
    let values = synonyms.chain([&config.value]).flatten();
    version >= COMPACT_FROM
        || values
            .into_iter()
            .all(|value| value.len() <= STRING_BYTES_MAX)
}

fn too_long(key: &str) -> Refusal {
    let reason = format!(
        "the value of `{key}` is longer than {STRING_BYTES_MAX} bytes, which is all that a string in versions before {COMPACT_FROM} can have: ask for other keys only, or with version {COMPACT_FROM}"
    );
    Refusal::new(ErrorCode::UNKNOWN_SERVER_ERROR, reason)
}

/// The keys that are asked for; none: all.
fn wanted(resource: &DescribeConfigsResource) -> Option<HashSet<&str>> {
    let keys = resource
        .configuration_keys
        .as_ref()
        .filter(|keys| !keys.is_empty())?;
    Some(keys.iter().map(Str::as_str).collect())
}

struct View<'a> {
    context: &'a RequestContext,
    image: &'a Image,
    request: &'a DescribeConfigsRequest,
    keys: Option<HashSet<&'a str>>,
}

impl View<'_> {
    fn resource(
        &self,
        resource: &DescribeConfigsResource,
    ) -> Result<Vec<DescribeConfigsResourceResult>, Refusal> {
        let name = &resource.resource_name;
        match resource.resource_type {
            TOPIC => self.topic(name),
            BROKER => self.broker(name),
            other => Err(unsupported(other)),
        }
    }

    fn wants(&self, name: &str) -> bool {
        self.keys.as_ref().is_none_or(|keys| keys.contains(name))
    }

    fn topic(&self, topic: &str) -> Result<Vec<DescribeConfigsResourceResult>, Refusal> {
        if !self
            .context
            .authorize(Operation::DescribeConfigs, ResourceType::Topic, topic)
        {
            let reason = "seeing this topic's configuration is not allowed";
            return Err(Refusal::new(ErrorCode::TOPIC_AUTHORIZATION_FAILED, reason));
        }
        names::check(topic)
            .map_err(|reason| Refusal::new(ErrorCode::INVALID_TOPIC_EXCEPTION, reason))?;
        if self.image.topic(topic).is_none() {
            let reason = format!("there is no topic `{topic}`");
            return Err(Refusal::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, reason));
        }
        let config = &self.context.shard.config;
        let keys = TOPIC_KEYS.iter().filter(|key| self.wants(key.name));
        Ok(keys
            .map(|key| {
                let value = effective(key.name, config, self.image, topic);
                self.entry(key.name, key.kind, key.doc, false, value)
            })
            .collect())
    }

    fn broker(&self, name: &str) -> Result<Vec<DescribeConfigsResourceResult>, Refusal> {
        if !self.context.authorize(
            Operation::DescribeConfigs,
            ResourceType::Cluster,
            super::metadata::CLUSTER,
        ) {
            let reason = "seeing brokers' configuration is not allowed";
            return Err(Refusal::new(
                ErrorCode::CLUSTER_AUTHORIZATION_FAILED,
                reason,
            ));
        }
        let this = self.context.shard.node_id();
        let keys = BROKER_KEYS.iter().filter(|key| self.wants(key.name));
        match broker_name(name)? {
            None => Ok(keys.filter_map(|key| self.default_of_all(key)).collect()),
            Some(node) if node == this => Ok(keys
                .map(|key| {
                    let value =
                        broker_effective(key.name, &self.context.shard.config, self.image, node);
                    self.entry(
                        key.name,
                        key.kind,
                        key.doc,
                        key.update == Update::ReadOnly,
                        value,
                    )
                })
                .collect()),
            Some(node) => Err(Refusal::new(
                ErrorCode::INVALID_REQUEST,
                format!("broker {node} knows its own configuration; this is broker {this}"),
            )),
        }
    }

    /// A key that is set for all brokers while they run.
    fn default_of_all(&self, key: &Key) -> Option<DescribeConfigsResourceResult> {
        let value = self.image.broker_configs(None).get(key.name)?.clone();
        let source = Source::DynamicDefaultBroker;
        let synonyms = vec![(key.name.to_string(), value.clone(), source)];
        let value = EffectiveValue {
            value,
            source,
            synonyms,
        };
        Some(self.entry(
            key.name,
            key.kind,
            key.doc,
            key.update == Update::ReadOnly,
            value,
        ))
    }

    fn entry(
        &self,
        name: &'static str,
        kind: Kind,
        doc: &'static str,
        read_only: bool,
        effective: EffectiveValue,
    ) -> DescribeConfigsResourceResult {
        let is_sensitive = kind == Kind::Password;
        // A key that nobody set and that has no default has no value, rather than an empty one.
        let shown = |value: String, source: Source| {
            let absent = is_sensitive || (value.is_empty() && source == Source::Default);
            (!absent).then(|| Str::from(value))
        };
        let synonyms = if self.request.include_synonyms {
            effective.synonyms
        } else {
            Vec::new()
        };
        DescribeConfigsResourceResult {
            name: Str::from_static(name),
            read_only,
            config_source: effective.source.code(),
            is_sensitive,
            synonyms: synonyms
                .into_iter()
                .map(|(name, value, source)| DescribeConfigsSynonym {
                    name: Str::from(name),
                    value: shown(value, source),
                    source: source.code(),
                })
                .collect(),
            value: shown(effective.value, effective.source),
            config_type: kind.kafka_type(),
            documentation: self
                .request
                .include_documentation
                .then(|| Str::from_static(doc)),
        }
    }
}
