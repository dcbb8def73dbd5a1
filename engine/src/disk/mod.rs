//! The only door to files: what the engine may ask of a disk, and its implementations.
//!
//! [`direct`] talks to the kernel through io_uring with O_DIRECT; [`sim`] is a seeded model of a disk that loses power;
//! [`recording`] notes what passes through another disk, so that a power loss at any moment can be played back.
//! Everything is asynchronous and stays on the shard's thread. What may be relied on after a crash is said at each method and nowhere else assumed:
//!
//! - a file's contents are durable once written through a `durable` file, or once `sync_data` has succeeded after the write;
//! - a file's length beyond what was last synced is durable only after `sync_data` (older ext4 forgets the size of a file that
//!   a durable write extended);
//! - a name that was created, renamed or removed is durable only after `sync_dir` of its directory.

pub mod direct;
pub mod recording;
pub mod sim;

use std::future::Future;
use std::io;
use std::path::Path;

use crate::memory::{AlignedBuffer, AlignedSlice, BLOCK_BYTES, round_up};

/// How a file is opened; reading is always possible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenOptions {
    /// Make the file when it is not there; requires `write`.
    pub create: bool,
    /// Allow writing.
    pub write: bool,
    /// A write completes only when it is on the medium (O_DSYNC).
    pub durable: bool,
    /// Bypass the page cache (O_DIRECT), where the file system can.
    pub direct: bool,
}

impl OpenOptions {
    /// Direct reading of a file that is there.
    pub const READ: Self = Self {
        create: false,
        write: false,
        durable: false,
        direct: true,
    };
    /// What a journal file is opened with: direct and durable, made when missing.
    pub const JOURNAL: Self = Self {
        create: true,
        write: true,
        durable: true,
        direct: true,
    };
    /// What a segment is opened with: direct, synced separately, made when missing.
    pub const SEGMENT: Self = Self {
        create: true,
        write: true,
        durable: false,
        direct: true,
    };
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The name, without its directory.
    pub name: String,
    /// Length in bytes; 0 for a directory.
    pub len: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// What a disk can really do here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Files bypass the page cache; false once the file system has refused O_DIRECT.
    pub direct: bool,
    /// Operations go through io_uring rather than a pool of threads.
    pub io_uring: bool,
}

/// A file system as the engine sees it. Paths are those of the operating system; errors carry the path they concern.
pub trait Disk: Clone + 'static {
    /// An open file.
    type File: DiskFile;

    /// Opens a file. Its name is durable only after [`Disk::sync_dir`].
    fn open(
        &self,
        path: &Path,
        options: OpenOptions,
    ) -> impl Future<Output = io::Result<Self::File>>;

    /// Makes a directory and those above it; fine when it is there.
    fn create_dir_all(&self, path: &Path) -> impl Future<Output = io::Result<()>>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>>;

    /// Renames, replacing a file at `to`; atomic, durable after [`Disk::sync_dir`] of both directories.
    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>>;

    /// Removes a file's name; who has it open can go on using it.
    fn remove_file(&self, path: &Path) -> impl Future<Output = io::Result<()>>;

    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>>;

    /// The entries of a directory, sorted by name.
    fn list(&self, path: &Path) -> impl Future<Output = io::Result<Vec<DirEntry>>>;

    /// Whether there is a file or directory of this name.
    fn exists(&self, path: &Path) -> impl Future<Output = io::Result<bool>>;

    /// Reads a whole small file; refuses one larger than [`SMALL_FILE_BYTES_MAX`].
    fn read_small(&self, path: &Path) -> impl Future<Output = io::Result<Vec<u8>>> {
        self.read_whole(path, SMALL_FILE_BYTES_MAX)
    }

    /// Reads a whole file; refuses one larger than `bytes_max`.
    fn read_whole(&self, path: &Path, bytes_max: u64) -> impl Future<Output = io::Result<Vec<u8>>> {
        async move {
            let file = self.open(path, OpenOptions::default()).await?;
            let len = file.len().await?;
            if len > bytes_max {
                let message = format!(
                    "{} has {len} bytes, at most {bytes_max} are expected",
                    path.display()
                );
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
            }
            let len = round_up(len as usize);
            let (buffer, _) = file
                .read_at(0, AlignedBuffer::with_capacity(len), len)
                .await?;
            file.close().await?;
            Ok(buffer.as_slice().to_vec())
        }
    }

    /// Replaces a whole small file so that after a crash either the old or the new content is there, durably the new once this returns.
    ///
    /// Writes `<path>.tmp`, syncs it, renames it over `path` and syncs the directory.
    fn write_atomic(&self, path: &Path, content: &[u8]) -> impl Future<Output = io::Result<()>> {
        async move {
            let mut temporary = path.as_os_str().to_owned();
            temporary.push(".tmp");
            let temporary = Path::new(&temporary);
            let options = OpenOptions {
                create: true,
                write: true,
                ..OpenOptions::default()
            };
            let file = self.open(temporary, options).await?;
            if !content.is_empty() {
                file.write_at(
                    0,
                    vec![AlignedBuffer::copied_from(content).into_aligned_slice()],
                )
                .await?;
            }
            file.set_len(content.len() as u64).await?;
            file.sync_data().await?;
            file.close().await?;
            self.rename(temporary, path).await?;
            self.sync_dir(parent_of(path)).await
        }
    }

    /// Bytes that can still be allocated on the file system of `path`.
    fn available_bytes(&self, path: &Path) -> impl Future<Output = io::Result<u64>>;

    /// What this disk can do, as far as found out until now.
    fn capabilities(&self) -> Capabilities;

    /// What positions and lengths must be multiples of.
    fn block_bytes(&self) -> usize {
        BLOCK_BYTES
    }
}

