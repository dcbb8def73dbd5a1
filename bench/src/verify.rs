//! Checks what a consumer saw against what was written: every record once, in order, as it was.
//!
//! Records carry a sequence per writer and partition ([`Stamp`]). A number that is skipped is missing until it turns up late,
//! which is reordering; one that was already seen is a duplicate. What is acknowledged and never seen is lost.

use std::collections::{BTreeSet, HashMap};

use serde::Serialize;

use crate::client::batch::Stamp;
use crate::producer::CLIENT_SHIFT;

/// Missing numbers remembered per writer and partition; beyond it the oldest are taken as lost at once.
const MISSING_MAX: usize = 100_000;
/// Findings described in words.
const EXAMPLES_MAX: usize = 20;

/// What verification found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verdict {
    /// Records looked at.
    pub seen: u64,
    /// Acknowledged records that never arrived.
    pub lost: u64,
    /// Records that arrived again.
    pub duplicated: u64,
    /// Records that arrived after a later one of their writer and partition.
    pub reordered: u64,
    /// Records whose checksum does not fit.
    pub corrupted: u64,
    /// The first findings in words.
    pub examples: Vec<String>,
}

impl Verdict {
    /// Whether everything arrived once, in order and whole.
    pub fn clean(&self) -> bool {
        self.lost + self.duplicated + self.reordered + self.corrupted == 0
    }
}

#[derive(Default)]
struct Track {
    next: u64,
    missing: BTreeSet<u64>,
}

/// Follows every writer's sequence in every partition.
#[derive(Default)]
pub struct Verifier {
    tracks: HashMap<(u32, i32, u32), Track>,
    verdict: Verdict,
}

impl Verifier {
    /// Nothing seen yet.
    pub fn new() -> Verifier {
        Verifier::default()
    }

    fn example(&mut self, text: impl FnOnce() -> String) {
        if self.verdict.examples.len() < EXAMPLES_MAX {
            self.verdict.examples.push(text());
        }
    }

    /// Takes note of a record.
    pub fn see(&mut self, topic: u32, partition: i32, offset: i64, stamp: Stamp, value: &[u8]) {
        self.verdict.seen += 1;
        if !Stamp::intact(value) {
            self.verdict.corrupted += 1;
            self.example(|| {
                format!("corrupted: topic {topic} partition {partition} offset {offset}")
            });
            return;
        }
        let client = (stamp.sequence >> CLIENT_SHIFT) as u32;
        let sequence = stamp.sequence & ((1 << CLIENT_SHIFT) - 1);
        let track = self.tracks.entry((topic, partition, client)).or_default();
        if sequence >= track.next {
            let from = track.next.max(sequence.saturating_sub(MISSING_MAX as u64));
            track.missing.extend(from..sequence);
            while track.missing.len() > MISSING_MAX {
                track.missing.pop_first();
            }
            track.next = sequence + 1;
        } else if track.missing.remove(&sequence) {
            self.verdict.reordered += 1;
            self.example(|| {
                format!(
                    "reordered: record {sequence} of partition {partition} came at offset {offset}"
                )
            });
        } else {
            self.verdict.duplicated += 1;
            self.example(|| format!("duplicated: record {sequence} of partition {partition} again at offset {offset}"));
        }
    }

    /// How many distinct records of a writer and partition arrived.
    fn arrived(&self, key: (u32, i32, u32)) -> u64 {
        self.tracks
            .get(&key)
            .map_or(0, |track| track.next - track.missing.len() as u64)
    }

    /// The end: compares with what was acknowledged, per (topic, partition, client).
    pub fn finish(mut self, acknowledged: impl Iterator<Item = ((u32, i32, u32), u64)>) -> Verdict {
        for (key, acknowledged) in acknowledged {
            let arrived = self.arrived(key);
            if arrived < acknowledged {
                let lost = acknowledged - arrived;
                self.verdict.lost += lost;
                let first = self.tracks.get(&key).map_or(0, |track| {
                    track.missing.first().copied().unwrap_or(track.next)
                });
                self.example(|| {
                    format!(
                        "lost: {lost} records of partition {}, the first is record {first}",
                        key.1
                    )
                });
            }
        }
        self.verdict
    }
}

#[cfg(test)]
mod tests {
    //! Each kind of damage is told from the others, and a clean run is clean.
    use super::*;

    fn run(order: &[u64], acknowledged: u64) -> Verdict {
        let mut verifier = Verifier::new();
        for (offset, &sequence) in order.iter().enumerate() {
            let stamp = Stamp {
                sequence,
                intended_ns: 0,
                run: 1,
            };
            let mut value = vec![0u8; 40];
            stamp.write(&mut value, true);
            verifier.see(0, 0, offset as i64, stamp, &value);
        }
        verifier.finish([((0, 0, 0), acknowledged)].into_iter())
    }

    #[test]
    fn damage_is_told_apart() {
        assert!(run(&[0, 1, 2, 3], 4).clean());
        assert_eq!(run(&[0, 1, 3], 4).lost, 1);
        assert_eq!(run(&[0, 1], 4).lost, 2);
        assert_eq!(run(&[], 3).lost, 3);
        let reordered = run(&[0, 2, 1, 3], 4);
        assert_eq!(
            (reordered.reordered, reordered.lost, reordered.duplicated),
            (1, 0, 0)
        );
        let duplicated = run(&[0, 1, 1, 2], 3);
        assert_eq!((duplicated.duplicated, duplicated.lost), (1, 0));
        assert_eq!(
            run(&[0, 1, 2], 2).lost,
            0,
            "what was not acknowledged may still be there"
        );
    }

    #[test]
    fn corruption_is_found() {
        let stamp = Stamp {
            sequence: 0,
            intended_ns: 0,
            run: 1,
        };
        let mut value = vec![0u8; 40];
        stamp.write(&mut value, true);
        value[30] ^= 1;
        let mut verifier = Verifier::new();
        verifier.see(0, 0, 0, stamp, &value);
        assert_eq!(verifier.finish(std::iter::empty()).corrupted, 1);
    }
}
