//! The last offset of every key in the dirty part of a log, in memory of a fixed size.
//!
//! An open-addressing table of 24-byte slots (a 128-bit hash, an offset), filled to nine tenths at most: 39,321 keys a MiB. Keys themselves are not kept; [`super::hash`] says why that
//! is safe. What does not fit is left for the next pass.
//!
//! It begins small and grows with the keys that it is given, so that few keys with many offsets stay in the processor's caches; in place, so that it never takes more than it may, and in
//! steps, so that others have their turn. A slot's place follows the order of the hashes, whatever the number of slots: growing walks memory from end to end.

use super::hash::KeyHash;
use crate::memory::{AlignedBuffer, HUGE_PAGE_BYTES};

/// Bytes of a slot.
pub(crate) const SLOT_BYTES: usize = 24;
const WORDS: usize = 3;
/// Share of the slots that may be in use when there can be no more of them.
const LOAD_PERCENT: usize = 90;
/// It grows rather than have a larger share in use.
const CROWDED_PERCENT: usize = 60;
/// Slots at the beginning.
const SLOTS_FIRST: usize = 4096;
/// Slots that a step of growing clears or moves.
const SLOTS_A_STEP: usize = 2048;
/// The bit of a slot's third word that tells whether it is where it belongs since the map has grown.
const GENERATION: u64 = 1 << 63;

/// Hash, hash, and offset + 1 with the generation; an unused slot is all zeros.
type Slot = [u64; WORDS];

/// See the module.
pub(crate) struct OffsetMap {
    hash: KeyHash,
    /// The slots, of which there is memory for the most there may be.
    memory: AlignedBuffer,
    slots: usize,
    slots_max: usize,
    /// As many as there will be once it has grown.
    slots_wanted: usize,
    /// So many of the first slots may hold keys that are to be moved.
    unmoved: usize,
    /// [`GENERATION`] or 0: what slots have that are where they belong.
    generation: u64,
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

    /// An empty map that takes at most `bytes_max` bytes. `key` is the secret that hashes are made under.
    pub fn new(bytes_max: u64, key: [u64; 2]) -> Self {
        let slots_max = (bytes_max / SLOT_BYTES as u64).max(2) as usize;
        let mut capacity = slots_max * SLOT_BYTES;
        if capacity >= HUGE_PAGE_BYTES {
            capacity = capacity.next_multiple_of(HUGE_PAGE_BYTES);
        }
        let slots = slots_max.min(SLOTS_FIRST);
        let mut memory = AlignedBuffer::with_capacity(capacity);
        memory.extend_zeros(slots * SLOT_BYTES);
        Self {
            hash: KeyHash::new(key),
            memory,
            slots,
            slots_max,
            slots_wanted: slots,
            unmoved: 0,
            generation: 0,
            used: 0,
            latest_offset: -1,
        }
    }

    /// Keys that it takes.
    pub fn capacity(&self) -> usize {
        (self.slots_max * LOAD_PERCENT / 100).max(1)
    }

    /// Goes a step towards room for so many more keys, or for as many as there can be room for; whether it is to be asked again. Without that, [`OffsetMap::put`] makes room itself, all at once.
    pub fn make_room(&mut self, keys: usize) -> bool {
        if self.grow_a_step() {
            return true;
        }
        let crowded = (self.used + keys) * 100 > self.slots * CROWDED_PERCENT;
        if !crowded || self.slots == self.slots_max {
            return false;
        }
        self.slots_wanted = (self.slots * 2).min(self.slots_max);
        true
    }

    /// Notes that `key` is at `offset`, which is above all offsets noted before; false where there is no room for another key.
    #[must_use]
    pub fn put(&mut self, key: &[u8], offset: i64) -> bool {
        while self.grow_a_step() {}
        let hash = self.hash.of(key);
        let mut at = self.slot_of(hash);
        if self.slot(at)[2] == 0 {
            if self.used >= self.capacity() {
                return false;
            }
            if (self.used + 1) * 100 > self.slots * LOAD_PERCENT {
                while self.make_room(1) {}
                at = self.slot_of(hash);
            }
            self.used += 1;
        }
        let [first, second] = hash;
        self.set(at, [first, second, (offset as u64 + 1) | self.generation]);
        true
    }

