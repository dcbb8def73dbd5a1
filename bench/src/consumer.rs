//! The consuming half of a load: one fetch in flight per connection, incremental fetch sessions (KIP-227), every batch walked.
//!
//! Driven from outside like the producing half. Records that carry stamps are timed from their intended send time and handed to
//! the verifier; others are counted by their batch's header, and decompressed where they are compressed, since a consumer would.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use ringlog_net::Str;
use ringlog_net::api::ApiKey;
use ringlog_net::error_code::ErrorCode;
use ringlog_net::messages::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData,
};

use crate::client::admin::TopicLayout;
use crate::client::batch::{FetchedBatch, Stamp};
use crate::client::clock::Clock;
use crate::client::connection::Connection;
use crate::client::error::LoadError;
use crate::client::poller::{Poller, Readiness};
use crate::client::wire;
use crate::latency::Latencies;
use crate::series::Flow;
use crate::verify::Verifier;
use crate::workload::Consumer;

/// What the measured window and the whole run saw.
#[derive(Default, Debug)]
pub struct ConsumerCounts {
    /// Records received, whole run.
    pub received: u64,
    /// Of them, records that this run's producer stamped.
    pub own: u64,
    /// Records received while the window was open.
    pub window_records: u64,
    /// Bytes of record batches received while the window was open, as they were on the wire.
    pub window_bytes: u64,
    /// Fetches answered while the window was open.
    pub window_requests: u64,
    /// Partition errors, by Kafka's name.
    pub errors: BTreeMap<String, u64>,
    /// Batches that were damaged.
    pub damaged: u64,
}

/// One client's position in one partition.
struct Lane {
    topic: u32,
    partition: i32,
    start: i64,
    position: i64,
    /// Where repetition begins again.
    end: Option<i64>,
    /// Whether the broker's session does not know the position yet.
    dirty: bool,
}

struct Link {
    /// Absent only while its input is being walked.
    connection: Option<Connection>,
    watching_write: bool,
    lanes: Vec<u32>,
    by_partition: HashMap<(u32, i32), u32>,
    session_id: i32,
    session_epoch: i32,
    dead: bool,
}

/// Everything a consuming load owns.
pub struct ConsumerLoad {
    config: Consumer,
    clock: Clock,
    version: i16,
    token_base: u64,
    topics: Vec<Str>,
    topic_index: HashMap<Str, u32>,
    lanes: Vec<Lane>,
    links: Vec<Link>,
    run: u32,
    stamped: bool,
    window: (u64, u64),
    /// Latencies of stamped records that fell due in the window.
    pub latencies: Latencies,
    /// Counters.
    pub counts: ConsumerCounts,
    /// Received records and bytes of batches, second by second.
    pub flow: Flow,
}

/// What a consuming load is made from besides its configuration.
pub struct ConsumerSetup<'a> {
    /// The run's clock.
    pub clock: Clock,
    /// Topics and leaders.
    pub layouts: &'a [TopicLayout],
    /// Fetch version to speak.
    pub version: i16,
    /// Where each partition begins.
    pub starts: &'a HashMap<(String, i32), i64>,
    /// Where each partition ends, for repetition.
    pub ends: Option<&'a HashMap<(String, i32), i64>>,
    /// Tokens from here on belong to this load.
    pub token_base: u64,
    /// This run's number: only stamps that carry it are looked at.
    pub run: u32,
    /// Whether records carry stamps.
    pub stamped: bool,
    /// The measured window on the run's clock.
    pub window: (u64, u64),
}

impl ConsumerLoad {
    /// Opens all connections.
    pub fn open(
        config: &Consumer,
        setup: ConsumerSetup<'_>,
        poller: &Poller,
    ) -> io::Result<ConsumerLoad> {
        let mut load = ConsumerLoad {
            config: config.clone(),
            clock: setup.clock,
            version: setup.version,
            token_base: setup.token_base,
            topics: Vec::new(),
            topic_index: HashMap::new(),
            lanes: Vec::new(),
            links: Vec::new(),
            run: setup.run,
            stamped: setup.stamped,
            window: setup.window,
            latencies: Latencies::new(setup.window.0),
            counts: ConsumerCounts::default(),
            flow: Flow::new(setup.window),
        };
        for layout in setup.layouts {
            let name = Str::from(layout.name.as_str());
            load.topic_index
                .insert(name.clone(), load.topics.len() as u32);
            load.topics.push(name);
        }
        for _ in 0..config.connections {
            load.open_client(&setup, poller)?;
        }
        Ok(load)
    }

