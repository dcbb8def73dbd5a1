//! Everything that is asked once and waited for: versions, metadata, topics, offsets, producer ids. Blocking, with a timeout.
//!
//! Each answer that is not the one hoped for becomes an [`AdminError`] that says what to do.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use ringlog_net::api::ApiKey;
use ringlog_net::codec::Message;
use ringlog_net::error_code::ErrorCode;
use ringlog_net::messages::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use ringlog_net::messages::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest, CreateTopicsResponse,
};
use ringlog_net::messages::delete_topics::{DeleteTopicsRequest, DeleteTopicsResponse};
use ringlog_net::messages::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use ringlog_net::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopic,
};
use ringlog_net::messages::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponse};

use super::wire;

/// The largest answer of an administrative request.
const FRAME_BYTES_MAX: usize = 256 << 20;
/// How long topics may take to get leaders after they were created.
const LEADERS_TIMEOUT: Duration = Duration::from_secs(60);

/// Why an administrative request did not give what was asked.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// No broker there.
    #[error(
        "cannot reach a broker at {address}: {source}. Is it running, and is the address right?"
    )]
    Unreachable {
        /// The address as given.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke or timed out.
    #[error("the broker at {address} did not answer {api}: {source}")]
    Connection {
        /// The address.
        address: String,
        /// The request.
        api: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// An answer that does not decode.
    #[error("the broker's answer to {api} makes no sense: {reason}")]
    Protocol {
        /// The request.
        api: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The broker and this client have no version in common.
    #[error(
        "the broker serves {api} in versions {low} to {high}; this client speaks {ours_low} to {ours_high}"
    )]
    Version {
        /// The request.
        api: &'static str,
        /// Lowest served.
        low: i16,
        /// Highest served.
        high: i16,
        /// Lowest spoken.
        ours_low: i16,
        /// Highest spoken.
        ours_high: i16,
    },
    /// The broker refused.
    #[error("the broker refused {what}: {code}{message}")]
    Refused {
        /// What was asked.
        what: String,
        /// Kafka's error.
        code: ErrorCode,
        /// The broker's own words, with a leading separator.
        message: String,
    },
    /// A topic exists with another shape.
    #[error(
        "topic {topic} already exists with {found} partitions where the workload asks for {wanted}; delete it or name another with --set topic.name=NAME"
    )]
    Shape {
        /// The topic.
        topic: String,
        /// Partitions it has.
        found: usize,
        /// Partitions the workload asks for.
        wanted: usize,
    },
    /// Created topics did not get leaders.
    #[error("after {0:?} some partitions still have no leader; look at the broker's log")]
    NoLeaders(Duration),
}

/// One partition, and where its leader listens.
#[derive(Clone, Copy, Debug)]
pub struct PartitionLeader {
    /// Index within its topic.
    pub partition: i32,
    /// The leader's address.
    pub address: SocketAddr,
}

/// A topic with all its partitions in order.
#[derive(Clone, Debug)]
pub struct TopicLayout {
    /// Its name.
    pub name: String,
    /// Its partitions, by index.
    pub partitions: Vec<PartitionLeader>,
}

/// A blocking connection to one broker.
pub struct Admin {
    address: String,
    stream: TcpStream,
    versions: HashMap<i16, (i16, i16)>,
    correlation_id: i32,
}

/// Resolves `host:port`.
pub fn resolve(address: &str) -> Result<SocketAddr, AdminError> {
    let unreachable = |source| AdminError::Unreachable {
        address: address.to_string(),
        source,
    };
    let first = address.to_socket_addrs().map_err(unreachable)?.next();
    first.ok_or_else(|| {
        unreachable(io::Error::new(
            io::ErrorKind::NotFound,
            "the name has no address",
        ))
    })
}