    /// The last offset of `key`, if it was seen.
    pub fn get(&self, key: &[u8]) -> Option<i64> {
        let [.., word] = self.slot(self.slot_of(self.hash.of(key)));
        ((word & !GENERATION) as i64)
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

    /// The number of the slot that holds `hash`, or of the unused one where it would go. There always is an unused one.
    #[inline]
    fn slot_of(&self, hash: [u64; 2]) -> usize {
        // While it grows, what is there could be missed, and a record that was replaced kept.
        assert!(self.slots == self.slots_wanted && self.unmoved == 0);
        let mut number = self.home_of(hash[0]);
        loop {
            let [first, second, offset] = self.slot(number);
            if [first, second] == hash || offset == 0 {
                return number;
            }
            number = self.after(number);
        }
    }

    #[inline]
    fn home_of(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.slots as u128) >> 64) as usize
    }

    #[inline]
    fn after(&self, number: usize) -> usize {
        let next = number + 1;
        if next == self.slots { 0 } else { next }
    }

    #[inline]
    fn slot(&self, number: usize) -> Slot {
        let (words, _) = self.memory.as_slice().as_chunks::<8>();
        let at = number * WORDS;
        words[at..at + WORDS]
            .as_array()
            .map_or([0; WORDS], |slot: &[[u8; 8]; WORDS]| {
                slot.map(u64::from_ne_bytes)
            })
    }

    #[inline]
    fn set(&mut self, number: usize, slot: Slot) {
        let (words, _) = self.memory.as_mut_slice().as_chunks_mut::<8>();
        let at = number * WORDS;
        words[at..at + WORDS].copy_from_slice(&slot.map(u64::to_ne_bytes));
    }

    /// Does a part of the growing that is under way; whether there was any.
    #[inline]
    fn grow_a_step(&mut self) -> bool {
        if self.slots == self.slots_wanted && self.unmoved == 0 {
            return false;
        }
        self.grow_on();
        true
    }

    #[cold]
    fn grow_on(&mut self) {
        if self.slots < self.slots_wanted {
            let missing = self.slots_wanted * SLOT_BYTES - self.memory.len();
            let cleared = missing.min(SLOTS_A_STEP * SLOT_BYTES);
            self.memory.extend_zeros(cleared);
            if cleared == missing {
                self.unmoved = self.slots;
                self.slots = self.slots_wanted;
                self.generation ^= GENERATION;
            }
            return;
        }
        // From the last one on: what is moved goes further back, nearly always to where nothing is any more.
        for _ in 0..SLOTS_A_STEP.min(self.unmoved) {
            self.unmoved -= 1;
            let slot = self.slot(self.unmoved);
            if self.is_unmoved(slot) {
                self.set(self.unmoved, [0; WORDS]);
                self.place(slot);
            }
        }
    }

    #[inline]
    fn is_unmoved(&self, [.., word]: Slot) -> bool {
        word != 0 && word & GENERATION != self.generation
    }

    /// Puts what a slot held where it belongs, and what is in its way and yet to be moved after it. What is in place stays there, so no lookup ends too early.
    fn place(&mut self, mut slot: Slot) {
        while slot[2] != 0 {
            let mut number = self.home_of(slot[0]);
            while self.slot(number)[2] != 0 && !self.is_unmoved(self.slot(number)) {
                number = self.after(number);
            }
            let there = self.slot(number);
            slot[2] ^= GENERATION;
            self.set(number, slot);
            slot = there;
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
            let mut map = OffsetMap::new(bytes, [7, 8]);
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
        assert_eq!(OffsetMap::new(1 << 20, [0, 0]).capacity(), 39_321);
    }

    #[test]
    fn few_keys_take_little_memory_and_many_no_more_than_there_may_be() {
        let mut map = OffsetMap::new(1 << 20, [0, 0]);
        for (offset, key) in (0..2000u32).cycle().take(100_000).enumerate() {
            assert!(map.put(&key.to_be_bytes(), offset as i64));
        }
        assert_eq!(map.memory.len(), SLOTS_FIRST * SLOT_BYTES);
        for key in 0..map.capacity() as u32 {
            assert!(map.put(&key.to_be_bytes(), 200_000));
        }
        assert!(!map.put(b"one more", 200_001));
        assert!(map.memory.len() <= 1 << 20 && map.memory.capacity() <= 1 << 20);
    }

    /// Each time it grows, and in the midst of growing, everything is found.
    #[test]
    fn what_was_noted_is_found_after_it_has_grown() {
        for slots_max in [SLOTS_FIRST + 1, 2 * SLOTS_FIRST, 50_000] {
            let mut map = OffsetMap::new((slots_max * SLOT_BYTES) as u64, [9, slots_max as u64]);
            let mut slots = map.slots;
            for number in 0..map.capacity() as i64 {
                let mut steps = 0;
                while steps < number % 3 && map.make_room(1000) {
                    steps += 1;
                }
                assert!(map.put(&number.to_be_bytes(), number));
                if map.slots != slots || number + 1 == map.capacity() as i64 {
                    slots = map.slots;
                    for earlier in 0..=number {
                        assert_eq!(map.get(&earlier.to_be_bytes()), Some(earlier));
                    }
                    assert_eq!(map.get(&(number + 1).to_be_bytes()), None);
                }
            }
            assert_eq!((map.slots, map.used), (slots_max, map.capacity()));
        }
    }

    #[test]
    fn offset_zero_is_an_offset() {
        let mut map = OffsetMap::new(1024, [0, 0]);
        assert_eq!((map.get(b"a"), map.latest_offset()), (None, -1));
        assert!(map.put(b"a", 0));
        map.reached(0);
        assert_eq!((map.get(b"a"), map.latest_offset()), (Some(0), 0));
    }
}
