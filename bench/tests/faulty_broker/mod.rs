//! A broker in memory that misbehaves on purpose, so that the tests can show what the generator notices.
//!
//! It serves just what the generator asks for, one thread per connection, nothing durable. Each [`Fault`] is one way in which a
//! broker can lie or break.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringlog_net::api::{ApiKey, Served};
use ringlog_net::codec::Reader;
use ringlog_net::error_code::ErrorCode;
use ringlog_net::header::decode_request_header;
use ringlog_net::messages::*;
use ringlog_net::request::{Request, Response};
use ringlog_net::{Bytes, Records};

use coordinator::Coordinator;

mod coordinator;

/// What is wrong with the broker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// Nothing.
    None,
    /// The first produce after the time is answered only after the pause.
    Stall { after: Duration, pause: Duration },
    /// Acknowledges the tenth batch of each partition without keeping it.
    Lose,
    /// Keeps the tenth batch twice.
    Double,
    /// Keeps the tenth batch behind the eleventh.
    Swap,
    /// Changes a byte of the tenth batch, and makes its CRC fit.
    Corrupt,
    /// Changes a byte of the tenth batch on every fetch, and leaves its CRC.
    Damage,
    /// Closes every connection after this many produce requests.
    Die { after: u64 },
    /// Refuses every produce after the tenth, and every third commit of offsets.
    Refuse,
    /// Says at every third commit of offsets that it is still loading them.
    Loading,
}

const FAULTY_BATCH: usize = 9;

#[derive(Default)]
struct Partition {
    batches: Vec<Vec<u8>>,
    received: usize,
    end: i64,
    held: Option<Vec<u8>>,
}

#[derive(Default)]
struct State {
    topics: HashMap<String, Vec<Partition>>,
    produced: u64,
    stalled: bool,
    dead: bool,
}

/// A running faulty broker.
pub struct FaultyBroker {
    /// Where it listens.
    pub address: SocketAddr,
    serving: Arc<Serving>,
}

struct Serving {
    coordinator: Coordinator,
    state: Mutex<State>,
    fault: Fault,
    began: Instant,
    address: SocketAddr,
}

impl FaultyBroker {
    /// Starts one on a free port; it lives as long as the test's process.
    pub fn start(fault: Fault) -> FaultyBroker {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Mutex::new(State::default());
        let serving = Arc::new(Serving {
            coordinator: Coordinator::default(),
            state,
            fault,
            began: Instant::now(),
            address,
        });
        let kept = serving.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let serving = serving.clone();
                // A connection that ends, ends its thread.
                std::thread::spawn(move || serving.serve(stream.ok()?));
            }
        });
        FaultyBroker {
            address,
            serving: kept,
        }
    }

    /// Its coordinator, to look at what it has seen.
    pub fn coordinator(&self) -> &Coordinator {
        &self.serving.coordinator
    }
}