impl Admin {
    /// Connects to `address` and asks which versions it serves.
    pub fn connect(address: &str, timeout: Duration) -> Result<Admin, AdminError> {
        let socket = resolve(address)?;
        let opened = TcpStream::connect_timeout(&socket, timeout).and_then(|stream| {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(timeout))?;
            stream.set_write_timeout(Some(timeout))?;
            Ok(stream)
        });
        let stream = opened.map_err(|source| AdminError::Unreachable {
            address: address.to_string(),
            source,
        })?;
        let mut admin = Admin {
            address: address.to_string(),
            stream,
            versions: HashMap::new(),
            correlation_id: 0,
        };
        let served: ApiVersionsResponse = admin.call(
            ApiKey::ApiVersions,
            "ApiVersions",
            &ApiVersionsRequest::default(),
        )?;
        refused("ApiVersions", served.error_code, None)?;
        admin.versions = served
            .api_keys
            .iter()
            .map(|api| (api.api_key, (api.min_version, api.max_version)))
            .collect();
        Ok(admin)
    }

    /// The version to use for `key`: the highest that both sides know.
    pub fn version(&self, key: ApiKey, name: &'static str) -> Result<i16, AdminError> {
        let (ours_low, ours_high) = wire::spoken(key);
        if self.versions.is_empty() {
            return Ok(ours_low);
        }
        let (low, high) = self.versions.get(&(key as i16)).copied().unwrap_or((0, -1));
        let version = high.min(ours_high);
        if version < low.max(ours_low) {
            return Err(AdminError::Version {
                api: name,
                low,
                high,
                ours_low,
                ours_high,
            });
        }
        Ok(version)
    }

    /// Asks and waits. `api` is how errors name it.
    pub(super) fn call<Q: Message, R: Message>(
        &mut self,
        key: ApiKey,
        api: &'static str,
        request: &Q,
    ) -> Result<R, AdminError> {
        let version = self.version(key, api)?;
        self.correlation_id += 1;
        let protocol = |reason: String| AdminError::Protocol { api, reason };
        let frame = wire::encode(key, version, self.correlation_id, request)
            .map_err(|e| protocol(e.to_string()))?;
        let mut exchange = || -> io::Result<BytesMut> {
            for piece in &frame {
                self.stream.write_all(piece)?;
            }
            let mut size = [0; 4];
            self.stream.read_exact(&mut size)?;
            let size = usize::try_from(i32::from_be_bytes(size)).unwrap_or(usize::MAX);
            if size > FRAME_BYTES_MAX {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "an answer of an impossible size",
                ));
            }
            let mut body = Vec::new();
            Read::by_ref(&mut self.stream)
                .take(size as u64)
                .read_to_end(&mut body)?;
            if body.len() < size {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok(BytesMut::from(&body[..]))
        };
        let body = exchange().map_err(|source| AdminError::Connection {
            address: self.address.clone(),
            api,
            source,
        })?;
        wire::decode(key, version, body.freeze()).map_err(|e| protocol(e.to_string()))
    }

    /// How many brokers the cluster says it has: none while it is not ready.
    pub fn brokers(&mut self) -> Result<usize, AdminError> {
        let request = MetadataRequest {
            topics: Some(Vec::new()),
            ..Default::default()
        };
        let response: MetadataResponse = self.call(ApiKey::Metadata, "Metadata", &request)?;
        Ok(response.brokers.len())
    }

    /// Metadata of `topics` as it is now; topics that do not exist are left out.
    pub fn layouts(&mut self, topics: &[String]) -> Result<Vec<TopicLayout>, AdminError> {
        let wanted = topics
            .iter()
            .map(|name| MetadataRequestTopic {
                name: Some(name.as_str().into()),
                ..Default::default()
            })
            .collect();
        let request = MetadataRequest {
            topics: Some(wanted),
            allow_auto_topic_creation: false,
            ..Default::default()
        };
        let response: MetadataResponse = self.call(ApiKey::Metadata, "Metadata", &request)?;
        let mut addresses = HashMap::new();
        for broker in &response.brokers {
            addresses.insert(
                broker.node_id,
                resolve(&format!("{}:{}", broker.host, broker.port))?,
            );
        }
        let mut layouts = Vec::new();
        for topic in &response.topics {
            let Some(name) = &topic.name else { continue };
            if topic.error_code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION {
                continue;
            }
            if topic.error_code != ErrorCode::LEADER_NOT_AVAILABLE {
                refused(&format!("metadata of topic {name}"), topic.error_code, None)?;
            }
            let mut partitions: Vec<PartitionLeader> = topic
                .partitions
                .iter()
                .filter_map(|partition| {
                    let address = *addresses.get(&partition.leader_id)?;
                    Some(PartitionLeader {
                        partition: partition.partition_index,
                        address,
                    })
                })
                .collect();
            partitions.sort_by_key(|leader| leader.partition);
            layouts.push(TopicLayout {
                name: name.to_string(),
                partitions,
            });
        }
        Ok(layouts)
    }

    /// Makes sure that `topics` exist with `partitions` each, creating what is missing, and waits for their leaders.
    /// Returns the layouts in the order asked, and the names that were created.
    pub fn ensure_topics(
        &mut self,
        topics: &[String],
        partitions: usize,
        replication_factor: i16,
        configs: &[(String, String)],
    ) -> Result<(Vec<TopicLayout>, Vec<String>), AdminError> {
        let existing = self.layouts(topics)?;
        let missing: Vec<String> = topics
            .iter()
            .filter(|name| !existing.iter().any(|layout| layout.name == **name))
            .cloned()
            .collect();
        if !missing.is_empty() {
            self.create_topics(&missing, partitions, replication_factor, configs)?;
        }
        let begun = Instant::now();
        loop {
            let mut layouts = self.layouts(topics)?;
            let led = layouts
                .iter()
                .filter(|layout| layout.partitions.len() >= partitions)
                .count();
            if layouts.len() == topics.len() && led == topics.len() {
                layouts.sort_by_key(|layout| topics.iter().position(|name| *name == layout.name));
                if let Some(other) = layouts
                    .iter()
                    .find(|layout| layout.partitions.len() != partitions)
                {
                    return Err(shape(other, partitions));
                }
                return Ok((layouts, missing));
            }
            if let Some(other) = existing.iter().find(|layout| {
                !layout.partitions.is_empty() && layout.partitions.len() < partitions
            }) && begun.elapsed() > Duration::from_secs(2)
            {
                return Err(shape(other, partitions));
            }
            if begun.elapsed() > LEADERS_TIMEOUT {
                return Err(AdminError::NoLeaders(LEADERS_TIMEOUT));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn create_topics(
        &mut self,
        names: &[String],
        partitions: usize,
        replication_factor: i16,
        configs: &[(String, String)],
    ) -> Result<(), AdminError> {
        let configs: Vec<CreatableTopicConfig> = configs
            .iter()
            .map(|(name, value)| CreatableTopicConfig {
                name: name.as_str().into(),
                value: Some(value.as_str().into()),
            })
            .collect();
        let topics = names
            .iter()
            .map(|name| CreatableTopic {
                name: name.as_str().into(),
                num_partitions: i32::try_from(partitions).unwrap_or(i32::MAX),
                replication_factor,
                configs: configs.clone(),
                ..Default::default()
            })
            .collect();
        let request = CreateTopicsRequest {
            topics,
            timeout_ms: 60_000,
            ..Default::default()
        };
        let response: CreateTopicsResponse =
            self.call(ApiKey::CreateTopics, "CreateTopics", &request)?;
        for topic in &response.topics {
            let message = topic
                .error_message
                .as_ref()
                .map(|message| message.to_string());
            refused(
                &format!("to create topic {}", topic.name),
                topic.error_code,
                message.as_deref(),
            )?;
        }
        Ok(())
    }

    /// Deletes `topics`; those that do not exist are no error.
    pub fn delete_topics(&mut self, topics: &[String]) -> Result<(), AdminError> {
        let names = topics.iter().map(|name| name.as_str().into()).collect();
        let request = DeleteTopicsRequest {
            topic_names: names,
            timeout_ms: 60_000,
            ..Default::default()
        };
        let response: DeleteTopicsResponse =
            self.call(ApiKey::DeleteTopics, "DeleteTopics", &request)?;
        for result in &response.responses {
            if result.error_code != ErrorCode::UNKNOWN_TOPIC_OR_PARTITION {
                refused("to delete a topic", result.error_code, None)?;
            }
        }
        Ok(())
    }

    /// Offsets of partitions led by this broker: `timestamp` is −1 for the end, −2 for the log start.
    pub fn offsets(
        &mut self,
        partitions: &[(String, i32)],
        timestamp: i64,
    ) -> Result<HashMap<(String, i32), i64>, AdminError> {
        let mut topics: Vec<ListOffsetsTopic> = Vec::new();
        let mut at: HashMap<&str, usize> = HashMap::new();
        for (name, partition) in partitions {
            let index = *at.entry(name).or_insert_with(|| {
                topics.push(ListOffsetsTopic {
                    name: name.as_str().into(),
                    ..Default::default()
                });
                topics.len() - 1
            });
            topics[index].partitions.push(ListOffsetsPartition {
                partition_index: *partition,
                timestamp,
                ..Default::default()
            });
        }
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics,
            ..Default::default()
        };
        let response: ListOffsetsResponse =
            self.call(ApiKey::ListOffsets, "ListOffsets", &request)?;
        let mut offsets = HashMap::new();
        for topic in &response.topics {
            for partition in &topic.partitions {
                let what = format!(
                    "the offsets of {}-{}",
                    topic.name, partition.partition_index
                );
                refused(&what, partition.error_code, None)?;
                offsets.insert(
                    (topic.name.to_string(), partition.partition_index),
                    partition.offset,
                );
            }
        }
        Ok(offsets)
    }

    /// A fresh producer id and its epoch.
    pub fn producer_id(&mut self) -> Result<(i64, i16), AdminError> {
        let request = InitProducerIdRequest {
            transaction_timeout_ms: 60_000,
            ..Default::default()
        };
        let response: InitProducerIdResponse =
            self.call(ApiKey::InitProducerId, "InitProducerId", &request)?;
        refused("a producer id", response.error_code, None)?;
        Ok((response.producer_id, response.producer_epoch))
    }
}

fn shape(layout: &TopicLayout, wanted: usize) -> AdminError {
    AdminError::Shape {
        topic: layout.name.clone(),
        found: layout.partitions.len(),
        wanted,
    }
}

pub(super) fn refused(
    what: &str,
    code: ErrorCode,
    message: Option<&str>,
) -> Result<(), AdminError> {
    if code == ErrorCode::NONE {
        return Ok(());
    }
    let message = message
        .map(|message| format!(" ({message})"))
        .unwrap_or_default();
    Err(AdminError::Refused {
        what: what.to_string(),
        code,
        message,
    })
}
