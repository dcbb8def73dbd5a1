//! What a start notes of each item of the chain: where it lies, and what its batch's header says.

use super::entry::{Item, ReadItem};
use crate::batch::{Attributes, BatchError, BatchHeader, HEADER_BYTES, LENGTH_OVERHEAD_BYTES};

/// An item of the chain, and where its entry lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FoundItem {
    /// The item and where its body lies within the entry.
    pub read: ReadItem,
    /// Where the entry starts in the file.
    pub position: u64,
    /// Index into [`Scan::files`](super::scan::Scan::files).
    file: u32,
    /// The entry's length.
    pub length: u32,
    /// What the header of an append's batch says and the item does not.
    head: Head,
    has_head: bool,
}

// A journal of small batches holds millions of them. An append takes at least `ITEM_BYTES` and a batch's header of the journal, so that all notes on it
// (this, its index among its log's, whether it is needed) come to not much more than what the journal itself has: twice that while their lists grow. With
// `journal.bytes.max` at its default of 512 MiB, which all shards share, a start after a crash thus takes at most 1.2 GiB for a moment, where every batch is of one
// empty record, and a tenth of that where batches have 1 KiB.
const NOTED_BYTES: usize = size_of::<FoundItem>() + size_of::<usize>() + 1;
const _: () = assert!(size_of::<FoundItem>() <= 136);
const _: () = assert!(NOTED_BYTES * 5 <= 6 * (super::entry::ITEM_BYTES + HEADER_BYTES));

/// The fields of a batch's header that its item does not have.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    base_timestamp: i64,
    max_timestamp: i64,
    producer_id: i64,
    checksum: u32,
    base_sequence: i32,
    record_count: i32,
    attributes: Attributes,
    producer_epoch: i16,
}

impl FoundItem {
    /// An item of the entry `entry`, which starts at `position` of a file.
    pub fn new(read: ReadItem, file: usize, position: u64, length: u32, entry: &[u8]) -> Self {
        let mut found = Self {
            read,
            position,
            file: file as u32,
            length,
            head: Head::default(),
            has_head: false,
        };
        if let Item::Append { .. } = read.item
            && let Ok(header) = header_in(&read, entry)
        {
            found.head = Head {
                base_timestamp: header.base_timestamp,
                max_timestamp: header.max_timestamp,
                producer_id: header.producer_id,
                checksum: header.checksum,
                base_sequence: header.base_sequence,
                record_count: header.record_count,
                attributes: header.attributes,
                producer_epoch: header.producer_epoch,
            };
            found.has_head = true;
            found.has_head = found.header() == Some(header);
        }
        found
    }

    /// Index into [`Scan::files`](super::scan::Scan::files).
    pub fn file(&self) -> usize {
        self.file as usize
    }

    /// The files were put in another order.
    pub fn set_file(&mut self, file: usize) {
        self.file = file as u32;
    }

    /// The header of an append's batch; `None` when the batch is not the one that the item names.
    pub fn header(&self) -> Option<BatchHeader> {
        let Item::Append {
            leader_epoch,
            base_offset,
            last_offset,
            length,
            ..
        } = self.read.item
        else {
            return None;
        };
        let head = &self.head;
        let header = BatchHeader {
            base_offset,
            length: length
                .checked_sub(LENGTH_OVERHEAD_BYTES as u32)?
                .try_into()
                .ok()?,
            leader_epoch,
            checksum: head.checksum,
            attributes: head.attributes,
            last_offset_delta: i32::try_from(last_offset.checked_sub(base_offset)?).ok()?,
            base_timestamp: head.base_timestamp,
            max_timestamp: head.max_timestamp,
            producer_id: head.producer_id,
            producer_epoch: head.producer_epoch,
            base_sequence: head.base_sequence,
            record_count: head.record_count,
        };
        self.has_head.then_some(header)
    }
}

/// The header of the batch that is an item's body.
pub(crate) fn header_in(read: &ReadItem, entry: &[u8]) -> Result<BatchHeader, BatchError> {
    let mut head = [0; HEADER_BYTES];
    let mut filled = 0;
    for range in read.body() {
        let part = entry.get(range).unwrap_or_default();
        let count = part.len().min(head.len() - filled);
        head[filled..filled + count].copy_from_slice(&part[..count]);
        filled += count;
    }
    BatchHeader::parse(&head[..filled])
}
