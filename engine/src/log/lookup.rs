//! Finding offsets by time, and the aborted transactions of a range.
//!
//! The time index says where to begin to look, once its entry has agreed with the batch it names; the batches themselves decide, and the answer is the record's own offset, as ListOffsets promises.

use super::{Log, ReadError, ReadLimit, TimestampOffset};
use crate::batch::{Batch, NO_TIMESTAMP, batches, decompress};
use crate::environment::Environment;
use crate::index::{SegmentIndexes, TimeEntry};

/// Bytes looked at in one step.
const STEP_BYTES: usize = 256 << 10;

impl<E: Environment> Log<E> {
    /// The first record at or after the log start whose timestamp is at least `timestamp`; `None` when there is none before the high watermark.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn offset_for_timestamp(
        &self,
        timestamp: i64,
    ) -> Result<Option<TimestampOffset>, ReadError> {
        loop {
            self.check_online()?;
            let replacements = self.replacements.get();
            let found = self.first_at_or_after(timestamp).await;
            // Otherwise what was in a segment still to be looked at may have gone to one that was.
            if self.replacements.get() == replacements {
                return found;
            }
        }
    }

    async fn first_at_or_after(
        &self,
        timestamp: i64,
    ) -> Result<Option<TimestampOffset>, ReadError> {
        let bases: Vec<i64> = self.state.borrow().segments.keys().copied().collect();
        let log_start = self.log_start_offset();
        for base in bases {
            if self.max_timestamp_of(base).await? < timestamp {
                continue;
            }
            let before = self.entry_before(base, timestamp.saturating_sub(1));
            let hint = before.await?.offset;
            let found = self
                .first_match(hint.max(log_start), |record| record.timestamp >= timestamp)
                .await?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The last entry of a segment's time index up to `timestamp` that names a batch before the high watermark, and is true of it.
    async fn entry_before(&self, base: i64, timestamp: i64) -> Result<TimeEntry, ReadError> {
        let look_up = || {
            let state = self.state.borrow();
            let segment = state.segments.get(&base);
            let entry = segment
                .and_then(|segment| segment.indexes.as_ref())
                .map(|indexes| {
                    let limit = self.high_watermark();
                    indexes.times.lookup_before(timestamp, limit)
                });
            entry.unwrap_or(TimeEntry {
                timestamp: NO_TIMESTAMP,
                offset: base,
            })
        };
        self.load_indexes(base).await?;
        let entry = look_up();
        if entry.timestamp == NO_TIMESTAMP || self.check_time_entry(base, entry).await? {
            return Ok(entry);
        }
        Ok(look_up())
    }

    /// The first record with the largest timestamp of those between the log start and the high watermark; `None` when there are none.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn max_timestamp_offset(&self) -> Result<Option<TimestampOffset>, ReadError> {
        self.check_online()?;
        let newest = loop {
            let replacements = self.replacements.get();
            let newest = self.newest_of_segments().await;
            if self.replacements.get() == replacements {
                break newest?;
            }
        };
        if newest < 0 {
            return Ok(None);
        }
        if let Some(found) = self.offset_for_timestamp(newest).await? {
            return Ok(Some(found));
        }
        // Compaction has left the newest batch without records.
        match self.newest_of_records().await? {
            Some(newest) => self.offset_for_timestamp(newest).await,
            None => Ok(None),
        }
    }

    /// The largest timestamp of batches from the log start to the high watermark that the segments know of; −1 when there is none.
    async fn newest_of_segments(&self) -> Result<i64, ReadError> {
        let bases: Vec<i64> = self.state.borrow().segments.keys().copied().collect();
        let mut newest = NO_TIMESTAMP;
        for base in bases {
            newest = newest.max(self.max_visible_timestamp_of(base).await?);
        }
        Ok(newest)
    }

    /// The largest timestamp of the batches that have records, found by looking at all of them.
    async fn newest_of_records(&self) -> Result<Option<i64>, ReadError> {
        let mut next = self.log_start_offset();
        let mut newest = None;
        loop {
            let read = self
                .read(next, STEP_BYTES, true, ReadLimit::HighWatermark)
                .await?;
            if read.is_empty() {
                return Ok(newest);
            }
            let bytes = read.pieces.concat();
            for batch in batches(&bytes) {
                let header = batch
                    .map_err(|error| self.corrupt(next, error.to_string()))?
                    .header;
                if header.record_count > 0 {
                    newest = newest.max(Some(header.max_timestamp));
                }
            }
            next = read.next_offset;
        }
    }

    /// The largest timestamp of a segment's batches from the log start to the high watermark.
    async fn max_visible_timestamp_of(&self, base: i64) -> Result<i64, ReadError> {
        let largest = self.max_timestamp_of(base).await?;
        let visible = self.log_start_offset()..self.high_watermark();
        let end = {
            let state = self.state.borrow();
            let next = state.segments.range(base + 1..).next();
            next.map_or(state.next_offset, |(next, _)| *next)
        };
        if largest < 0 || (visible.start <= base && end <= visible.end) {
            return Ok(largest);
        }
        let entry = self.entry_before(base, i64::MAX).await?;
        let newest = {
            let state = self.state.borrow();
            let segment = state.segments.get(&base);
            let indexes = segment.and_then(|segment| segment.indexes.as_ref());
            indexes.map(SegmentIndexes::max_timestamp)
        };
        if let Some(newest) = newest.filter(|newest| visible.contains(&newest.offset)) {
            return Ok(newest.timestamp);
        }
        let (mut largest, mut next) = (NO_TIMESTAMP, visible.start.max(base));
        if visible.contains(&entry.offset) {
            (largest, next) = (entry.timestamp, entry.offset.max(next));
        }
        while next < end.min(visible.end) {
            let read = self.read(next, STEP_BYTES, true, ReadLimit::HighWatermark);
            let read = read.await?;
            if read.is_empty() {
                break;
            }
            for batch in batches(&read.pieces.concat()) {
                let batch = batch.map_err(|error| self.corrupt(next, error.to_string()))?;
                largest = largest.max(batch.header.max_timestamp);
            }
            next = read.next_offset;
        }
        Ok(largest)
    }

    /// Walks records from `offset` to the high watermark until one matches.
    async fn first_match(
        &self,
        offset: i64,
        matches: impl Fn(&TimestampOffset) -> bool,
    ) -> Result<Option<TimestampOffset>, ReadError> {
        let mut next = offset;
        loop {
            let read = self
                .read(next, STEP_BYTES, true, ReadLimit::HighWatermark)
                .await?;
            if read.is_empty() {
                return Ok(None);
            }
            let bytes = if read.pieces.len() == 1 {
                read.pieces[0].to_vec()
            } else {
                read.pieces.concat()
            };
            for batch in batches(&bytes) {
                let batch = batch.map_err(|error| self.corrupt(next, error.to_string()))?;
                let found = first_record(&batch, offset, &matches)
                    .map_err(|reason| self.corrupt(batch.header.base_offset, reason))?;
                if found.is_some() {
                    return Ok(found);
                }
            }
            next = read.next_offset;
        }
    }
}

