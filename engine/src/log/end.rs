//! Where a log found after a crash ends: at its recovery point, if everything before it is whole.
//!
//! Looks at batches only as far as needed, from an index hint to the recovery point. Damage before the point is reported, never cut away, and neither is what is missing there: a
//! recovery point is written after what it covers was synced, so a log that ends before it has lost records, and their offsets may not be given out again. What lies beyond is
//! forgotten, because the journal knows better.

use super::Log;
use super::replay::OpenPlan;
use crate::batch::{BatchHeader, HEADER_BYTES};
use crate::environment::Environment;
use crate::memory::BLOCK_BYTES;

impl<E: Environment> Log<E> {
    /// Finds where the recovery point lies, checks that what is before it is whole, and removes what the journal does not know beyond it.
    pub(super) async fn find_end(&self, point: i64, plan: &OpenPlan) -> Result<i64, String> {
        let before = {
            let state = self.state.borrow();
            let before = state.segments.range(..point).next_back();
            before.map(|(base, _)| *base)
        };
        let Some(base) = before else {
            return self.end_without_segment(point, plan).await;
        };
        let (position, reached, ended) = self.position_of(base, point).await?;
        if reached > point {
            return Err(format!(
                "no batch of segment {base} ends at its recovery point {point}; restore the segment from another copy"
            ));
        }
        if reached < point && plan.log_start.is_some_and(|start| start >= point) {
            // Deleted records: of the segments whose removal was under way at the crash some are back, and others not.
            return self.end_without_segment(point, plan).await;
        }
        let mut end = point;
        // Without a recorded point nothing was ever checkpointed: whatever the file holds, the journal's first batch says where it belongs, and is refused elsewhere.
        if reached < point && plan.recovery_point.is_some() {
            if let Some(reason) = ended {
                return Err(format!(
                    "segment {base} is damaged at position {position}, before its recovery point {point}: {reason}; restore the segment from another copy"
                ));
            }
            if plan.first_in_journal.is_none_or(|first| first > reached) {
                return Err(format!(
                    "records {reached} to {point} are missing: they were synced before the recovery point {point}, but segment {base} ends before them; restore the log from another copy"
                ));
            }
            // Not in the file, but in the journal.
            end = reached;
        }
        self.set_segment_end(base, position);
        self.forget_segments_from(base + 1, plan).await?;
        Ok(end)
    }

    /// The end when no segment begins before the point: there must be a reason why nothing before it has a file.
    async fn end_without_segment(&self, point: i64, plan: &OpenPlan) -> Result<i64, String> {
        let start = plan.log_start.unwrap_or(0);
        let covered = plan.first_in_journal.filter(|first| *first <= start);
        let removed = start >= point || plan.truncated_to.is_some();
        if !removed && covered.is_none() && plan.recovery_point.is_some() {
            return Err(format!(
                "records {start} to {point} are missing: they were synced before the recovery point {point}, but no segment holds them; restore the log from another copy"
            ));
        }
        let end = if removed {
            point
        } else {
            covered.map_or(point, |first| first.min(point))
        };
        if self.state.borrow().segments.contains_key(&end) {
            self.set_segment_end(end, 0);
            self.forget_segments_from(end + 1, plan).await?;
        } else {
            self.forget_segments_from(i64::MIN, plan).await?;
        }
        Ok(end)
    }

    /// Without a recovery point: everything that is whole, from the first segment on.
    pub(super) async fn find_unknown_end(&self, plan: &OpenPlan) -> Result<i64, String> {
        let bases: Vec<i64> = self.state.borrow().segments.keys().copied().collect();
        let Some(&first) = bases.first() else {
            return Ok(plan.segments.first().copied().unwrap_or(0));
        };
        let mut end = first;
        let limit = plan.truncated_to.unwrap_or(i64::MAX);
        for (index, &base) in bases.iter().enumerate() {
            if base >= limit {
                break;
            }
            let (position, reached, ended) = self.scan_segment(base, 0, limit).await?;
            if base > end {
                if position > 0 {
                    return Err(format!(
                        "records {end} to {base} are missing before segment {base}; restore the log from another copy"
                    ));
                }
                // Made for records that were never acknowledged.
                break;
            }
            end = reached;
            let last = index + 1 == bases.len();
            if let Some(reason) = ended
                && !last
            {
                return Err(format!(
                    "segment {base} is damaged at position {position}: {reason}; restore the segment from another copy"
                ));
            }
            let size = self
                .state
                .borrow()
                .segments
                .get(&base)
                .map_or(0, |segment| segment.size);
            if position < size || last {
                self.set_segment_end(base, position);
            }
            if reached >= limit {
                break;
            }
        }
        let last = self
            .state
            .borrow()
            .segments
            .range(..end)
            .next_back()
            .map_or(first, |(base, _)| *base);
        self.forget_segments_from(last + 1, plan).await?;
        Ok(end)
    }

