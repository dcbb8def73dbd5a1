//! The engine: appending to a log, gathering a journal entry, finding an offset, reading the tail.
//!
//! The log is the real one on the simulated disk. An append that finds everything in place and a read of the tail complete within their first poll, so
//! neither executor nor disk is part of what is measured.

use std::path::PathBuf;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::FutureExt;
use ringlog_engine::batch::{Compression, ProduceRules};
use ringlog_engine::config::{EngineConfig, LogConfig};
use ringlog_engine::engine::{Engine, prepare_directories};
use ringlog_engine::index::{OffsetEntry, OffsetIndex};
use ringlog_engine::journal::entry::{EntryBuilder, EntryHeader, Identity, Item};
use ringlog_engine::log::{Log, ReadLimit, TopicId, TopicPartition};
use ringlog_engine::memory::{AlignedSlice, MemoryPool};
use ringlog_engine::sim::{Executor, SimEnvironment};

use crate::NOW_MS;
use crate::records::batch;

/// An engine on the simulated disk with one log that has been written to.
pub struct OneLog {
    // Dropped before the world it lives in.
    log: Rc<Log<SimEnvironment>>,
    _engine: Engine<SimEnvironment>,
    _executor: Executor,
    batch: Bytes,
    rules: ProduceRules,
}

impl OneLog {
    /// A log that holds `count` batches of one record of `bytes` bytes, all of them in its tail.
    pub fn new(count: usize, bytes: usize) -> Self {
        let executor = Executor::new(1);
        let batch = batch(1, bytes, Compression::None);
        let rules = ProduceRules {
            now_ms: NOW_MS,
            ..ProduceRules::default()
        };
        let written = batch.clone();
        let life = |env: SimEnvironment| async move {
            let config = EngineConfig::new(vec![PathBuf::from("/data")]);
            prepare_directories(&env, &config).await.expect("prepared");
            let (engine, _) = Engine::open(env, config).await.expect("opened");
            let name = TopicPartition::new("measured", 0);
            let log = engine
                .create_log(name, TopicId([1; 16]), LogConfig::default(), None)
                .await
                .expect("made");
            for _ in 0..count {
                let appended = log.append(written.clone(), &rules, 1).await;
                let next = appended.expect("appended").last_offset + 1;
                log.flushed(next).await.expect("flushed");
            }
            (engine, log)
        };
        let (engine, log) = executor.run_until(Default::default(), life).finished();
        Self {
            log,
            _engine: engine,
            _executor: executor,
            batch,
            rules,
        }
    }

    /// Appends one batch: validation, offset, the copy into the tail, the item in the journal's entry.
    pub fn append(&self) -> i64 {
        self.log
            .append(self.batch.clone(), &self.rules, 1)
            .now_or_never()
            .expect("nothing to wait for")
            .expect("appended")
            .base_offset
    }

    /// Reads up to 1 MiB from the middle of the tail: what a fetch of one partition is assembled from.
    pub fn read(&self) -> usize {
        let from = self.log.high_watermark() / 2;
        self.log
            .read(from, 1 << 20, true, ReadLimit::HighWatermark)
            .now_or_never()
            .expect("nothing to wait for")
            .expect("readable")
            .len()
    }
}

/// Gathers a journal entry and seals it with its checksum.
pub struct JournalEntry {
    pool: MemoryPool,
    batch: Bytes,
    count: u32,
}

impl JournalEntry {
    /// An entry of `count` batches of one 1 KiB record.
    pub fn new(count: u32) -> Self {
        let path = Self {
            pool: MemoryPool::new(16 << 20),
            batch: batch(1, 1024, Compression::None),
            count,
        };
        // The pool keeps what one entry needs.
        drop(path.run());
        path
    }

    /// The blocks to be written.
    pub fn run(&self) -> Vec<AlignedSlice> {
        let mut entry = EntryBuilder::new(self.pool.clone());
        let length = self.batch.len() as u32;
        for number in 0..self.count {
            let item = Item::Append {
                topic_id: TopicId([1; 16]),
                partition: 0,
                leader_epoch: 1,
                base_offset: i64::from(number),
                last_offset: i64::from(number),
                segment_base: 0,
                position: number * length,
                length,
            };
            entry.push(&item, &[&self.batch], []);
        }
        let header = EntryHeader {
            identity: Identity {
                journal: 1,
                shard: 0,
            },
            life: 1,
            sequence: 1,
            oldest_live: 1,
            completed: 0,
            length: 0,
            staged: 0,
            items: 0,
            previous: 0,
            checksum: 0,
        };
        entry.seal(header).0
    }
}

/// Finds the place of an offset in the index of a full segment.
pub struct IndexLookup {
    index: OffsetIndex,
    offset: i64,
}

impl IndexLookup {
    /// An index of `entries` entries.
    pub fn new(entries: u32) -> Self {
        let mut index = OffsetIndex::new(0, entries * 8);
        for number in 0..entries {
            index
                .append(i64::from(number) * 10 + 9, number * 4096)
                .expect("room for it");
        }
        Self { index, offset: 0 }
    }

    /// One look-up; the next one goes elsewhere.
    pub fn run(&mut self) -> OffsetEntry {
        self.offset = (self.offset + 7_919) % (self.index.len() as i64 * 10);
        self.index.lookup(self.offset)
    }
}
