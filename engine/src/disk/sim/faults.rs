//! What can be made to go wrong on a simulated disk, and how slow it is.

use std::path::Path;

use nix::errno::Errno;

use crate::random::Random;

/// Kinds of disk operations, for choosing which of them fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Opening a file.
    Open,
    /// Writing to a file.
    Write,
    /// Reading from a file.
    Read,
    /// Syncing a file.
    Sync,
    /// Reserving or giving back space, cutting or extending a file.
    Resize,
    /// Creating, renaming, removing or listing names.
    Names,
    /// Syncing a directory.
    SyncDir,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The operation fails with EIO; a write may have happened in part, a sync may have lost what it should have written.
    InputOutput,
    /// The operation fails with ENOSPC and does nothing.
    OutOfSpace,
    /// The operation fails with EMFILE and does nothing: meant for opening.
    NoDescriptor,
    /// A read succeeds, with one bit of its result flipped.
    BitFlip,
}

/// A fault to inject: which operations it hits, and how often.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What goes wrong.
    pub kind: FaultKind,
    /// Which operations it hits; all when none is given.
    pub operation: Option<Operation>,
    /// Only paths that contain this text.
    pub path_contains: String,
    /// How likely an operation that matches is hit, of 0.0 to 1.0.
    pub probability: f64,
    /// How many matching operations go well first.
    pub skip: u64,
    /// How often it strikes at most; without a limit when none is given.
    pub times: Option<u64>,
}

impl Fault {
    /// Hits every operation of this kind whose path contains `path_contains`.
    pub fn always(kind: FaultKind, operation: Operation, path_contains: &str) -> Self {
        Self {
            kind,
            operation: Some(operation),
            path_contains: path_contains.to_owned(),
            probability: 1.0,
            skip: 0,
            times: None,
        }
    }

    /// Hits once, after `skip` matching operations.
    pub fn once(kind: FaultKind, operation: Operation, path_contains: &str, skip: u64) -> Self {
        Self {
            skip,
            times: Some(1),
            ..Self::always(kind, operation, path_contains)
        }
    }

    /// Whether it strikes this operation; counts it when it matches.
    pub(super) fn strikes(
        &mut self,
        operation: Operation,
        path: &Path,
        random: &mut Random,
    ) -> bool {
        let matches = self.operation.is_none_or(|wanted| wanted == operation)
            && path.to_string_lossy().contains(&self.path_contains)
            && self.times != Some(0);
        if !matches {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        let strikes = random.chance(self.probability);
        if strikes && let Some(times) = &mut self.times {
            *times -= 1;
        }
        strikes
    }
}

impl FaultKind {
    pub(super) fn errno(self) -> Option<Errno> {
        match self {
            Self::InputOutput => Some(Errno::EIO),
            Self::OutOfSpace => Some(Errno::ENOSPC),
            Self::NoDescriptor => Some(Errno::EMFILE),
            Self::BitFlip => None,
        }
    }
}

/// How long operations take, in virtual microseconds: evenly spread between low and high, so that those under way together complete in any order.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Writes.
    pub write_micros: (u64, u64),
    /// Reads.
    pub read_micros: (u64, u64),
    /// Syncs of files and directories.
    pub sync_micros: (u64, u64),
    /// Everything else.
    pub other_micros: (u64, u64),
    /// How likely an operation takes fifty times as long.
    pub stall_probability: f64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            write_micros: (100, 400),
            read_micros: (50, 200),
            sync_micros: (200, 1000),
            other_micros: (5, 50),
            stall_probability: 0.002,
        }
    }
}

impl Timing {
    pub(super) fn draw(&self, operation: Operation, random: &mut Random) -> u64 {
        let (low, high) = match operation {
            Operation::Write => self.write_micros,
            Operation::Read => self.read_micros,
            Operation::Sync | Operation::SyncDir => self.sync_micros,
            Operation::Open | Operation::Resize | Operation::Names => self.other_micros,
        };
        let micros = random.between(low, high);
        if random.chance(self.stall_probability) {
            micros * 50
        } else {
            micros
        }
    }
}
