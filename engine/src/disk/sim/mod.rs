//! A disk in memory that behaves exactly as badly as `durability` assumes, decided by a seed.
//!
//! - A sector (512 bytes) is written whole or not at all; larger writes tear, in any order.
//! - A completed write through a durable file survives power loss; others survive only once synced, and may be there in part before.
//! - The length of a file that grew is durable only after a sync (by choice also with the durable write that made it grow).
//! - Names survive only once their directory is synced; changes not synced may or may not have happened.
//! - Operations under way together complete in any order; any may fail with EIO, run out of space or return flipped bits when told so.
//!
//! [`SimDisk::crash`] gives the disk as found after a power loss, [`SimDisk::kill`] as the next process finds it after this one was killed.
//! The model itself is in `medium` and `file_node`; this file adds time, faults and the [`Disk`] trait.

mod content;
mod faults;
mod file;
mod file_node;
mod medium;
mod ranges;

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

pub use faults::{Fault, FaultKind, Operation, Timing};
pub use file::SimFile;
pub use file_node::SECTOR_BYTES;
pub(crate) use file_node::{SyncMark, WriteId};
pub(crate) use medium::{Medium, NameMark, NodeId};

use super::{Capabilities, DirEntry, Disk, DiskFile, OpenOptions, with_path};
use crate::memory::AlignedBuffer;
use crate::random::Random;
use crate::sim::World;

/// Space of a disk when nothing else is said: 1 TiB.
const CAPACITY_BYTES: u64 = 1 << 40;

/// A simulated disk; clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    state: Rc<RefCell<State>>,
}

struct State {
    medium: Medium,
    random: Random,
    world: Option<World>,
    timing: Timing,
    faults: Vec<Fault>,
    frozen: bool,
    open_files: usize,
}

impl SimDisk {
    /// An empty disk. Without an [`crate::sim::Executor`] around it operations take no time.
    pub fn new(seed: u64) -> Self {
        Self::from_medium(Medium::new(CAPACITY_BYTES), seed)
    }

    pub(crate) fn from_medium(medium: Medium, seed: u64) -> Self {
        let state = State {
            medium,
            random: Random::new(seed ^ 0x6469_736b),
            world: None,
            timing: Timing::default(),
            faults: Vec::new(),
            frozen: false,
            open_files: 0,
        };
        Self {
            state: Rc::new(RefCell::new(state)),
        }
    }

