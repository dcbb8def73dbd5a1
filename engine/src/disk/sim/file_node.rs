//! One file of the model: what its readers see, what is surely on the medium, and everything in between.
//!
//! Between "written" and "on the medium" lies a list of pending changes. A power loss keeps an arbitrary part of them: each sector of a pending
//! write is there or not, independently, and of the changes to the file's length some prefix has happened.

use bytes::Bytes;

use super::content::{Content, PAGE_BYTES};
use super::ranges::Ranges;
use crate::random::Random;

/// Bytes that the medium writes whole or not at all.
pub const SECTOR_BYTES: u64 = 512;

/// Behind the end of every file.
const END: u64 = u64::MAX / PAGE_BYTES * PAGE_BYTES;

/// Names one write of a file, from its start to its completion.
pub(crate) type WriteId = u64;

/// How far pending changes had come when a sync began.
pub(crate) type SyncMark = u64;

#[derive(Clone, Default)]
pub(super) struct FileNode {
    live: Content,
    live_len: u64,
    durable: Content,
    durable_len: u64,
    pending: Vec<Pending>,
    next_write: WriteId,
    completions: u64,
    allocated: Ranges,
    durable_allocated: Ranges,
    pub(super) open_handles: u32,
    pub(super) live_links: u32,
    pub(super) durable_links: u32,
}

#[derive(Clone)]
struct Pending {
    change: Change,
    /// Position in the order of completions; none while in flight.
    completed: Option<u64>,
    /// A sync failed on it: the page cache believes it written, so no later sync will bring it to the medium.
    lost: bool,
}

#[derive(Clone)]
enum Change {
    Write {
        id: WriteId,
        durable: bool,
        position: u64,
        bytes: Bytes,
    },
    /// The file became longer, by a write whose content is durable already.
    Extend(u64),
    SetLen(u64),
    /// A range became zeros; of its own, or because the change of length before it cut the file there.
    Clear {
        start: u64,
        end: u64,
        with_len: bool,
    },
}

/// What happened to a write that was under way when the power went or the device failed.
#[derive(Clone, Copy)]
enum Fate {
    Whole,
    Nothing,
    Torn,
}

impl Fate {
    fn draw(random: &mut Random) -> Self {
        match random.below(4) {
            0 => Self::Whole,
            1 => Self::Nothing,
            _ => Self::Torn,
        }
    }

    /// Calls `write` for each sector-aligned piece that made it.
    fn pieces(
        self,
        random: &mut Random,
        position: u64,
        bytes: &[u8],
        mut write: impl FnMut(u64, &[u8]),
    ) {
        match self {
            Self::Whole => write(position, bytes),
            Self::Nothing => {}
            Self::Torn => {
                let mut at = 0;
                while at < bytes.len() {
                    let until_boundary = SECTOR_BYTES - (position + at as u64) % SECTOR_BYTES;
                    let end = bytes.len().min(at + until_boundary as usize);
                    if random.chance(0.5) {
                        write(position + at as u64, &bytes[at..end]);
                    }
                    at = end;
                }
            }
        }
    }
}

impl FileNode {
    /// A file that is wholly on the medium, as on a disk that has been idle.
    pub(super) fn settled(bytes: &[u8]) -> Self {
        let mut node = Self::default();
        node.live.write(0, bytes);
        node.live_len = bytes.len() as u64;
        node.allocated.insert(0, node.live_len.div_ceil(PAGE_BYTES));
        node.settle();
        node
    }

    /// The same file, reachable by so many names.
    pub(super) fn linked(mut self, live_links: u32, durable_links: u32) -> Self {
        self.live_links = live_links;
        self.durable_links = durable_links;
        self
    }

    fn settle(&mut self) {
        self.durable = self.live.clone();
        self.durable_len = self.live_len;
        self.durable_allocated = self.allocated.clone();
        self.pending.clear();
    }

    pub(super) fn len(&self) -> u64 {
        self.live_len
    }

    pub(super) fn allocated_bytes(&self) -> u64 {
        self.allocated.total() * PAGE_BYTES
    }

    /// Bytes of space that a write or reservation of this range would take.
    pub(super) fn missing_bytes(&self, position: u64, len: u64) -> u64 {
        self.allocated
            .missing(position / PAGE_BYTES, (position + len).div_ceil(PAGE_BYTES))
            * PAGE_BYTES
    }

    /// Reads what is there now; fewer bytes only at the end of the file.
    pub(super) fn read(&self, position: u64, len: usize) -> Vec<u8> {
        let available = self.live_len.saturating_sub(position).min(len as u64) as usize;
        let mut bytes = vec![0; available];
        self.live.read(position, &mut bytes);
        bytes
    }

