//! The closed loop: batches that are full from the start, as many as the connections take.

use super::ProducerLoad;
use super::lane::Sent;
use super::sending::REQUEST_BYTES_MAX;
use crate::client::batch;

impl ProducerLoad {
    /// Makes a full batch for as many of the link's partitions as one request takes.
    pub(super) fn fill(&mut self, link: usize, now: u64) {
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

    /// One batch of as many records as fit, from an acknowledged one's buffer where records need no stamp.
    fn whole_batch(&mut self, index: u32, now: u64) {
        if self.batch_again(index, now) {
            return;
        }
        loop {
            let number = self.next_record;
            let value = self.values.value(number, &mut self.random);
            if self.is_full(index, value.len()) {
                break;
            }
            self.next_record += 1;
            self.tally.counts.offered += 1;
            self.append(index, now, now, number, &value);
        }
        self.seal(index);
        if let Some(sent) = self.lanes[index as usize].sealed.back_mut() {
            sent.made = now;
            self.spare.keep_times(std::mem::take(&mut sent.intended));
        }
    }

    /// An acknowledged batch with a fresh header, where there is one.
    fn batch_again(&mut self, index: u32, now: u64) -> bool {
        let Some((mut buffer, value_bytes)) = self.spare.batch() else {
            return false;
        };
        let count = i32::from_be_bytes([buffer[57], buffer[58], buffer[59], buffer[60]]);
        let wall = self.clock.wall_ms(now);
        let lane = &mut self.lanes[index as usize];
        let producer = self.identities.get(lane.client as usize).copied();
        let identity = lane.identity(producer, count);
        batch::stamp_header(&mut buffer, wall, wall, identity, count);
        let count = u64::from(count.cast_unsigned());
        self.tally.counts.offered += count;
        self.buffered += value_bytes as usize;
        lane.sealed.push_back(Sent {
            bytes: buffer.freeze(),
            intended: Vec::new(),
            count,
            value_bytes,
            made: now,
        });
        true
    }
}
