//! One client's view of one partition: the batch it fills, batches that wait, batches on their way.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::client::batch::{BatchBuilder, ProducerIdentity, Stamp};
use crate::client::compression::{Compression, CompressionError};

/// The client's number sits above this many bits of a stamp's sequence.
pub const CLIENT_SHIFT: u32 = 40;

/// A batch that is whole.
#[derive(Default)]
pub struct Sent {
    /// As it goes over the wire.
    pub bytes: Bytes,
    /// When its records were due; empty in a closed loop.
    pub intended: Vec<u64>,
    /// Records.
    pub count: u64,
    /// Bytes of their values.
    pub value_bytes: u64,
    /// Closed loop: when the whole batch was made.
    pub made: u64,
}

/// A record to append.
pub struct Record<'a> {
    /// When it was due.
    pub intended: u64,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: &'a [u8],
    /// The run's number where records carry stamps, and whether those carry checksums.
    pub stamp: Option<(u32, bool)>,
}

/// One client's view of one partition.
#[derive(Default)]
pub struct Lane {
    /// Number of its topic.
    pub topic: u32,
    /// Its partition.
    pub partition: i32,
    /// The connection that leads to its leader.
    pub link: u32,
    /// Its client.
    pub client: u32,
    /// Counts batches: a deadline is for the batch it was set for.
    pub generation: u32,
    /// Whether its link has it among those that are ready.
    pub queued: bool,
    /// Whether the open batch may be sent although it is not full.
    pub due: bool,
    /// Whole batches that wait.
    pub sealed: VecDeque<Sent>,
    /// Batches without an answer, oldest first.
    pub in_flight: VecDeque<Sent>,
    /// Records acknowledged.
    pub acknowledged: u64,
    builder: BatchBuilder,
    intended: Vec<u64>,
    /// Bytes of the open batch's values.
    value_bytes: u64,
    next_sequence: u64,
    producer_sequence: i32,
}

impl Lane {
    /// `client`'s view of a partition that `link` leads to.
    pub fn new(topic: u32, partition: i32, link: u32, client: u32) -> Lane {
        Lane {
            topic,
            partition,
            link,
            client,
            ..Lane::default()
        }
    }

    /// Records in the open batch.
    pub fn open_records(&self) -> i32 {
        self.builder.count()
    }

    /// Whether a value of `bytes` bytes no longer fits an open batch of `batch_bytes`.
    pub fn is_full(&self, bytes: usize, batch_bytes: usize) -> bool {
        self.builder.count() > 0 && self.builder.bytes() + bytes > batch_bytes
    }

    /// Adds a record to the open batch. `spare_times` gives room for due times where the lane has none.
    pub fn append(&mut self, record: &Record<'_>, spare_times: impl FnOnce() -> Option<Vec<u64>>) {
        let stamp = record.stamp.map(|(run, checksum)| {
            let sequence = (u64::from(self.client) << CLIENT_SHIFT) | self.next_sequence;
            let intended_ns = record.intended;
            let stamp = Stamp {
                sequence,
                intended_ns,
                run,
            };
            (stamp, checksum)
        });
        self.next_sequence += 1;
        self.builder
            .append(record.timestamp, record.key, record.value, stamp);
        if self.intended.capacity() == 0
            && let Some(times) = spare_times()
        {
            self.intended = times;
        }
        self.intended.push(record.intended);
        self.value_bytes += record.value.len() as u64;
    }

    /// The identity of the next batch, of `count` records, of a `producer` (id and epoch) if there is one.
    pub fn identity(&mut self, producer: Option<(i64, i16)>, count: i32) -> ProducerIdentity {
        let Some((id, epoch)) = producer else {
            return ProducerIdentity::NONE;
        };
        let sequence = self.producer_sequence;
        // Sequences wrap to 0 after i32::MAX.
        self.producer_sequence = ((i64::from(sequence) + i64::from(count)) % (1 << 31)) as i32;
        ProducerIdentity {
            id,
            epoch,
            sequence,
        }
    }

    /// Closes the open batch, if it has records. On failure they are gone: how many, and why.
    pub fn seal(
        &mut self,
        producer: Option<(i64, i16)>,
        compression: Compression,
    ) -> Result<(), (u64, CompressionError)> {
        let count = self.builder.count();
        if count == 0 {
            return Ok(());
        }
        let identity = self.identity(producer, count);
        self.generation = self.generation.wrapping_add(1);
        self.due = false;
        let intended = std::mem::take(&mut self.intended);
        let value_bytes = std::mem::take(&mut self.value_bytes);
        let count = intended.len() as u64;
        let bytes = self
            .builder
            .seal(identity, compression)
            .map_err(|error| (count, error))?;
        self.sealed.push_back(Sent {
            bytes,
            intended,
            count,
            value_bytes,
            made: 0,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    //! Batches close with what they were given, and sequences count records and wrap.
    use super::*;

    fn append(lane: &mut Lane, intended: u64, value: &[u8]) {
        let record = Record {
            intended,
            timestamp: 5,
            key: None,
            value,
            stamp: Some((9, true)),
        };
        lane.append(&record, || None);
    }

    #[test]
    fn a_batch_closes_with_what_it_was_given() {
        let mut lane = Lane::default();
        assert!(
            !lane.is_full(1 << 20, 100),
            "an empty batch takes any record"
        );
        lane.seal(None, Compression::None).unwrap();
        assert!(lane.sealed.is_empty());
        append(&mut lane, 11, &[1; 40]);
        append(&mut lane, 12, &[2; 30]);
        assert!(lane.is_full(100, 200) && !lane.is_full(100, 2000));
        lane.due = true;
        lane.seal(Some((4, 2)), Compression::None).unwrap();
        let sent = lane.sealed.pop_front().unwrap();
        assert_eq!(sent.intended, [11, 12]);
        assert_eq!((sent.count, sent.value_bytes), (2, 70));
        assert_eq!(
            (lane.open_records(), lane.due, lane.generation),
            (0, false, 1)
        );
        let next = lane.identity(Some((4, 2)), 1);
        assert_eq!(next.sequence, 2);
    }

    #[test]
    fn sequences_wrap_and_are_absent_without_idempotence() {
        let mut lane = Lane {
            producer_sequence: i32::MAX - 1,
            ..Lane::default()
        };
        assert_eq!(lane.identity(None, 3), ProducerIdentity::NONE);
        assert_eq!(lane.identity(Some((1, 0)), 3).sequence, i32::MAX - 1);
        assert_eq!(lane.identity(Some((1, 0)), 3).sequence, 1);
    }
}
