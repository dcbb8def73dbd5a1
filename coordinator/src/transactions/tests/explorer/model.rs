//! The world around one coordinator: its log, two partitions, two producers, and all that is under way between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use ringlog_net::{ErrorCode, Str};

use crate::command::{Now, Token};
use crate::transactions::transaction::Transaction;
use crate::transactions::{
    Decision, MarkersToWrite, ProducerIdAndEpoch, TransactionCommands, TransactionConfig,
    TransactionCoordinator, log,
};

/// The one transactional id.
pub const ID: Str = Str::from_static("id");
/// The topic; its partitions are 0 and 1.
pub const TOPIC: Str = Str::from_static("topic");
pub const PARTITIONS: usize = 2;
/// Time stands still, except while something times out.
pub const NOW: Now = Now {
    monotonic_ms: 0,
    wall_ms: 0,
};

/// How much may happen.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Whether each producer's client bumps the epoch with every transaction.
    pub bumps_epoch: [bool; 2],
    /// The epoch that the log holds at first; none for an empty log.
    pub first_epoch: Option<i16>,
    /// How often each producer may ask for its first epoch.
    pub initialisations: [u8; 2],
    /// How often producers may ask for their next epoch (KIP-360), together.
    pub recoveries: u8,
    /// How many transactions each producer may begin.
    pub transactions: [u8; 2],
    /// How often a request may be repeated although its answer may yet come.
    pub repetitions: u8,
    pub crashes: u8,
    pub timeouts: u8,
    /// How often held requests may be sent away.
    pub expirations: u8,
}

/// What a producer asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Initialise { recover: bool },
    Add(u8),
    End(bool),
}

/// A transaction, for those who look from outside: producer, and number.
pub type Tag = (u8, u8);

/// A request that has been sent and not yet answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sent {
    pub producer: u8,
    pub kind: Kind,
    /// Which generation of producers it comes from: see [`World::generation`].
    pub generation: u8,
}

/// An answer on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Answer {
    pub outcome: Result<ProducerIdAndEpoch, ErrorCode>,
    /// The generation of the identity that it gives.
    pub generation: u8,
}

/// One client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Producer {
    pub identity: Option<ProducerIdAndEpoch>,
    pub generation: u8,
    /// The number of its transaction.
    pub transaction: u8,
    /// The partitions it has been told are in its transaction.
    pub added: u8,
    /// It may only abort.
    pub must_abort: bool,
    /// It has been told that it is done for.
    pub dead: bool,
    /// What it waits for.
    pub waits: Option<Token>,
    pub initialisations: u8,
}

/// A partition's view of one producer id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PartitionProducer {
    pub epoch: i16,
    /// Whose data is not decided.
    pub open: Option<Tag>,
}

/// An event that is not durable yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Flight {
    pub value: Option<Bytes>,
    pub answers: Vec<(Token, Result<ProducerIdAndEpoch, ErrorCode>)>,
    pub markers: Vec<MarkersToWrite>,
}

/// A marker that may be written.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Marker {
    pub decision: Decision,
    pub partition: u8,
    pub producer_id: i64,
    pub epoch: i16,
    pub committed: bool,
    pub transaction_version: i16,
}

#[derive(Clone, Debug)]
pub struct World {
    pub scenario: Scenario,
    pub coordinator: TransactionCoordinator,
    pub coordinator_epoch: i32,
    /// The newest durable value.
    pub log: Option<Bytes>,
    pub in_flight: VecDeque<Flight>,
    pub sent: BTreeMap<Token, Sent>,
    pub answers: BTreeMap<Token, Answer>,
    pub markers: BTreeSet<Marker>,
    pub reports: BTreeSet<(Decision, u8)>,
    pub producers: [Producer; 2],
    pub partitions: [BTreeMap<i64, PartitionProducer>; PARTITIONS],
    /// What became of each transaction's data in each partition.
    pub decided: BTreeMap<(Tag, u8), bool>,
    /// Transactions whose commit has been answered.
    pub committed: BTreeSet<Tag>,
    /// Counts the producers that have been answered InitProducerId: whoever has an identity of an earlier generation is fenced.
    pub generation: u8,
    /// The identity of this generation.
    pub newest: Option<ProducerIdAndEpoch>,
    /// What is wrong.
    pub violation: Option<String>,
}

impl World {
    pub fn new(scenario: &Scenario) -> World {
        let mut world = World {
            scenario: scenario.clone(),
            coordinator: TransactionCoordinator::new(TransactionConfig::default(), 0),
            coordinator_epoch: 0,
            log: None,
            in_flight: VecDeque::new(),
            sent: BTreeMap::new(),
            answers: BTreeMap::new(),
            markers: BTreeSet::new(),
            reports: BTreeSet::new(),
            producers: Default::default(),
            partitions: Default::default(),
            decided: BTreeMap::new(),
            committed: BTreeSet::new(),
            generation: 0,
            newest: None,
            violation: None,
        };
        for (producer, initialisations) in world
            .producers
            .iter_mut()
            .zip(world.scenario.initialisations)
        {
            producer.initialisations = initialisations;
        }
        if let Some(epoch) = scenario.first_epoch {
            let mut transaction = Transaction::new(1, 1000, NOW);
            transaction.producer_epoch = epoch;
            world.log = Some(log::value(&transaction).unwrap());
        }
        world.start();
        world
    }

