//! A set of block numbers kept as merged ranges: which blocks of a simulated file have space behind them.

use std::collections::BTreeMap;

/// Disjoint, non-adjacent ranges, by start.
#[derive(Clone, Default)]
pub(super) struct Ranges {
    by_start: BTreeMap<u64, u64>,
}

impl Ranges {
    /// How many numbers of `start..end` are not in the set.
    pub(super) fn missing(&self, start: u64, end: u64) -> u64 {
        (end - start) - self.overlap(start, end)
    }

    /// How many numbers of `start..end` are in the set.
    pub(super) fn overlap(&self, start: u64, end: u64) -> u64 {
        let before = self
            .by_start
            .range(..start)
            .next_back()
            .map_or(0, |(_, other)| (*other).min(end).saturating_sub(start));
        let within: u64 = self
            .by_start
            .range(start..end)
            .map(|(other_start, other)| (*other).min(end) - other_start)
            .sum();
        before + within
    }

    /// How many numbers are in the set.
    pub(super) fn total(&self) -> u64 {
        self.by_start.iter().map(|(start, end)| end - start).sum()
    }

    /// Adds `start..end`.
    pub(super) fn insert(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let (mut new_start, mut new_end) = (start, end);
        let touching: Vec<u64> = self
            .by_start
            .range(..=end)
            .rev()
            .take_while(|(_, other_end)| **other_end >= start)
            .map(|(other_start, _)| *other_start)
            .collect();
        for other_start in touching {
            if let Some(other_end) = self.by_start.remove(&other_start) {
                new_start = new_start.min(other_start);
                new_end = new_end.max(other_end);
            }
        }
        self.by_start.insert(new_start, new_end);
    }

    /// Removes `start..end`.
    pub(super) fn remove(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let touched: Vec<(u64, u64)> = self
            .by_start
            .range(..end)
            .rev()
            .take_while(|(_, other_end)| **other_end > start)
            .map(|(other_start, other_end)| (*other_start, *other_end))
            .collect();
        for (other_start, other_end) in touched {
            self.by_start.remove(&other_start);
            if other_start < start {
                self.by_start.insert(other_start, start);
            }
            if other_end > end {
                self.by_start.insert(end, other_end);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    //! The set agrees with a plain set of numbers under random insertions and removals.

    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_plain_set(steps in prop::collection::vec((any::<bool>(), 0u64..40, 0u64..12), 0..60)) {
            let mut ranges = Ranges::default();
            let mut model = BTreeSet::new();
            for (insert, start, len) in steps {
                if insert {
                    ranges.insert(start, start + len);
                    model.extend(start..start + len);
                } else {
                    ranges.remove(start, start + len);
                    model.retain(|number| !(start..start + len).contains(number));
                }
                prop_assert_eq!(ranges.total(), model.len() as u64);
                let inside = model.range(5..25).count() as u64;
                prop_assert_eq!(ranges.overlap(5, 25), inside);
                prop_assert_eq!(ranges.missing(5, 25), 20 - inside);
            }
        }
    }
}
