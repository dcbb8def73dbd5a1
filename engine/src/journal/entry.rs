//! The journal entry: how what all partitions appended while a write was in flight becomes one write, and how it is read back.
//!
//! Pure: no I/O, no clock. An entry is a whole number of blocks:
//!
//! ```text
//! staged area, padded to a block:  header | item, its small body or the ragged ends of its large one | item … | zeros
//! block area:                      the whole blocks of the large bodies, in the order of their items
//! ```
//!
//! A body of at least [`LARGE_BODY_BYTES`] is cut where its bytes cross block boundaries *of the segment*: its whole blocks are written straight from the chunk they lie in,
//! without a copy. A reader derives the cut from the item's position and length. All numbers are little-endian.
//!
//! The header ties the entry to its journal (a random number made with the directory), its shard, its life (a random number made at each start), its place
//! (sequence), and the entry before it (that one's checksum): nothing that an earlier use left in a recycled file, and nothing a client
//! wrote into its records, can be taken for a part of the chain.

use std::ops::Range;

use crate::log::TopicId;
use crate::memory::{AlignedBuffer, AlignedSlice, BLOCK_BYTES, MemoryPool, round_up};

/// Bytes of an entry's header.
pub const HEADER_BYTES: usize = 80;
/// Bytes of an item before its body.
pub const ITEM_BYTES: usize = 64;
/// A body this large is written from its chunk instead of being copied into the staged area.
pub const LARGE_BODY_BYTES: usize = 16 << 10;
/// Pieces an entry consists of at most; a disk writes up to 1024 pieces in one go.
const PIECES_MAX: usize = 1000;

const MAGIC: [u8; 8] = *b"ringlogJ";
const FORMAT: u16 = 1;
const CHECKSUM_AT: usize = 72;
const HEADER_CHECK_AT: usize = 76;

/// What says that an entry belongs to this journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Random number of the journal directory.
    pub journal: u64,
    /// The shard it serves.
    pub shard: u32,
}

/// What the header of an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHeader {
    /// Which journal.
    pub identity: Identity,
    /// Random number of the start that wrote it.
    pub life: u64,
    /// Its number; grows by one within a life.
    pub sequence: u64,
    /// Entries before this one are no longer needed.
    pub oldest_live: u64,
    /// Every entry up to this one was on the medium when this one was written.
    pub completed: u64,
    /// Bytes in all, a whole number of blocks.
    pub length: u32,
    /// Bytes of the staged area, a whole number of blocks.
    pub staged: u32,
    /// Number of items.
    pub items: u32,
    /// The checksum of the entry before it.
    pub previous: u32,
    /// CRC-32C of the whole entry (this field and the header's own check taken as zeros).
    pub checksum: u32,
}

/// One thing that an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// A batch was appended; the body is the batch.
    Append {
        /// The partition's topic.
        topic_id: TopicId,
        /// The partition.
        partition: i32,
        /// The leader epoch it was appended under.
        leader_epoch: i32,
        /// Offset of its first record.
        base_offset: i64,
        /// Offset of its last record.
        last_offset: i64,
        /// Base offset of the segment it belongs to.
        segment_base: i64,
        /// Where in that segment, bytes.
        position: u32,
        /// Its length, bytes.
        length: u32,
    },
    /// Everything from an offset on was cut off.
    Truncate {
        /// The partition's topic.
        topic_id: TopicId,
        /// The partition.
        partition: i32,
        /// The log's new end.
        offset: i64,
    },
    /// The partition was deleted.
    Delete {
        /// The partition's topic.
        topic_id: TopicId,
        /// The partition.
        partition: i32,
    },
    /// The partition was set aside: its directory is to be kept under another name.
    SetAside {
        /// The partition's topic.
        topic_id: TopicId,
        /// The partition.
        partition: i32,
    },
    /// What the journal says of an offline partition is said again, so that older files can go: between a first and a last (`complete`) item of this
    /// kind lie the appends that count, in place of all before.
    Restate {
        /// The partition's topic.
        topic_id: TopicId,
        /// The partition.
        partition: i32,
        /// The lowest truncation that the recovery point does not know of; negative: none.
        truncated_to: i64,
        /// Whether this is the last item.
        complete: bool,
    },
    /// A new start continues the chain; always the first item of a life's first entry.
    LifeStart {
        /// Sequence of the entry it continues; 0 when it continues none.
        previous_sequence: u64,
    },
    /// Nothing but the header's figures.
    Checkpoint,
}

