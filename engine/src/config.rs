//! What the engine is told at start and what each log is told when it is made. Plain data with Kafka's defaults:
//! nothing here touches a disk. Every limit that the engine keeps to has its name here.

use std::path::PathBuf;
use std::time::Duration;

pub use crate::cleaner::memory::CleanerMemory;

/// Settings of one shard's engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// This shard's number, `0..shards`.
    pub shard: u32,
    /// How many shards the broker runs.
    pub shards: u32,
    /// The data directories (`log.dirs`), the same list on every shard.
    pub log_dirs: Vec<PathBuf>,
    /// Where journals live (`journal.dir`); the first log directory when absent.
    pub journal_dir: Option<PathBuf>,
    /// Most bytes of tail cache (dirty and clean) that this shard holds.
    pub tail_cache_bytes: u64,
    /// Most bytes of journal files that this shard keeps (its share of `journal.bytes.max`).
    pub journal_bytes_max: u64,
    /// Size of a journal file once the shard has seen traffic (`journal.file.bytes`).
    pub journal_file_bytes: u64,
    /// Size of the journal files made at the very first start.
    pub journal_first_file_bytes: u64,
    /// Journal writes in flight at most.
    pub journal_depth: usize,
    /// An entry is closed when it has gathered this many bytes; one larger batch makes its own entry.
    pub journal_entry_bytes: usize,
    /// Most bytes gathered for the journal and not yet on their way; beyond it appends wait.
    pub journal_backlog_bytes: usize,
    /// A log with this many unwritten bytes is written behind.
    pub write_behind_bytes: u64,
    /// A log whose oldest unwritten byte is older than this is written behind.
    pub write_behind_age: Duration,
    /// After a crash a log's batches stay in the journal until somebody needs them if they have at least this many bytes on average; smaller ones are read in the journal's order, at
    /// the start.
    pub parked_batch_bytes_min: u64,
    /// Segment writes in flight at most, per shard.
    pub write_behind_depth: usize,
    /// Bytes kept back in each directory for the small writes by which a full disk is emptied again; 0: none.
    pub ballast_bytes: u64,
    /// How often logs with unsynced data are checkpointed when nothing presses.
    pub checkpoint_interval: Duration,
    /// Most segment files that this shard keeps open.
    pub open_files_max: usize,
    /// How often retention looks at the logs (`log.retention.check.interval.ms`).
    pub retention_check_interval: Duration,
    /// How long a removed segment or log keeps its bytes (`file.delete.delay.ms`).
    pub file_delete_delay: Duration,
    /// A forward jump of the wall clock larger than this must last before retention believes it.
    pub clock_jump: Duration,
    /// How long a jump must last to be believed.
    pub clock_jump_confirmation: Duration,
    /// Whether compacted logs are cleaned (`log.cleaner.enable`).
    pub cleaner_enabled: bool,
    /// What offset maps may take (`log.cleaner.dedupe.buffer.size`), 39,321 keys a MiB; clones of one for all shards.
    pub cleaner_memory: CleanerMemory,
    /// Bytes of the cleaner's reading and writing buffer together (its share of `log.cleaner.io.buffer.size`); 128 KiB at least.
    pub cleaner_io_buffer_bytes: usize,
    /// How long the cleaner rests when no log is due (`log.cleaner.backoff.ms`).
    pub cleaner_backoff: Duration,
    /// Most bytes a second that the cleaner reads and writes (its share of `log.cleaner.io.max.bytes.per.second`); `u64::MAX`: no limit.
    pub cleaner_io_bytes_per_second: u64,
    /// Bytes of indexes of sealed segments that are kept in memory; the last one read may be larger.
    pub loaded_index_bytes_max: usize,
    /// An idle producer id is forgotten after this long (`producer.id.expiration.ms`), milliseconds.
    pub producer_id_expiration_ms: i64,
}

impl EngineConfig {
    /// Defaults for a single shard with its data in `log_dirs`.
    pub fn new(log_dirs: Vec<PathBuf>) -> Self {
        Self {
            shard: 0,
            shards: 1,
            log_dirs,
            journal_dir: None,
            tail_cache_bytes: 128 << 20,
            journal_bytes_max: 512 << 20,
            journal_file_bytes: 32 << 20,
            journal_first_file_bytes: 4 << 20,
            journal_depth: 3,
            journal_entry_bytes: 1 << 20,
            journal_backlog_bytes: 8 << 20,
            write_behind_bytes: 512 << 10,
            write_behind_age: Duration::from_secs(5),
            parked_batch_bytes_min: 1 << 10,
            write_behind_depth: 2,
            ballast_bytes: 4 << 20,
            checkpoint_interval: Duration::from_secs(30),
            open_files_max: 4096,
            retention_check_interval: Duration::from_secs(300),
            file_delete_delay: Duration::from_secs(60),
            clock_jump: Duration::from_secs(600),
            clock_jump_confirmation: Duration::from_secs(600),
            cleaner_enabled: true,
            cleaner_memory: CleanerMemory::new(128 << 20, 1),
            cleaner_io_buffer_bytes: 512 << 10,
            cleaner_backoff: Duration::from_secs(15),
            cleaner_io_bytes_per_second: u64::MAX,
            loaded_index_bytes_max: 16 << 20,
            producer_id_expiration_ms: 86_400_000,
        }
    }

