//! A journal file in memory, and the mark by which logs say that they still need it.

use std::cell::Cell;
use std::rc::Rc;

use crate::disk::Disk;
use crate::environment::Environment;
use crate::memory::BLOCK_BYTES;
use crate::wait::Signal;

/// One journal file, open for durable direct writing.
pub(crate) struct JournalFile<E: Environment> {
    /// Its number, which is its name.
    pub number: u64,
    /// The open file.
    pub file: <E::Disk as Disk>::File,
    /// Its size in bytes; never changes.
    pub size: u64,
    /// Sequence of its first entry.
    pub first_sequence: u64,
    /// Sequence of its last entry so far.
    pub last_sequence: u64,
    /// Who needs it.
    pub mark: Rc<FileMark>,
}

impl<E: Environment> JournalFile<E> {
    /// Where entries with items must end: one block is kept back, so that an entry which only says that older files are free
    /// can be written when everything else is full.
    pub fn regular_end(&self) -> u64 {
        self.size - BLOCK_BYTES as u64
    }

    /// Another handle on the same file, for reading.
    pub fn share(&self) -> Self {
        Self {
            file: self.file.clone(),
            mark: self.mark.clone(),
            ..*self
        }
    }

    /// The file starts over with the entry `first_sequence`.
    pub fn begin(&mut self, first_sequence: u64) {
        self.first_sequence = first_sequence;
        self.last_sequence = first_sequence;
        self.mark = FileMark::new(self.mark.keeper.clone());
        self.mark.born.set(first_sequence);
    }

    /// The file's name.
    pub fn name(number: u64) -> String {
        format!("{number:06}.journal")
    }

    /// The number in a file's name.
    pub fn number_of(name: &str) -> Option<u64> {
        name.strip_suffix(".journal")?.parse().ok()
    }
}

/// Counts the logs that need a journal file for their recovery.
pub(crate) struct FileMark {
    pins: Cell<u32>,
    /// Sequence of the file's first entry.
    born: Cell<u64>,
    keeper: Rc<Signal>,
}

impl FileMark {
    /// A mark that nobody has pinned.
    pub fn new(keeper: Rc<Signal>) -> Rc<Self> {
        Rc::new(Self {
            pins: Cell::new(0),
            born: Cell::new(0),
            keeper,
        })
    }

    /// Sequence of the file's first entry.
    pub fn born(&self) -> u64 {
        self.born.get()
    }

    /// One more log needs the file.
    pub fn pin(&self) {
        self.pins.set(self.pins.get() + 1);
    }

    /// One fewer log needs it.
    pub fn unpin(&self) {
        debug_assert!(self.pins.get() > 0);
        self.pins.set(self.pins.get() - 1);
        if self.pins.get() == 0 {
            self.keeper.raise();
        }
    }

    /// Whether any log needs it.
    pub fn is_pinned(&self) -> bool {
        self.pins.get() > 0
    }
}
