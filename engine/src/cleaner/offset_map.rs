//! The last offset of every key in the dirty part of a log, in memory of a fixed size.
//!
//! An open-addressing table of 24-byte slots (a 128-bit hash, an offset), filled to nine tenths at most: 39,321 keys a MiB. Keys themselves are not kept; [`super::hash`] says why that
//! is safe. What does not fit is left for the next pass.

use super::hash::KeyHash;

/// Bytes of a slot.
pub(crate) const SLOT_BYTES: usize = 24;
const WORDS: usize = 3;
/// Share of the slots that may be in use.
const LOAD_PERCENT: usize = 90;

/// See the module.
pub(crate) struct OffsetMap {
    hash: KeyHash,
    /// Per slot: hash, hash, offset + 1; an unused slot is all zeros, so that untouched memory costs nothing.
    words: Vec<u64>,
    used: usize,
    /// Everything before and including this offset has been seen.
    latest_offset: i64,
}

impl OffsetMap {
    /// What a map for so many keys takes.
    pub fn bytes_for(keys: u64) -> u64 {
        let slots = keys.saturating_mul(100) / LOAD_PERCENT as u64 + 2;
        slots.saturating_mul(SLOT_BYTES as u64)
    }

    /// An empty map in at most `bytes_max` bytes, and no more than `keys_max` keys need. `key` is the secret that hashes are made under.
    pub fn new(bytes_max: u64, keys_max: u64, key: [u64; 2]) -> Self {
        let slots_max = (bytes_max / SLOT_BYTES as u64).max(2);
        let wished = Self::bytes_for(keys_max) / SLOT_BYTES as u64;
        let slots = wished.min(slots_max) as usize;
        Self {
            hash: KeyHash::new(key),
            words: vec![0; slots * WORDS],
            used: 0,
            latest_offset: -1,
        }
    }

    /// Keys that it takes.
    pub fn capacity(&self) -> usize {
        (self.words.len() / WORDS * LOAD_PERCENT / 100).max(1)
    }

    /// Notes that `key` is at `offset`, which is above all offsets noted before; false where there is no room for another key.
    #[must_use]
    pub fn put(&mut self, key: &[u8], offset: i64) -> bool {
        let hash = self.hash.of(key);
        let at = self.slot_of(hash);
        if self.words[at + 2] == 0 {
            if self.used >= self.capacity() {
                return false;
            }
            self.used += 1;
            self.words[at..at + 2].copy_from_slice(&hash);
        }
        self.words[at + 2] = offset as u64 + 1;
        true
    }

    /// The last offset of `key`, if it was seen.
    pub fn get(&self, key: &[u8]) -> Option<i64> {
        let at = self.slot_of(self.hash.of(key));
        (self.words[at + 2] as i64)
            .checked_sub(1)
            .filter(|offset| *offset >= 0)
    }

    /// Everything up to and including `offset` has been seen.
    pub fn reached(&mut self, offset: i64) {
        self.latest_offset = self.latest_offset.max(offset);
    }

    /// The offset up to which everything has been seen; −1 for nothing.
    pub fn latest_offset(&self) -> i64 {
        self.latest_offset
    }

    /// The first word of the slot that holds `hash`, or of the unused one where it would go. There always is an unused one.
    #[inline]
    fn slot_of(&self, hash: [u64; 2]) -> usize {
        let slots = self.words.len() / WORDS;
        let mut slot = ((u128::from(hash[0]) * slots as u128) >> 64) as usize;
        loop {
            let at = slot * WORDS;
            let [first, second, offset] = [self.words[at], self.words[at + 1], self.words[at + 2]];
            if offset == 0 || [first, second] == hash {
                return at;
            }
            slot += 1;
            if slot == slots {
                slot = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    //! It answers as an ordinary map does, takes what its size promises, and refuses new keys alone when it is full.
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn answers_as_a_map_does(keys in prop::collection::vec(0u16..300, 0..600), bytes in 48u64..9000) {
            let mut map = OffsetMap::new(bytes, u64::MAX, [7, 8]);
            let mut model: BTreeMap<u16, i64> = BTreeMap::new();
            for (offset, key) in keys.iter().enumerate() {
                let room = model.contains_key(key) || model.len() < map.capacity();
                prop_assert_eq!(map.put(&key.to_be_bytes(), offset as i64), room);
                if room {
                    model.insert(*key, offset as i64);
                }
            }
            prop_assert_eq!(map.used, model.len());
            for key in 0..300u16 {
                prop_assert_eq!(map.get(&key.to_be_bytes()), model.get(&key).copied());
            }
        }
    }

    #[test]
    fn a_mebibyte_holds_what_is_documented() {
        assert_eq!(OffsetMap::new(1 << 20, u64::MAX, [0, 0]).capacity(), 39_321);
    }

    #[test]
    fn few_keys_take_little_memory() {
        let mut map = OffsetMap::new(128 << 20, 1000, [0, 0]);
        assert!(map.words.len() * 8 < 32 << 10);
        for key in 0..1000u32 {
            assert!(map.put(&key.to_be_bytes(), 0));
        }
    }

    #[test]
    fn offset_zero_is_an_offset() {
        let mut map = OffsetMap::new(1024, 10, [0, 0]);
        assert_eq!((map.get(b"a"), map.latest_offset()), (None, -1));
        assert!(map.put(b"a", 0));
        map.reached(0);
        assert_eq!((map.get(b"a"), map.latest_offset()), (Some(0), 0));
    }
}