impl Item {
    fn body_bytes(&self) -> usize {
        match self {
            Item::Append { length, .. } => *length as usize,
            _ => 0,
        }
    }

    fn encode(&self) -> [u8; ITEM_BYTES] {
        let mut raw = [0; ITEM_BYTES];
        let mut put = |at: usize, bytes: &[u8]| raw[at..at + bytes.len()].copy_from_slice(bytes);
        match self {
            Item::Append {
                topic_id,
                partition,
                leader_epoch,
                base_offset,
                last_offset,
                segment_base,
                position,
                length,
            } => {
                put(0, &[1]);
                put(4, &partition.to_le_bytes());
                put(8, &topic_id.0);
                put(24, &base_offset.to_le_bytes());
                put(32, &last_offset.to_le_bytes());
                put(40, &segment_base.to_le_bytes());
                put(48, &position.to_le_bytes());
                put(52, &length.to_le_bytes());
                put(56, &leader_epoch.to_le_bytes());
            }
            Item::Truncate {
                topic_id,
                partition,
                offset,
            } => {
                put(0, &[2]);
                put(4, &partition.to_le_bytes());
                put(8, &topic_id.0);
                put(24, &offset.to_le_bytes());
            }
            Item::Delete {
                topic_id,
                partition,
            }
            | Item::SetAside {
                topic_id,
                partition,
            } => {
                let kind = if matches!(self, Item::Delete { .. }) {
                    3
                } else {
                    6
                };
                put(0, &[kind]);
                put(4, &partition.to_le_bytes());
                put(8, &topic_id.0);
            }
            Item::LifeStart { previous_sequence } => {
                put(0, &[4]);
                put(24, &previous_sequence.to_le_bytes());
            }
            Item::Checkpoint => put(0, &[5]),
            Item::Restate {
                topic_id,
                partition,
                truncated_to,
                complete,
            } => {
                put(0, &[7, u8::from(*complete)]);
                put(4, &partition.to_le_bytes());
                put(8, &topic_id.0);
                put(24, &truncated_to.to_le_bytes());
            }
        }
        raw
    }

    fn decode(raw: &[u8; ITEM_BYTES]) -> Option<Self> {
        let partition = i32::from_le_bytes(field(raw, 4));
        let topic_id = TopicId(field(raw, 8));
        Some(match raw[0] {
            1 => Item::Append {
                topic_id,
                partition,
                base_offset: i64::from_le_bytes(field(raw, 24)),
                last_offset: i64::from_le_bytes(field(raw, 32)),
                segment_base: i64::from_le_bytes(field(raw, 40)),
                position: u32::from_le_bytes(field(raw, 48)),
                length: u32::from_le_bytes(field(raw, 52)),
                leader_epoch: i32::from_le_bytes(field(raw, 56)),
            },
            2 => Item::Truncate {
                topic_id,
                partition,
                offset: i64::from_le_bytes(field(raw, 24)),
            },
            3 => Item::Delete {
                topic_id,
                partition,
            },
            4 => Item::LifeStart {
                previous_sequence: u64::from_le_bytes(field(raw, 24)),
            },
            5 => Item::Checkpoint,
            6 => Item::SetAside {
                topic_id,
                partition,
            },
            7 => Item::Restate {
                topic_id,
                partition,
                truncated_to: i64::from_le_bytes(field(raw, 24)),
                complete: raw[1] == 1,
            },
            _ => return None,
        })
    }
}

