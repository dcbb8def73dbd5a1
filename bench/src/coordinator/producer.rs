//! An idempotent producer without a linger's waits, with or without transactions: a closed loop that keeps its connection full.
//!
//! It behaves as Java's: five requests in flight, each with a batch for every partition; a transaction ends by waiting for all of them, then
//! EndTxn, and the next one begins with its answer. Under `transaction.version` 2 (KIP-890) partitions join by being produced to, and EndTxn
//! gives the next epoch; before it, AddPartitionsToTxn comes first. What is refused for now is sent again in order after Java's pause.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringlog_net::Records;
use ringlog_net::api::ApiKey;
use ringlog_net::codec::Message;
use ringlog_net::error_code::ErrorCode;
use ringlog_net::messages::add_partitions_to_txn::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, AddPartitionsToTxnTopic,
};
use ringlog_net::messages::end_txn::{EndTxnRequest, EndTxnResponse};
use ringlog_net::messages::produce::{
    PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData,
};

use super::CoordinatorError;
use crate::client::admin::Admin;
use crate::client::batch::{self, BatchBuilder, ProducerIdentity};
use crate::client::clock::Clock;
use crate::client::compression::Compression;
use crate::client::coordination::KeyType;
use crate::client::fleet::{Arrival, Fleet};
use crate::client::wire;
use crate::latency::Latencies;

/// Requests in flight, as Java's `max.in.flight.requests.per.connection`.
const IN_FLIGHT: usize = 5;
/// Pause before a refused batch is sent again: Java's `retry.backoff.ms`.
const BATCH_BACK_OFF: Duration = Duration::from_millis(100);
/// Pause before AddPartitionsToTxn or EndTxn is sent again: Java's, while the transaction before is being completed.
const CONCURRENT_BACK_OFF: Duration = Duration::from_millis(20);
/// Pauses in a row, without a batch acknowledged, after which what was refused for now is refused.
const PAUSES_MAX: u32 = 600;
/// How long an answer may take.
const PATIENCE_NS: u64 = 60_000_000_000;

/// What a producer writes, and where.
#[derive(Clone, Debug)]
pub struct Load<'a> {
    /// The topic.
    pub topic: &'a str,
    /// Its partitions.
    pub partitions: usize,
    /// Bytes of a record's value.
    pub record_bytes: usize,
    /// Bytes of a full batch.
    pub batch_bytes: usize,
    /// The transactional id and a transaction's length in nanoseconds; none for a producer that is only idempotent.
    pub transactions: Option<(&'a str, u64)>,
}

/// What became of it.
pub struct Produced {
    /// Bytes of values acknowledged in the window.
    pub bytes: u64,
    /// Transactions committed in the window.
    pub transactions: u64,
    /// Batches sent again, whole run.
    pub batches_again: u64,
    /// AddPartitionsToTxn and EndTxn sent again, whole run.
    pub calls_again: u64,
    /// Errors after which something was sent again.
    pub errors: BTreeMap<String, u64>,
    /// From the last acknowledgement of a transaction to EndTxn's answer.
    pub commits: Latencies,
    /// From a transaction's first request to its acknowledgement: what it takes to be let in.
    pub firsts: Latencies,
}

/// A producer with its connection.
pub struct Producer<'a> {
    load: Load<'a>,
    fleet: Fleet,
    clock: Clock,
    produce_version: i16,
    add_version: i16,
    end_version: i16,
    second_version: bool,
    identity: ProducerIdentity,
    sequences: Vec<i32>,
    template: Bytes,
    records_per_batch: i32,
    spare: Vec<BytesMut>,
    unanswered: VecDeque<Vec<Option<Bytes>>>,
    arrived: Vec<Arrival>,
    produced: Produced,
    pauses: u32,
    /// When the transaction's first request went out, until it is answered.
    first_sent: Option<u64>,
    window: (u64, u64),
}

