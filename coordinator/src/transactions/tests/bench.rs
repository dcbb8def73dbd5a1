//! A coordinator on the bench: every event is durable at once, and answers are looked up by token.

use std::collections::BTreeMap;

use ringlog_net::messages::add_offsets_to_txn::AddOffsetsToTxnRequest;
use ringlog_net::messages::add_partitions_to_txn::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use ringlog_net::messages::describe_transactions::TransactionState as Described;
use ringlog_net::messages::end_txn::EndTxnRequest;
use ringlog_net::messages::init_producer_id::InitProducerIdRequest;
use ringlog_net::{ErrorCode, Str, Uuid};

use super::super::*;

/// The timeout that producers ask for unless a test says otherwise.
pub const TIMEOUT_MS: i32 = 60_000;
/// The version of each request that a client of today sends.
pub const INIT: i16 = 5;
pub const ADD: i16 = 5;
pub const END: i16 = 5;
/// The versions of a client that does not bump epochs.
pub const OLD_ADD: i16 = 3;
pub const OLD_END: i16 = 4;

/// What an InitProducerId or EndTxn was answered; none while it is held.
pub type Answer = Option<Result<ProducerIdAndEpoch, ErrorCode>>;

pub fn identity(producer_id: i64, epoch: i16) -> ProducerIdAndEpoch {
    ProducerIdAndEpoch { producer_id, epoch }
}

pub fn caller(token: u64, now: Now, version: i16) -> Caller {
    Caller {
        token: Token(token),
        now,
        version,
        client_id: Str::default(),
        client_host: Str::default(),
        fresh_id: Uuid::ZERO,
    }
}

pub fn init_request(id: &str, asks: Option<ProducerIdAndEpoch>) -> InitProducerIdRequest {
    let asks = asks.unwrap_or(identity(-1, -1));
    InitProducerIdRequest {
        transactional_id: Some(Str::from(id)),
        transaction_timeout_ms: TIMEOUT_MS,
        producer_id: asks.producer_id,
        producer_epoch: asks.epoch,
    }
}

pub fn add_request(
    id: &str,
    asks: ProducerIdAndEpoch,
    partitions: &[(&str, i32)],
) -> AddPartitionsToTxnTransaction {
    AddPartitionsToTxnTransaction {
        transactional_id: Str::from(id),
        producer_id: asks.producer_id,
        producer_epoch: asks.epoch,
        verify_only: false,
        topics: partitions
            .iter()
            .map(|(topic, partition)| AddPartitionsToTxnTopic {
                name: Str::from(*topic),
                partitions: vec![*partition],
            })
            .collect(),
    }
}

pub fn end_request(id: &str, asks: ProducerIdAndEpoch, committed: bool) -> EndTxnRequest {
    EndTxnRequest {
        transactional_id: Str::from(id),
        producer_id: asks.producer_id,
        producer_epoch: asks.epoch,
        committed,
    }
}

/// Id, epoch and error in one.
pub fn outcome(reply: &TransactionReply) -> Result<ProducerIdAndEpoch, ErrorCode> {
    let (error, producer_id, epoch) = match reply {
        TransactionReply::InitProducerId(response) => (
            response.error_code,
            response.producer_id,
            response.producer_epoch,
        ),
        TransactionReply::EndTxn(response) => (
            response.error_code,
            response.producer_id,
            response.producer_epoch,
        ),
        other => (other.error(), -1, -1),
    };
    if error.is_none() {
        Ok(identity(producer_id, epoch))
    } else {
        Err(error)
    }
}

pub struct Bench {
    pub coordinator: TransactionCoordinator,
    pub now: Now,
    /// What has been appended.
    pub log: Vec<Record>,
    pub replies: BTreeMap<Token, TransactionReply>,
    pub markers: Vec<MarkersToWrite>,
    pub tokens: u64,
    producer_ids: i64,
    coordinator_epoch: i32,
}

impl Bench {
    pub fn new() -> Bench {
        Bench::with(TransactionConfig::default())
    }

    pub fn with(config: TransactionConfig) -> Bench {
        let mut bench = Bench {
            coordinator: TransactionCoordinator::new(config, 0),
            now: Now {
                monotonic_ms: 5_000,
                wall_ms: 1_000_000,
            },
            log: Vec::new(),
            replies: BTreeMap::new(),
            markers: Vec::new(),
            tokens: 0,
            producer_ids: 100,
            coordinator_epoch: 0,
        };
        let now = bench.now;
        bench.event(|coordinator, out| coordinator.loaded(now, out));
        bench
    }

    /// One event, durable at once.
    pub fn event<T>(
        &mut self,
        event: impl FnOnce(&mut TransactionCoordinator, &mut TransactionCommands) -> T,
    ) -> T {
        let mut out = TransactionCommands::default();
        let result = event(&mut self.coordinator, &mut out);
        self.log.extend(out.commands.records);
        for (token, reply) in out.commands.replies {
            let before = self.replies.insert(token, reply);
            assert!(before.is_none(), "{token:?} is answered twice");
        }
        self.markers.extend(out.markers);
        result
    }

