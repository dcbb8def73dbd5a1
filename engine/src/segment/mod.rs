//! A segment: a run of batches in one `<base offset>.log` file with its indexes beside it, named and laid out as Kafka does.
//!
//! Holds what is known about the files and does the plain operations on them; what is written when is the log's business. The file ends on a block boundary, padded
//! with zeros, while the segment is written to; sealing gives it its exact size. Space is reserved ahead with the file's size kept.

use std::borrow::Borrow;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::LogConfig;
use crate::disk::{Disk, OpenOptions};
use crate::environment::Environment;
use crate::index::{
    IndexSettings, OffsetIndex, SegmentIndexes, TIME_ENTRY_BYTES, TimeEntry, TimeIndex,
    TransactionIndex,
};
use crate::memory::round_up;

/// The first reservation of a segment file; each further one is four times as much as there is, up to [`RESERVE_BYTES_MAX`].
const RESERVE_BYTES_MIN: u64 = 64 << 10;
/// The largest step of reservation.
const RESERVE_BYTES_MAX: u64 = 16 << 20;
/// No position in a segment lies beyond: Kafka's indexes hold 31 bits.
pub(crate) const SEGMENT_BYTES_LIMIT: u64 = i32::MAX as u64;

/// Kafka takes any `segment.index.bytes` from 4 on; a time index needs room for an entry and for the one that sealing adds.
const INDEX_BYTES_MIN: u64 = 2 * TIME_ENTRY_BYTES as u64;

/// One segment of a log.
pub(crate) struct Segment<E: Environment> {
    /// Offset that names it; no batch in it starts before.
    pub base_offset: i64,
    /// Bytes of batches, written to the file or not yet.
    pub size: u64,
    /// Bytes of the file that are reserved.
    pub reserved: u64,
    /// Bytes of batches that are in the file.
    pub written: u64,
    /// Bytes of batches that are in the file and synced.
    pub synced: u64,
    /// The open file, while it is.
    pub file: Option<<E::Disk as Disk>::File>,
    /// When it was last used, to close the coldest first.
    pub used: u64,
    /// The indexes while the segment is active or not yet sealed, or when they were read back.
    pub indexes: Option<SegmentIndexes>,
    /// Largest timestamp of the first batch, ms: what `segment.ms` counts from.
    pub first_timestamp: Option<i64>,
    /// Largest timestamp, ms; −1: unknown or none.
    pub max_timestamp: i64,
    /// The newest entry of the time index as its file had it, until it has been seen to name its batch.
    pub unchecked_newest: Option<TimeEntry>,
    /// The file has its exact size and the index files are complete and durable.
    pub sealed: bool,
    /// Entries of the offset, time and transaction index when they were last made durable.
    pub durable_index_entries: Option<[usize; 3]>,
    /// There may be a file of its transaction index, which is made only once it is needed.
    pub has_transaction_file: bool,
    /// Where the first of the transactions begins that were aborted in it; known only of a sealed segment whose index was looked at.
    pub lowest_aborted: Option<i64>,
    /// Its files are on their way to their final names: file and indexes stay in memory.
    pub pinned: bool,
}

impl<E: Environment> Segment<E> {
    /// An empty segment without a file.
    pub fn new(base_offset: i64, config: &LogConfig) -> Self {
        Self {
            base_offset,
            size: 0,
            reserved: 0,
            written: 0,
            synced: 0,
            file: None,
            used: 0,
            indexes: Some(SegmentIndexes::new(base_offset, index_settings(config))),
            first_timestamp: None,
            max_timestamp: -1,
            unchecked_newest: None,
            sealed: false,
            durable_index_entries: None,
            has_transaction_file: false,
            lowest_aborted: None,
            pinned: false,
        }
    }

    /// What to reserve so that `end` bytes fit, given the most the segment will take.
    pub fn reservation_for(&self, end: u64, segment_bytes: u64) -> u64 {
        let step = (self.reserved * 3).clamp(RESERVE_BYTES_MIN, RESERVE_BYTES_MAX);
        let wished = (self.reserved + step).min(segment_bytes.max(RESERVE_BYTES_MIN));
        round_up(wished.max(end) as usize) as u64
    }
}

/// The index rules of a log's configuration.
pub(crate) fn index_settings(config: &LogConfig) -> IndexSettings {
    IndexSettings {
        interval_bytes: config.index_interval_bytes,
        index_bytes_max: config
            .segment_index_bytes
            .clamp(INDEX_BYTES_MIN, u64::from(u32::MAX)) as u32,
    }
}

/// Kafka's name for a file of the segment at `base_offset`: the offset in twenty digits and the kind.
pub(crate) fn file_name(base_offset: i64, kind: &str) -> String {
    format!("{base_offset:020}.{kind}")
}

/// The base offset in the name of a file of this kind.
pub(crate) fn base_offset_of(name: &str, kind: &str) -> Option<i64> {
    let digits = name.strip_suffix(kind)?.strip_suffix('.')?;
    (digits.len() == 20).then(|| digits.parse().ok()).flatten()
}

/// Kinds of files that a segment consists of.
pub(crate) const SEGMENT_KINDS: [&str; 4] = ["log", "index", "timeindex", "txnindex"];

