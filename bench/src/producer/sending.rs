//! From batches to requests: what may be sent is gathered, up to as many requests as a connection may have unanswered.

use ringlog_net::Records;
use ringlog_net::api::ApiKey;
use ringlog_net::error_code::ErrorCode;
use ringlog_net::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};

use super::ProducerLoad;
use crate::client::error::LoadError;
use crate::client::poller::Poller;
use crate::client::wire;
use crate::workload::{Acks, Rate};

/// A request is closed at this size, like Java's `max.request.size`; it always holds at least one batch.
pub(super) const REQUEST_BYTES_MAX: usize = 1 << 20;

impl ProducerLoad {
    /// Sends everything that may be sent now. Closed loops make their own batches here, unless `stopped`.
    pub fn pump(&mut self, now: u64, stopped: bool, poller: &Poller) -> Result<(), LoadError> {
        while let Some(&(deadline, index, generation)) = self.lingering.front() {
            if deadline > now {
                break;
            }
            self.lingering.pop_front();
            let lane = &mut self.lanes[index as usize];
            if lane.generation == generation && lane.open_records() > 0 {
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

    /// Partitions that one request takes.
    pub(super) fn partitions_per_request(&self, link: usize) -> usize {
        match self.config.partitions_per_request {
            0 => self.links[link].lanes.len(),
            limit => limit.min(self.links[link].lanes.len()),
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
        let body = ProduceRequest {
            acks: self.config.acks.wire(),
            timeout_ms: 30_000,
            topic_data: self.topic_data(&request),
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

    /// What the request says of its lanes, which have their batches among those in flight.
    fn topic_data(&self, request: &[u32]) -> Vec<TopicProduceData> {
        let mut topics: Vec<TopicProduceData> = Vec::new();
        let mut at = u32::MAX;
        let mut sorted = request.to_vec();
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
        topics
    }

    /// Hands the socket what it takes, and has the poller tell when it takes the rest.
    pub(super) fn flush(&mut self, link: usize, poller: &Poller) -> Result<(), LoadError> {
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
}
