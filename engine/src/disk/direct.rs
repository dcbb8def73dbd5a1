//! Files of the operating system: io_uring through compio, O_DIRECT past the page cache, O_DSYNC for what must be on the medium.
//!
//! Assumes a compio runtime on the current thread. Where a file system refuses O_DIRECT the files are opened again without it, O_DSYNC
//! stays, and one warning says what that costs. What compio has no io_uring operation for (space, directory listings) runs on its pool of blocking threads, never
//! on the shard. Errors are never retried or interpreted here: EIO and ENOSPC come out with the path they concern.

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Once;

use compio::BufResult;
use compio::buf::{IntoInner, IoBuf};
use compio::driver::{DriverType, SharedFd, ToSharedFd};
use compio::fs::File;
use compio::io::{AsyncReadAt, AsyncWriteAt};
use compio::runtime::Runtime;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, OFlag, fallocate, fcntl};

use super::{Capabilities, DirEntry, Disk, DiskFile, OpenOptions, WRITE_PIECES_MAX, with_path};
use crate::memory::{AlignedBuffer, AlignedSlice, BLOCK_BYTES, is_aligned, round_down};

/// How often a write that makes no whole block of progress is continued before it counts as failed.
const STALLED_WRITES_MAX: u32 = 8;

static DIRECT_REFUSED: Once = Once::new();

/// The operating system's file systems, used from one thread.
#[derive(Clone, Debug)]
pub struct DirectDisk {
    use_direct: bool,
    refused: Rc<Cell<bool>>,
}

impl Default for DirectDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl DirectDisk {
    /// Uses O_DIRECT wherever the file system of a file takes it.
    pub fn new() -> Self {
        Self {
            use_direct: true,
            refused: Rc::default(),
        }
    }

    /// Never uses O_DIRECT; durable files are still O_DSYNC.
    pub fn buffered() -> Self {
        Self {
            use_direct: false,
            refused: Rc::default(),
        }
    }

    fn note_direct_refused(&self, path: &Path) {
        self.refused.set(true);
        DIRECT_REFUSED.call_once(|| {
            tracing::warn!(
                path = %path.display(),
                "this file system refuses O_DIRECT (tmpfs and some overlays do): writing through the page cache. \
                 Acknowledged data is still on disk first (O_DSYNC), but memory use and latency will be higher; \
                 put log.dirs on ext4 or xfs to avoid it"
            );
        });
    }
}

async fn open_with(path: &Path, options: OpenOptions, direct: bool) -> io::Result<File> {
    let mut flags = OFlag::empty();
    flags.set(OFlag::O_DIRECT, direct);
    flags.set(OFlag::O_DSYNC, options.durable);
    let mut open = compio::fs::OpenOptions::new();
    open.read(true)
        .write(options.write)
        .create(options.create && options.write)
        .custom_flags(flags.bits());
    open.open(path).await
}

fn is_invalid(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EINVAL as i32)
}

/// Runs a blocking call on compio's pool.
async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    compio::runtime::spawn_blocking(call).await?
}

impl Disk for DirectDisk {
    type File = DirectFile;

    async fn open(&self, path: &Path, options: OpenOptions) -> io::Result<DirectFile> {
        let direct = options.direct && self.use_direct;
        let (file, direct) = match open_with(path, options, direct).await {
            Err(error) if direct && is_invalid(&error) => {
                self.note_direct_refused(path);
                (open_with(path, options, false).await, false)
            }
            opened => (opened, direct),
        };
        let file = file.map_err(|error| with_path(error, "open", path))?;
        let open = OpenFile {
            file,
            disk: self.clone(),
            path: path.to_owned(),
            direct: Cell::new(direct),
        };
        Ok(DirectFile {
            open: Rc::new(open),
        })
    }

    async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        compio::fs::create_dir_all(path)
            .await
            .map_err(|error| with_path(error, "create directory", path))
    }

    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let sync = async {
            let mut open = compio::fs::OpenOptions::new();
            let dir = open
                .read(true)
                .custom_flags(OFlag::O_DIRECTORY.bits())
                .open(path)
                .await?;
            dir.sync_all().await?;
            dir.close().await
        };
        sync.await
            .map_err(|error| with_path(error, "sync directory", path))
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        compio::fs::rename(from, to)
            .await
            .map_err(|error| with_path(error, "rename", from))
    }

    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        compio::fs::remove_file(path)
            .await
            .map_err(|error| with_path(error, "remove", path))
    }

    async fn remove_dir(&self, path: &Path) -> io::Result<()> {
        compio::fs::remove_dir(path)
            .await
            .map_err(|error| with_path(error, "remove directory", path))
    }

    async fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let dir = path.to_owned();
        blocking(move || list_blocking(&dir))
            .await
            .map_err(|error| with_path(error, "list", path))
    }

    async fn exists(&self, path: &Path) -> io::Result<bool> {
        match compio::fs::metadata(path).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(with_path(error, "look for", path)),
        }
    }

    async fn available_bytes(&self, path: &Path) -> io::Result<u64> {
        let at = path.to_owned();
        let stat = blocking(move || Ok(nix::sys::statvfs::statvfs(&at)?)).await;
        let stat = stat.map_err(|error| with_path(error, "ask for the free space of", path))?;
        Ok(stat.blocks_available() * stat.fragment_size())
    }

    fn capabilities(&self) -> Capabilities {
        let driver = Runtime::try_with_current(|runtime| runtime.driver_type());
        Capabilities {
            direct: self.use_direct && !self.refused.get(),
            io_uring: matches!(driver, Ok(DriverType::IoUring)),
        }
    }
}