/// How a body of `length` bytes at segment position `position` is cut: the bytes before its first whole block, its whole blocks,
/// and the rest. Small bodies have no block part.
pub fn cut(position: u32, length: usize) -> (Range<usize>, Range<usize>, Range<usize>) {
    if length < LARGE_BODY_BYTES {
        return (0..length, length..length, length..length);
    }
    let head = (BLOCK_BYTES - position as usize % BLOCK_BYTES) % BLOCK_BYTES;
    let blocks_end = head + (length - head) / BLOCK_BYTES * BLOCK_BYTES;
    (0..head, head..blocks_end, blocks_end..length)
}

/// Most bytes that an item with a body of `length` bytes adds to an entry, whatever its position.
pub fn bytes_at_most(length: usize) -> usize {
    ITEM_BYTES + length
}

/// An entry being gathered.
pub struct EntryBuilder {
    pool: MemoryPool,
    staging: Vec<AlignedBuffer>,
    staged: usize,
    blocks: Vec<AlignedSlice>,
    block_bytes: usize,
    items: u32,
}

impl EntryBuilder {
    /// An entry without items; its memory comes from `pool`.
    pub fn new(pool: MemoryPool) -> Self {
        let mut builder = Self {
            pool,
            staging: Vec::new(),
            staged: 0,
            blocks: Vec::new(),
            block_bytes: 0,
            items: 0,
        };
        builder.stage(&[0; HEADER_BYTES]);
        builder
    }

    /// Bytes of the entry as it stands, in whole blocks.
    pub fn size(&self) -> usize {
        round_up(self.staged) + self.block_bytes
    }

    /// Most bytes the entry can have after an item with a body of `length` bytes is added.
    pub fn size_with(&self, length: usize) -> usize {
        round_up(self.staged + self.block_bytes + bytes_at_most(length))
    }

    /// Number of items.
    pub fn items(&self) -> u32 {
        self.items
    }

    /// Whether another item with up to `pieces` block pieces fits what a disk takes in one write.
    pub fn takes_pieces(&self, pieces: usize) -> bool {
        self.blocks.len() + self.staging.len() + pieces + 4 <= PIECES_MAX
    }

    /// Adds an item whose body lies in `pieces`, one after the other; `blocks` are its whole blocks as [`cut`] counts them.
    pub fn push(
        &mut self,
        item: &Item,
        pieces: &[&[u8]],
        blocks: impl IntoIterator<Item = AlignedSlice>,
    ) {
        debug_assert_eq!(
            pieces.iter().map(|piece| piece.len()).sum::<usize>(),
            item.body_bytes()
        );
        self.stage(&item.encode());
        self.items += 1;
        let Item::Append {
            position, length, ..
        } = item
        else {
            return;
        };
        let (head, whole, tail) = cut(*position, *length as usize);
        self.stage_range(pieces, head);
        let before = self.block_bytes;
        for slice in blocks {
            self.block_bytes += slice.len();
            self.blocks.push(slice);
        }
        assert_eq!(
            self.block_bytes - before,
            whole.len(),
            "the blocks given are not those of the body"
        );
        self.stage_range(pieces, tail);
    }

    fn stage_range(&mut self, pieces: &[&[u8]], range: Range<usize>) {
        let mut start = 0;
        for piece in pieces {
            let from = range.start.clamp(start, start + piece.len()) - start;
            let to = range.end.clamp(start, start + piece.len()) - start;
            self.stage(&piece[from..to]);
            start += piece.len();
        }
    }