/// An open file; clones share it, and it is closed when the last is gone.
#[expect(
    clippy::len_without_is_empty,
    reason = "whether a file is empty is a question nobody asks"
)]
pub trait DiskFile: Clone + 'static {
    /// Writes the pieces one after the other, starting at `position`, which is a multiple of the block size.
    ///
    /// Durable on return when the file was opened so. Up to [`WRITE_PIECES_MAX`] pieces go to the kernel as one write; more are split, so
    /// a journal entry must stay below. After an error, or when the future is dropped, any sectors of the range may have been written.
    fn write_at(
        &self,
        position: u64,
        pieces: Vec<AlignedSlice>,
    ) -> impl Future<Output = io::Result<()>>;

    /// Reads up to `len` bytes at `position` into the cleared `buffer`; both are multiples of the block size and `len` fits in the buffer.
    ///
    /// Returns the buffer with what was read; fewer bytes than asked for only at the end of the file.
    fn read_at(
        &self,
        position: u64,
        buffer: AlignedBuffer,
        len: usize,
    ) -> impl Future<Output = io::Result<(AlignedBuffer, usize)>>;

    /// Reserves space for a range, so that writing there cannot run out of it; with `keep_size` the file's length stays.
    fn allocate(
        &self,
        position: u64,
        len: u64,
        keep_size: bool,
    ) -> impl Future<Output = io::Result<()>>;

    /// Gives the space of a range back; it reads as zeros and the file's length stays.
    fn punch(&self, position: u64, len: u64) -> impl Future<Output = io::Result<()>>;

    /// Cuts the file, or extends it with zeros; frees space reserved behind the new length.
    fn set_len(&self, len: u64) -> impl Future<Output = io::Result<()>>;

    /// Makes everything written so far, and the file's length, durable.
    ///
    /// After an error it is unknown what is on the medium, and a later success says nothing about it: treat the file as damaged.
    fn sync_data(&self) -> impl Future<Output = io::Result<()>>;

    /// The file's length in bytes.
    fn len(&self) -> impl Future<Output = io::Result<u64>>;

    /// Closes this handle and waits for the kernel when it was the last.
    fn close(self) -> impl Future<Output = io::Result<()>>;
}

/// The largest file that [`Disk::read_small`] reads, in bytes: generous for the checkpoints and markers it is meant for.
pub const SMALL_FILE_BYTES_MAX: u64 = 16 << 20;

/// The most pieces that one kernel write takes (IOV_MAX).
pub const WRITE_PIECES_MAX: usize = 1024;

/// Fills a range of whole blocks of a file with zeros and makes content and length durable: how a journal file is prepared before its first entry.
///
/// Afterwards durable writes into the range change neither the file's length nor its extents, which makes them cheap, and safe on file
/// systems that do not persist the size of a file extended by a durable write.
pub async fn write_zeros<F: DiskFile>(file: &F, position: u64, len: u64) -> io::Result<()> {
    const STEP_BYTES: usize = 1 << 20;
    let mut zeros = AlignedBuffer::with_capacity(STEP_BYTES.min(round_up(len as usize)));
    zeros.extend_zeros(zeros.capacity());
    let zeros = zeros.into_aligned_slice();
    let end = position + len;
    let mut at = position;
    while at < end {
        let step = (end - at).min(zeros.len() as u64) as usize;
        file.write_at(at, vec![zeros.sub_slice(0..step)]).await?;
        at += step as u64;
    }
    file.sync_data().await
}

/// The directory that holds `path`, the current one for a bare name.
pub fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Puts the path and what was attempted in front of an error's message; its kind and, in the chain, its number stay.
pub(crate) fn with_path(error: io::Error, action: &str, path: &Path) -> io::Error {
    let kind = error.kind();
    io::Error::new(
        kind,
        PathError {
            action: action.into(),
            path: path.display().to_string(),
            source: error,
        },
    )
}

#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}: {source}")]
struct PathError {
    action: String,
    path: String,
    source: io::Error,
}

/// The operating system's error number anywhere in an error's chain of causes, such as `EIO` or `ENOSPC`.
pub fn os_error_of(error: &io::Error) -> Option<i32> {
    if let Some(number) = error.raw_os_error() {
        return Some(number);
    }
    let inner = error.get_ref()?;
    os_error_of(&inner.downcast_ref::<PathError>()?.source)
}