impl Serving {
    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        stream.set_nodelay(true).ok()?;
        loop {
            let mut size = [0; 4];
            stream.read_exact(&mut size).ok()?;
            let mut frame = vec![0; u32::from_be_bytes(size) as usize];
            stream.read_exact(&mut frame).ok()?;
            let mut reader = Reader::new(Bytes::from(frame));
            let header = decode_request_header(&mut reader).ok()?;
            let request = Request::decode(header.api_key, header.api_version, &mut reader).ok()?;
            let response = self.answer(request)?;
            for piece in response
                .encode(header.api_version, header.correlation_id)
                .unwrap()
            {
                stream.write_all(&piece).ok()?;
            }
        }
    }

    fn answer(&self, request: Request) -> Option<Response> {
        if self.state.lock().unwrap().dead {
            return None;
        }
        match request {
            Request::ApiVersions(_) => Some(Response::ApiVersions(Box::new(versions()))),
            Request::Metadata(request) => {
                Some(Response::Metadata(Box::new(self.metadata(&request))))
            }
            Request::CreateTopics(request) => {
                Some(Response::CreateTopics(Box::new(self.create(&request))))
            }
            Request::DeleteTopics(_) => Some(Response::DeleteTopics(Box::default())),
            Request::ListOffsets(request) => {
                Some(Response::ListOffsets(Box::new(self.offsets(&request))))
            }
            Request::Produce(request) => Some(Response::Produce(Box::new(self.produce(&request)?))),
            Request::Fetch(request) => Some(Response::Fetch(Box::new(self.fetch(&request)))),
            other => {
                let port = i32::from(self.address.port());
                self.coordinator.answer(other, self.fault, port)
            }
        }
    }

    fn metadata(&self, request: &metadata::MetadataRequest) -> metadata::MetadataResponse {
        let state = self.state.lock().unwrap();
        let broker = metadata::MetadataResponseBroker {
            node_id: 1,
            host: "127.0.0.1".into(),
            port: i32::from(self.address.port()),
            ..Default::default()
        };
        let asked = request
            .topics
            .iter()
            .flatten()
            .filter_map(|topic| topic.name.clone());
        let topics = asked.map(|name| {
            let partitions = state.topics.get(name.as_str()).map_or(0, Vec::len);
            metadata::MetadataResponseTopic {
                error_code: if partitions == 0 {
                    ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
                } else {
                    ErrorCode::NONE
                },
                name: Some(name),
                partitions: (0..partitions)
                    .map(|index| metadata::MetadataResponsePartition {
                        partition_index: index as i32,
                        leader_id: 1,
                        ..Default::default()
                    })
                    .collect(),
                ..Default::default()
            }
        });
        metadata::MetadataResponse {
            brokers: vec![broker],
            topics: topics.collect(),
            ..Default::default()
        }
    }

    fn create(
        &self,
        request: &create_topics::CreateTopicsRequest,
    ) -> create_topics::CreateTopicsResponse {
        let mut state = self.state.lock().unwrap();
        let topics = request.topics.iter().map(|topic| {
            let partitions = (0..topic.num_partitions)
                .map(|_| Partition::default())
                .collect();
            state.topics.insert(topic.name.to_string(), partitions);
            create_topics::CreatableTopicResult {
                name: topic.name.clone(),
                ..Default::default()
            }
        });
        create_topics::CreateTopicsResponse {
            topics: topics.collect(),
            ..Default::default()
        }
    }

    fn offsets(
        &self,
        request: &list_offsets::ListOffsetsRequest,
    ) -> list_offsets::ListOffsetsResponse {
        let state = self.state.lock().unwrap();
        let topics = request.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|asked| {
                let end = state.topics[topic.name.as_str()][asked.partition_index as usize].end;
                list_offsets::ListOffsetsPartitionResponse {
                    partition_index: asked.partition_index,
                    offset: if asked.timestamp == -1 { end } else { 0 },
                    ..Default::default()
                }
            });
            let partitions = partitions.collect();
            list_offsets::ListOffsetsTopicResponse {
                name: topic.name.clone(),
                partitions,
            }
        });
        list_offsets::ListOffsetsResponse {
            topics: topics.collect(),
            ..Default::default()
        }
    }

    fn produce(&self, request: &produce::ProduceRequest) -> Option<produce::ProduceResponse> {
        let mut state = self.state.lock().unwrap();
        state.produced += 1;
        match self.fault {
            Fault::Stall { after, pause } if !state.stalled && self.began.elapsed() > after => {
                state.stalled = true;
                std::thread::sleep(pause);
            }
            Fault::Die { after } if state.produced > after => {
                state.dead = true;
                return None;
            }
            _ => {}
        }
        let refused = self.fault == Fault::Refuse && state.produced > FAULTY_BATCH as u64;
        let mut responses = Vec::new();
        for topic in &request.topic_data {
            let partitions = state.topics.get_mut(topic.name.as_str()).unwrap();
            let mut answers = Vec::new();
            for data in &topic.partition_data {
                let partition = &mut partitions[data.index as usize];
                let mut answer = produce::PartitionProduceResponse {
                    index: data.index,
                    ..Default::default()
                };
                let batch = data.records.as_ref().unwrap().to_bytes();
                let may = request.transactional_id.is_none()
                    || self.coordinator.may_append(&topic.name, data.index, &batch);
                if !may {
                    answer.error_code = ErrorCode::INVALID_TXN_STATE;
                } else if refused {
                    answer.error_code = ErrorCode::KAFKA_STORAGE_ERROR;
                } else {
                    partition.append(self.fault, &batch);
                }
                answers.push(answer);
            }
            responses.push(produce::TopicProduceResponse {
                name: topic.name.clone(),
                partition_responses: answers,
                ..Default::default()
            });
        }
        Some(produce::ProduceResponse {
            responses,
            ..Default::default()
        })
    }

    fn fetch(&self, request: &fetch::FetchRequest) -> fetch::FetchResponse {
        let mut found = false;
        let mut answer = || {
            let state = self.state.lock().unwrap();
            let topics = request.topics.iter().map(|topic| {
                let partitions = topic.partitions.iter().map(|asked| {
                    let partition = &state.topics[topic.topic.as_str()][asked.partition as usize];
                    let records = partition.from(asked.fetch_offset, self.fault == Fault::Damage);
                    found |= !records.is_empty();
                    fetch::PartitionData {
                        partition_index: asked.partition,
                        high_watermark: partition.end,
                        records: Records::from(Bytes::from(records)),
                        ..Default::default()
                    }
                });
                let partitions = partitions.collect();
                fetch::FetchableTopicResponse {
                    topic: topic.topic.clone(),
                    partitions,
                    ..Default::default()
                }
            });
            fetch::FetchResponse {
                responses: topics.collect(),
                ..Default::default()
            }
        };
        let response = answer();
        if !found {
            std::thread::sleep(Duration::from_millis(2));
        }
        response
    }
}