/// Opens a segment's file for writing.
pub(crate) async fn open_log_file<E: Environment>(
    env: &E,
    directory: &Path,
    base_offset: i64,
    options: OpenOptions,
) -> io::Result<<E::Disk as Disk>::File> {
    env.disk()
        .open(&directory.join(file_name(base_offset, "log")), options)
        .await
}

/// Writes the index files of a segment, durably with their names.
pub(crate) async fn write_indexes<E: Environment>(
    env: &E,
    directory: &Path,
    base_offset: i64,
    encoded: impl Borrow<EncodedIndexes>,
) -> io::Result<()> {
    let encoded = encoded.borrow();
    let disk = env.disk();
    disk.write_atomic(&path(directory, base_offset, "index"), &encoded.offsets)
        .await?;
    disk.write_atomic(&path(directory, base_offset, "timeindex"), &encoded.times)
        .await?;
    if let Some(transactions) = &encoded.transactions {
        disk.write_atomic(&path(directory, base_offset, "txnindex"), transactions)
            .await?;
    }
    Ok(())
}

/// The bytes of a segment's index files.
pub(crate) struct EncodedIndexes {
    offsets: Vec<u8>,
    times: Vec<u8>,
    /// None where there is nothing to write and nothing to overwrite.
    transactions: Option<Vec<u8>>,
}

impl EncodedIndexes {
    /// As they are now; `has_transaction_file`: what an older file says must not stay.
    pub fn of(indexes: &SegmentIndexes, has_transaction_file: bool) -> Self {
        let transactions = &indexes.transactions;
        let needed = has_transaction_file || !transactions.entries().is_empty();
        Self {
            offsets: indexes.offsets.encode(),
            times: indexes.times.encode(),
            transactions: needed.then(|| transactions.encode()),
        }
    }

    /// Whether the transaction index is among them.
    pub fn has_transactions(&self) -> bool {
        self.transactions.is_some()
    }

    /// Offset index, time index, and transaction index if it is among them.
    pub fn all(&self) -> [Option<&[u8]>; 3] {
        let transactions = self.transactions.as_deref();
        [Some(&self.offsets), Some(&self.times), transactions]
    }
}

/// What a segment's index files hold.
pub(crate) struct StoredIndexes {
    /// The offset and the time index; none when they are missing or damaged and have to be rebuilt.
    pub sparse: Option<(OffsetIndex, TimeIndex)>,
    /// None when it is to be rebuilt, too: damaged, or missing together with the others. Missing alone it is empty.
    pub transactions: Option<TransactionIndex>,
    /// There is a file of it.
    pub has_transaction_file: bool,
}

/// What a transaction index's file holds.
pub(crate) enum StoredTransactions {
    /// The index.
    Found(TransactionIndex),
    /// No file.
    Missing,
    /// Something else.
    Damaged,
}

/// The largest transaction index that is read, in bytes: more aborted transactions than a segment's bytes have room for.
const TRANSACTION_INDEX_BYTES_MAX: u64 = 1 << 30;

/// Reads a segment's transaction index.
pub(crate) async fn read_transactions<E: Environment>(
    env: &E,
    directory: &Path,
    base_offset: i64,
) -> io::Result<StoredTransactions> {
    let path = path(directory, base_offset, "txnindex");
    let read = env.disk().read_whole(&path, TRANSACTION_INDEX_BYTES_MAX);
    match read.await {
        Ok(bytes) => Ok(match TransactionIndex::decode(&bytes) {
            Ok(index) => StoredTransactions::Found(index),
            Err(_) => StoredTransactions::Damaged,
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(StoredTransactions::Missing),
        Err(error) => Err(error),
    }
}

/// Reads a segment's index files.
pub(crate) async fn read_indexes<E: Environment>(
    env: &E,
    directory: &Path,
    base_offset: i64,
    settings: IndexSettings,
) -> io::Result<StoredIndexes> {
    let disk = env.disk();
    let mut raw = [None, None];
    for (kind, raw) in ["index", "timeindex"].into_iter().zip(&mut raw) {
        match disk.read_small(&path(directory, base_offset, kind)).await {
            Ok(bytes) => *raw = Some(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let transactions = read_transactions(env, directory, base_offset).await?;
    let [offsets, times] = raw;
    let has_transaction_file = !matches!(transactions, StoredTransactions::Missing);
    let transactions = match transactions {
        StoredTransactions::Found(index) => Some(index),
        StoredTransactions::Missing if offsets.is_some() => Some(TransactionIndex::new()),
        StoredTransactions::Missing | StoredTransactions::Damaged => None,
    };
    let limit = settings.index_bytes_max;
    let offsets = offsets.and_then(|raw| OffsetIndex::decode(base_offset, limit, &raw).ok());
    let times = times.and_then(|raw| TimeIndex::decode(base_offset, limit, &raw).ok());
    Ok(StoredIndexes {
        sparse: offsets.zip(times),
        transactions,
        has_transaction_file,
    })
}

/// The path of a segment's file.
pub(crate) fn path(directory: &Path, base_offset: i64, kind: &str) -> PathBuf {
    directory.join(file_name(base_offset, kind))
}
