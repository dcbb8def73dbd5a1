//! A segment's indexes as a log uses them: read when needed, verified against the batch they name, made anew from the batches when they are wrong.
//!
//! An index is a hint and its file has no checksum: nobody goes by an entry before the batch header at its position has agreed with it.

use super::flush::Place;
use super::read::Straddling;
use super::walk::STEP_BYTES_MIN;
use super::{Log, ReadError};
use crate::batch::{BatchHeader, HEADER_BYTES};
use crate::environment::Environment;
use crate::index::{IndexSettings, OffsetEntry, SegmentIndexes, TimeEntry, TransactionIndex};
use crate::memory::BLOCK_BYTES;
use crate::segment::{EncodedIndexes, index_settings, read_indexes, write_indexes};

/// The newest entry of a time index, if it has one.
fn newest_of(indexes: &SegmentIndexes) -> Option<TimeEntry> {
    (!indexes.times.is_empty()).then(|| indexes.times.last())
}

impl<E: Environment> Log<E> {
    /// Changes whenever segments are replaced or cut: what was read of them before may be of others.
    pub(super) fn layout(&self) -> (u64, u64) {
        (self.replacements.get(), self.flush.truncations())
    }

    /// The entry of a segment's offset index at or below `offset`. Whoever goes by it must find a batch at its position that ends at its offset.
    pub(super) async fn index_entry(
        &self,
        base: i64,
        offset: i64,
    ) -> Result<OffsetEntry, ReadError> {
        self.load_indexes(base).await?;
        let state = self.state.borrow();
        let indexes = state
            .segments
            .get(&base)
            .and_then(|segment| segment.indexes.as_ref());
        let start = OffsetEntry {
            offset: base,
            position: 0,
        };
        Ok(indexes.map_or(start, |indexes| indexes.offsets.lookup(offset)))
    }

    /// A position at or before the batch that contains `offset`; the batch there agrees with the index, or the index was made anew.
    pub(super) async fn position_hint(&self, base: i64, offset: i64) -> Result<u64, ReadError> {
        let entry = self.index_entry(base, offset).await?;
        let position = u64::from(entry.position);
        if position == 0 {
            return Ok(0);
        }
        let header = self.header_at(base, position).await?;
        if header.is_some_and(|header| header.last_offset() == entry.offset) {
            return Ok(position);
        }
        tracing::warn!(log = %self.topic_partition, segment = base, "the offset index names no batch at position {position}: rebuilding it");
        self.rebuild_indexes(base).await?;
        Ok(self.index_entry(base, offset).await?.position.into())
    }

    /// The header of the batch at `position`; `None` when there is none.
    pub(super) async fn header_at(
        &self,
        base: i64,
        position: u64,
    ) -> Result<Option<BatchHeader>, ReadError> {
        self.settle().await?;
        let place = Place {
            segment: base,
            position,
        };
        let written = {
            let state = self.state.borrow();
            if state.tail.holds(place) {
                let mut raw = [0; HEADER_BYTES];
                let whole = state.tail.copy(base, position, &mut raw);
                return Ok(whole.then(|| BatchHeader::parse(&raw).ok()).flatten());
            }
            match state.segments.get(&base) {
                Some(segment) if position < segment.written => segment.written,
                _ => return Ok(None),
            }
        };
        let aligned = position / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        let bytes = self
            .read_file(base, aligned, 2 * BLOCK_BYTES, written)
            .await?;
        let rest = bytes
            .get((position - aligned) as usize..)
            .unwrap_or_default();
        if rest.len() < HEADER_BYTES
            && let Straddling::Batch(header, _) = self.straddling_header(base, position, rest)
        {
            return Ok(Some(header));
        }
        Ok(BatchHeader::parse(rest).ok())
    }

