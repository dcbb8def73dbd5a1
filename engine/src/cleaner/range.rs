//! Which part of a log is dirty, how dirty that makes the log, and which segments become one.
//!
//! Pure: goes by what is said of the segments. Only whole segments are cleaned; the first offset that may not be is the log's to say.

use std::ops::Range;

/// What is known of a segment that is not the active one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentFacts {
    /// Its first offset.
    pub base: i64,
    /// The offset at which the next segment begins.
    pub end: i64,
    /// Bytes of batches.
    pub size: u64,
    /// Largest timestamp, ms; −1: none.
    pub max_timestamp: i64,
    /// Largest timestamp of its first batch, ms, where it is known.
    pub first_timestamp: Option<i64>,
}

/// What a log's settings say about when it is cleaned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lags {
    /// `min.compaction.lag.ms`.
    pub min_ms: i64,
    /// `max.compaction.lag.ms`.
    pub max_ms: i64,
}

/// The dirty part of a log, and how it compares with the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DirtyRange {
    /// Everything before was cleaned.
    pub first_dirty: i64,
    /// Nothing from here on may be.
    pub first_uncleanable: i64,
    /// Bytes of the segments before the dirty part.
    pub clean_bytes: u64,
    /// Bytes of the dirty part that may be cleaned.
    pub cleanable_bytes: u64,
    /// A record has waited longer than `max.compaction.lag.ms`.
    pub overdue: bool,
    /// Truncations of the log before it was looked at.
    pub truncations: u64,
}

impl DirtyRange {
    /// The dirty part of `segments`, which are in order and not active. `cleaned_to` is where the last pass ended, `barrier` the first offset that may not be cleaned.
    pub fn of(
        segments: &[SegmentFacts],
        cleaned_to: Option<i64>,
        (log_start, log_end): (i64, i64),
        barrier: i64,
        lags: Lags,
        now_ms: i64,
    ) -> Self {
        // A mark outside the log is of another time: all of the log is dirty then.
        let first_dirty = cleaned_to
            .filter(|offset| (log_start..=log_end).contains(offset))
            .unwrap_or(log_start);
        let too_new = now_ms.saturating_sub(lags.min_ms.max(0));
        let may_be = |segment: &&SegmentFacts| {
            segment.end <= barrier
                && (lags.min_ms <= 0
                    || segment.end <= first_dirty
                    || segment.max_timestamp <= too_new)
        };
        let mut range = Self {
            first_dirty,
            first_uncleanable: first_dirty,
            ..Self::default()
        };
        let overdue_before = now_ms.saturating_sub(lags.max_ms.max(0));
        for segment in segments.iter().take_while(may_be) {
            range.first_uncleanable = range.first_uncleanable.max(segment.end);
            if segment.end <= first_dirty {
                range.clean_bytes += segment.size;
            } else {
                range.cleanable_bytes += segment.size;
                let first = segment.first_timestamp.filter(|first| *first > 0);
                range.overdue |= first.is_some_and(|first| first < overdue_before);
            }
        }
        range
    }

    /// Share of the log that is dirty, 0 to 100.
    pub fn dirty_percent(&self) -> u64 {
        let all = self.clean_bytes + self.cleanable_bytes;
        (self.cleanable_bytes * 100).checked_div(all).unwrap_or(0)
    }

    /// The same in millionths.
    pub fn dirty_millionths(&self) -> u64 {
        let all = u128::from(self.clean_bytes + self.cleanable_bytes);
        let share = (u128::from(self.cleanable_bytes) * 1_000_000).checked_div(all);
        share.unwrap_or(0) as u64
    }

    /// Whether a pass is due: more than `min.cleanable.dirty.ratio`, in millionths, is dirty, or a record has waited too long.
    pub fn is_due(&self, min_millionths: u32) -> bool {
        self.cleanable_bytes > 0
            && (self.overdue || self.dirty_millionths() > u64::from(min_millionths))
    }
}

/// How large a segment may become by joining several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupLimits {
    /// Bytes of batches.
    pub segment_bytes: u64,
    /// Bytes of batches whose indexes are sure to fit.
    pub indexed_bytes: u64,
}

