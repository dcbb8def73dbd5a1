//! The bytes of a simulated file: sparse pages, shared between images until written.
//!
//! Pages of zeros are not stored, so a journal file of many megabytes costs nothing until entries go into it, and copying a whole
//! disk costs one reference count per page.

use std::collections::BTreeMap;
use std::rc::Rc;

/// Bytes per page; a page holds eight sectors.
pub(super) const PAGE_BYTES: u64 = 4096;

static ZEROS: [u8; PAGE_BYTES as usize] = [0; PAGE_BYTES as usize];

/// Sparse contents; what was never written reads as zeros.
#[derive(Clone, Default)]
pub(super) struct Content {
    pages: BTreeMap<u64, Rc<[u8; PAGE_BYTES as usize]>>,
}

impl Content {
    /// Overwrites from `position` on.
    pub(super) fn write(&mut self, mut position: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let index = position / PAGE_BYTES;
            let offset = (position % PAGE_BYTES) as usize;
            let count = bytes.len().min(PAGE_BYTES as usize - offset);
            let (now, later) = bytes.split_at(count);
            if count == PAGE_BYTES as usize && *now == ZEROS {
                self.pages.remove(&index);
            } else {
                let page = self
                    .pages
                    .entry(index)
                    .or_insert_with(|| Rc::new([0; PAGE_BYTES as usize]));
                Rc::make_mut(page)[offset..offset + count].copy_from_slice(now);
            }
            bytes = later;
            position += count as u64;
        }
    }

    /// Fills `into` with what is at `position`.
    pub(super) fn read(&self, mut position: u64, mut into: &mut [u8]) {
        while !into.is_empty() {
            let offset = (position % PAGE_BYTES) as usize;
            let count = into.len().min(PAGE_BYTES as usize - offset);
            let (now, later) = into.split_at_mut(count);
            match self.pages.get(&(position / PAGE_BYTES)) {
                Some(page) => now.copy_from_slice(&page[offset..offset + count]),
                None => now.fill(0),
            }
            into = later;
            position += count as u64;
        }
    }

    /// Makes a range zeros.
    pub(super) fn clear(&mut self, start: u64, end: u64) {
        let first_whole = start.div_ceil(PAGE_BYTES);
        let last_whole = end / PAGE_BYTES;
        if first_whole < last_whole {
            let doomed: Vec<u64> = self
                .pages
                .range(first_whole..last_whole)
                .map(|(index, _)| *index)
                .collect();
            for index in doomed {
                self.pages.remove(&index);
            }
        }
        self.clear_within_page(start, end.min(first_whole * PAGE_BYTES));
        if last_whole >= first_whole {
            self.clear_within_page(start.max(last_whole * PAGE_BYTES), end);
        }
    }

    fn clear_within_page(&mut self, start: u64, end: u64) {
        if start < end
            && let Some(page) = self.pages.get_mut(&(start / PAGE_BYTES))
        {
            let offset = (start % PAGE_BYTES) as usize;
            Rc::make_mut(page)[offset..offset + (end - start) as usize].fill(0);
        }
    }

    /// Calls `visit` with the number of every stored page.
    pub(super) fn for_each_page(&self, mut visit: impl FnMut(u64)) {
        for page in self.pages.keys() {
            visit(*page);
        }
    }

    /// Flips one bit.
    pub(super) fn flip(&mut self, position: u64, bit: u8) {
        let page = self
            .pages
            .entry(position / PAGE_BYTES)
            .or_insert_with(|| Rc::new([0; PAGE_BYTES as usize]));
        Rc::make_mut(page)[(position % PAGE_BYTES) as usize] ^= 1 << (bit % 8);
    }
}