    /// Makes sure that a segment's indexes are in memory.
    pub(super) async fn load_indexes(&self, base: i64) -> Result<(), ReadError> {
        let settings = {
            let state = self.state.borrow();
            match state.segments.get(&base) {
                Some(segment) if segment.indexes.is_none() => index_settings(&state.config),
                _ => return Ok(()),
            }
        };
        let used = self.shard.tick();
        let layout = self.layout();
        let read = read_indexes(&self.shard.env, &self.path(), base, settings).await;
        if self.layout() != layout {
            // These may be those of another segment by now, which has its own.
            return Ok(());
        }
        let stored =
            read.map_err(|error| ReadError::Log(self.storage_error("reading an index", &error)))?;
        if let Some(segment) = self.state.borrow_mut().segments.get_mut(&base) {
            segment.has_transaction_file |= stored.has_transaction_file;
        }
        let (Some((offsets, times)), true) = (stored.sparse, stored.transactions.is_some()) else {
            return self.rebuild_with(base, stored.transactions).await;
        };
        let transactions = stored.transactions.unwrap_or_default();
        let indexes = SegmentIndexes::from_parts(offsets, times, transactions, settings);
        if let Some(segment) = self.state.borrow_mut().segments.get_mut(&base) {
            segment.used = used;
            segment.unchecked_newest = newest_of(&indexes);
            segment.indexes.get_or_insert(indexes);
        }
        self.shard.indexes_loaded(self, base);
        Ok(())
    }

    /// Makes a segment's offset and time index anew from its batches, and writes them when the segment is sealed. The transaction index in memory stays.
    ///
    /// `segment.index.bytes` may have been lowered since the segment was written: entries then lie further apart, so that the whole segment has some.
    pub(super) async fn rebuild_indexes(&self, base: i64) -> Result<(), ReadError> {
        self.rebuild_with(base, None).await
    }

    /// The same with the transaction index that was stored; without one, and none in memory, that is made anew as well.
    async fn rebuild_with(
        &self,
        base: i64,
        stored: Option<TransactionIndex>,
    ) -> Result<(), ReadError> {
        let (settings, sealed, rolled, size, held) = {
            let state = self.state.borrow();
            let last = state.segments.last_key_value().map(|(last, _)| *last);
            let segment = state.segments.get(&base);
            let held = segment.and_then(|segment| segment.indexes.as_ref());
            (
                index_settings(&state.config),
                segment.is_some_and(|segment| segment.sealed),
                last != Some(base),
                segment.map_or(0, |segment| segment.size),
                held.map(|indexes| indexes.transactions.clone()),
            )
        };
        let layout = self.layout();
        let transactions = match held.or(stored) {
            Some(transactions) => Ok(transactions),
            None => self.rebuild_transactions(base).await,
        };
        let built = self.indexes_of_batches(base, settings).await;
        if self.layout() != layout {
            return Ok(());
        }
        let transactions = transactions?;
        let (mut indexes, crowded) = built?;
        // The active segment rolls when its index is full.
        if crowded && (sealed || rolled) {
            let spread = settings.spread_over(size);
            let built = self.indexes_of_batches(base, spread).await;
            if self.layout() != layout {
                return Ok(());
            }
            (indexes, _) = built?;
        }
        indexes.transactions = transactions;
        let has_transaction_file = {
            let state = self.state.borrow();
            let segment = state.segments.get(&base);
            if let Some(now) = segment.and_then(|segment| segment.indexes.as_ref())
                && !sealed
            {
                // Transactions may have been aborted meanwhile.
                indexes.transactions = now.transactions.clone();
            }
            segment.is_some_and(|segment| segment.has_transaction_file)
        };
        let _indexing = match sealed {
            true => Some(self.indexing.enter().await),
            false => None,
        };
        if self.layout() != layout {
            return Ok(());
        }
        if sealed {
            let sealing = indexes.seal().map_err(|error| error.to_string());
            sealing.map_err(|reason| self.corrupt(base, reason))?;
            let encoded = EncodedIndexes::of(&indexes, has_transaction_file);
            let has_transactions = encoded.has_transactions();
            write_indexes(&self.shard.env, &self.path(), base, encoded)
                .await
                .map_err(|error| ReadError::Log(self.storage_error("writing an index", &error)))?;
            if let Some(segment) = self.state.borrow_mut().segments.get_mut(&base) {
                segment.has_transaction_file |= has_transactions;
            }
        }
        if let Some(segment) = self.state.borrow_mut().segments.get_mut(&base) {
            segment.max_timestamp = indexes.max_timestamp().timestamp;
            segment.unchecked_newest = None;
            segment.indexes = Some(indexes);
        }
        self.shard.indexes_loaded(self, base);
        Ok(())
    }