/// Joins neighbours into groups that make one segment each.
pub(crate) fn groups(segments: &[SegmentFacts], limits: GroupLimits) -> Vec<Range<usize>> {
    let bytes_max = limits.segment_bytes.min(limits.indexed_bytes);
    let mut groups: Vec<Range<usize>> = Vec::new();
    let (mut bytes, mut base) = (0, 0);
    for (number, segment) in segments.iter().enumerate() {
        let fits = bytes + segment.size <= bytes_max && segment.end - base <= i64::from(i32::MAX);
        match groups.last_mut() {
            Some(group) if fits => {
                group.end = number + 1;
                bytes += segment.size;
            }
            _ => {
                groups.push(number..number + 1);
                (bytes, base) = (segment.size, segment.base);
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    //! The dirty part begins where the last pass ended and ends at the first segment that may not be cleaned; groups keep to their limits and leave nothing out.
    use super::*;
    use proptest::prelude::*;

    const LAGS: Lags = Lags {
        min_ms: 0,
        max_ms: i64::MAX,
    };

    fn segment(base: i64, end: i64, size: u64, time: i64) -> SegmentFacts {
        SegmentFacts {
            base,
            end,
            size,
            max_timestamp: time,
            first_timestamp: Some(time),
        }
    }

    fn three() -> Vec<SegmentFacts> {
        vec![
            segment(0, 10, 100, 1000),
            segment(10, 20, 50, 2000),
            segment(20, 30, 50, 3000),
        ]
    }

    #[test]
    fn what_was_cleaned_counts_as_clean() {
        let range = |cleaned_to| DirtyRange::of(&three(), cleaned_to, (0, 35), 30, LAGS, 9000);
        assert_eq!(
            (range(None).first_dirty, range(None).cleanable_bytes),
            (0, 200)
        );
        let half = range(Some(10));
        assert_eq!((half.first_dirty, half.first_uncleanable), (10, 30));
        assert_eq!((half.clean_bytes, half.cleanable_bytes), (100, 100));
        assert_eq!(
            (half.dirty_percent(), half.dirty_millionths()),
            (50, 500_000)
        );
        assert!(!half.is_due(500_000) && half.is_due(499_999));
        assert!(!range(Some(30)).is_due(0));
        // In the middle of a segment, beyond the end, before the start.
        assert_eq!(range(Some(15)).cleanable_bytes, 100);
        assert_eq!(range(Some(36)).first_dirty, 0);
        let moved = DirtyRange::of(&three()[1..], Some(3), (12, 35), 30, LAGS, 9000);
        assert_eq!(moved.first_dirty, 12);
    }

    #[test]
    fn the_barrier_and_the_least_lag_end_the_dirty_part() {
        let range = |barrier, min_ms| {
            let lags = Lags { min_ms, ..LAGS };
            DirtyRange::of(&three(), Some(0), (0, 35), barrier, lags, 3500)
        };
        assert_eq!(range(29, 0).first_uncleanable, 20);
        assert_eq!(range(0, 0).cleanable_bytes, 0);
        assert_eq!(range(30, 500).first_uncleanable, 30);
        assert_eq!(range(30, 501).first_uncleanable, 20);
        assert_eq!(range(30, 1501).first_uncleanable, 10);
        assert_eq!(range(30, 10_000).first_uncleanable, 0);
    }

    #[test]
    fn a_record_that_waited_too_long_makes_a_pass_due() {
        let range = |max_ms, cleaned_to| {
            let lags = Lags { max_ms, ..LAGS };
            DirtyRange::of(&three(), Some(cleaned_to), (0, 35), 30, lags, 3500)
        };
        assert!(range(2499, 0).overdue && !range(2500, 0).overdue);
        assert!(!range(2499, 10).overdue && range(1499, 10).overdue);
        assert!(range(2499, 0).is_due(1_000_000) && !range(i64::MAX, 0).is_due(1_000_000));
    }

    proptest! {
        #[test]
        fn groups_cover_everything_within_their_limits(
            sizes in prop::collection::vec((0u64..100, 1i64..1_500_000_000), 0..30),
            segment_bytes in 1u64..300,
            indexed_bytes in 1u64..300,
        ) {
            let mut segments = Vec::new();
            let mut base = 0;
            for (size, count) in sizes {
                segments.push(segment(base, base + count, size, 0));
                base += count;
            }
            let limits = GroupLimits { segment_bytes, indexed_bytes };
            let groups = groups(&segments, limits);
            let mut next = 0;
            for group in groups {
                prop_assert_eq!(group.start, next);
                prop_assert!(group.end > group.start);
                next = group.end;
                if group.len() > 1 {
                    let members = &segments[group];
                    let bytes: u64 = members.iter().map(|segment| segment.size).sum();
                    prop_assert!(bytes <= segment_bytes.min(indexed_bytes));
                    prop_assert!(members[members.len() - 1].end - members[0].base <= i64::from(i32::MAX));
                }
            }
            prop_assert_eq!(next, segments.len());
        }
    }
}
