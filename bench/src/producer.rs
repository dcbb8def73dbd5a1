//! The producing half of a load: accumulates records into batches, keeps requests in flight, and times every acknowledgement.
//!
//! Driven from outside: the run loop offers records as they fall due, calls [`ProducerLoad::pump`] after anything changed, and
//! reports socket readiness. Behaviour follows Kafka's clients: one open batch per partition and client, closed by size or
//! linger; a batch whose connection is full of unanswered requests keeps taking records; batches of several partitions share
//! a request up to 1 MiB. Nothing is retried: an error is a result.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use ringlog_net::api::ApiKey;
use ringlog_net::error_code::ErrorCode;
use ringlog_net::messages::produce::{
    PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData,
};
use ringlog_net::{Records, Str};

use crate::client::admin::TopicLayout;
use crate::client::batch::{self, BatchBuilder, ProducerIdentity, Stamp};
use crate::client::clock::Clock;
use crate::client::connection::Connection;
use crate::client::poller::{Poller, Readiness};
use crate::client::wire;
use crate::latency::Latencies;
use crate::schedule::Random;
use crate::series::Flow;
use crate::workload::{Acks, PAYLOADS, Partitioner, Producer, Rate, sizes};

/// A request is closed at this size, like Java's `max.request.size`; it always holds at least one batch.
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// Idle buffers of acknowledged batches kept for reuse per load.
const SPARE_BATCHES_MAX: usize = 4096;
/// The client's number sits above this many bits of a stamp's sequence.
pub const CLIENT_SHIFT: u32 = 40;

/// What the measured window and the whole run saw.
#[derive(Default, Debug)]
pub struct ProducerCounts {
    /// Records offered to batches, whole run.
    pub offered: u64,
    /// Records acknowledged, whole run.
    pub acknowledged: u64,
    /// Records acknowledged while the window was open.
    pub window_records: u64,
    /// Bytes of their values.
    pub window_bytes: u64,
    /// Requests answered while the window was open.
    pub window_requests: u64,
    /// Batches acknowledged while the window was open.
    pub window_batches: u64,
    /// Records refused, by Kafka's error.
    pub errors: BTreeMap<String, u64>,
}

/// A batch on its way.
struct Sent {
    bytes: Bytes,
    intended: Vec<u64>,
    count: u64,
    value_bytes: u64,
    /// Closed loop: when the whole batch was made.
    made: u64,
}

/// One client's view of one partition.
struct Lane {
    topic: u32,
    partition: i32,
    link: u32,
    client: u32,
    builder: BatchBuilder,
    intended: Vec<u64>,
    /// Bytes of the open batch's values.
    value_bytes: u64,
    generation: u32,
    queued: bool,
    /// Whether the open batch may be sent although it is not full.
    due: bool,
    sealed: VecDeque<Sent>,
    in_flight: VecDeque<Sent>,
    next_sequence: u64,
    producer_sequence: i32,
    acknowledged: u64,
}

