//! Long random histories: several producers of several ids, clients of old and of today, retries, lost answers, timeouts, crashes, and a host that writes
//! markers late, twice, or through a crash. Where the explorer is exhaustive and short, this is long and wide.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use ringlog_net::{ErrorCode, Str};

use super::bench::*;
use crate::transactions::transaction::LAST_EPOCH;
use crate::transactions::{MarkersToWrite, ProducerIdAndEpoch, TransactionConfig};

const IDS: [&str; 2] = ["a", "b"];
const PRODUCERS: usize = 4;

#[derive(Clone, Debug)]
enum Step {
    Initialise(usize),
    Recover(usize),
    Add(usize, i32),
    AddOffsets(usize),
    End(usize, bool),
    /// The client did not hear the last answer: it asks the same again.
    Repeat(usize),
    /// Some of the markers, the first or the last of those asked for.
    Write {
        newest: bool,
        all: bool,
    },
    /// A report that has been given before.
    Stale,
    Pass(u64),
    Crash,
    UseUp(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    let producer = 0..PRODUCERS;
    prop_oneof![
        2 => producer.clone().prop_map(Step::Initialise),
        1 => producer.clone().prop_map(Step::Recover),
        8 => (producer.clone(), 0..3i32).prop_map(|(producer, partition)| Step::Add(producer, partition)),
        1 => producer.clone().prop_map(Step::AddOffsets),
        5 => (producer.clone(), any::<bool>()).prop_map(|(producer, committed)| Step::End(producer, committed)),
        2 => producer.clone().prop_map(Step::Repeat),
        6 => (any::<bool>(), any::<bool>()).prop_map(|(newest, all)| Step::Write { newest, all }),
        1 => Just(Step::Stale),
        2 => (1..90_000u64).prop_map(Step::Pass),
        1 => Just(Step::Crash),
        1 => producer.prop_map(Step::UseUp),
    ]
}

/// Who asked EndTxn, and for a commit or an abort.
type Ended = (ProducerIdAndEpoch, bool);

/// A producer, as its client sees it. Even ones bump epochs; producers 0 and 1 share an id, as do 2 and 3.
#[derive(Clone, Debug, Default)]
struct Producer {
    identity: Option<ProducerIdAndEpoch>,
    /// The last EndTxn, and who asked for it.
    ended: Option<Ended>,
}

struct History {
    bench: Bench,
    producers: Vec<Producer>,
    /// The newest identity of each id; whoever else has one is fenced.
    newest: BTreeMap<usize, usize>,
    /// Decisions by the producer id and epoch that their markers carry, which for clients of today occur once.
    decisions: BTreeMap<(i64, i16), bool>,
    asked: BTreeSet<(i32, u64)>,
    /// Identities whose commit or abort was answered.
    answered: BTreeMap<(i64, i16), bool>,
    reported: Vec<MarkersToWrite>,
    /// Requests that are held: token, producer, and what an EndTxn asked.
    waits: Vec<(u64, usize, Option<Ended>)>,
}

impl History {
    fn new() -> History {
        History {
            bench: Bench::with(TransactionConfig {
                held_per_id_max: 2,
                ..Default::default()
            }),
            producers: vec![Producer::default(); PRODUCERS],
            newest: BTreeMap::new(),
            decisions: BTreeMap::new(),
            asked: BTreeSet::new(),
            answered: BTreeMap::new(),
            reported: Vec::new(),
            waits: Vec::new(),
        }
    }

    fn id(producer: usize) -> &'static str {
        IDS[producer / 2]
    }

    fn bumps(producer: usize) -> bool {
        producer.is_multiple_of(2)
    }