    pub(super) fn begin_write(
        &mut self,
        position: u64,
        pieces: &[Bytes],
        durable: bool,
    ) -> WriteId {
        let id = self.next_write;
        self.next_write += 1;
        let mut at = position;
        for piece in pieces {
            let change = Change::Write {
                id,
                durable,
                position: at,
                bytes: piece.clone(),
            };
            self.pending.push(Pending {
                change,
                completed: None,
                lost: false,
            });
            at += piece.len() as u64;
        }
        self.allocated
            .insert(position / PAGE_BYTES, at.div_ceil(PAGE_BYTES));
        id
    }

    /// The device reports the write done.
    pub(super) fn complete_write(&mut self, id: WriteId, extension_is_durable: bool) {
        self.completions += 1;
        let completions = self.completions;
        let mut settled = Vec::new();
        let (live, live_len) = (&mut self.live, &mut self.live_len);
        self.pending.retain_mut(|pending| {
            let Change::Write {
                id: other,
                durable,
                position,
                bytes,
            } = &pending.change
            else {
                return true;
            };
            if *other != id || pending.completed.is_some() {
                return true;
            }
            live.write(*position, bytes);
            *live_len = (*live_len).max(*position + bytes.len() as u64);
            pending.completed = Some(completions);
            if *durable {
                settled.push((*position, bytes.clone()));
            }
            !*durable
        });
        for (position, bytes) in settled {
            let end = position + bytes.len() as u64;
            supersede(&mut self.pending, position, end);
            self.durable.write(position, &bytes);
            self.durable_allocated
                .insert(position / PAGE_BYTES, end.div_ceil(PAGE_BYTES));
            if end > self.durable_len {
                if extension_is_durable
                    && !self
                        .pending
                        .iter()
                        .any(|pending| matches!(pending.change, Change::SetLen(_)))
                {
                    self.durable_len = end;
                } else {
                    self.push_completed(Change::Extend(end));
                }
            }
        }
    }

    /// The write was refused: nothing of it has happened.
    pub(super) fn cancel_write(&mut self, id: WriteId) {
        self.pending.retain(
            |pending| !matches!(pending.change, Change::Write { id: other, .. } if other == id),
        );
    }

    /// The device reports the write failed: any of its sectors may have been written.
    pub(super) fn fail_write(&mut self, id: WriteId, random: &mut Random) {
        let mut written = Vec::new();
        self.pending.retain(|pending| {
            let Change::Write {
                id: other,
                position,
                bytes,
                ..
            } = &pending.change
            else {
                return true;
            };
            // A write of several pieces may be failed once for each: what is settled stays.
            if *other != id || pending.completed.is_some() {
                return true;
            }
            Fate::draw(random).pieces(random, *position, bytes, |at, piece| {
                let start = (at - position) as usize;
                written.push((at, bytes.slice(start..start + piece.len())));
            });
            false
        });
        for (position, bytes) in written {
            self.live.write(position, &bytes);
            self.live_len = self.live_len.max(position + bytes.len() as u64);
            self.push_completed(Change::Write {
                id,
                durable: false,
                position,
                bytes,
            });
        }
    }

    fn push_completed(&mut self, change: Change) {
        self.completions += 1;
        self.pending.push(Pending {
            change,
            completed: Some(self.completions),
            lost: false,
        });
    }

    pub(super) fn allocate(&mut self, position: u64, len: u64, keep_size: bool) {
        let end = position + len;
        self.allocated
            .insert(position / PAGE_BYTES, end.div_ceil(PAGE_BYTES));
        if !keep_size && end > self.live_len {
            self.live_len = end;
            self.push_completed(Change::Extend(end));
        }
    }

    pub(super) fn punch(&mut self, position: u64, len: u64) {
        let end = position + len;
        self.live.clear(position, end);
        self.allocated
            .remove(position.div_ceil(PAGE_BYTES), end / PAGE_BYTES);
        self.push_completed(Change::Clear {
            start: position,
            end,
            with_len: false,
        });
    }

    pub(super) fn set_len(&mut self, len: u64) {
        self.live.clear(len, END);
        self.allocated
            .remove(len.div_ceil(PAGE_BYTES), u64::MAX / PAGE_BYTES);
        self.live_len = len;
        self.push_completed(Change::SetLen(len));
        self.push_completed(Change::Clear {
            start: len,
            end: END,
            with_len: true,
        });
    }

    pub(super) fn begin_sync(&self) -> SyncMark {
        self.completions
    }

