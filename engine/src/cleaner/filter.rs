//! What stays of one batch: as it is, without some of its records, as a bare header, or nothing.
//!
//! A record goes when the map knows a later one of its key; a tombstone also when its batch's delete horizon has passed (KIP-534). The horizon is set when a pass first meets the tombstone
//! in the part that it cleans, and takes the place of the batch's base timestamp. Each producer's last batch stays at least as a header, because it carries the sequence that the
//! next one must follow. A batch that loses nothing is kept byte for byte; another one keeps its offsets, sequences, epoch and codec.

use std::collections::HashMap;
use std::ops::Range;

use super::STRETCH_BYTES;
use super::offset_map::OffsetMap;
use super::transactions::{CleanedTransactions, Marker, MarkerFate};
use crate::batch::{
    BatchError, BatchHeader, Compression, HEADER_BYTES, LENGTH_OVERHEAD_BYTES, NO_TIMESTAMP,
    Record, RecordBytes, Records, TimestampType, compress_in_steps, read_records,
    read_records_in_steps, seal,
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
    /// What the last batch came to; kept for its memory.
    judged: Judged,
}

/// The records of a batch that stay.
#[derive(Default)]
struct Judged {
    /// Where they lie, as few neighbouring ranges as there are.
    runs: Vec<Range<usize>>,
    count: i32,
    max_timestamp: i64,
    /// There is a tombstone among them.
    tombstones: bool,
}

impl Judged {
    fn clear(&mut self) {
        self.runs.clear();
        (self.count, self.max_timestamp) = (0, NO_TIMESTAMP);
        self.tombstones = false;
    }

    fn all(header: &BatchHeader, records: &RecordBytes<'_>) -> Self {
        let all = 0..records.bytes().len();
        Self {
            runs: vec![all],
            count: header.record_count,
            max_timestamp: header.max_timestamp,
            tombstones: false,
        }
    }

    fn add(&mut self, raw: Range<usize>, timestamp: i64, is_tombstone: bool) {
        self.count += 1;
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.tombstones |= is_tombstone;
        match self.runs.last_mut() {
            Some(run) if run.end == raw.start => run.end = raw.end,
            _ => self.runs.push(raw),
        }
    }
}

impl<'a> Filter<'a> {
    /// For one pass over a log, from its first batch on.
    pub fn new(rules: Rules<'a>) -> Self {
        Self {
            rules,
            transactions: CleanedTransactions::default(),
            aborted: Vec::new(),
            judged: Judged::default(),
        }
    }

    /// These transactions of the batches to come are aborted.
    pub fn expect_aborted(&mut self, aborted: impl IntoIterator<Item = AbortedTransaction>) {
        self.transactions.add(aborted);
    }

    /// Judges the next batch, whose header is `header`. While that takes long, `turn` is awaited again and again, with the bytes worked on.
    ///
    /// # Errors
    /// When its records cannot be read.
    pub async fn judge(
        &mut self,
        header: &BatchHeader,
        batch: &[u8],
        turn: &impl AsyncFn(usize),
    ) -> Result<Kept, BatchError> {
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
                let judged = Judged::all(header, &records);
                let horizon = Some(self.new_horizon());
                let changed = rewrite(header, &records, horizon, &judged, turn).await?;
                Ok(Kept::Changed(changed))
            } else {
                Ok(Kept::Whole)
            };
        }
        let mut judged = std::mem::take(&mut self.judged);
        judged.clear();
        let kept = self
            .judge_records(
                header,
                batch,
                (horizon.is_some(), passed),
                &mut judged,
                turn,
            )
            .await;
        self.judged = judged;
        kept
    }

    /// `horizon`: whether the batch has one, and whether it has passed.
    async fn judge_records(
        &self,
        header: &BatchHeader,
        batch: &[u8],
        horizon: (bool, bool),
        judged: &mut Judged,
        turn: &impl AsyncFn(usize),
    ) -> Result<Kept, BatchError> {
        let (has_horizon, passed) = horizon;
        let cap = self.rules.decompressed_bytes_max;
        let records = read_records_in_steps(batch, header, cap, turn).await?;
        let mut walk = records.iter();
        loop {
            let from = walk.position();
            if !self.judge_stretch(header, &mut walk, passed, judged)? {
                break;
            }
            turn(walk.position() - from).await;
        }
        let horizon = (judged.tombstones && !has_horizon).then(|| self.new_horizon());
        if judged.count == 0 {
            return Ok(self.without_records(header));
        }
        if judged.count == header.record_count && horizon.is_none() {
            return Ok(Kept::Whole);
        }
        let changed = rewrite(header, &records, horizon, judged, turn).await?;
        Ok(Kept::Changed(changed))
    }

    /// Judges the next records; whether there may be more.
    fn judge_stretch(
        &self,
        header: &BatchHeader,
        walk: &mut Records<'_>,
        horizon_passed: bool,
        judged: &mut Judged,
    ) -> Result<bool, BatchError> {
        let until = Records::position(walk).saturating_add(STRETCH_BYTES);
        while Records::position(walk) < until {
            let from = Records::position(walk);
            let Some(record) = walk.next() else {
                return Ok(false);
            };
            let record = record?;
            if self.stays(header, &record, horizon_passed) {
                let timestamp = header.base_timestamp.wrapping_add(record.timestamp_delta);
                judged.add(
                    from..Records::position(walk),
                    timestamp,
                    record.value.is_none(),
                );
            }
        }
        Ok(true)
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

/// The batch with the records that stay, and with a delete horizon if one is given.
async fn rewrite(
    header: &BatchHeader,
    records: &RecordBytes<'_>,
    horizon: Option<i64>,
    judged: &Judged,
    turn: &impl AsyncFn(usize),
) -> Result<Vec<u8>, BatchError> {
    let compression = header.attributes.compression()?;
    let base_timestamp = horizon.unwrap_or(header.base_timestamp);
    let later_by = base_timestamp.wrapping_sub(header.base_timestamp);
    let size: usize = judged.runs.iter().map(Range::len).sum();
    let mut payload = Vec::with_capacity(size);
    let mut told = 0;
    for run in &judged.runs {
        if later_by == 0 {
            payload.extend_from_slice(&records.bytes()[run.clone()]);
        } else {
            let mut at = run.start;
            while at < run.end {
                let record = Record::read(records.bytes(), &mut at).map_err(BatchError::Invalid)?;
                record.write(record.timestamp_delta.wrapping_sub(later_by), &mut payload);
                if payload.len() - told >= STRETCH_BYTES {
                    turn(payload.len() - told).await;
                    told = payload.len();
                }
            }
        }
    }
    let mut max_timestamp = judged.max_timestamp;
    if header.attributes.timestamp_type() == TimestampType::LogAppendTime {
        max_timestamp = header.max_timestamp;
    }
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    bytes.resize(HEADER_BYTES, 0);
    compress_in_steps(compression, &payload, &mut bytes, turn).await?;
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
        record_count: judged.count,
        ..*header
    };
    bytes[..HEADER_BYTES].copy_from_slice(&rewritten.encode());
    seal(&mut bytes);
    Ok(bytes)
}

#[cfg(test)]
mod tests;
