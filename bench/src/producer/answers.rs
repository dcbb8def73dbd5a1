//! From answers to results: each batch of an answered request is settled, and a broken connection ends what it had.

use ringlog_net::api::ApiKey;
use ringlog_net::error_code::ErrorCode;
use ringlog_net::messages::produce::ProduceResponse;

use super::ProducerLoad;
use crate::client::error::LoadError;
use crate::client::poller::{Poller, Readiness};
use crate::client::wire;

impl ProducerLoad {
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
        self.tally.answered(requests, now);
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

    /// One batch has its answer, or was sent where none is asked for.
    pub(super) fn settle(&mut self, index: u32, code: ErrorCode, now: u64, timed: bool) {
        let lane = &mut self.lanes[index as usize];
        let Some(sent) = lane.in_flight.pop_front() else {
            return;
        };
        self.buffered = self.buffered.saturating_sub(sent.value_bytes as usize);
        if code != ErrorCode::NONE {
            self.tally.refused(&code, sent.count);
            return;
        }
        lane.acknowledged += sent.count;
        self.tally.acknowledged(&sent, now, timed);
        self.spare.keep(sent);
    }

    /// A connection is gone: what it had not answered never will be.
    pub(super) fn lose(&mut self, link: usize, poller: &Poller) {
        self.links[link].dead = true;
        // The socket may be beyond removing; closing it removes it as well.
        let _ = poller.remove(self.links[link].connection.socket());
    }
}