    /// Walks from an index hint to the batch that ends at `point`: position after it, offset after it, and why the walk ended early, if it did.
    async fn position_of(
        &self,
        base: i64,
        point: i64,
    ) -> Result<(u64, i64, Option<String>), String> {
        let hint = self.position_hint(base, point - 1).await.unwrap_or(0);
        let found = self.scan_segment(base, hint, point).await?;
        if found.1 == point || hint == 0 {
            return Ok(found);
        }
        // The hint led nowhere: look at the whole segment.
        if let Some(segment) = self.state.borrow_mut().segments.get_mut(&base) {
            segment.indexes = None;
        }
        self.scan_segment(base, 0, point).await
    }

    /// Walks whole, valid batches from `position` until one ends at or after `limit` or would begin there. Offsets must increase and leader epochs not fall. The reason is there when bytes follow that are no batch
    /// and not zeros.
    async fn scan_segment(
        &self,
        base: i64,
        mut position: u64,
        limit: i64,
    ) -> Result<(u64, i64, Option<String>), String> {
        let size = self
            .state
            .borrow()
            .segments
            .get(&base)
            .map_or(0, |segment| segment.size);
        let mut reached = base;
        let mut epoch = -1;
        // From a hint it is not far.
        let mut step = if position > 0 { 64 << 10 } else { 1 << 20 };
        while position < size {
            let aligned = position / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
            let skip = (position - aligned) as usize;
            let bytes = self
                .read_file(base, aligned, step, size)
                .await
                .map_err(|error| error.to_string())?;
            let mut at = skip;
            let mut wants = 0;
            while reached < limit
                && let Some(rest) = bytes.get(at..)
                && !rest.is_empty()
            {
                let header = match BatchHeader::parse(rest) {
                    Ok(header) => header,
                    Err(_)
                        if rest.len() < HEADER_BYTES && aligned + (bytes.len() as u64) < size =>
                    {
                        wants = HEADER_BYTES;
                        break;
                    }
                    Err(_) if rest.iter().all(|byte| *byte == 0) => {
                        return Ok((aligned + at as u64, reached, None));
                    }
                    Err(error) => {
                        return Ok((aligned + at as u64, reached, Some(error.to_string())));
                    }
                };
                let Some(batch) = rest.get(..header.size()) else {
                    wants = header.size();
                    break;
                };
                if !header.checksum_matches(batch) {
                    return Ok((
                        aligned + at as u64,
                        reached,
                        Some("a batch does not match its checksum".into()),
                    ));
                }
                if header.base_offset < reached {
                    return Ok((
                        aligned + at as u64,
                        reached,
                        Some(format!("offset {} follows {reached}", header.base_offset)),
                    ));
                }
                if header.base_offset >= limit {
                    return Ok((aligned + at as u64, reached, None));
                }
                if (0..epoch).contains(&header.leader_epoch) {
                    return Ok((
                        aligned + at as u64,
                        reached,
                        Some(format!(
                            "leader epoch {} follows {epoch}",
                            header.leader_epoch
                        )),
                    ));
                }
                epoch = epoch.max(header.leader_epoch);
                reached = header.next_offset();
                at += header.size();
            }
            position = aligned + at as u64;
            if reached >= limit {
                break;
            }
            let available = bytes.len() as u64 + aligned;
            if wants > 0 && position + wants as u64 > size {
                return Ok((position, reached, Some("the last batch is cut off".into())));
            }
            if available >= size && wants == 0 {
                break;
            }
            step = (1usize << 20).max(crate::memory::round_up(wants) + BLOCK_BYTES);
        }
        Ok((position, reached, None))
    }

    fn set_segment_end(&self, base: i64, position: u64) {
        if let Some(segment) = self.state.borrow_mut().segments.get_mut(&base) {
            segment.size = position;
            segment.written = position;
            segment.synced = position;
            segment.sealed = false;
        }
    }

    /// Forgets segments at or after `from`; their files go too unless the journal's items need them.
    async fn forget_segments_from(&self, from: i64, plan: &OpenPlan) -> Result<(), String> {
        let bases: Vec<i64> = self
            .state
            .borrow()
            .segments
            .range(from..)
            .map(|(base, _)| *base)
            .collect();
        for base in bases {
            let forgotten = self.state.borrow_mut().segments.remove(&base);
            if forgotten.is_some_and(|segment| segment.file.is_some()) {
                self.shard.files_closed(1);
            }
            if !plan.segments.contains(&base) {
                self.remove_segment_files(base)
                    .await
                    .map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }
}