impl<'a> Producer<'a> {
    /// Connects and gets a producer id. Topic and coordinator must be on the broker that `admin` talks to.
    pub fn open(admin: &mut Admin, load: Load<'a>) -> Result<Producer<'a>, CoordinatorError> {
        let layouts = admin.layouts(&[load.topic.to_string()])?;
        let leader = layouts
            .first()
            .and_then(|layout| layout.partitions.first())
            .map(|partition| partition.address)
            .ok_or(CoordinatorError::TooSlow("the topic's leader"))?;
        let second_version = admin.finalised("transaction.version")? >= 2;
        let (id, epoch) = match load.transactions {
            Some((transactional_id, _)) => {
                let coordinator = admin.coordinator(transactional_id, KeyType::Transaction)?;
                if coordinator != leader {
                    return Err(CoordinatorError::SeveralBrokers);
                }
                admin.transactional_producer_id(transactional_id)?
            }
            None => admin.producer_id()?,
        };
        // From these versions on a request means transactions of the second version.
        let (produce, end) = if second_version { (12, 5) } else { (11, 4) };
        let mut template = BatchBuilder::default();
        let payload: Vec<u8> = (0..load.record_bytes)
            .map(|at| (at * 131 % 251) as u8)
            .collect();
        template.append(0, None, &payload, None);
        while template.bytes() + load.record_bytes + 16 <= load.batch_bytes {
            template.append(0, None, &payload, None);
        }
        let records_per_batch = template.count();
        let template = template
            .seal(ProducerIdentity::NONE, Compression::None)
            .map_err(|error| io::Error::other(error.to_string()))?;
        let mut template = BytesMut::from(&template[..]);
        if load.transactions.is_some() {
            batch::mark_transactional(&mut template);
        }
        Ok(Producer {
            fleet: Fleet::open(leader, 1)?,
            clock: Clock::start(),
            produce_version: admin.version(ApiKey::Produce, "Produce")?.min(produce),
            add_version: admin.version(ApiKey::AddPartitionsToTxn, "AddPartitionsToTxn")?,
            end_version: admin.version(ApiKey::EndTxn, "EndTxn")?.min(end),
            second_version,
            identity: ProducerIdentity {
                id,
                epoch,
                sequence: 0,
            },
            sequences: vec![0; load.partitions],
            template: template.freeze(),
            records_per_batch,
            spare: Vec::new(),
            unanswered: VecDeque::new(),
            arrived: Vec::new(),
            produced: Produced {
                bytes: 0,
                transactions: 0,
                batches_again: 0,
                calls_again: 0,
                errors: BTreeMap::new(),
                commits: Latencies::new(0),
                firsts: Latencies::new(0),
            },
            pauses: 0,
            first_sent: None,
            window: (0, 0),
            load,
        })
    }

    /// Produces for `warmup` and then `length` seconds, which are the window.
    pub fn run(mut self, warmup: f64, length: f64) -> Result<Produced, CoordinatorError> {
        let begins = self.clock.now() + (warmup * 1e9) as u64;
        let ends = begins + (length * 1e9) as u64;
        self.window = (begins, ends);
        self.produced.commits = Latencies::new(begins);
        self.produced.firsts = Latencies::new(begins);
        let mut settled = false;
        while self.clock.now() < ends {
            let until = match self.load.transactions {
                Some((_, transaction_ns)) => {
                    if !self.second_version {
                        self.add_partitions()?;
                    }
                    (self.clock.now() + transaction_ns).min(ends)
                }
                None => ends,
            };
            self.first_sent = Some(self.clock.now());
            if !settled {
                // A broker that knows nothing of a producer takes any sequence for its first: the first batch goes alone, lest a later one
                // overtakes it while it is sent again.
                self.send_fresh()?;
                while !self.unanswered.is_empty() {
                    self.take_answers()?;
                }
                settled = true;
            }
            while self.clock.now() < until {
                while self.unanswered.len() < IN_FLIGHT {
                    self.send_fresh()?;
                }
                self.take_answers()?;
            }
            while !self.unanswered.is_empty() {
                self.take_answers()?;
            }
            if self.load.transactions.is_some() {
                self.end_transaction()?;
            }
        }
        Ok(self.produced)
    }

    /// Stamps a batch for every partition and sends them as one request.
    fn send_fresh(&mut self) -> io::Result<()> {
        let timestamp = self.clock.wall_ms(self.clock.now());
        let mut batches = Vec::with_capacity(self.load.partitions);
        for partition in 0..self.load.partitions {
            let mut bytes = self
                .spare
                .pop()
                .unwrap_or_else(|| BytesMut::from(&self.template[..]));
            let sequence = self.sequences[partition];
            let identity = ProducerIdentity {
                sequence,
                ..self.identity
            };
            batch::stamp_header(
                &mut bytes,
                timestamp,
                timestamp,
                identity,
                self.records_per_batch,
            );
            // Sequences go round below 2^31, as the broker counts them.
            self.sequences[partition] = sequence.wrapping_add(self.records_per_batch) & i32::MAX;
            batches.push(Some(bytes.freeze()));
        }
        self.send(batches)
    }

    /// Sends batches by partition, `None` where a partition has none.
    fn send(&mut self, batches: Vec<Option<Bytes>>) -> io::Result<()> {
        let partition_data = batches
            .iter()
            .zip(0..)
            .filter_map(|(batch, index)| {
                Some(PartitionProduceData {
                    index,
                    records: Some(Records::from(batch.clone()?)),
                })
            })
            .collect();
        let request = ProduceRequest {
            transactional_id: self.load.transactions.map(|(id, _)| id.into()),
            acks: -1,
            timeout_ms: 30_000,
            topic_data: vec![TopicProduceData {
                name: self.load.topic.into(),
                partition_data,
                ..Default::default()
            }],
        };
        self.unanswered.push_back(batches);
        self.fleet
            .send(0, ApiKey::Produce, self.produce_version, &request)
    }

    fn poll(&mut self, begun: u64) -> Result<(), CoordinatorError> {
        if self.clock.now() - begun > PATIENCE_NS {
            return Err(CoordinatorError::TooSlow("the producer's answers"));
        }
        Ok(self
            .fleet
            .poll(Duration::from_millis(100), &mut self.arrived)?)
    }

    /// Waits for answers. Where a batch was refused for now, everything in flight is awaited, and then what was refused goes again in order.
    fn take_answers(&mut self) -> Result<(), CoordinatorError> {
        let begun = self.clock.now();
        let mut refused: Vec<Vec<Option<Bytes>>> = Vec::new();
        loop {
            self.poll(begun)?;
            for answer in std::mem::take(&mut self.arrived) {
                let left = self.on_produced(answer)?;
                if left.iter().any(Option::is_some) {
                    refused.push(left);
                }
            }
            if refused.is_empty() || self.unanswered.is_empty() {
                break;
            }
        }
        if !refused.is_empty() {
            self.pauses += 1;
            if self.pauses > PAUSES_MAX {
                return Err(CoordinatorError::Stuck(format!(
                    "{:?}",
                    self.produced.errors
                )));
            }
            std::thread::sleep(BATCH_BACK_OFF);
            for batches in refused {
                self.produced.batches_again += batches.iter().flatten().count() as u64;
                self.send(batches)?;
            }
        }
        Ok(())
    }

    /// Counts what was acknowledged, and gives back what was refused for now.
    fn on_produced(&mut self, answer: Arrival) -> Result<Vec<Option<Bytes>>, CoordinatorError> {
        let mut batches = self.unanswered.pop_front().unwrap_or_default();
        let response: ProduceResponse = decode(ApiKey::Produce, answer)?;
        let now = self.clock.now();
        let answers = response
            .responses
            .iter()
            .flat_map(|t| &t.partition_responses);
        for partition in answers {
            let code = partition.error_code;
            let Some(slot) = usize::try_from(partition.index)
                .ok()
                .and_then(|index| batches.get_mut(index))
            else {
                continue;
            };
            // A batch that follows a refused one is out of order, until both are sent again.
            let again = code.is_retriable() || code == ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER;
            if code.is_none() || code == ErrorCode::DUPLICATE_SEQUENCE_NUMBER {
                self.pauses = 0;
                if let Some(sent) = self.first_sent.take()
                    && now >= self.window.0
                {
                    self.produced.firsts.record(now, now - sent, 1);
                }
                if now >= self.window.0 && now < self.window.1 {
                    self.produced.bytes += self.records_per_batch.unsigned_abs() as u64
                        * self.load.record_bytes as u64;
                }
                if let Some(bytes) = slot.take().and_then(|bytes| bytes.try_into_mut().ok()) {
                    self.spare.push(bytes);
                }
            } else if again {
                *self.produced.errors.entry(code.to_string()).or_default() += 1;
            } else {
                return Err(CoordinatorError::Refused {
                    what: "to take records".into(),
                    code,
                });
            }
        }
        Ok(batches)
    }

    /// Sends one request and waits for its answer; nothing else may be in flight.
    fn ask<Q: Message, R: Message>(
        &mut self,
        key: ApiKey,
        version: i16,
        request: &Q,
    ) -> Result<R, CoordinatorError> {
        let begun = self.clock.now();
        self.fleet.send(0, key, version, request)?;
        loop {
            self.poll(begun)?;
            if let Some(answer) = self.arrived.pop() {
                return decode(key, answer);
            }
        }
    }

    fn add_partitions(&mut self) -> Result<(), CoordinatorError> {
        let Some((id, _)) = self.load.transactions else {
            return Ok(());
        };
        let partitions = (0..self.load.partitions).filter_map(|at| i32::try_from(at).ok());
        let request = AddPartitionsToTxnRequest {
            v3_and_below_transactional_id: id.into(),
            v3_and_below_producer_id: self.identity.id,
            v3_and_below_producer_epoch: self.identity.epoch,
            v3_and_below_topics: vec![AddPartitionsToTxnTopic {
                name: self.load.topic.into(),
                partitions: partitions.collect(),
            }],
            ..Default::default()
        };
        let begun = self.clock.now();
        loop {
            let response: AddPartitionsToTxnResponse =
                self.ask(ApiKey::AddPartitionsToTxn, self.add_version, &request)?;
            let code = response
                .results_by_topic_v3_and_below
                .iter()
                .flat_map(|topic| &topic.results_by_partition)
                .map(|partition| partition.partition_error_code)
                .find(|code| code.is_error());
            match code {
                None => return Ok(()),
                Some(code) => self.again("to add partitions to a transaction", code, begun)?,
            }
        }
    }

    fn end_transaction(&mut self) -> Result<(), CoordinatorError> {
        let Some((id, _)) = self.load.transactions else {
            return Ok(());
        };
        let request = EndTxnRequest {
            transactional_id: id.into(),
            producer_id: self.identity.id,
            producer_epoch: self.identity.epoch,
            committed: true,
        };
        let begun = self.clock.now();
        loop {
            let response: EndTxnResponse = self.ask(ApiKey::EndTxn, self.end_version, &request)?;
            if response.error_code.is_error() {
                self.again("to commit a transaction", response.error_code, begun)?;
                continue;
            }
            if self.end_version >= 5 {
                self.identity.id = response.producer_id;
                self.identity.epoch = response.producer_epoch;
                self.sequences.fill(0);
            }
            let now = self.clock.now();
            if now >= self.window.0 && now < self.window.1 {
                self.produced.commits.record(now, now - begun, 1);
                self.produced.transactions += 1;
            }
            return Ok(());
        }
    }

    /// Pauses before a call is made again, if its error lets it.
    fn again(&mut self, what: &str, code: ErrorCode, begun: u64) -> Result<(), CoordinatorError> {
        // Kafka's clients repeat this one too, though it is not marked so everywhere.
        let retriable = code.is_retriable() || code == ErrorCode::CONCURRENT_TRANSACTIONS;
        if !retriable || self.clock.now() - begun > PATIENCE_NS {
            return Err(CoordinatorError::Refused {
                what: what.into(),
                code,
            });
        }
        *self.produced.errors.entry(code.to_string()).or_default() += 1;
        self.produced.calls_again += 1;
        std::thread::sleep(CONCURRENT_BACK_OFF);
        Ok(())
    }
}

fn decode<M: Message>(key: ApiKey, answer: Arrival) -> Result<M, CoordinatorError> {
    wire::decode(key, answer.version, answer.frame)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()).into())
}