    fn open_client(&mut self, setup: &ConsumerSetup<'_>, poller: &Poller) -> io::Result<()> {
        let mut links: HashMap<SocketAddr, usize> = HashMap::new();
        for (topic, layout) in setup.layouts.iter().enumerate() {
            for leader in &layout.partitions {
                let link = match links.get(&leader.address) {
                    Some(&link) => link,
                    None => {
                        let connection = Connection::open(leader.address)?;
                        let link = self.links.len();
                        poller.add(connection.socket(), self.token_base + link as u64, false)?;
                        self.links.push(Link {
                            connection: Some(connection),
                            watching_write: false,
                            lanes: Vec::new(),
                            by_partition: HashMap::new(),
                            session_id: 0,
                            session_epoch: 0,
                            dead: false,
                        });
                        links.insert(leader.address, link);
                        link
                    }
                };
                let key = (layout.name.clone(), leader.partition);
                let start = setup.starts.get(&key).copied().unwrap_or(0);
                let lane = self.lanes.len() as u32;
                self.links[link].lanes.push(lane);
                self.links[link]
                    .by_partition
                    .insert((topic as u32, leader.partition), lane);
                self.lanes.push(Lane {
                    topic: topic as u32,
                    partition: leader.partition,
                    start,
                    position: start,
                    end: setup.ends.and_then(|ends| ends.get(&key).copied()),
                    dirty: true,
                });
            }
        }
        Ok(())
    }

    /// Keeps one fetch in flight on every connection.
    pub fn pump(&mut self, poller: &Poller) -> Result<(), LoadError> {
        for link in 0..self.links.len() {
            let idle = self.links[link]
                .connection
                .as_ref()
                .is_some_and(|connection| connection.in_flight() == 0);
            if !self.links[link].dead && idle {
                let sent = self.fetch(link).and_then(|()| self.flush(link, poller));
                if sent.is_err() {
                    self.lose(link, poller);
                    return sent;
                }
            }
        }
        Ok(())
    }

    fn fetch(&mut self, link: usize) -> Result<(), LoadError> {
        let everything = self.links[link].session_epoch <= 0;
        let mut topics: Vec<FetchTopic> = Vec::new();
        let mut at = u32::MAX;
        for &index in &self.links[link].lanes {
            let lane = &mut self.lanes[index as usize];
            if !lane.dirty && !everything {
                continue;
            }
            lane.dirty = false;
            if lane.topic != at {
                at = lane.topic;
                topics.push(FetchTopic {
                    topic: self.topics[at as usize].clone(),
                    ..Default::default()
                });
            }
            if let Some(topic) = topics.last_mut() {
                topic.partitions.push(FetchPartition {
                    partition: lane.partition,
                    fetch_offset: lane.position,
                    partition_max_bytes: self.config.partition_max_bytes.cast_signed(),
                    ..Default::default()
                });
            }
        }
        let link = &mut self.links[link];
        let Some(connection) = &mut link.connection else {
            return Ok(());
        };
        let request = FetchRequest {
            max_wait_ms: self.config.max_wait_ms.cast_signed(),
            min_bytes: self.config.min_bytes.cast_signed(),
            max_bytes: self.config.max_bytes.cast_signed(),
            session_id: link.session_id,
            session_epoch: if self.version >= 7 {
                link.session_epoch
            } else {
                -1
            },
            topics,
            ..Default::default()
        };
        let correlation_id = connection.next_correlation_id();
        let frame = wire::encode(ApiKey::Fetch, self.version, correlation_id, &request)
            .map_err(|error| LoadError::Protocol(error.to_string()))?;
        connection.send(frame, self.version, true);
        Ok(())
    }

    fn flush(&mut self, link: usize, poller: &Poller) -> Result<(), LoadError> {
        let token = self.token_base + link as u64;
        let link = &mut self.links[link];
        let Some(connection) = &mut link.connection else {
            return Ok(());
        };
        connection.flush().map_err(LoadError::Io)?;
        if connection.wants_write() != link.watching_write {
            link.watching_write = connection.wants_write();
            poller
                .modify(connection.socket(), token, link.watching_write)
                .map_err(LoadError::Io)?;
        }
        Ok(())
    }

    /// Handles readiness of one of this load's sockets.
    pub fn ready(
        &mut self,
        readiness: Readiness,
        poller: &Poller,
        verifier: &mut Option<Verifier>,
    ) -> Result<(), LoadError> {
        let link = (readiness.token - self.token_base) as usize;
        if self.links[link].dead {
            return Ok(());
        }
        let mut outcome = Ok(());
        if readiness.writable {
            outcome = self.flush(link, poller);
        }
        if outcome.is_ok() && readiness.readable {
            outcome = self.receive(link, verifier);
        }
        if outcome.is_err() {
            self.lose(link, poller);
        }
        outcome
    }

    fn receive(&mut self, link: usize, verifier: &mut Option<Verifier>) -> Result<(), LoadError> {
        // One fetch is in flight, so at most one answer comes; it must be walked while the buffer still holds it.
        let Some(mut connection) = self.links[link].connection.take() else {
            return Ok(());
        };
        let mut walked = None;
        let received = connection.receive(|pending, frame| {
            walked = Some(self.answer(link, pending.version, frame, verifier));
        });
        self.links[link].connection = Some(connection);
        walked.unwrap_or(Ok(()))?;
        received.map_err(LoadError::Io)
    }