    /// Another coordinator takes over, from the log.
    pub fn fail_over(&mut self) {
        let config = self.coordinator.config.clone();
        self.coordinator_epoch += 1;
        let mut next = TransactionCoordinator::new(config, self.coordinator_epoch);
        for record in &self.log {
            next.replay(&record.key, record.value.as_ref()).unwrap();
        }
        self.coordinator = next;
        self.markers.clear();
        let now = self.now;
        self.event(|coordinator, out| coordinator.loaded(now, out));
    }

    pub fn pass(&mut self, ms: u64) {
        self.now.monotonic_ms += ms;
        self.now.wall_ms += ms as i64;
    }

    pub fn timeout(&mut self) {
        let now = self.now;
        self.event(|coordinator, out| coordinator.on_timeout(now, out));
    }

    pub fn caller(&mut self, version: i16) -> Caller {
        self.tokens += 1;
        caller(self.tokens, self.now, version)
    }

    pub fn fresh(&mut self) -> i64 {
        self.producer_ids += 1;
        self.producer_ids
    }

    pub fn reply(&self, token: u64) -> Answer {
        self.replies.get(&Token(token)).map(outcome)
    }

    pub fn last(&self) -> Answer {
        self.reply(self.tokens)
    }

    pub fn init_with(&mut self, version: i16, request: InitProducerIdRequest) -> Answer {
        let (caller, fresh) = (self.caller(version), self.fresh());
        self.event(|coordinator, out| coordinator.init_producer_id(&caller, request, fresh, out));
        self.last()
    }

    pub fn init(&mut self, id: &str) -> Answer {
        self.init_with(INIT, init_request(id, None))
    }

    /// An InitProducerId that is answered at once.
    pub fn producer(&mut self, id: &str) -> ProducerIdAndEpoch {
        self.init(id).expect("held").expect("refused")
    }

    pub fn init_again(&mut self, id: &str, asks: ProducerIdAndEpoch) -> Answer {
        self.init_with(INIT, init_request(id, Some(asks)))
    }

    /// AddPartitionsToTxn with one partition; its error, none while held.
    pub fn add(
        &mut self,
        version: i16,
        id: &str,
        asks: ProducerIdAndEpoch,
        partition: i32,
    ) -> Option<ErrorCode> {
        let request = add_request(id, asks, &[("topic", partition)]);
        self.add_with(version, request)
    }

    pub fn add_with(
        &mut self,
        version: i16,
        request: AddPartitionsToTxnTransaction,
    ) -> Option<ErrorCode> {
        let caller = self.caller(version);
        self.event(|coordinator, out| coordinator.add_partitions(&caller, request, out));
        self.replies
            .get(&Token(self.tokens))
            .map(TransactionReply::error)
    }

    pub fn add_offsets(&mut self, id: &str, asks: ProducerIdAndEpoch) -> Option<ErrorCode> {
        let caller = self.caller(3);
        let request = AddOffsetsToTxnRequest {
            transactional_id: Str::from(id),
            producer_id: asks.producer_id,
            producer_epoch: asks.epoch,
            group_id: Str::from("group"),
        };
        self.event(|coordinator, out| coordinator.add_offsets(&caller, request, 7, out));
        self.replies
            .get(&Token(self.tokens))
            .map(TransactionReply::error)
    }

    pub fn end(
        &mut self,
        version: i16,
        id: &str,
        asks: ProducerIdAndEpoch,
        committed: bool,
    ) -> Answer {
        let caller = self.caller(version);
        let request = end_request(id, asks, committed);
        self.event(|coordinator, out| coordinator.end_txn(&caller, request, out));
        self.last()
    }

    /// Writes all markers that are asked for.
    pub fn write_markers(&mut self) {
        for markers in std::mem::take(&mut self.markers) {
            self.report(&markers, &markers.partitions);
        }
    }

    pub fn report(&mut self, markers: &MarkersToWrite, done: &[(Str, i32)]) {
        let (now, id) = (self.now, markers.transactional_id.clone());
        self.event(|coordinator, out| {
            coordinator.on_markers_written(now, &id, markers.decision, done, out);
        });
    }

    pub fn describe(&mut self, id: &str) -> Described {
        let caller = self.caller(0);
        let id = Str::from(id);
        self.event(|coordinator, out| coordinator.describe(&caller, &id, out));
        match &self.replies[&Token(self.tokens)] {
            TransactionReply::Described(described) => described.clone(),
            other => panic!("{other:?}"),
        }
    }

    pub fn state(&mut self, id: &str) -> String {
        self.describe(id).transaction_state.to_string()
    }

    /// A producer with an ongoing transaction of one partition.
    pub fn ongoing(&mut self, id: &str) -> ProducerIdAndEpoch {
        let producer = self.producer(id);
        assert_eq!(self.add(ADD, id, producer, 0), Some(ErrorCode::NONE));
        producer
    }

    /// Sets an id's epoch, as if it had been bumped so often.
    pub fn set_epoch(&mut self, id: &str, epoch: i16) -> ProducerIdAndEpoch {
        let id = Str::from(id);
        let mut transaction = self.coordinator.transactions[&id].clone();
        transaction.producer_epoch = epoch;
        transaction.last_producer_epoch = -1;
        let identity = transaction.identity();
        self.event(|coordinator, out| coordinator.store(&id, transaction, out).unwrap());
        identity
    }
}