    /// With what waits for the journal fitted to the tail cache, which holds it too: at most half of the cache, so that write-behind finds something flushed.
    pub(crate) fn fitted(mut self) -> Self {
        const ENTRY_BYTES_LEAST: u64 = 64 << 10;
        let entry = (self.tail_cache_bytes / 32).max(ENTRY_BYTES_LEAST) as usize;
        let backlog = (self.tail_cache_bytes / 4) as usize;
        self.journal_entry_bytes = self.journal_entry_bytes.min(entry);
        self.journal_backlog_bytes = self.journal_backlog_bytes.min(backlog);
        self
    }

    /// Gives the shard's journal so many bytes, in files of which several fit.
    #[must_use]
    pub fn with_journal_bytes(mut self, bytes: u64) -> Self {
        self.journal_bytes_max = bytes;
        // Room for the largest batch that clients send by default, in the smallest; quickly made and recycled, in the largest.
        self.journal_file_bytes = (bytes / 8).clamp(2 << 20, 32 << 20);
        self.journal_first_file_bytes = self.journal_file_bytes.min(4 << 20);
        self
    }

    /// The directory that holds this shard's journal.
    pub fn journal_path(&self) -> PathBuf {
        self.journal_root().join(self.shard.to_string())
    }

    /// The directory that holds every shard's journal.
    pub fn journal_root(&self) -> PathBuf {
        match (&self.journal_dir, self.log_dirs.first()) {
            (Some(directory), _) => directory.join("journal"),
            (None, Some(first)) => first.join("journal"),
            (None, None) => PathBuf::from("journal"),
        }
    }
}

/// Settings of one log, from its topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// A segment rolls before it would exceed this many bytes (`segment.bytes`).
    pub segment_bytes: u64,
    /// A segment rolls when a batch is this much newer than its first one (`segment.ms`), milliseconds.
    pub segment_ms: i64,
    /// Most bytes of offset index per segment (`segment.index.bytes`).
    pub segment_index_bytes: u64,
    /// An index entry is made every so many bytes (`index.interval.bytes`).
    pub index_interval_bytes: u32,
    /// Oldest segments go while the log is larger than this (`retention.bytes`); negative: no limit.
    pub retention_bytes: i64,
    /// Segments go when their newest record is older than this (`retention.ms`), milliseconds; negative: no limit.
    pub retention_ms: i64,
    /// Whether time and size retention apply (`cleanup.policy` contains `delete`).
    pub delete: bool,
    /// Whether the log keeps the last value of every key only (`cleanup.policy` contains `compact`).
    pub compact: bool,
    /// The log is cleaned when more than this share of it is dirty (`min.cleanable.dirty.ratio`), millionths.
    pub min_cleanable_dirty_millionths: u32,
    /// A record stays as it is for at least so long (`min.compaction.lag.ms`), milliseconds.
    pub min_compaction_lag_ms: i64,
    /// The log is cleaned, and its active segment rolls, when a record has waited longer (`max.compaction.lag.ms`), milliseconds.
    pub max_compaction_lag_ms: i64,
    /// How long tombstones and transaction markers stay after the log was first cleaned up to them (`delete.retention.ms`), milliseconds.
    pub delete_retention_ms: i64,
}

impl LogConfig {
    /// When a segment rolls by time, milliseconds: soon enough that no record waits too long for compaction.
    pub fn segment_ms_effective(&self) -> i64 {
        if self.compact && self.max_compaction_lag_ms > 0 {
            self.segment_ms.min(self.max_compaction_lag_ms)
        } else {
            self.segment_ms
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 168 * 3_600_000,
            segment_index_bytes: 10 << 20,
            index_interval_bytes: 4096,
            retention_bytes: -1,
            retention_ms: 168 * 3_600_000,
            delete: true,
            compact: false,
            min_cleanable_dirty_millionths: 500_000,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            delete_retention_ms: 86_400_000,
        }
    }
}