    /// Whether another producer has been given the id since.
    fn is_fenced(&self, producer: usize) -> bool {
        self.newest.get(&(producer / 2)) != Some(&producer)
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Initialise(producer) => {
                let answer = self.bench.init(Self::id(producer));
                self.initialised(producer, answer, false);
            }
            Step::Recover(producer) => {
                if let Some(identity) = self.producers[producer].identity {
                    let answer = self.bench.init_again(Self::id(producer), identity);
                    self.initialised(producer, answer, true);
                }
            }
            Step::Add(producer, partition) => {
                if let Some(identity) = self.producers[producer].identity {
                    let version = if Self::bumps(producer) { ADD } else { OLD_ADD };
                    let id = Self::id(producer);
                    let error = self.bench.add(version, id, identity, partition);
                    self.not_if_fenced(producer, error == Some(ErrorCode::NONE));
                }
            }
            Step::AddOffsets(producer) => {
                if let Some(identity) = self.producers[producer].identity {
                    let error = self.bench.add_offsets(Self::id(producer), identity);
                    self.not_if_fenced(producer, error == Some(ErrorCode::NONE));
                }
            }
            Step::End(producer, committed) => {
                if let Some(identity) = self.producers[producer].identity {
                    self.end(producer, identity, committed);
                }
            }
            Step::Repeat(producer) => {
                if let Some((identity, committed)) = self.producers[producer].ended {
                    self.end(producer, identity, committed);
                }
            }
            Step::Write { newest, all } => self.write(newest, all),
            Step::Stale => {
                if let Some(markers) = self.reported.last().cloned() {
                    self.bench.report(&markers, &markers.partitions);
                }
            }
            Step::Pass(ms) => {
                self.bench.pass(ms);
                self.bench.timeout();
            }
            Step::Crash => {
                self.bench.fail_over();
                self.waits.clear();
            }
            Step::UseUp(producer) => self.use_up(producer),
        }
        self.look();
    }

    fn initialised(&mut self, producer: usize, answer: Answer, recovers: bool) {
        if answer.is_none() {
            self.waits.push((self.bench.tokens, producer, None));
        }
        let Some(Ok(identity)) = answer else { return };
        if recovers {
            self.not_if_fenced(producer, true);
        }
        self.newest.insert(producer / 2, producer);
        self.producers[producer].identity = Some(identity);
        self.producers[producer].ended = None;
    }

    fn not_if_fenced(&self, producer: usize, succeeded: bool) {
        assert!(
            !(succeeded && self.is_fenced(producer)),
            "{producer} is fenced and succeeds"
        );
    }

    fn end(&mut self, producer: usize, asks: ProducerIdAndEpoch, committed: bool) {
        let bumps = Self::bumps(producer);
        let version = if bumps { END } else { OLD_END };
        let answer = self.bench.end(version, Self::id(producer), asks, committed);
        self.not_if_fenced(producer, matches!(answer, Some(Ok(_))));
        if answer.is_none() {
            let asked = Some((asks, committed));
            self.waits.push((self.bench.tokens, producer, asked));
        }
        self.ended(producer, asks, committed, answer);
    }

    fn ended(
        &mut self,
        producer: usize,
        asks: ProducerIdAndEpoch,
        committed: bool,
        answer: Answer,
    ) {
        let bumps = Self::bumps(producer);
        let current = self.producers[producer].identity == Some(asks);
        if current {
            self.producers[producer].ended = Some((asks, committed));
        }
        if let Some(Ok(identity)) = answer.filter(|_| bumps) {
            let before = self
                .answered
                .insert((asks.producer_id, asks.epoch), committed);
            assert!(
                before.is_none_or(|before| before == committed),
                "answered both ways"
            );
            if current {
                self.producers[producer].identity = Some(identity);
            }
        }
    }

    /// The epoch of an id without a transaction jumps to its last.
    fn use_up(&mut self, producer: usize) {
        let id = Self::id(producer);
        let Some(&owner) = self.newest.get(&(producer / 2)) else {
            return;
        };
        let described = self.bench.describe(id);
        if described.transaction_state != "Empty" || described.producer_epoch >= LAST_EPOCH - 1 {
            return;
        }
        // Whoever waits for an answer has an older epoch than this.
        let identity = self.bench.set_epoch(id, LAST_EPOCH - 1);
        self.producers[owner].identity = Some(identity);
        self.producers[owner].ended = None;
    }

    fn write(&mut self, newest: bool, all: bool) {
        let count = self.bench.markers.len();
        let Some(last) = count.checked_sub(1) else {
            return;
        };
        let index = if newest { last } else { 0 };
        if all {
            let markers = self.bench.markers.remove(index);
            self.bench.report(&markers, &markers.partitions);
            self.reported.push(markers);
        } else {
            let markers = self.bench.markers[index].clone();
            self.bench.report(&markers, &markers.partitions[..1]);
        }
    }

    /// Answers that have come late, in the order in which they were asked for, which is the order in which they are given.
    fn listen(&mut self) {
        let waits = std::mem::take(&mut self.waits);
        for (token, producer, asked) in waits {
            let answer = self.bench.reply(token);
            match (answer, asked) {
                (None, _) => self.waits.push((token, producer, asked)),
                (Some(answer), Some((asks, committed))) => {
                    self.not_if_fenced(producer, answer.is_ok());
                    self.ended(producer, asks, committed, Some(answer));
                }
                (Some(answer), None) => self.initialised(producer, Some(answer), false),
            }
        }
    }

    /// What holds after every step.
    fn look(&mut self) {
        self.listen();
        for markers in &self.bench.markers {
            let named = (markers.decision.coordinator_epoch, markers.decision.number);
            self.asked.insert(named);
            assert!(!markers.partitions.is_empty());
            if markers.transaction_version < 2 {
                continue;
            }
            let key = (markers.producer_id, markers.producer_epoch);
            let before = self.decisions.insert(key, markers.committed);
            assert!(
                before.is_none_or(|before| before == markers.committed),
                "{key:?} is decided both ways"
            );
            let data = (key.0, key.1 - 1);
            let answered = self.answered.get(&data);
            assert!(
                answered.is_none_or(|answered| *answered == markers.committed),
                "{data:?} was answered otherwise"
            );
        }
        let coordinator = &self.bench.coordinator;
        // What is derived from the transactions agrees with them.
        let wanting = coordinator.transactions.values();
        let wanting = wanting.filter(|transaction| transaction.wants_producer_id());
        assert_eq!(coordinator.exhausted, wanting.count());
        let deadlines: BTreeSet<(u64, Str)> = coordinator
            .transactions
            .iter()
            .filter_map(|(id, transaction)| Some((transaction.deadline_ms?, id.clone())))
            .collect();
        assert_eq!(coordinator.deadlines, deadlines);
        let held: usize = coordinator.held.values().map(|queue| queue.len()).sum();
        assert_eq!(coordinator.held_deadlines.len(), held);
        for (id, transaction) in &coordinator.transactions {
            let prepared = transaction.state.is_prepared();
            assert_eq!(coordinator.decisions.contains_key(id), prepared);
            assert!(prepared || !coordinator.held.contains_key(id));
            let open = prepared || transaction.deadline_ms.is_some();
            assert_eq!(open, !transaction.partitions.is_empty());
        }
        // Everyone has been answered, or waits.
        let describes_too = self.bench.tokens as usize;
        assert!(self.bench.replies.len() + held <= describes_too);
    }

    /// Writes every marker: then nothing is left open, and nobody waits.
    fn finish(&mut self) {
        self.bench.fail_over();
        self.bench.pass(u64::from(u32::MAX));
        for _ in 0..10 {
            // An id that has used up its epochs may lack the next producer id.
            self.bench
                .coordinator
                .add_producer_id(1_000_000 + self.bench.tokens as i64);
            self.bench
                .coordinator
                .add_producer_id(2_000_000 + self.bench.tokens as i64);
            self.bench.timeout();
            self.bench.write_markers();
            self.look();
        }
        for transaction in self.bench.coordinator.transactions.values() {
            assert!(transaction.state.is_at_rest(), "{transaction:?}");
        }
        assert_eq!(self.bench.coordinator.held_requests(), 0);
        assert_eq!(self.bench.coordinator.next_deadline(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_history_keeps_the_rules(steps in prop::collection::vec(any_step(), 1..120)) {
        let mut history = History::new();
        for step in &steps {
            history.step(step);
        }
        history.finish();
    }
}
