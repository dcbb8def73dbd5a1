//! Space kept back for the small writes by which a full disk is emptied again.
//!
//! To delete records, a log's new start has to be written first; to free the journal, recovery points and indexes have to be. So each shard has a file of nothing in
//! each of its directories. A small write that finds the disk full gives as much of it back as the write needs and takes it back right afterwards. As long as the file is not whole,
//! no space is reserved for new records: they would take what the small writes need.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::Path;

use super::shard::Shard;
use crate::config::EngineConfig;
use crate::disk::{Disk, DiskFile, OpenOptions, os_error_of};
use crate::environment::Environment;
use crate::memory::BLOCK_BYTES;
use crate::wait::Turnstile;

/// What the files are called, before the shard's number.
pub(super) const BALLAST_FILE: &str = "ballast.";
/// Given back and taken back in so many steps.
const STEPS: u64 = 8;

/// Whether an operation failed because the disk, or a quota, is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    const ENOSPC: i32 = 28;
    const EDQUOT: i32 = 122;
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    ) || matches!(os_error_of(error), Some(ENOSPC | EDQUOT))
}

/// Whether an operation failed for want of something that may come back by itself: space, or descriptors.
pub(crate) fn may_pass(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    is_full(error) || matches!(os_error_of(error), Some(ENFILE | EMFILE))
}

/// What is kept back in one directory.
struct Kept<E: Environment> {
    file: RefCell<Option<<E::Disk as Disk>::File>>,
    bytes: Cell<u64>,
}

/// What is kept back in the log directories, and in the journal's when it has its own.
pub(crate) struct Ballast<E: Environment> {
    kept: Vec<Kept<E>>,
    whole_bytes: u64,
    turn: Turnstile,
}

impl<E: Environment> Ballast<E> {
    /// Nothing yet.
    pub fn new(config: &EngineConfig) -> Self {
        let directories = config.log_dirs.len() + usize::from(config.journal_dir.is_some());
        let block = BLOCK_BYTES as u64;
        Self {
            kept: std::iter::repeat_with(|| Kept {
                file: RefCell::new(None),
                bytes: Cell::new(0),
            })
            .take(directories)
            .collect(),
            whole_bytes: config.ballast_bytes / (STEPS * block) * (STEPS * block),
            turn: Turnstile::default(),
        }
    }
}

impl<E: Environment> Shard<E> {
    fn ballast_directory(&self, directory: usize) -> &Path {
        match (
            self.config.log_dirs.get(directory),
            &self.config.journal_dir,
        ) {
            (Some(path), _) | (None, Some(path)) => path,
            (None, None) => Path::new("."),
        }
    }

    /// The directory of the ballast that stands for the journal's disk.
    pub fn journal_ballast(&self) -> usize {
        match self.config.journal_dir {
            Some(_) => self.config.log_dirs.len(),
            None => 0,
        }
    }

    /// Finds what an earlier life kept back.
    pub async fn open_ballast(&self) {
        for directory in 0..self.ballast.kept.len() {
            self.open_ballast_in(directory).await;
        }
    }

    async fn open_ballast_in(&self, directory: usize) {
        let kept = &self.ballast.kept[directory];
        if kept.file.borrow().is_some() || self.ballast.whole_bytes == 0 {
            return;
        }
        let name = format!("{BALLAST_FILE}{}", self.config.shard);
        let path = self.ballast_directory(directory).join(name);
        let opened = async {
            let file = self.env.disk().open(&path, OpenOptions::SEGMENT).await?;
            let len = file.len().await?;
            io::Result::Ok((file, len))
        };
        match opened.await {
            Ok((file, len)) => {
                kept.bytes.set(len);
                *kept.file.borrow_mut() = Some(file);
            }
            Err(error) => self.ballast_refused(directory, &error),
        }
    }

    /// A disk that is full may have space later; one that cannot do it at all is used without.
    fn ballast_refused(&self, directory: usize, error: &io::Error) {
        if !is_full(error) {
            let path = self.ballast_directory(directory).display();
            tracing::warn!("no space is kept back in {path} for a full disk: {error}");
            self.ballast.kept[directory].bytes.set(u64::MAX);
        }
    }

    /// Whether all of a directory's ballast is there, as far as is known.
    pub fn has_whole_ballast(&self, directory: usize) -> bool {
        self.ballast.kept[directory].bytes.get() >= self.ballast.whole_bytes
    }

    /// Takes back what was given away, if the disk has it; returns whether the ballast is whole.
    pub async fn restore_ballast(&self, directory: usize) -> bool {
        if self.has_whole_ballast(directory) {
            return true;
        }
        let _turn = self.ballast.turn.enter().await;
        self.open_ballast_in(directory).await;
        self.take_back(directory).await
    }

    async fn take_back(&self, directory: usize) -> bool {
        let kept = &self.ballast.kept[directory];
        let file = kept.file.borrow().clone();
        let Some(file) = file else {
            return false;
        };
        let step = self.ballast.whole_bytes / STEPS;
        while !self.has_whole_ballast(directory) {
            let bytes = kept.bytes.get();
            if let Err(error) = file.allocate(bytes, step, false).await {
                self.ballast_refused(directory, &error);
                break;
            }
            kept.bytes.set(bytes + step);
        }
        // A start after a power loss should find it too; if it does not, it makes it anew.
        let _ = file.sync_data().await;
        self.has_whole_ballast(directory)
    }

    /// Does a small write in a directory; where the disk is full, with space that was kept back for it. The write must be one that can be begun anew after it failed.
    pub async fn write_for_sure<T, F: Future<Output = io::Result<T>>>(
        &self,
        directory: usize,
        write: impl Fn() -> F,
    ) -> io::Result<T> {
        match write().await {
            Err(error) if is_full(&error) => {}
            other => return other,
        }
        let _turn = self.ballast.turn.enter().await;
        let kept = &self.ballast.kept[directory];
        let step = self.ballast.whole_bytes / STEPS;
        let done = loop {
            let done = write().await;
            let file = kept.file.borrow().clone();
            let (Some(file), true) = (file, done.as_ref().is_err_and(is_full)) else {
                break done;
            };
            let bytes = kept.bytes.get();
            if bytes == 0 || bytes == u64::MAX {
                break done;
            }
            let fewer = bytes.saturating_sub(step);
            if file.set_len(fewer).await.is_err() {
                break done;
            }
            kept.bytes.set(fewer);
        };
        self.take_back(directory).await;
        done
    }
}
