//! A disk that notes every change that passes through it to another disk: when it began, when it ended, and what was acknowledged in between.
//!
//! From the notes [`Replay`] rebuilds the disk as a power loss at any moment may have left it, which killing a process cannot show: the page cache survives
//! that. Meant for tests over the real disk; the images follow the same model as [`super::sim`]. Notes grow without bound while the recording lasts
//! and keep all memory that was written from.

mod replay;

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;

use super::{Capabilities, DirEntry, Disk, DiskFile, OpenOptions};
use crate::memory::{AlignedBuffer, AlignedSlice};
pub use replay::{Replay, Step};

/// Names an operation from its beginning to its end.
type OperationId = u64;

/// Names an open file of the recording.
type FileId = u64;

/// Passes everything on to `D` and notes the changes; clones share the notes.
#[derive(Clone)]
pub struct RecordingDisk<D> {
    inner: D,
    notes: Rc<RefCell<Notes>>,
}

struct Notes {
    root: PathBuf,
    next: u64,
    events: Vec<Event>,
}

/// What was noted, in order.
#[derive(Clone)]
enum Event {
    Began(OperationId, Change),
    Ended(OperationId, bool),
    Closed(FileId),
    Mark(u64),
}

#[derive(Clone)]
enum Change {
    Open {
        path: PathBuf,
        create: bool,
        file: FileId,
    },
    CreateDirAll(PathBuf),
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    RemoveFile(PathBuf),
    RemoveDir(PathBuf),
    SyncDir(PathBuf),
    Write {
        file: FileId,
        position: u64,
        pieces: Vec<Bytes>,
        durable: bool,
    },
    Allocate {
        file: FileId,
        position: u64,
        len: u64,
        keep_size: bool,
    },
    Punch {
        file: FileId,
        position: u64,
        len: u64,
    },
    SetLen {
        file: FileId,
        len: u64,
    },
    Sync {
        file: FileId,
    },
}

impl<D: Disk> RecordingDisk<D> {
    /// Records what happens below `root`, a directory that is there, empty and durable.
    pub fn new(inner: D, root: &Path) -> Self {
        let notes = Notes {
            root: root.to_owned(),
            next: 0,
            events: Vec::new(),
        };
        Self {
            inner,
            notes: Rc::new(RefCell::new(notes)),
        }
    }

    /// Notes that something was promised at this moment, such as "all up to `mark` is acknowledged".
    pub fn mark(&self, mark: u64) {
        self.notes.borrow_mut().events.push(Event::Mark(mark));
    }

    /// How much has been noted so far.
    pub fn events(&self) -> usize {
        self.notes.borrow().events.len()
    }

    /// Plays the notes made so far from their beginning.
    pub fn replay(&self) -> io::Result<Replay> {
        let notes = self.notes.borrow();
        Replay::new(&notes.root, notes.events.clone())
    }

    fn next_id(&self) -> u64 {
        let mut notes = self.notes.borrow_mut();
        notes.next += 1;
        notes.next
    }

    /// Notes beginning and end of an operation. One whose future is dropped stays under way forever: it may have happened or not.
    async fn note<T>(
        &self,
        change: Change,
        operation: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        let id = self.next_id();
        self.notes
            .borrow_mut()
            .events
            .push(Event::Began(id, change));
        let result = operation.await;
        self.notes
            .borrow_mut()
            .events
            .push(Event::Ended(id, result.is_ok()));
        result
    }
}

impl<D: Disk> Disk for RecordingDisk<D> {
    type File = RecordingFile<D>;

    async fn open(&self, path: &Path, options: OpenOptions) -> io::Result<RecordingFile<D>> {
        let file = self.next_id();
        let change = Change::Open {
            path: path.to_owned(),
            create: options.create && options.write,
            file,
        };
        let inner = self.note(change, self.inner.open(path, options)).await?;
        let open = OpenFile {
            id: file,
            notes: self.notes.clone(),
        };
        Ok(RecordingFile {
            inner,
            disk: self.clone(),
            durable: options.durable,
            open: Rc::new(open),
        })
    }

    async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.note(
            Change::CreateDirAll(path.to_owned()),
            self.inner.create_dir_all(path),
        )
        .await
    }

    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.note(Change::SyncDir(path.to_owned()), self.inner.sync_dir(path))
            .await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let change = Change::Rename {
            from: from.to_owned(),
            to: to.to_owned(),
        };
        self.note(change, self.inner.rename(from, to)).await
    }

    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.note(
            Change::RemoveFile(path.to_owned()),
            self.inner.remove_file(path),
        )
        .await
    }

    async fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.note(
            Change::RemoveDir(path.to_owned()),
            self.inner.remove_dir(path),
        )
        .await
    }

    async fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.inner.list(path).await
    }

    async fn exists(&self, path: &Path) -> io::Result<bool> {
        self.inner.exists(path).await
    }

    async fn available_bytes(&self, path: &Path) -> io::Result<u64> {
        self.inner.available_bytes(path).await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}

/// An open file whose changes are noted; clones share it.
#[derive(Clone)]
pub struct RecordingFile<D: Disk> {
    inner: D::File,
    disk: RecordingDisk<D>,
    durable: bool,
    open: Rc<OpenFile>,
}

struct OpenFile {
    id: FileId,
    notes: Rc<RefCell<Notes>>,
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        self.notes.borrow_mut().events.push(Event::Closed(self.id));
    }
}

impl<D: Disk> DiskFile for RecordingFile<D> {
    async fn write_at(&self, position: u64, pieces: Vec<AlignedSlice>) -> io::Result<()> {
        let noted = pieces
            .iter()
            .cloned()
            .map(AlignedSlice::into_bytes)
            .collect();
        let change = Change::Write {
            file: self.open.id,
            position,
            pieces: noted,
            durable: self.durable,
        };
        self.disk
            .note(change, self.inner.write_at(position, pieces))
            .await
    }

    async fn read_at(
        &self,
        position: u64,
        buffer: AlignedBuffer,
        len: usize,
    ) -> io::Result<(AlignedBuffer, usize)> {
        self.inner.read_at(position, buffer, len).await
    }

    async fn allocate(&self, position: u64, len: u64, keep_size: bool) -> io::Result<()> {
        let change = Change::Allocate {
            file: self.open.id,
            position,
            len,
            keep_size,
        };
        self.disk
            .note(change, self.inner.allocate(position, len, keep_size))
            .await
    }

    async fn punch(&self, position: u64, len: u64) -> io::Result<()> {
        let change = Change::Punch {
            file: self.open.id,
            position,
            len,
        };
        self.disk
            .note(change, self.inner.punch(position, len))
            .await
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk
            .note(
                Change::SetLen {
                    file: self.open.id,
                    len,
                },
                self.inner.set_len(len),
            )
            .await
    }

    async fn sync_data(&self) -> io::Result<()> {
        self.disk
            .note(Change::Sync { file: self.open.id }, self.inner.sync_data())
            .await
    }

    async fn len(&self) -> io::Result<u64> {
        self.inner.len().await
    }

    async fn close(self) -> io::Result<()> {
        self.inner.close().await
    }
}