    /// A coordinator starts from the log.
    pub fn start(&mut self) {
        let config = TransactionConfig::default();
        self.coordinator = TransactionCoordinator::new(config, self.coordinator_epoch);
        if let Some(value) = &self.log {
            let key = log::key(&ID).unwrap();
            self.coordinator.replay(&key, Some(value)).unwrap();
        }
        self.event(|coordinator, out| coordinator.loaded(NOW, out));
    }

    /// The state of the id.
    pub fn transaction(&self) -> Option<&Transaction> {
        self.coordinator.transactions.get(&ID)
    }

    pub fn violate(&mut self, what: impl Into<String>) {
        self.violation.get_or_insert(what.into());
    }

    /// Lets the coordinator take an event; what it brings about is under way.
    pub fn event(
        &mut self,
        event: impl FnOnce(&mut TransactionCoordinator, &mut TransactionCommands),
    ) {
        let mut out = TransactionCommands::default();
        event(&mut self.coordinator, &mut out);
        if out.commands.records.len() > 1 {
            self.violate("an event writes an id twice");
        }
        let answers = out.commands.replies.iter();
        let answers = answers.map(|(token, reply)| (*token, super::super::bench::outcome(reply)));
        let flight = Flight {
            answers: answers.collect(),
            value: out.commands.records.pop().and_then(|record| record.value),
            markers: out.markers,
        };
        if flight.value.is_some() || !flight.answers.is_empty() || !flight.markers.is_empty() {
            self.in_flight.push_back(flight);
        }
        // What a crash cannot lose any more need not be kept under way: answers and markers are delayed after this too.
        while self.scenario.crashes == 0 && !self.in_flight.is_empty() {
            self.flush();
        }
    }

    /// The oldest event becomes durable.
    pub fn flush(&mut self) {
        let Some(flight) = self.in_flight.pop_front() else {
            return;
        };
        if flight.value.is_some() {
            self.log = flight.value;
        }
        for (token, outcome) in flight.answers {
            self.answer(token, outcome);
        }
        for markers in flight.markers {
            for (_, partition) in markers.partitions {
                self.markers.insert(Marker {
                    decision: markers.decision,
                    partition: partition as u8,
                    producer_id: markers.producer_id,
                    epoch: markers.producer_epoch,
                    committed: markers.committed,
                    transaction_version: markers.transaction_version,
                });
            }
        }
    }

    /// An answer leaves the coordinator. In this order producers are fenced.
    fn answer(&mut self, token: Token, outcome: Result<ProducerIdAndEpoch, ErrorCode>) {
        let Some(sent) = self.sent.get(&token).cloned() else {
            self.violate(format!("{token:?} is answered twice"));
            return;
        };
        if let Ok(identity) = outcome {
            let first = sent.kind == Kind::Initialise { recover: false };
            if !first && sent.generation != self.generation {
                self.violate(format!("{sent:?} succeeds although it is fenced"));
            }
            let bumps = self.scenario.bumps_epoch[usize::from(sent.producer)];
            match sent.kind {
                Kind::Initialise { .. } if self.newest != Some(identity) => {
                    self.generation += 1;
                    self.newest = Some(identity);
                }
                Kind::End(_) if bumps => self.newest = Some(identity),
                _ => {}
            }
        }
        // Only the last request that a producer has sent has anybody waiting for it.
        if self.producers[usize::from(sent.producer)].waits == Some(token) {
            let generation = self.generation;
            self.answers.insert(
                token,
                Answer {
                    outcome,
                    generation,
                },
            );
        } else {
            self.sent.remove(&token);
        }
    }

    /// Names the state: two worlds with one name are the same. Among a million, two others share a name with a chance of one in thirty million.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash_into(&mut hasher);
        hasher.finish()
    }

    fn hash_into(&self, hasher: &mut DefaultHasher) {
        let scenario = &self.scenario;
        (scenario.recoveries, scenario.repetitions, scenario.crashes).hash(hasher);
        (scenario.timeouts, scenario.expirations).hash(hasher);
        let coordinator = &self.coordinator;
        coordinator.transactions.hash(hasher);
        coordinator.decisions.hash(hasher);
        coordinator.decisions_made.hash(hasher);
        coordinator.spare_producer_ids.hash(hasher);
        for held in coordinator.held.values().flatten() {
            (held.request.token, held.deadline_ms).hash(hasher);
        }
        self.coordinator_epoch.hash(hasher);
        (&self.log, &self.in_flight, &self.sent, &self.answers).hash(hasher);
        (&self.markers, &self.reports, &self.producers).hash(hasher);
        (&self.partitions, &self.decided, &self.committed).hash(hasher);
        (self.generation, self.newest).hash(hasher);
    }
}
