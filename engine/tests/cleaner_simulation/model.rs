//! What compacted logs must hold: every record appended, how many are acknowledged, and from that what has to be found of each key.

use std::collections::BTreeMap;

use ringlog_engine::log::TopicId;

/// One record as it was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelRecord {
    pub offset: i64,
    pub timestamp: i64,
    pub key: Vec<u8>,
    /// `None`: a tombstone.
    pub value: Option<Vec<u8>>,
}

/// One log.
#[derive(Clone, Debug, Default)]
pub struct ModelLog {
    pub name: String,
    pub topic_id: TopicId,
    pub records: Vec<ModelRecord>,
    /// Everything before is acknowledged.
    pub acknowledged: i64,
    /// Its start, and the highest start that was asked for.
    pub start: i64,
    pub start_asked: i64,
    /// A truncation that may or may not have happened.
    pub truncating_to: Option<i64>,
    pub deleted: bool,
    pub deleting: bool,
    /// Keys whose later records were truncated away, and to where. What such a record had replaced may be gone with it: truncating below what is committed, which no replica does, is
    /// asked for here so that files are cut while they are cleaned.
    pub doubtful: BTreeMap<Vec<u8>, i64>,
}

impl ModelLog {
    /// The offset after the last record; the sequence that follows, too, because one producer writes all of a log from its beginning on.
    pub fn end(&self) -> i64 {
        self.records.last().map_or(0, |record| record.offset + 1)
    }

    /// The log ends at `offset`.
    pub fn truncate(&mut self, offset: i64) {
        self.records.retain(|record| record.offset < offset);
        self.acknowledged = self.acknowledged.min(offset);
    }

    /// It was truncated to `offset`.
    pub fn truncated(&mut self, offset: i64) {
        for record in self.records.iter().filter(|record| record.offset >= offset) {
            self.doubtful.insert(record.key.clone(), offset);
        }
        self.truncate(offset);
    }

    /// Compares with what was found, and goes on from there.
    pub fn check(&mut self, start: i64, end: i64, found: &[ModelRecord], context: &str) {
        if let Some(truncating_to) = self.truncating_to.take()
            && end < self.acknowledged
        {
            assert!(
                end <= truncating_to,
                "{context}: truncated to {end}, not {truncating_to}"
            );
            self.truncated(end);
            // The batch that held the start has gone as a whole.
            self.start = self.start.min(end);
            self.start_asked = self.start_asked.min(end);
        }
        assert!(
            (self.start..=self.start_asked.max(self.start)).contains(&start),
            "{context}: it starts at {start}, between {} and {} was asked for",
            self.start,
            self.start_asked
        );
        self.start = start;
        self.start_asked = start;
        assert!(
            end >= self.acknowledged,
            "{context}: it ends at {end}, acknowledged is {}",
            self.acknowledged
        );
        self.truncate(end);
        let mut by_offset = BTreeMap::new();
        let mut last: BTreeMap<&[u8], &ModelRecord> = BTreeMap::new();
        for record in &self.records {
            by_offset.insert(record.offset, record);
            if record.offset >= start {
                last.insert(&record.key, record);
            }
        }
        let mut before = -1;
        let mut found_last: BTreeMap<&[u8], &ModelRecord> = BTreeMap::new();
        for record in found {
            assert!(
                record.offset > before,
                "{context}: offset {} after {before}",
                record.offset
            );
            before = record.offset;
            assert_eq!(
                by_offset.get(&record.offset),
                Some(&record),
                "{context}: what is served was written"
            );
            found_last.insert(&record.key, record);
        }
        for (key, expected) in last {
            match found_last.remove(key) {
                Some(found) => assert_eq!(found, expected, "{context}: the last of its key"),
                None if self
                    .doubtful
                    .get(key)
                    .is_some_and(|end| expected.offset < *end) => {}
                None => assert_eq!(
                    expected.value, None,
                    "{context}: the last value of a key is gone, {expected:?}"
                ),
            }
        }
        assert!(
            found_last.is_empty(),
            "{context}: keys nobody wrote, or came back: {found_last:?}"
        );
    }
}

/// All logs of a seed.
#[derive(Clone, Debug)]
pub struct Model {
    pub seed: u64,
    pub logs: BTreeMap<usize, ModelLog>,
    next: usize,
}

impl Model {
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            logs: BTreeMap::new(),
            next: 0,
        }
    }

    /// One more log.
    pub fn add_log(&mut self) {
        let number = self.next;
        self.next += 1;
        let mut id = [7; 16];
        id[0] = number as u8 + 1;
        let log = ModelLog {
            name: format!("compacted-{}", number % 3),
            topic_id: TopicId(id),
            ..ModelLog::default()
        };
        self.logs.insert(number, log);
    }

    /// The log of a number.
    pub fn log(&mut self, number: usize) -> &mut ModelLog {
        self.logs.get_mut(&number).expect("known")
    }
}
