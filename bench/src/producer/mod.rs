//! The producing half of a load: accumulates records into batches, keeps requests in flight, and times every acknowledgement.
//!
//! Driven from outside: the run loop offers records as they fall due, calls [`ProducerLoad::pump`] after anything changed, and
//! reports socket readiness. Behaviour follows Kafka's clients: one open batch per partition and client, closed by size or
//! linger; a batch whose connection is full of unanswered requests keeps taking records; batches of several partitions share
//! a request up to 1 MiB. Nothing is retried: an error is a result.
//!
//! A partition's batches are a [`lane`], a connection is a [`link`]; [`sending`] makes requests of batches, [`answers`] ends them,
//! and [`tally`] remembers. This file takes records in.

mod answers;
mod closed_loop;
mod lane;
mod link;
mod sending;
mod spare;
mod tally;
mod values;

use std::collections::{HashMap, VecDeque};
use std::io;

use ringlog_net::Str;
use ringlog_net::error_code::ErrorCode;

use crate::client::admin::TopicLayout;
use crate::client::clock::Clock;
use crate::client::poller::Poller;
use crate::schedule::Random;
use crate::workload::{Partitioner, Producer};
pub use lane::CLIENT_SHIFT;
use lane::{Lane, Record};
use link::Link;
use spare::Spare;
pub use tally::Tally;
use values::Values;

/// Everything a producing load owns.
pub struct ProducerLoad {
    config: Producer,
    clock: Clock,
    version: i16,
    token_base: u64,
    topics: Vec<Str>,
    topic_index: HashMap<Str, u32>,
    topic_base: Vec<u32>,
    partitions: u32,
    lanes: Vec<Lane>,
    links: Vec<Link>,
    /// When a batch's linger is over, its lane, and the batch's generation.
    lingering: VecDeque<(u64, u32, u32)>,
    values: Values,
    spare: Spare,
    identities: Vec<(i64, i16)>,
    run: u32,
    stamp: Option<bool>,
    random: Random,
    next_record: u64,
    buffered: usize,
    /// Reused between reads.
    settled: Vec<(u32, ErrorCode)>,
    /// What was seen.
    pub tally: Tally,
}

/// What a producing load is made from besides its configuration.
pub struct ProducerSetup<'a> {
    /// The run's clock.
    pub clock: Clock,
    /// Topics and leaders.
    pub layouts: &'a [TopicLayout],
    /// Produce version to speak.
    pub version: i16,
    /// Producer id and epoch per client, where idempotence is on.
    pub identities: Vec<(i64, i16)>,
    /// Tokens from here on belong to this load.
    pub token_base: u64,
    /// This run's number, written into stamps.
    pub run: u32,
    /// Whether records carry stamps, and whether those carry checksums.
    pub stamp: Option<bool>,
    /// The measured window on the run's clock.
    pub window: (u64, u64),
}

impl ProducerLoad {
    /// Opens all connections.
    pub fn open(
        config: &Producer,
        setup: ProducerSetup<'_>,
        poller: &Poller,
    ) -> io::Result<ProducerLoad> {
        let mut load = ProducerLoad {
            config: config.clone(),
            clock: setup.clock,
            version: setup.version,
            token_base: setup.token_base,
            topics: Vec::new(),
            topic_index: HashMap::new(),
            topic_base: Vec::new(),
            partitions: 0,
            lanes: Vec::new(),
            links: Vec::new(),
            lingering: VecDeque::new(),
            values: Values::make(config, u64::from(setup.run))?,
            spare: Spare::new(config, setup.stamp.is_some()),
            identities: setup.identities,
            run: setup.run,
            stamp: setup.stamp,
            random: Random::new(u64::from(setup.run) ^ 0x5eed),
            next_record: 0,
            buffered: 0,
            settled: Vec::new(),
            tally: Tally::new(setup.window),
        };
        for layout in setup.layouts {
            let name = Str::from(layout.name.as_str());
            load.topic_index.insert(
                name.clone(),
                u32::try_from(load.topics.len()).unwrap_or(u32::MAX),
            );
            load.topics.push(name);
            load.topic_base.push(load.partitions);
            load.partitions += u32::try_from(layout.partitions.len()).unwrap_or(u32::MAX);
        }
        for client in 0..config.connections {
            link::open_client(
                client,
                setup.layouts,
                load.token_base,
                poller,
                &mut load.links,
                &mut load.lanes,
            )?;
        }
        Ok(load)
    }