/// One client's connection to one broker.
struct Link {
    connection: Connection,
    watching_write: bool,
    ready: VecDeque<u32>,
    /// Closed loop: whose turn it is.
    turn: usize,
    lanes: Vec<u32>,
    dead: bool,
}

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
    lingering: VecDeque<(u64, u32, u32)>,
    payloads: Vec<Bytes>,
    /// Bytes of the smallest value.
    smallest: usize,
    key: Vec<u8>,
    /// Buffers of acknowledged batches, and bytes of the values in each.
    spare: Vec<(BytesMut, u64)>,
    spare_times: Vec<Vec<u64>>,
    identities: Vec<(i64, i16)>,
    run: u32,
    stamp: Option<bool>,
    random: Random,
    next_record: u64,
    buffered: usize,
    /// Reused between reads.
    settled: Vec<(u32, ErrorCode)>,
    /// The measured window on the run's clock.
    window: (u64, u64),
    /// Latencies of records that fell due in the window.
    pub latencies: Latencies,
    /// Counters.
    pub counts: ProducerCounts,
    /// Acknowledged records and bytes of values, second by second.
    pub flow: Flow,
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
            payloads: payloads(config, u64::from(setup.run))?,
            smallest: config.smallest_record(),
            key: vec![b'k'; config.key_bytes],
            spare: Vec::new(),
            spare_times: Vec::new(),
            identities: setup.identities,
            run: setup.run,
            stamp: setup.stamp,
            random: Random::new(u64::from(setup.run) ^ 0x5eed),
            next_record: 0,
            buffered: 0,
            settled: Vec::new(),
            window: setup.window,
            latencies: Latencies::new(setup.window.0),
            counts: ProducerCounts::default(),
            flow: Flow::new(setup.window),
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
            load.open_client(client, setup.layouts, poller)?;
        }
        Ok(load)
    }

    fn open_client(
        &mut self,
        client: usize,
        layouts: &[TopicLayout],
        poller: &Poller,
    ) -> io::Result<()> {
        let mut links: HashMap<SocketAddr, u32> = HashMap::new();
        for (topic, layout) in layouts.iter().enumerate() {
            for leader in &layout.partitions {
                let link = match links.get(&leader.address) {
                    Some(&link) => link,
                    None => {
                        let link = self.links.len();
                        let connection = Connection::open(leader.address)?;
                        poller.add(connection.socket(), self.token_base + link as u64, false)?;
                        self.links.push(Link {
                            connection,
                            watching_write: false,
                            ready: VecDeque::new(),
                            turn: 0,
                            lanes: Vec::new(),
                            dead: false,
                        });
                        links.insert(leader.address, link as u32);
                        link as u32
                    }
                };
                self.links[link as usize]
                    .lanes
                    .push(self.lanes.len() as u32);
                self.lanes.push(Lane {
                    topic: topic as u32,
                    partition: leader.partition,
                    link,
                    client: client as u32,
                    builder: BatchBuilder::default(),
                    intended: Vec::new(),
                    value_bytes: 0,
                    generation: 0,
                    queued: false,
                    due: false,
                    sealed: VecDeque::new(),
                    in_flight: VecDeque::new(),
                    next_sequence: 0,
                    producer_sequence: 0,
                    acknowledged: 0,
                });
            }
        }
        Ok(())
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
        self.counts.offered += 1;
        let payload = self.payload(number);
        if self.is_full(index, payload.len()) {
            self.seal(index);
            self.make_ready(index);
        }
        self.append(index, intended, now, number, &payload);
        let full = self.is_full(index, self.smallest);
        let lane = &mut self.lanes[index as usize];
        if full {
            self.seal(index);
            self.make_ready(index);
        } else if self.config.linger_ms <= 0.0 {
            lane.due = true;
            self.make_ready(index);
        } else if lane.builder.count() == 1 {
            let deadline = now + (self.config.linger_ms * 1e6) as u64;
            let generation = lane.generation;
            self.lingering.push_back((deadline, index, generation));
        }
    }

    /// The value of record `number`. Values of one size take turns; which size comes next is chance.
    fn payload(&mut self, number: u64) -> Bytes {
        let count = self.payloads.len() as u64;
        let at = if self.config.record_sizes.is_empty() {
            number % count
        } else {
            self.random.below(count)
        };
        self.payloads[at as usize].clone()
    }

    /// Whether a value of `bytes` bytes no longer fits the open batch.
    fn is_full(&self, index: u32, bytes: usize) -> bool {
        let builder = &self.lanes[index as usize].builder;
        builder.count() > 0 && builder.bytes() + bytes > self.config.batch_bytes
    }

    fn append(&mut self, index: u32, intended: u64, now: u64, number: u64, payload: &[u8]) {
        let lane = &mut self.lanes[index as usize];
        let stamp = self.stamp.map(|checksum| {
            let sequence = (u64::from(lane.client) << CLIENT_SHIFT) | lane.next_sequence;
            (
                Stamp {
                    sequence,
                    intended_ns: intended,
                    run: self.run,
                },
                checksum,
            )
        });
        lane.next_sequence += 1;
        let key = (!self.key.is_empty()).then(|| {
            for (place, byte) in self.key.iter_mut().zip(number.to_be_bytes().iter().rev()) {
                *place = *byte;
            }
            self.key.as_slice()
        });
        lane.builder
            .append(self.clock.wall_ms(now), key, payload, stamp);
        if lane.intended.capacity() == 0
            && let Some(times) = self.spare_times.pop()
        {
            lane.intended = times;
        }
        lane.intended.push(intended);
        lane.value_bytes += payload.len() as u64;
        self.buffered += payload.len();
    }

    fn make_ready(&mut self, index: u32) {
        let lane = &mut self.lanes[index as usize];
        if !lane.queued {
            lane.queued = true;
            self.links[lane.link as usize].ready.push_back(index);
        }
    }

    fn identity(&mut self, index: u32, count: i32) -> ProducerIdentity {
        let lane = &mut self.lanes[index as usize];
        let Some(&(id, epoch)) = self.identities.get(lane.client as usize) else {
            return ProducerIdentity::NONE;
        };
        let sequence = lane.producer_sequence;
        // Sequences wrap to 0 after i32::MAX.
        lane.producer_sequence = ((i64::from(sequence) + i64::from(count)) % (1 << 31)) as i32;
        ProducerIdentity {
            id,
            epoch,
            sequence,
        }
    }

    fn seal(&mut self, index: u32) {
        let count = self.lanes[index as usize].builder.count();
        if count == 0 {
            return;
        }
        let identity = self.identity(index, count);
        let lane = &mut self.lanes[index as usize];
        lane.generation = lane.generation.wrapping_add(1);
        lane.due = false;
        let intended = std::mem::take(&mut lane.intended);
        let value_bytes = std::mem::take(&mut lane.value_bytes);
        match lane.builder.seal(identity, self.config.compression) {
            Ok(bytes) => lane.sealed.push_back(Sent {
                bytes,
                count: intended.len() as u64,
                value_bytes,
                intended,
                made: 0,
            }),
            Err(error) => {
                *self.counts.errors.entry(error.to_string()).or_default() += intended.len() as u64
            }
        }
    }

    /// Sends everything that may be sent now. Closed loops make their own batches here, unless `stopped`.
    pub fn pump(&mut self, now: u64, stopped: bool, poller: &Poller) -> Result<(), LoadError> {
        while let Some(&(deadline, index, generation)) = self.lingering.front() {
            if deadline > now {
                break;
            }
            self.lingering.pop_front();
            let lane = &mut self.lanes[index as usize];
            if lane.generation == generation && lane.builder.count() > 0 {
                lane.due = true;
                self.make_ready(index);
            }
        }
        for link in 0..self.links.len() {
            if self.links[link].dead {
                continue;
            }
            let pumped = self.pump_link(link, now, stopped, poller);
            if pumped.is_err() {
                self.lose(link, poller);
                return pumped;
            }
        }
        Ok(())
    }

    fn pump_link(
        &mut self,
        link: usize,
        now: u64,
        stopped: bool,
        poller: &Poller,
    ) -> Result<(), LoadError> {
        while self.links[link].connection.in_flight() < self.config.in_flight {
            // While the socket takes no more, records gather in their batches, as they do in any client.
            if self.links[link].connection.wants_write() {
                break;
            }
            if self.config.rate == Rate::Max && !stopped {
                self.fill(link, now);
            }
            let request = self.gather(link);
            if request.is_empty() {
                break;
            }
            self.send(link, request)?;
            self.links[link].connection.flush().map_err(LoadError::Io)?;
        }
        self.flush(link, poller)
    }

    /// Closed loop: a full batch for as many of the link's partitions as one request takes.
    fn fill(&mut self, link: usize, now: u64) {
        let mut bytes = 0;
        for _ in 0..self.partitions_per_request(link) {
            if bytes + self.config.batch_bytes > REQUEST_BYTES_MAX && bytes > 0 {
                break;
            }
            let lanes = &self.links[link].lanes;
            let index = lanes[self.links[link].turn % lanes.len()];
            self.links[link].turn += 1;
            self.whole_batch(index, now);
            self.make_ready(index);
            bytes += self.config.batch_bytes;
        }
    }

    fn partitions_per_request(&self, link: usize) -> usize {
        match self.config.partitions_per_request {
            0 => self.links[link].lanes.len(),
            limit => limit.min(self.links[link].lanes.len()),
        }
    }

    /// Whether acknowledged batches can be sent again with a fresh header: in closed loops whose records are all alike.
    fn reusable(&self) -> bool {
        self.config.rate == Rate::Max && self.stamp.is_none() && self.config.key_bytes == 0
    }

    /// Closed loop: one batch of as many records as fit, from an acknowledged one's buffer where records need no stamp.
    fn whole_batch(&mut self, index: u32, now: u64) {
        if self.reusable()
            && let Some((mut buffer, value_bytes)) = self.spare.pop()
        {
            let count = i32::from_be_bytes([buffer[57], buffer[58], buffer[59], buffer[60]]);
            let wall = self.clock.wall_ms(now);
            let identity = self.identity(index, count);
            batch::stamp_header(&mut buffer, wall, wall, identity, count);
            let count = u64::from(count.cast_unsigned());
            self.counts.offered += count;
            self.buffered += value_bytes as usize;
            let bytes = buffer.freeze();
            let sent = Sent {
                bytes,
                intended: Vec::new(),
                count,
                value_bytes,
                made: now,
            };
            self.lanes[index as usize].sealed.push_back(sent);
            return;
        }
        loop {
            let number = self.next_record;
            let payload = self.payload(number);
            if self.is_full(index, payload.len()) {
                break;
            }
            self.next_record += 1;
            self.counts.offered += 1;
            self.append(index, now, now, number, &payload);
        }
        self.seal(index);
        if let Some(sent) = self.lanes[index as usize].sealed.back_mut() {
            sent.made = now;
            self.spare_times.push(std::mem::take(&mut sent.intended));
            if let Some(times) = self.spare_times.last_mut() {
                times.clear();
            }
        }
    }

    /// Takes the batches of the next request off the ready queue.
    fn gather(&mut self, link: usize) -> Vec<u32> {
        let mut request = Vec::new();
        let mut bytes = 0;
        let limit = self.partitions_per_request(link);
        while request.len() < limit
            && let Some(&index) = self.links[link].ready.front()
        {
            if self.lanes[index as usize].sealed.is_empty() {
                self.seal(index);
            }
            let Some(first) = self.lanes[index as usize].sealed.front() else {
                self.links[link].ready.pop_front();
                self.lanes[index as usize].queued = false;
                continue;
            };
            bytes += first.bytes.len();
            if bytes > REQUEST_BYTES_MAX && !request.is_empty() {
                break;
            }
            self.links[link].ready.pop_front();
            let lane = &mut self.lanes[index as usize];
            lane.queued = false;
            if let Some(sent) = lane.sealed.pop_front() {
                lane.in_flight.push_back(sent);
                request.push(index);
            }
        }
        // A partition with more to send waits for the next request.
        for &index in &request {
            let lane = &self.lanes[index as usize];
            if lane.due || !lane.sealed.is_empty() {
                self.make_ready(index);
            }
        }
        request
    }

    fn send(&mut self, link: usize, request: Vec<u32>) -> Result<(), LoadError> {
        let mut topics: Vec<TopicProduceData> = Vec::new();
        let mut at = u32::MAX;
        let mut sorted = request.clone();
        sorted.sort_unstable();
        for &index in &sorted {
            let lane = &self.lanes[index as usize];
            if lane.topic != at {
                at = lane.topic;
                topics.push(TopicProduceData {
                    name: self.topics[at as usize].clone(),
                    ..Default::default()
                });
            }
            let records = lane
                .in_flight
                .back()
                .map(|sent| Records::from(sent.bytes.clone()));
            if let Some(topic) = topics.last_mut() {
                topic.partition_data.push(PartitionProduceData {
                    index: lane.partition,
                    records,
                });
            }
        }
        let body = ProduceRequest {
            acks: self.config.acks.wire(),
            timeout_ms: 30_000,
            topic_data: topics,
            ..Default::default()
        };
        let connection = &mut self.links[link].connection;
        let correlation_id = connection.next_correlation_id();
        let frame = wire::encode(ApiKey::Produce, self.version, correlation_id, &body)
            .map_err(|error| LoadError::Protocol(error.to_string()))?;
        if self.config.acks == Acks::None {
            connection.send(frame, self.version, false);
            let now = self.clock.now();
            for index in request {
                self.settle(index, ErrorCode::NONE, now, false);
            }
        } else {
            connection.send(frame, self.version, true);
        }
        Ok(())
    }

    fn flush(&mut self, link: usize, poller: &Poller) -> Result<(), LoadError> {
        let token = self.token_base + link as u64;
        let link = &mut self.links[link];
        link.connection.flush().map_err(LoadError::Io)?;
        if link.connection.wants_write() != link.watching_write {
            link.watching_write = link.connection.wants_write();
            poller
                .modify(link.connection.socket(), token, link.watching_write)
                .map_err(LoadError::Io)?;
        }
        Ok(())
    }

    /// Handles readiness of one of this load's sockets.
    pub fn ready(&mut self, readiness: Readiness, poller: &Poller) -> Result<(), LoadError> {
        let link = (readiness.token - self.token_base) as usize;
        if self.links[link].dead {
            return Ok(());
        }
        let mut outcome = Ok(());
        if readiness.writable {
            outcome = self.flush(link, poller);
        }
        if outcome.is_ok() && readiness.readable {
            outcome = self.receive(link);
        }
        if outcome.is_err() {
            self.lose(link, poller);
        }
        outcome
    }

    fn receive(&mut self, link: usize) -> Result<(), LoadError> {
        let first = self.links[link]
            .lanes
            .first()
            .map_or(0, |&lane| self.lanes[lane as usize].client)
            * self.partitions;
        let mut settled = std::mem::take(&mut self.settled);
        let (topic_index, topic_base) = (&self.topic_index, &self.topic_base);
        let mut requests = 0;
        let mut decoded = Ok(());
        let received =
            self.links[link].connection.receive(|pending, frame| {
                requests += 1;
                match wire::decode::<ProduceResponse>(ApiKey::Produce, pending.version, frame) {
                    Err(error) => decoded = Err(LoadError::Protocol(error.to_string())),
                    Ok(response) => {
                        for topic in &response.responses {
                            let base = topic_index
                                .get(&topic.name)
                                .map(|&topic| topic_base[topic as usize]);
                            let Some(base) = base else {
                                decoded = Err(LoadError::Protocol(format!(
                                    "an answer for topic {}",
                                    topic.name
                                )));
                                continue;
                            };
                            let answers = topic.partition_responses.iter();
                            settled.extend(answers.map(|one| {
                                (first + base + one.index.cast_unsigned(), one.error_code)
                            }));
                        }
                    }
                }
            });
        let now = self.clock.now();
        if now >= self.window.0 && now < self.window.1 {
            self.counts.window_requests += requests;
        }
        for (index, code) in settled.drain(..) {
            if index as usize >= self.lanes.len() {
                decoded = Err(LoadError::Protocol(
                    "an answer for a partition that does not exist".into(),
                ));
                continue;
            }
            self.settle(index, code, now, true);
        }
        self.settled = settled;
        decoded?;
        received.map_err(LoadError::Io)
    }

    /// One batch has its answer.
    fn settle(&mut self, index: u32, code: ErrorCode, now: u64, timed: bool) {
        let lane = &mut self.lanes[index as usize];
        let Some(sent) = lane.in_flight.pop_front() else {
            return;
        };
        self.buffered = self.buffered.saturating_sub(sent.value_bytes as usize);
        if code != ErrorCode::NONE {
            *self.counts.errors.entry(code.to_string()).or_default() += sent.count;
            return;
        }
        lane.acknowledged += sent.count;
        self.counts.acknowledged += sent.count;
        let (from, to) = self.window;
        if now >= from && now < to {
            self.counts.window_records += sent.count;
            self.counts.window_bytes += sent.value_bytes;
            self.counts.window_batches += 1;
        }
        self.flow.count(now, sent.count, sent.value_bytes);
        if timed {
            if sent.intended.is_empty() {
                if sent.made >= from && sent.made < to {
                    self.latencies.record(now, now - sent.made, sent.count);
                }
            } else {
                for &intended in sent
                    .intended
                    .iter()
                    .filter(|&&intended| intended >= from && intended < to)
                {
                    self.latencies.record(now, now.saturating_sub(intended), 1);
                }
            }
        }
        let mut times = sent.intended;
        if times.capacity() > 0 && self.spare_times.len() < SPARE_BATCHES_MAX {
            times.clear();
            self.spare_times.push(times);
        }
        if self.reusable()
            && self.spare.len() < SPARE_BATCHES_MAX
            && let Ok(buffer) = sent.bytes.try_into_mut()
        {
            self.spare.push((buffer, sent.value_bytes));
        }
    }

    /// A connection is gone: what it had not answered never will be.
    fn lose(&mut self, link: usize, poller: &Poller) {
        self.links[link].dead = true;
        // The socket may be beyond removing; closing it removes it as well.
        let _ = poller.remove(self.links[link].connection.socket());
    }

    /// Whether everything offered has its answer.
    pub fn settled(&self) -> bool {
        self.links
            .iter()
            .all(|link| link.dead || link.connection.in_flight() == 0)
            && self
                .links
                .iter()
                .all(|link| link.dead || (link.ready.is_empty() && !link.connection.wants_write()))
            && self.lingering.is_empty()
    }

    /// When something of this load is due next, besides socket readiness.
    pub fn next_deadline(&self) -> Option<u64> {
        self.lingering.front().map(|&(deadline, ..)| deadline)
    }

    /// Acknowledged and produced records per (topic, partition, client), for verification.
    pub fn lanes(&self) -> impl Iterator<Item = (u32, i32, u32, u64, u64)> + '_ {
        self.lanes.iter().map(|lane| {
            (
                lane.topic,
                lane.partition,
                lane.client,
                lane.acknowledged,
                lane.next_sequence,
            )
        })
    }
}

/// Why a load could not go on.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A connection broke.
    #[error("a connection to the broker broke: {0}")]
    Io(io::Error),
    /// The broker's bytes make no sense.
    #[error("the broker broke the protocol: {0}")]
    Protocol(String),
}

/// Values to write: random bytes of which the last part repeats one byte, as much as the workload asks.
fn payloads(config: &Producer, seed: u64) -> io::Result<Vec<Bytes>> {
    if let Some(file) = &config.payload_file {
        return Ok(vec![Bytes::from(std::fs::read(file)?); PAYLOADS]);
    }
    let mut random = Random::new(seed);
    let pool = match config.record_sizes.as_slice() {
        [] => vec![config.record_bytes; PAYLOADS],
        mix => sizes::pool(mix),
    };
    let payload = |size: usize| {
        let fresh = (size as f64 * (1.0 - config.repetition)) as usize;
        let bytes = (0..size).map(|at| {
            if at < fresh {
                random.bits() as u8
            } else {
                b'r'
            }
        });
        bytes.collect::<Vec<u8>>().into()
    };
    Ok(pool.into_iter().map(payload).collect())
}