    fn stage(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let full = self
                .staging
                .last()
                .is_none_or(|buffer| buffer.remaining() == 0);
            if full {
                let capacity = self
                    .staged
                    .next_power_of_two()
                    .clamp(2 * BLOCK_BYTES, 256 << 10);
                self.staging.push(self.pool.buffer(capacity));
            }
            if let Some(buffer) = self.staging.last_mut() {
                let count = bytes.len().min(buffer.remaining());
                buffer.extend_from_slice(&bytes[..count]);
                self.staged += count;
                bytes = &bytes[count..];
            }
        }
    }

    /// Ends the entry: what is to be written, and its checksum. `length`, `staged`, `items` and `checksum` of `header` are filled in here.
    pub fn seal(mut self, mut header: EntryHeader) -> (Vec<AlignedSlice>, EntryHeader) {
        if let Some(last) = self.staging.last_mut() {
            last.pad_to_block();
        }
        header.length = self.size() as u32;
        header.staged = round_up(self.staged) as u32;
        header.items = self.items;
        header.checksum = 0;
        let mut raw = encode_header(&header);
        self.staging[0].as_mut_slice()[..HEADER_BYTES].copy_from_slice(&raw);
        let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
        for buffer in &self.staging {
            digest.update(buffer.as_slice());
        }
        for slice in &self.blocks {
            digest.update(slice.as_slice());
        }
        header.checksum = digest.finalize() as u32;
        raw[CHECKSUM_AT..HEADER_CHECK_AT].copy_from_slice(&header.checksum.to_le_bytes());
        let check = crate::batch::crc32c(&raw[..HEADER_CHECK_AT]);
        raw[HEADER_CHECK_AT..].copy_from_slice(&check.to_le_bytes());
        self.staging[0].as_mut_slice()[..HEADER_BYTES].copy_from_slice(&raw);
        let mut pieces: Vec<AlignedSlice> = self
            .staging
            .into_iter()
            .map(AlignedBuffer::into_aligned_slice)
            .collect();
        pieces.append(&mut self.blocks);
        (pieces, header)
    }
}

/// Why bytes are not an entry of this journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// No header of this journal starts here.
    #[error("no entry header of this journal")]
    NoHeader,
    /// Written by a newer version.
    #[error("journal format {0} is newer than this program")]
    Format(u16),
    /// The header is there, the rest is not what it says.
    #[error("the entry does not match its checksum")]
    Checksum,
    /// The checksum holds and the content does not make sense.
    #[error("the entry's items do not fill it")]
    Items,
}

/// Reads the header that may start at `bytes`; its own check is verified, the rest of the entry not.
pub fn parse_header(bytes: &[u8], identity: Identity) -> Result<EntryHeader, EntryError> {
    let raw = bytes
        .first_chunk::<HEADER_BYTES>()
        .ok_or(EntryError::NoHeader)?;
    if raw[..8] != MAGIC
        || crate::batch::crc32c(&raw[..HEADER_CHECK_AT])
            != u32::from_le_bytes(field(raw, HEADER_CHECK_AT))
    {
        return Err(EntryError::NoHeader);
    }
    let format = u16::from_le_bytes(field(raw, 8));
    if format > FORMAT {
        return Err(EntryError::Format(format));
    }
    let header = EntryHeader {
        identity: Identity {
            shard: u32::from_le_bytes(field(raw, 12)),
            journal: u64::from_le_bytes(field(raw, 16)),
        },
        life: u64::from_le_bytes(field(raw, 24)),
        sequence: u64::from_le_bytes(field(raw, 32)),
        oldest_live: u64::from_le_bytes(field(raw, 40)),
        completed: u64::from_le_bytes(field(raw, 48)),
        length: u32::from_le_bytes(field(raw, 56)),
        staged: u32::from_le_bytes(field(raw, 60)),
        items: u32::from_le_bytes(field(raw, 64)),
        previous: u32::from_le_bytes(field(raw, 68)),
        checksum: u32::from_le_bytes(field(raw, CHECKSUM_AT)),
    };
    let block = BLOCK_BYTES as u32;
    let sane = header.identity == identity
        && header.length.is_multiple_of(block)
        && header.staged.is_multiple_of(block)
        && header.staged >= block
        && header.staged <= header.length;
    if sane {
        Ok(header)
    } else {
        Err(EntryError::NoHeader)
    }
}

/// An item as read back, and where its body lies. Small, because a start after a crash holds one for every item of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadItem {
    /// The item.
    pub item: Item,
    /// Where the staged parts of its body begin in the entry,
    staged: u32,
    /// and where its whole blocks do.
    blocks: u32,
}

impl ReadItem {
    /// Ranges of the entry's bytes that together are the body, in order.
    pub fn body(&self) -> [Range<usize>; 3] {
        let (staged, blocks) = self.body_places();
        let (position, length) = match self.item {
            Item::Append {
                position, length, ..
            } => (position, length as usize),
            _ => (0, 0),
        };
        body_at(position, length, staged as usize, blocks as usize)
    }

