//! What can happen next, and what it does to the world.

use ringlog_net::ErrorCode;

use super::super::bench::{
    ADD, END, INIT, OLD_ADD, OLD_END, add_request, caller, end_request, init_request,
};
use super::model::{ID, Kind, Marker, NOW, Sent, TOPIC, World};
use crate::command::{Now, Token};
use crate::transactions::Decision;
use crate::transactions::state::TransactionState;

/// Tokens of each producer; they are used again once nobody can answer them any more, so that worlds do not differ by what they once were called.
const TOKENS: u64 = 16;

/// How many events may be under way to the log.
const IN_FLIGHT_MAX: usize = 2;

/// One thing that can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A producer sends a request.
    Send(u8, Kind),
    /// A producer sends what it waits for once more.
    Repeat(u8),
    /// The oldest event becomes durable.
    Flush,
    /// An answer arrives.
    Deliver(Token),
    /// A marker is written.
    Write(Marker),
    /// The coordinator hears of it.
    Report(Decision, u8),
    /// The transaction times out.
    TimeOut,
    /// Held requests have waited long enough.
    Expire,
    /// The coordinator crashes, and another starts from the log.
    Crash,
}

impl World {
    /// Everything that can happen.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.in_flight.len() >= IN_FLIGHT_MAX {
            return vec![Step::Flush, Step::Crash];
        }
        for producer in 0..2u8 {
            self.steps_of(producer, &mut steps);
        }
        if !self.in_flight.is_empty() {
            steps.push(Step::Flush);
        }
        steps.extend(self.answers.keys().map(|token| Step::Deliver(*token)));
        steps.extend(self.markers.iter().cloned().map(Step::Write));
        let reports = self.reports.iter();
        steps.extend(reports.map(|(decision, partition)| Step::Report(*decision, *partition)));
        let ongoing = |state| state == TransactionState::Ongoing;
        let transaction = self.transaction();
        if self.scenario.timeouts > 0 && transaction.is_some_and(|found| ongoing(found.state)) {
            steps.push(Step::TimeOut);
        }
        if self.scenario.expirations > 0 && self.coordinator.held_requests() > 0 {
            steps.push(Step::Expire);
        }
        if self.scenario.crashes > 0 {
            steps.push(Step::Crash);
        }
        steps
    }

    fn steps_of(&self, index: u8, steps: &mut Vec<Step>) {
        let producer = &self.producers[usize::from(index)];
        if producer.dead {
            return;
        }
        if let Some(token) = producer.waits {
            if self.scenario.repetitions > 0 || self.is_lost(token) {
                steps.push(Step::Repeat(index));
            }
            return;
        }
        let send = |kind| Step::Send(index, kind);
        if producer.identity.is_none() {
            // The producers differ in nothing but their turn.
            let turn = index == 0 || self.producers[0].identity.is_some();
            if producer.initialisations > 0 && turn {
                steps.push(send(Kind::Initialise { recover: false }));
            }
            return;
        }
        let begun = producer.transaction < self.scenario.transactions[usize::from(index)];
        if begun && !producer.must_abort && producer.added.count_ones() < 2 {
            steps.push(send(Kind::Add(producer.added.count_ones() as u8)));
        }
        if producer.added != 0 {
            steps.push(send(Kind::End(false)));
            if !producer.must_abort {
                steps.push(send(Kind::End(true)));
            }
            if self.scenario.recoveries > 0 {
                steps.push(send(Kind::Initialise { recover: true }));
            }
        }
    }

    /// Whether nobody will answer a request.
    fn is_lost(&self, token: Token) -> bool {
        !self.is_held(token)
            && !self.answers.contains_key(&token)
            && !self.is_answer_in_flight(token)
    }

    pub fn is_held(&self, token: Token) -> bool {
        let held = self.coordinator.held_deadlines.iter();
        held.clone().any(|(_, waits, _)| *waits == token)
    }

    fn is_answer_in_flight(&self, token: Token) -> bool {
        let mut answers = self.in_flight.iter().flat_map(|flight| &flight.answers);
        answers.any(|(answered, _)| *answered == token)
    }

    /// The world after a step.
    pub fn after(&self, step: &Step) -> World {
        let mut next = self.clone();
        match step {
            Step::Send(producer, kind) => next.send(*producer, *kind),
            Step::Repeat(producer) => next.repeat(*producer),
            Step::Flush => next.flush(),
            Step::Deliver(token) => next.deliver(*token),
            Step::Write(marker) => next.write(marker),
            Step::Report(decision, partition) => next.report(*decision, *partition),
            Step::TimeOut => next.time_out(),
            Step::Expire => {
                next.scenario.expirations -= 1;
                let now = Now {
                    monotonic_ms: 1000,
                    ..NOW
                };
                next.event(|coordinator, out| coordinator.on_timeout(now, out));
            }
            Step::Crash => next.crash(),
        }
        next.check();
        next
    }

    fn send(&mut self, index: u8, kind: Kind) {
        let producer = &mut self.producers[usize::from(index)];
        let identity = producer.identity;
        match kind {
            Kind::Initialise { recover: false } => producer.initialisations -= 1,
            Kind::Initialise { recover: true } => self.scenario.recoveries -= 1,
            Kind::Add(_) | Kind::End(_) => {}
        }
        let first = u64::from(index) * TOKENS;
        let free = (first..first + TOKENS).find(|token| !self.sent.contains_key(&Token(*token)));
        let token = free.expect("few requests are under way");
        let producer = &mut self.producers[usize::from(index)];
        producer.waits = Some(Token(token));
        self.sent.insert(
            Token(token),
            Sent {
                producer: index,
                kind,
                generation: producer.generation,
            },
        );
        let bumps = self.scenario.bumps_epoch[usize::from(index)];
        let version = match kind {
            Kind::Initialise { .. } => INIT,
            Kind::Add(_) if bumps => ADD,
            Kind::Add(_) => OLD_ADD,
            Kind::End(_) if bumps => END,
            Kind::End(_) => OLD_END,
        };
        let caller = caller(token, NOW, version);
        let known = identity.unwrap_or(super::super::bench::identity(-1, -1));
        // No id comes twice: what is free again by its token has been used before only if it was not kept.
        let fresh = 1_000 + 100 * i64::from(self.coordinator_epoch) + self.fresh_id();
        self.event(|coordinator, out| match kind {
            Kind::Initialise { recover } => {
                let request = init_request(&ID, recover.then_some(known));
                coordinator.init_producer_id(&caller, request, fresh, out);
            }
            Kind::Add(partition) => {
                let topic = TOPIC;
                let partitions = [(topic.as_str(), i32::from(partition))];
                let request = add_request(&ID, known, &partitions);
                coordinator.add_partitions(&caller, request, out);
            }
            Kind::End(committed) => {
                coordinator.end_txn(&caller, end_request(&ID, known, committed), out);
            }
        });
    }

    /// Counts how many initialisations there have been, by what is left of them.
    fn fresh_id(&self) -> i64 {
        let left = self
            .producers
            .iter()
            .map(|producer| i64::from(producer.initialisations));
        50 - left.sum::<i64>()
            - i64::from(self.scenario.recoveries)
            - 10 * i64::from(self.scenario.repetitions)
    }

    fn repeat(&mut self, index: u8) {
        let Some(token) = self.producers[usize::from(index)].waits else {
            return;
        };
        let kind = self.sent[&token].kind;
        if self.is_lost(token) {
            self.sent.remove(&token);
        } else {
            self.scenario.repetitions -= 1;
            if self.answers.remove(&token).is_some() {
                self.sent.remove(&token);
            }
        }
        match kind {
            Kind::Initialise { recover: true } => self.scenario.recoveries += 1,
            Kind::Initialise { recover: false } => {
                self.producers[usize::from(index)].initialisations += 1;
            }
            Kind::Add(_) | Kind::End(_) => {}
        }
        self.send(index, kind);
    }

    fn deliver(&mut self, token: Token) {
        let (Some(answer), Some(sent)) = (self.answers.remove(&token), self.sent.remove(&token))
        else {
            return;
        };
        let index = sent.producer;
        let bumps = self.scenario.bumps_epoch[usize::from(index)];
        let producer = &mut self.producers[usize::from(index)];
        producer.waits = None;
        let identity = match answer.outcome {
            Ok(identity) => identity,
            Err(ErrorCode::CONCURRENT_TRANSACTIONS | ErrorCode::COORDINATOR_LOAD_IN_PROGRESS) => {
                return;
            }
            Err(_) => {
                producer.dead = true;
                return;
            }
        };
        match sent.kind {
            Kind::Initialise { .. } => {
                producer.identity = Some(identity);
                producer.generation = answer.generation;
                producer.end_transaction();
            }
            Kind::Add(partition) => {
                producer.added |= 1 << partition;
                self.append(index, partition);
            }
            Kind::End(committed) => {
                if bumps {
                    producer.identity = Some(identity);
                }
                let tag = (index, producer.transaction);
                producer.end_transaction();
                if committed {
                    self.committed.insert(tag);
                }
            }
        }
    }

    /// A producer's data goes into a partition.
    fn append(&mut self, index: u8, partition: u8) {
        let producer = &mut self.producers[usize::from(index)];
        let Some(identity) = producer.identity else {
            return;
        };
        let tag = (index, producer.transaction);
        let known = self.partitions[usize::from(partition)]
            .entry(identity.producer_id)
            .or_default();
        if identity.epoch < known.epoch {
            producer.must_abort = true;
            return;
        }
        known.epoch = identity.epoch;
        let before = known.open.replace(tag);
        if before.is_some_and(|before| before != tag) {
            self.violate(format!("{tag:?} runs into the open {before:?}"));
        }
    }

    fn write(&mut self, marker: &Marker) {
        self.markers.remove(marker);
        let current = self.coordinator.decisions.get(&ID) == Some(&marker.decision);
        let known = self.partitions[usize::from(marker.partition)]
            .entry(marker.producer_id)
            .or_default();
        let bumped = marker.transaction_version >= 2;
        let again = bumped && marker.epoch == known.epoch && known.open.is_none();
        if marker.epoch < known.epoch || (bumped && marker.epoch == known.epoch && !again) {
            if current {
                self.violate(format!("a partition refuses {marker:?}"));
            }
            return;
        }
        known.epoch = marker.epoch;
        if let Some(tag) = known.open.take() {
            let decided = self
                .decided
                .insert((tag, marker.partition), marker.committed);
            if decided.is_some_and(|decided| decided != marker.committed) {
                self.violate(format!("{tag:?} is decided both ways"));
            }
        }
        self.reports.insert((marker.decision, marker.partition));
    }

    fn report(&mut self, decision: Decision, partition: u8) {
        self.reports.remove(&(decision, partition));
        let done = [(TOPIC, i32::from(partition))];
        self.event(|coordinator, out| {
            coordinator.on_markers_written(NOW, &ID, decision, &done, out);
        });
    }

    fn time_out(&mut self) {
        self.scenario.timeouts -= 1;
        let deadline = self.transaction().and_then(|found| found.deadline_ms);
        let now = Now {
            monotonic_ms: deadline.unwrap_or_default(),
            ..NOW
        };
        self.event(|coordinator, out| coordinator.on_timeout(now, out));
    }

    fn crash(&mut self) {
        self.scenario.crashes -= 1;
        self.in_flight.clear();
        // Before KIP-890 a marker that arrives late can end a later transaction, so whoever writes them has to see to it that none does.
        self.markers
            .retain(|marker| marker.transaction_version >= 2);
        self.coordinator_epoch += 1;
        // Requests that went down with the coordinator are answered by nobody; only those who wait for them remember.
        let waits = self.producers.each_ref().map(|producer| producer.waits);
        self.sent.retain(|token, _| waits.contains(&Some(*token)));
        self.start();
    }
}

impl super::model::Producer {
    fn end_transaction(&mut self) {
        if self.added != 0 {
            self.transaction += 1;
        }
        self.added = 0;
        self.must_abort = false;
    }
}