    /// Everything completed when the sync began is on the medium now.
    pub(super) fn complete_sync(&mut self, mark: SyncMark) {
        let mut rest = Vec::new();
        for pending in std::mem::take(&mut self.pending) {
            if pending.lost || pending.completed.is_none_or(|completed| completed > mark) {
                rest.push(pending);
                continue;
            }
            match pending.change {
                Change::Write {
                    position, bytes, ..
                } => {
                    let end = position + bytes.len() as u64;
                    supersede(&mut rest, position, end);
                    self.durable.write(position, &bytes);
                    self.durable_len = self.durable_len.max(end);
                }
                Change::Extend(len) => self.durable_len = self.durable_len.max(len),
                Change::SetLen(len) => self.durable_len = len,
                Change::Clear { start, end, .. } => {
                    supersede(&mut rest, start, end);
                    self.durable.clear(start, end);
                }
            }
        }
        self.pending = rest;
        self.durable_allocated = self.allocated.clone();
    }

    /// The sync failed: what it should have written may never be, though later syncs succeed.
    pub(super) fn fail_sync(&mut self, mark: SyncMark) {
        for pending in &mut self.pending {
            if pending.completed.is_some_and(|completed| completed <= mark) {
                pending.lost = true;
            }
        }
    }

    pub(super) fn flip_bit(&mut self, position: u64, bit: u8) {
        self.live.flip(position, bit);
        self.durable.flip(position, bit);
    }

    /// What is left after a power loss now.
    pub(super) fn after_power_loss(&self, random: &mut Random) -> Self {
        let mut content = self.durable.clone();
        let mut len = self.durable_len;
        let changes_of_len = self
            .pending
            .iter()
            .filter(|pending| pending.changes_len())
            .count() as u64;
        let mut len_changes_left = random.below(changes_of_len + 1);
        let mut cut = false;
        for pending in &self.pending {
            let mut len_changes = || {
                let happened = len_changes_left > 0;
                len_changes_left = len_changes_left.saturating_sub(1);
                happened
            };
            match &pending.change {
                Change::Write {
                    position, bytes, ..
                } => {
                    Fate::draw(random).pieces(random, *position, bytes, |at, piece| {
                        content.write(at, piece)
                    });
                    if len_changes() {
                        len = len.max(position + bytes.len() as u64);
                    }
                }
                Change::Extend(to) => {
                    if len_changes() {
                        len = len.max(*to);
                    }
                }
                Change::SetLen(to) => {
                    cut = len_changes();
                    if cut {
                        len = *to;
                    }
                }
                Change::Clear {
                    start,
                    end,
                    with_len,
                } => {
                    let happened = if *with_len { cut } else { random.chance(0.5) };
                    if happened {
                        content.clear(*start, *end);
                    }
                }
            }
        }
        content.clear(len, END);
        let mut allocated = if random.chance(0.5) {
            self.allocated.clone()
        } else {
            self.durable_allocated.clone()
        };
        content.for_each_page(|page| allocated.insert(page, page + 1));
        let mut node = Self {
            live: content,
            live_len: len,
            allocated,
            ..Self::default()
        };
        node.settle();
        node
    }

    /// What is left when the process dies but the machine does not: all that completed, and writes in flight in part or whole.
    pub(super) fn after_kill(&self, random: &mut Random) -> Self {
        let mut node = self.clone();
        node.open_handles = 0;
        let in_flight: Vec<WriteId> = node
            .pending
            .iter()
            .filter(|pending| pending.completed.is_none())
            .filter_map(|pending| match pending.change {
                Change::Write { id, .. } => Some(id),
                _ => None,
            })
            .collect();
        for id in in_flight {
            node.fail_write(id, random);
        }
        node
    }
}

/// Takes a range out of the changes that completed: it lies below something newer that is on the medium.
fn supersede(changes: &mut Vec<Pending>, start: u64, end: u64) {
    let mut kept = Vec::with_capacity(changes.len());
    for pending in changes.drain(..) {
        let (from, to) = match &pending.change {
            Change::Write {
                position, bytes, ..
            } => (*position, *position + bytes.len() as u64),
            Change::Clear { start, end, .. } => (*start, *end),
            Change::Extend(_) | Change::SetLen(_) => (0, 0),
        };
        if pending.completed.is_none() || to <= start || from >= end {
            kept.push(pending);
            continue;
        }
        for (from, to) in [(from, start), (end, to)] {
            if from < to {
                kept.push(Pending {
                    change: pending.change.part(from, to),
                    ..pending.clone()
                });
            }
        }
    }
    *changes = kept;
}

impl Change {
    /// The same change to a part of its range only.
    fn part(&self, from: u64, to: u64) -> Self {
        let mut part = self.clone();
        match &mut part {
            Self::Write {
                position, bytes, ..
            } => {
                *bytes = bytes.slice((from - *position) as usize..(to - *position) as usize);
                *position = from;
            }
            Self::Clear { start, end, .. } => (*start, *end) = (from, to),
            Self::Extend(_) | Self::SetLen(_) => {}
        }
        part
    }
}

impl Pending {
    fn changes_len(&self) -> bool {
        matches!(
            self.change,
            Change::Write { .. } | Change::Extend(_) | Change::SetLen(_)
        )
    }
}
