//! What the logs must hold: the batches appended, how many of them were acknowledged, and what was under way when the power went.

use std::collections::BTreeMap;

use ringlog_engine::log::TopicId;

/// One batch as it was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelBatch {
    pub base_offset: i64,
    pub last_offset: i64,
    /// The bytes after base offset and leader epoch, which the log assigns.
    pub content: Vec<u8>,
    /// The producer's sequence, for logs with a producer.
    pub sequence: Option<i32>,
}

/// One log.
#[derive(Clone, Debug, Default)]
pub struct ModelLog {
    pub name: String,
    pub topic_id: TopicId,
    pub batches: Vec<ModelBatch>,
    /// So many of the batches were acknowledged.
    pub acknowledged: usize,
    /// A truncation that had not been answered when the power went.
    pub truncating_to: Option<i64>,
    /// A deletion that had not been answered.
    pub deleting: bool,
    pub deleted: bool,
    /// Where reading may start at the earliest, as acknowledged; and as asked for.
    pub start: i64,
    pub start_asked: i64,
    /// The log was made in an earlier life and something in it was acknowledged, so it must be found.
    pub next_sequence: i32,
    /// What the log's task is at, for messages.
    pub doing: String,
}

impl ModelLog {
    /// Offset after the last batch.
    pub fn end(&self) -> i64 {
        self.batches.last().map_or(0, |batch| batch.last_offset + 1)
    }

    /// Everything before `offset` was acknowledged.
    pub fn acknowledge(&mut self, offset: i64) {
        let count = self
            .batches
            .partition_point(|batch| batch.last_offset < offset);
        self.acknowledged = self.acknowledged.max(count);
    }

    /// Everything from `offset` on is gone.
    pub fn truncate(&mut self, offset: i64) {
        let count = self
            .batches
            .partition_point(|batch| batch.last_offset < offset);
        self.batches.truncate(count);
        self.acknowledged = self.acknowledged.min(count);
        self.start = self.start.min(self.end());
        self.next_sequence = self
            .batches
            .iter()
            .rev()
            .find_map(|batch| {
                batch
                    .sequence
                    .map(|sequence| sequence + (batch.last_offset - batch.base_offset) as i32 + 1)
            })
            .unwrap_or(0);
    }

    /// Compares with what was found; afterwards what was found is what there is.
    pub fn check(&mut self, start: i64, found: &[ModelBatch], context: &str) {
        let start_least = match self.truncating_to {
            Some(offset) => self.start.min(
                self.batches
                    .iter()
                    .find(|batch| batch.last_offset >= offset)
                    .map_or(offset, |batch| batch.base_offset),
            ),
            None => self.start,
        };
        assert!(
            start >= start_least,
            "{context}: starts at {start}, {start_least} was acknowledged"
        );
        assert!(
            start <= self.start_asked.max(self.start),
            "{context}: starts at {start}, only {} was asked for",
            self.start_asked
        );
        let skip = self
            .batches
            .partition_point(|batch| batch.last_offset < start);
        let least = match self.truncating_to {
            Some(offset) => self
                .batches
                .partition_point(|batch| batch.last_offset < offset)
                .min(self.acknowledged),
            None => self.acknowledged,
        };
        assert!(
            skip + found.len() >= least,
            "{context}: acknowledged batches are lost: {} of {least} found from {start} on, {} appended",
            skip + found.len(),
            self.batches.len()
        );
        assert!(
            skip + found.len() <= self.batches.len(),
            "{context}: more batches than were appended"
        );
        for (found, expected) in found.iter().zip(&self.batches[skip..]) {
            assert_eq!(
                found.base_offset, expected.base_offset,
                "{context}: an offset has changed"
            );
            assert!(
                found
                    == &ModelBatch {
                        sequence: found.sequence,
                        ..expected.clone()
                    },
                "{context}: the batch at {} has changed",
                found.base_offset
            );
        }
        let end = self
            .batches
            .get((skip + found.len()).wrapping_sub(1))
            .map_or(0, |batch| batch.last_offset + 1);
        self.truncate(end);
        self.acknowledged = self.batches.len();
        self.truncating_to = None;
        self.start = start;
        self.start_asked = start;
    }
}

/// All logs.
#[derive(Debug)]
pub struct Model {
    pub seed: u64,
    pub logs: BTreeMap<usize, ModelLog>,
    pub made: usize,
}

impl Model {
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            logs: BTreeMap::new(),
            made: 0,
        }
    }

    /// A new log's number.
    pub fn add_log(&mut self) -> usize {
        let number = self.made;
        self.made += 1;
        let mut id = [0x11; 16];
        id[..8].copy_from_slice(&(number as u64 + 1).to_be_bytes());
        // Names are used again after a deletion.
        let taken: Vec<String> = self
            .logs
            .values()
            .filter(|log| !log.deleted)
            .map(|log| log.name.clone())
            .collect();
        let name = (0..)
            .map(|i| format!("topic-{i}"))
            .find(|name| !taken.contains(name))
            .expect("endless");
        self.logs.insert(
            number,
            ModelLog {
                name,
                topic_id: TopicId(id),
                ..ModelLog::default()
            },
        );
        number
    }
}
