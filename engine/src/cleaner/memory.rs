//! The memory that passes note keys in (`log.cleaner.dedupe.buffer.size`), bounded for all shards together.
//!
//! Half of it is the shards' own, in equal shares, so that a pass always finds some; the other half is lent to whoever needs more than its share, first come, first served, until the pass ends.
//! One pass alone has more than half of everything, however many shards there are, and two of one shard are never under way. What is not there is not waited for: the pass covers less.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// See the module. Clones share what can be lent.
#[derive(Clone, Debug)]
pub struct CleanerMemory {
    own_bytes: u64,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bytes: u64,
    free: AtomicU64,
}

impl CleanerMemory {
    /// `bytes` for so many shards, each of which is to have a clone.
    pub fn new(bytes: u64, shards: usize) -> Self {
        let own_bytes = bytes / 2 / shards.max(1) as u64;
        let lent = bytes - bytes / 2;
        Self {
            own_bytes,
            shared: Arc::new(Shared {
                bytes: lent,
                free: AtomicU64::new(lent),
            }),
        }
    }

    /// The most that a pass can have.
    pub(crate) fn most_bytes(&self) -> u64 {
        self.own_bytes + self.shared.bytes
    }

    /// Up to `wished` bytes for a pass, at least the shard's own share of them. A shard takes them once at a time.
    pub(crate) fn take(&self, wished: u64) -> PassMemory {
        let beyond = wished.saturating_sub(self.own_bytes);
        let lend = |free: u64| Some(free - free.min(beyond));
        // Only the number counts: nothing else is read or written on the strength of it.
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        let before = self.shared.free.fetch_update(set, fetch, lend);
        let lent = before.map_or(0, |free| free.min(beyond));
        PassMemory {
            bytes: wished.min(self.own_bytes) + lent,
            lent,
            shared: self.shared.clone(),
        }
    }
}

impl PartialEq for CleanerMemory {
    /// As settings: how much there is, not how much of it is lent.
    fn eq(&self, other: &Self) -> bool {
        (self.own_bytes, self.shared.bytes) == (other.own_bytes, other.shared.bytes)
    }
}

impl Eq for CleanerMemory {}

/// What one pass may use until it drops this.
pub(crate) struct PassMemory {
    /// Bytes, all told.
    pub bytes: u64,
    lent: u64,
    shared: Arc<Shared>,
}

impl Drop for PassMemory {
    fn drop(&mut self) {
        self.shared.free.fetch_add(self.lent, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    //! All passes together never have more than there is, each has its share, and what is given back is lent again.
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_pass_has_more_than_half_and_others_their_share() {
        let memory = CleanerMemory::new(128 << 20, 64);
        let first = memory.take(u64::MAX);
        assert_eq!(first.bytes, (64 << 20) + (1 << 20));
        assert_eq!(first.bytes, memory.most_bytes());
        let second = memory.clone().take(5 << 20);
        assert_eq!(second.bytes, 1 << 20);
        drop(first);
        assert_eq!(memory.take(5 << 20).bytes, 5 << 20);
        assert_eq!(CleanerMemory::new(100, 1).take(1000).bytes, 100);
    }

    proptest! {
        #[test]
        fn the_whole_is_never_exceeded(
            bytes in 0u64..1000,
            shards in 1usize..9,
            wishes in prop::collection::vec((0usize..9, 0u64..700), 0..60),
        ) {
            let memory = CleanerMemory::new(bytes, shards);
            let mut taken: Vec<Option<PassMemory>> = (0..shards).map(|_| None).collect();
            for (shard, wished) in wishes {
                let shard = shard % shards;
                taken[shard] = None;
                let pass = memory.take(wished);
                prop_assert!(pass.bytes <= wished && pass.bytes >= wished.min(memory.own_bytes));
                taken[shard] = Some(pass);
                let all: u64 = taken.iter().flatten().map(|pass| pass.bytes).sum();
                prop_assert!(all <= bytes, "{} of {}", all, bytes);
            }
            taken.clear();
            prop_assert_eq!(memory.take(u64::MAX).bytes, memory.most_bytes());
        }
    }
}