fn list_blocking(path: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let Ok(name) = entry.file_name().into_string() else {
            tracing::warn!(path = %entry.path().display(), "ignoring a name that is not UTF-8");
            continue;
        };
        let is_dir = metadata.is_dir();
        entries.push(DirEntry {
            name,
            len: if is_dir { 0 } else { metadata.len() },
            is_dir,
        });
    }
    entries.sort();
    Ok(entries)
}

/// An open file of the operating system; clones share it.
#[derive(Clone)]
pub struct DirectFile {
    open: Rc<OpenFile>,
}

struct OpenFile {
    file: File,
    disk: DirectDisk,
    path: PathBuf,
    direct: Cell<bool>,
}

impl OpenFile {
    fn fd(&self) -> SharedFd<std::fs::File> {
        self.file.to_shared_fd()
    }

    /// Goes on without O_DIRECT on the same descriptor, where opening with it was allowed but using it is not.
    fn stop_direct(&self) -> io::Result<()> {
        let fd = self.fd();
        let flags = OFlag::from_bits_retain(fcntl(&*fd, FcntlArg::F_GETFL)?);
        fcntl(&*fd, FcntlArg::F_SETFL(flags - OFlag::O_DIRECT))?;
        self.direct.set(false);
        self.disk.note_direct_refused(&self.path);
        Ok(())
    }