    fn answer(
        &mut self,
        link: usize,
        version: i16,
        frame: Bytes,
        verifier: &mut Option<Verifier>,
    ) -> Result<(), LoadError> {
        let response: FetchResponse = wire::decode(ApiKey::Fetch, version, frame)
            .map_err(|error| LoadError::Protocol(error.to_string()))?;
        let now = self.clock.now();
        if now >= self.window.0 && now < self.window.1 {
            self.counts.window_requests += 1;
        }
        if response.error_code != ErrorCode::NONE {
            *self
                .counts
                .errors
                .entry(response.error_code.to_string())
                .or_default() += 1;
            self.links[link].session_id = 0;
            self.links[link].session_epoch = 0;
            return Ok(());
        }
        let session = &mut self.links[link];
        session.session_id = response.session_id;
        session.session_epoch = match response.session_id {
            0 => 0,
            _ if session.session_epoch == i32::MAX => 1,
            _ => session.session_epoch + 1,
        };
        for topic in &response.responses {
            let Some(&topic_index) = self.topic_index.get(&topic.topic) else {
                return Err(LoadError::Protocol(format!(
                    "an answer for topic {}",
                    topic.topic
                )));
            };
            for partition in &topic.partitions {
                let Some(&lane) = self.links[link]
                    .by_partition
                    .get(&(topic_index, partition.partition_index))
                else {
                    let what = format!(
                        "an answer for {}-{}",
                        topic.topic, partition.partition_index
                    );
                    return Err(LoadError::Protocol(what));
                };
                self.take(lane, partition, now, verifier);
            }
        }
        Ok(())
    }

    fn take(&mut self, lane: u32, data: &PartitionData, now: u64, verifier: &mut Option<Verifier>) {
        if data.error_code != ErrorCode::NONE {
            *self
                .counts
                .errors
                .entry(data.error_code.to_string())
                .or_default() += 1;
            self.lanes[lane as usize].dirty = true;
            return;
        }
        // A broker may gather an answer from several pieces; a batch never spans two in what was read from one frame.
        for piece in data.records.pieces() {
            self.walk(lane, piece, now, verifier);
        }
        let lane = &mut self.lanes[lane as usize];
        if lane.end.is_some_and(|end| lane.position >= end) {
            lane.position = lane.start;
            lane.dirty = true;
        }
    }

    fn walk(&mut self, index: u32, mut rest: &[u8], now: u64, verifier: &mut Option<Verifier>) {
        let in_window = now >= self.window.0 && now < self.window.1;
        while let Some(first) = FetchedBatch::split_first(rest) {
            let lane = &mut self.lanes[index as usize];
            let Ok((batch, after)) = first else {
                self.counts.damaged += 1;
                return;
            };
            let bytes = rest.len() - after.len();
            rest = after;
            let position = lane.position;
            lane.position = batch.next_offset();
            lane.dirty = true;
            if self.config.check_crc && batch.check().is_err() {
                self.counts.damaged += 1;
                continue;
            }
            if batch.is_control() {
                continue;
            }
            let mut records =
                u64::try_from(batch.next_offset() - position.max(batch.base_offset())).unwrap_or(0);
            if self.stamped || batch.is_compressed() {
                records = 0;
                let (topic, partition) = (lane.topic, lane.partition);
                let (run, window, stamped) = (self.run, self.window, self.stamped);
                let latencies = &mut self.latencies;
                let own = &mut self.counts.own;
                let walked = batch.for_each(position, |offset, value| {
                    records += 1;
                    let Some(stamp) =
                        Stamp::read(value).filter(|stamp| stamped && stamp.run == run)
                    else {
                        return;
                    };
                    *own += 1;
                    if stamp.intended_ns >= window.0 && stamp.intended_ns < window.1 {
                        latencies.record(now, now.saturating_sub(stamp.intended_ns), 1);
                    }
                    if let Some(verifier) = verifier {
                        verifier.see(topic, partition, offset, stamp, value);
                    }
                });
                if walked.is_err() {
                    self.counts.damaged += 1;
                }
            }
            self.counts.received += records;
            self.flow.count(now, records, bytes as u64);
            if in_window {
                self.counts.window_records += records;
                self.counts.window_bytes += bytes as u64;
            }
        }
    }

    fn lose(&mut self, link: usize, poller: &Poller) {
        self.links[link].dead = true;
        if let Some(connection) = self.links[link].connection.take() {
            // The socket may be beyond removing; closing it removes it as well.
            let _ = poller.remove(connection.socket());
        }
    }

    /// Ends every connection; what was counted stays.
    pub fn close(&mut self, poller: &Poller) {
        for link in 0..self.links.len() {
            if !self.links[link].dead {
                self.lose(link, poller);
            }
        }
    }

    /// Whether every client has read every partition up to `ends`.
    pub fn reached(&self, ends: &HashMap<(String, i32), i64>) -> bool {
        self.lanes.iter().all(|lane| {
            let key = (self.topics[lane.topic as usize].to_string(), lane.partition);
            ends.get(&key).is_none_or(|&end| lane.position >= end)
        })
    }

    /// Whether any connection still lives.
    pub fn alive(&self) -> bool {
        self.links.iter().any(|link| !link.dead)
    }
}
