//! What stays of one batch: as it is, without some of its records, as a bare header, or nothing.
//!
//! A record goes when the map knows a later one of its key; a tombstone also when its batch's delete horizon has passed (KIP-534). The horizon is set when a pass first meets the tombstone
//! in the part that it cleans, and takes the place of the batch's base timestamp. Each producer's last batch stays at least as a header, because it carries the sequence that the
//! next one must follow. A batch that loses nothing is kept byte for byte; another one keeps its offsets, sequences, epoch and codec.

use std::collections::HashMap;

use super::offset_map::OffsetMap;
use super::transactions::{CleanedTransactions, Marker, MarkerFate};
use crate::batch::{
    BatchError, BatchHeader, Compression, HEADER_BYTES, LENGTH_OVERHEAD_BYTES, NO_TIMESTAMP,
    Record, RecordBytes, TimestampType, compress, read_records, seal,
};
use crate::index::AbortedTransaction;
use crate::producer_state::LastOfProducer;

/// What a pass goes by.
pub(crate) struct Rules<'a> {
    /// Last offsets of the dirty part's keys.
    pub map: &'a OffsetMap,
    /// The time, ms since the epoch.
    pub now_ms: i64,
    /// `delete.retention.ms`.
    pub delete_retention_ms: i64,
    /// The last batches of the producers that the log remembers.
    pub producers: &'a HashMap<i64, LastOfProducer>,
    /// Most bytes that a batch may decompress to.
    pub decompressed_bytes_max: usize,
}

/// What stays of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// All of it, as it is.
    Whole,
    /// Another batch in its place.
    Changed(Vec<u8>),
    /// Nothing.
    Nothing,
}

/// See the module.
pub(crate) struct Filter<'a> {
    rules: Rules<'a>,
    transactions: CleanedTransactions,
    /// Aborted transactions whose records or markers stay, in order; for the new segment's index.
    pub aborted: Vec<AbortedTransaction>,
}

impl<'a> Filter<'a> {
    /// For one pass over a log, from its first batch on.
    pub fn new(rules: Rules<'a>) -> Self {
        Self {
            rules,
            transactions: CleanedTransactions::default(),
            aborted: Vec::new(),
        }
    }

    /// These transactions of the batches to come are aborted.
    pub fn expect_aborted(&mut self, aborted: impl IntoIterator<Item = AbortedTransaction>) {
        self.transactions.add(aborted);
    }

    /// Judges the next batch, whose header is `header`.
    ///
    /// # Errors
    /// When its records cannot be read.
    pub fn judge(&mut self, header: &BatchHeader, batch: &[u8]) -> Result<Kept, BatchError> {
        let control = header.attributes.is_control();
        let horizon = header
            .attributes
            .has_delete_horizon()
            .then_some(header.base_timestamp);
        let passed = horizon.is_some_and(|horizon| horizon <= self.rules.now_ms);
        let mut idle_marker = false;
        let discard = if control {
            let marker = first_marker(header, batch, self.rules.decompressed_bytes_max)?;
            match self.transactions.marker(header, marker) {
                MarkerFate::Needed(aborted) => {
                    self.aborted.extend(aborted);
                    false
                }
                MarkerFate::Idle => {
                    idle_marker = true;
                    passed
                }
            }
        } else {
            self.transactions.batch(header)
        };
        if discard || header.record_count == 0 {
            return Ok(self.without_records(header));
        }
        if control {
            return if idle_marker && horizon.is_none() {
                let records = read_records(batch, header, self.rules.decompressed_bytes_max)?;
                let horizon = Some(self.new_horizon());
                rewrite(header, &records, horizon, |_| true).map(Kept::Changed)
            } else {
                Ok(Kept::Whole)
            };
        }
        self.judge_records(header, batch, horizon.is_some(), passed)
    }

    fn judge_records(
        &self,
        header: &BatchHeader,
        batch: &[u8],
        has_horizon: bool,
        passed: bool,
    ) -> Result<Kept, BatchError> {
        let records = read_records(batch, header, self.rules.decompressed_bytes_max)?;
        let (mut kept, mut tombstones) = (0, false);
        for record in records.iter() {
            let record = record?;
            if self.stays(header, &record, passed) {
                kept += 1;
                tombstones |= record.value.is_none();
            }
        }
        let horizon = (tombstones && !has_horizon).then(|| self.new_horizon());
        if kept == 0 {
            return Ok(self.without_records(header));
        }
        if kept == header.record_count && horizon.is_none() {
            return Ok(Kept::Whole);
        }
        let stays = |record: &Record<'_>| self.stays(header, record, passed);
        rewrite(header, &records, horizon, stays).map(Kept::Changed)
    }