/// The first record of a batch at or after `offset` that matches.
fn first_record(
    batch: &Batch<'_>,
    offset: i64,
    matches: &impl Fn(&TimestampOffset) -> bool,
) -> Result<Option<TimestampOffset>, String> {
    let header = &batch.header;
    let at = |timestamp, offset| TimestampOffset {
        timestamp,
        offset,
        leader_epoch: header.leader_epoch,
    };
    // Nothing in the batch is newer than its largest timestamp.
    if header.last_offset() < offset || !matches(&at(header.max_timestamp, header.base_offset)) {
        return Ok(None);
    }
    let appended = header.attributes.timestamp_type() == crate::batch::TimestampType::LogAppendTime;
    // Compaction leaves gaps: then the first offset is not that of a record.
    let is_complete = header.record_count == header.last_offset_delta.saturating_add(1);
    if appended && is_complete {
        return Ok(Some(at(
            header.max_timestamp,
            header.base_offset.max(offset),
        )));
    }
    const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;
    let compression = header
        .attributes
        .compression()
        .map_err(|error| error.to_string())?;
    let payload = decompress(compression, batch.payload(), DECOMPRESSED_BYTES_MAX)
        .map_err(|error| error.to_string())?;
    for record in crate::batch::Records::new(&payload, header.record_count) {
        let record = record.map_err(|error| error.to_string())?;
        let timestamp = match appended {
            true => header.max_timestamp,
            false => header.base_timestamp.saturating_add(record.timestamp_delta),
        };
        let found = at(
            timestamp,
            header.base_offset + i64::from(record.offset_delta),
        );
        if found.offset >= offset && matches(&found) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}