    /// Makes the disk part of a world: its operations take that world's time. What an ended process left behind is seen as after a kill.
    pub(crate) fn attach(&self, world: World) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        state.world = Some(world);
        if std::mem::take(&mut state.frozen) {
            state.medium = state.medium.after_kill(&mut state.random);
        }
    }

    /// The process is gone: what its futures and files do while being dropped no longer reaches the disk.
    pub(crate) fn freeze(&self) {
        self.state.borrow_mut().frozen = true;
    }

    /// How long operations take.
    pub fn set_timing(&self, timing: Timing) {
        self.state.borrow_mut().timing = timing;
    }

    /// How much fits on the disk, in bytes; what is there already stays.
    pub fn set_capacity_bytes(&self, bytes: u64) {
        self.state.borrow_mut().medium.set_capacity_bytes(bytes);
    }

    /// Whether a durable write that makes a file longer makes its length durable too: not so by default, as on ext4 before Linux 6.7.
    pub fn set_extension_is_durable(&self, durable: bool) {
        self.state.borrow_mut().medium.extension_is_durable = durable;
    }

    /// Makes operations fail from now on.
    pub fn inject(&self, fault: Fault) {
        self.state.borrow_mut().faults.push(fault);
    }

    /// Ends all injected faults.
    pub fn clear_faults(&self) {
        self.state.borrow_mut().faults.clear();
    }

    /// Lets one bit of a file rot on the medium.
    pub fn flip_bit(&self, path: &Path, position: u64, bit: u8) -> io::Result<()> {
        self.state.borrow_mut().medium.flip_bit(path, position, bit)
    }

    /// Puts a file on the medium, wholly durable, with its directories.
    pub fn place(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.state.borrow_mut().medium.place(path, bytes)
    }

    /// Every file with its content as a reader sees it now, by path from the root.
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        self.state.borrow().medium.files()
    }

    /// Writes every file below `from` to the same place below `to` on another disk, such as a real one, and its directories.
    pub async fn copy_to<D: Disk>(&self, disk: &D, from: &Path, to: &Path) -> io::Result<()> {
        let (dirs, files) = (self.state.borrow().medium.dirs(), self.files());
        let from = from.strip_prefix("/").unwrap_or(from);
        for dir in dirs.iter().filter_map(|dir| dir.strip_prefix(from).ok()) {
            disk.create_dir_all(&to.join(dir)).await?;
        }
        for (path, content) in &files {
            if let Ok(name) = path.strip_prefix(from) {
                let options = OpenOptions {
                    create: true,
                    write: true,
                    ..OpenOptions::default()
                };
                let file = disk.open(&to.join(name), options).await?;
                if !content.is_empty() {
                    file.write_at(
                        0,
                        vec![AlignedBuffer::copied_from(content).into_aligned_slice()],
                    )
                    .await?;
                }
                file.set_len(content.len() as u64).await?;
                file.close().await?;
            }
        }
        Ok(())
    }

    /// How many files are open, for tests of descriptor limits and leaks.
    pub fn open_files(&self) -> usize {
        self.state.borrow().open_files
    }

    /// The disk as it may be found after the power went now; another seed, another possibility.
    pub fn crash(&self, seed: u64) -> SimDisk {
        self.successor(seed, |medium, random| medium.after_power_loss(random))
    }

    /// The disk as the next process finds it when this one is killed now; the page cache lives on, so a later power loss can still take what was not synced.
    pub fn kill(&self, seed: u64) -> SimDisk {
        self.successor(seed, |medium, random| medium.after_kill(random))
    }

    fn successor(
        &self,
        seed: u64,
        convert: impl FnOnce(&Medium, &mut Random) -> Medium,
    ) -> SimDisk {
        let state = self.state.borrow();
        let medium = convert(&state.medium, &mut Random::new(seed));
        let successor = Self::from_medium(medium, seed);
        successor.set_timing(state.timing);
        successor
    }

    /// Counts the operation, decides its fate and lets its time pass.
    async fn operate(&self, operation: Operation, path: &Path) -> Option<FaultKind> {
        let (world, micros, fault) = {
            let mut state = self.state.borrow_mut();
            let state = &mut *state;
            let random = &mut state.random;
            let fault = state
                .faults
                .iter_mut()
                .find_map(|fault| fault.strikes(operation, path, random).then_some(fault.kind));
            (
                state.world.clone(),
                state.timing.draw(operation, random),
                fault,
            )
        };
        if let Some(world) = world {
            world.count_disk_operation();
            world.sleep(Duration::from_micros(micros)).await;
        }
        fault
    }

    /// As `operate`, for operations that either happen wholly or fail.
    async fn attempt<T>(
        &self,
        operation: Operation,
        path: &Path,
        action: &str,
        act: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        if let Some(errno) = self
            .operate(operation, path)
            .await
            .and_then(FaultKind::errno)
        {
            return Err(with_path(
                io::Error::from_raw_os_error(errno as i32),
                action,
                path,
            ));
        }
        act(&mut self.state.borrow_mut()).map_err(|error| with_path(error, action, path))
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    async fn open(&self, path: &Path, options: OpenOptions) -> io::Result<SimFile> {
        let create = options.create && options.write;
        let node = self
            .attempt(Operation::Open, path, "open", |state| {
                let node = state.medium.open(path, create)?;
                state.open_files += 1;
                Ok(node)
            })
            .await?;
        Ok(SimFile::new(self.clone(), node, path, options))
    }

    async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.attempt(Operation::Names, path, "create directory", |state| {
            state.medium.create_dir_all(path)
        })
        .await
    }

    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let begun = self.state.borrow().medium.begin_sync_dir(path);
        let begun = begun.map_err(|error| with_path(error, "sync directory", path))?;
        self.attempt(Operation::SyncDir, path, "sync directory", |state| {
            state.medium.complete_sync_dir(begun);
            Ok(())
        })
        .await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.attempt(Operation::Names, from, "rename", |state| {
            state.medium.rename(from, to)
        })
        .await
    }

    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.attempt(Operation::Names, path, "remove", |state| {
            state.medium.remove_file(path)
        })
        .await
    }

    async fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.attempt(Operation::Names, path, "remove directory", |state| {
            state.medium.remove_dir(path)
        })
        .await
    }

    async fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.attempt(Operation::Names, path, "list", |state| {
            state.medium.list(path)
        })
        .await
    }

    async fn exists(&self, path: &Path) -> io::Result<bool> {
        self.attempt(Operation::Names, path, "look for", |state| {
            Ok(state.medium.exists(path))
        })
        .await
    }

    async fn available_bytes(&self, path: &Path) -> io::Result<u64> {
        self.attempt(
            Operation::Names,
            path,
            "ask for the free space of",
            |state| Ok(state.medium.available_bytes()),
        )
        .await
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            direct: true,
            io_uring: false,
        }
    }
}

#[cfg(test)]
mod tests;