fn versions() -> api_versions::ApiVersionsResponse {
    let served = Served::new(&[
        ApiKey::Produce,
        ApiKey::Fetch,
        ApiKey::ListOffsets,
        ApiKey::Metadata,
        ApiKey::ApiVersions,
        ApiKey::CreateTopics,
        ApiKey::DeleteTopics,
        ApiKey::FindCoordinator,
        ApiKey::OffsetCommit,
        ApiKey::JoinGroup,
        ApiKey::SyncGroup,
        ApiKey::Heartbeat,
        ApiKey::LeaveGroup,
        ApiKey::InitProducerId,
        ApiKey::AddPartitionsToTxn,
        ApiKey::EndTxn,
    ]);
    api_versions::ApiVersionsResponse {
        api_keys: served.api_versions(),
        ..Default::default()
    }
}

impl Partition {
    fn append(&mut self, fault: Fault, batch: &[u8]) {
        let mut batch = batch.to_vec();
        let number = self.received;
        self.received += 1;
        if number == FAULTY_BATCH {
            match fault {
                Fault::Lose => return,
                Fault::Double => self.keep(batch.clone()),
                Fault::Swap => {
                    self.held = Some(batch);
                    return;
                }
                Fault::Corrupt => {
                    // The last bytes are the end of the last value and its count of headers.
                    let at = batch.len() - 5;
                    batch[at] ^= 1;
                    let crc = crc_fast::crc32_iscsi(&batch[21..]);
                    batch[17..21].copy_from_slice(&crc.to_be_bytes());
                }
                _ => {}
            }
        }
        self.keep(batch);
        if let Some(held) = self.held.take() {
            self.keep(held);
        }
    }

    fn keep(&mut self, mut batch: Vec<u8>) {
        batch[..8].copy_from_slice(&self.end.to_be_bytes());
        self.end += i64::from(i32::from_be_bytes(batch[57..61].try_into().unwrap()));
        self.batches.push(batch);
    }

    fn from(&self, offset: i64, damage: bool) -> Vec<u8> {
        let base = |batch: &[u8]| i64::from_be_bytes(batch[..8].try_into().unwrap());
        let mut records = Vec::new();
        for (number, batch) in self
            .batches
            .iter()
            .enumerate()
            .filter(|(_, batch)| base(batch) >= offset)
        {
            let start = records.len();
            records.extend_from_slice(batch);
            if damage && number == FAULTY_BATCH {
                records[start + 70] ^= 1;
            }
            if records.len() > 1 << 20 {
                break;
            }
        }
        records
    }
}