    /// One kernel write of up to `WRITE_PIECES_MAX` pieces, continued when it comes back short.
    async fn write_group(
        &self,
        mut position: u64,
        mut pieces: Vec<AlignedSlice>,
    ) -> io::Result<()> {
        let mut stalled = 0;
        while !pieces.is_empty() {
            let BufResult(result, returned) =
                (&self.file).write_vectored_at(pieces, position).await;
            pieces = returned;
            let written = match result {
                Ok(written) => written,
                Err(error) if self.direct.get() && is_invalid(&error) => {
                    self.stop_direct()?;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            // A block written in part is written again: the same bytes to the same place.
            let whole = round_down(written);
            if whole == 0 {
                stalled += 1;
                if written == 0 || stalled > STALLED_WRITES_MAX {
                    return Err(io::ErrorKind::WriteZero.into());
                }
            }
            skip_front(&mut pieces, whole);
            position += whole as u64;
        }
        Ok(())
    }

    async fn read(
        &self,
        position: u64,
        mut buffer: AlignedBuffer,
        len: usize,
    ) -> io::Result<AlignedBuffer> {
        buffer.clear();
        while buffer.len() < len {
            let got = buffer.len();
            let BufResult(result, slice) = self
                .file
                .read_at(buffer.slice(got..len), position + got as u64)
                .await;
            buffer = slice.into_inner();
            match result {
                Ok(0) => break,
                // A direct read ends off a block boundary only at the end of the file.
                Ok(_) if self.direct.get() && !buffer.len().is_multiple_of(BLOCK_BYTES) => break,
                Ok(_) => {}
                Err(error) if self.direct.get() && is_invalid(&error) => self.stop_direct()?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(buffer)
    }

    async fn fallocate(&self, flags: FallocateFlags, position: u64, len: u64) -> io::Result<()> {
        // Its own descriptor, so that the call may outlive this future.
        let file = self.fd().try_clone()?;
        blocking(move || Ok(fallocate(&file, flags, offset(position)?, offset(len)?)?)).await
    }

    fn error(&self, action: &str, error: io::Error) -> io::Error {
        with_path(error, action, &self.path)
    }
}

fn offset(bytes: u64) -> io::Result<i64> {
    i64::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Removes the first `bytes` bytes, a whole number of blocks.
fn skip_front(pieces: &mut Vec<AlignedSlice>, mut bytes: usize) {
    let done = pieces.iter().take_while(|piece| {
        let whole = piece.len() <= bytes;
        if whole {
            bytes -= piece.len();
        }
        whole
    });
    let done = done.count();
    pieces.drain(..done);
    if bytes > 0
        && let Some(first) = pieces.first_mut()
    {
        *first = first.sub_slice(bytes..first.len());
    }
}

impl DiskFile for DirectFile {
    async fn write_at(&self, position: u64, mut pieces: Vec<AlignedSlice>) -> io::Result<()> {
        let open = &*self.open;
        if !is_aligned(position) {
            return Err(open.error("write", io::ErrorKind::InvalidInput.into()));
        }
        let mut position = position;
        while pieces.len() > WRITE_PIECES_MAX {
            let rest = pieces.split_off(WRITE_PIECES_MAX);
            let group = std::mem::replace(&mut pieces, rest);
            let len: usize = group.iter().map(AlignedSlice::len).sum();
            open.write_group(position, group)
                .await
                .map_err(|error| open.error("write", error))?;
            position += len as u64;
        }
        open.write_group(position, pieces)
            .await
            .map_err(|error| open.error("write", error))
    }

    async fn read_at(
        &self,
        position: u64,
        buffer: AlignedBuffer,
        len: usize,
    ) -> io::Result<(AlignedBuffer, usize)> {
        let open = &*self.open;
        if !is_aligned(position) || !is_aligned(len as u64) || len > buffer.capacity() {
            return Err(open.error("read", io::ErrorKind::InvalidInput.into()));
        }
        let buffer = open
            .read(position, buffer, len)
            .await
            .map_err(|error| open.error("read", error))?;
        let read = buffer.len();
        Ok((buffer, read))
    }

    async fn allocate(&self, position: u64, len: u64, keep_size: bool) -> io::Result<()> {
        let open = &*self.open;
        let flags = if keep_size {
            FallocateFlags::FALLOC_FL_KEEP_SIZE
        } else {
            FallocateFlags::empty()
        };
        open.fallocate(flags, position, len)
            .await
            .map_err(|error| open.error("reserve space for", error))
    }

    async fn punch(&self, position: u64, len: u64) -> io::Result<()> {
        let open = &*self.open;
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        open.fallocate(flags, position, len)
            .await
            .map_err(|error| open.error("give space back of", error))
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        let open = &*self.open;
        open.file
            .set_len(len)
            .await
            .map_err(|error| open.error("set the length of", error))
    }

    async fn sync_data(&self) -> io::Result<()> {
        let open = &*self.open;
        open.file
            .sync_data()
            .await
            .map_err(|error| open.error("sync", error))
    }

    async fn len(&self) -> io::Result<u64> {
        let open = &*self.open;
        let metadata = open
            .file
            .metadata()
            .await
            .map_err(|error| open.error("ask for the length of", error))?;
        Ok(metadata.len())
    }

    async fn close(self) -> io::Result<()> {
        match Rc::try_unwrap(self.open) {
            Ok(OpenFile { file, path, .. }) => file
                .close()
                .await
                .map_err(|error| with_path(error, "close", &path)),
            Err(_still_open_elsewhere) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    //! A file that opens with O_DIRECT but cannot be used so goes on without it, and keeps O_DSYNC.

    use super::*;

    #[compio::test]
    async fn direct_is_given_up_on_the_open_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let disk = DirectDisk::new();
        let file = disk
            .open(&dir.path().join("f"), OpenOptions::JOURNAL)
            .await
            .unwrap();
        file.open.stop_direct().unwrap();
        let flags = OFlag::from_bits_retain(fcntl(&*file.open.fd(), FcntlArg::F_GETFL).unwrap());
        assert!(!flags.contains(OFlag::O_DIRECT) && flags.contains(OFlag::O_DSYNC));
        assert!(!disk.capabilities().direct);
        let block = AlignedBuffer::copied_from(&[7; BLOCK_BYTES]).into_aligned_slice();
        file.write_at(0, vec![block]).await.unwrap();
        let buffer = AlignedBuffer::with_capacity(BLOCK_BYTES);
        let (buffer, read) = file.read_at(0, buffer, BLOCK_BYTES).await.unwrap();
        assert_eq!((read, buffer[0]), (BLOCK_BYTES, 7));
    }

    #[test]
    fn what_is_written_is_skipped_to_the_block() {
        let piece = |byte: u8, blocks: usize| {
            AlignedBuffer::copied_from(&vec![byte; blocks * BLOCK_BYTES]).into_aligned_slice()
        };
        let mut pieces = vec![piece(1, 2), piece(2, 1), piece(3, 3)];
        skip_front(&mut pieces, 4 * BLOCK_BYTES);
        assert_eq!(
            pieces
                .iter()
                .map(|piece| (piece[0], piece.len()))
                .collect::<Vec<_>>(),
            [(3, 2 * BLOCK_BYTES)]
        );
        skip_front(&mut pieces, 2 * BLOCK_BYTES);
        assert!(pieces.is_empty());
    }
}