    /// Where the staged parts of its body begin in the entry, and where its whole blocks do.
    pub fn body_places(&self) -> (u32, u32) {
        (self.staged, self.blocks)
    }
}

/// Ranges of an entry's bytes that together are a body of `length` bytes for a segment's `position`, in order, given where its staged parts and its whole blocks begin.
pub fn body_at(position: u32, length: usize, staged: usize, blocks: usize) -> [Range<usize>; 3] {
    let (head, whole, tail) = cut(position, length);
    let rest = staged + head.len();
    [
        staged..rest,
        blocks..blocks + whole.len(),
        rest..rest + tail.len(),
    ]
}

fn cut_body(item: &Item) -> (Range<usize>, Range<usize>, Range<usize>) {
    match *item {
        Item::Append {
            position, length, ..
        } => cut(position, length as usize),
        _ => (0..0, 0..0, 0..0),
    }
}

/// Reads and checks the whole entry at the start of `bytes`, which must hold at least `header.length` bytes of it.
pub fn parse(bytes: &[u8], identity: Identity) -> Result<(EntryHeader, Vec<ReadItem>), EntryError> {
    let header = parse_header(bytes, identity)?;
    let entry = bytes
        .get(..header.length as usize)
        .ok_or(EntryError::Checksum)?;
    let mut raw = [0; HEADER_BYTES];
    raw.copy_from_slice(&entry[..HEADER_BYTES]);
    raw[CHECKSUM_AT..].fill(0);
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(&raw);
    digest.update(&entry[HEADER_BYTES..]);
    if digest.finalize() as u32 != header.checksum {
        return Err(EntryError::Checksum);
    }
    read_items(entry, &header)
        .map(|items| (header, items))
        .ok_or(EntryError::Items)
}

fn read_items(entry: &[u8], header: &EntryHeader) -> Option<Vec<ReadItem>> {
    let staged_end = header.staged as usize;
    let mut staged = HEADER_BYTES;
    let mut blocks = staged_end;
    // Each item takes at least its fixed part, so the claim is bounded by what is there.
    let mut items = Vec::with_capacity((header.items as usize).min(staged_end / ITEM_BYTES));
    for _ in 0..header.items {
        let raw = entry.get(staged..staged_end)?.first_chunk::<ITEM_BYTES>()?;
        staged += ITEM_BYTES;
        let item = Item::decode(raw)?;
        let (head, whole, tail) = cut_body(&item);
        items.push(ReadItem {
            item,
            staged: u32::try_from(staged).ok()?,
            blocks: u32::try_from(blocks).ok()?,
        });
        let parts = head.len().checked_add(tail.len())?;
        staged = staged.checked_add(parts).filter(|end| *end <= staged_end)?;
        blocks = blocks
            .checked_add(whole.len())
            .filter(|end| *end <= entry.len())?;
    }
    (round_up(staged) == staged_end && blocks == entry.len()).then_some(items)
}

fn encode_header(header: &EntryHeader) -> [u8; HEADER_BYTES] {
    let mut raw = [0; HEADER_BYTES];
    let mut put = |at: usize, bytes: &[u8]| raw[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &MAGIC);
    put(8, &FORMAT.to_le_bytes());
    put(12, &header.identity.shard.to_le_bytes());
    put(16, &header.identity.journal.to_le_bytes());
    put(24, &header.life.to_le_bytes());
    put(32, &header.sequence.to_le_bytes());
    put(40, &header.oldest_live.to_le_bytes());
    put(48, &header.completed.to_le_bytes());
    put(56, &header.length.to_le_bytes());
    put(60, &header.staged.to_le_bytes());
    put(64, &header.items.to_le_bytes());
    put(68, &header.previous.to_le_bytes());
    put(CHECKSUM_AT, &header.checksum.to_le_bytes());
    raw
}

fn field<const N: usize>(raw: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&raw[at..at + N]);
    out
}

#[cfg(test)]
mod tests;