    /// Makes sure that the largest timestamp of a segment is that of a batch, not only of an index file.
    pub(super) async fn check_newest(&self, base: i64) -> Result<(), ReadError> {
        self.load_indexes(base).await?;
        let unchecked = {
            let state = self.state.borrow();
            let segment = state.segments.get(&base);
            segment.and_then(|segment| segment.unchecked_newest)
        };
        let Some(newest) = unchecked else {
            return Ok(());
        };
        if !self.check_time_entry(base, newest).await? {
            return Ok(());
        }
        if let Some(segment) = self.state.borrow_mut().segments.get_mut(&base)
            && segment.unchecked_newest == Some(newest)
        {
            segment.unchecked_newest = None;
            segment.max_timestamp = segment.max_timestamp.max(newest.timestamp);
        }
        Ok(())
    }

    /// Whether a time index's entry is true of the batch it names; if not, the indexes have been made anew.
    pub(super) async fn check_time_entry(
        &self,
        base: i64,
        entry: TimeEntry,
    ) -> Result<bool, ReadError> {
        let position = self.position_hint(base, entry.offset).await?;
        let first = self.header_at(base, position).await?;
        let named = match first {
            Some(header) if header.last_offset() < entry.offset => {
                self.batch_from(base, position, entry.offset).await?
            }
            other => other,
        };
        let named = named.map(|header| TimeEntry {
            timestamp: header.max_timestamp,
            offset: header.last_offset(),
        });
        if named == Some(entry) {
            return Ok(true);
        }
        tracing::warn!(log = %self.topic_partition, segment = base, "the time index says {} of offset {}, which is not so: rebuilding it", entry.timestamp, entry.offset);
        self.rebuild_indexes(base).await?;
        Ok(false)
    }

    /// The header of the batch that contains `offset`, or of the one after it, looked for from `position` on.
    async fn batch_from(
        &self,
        base: i64,
        mut position: u64,
        offset: i64,
    ) -> Result<Option<BatchHeader>, ReadError> {
        let mut found = None;
        while found.is_none() {
            let next = self
                .walk_in_steps(base, position, STEP_BYTES_MIN, |header, _| {
                    if header.last_offset() >= offset {
                        found.get_or_insert(*header);
                    }
                    Ok(())
                })
                .await?;
            if next == position {
                break;
            }
            position = next;
        }
        Ok(found)
    }

    /// The indexes that a segment's batches give, and whether batches came after they were full.
    async fn indexes_of_batches(
        &self,
        base: i64,
        settings: IndexSettings,
    ) -> Result<(SegmentIndexes, bool), ReadError> {
        let mut indexes = SegmentIndexes::new(base, settings);
        let mut crowded = false;
        let mut position = 0;
        loop {
            let next = self
                .walk(base, position, |header, at| {
                    crowded |= indexes.is_full();
                    indexes
                        .on_append(header, at as u32)
                        .map_err(|error| error.to_string())
                })
                .await?;
            if next == position {
                return Ok((indexes, crowded));
            }
            position = next;
        }
    }

    /// Feeds a segment's indexes with the batches from `position` on.
    pub(super) async fn feed_indexes(&self, base: i64, mut position: u64) -> Result<(), ReadError> {
        loop {
            let mut headers = Vec::new();
            let next = self.walk(base, position, |header, at| {
                headers.push((*header, at));
                Ok(())
            });
            let next = next.await?;
            if let Some(indexes) = self
                .state
                .borrow_mut()
                .segments
                .get_mut(&base)
                .and_then(|segment| segment.indexes.as_mut())
            {
                for (header, at) in &headers {
                    indexes
                        .on_append(header, *at as u32)
                        .map_err(|error| self.corrupt(header.base_offset, error.to_string()))?;
                }
            }
            if next == position {
                return Ok(());
            }
            position = next;
        }
    }
}

#[cfg(test)]
mod tests;