    /// Whether readiness of `token` is this load's.
    pub fn owns(&self, token: u64) -> bool {
        (self.token_base..self.token_base + self.links.len() as u64).contains(&token)
    }

    /// Whether another record fits the buffer.
    pub fn has_room(&self) -> bool {
        self.buffered < self.config.buffer_bytes
    }

    /// Takes a record that was due at `intended`.
    pub fn offer(&mut self, intended: u64, now: u64) {
        let number = self.next_record;
        self.next_record += 1;
        let clients = self.config.connections as u64;
        let client = number % clients;
        let partition = match self.config.partitioner {
            Partitioner::RoundRobin => (number / clients) % u64::from(self.partitions),
            Partitioner::Random => self.random.below(u64::from(self.partitions)),
        };
        let index = (client * u64::from(self.partitions) + partition) as u32;
        self.tally.counts.offered += 1;
        let value = self.values.value(number, &mut self.random);
        if self.is_full(index, value.len()) {
            self.seal(index);
            self.make_ready(index);
        }
        self.append(index, intended, now, number, &value);
        let full = self.is_full(index, self.values.smallest());
        let lane = &mut self.lanes[index as usize];
        if full {
            self.seal(index);
            self.make_ready(index);
        } else if self.config.linger_ms <= 0.0 {
            lane.due = true;
            self.make_ready(index);
        } else if lane.open_records() == 1 {
            let deadline = now + (self.config.linger_ms * 1e6) as u64;
            let generation = lane.generation;
            self.lingering.push_back((deadline, index, generation));
        }
    }

    /// Whether a value of `bytes` bytes no longer fits the lane's open batch.
    fn is_full(&self, index: u32, bytes: usize) -> bool {
        self.lanes[index as usize].is_full(bytes, self.config.batch_bytes)
    }

    fn append(&mut self, index: u32, intended: u64, now: u64, number: u64, value: &[u8]) {
        let record = Record {
            intended,
            timestamp: self.clock.wall_ms(now),
            key: self.values.key(number),
            value,
            stamp: self.stamp.map(|checksum| (self.run, checksum)),
        };
        self.lanes[index as usize].append(&record, || self.spare.times());
        self.buffered += value.len();
    }

    fn seal(&mut self, index: u32) {
        let lane = &mut self.lanes[index as usize];
        let producer = self.identities.get(lane.client as usize).copied();
        if let Err((records, error)) = lane.seal(producer, self.config.compression) {
            self.tally.refused(&error, records);
        }
    }

    fn make_ready(&mut self, index: u32) {
        let lane = &mut self.lanes[index as usize];
        if !lane.queued {
            lane.queued = true;
            self.links[lane.link as usize].ready.push_back(index);
        }
    }

    /// Whether everything offered has its answer.
    pub fn settled(&self) -> bool {
        self.links.iter().all(Link::settled) && self.lingering.is_empty()
    }

    /// When something of this load is due next, besides socket readiness.
    pub fn next_deadline(&self) -> Option<u64> {
        self.lingering.front().map(|&(deadline, ..)| deadline)
    }

    /// Acknowledged records per (topic, partition, client), for verification.
    pub fn acknowledged(&self) -> impl Iterator<Item = ((u32, i32, u32), u64)> + '_ {
        self.lanes.iter().map(|lane| {
            let place = (lane.topic, lane.partition, lane.client);
            (place, lane.acknowledged)
        })
    }
}