    fn stays(&self, header: &BatchHeader, record: &Record<'_>, horizon_passed: bool) -> bool {
        let offset = header
            .base_offset
            .saturating_add(i64::from(record.offset_delta));
        let map = self.rules.map;
        if offset > map.latest_offset() {
            return true;
        }
        // Without a key there is nothing to compact by: such records are no part of a compacted log.
        let Some(key) = record.key else { return false };
        let is_last = map.get(key).is_none_or(|last| offset >= last);
        is_last && (record.value.is_some() || !horizon_passed)
    }

    /// What stays of a batch without records: its header, if it is its producer's last.
    fn without_records(&self, header: &BatchHeader) -> Kept {
        let needed = header.has_producer_id()
            && self
                .rules
                .producers
                .get(&header.producer_id)
                .is_some_and(|last| match last.last_data_offset {
                    Some(offset) => header.last_offset() == offset,
                    None => header.attributes.is_control() && header.producer_epoch == last.epoch,
                });
        match needed {
            false => Kept::Nothing,
            true if header.record_count == 0 => Kept::Whole,
            true => Kept::Changed(bare(header).to_vec()),
        }
    }

    fn new_horizon(&self) -> i64 {
        self.rules
            .now_ms
            .saturating_add(self.rules.delete_retention_ms)
    }
}

fn first_marker(
    header: &BatchHeader,
    batch: &[u8],
    cap: usize,
) -> Result<Option<Marker>, BatchError> {
    if header.record_count == 0 {
        return Ok(None);
    }
    let records = read_records(batch, header, cap)?;
    let first = records.iter().next().transpose()?;
    Ok(first.map(|record| Marker::of(&record)))
}

/// A batch without records that keeps the place, epoch and sequence of another.
pub(crate) fn bare(header: &BatchHeader) -> [u8; HEADER_BYTES] {
    let attributes = header
        .attributes
        .with_compression(Compression::None)
        .with_delete_horizon(false);
    let bare = BatchHeader {
        length: (HEADER_BYTES - LENGTH_OVERHEAD_BYTES) as i32,
        attributes,
        base_timestamp: header.max_timestamp,
        record_count: 0,
        ..*header
    };
    let mut bytes = bare.encode();
    seal(&mut bytes);
    bytes
}

/// The batch with those records that `stays` takes, and with a delete horizon if one is given.
fn rewrite(
    header: &BatchHeader,
    records: &RecordBytes<'_>,
    horizon: Option<i64>,
    stays: impl Fn(&Record<'_>) -> bool,
) -> Result<Vec<u8>, BatchError> {
    let compression = header.attributes.compression()?;
    let base_timestamp = horizon.unwrap_or(header.base_timestamp);
    let mut payload = Vec::with_capacity(records.bytes().len());
    let (mut record_count, mut max_timestamp) = (0, NO_TIMESTAMP);
    let mut walk = records.iter();
    let mut from = 0;
    while let Some(record) = walk.next() {
        let record = record?;
        let raw = from..walk.position();
        from = raw.end;
        if !stays(&record) {
            continue;
        }
        record_count += 1;
        let timestamp = header.base_timestamp.wrapping_add(record.timestamp_delta);
        max_timestamp = max_timestamp.max(timestamp);
        if base_timestamp == header.base_timestamp {
            payload.extend_from_slice(&records.bytes()[raw]);
        } else {
            record.write(timestamp.wrapping_sub(base_timestamp), &mut payload);
        }
    }
    if header.attributes.timestamp_type() == TimestampType::LogAppendTime {
        max_timestamp = header.max_timestamp;
    }
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    bytes.resize(HEADER_BYTES, 0);
    compress(compression, &payload, &mut bytes)?;
    let length =
        i32::try_from(bytes.len() - LENGTH_OVERHEAD_BYTES).map_err(|_| BatchError::TooLarge {
            len: bytes.len(),
            limit: i32::MAX as usize,
        })?;
    let rewritten = BatchHeader {
        length,
        attributes: header
            .attributes
            .with_delete_horizon(horizon.is_some() || header.attributes.has_delete_horizon()),
        base_timestamp,
        max_timestamp,
        record_count,
        ..*header
    };
    bytes[..HEADER_BYTES].copy_from_slice(&rewritten.encode());
    seal(&mut bytes);
    Ok(bytes)
}

#[cfg(test)]
mod tests;
