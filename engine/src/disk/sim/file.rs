//! An open file of the simulated disk.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;
use nix::errno::Errno;

use super::{FaultKind, NodeId, Operation, SimDisk, WriteId};
use crate::disk::{DiskFile, OpenOptions, with_path};
use crate::memory::{AlignedBuffer, AlignedSlice, is_aligned};

/// A file of a [`SimDisk`]; clones share it.
#[derive(Clone)]
pub struct SimFile {
    open: Rc<OpenFile>,
}

struct OpenFile {
    disk: SimDisk,
    node: NodeId,
    path: PathBuf,
    options: OpenOptions,
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let mut state = self.disk.state.borrow_mut();
        state.open_files = state.open_files.saturating_sub(1);
        if !state.frozen {
            state.medium.close(self.node);
        }
    }
}

/// A write between its start and its completion; when its future is dropped, the device goes on with it all the same.
struct InFlight<'a> {
    file: &'a OpenFile,
    write: Option<WriteId>,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut state = self.file.disk.state.borrow_mut();
        if let (Some(write), false) = (self.write.take(), state.frozen) {
            state.medium.complete_write(self.file.node, write);
        }
    }
}

impl SimFile {
    pub(super) fn new(disk: SimDisk, node: NodeId, path: &Path, options: OpenOptions) -> Self {
        Self {
            open: Rc::new(OpenFile {
                disk,
                node,
                path: path.to_owned(),
                options,
            }),
        }
    }

    fn failure<T>(&self, action: &str, errno: Errno) -> io::Result<T> {
        Err(with_path(
            io::Error::from_raw_os_error(errno as i32),
            action,
            &self.open.path,
        ))
    }

    async fn resize(
        &self,
        action: &str,
        act: impl FnOnce(&mut super::Medium, NodeId) -> io::Result<()>,
    ) -> io::Result<()> {
        if !self.open.options.write {
            return self.failure(action, Errno::EBADF);
        }
        let node = self.open.node;
        let open = &self.open;
        open.disk
            .attempt(Operation::Resize, &open.path, action, |state| {
                act(&mut state.medium, node)
            })
            .await
    }
}

impl DiskFile for SimFile {
    async fn write_at(&self, position: u64, pieces: Vec<AlignedSlice>) -> io::Result<()> {
        let open = &*self.open;
        if !open.options.write {
            return self.failure("write", Errno::EBADF);
        }
        if !is_aligned(position) {
            return self.failure("write", Errno::EINVAL);
        }
        // A copy, as a device makes one: the writer's memory is free again once the write is over.
        let bytes: Vec<_> = pieces
            .iter()
            .map(|piece| Bytes::copy_from_slice(piece))
            .collect();
        let begun = open.disk.state.borrow_mut().medium.begin_write(
            open.node,
            position,
            &bytes,
            open.options.durable,
        );
        let write = begun.map_err(|error| with_path(error, "write", &open.path))?;
        let mut in_flight = InFlight {
            file: open,
            write: Some(write),
        };
        let fault = open.disk.operate(Operation::Write, &open.path).await;
        in_flight.write = None;
        let mut state = open.disk.state.borrow_mut();
        let state = &mut *state;
        let medium = &mut state.medium;
        match fault {
            None | Some(FaultKind::BitFlip) => medium.complete_write(open.node, write),
            Some(FaultKind::OutOfSpace | FaultKind::NoDescriptor) => {
                medium.cancel_write(open.node, write)
            }
            Some(FaultKind::InputOutput) => medium.fail_write(open.node, write, &mut state.random),
        }
        match fault.and_then(FaultKind::errno) {
            None => Ok(()),
            Some(errno) => self.failure("write", errno),
        }
    }

    async fn read_at(
        &self,
        position: u64,
        mut buffer: AlignedBuffer,
        len: usize,
    ) -> io::Result<(AlignedBuffer, usize)> {
        let open = &*self.open;
        if !is_aligned(position) || !is_aligned(len as u64) || len > buffer.capacity() {
            return self.failure("read", Errno::EINVAL);
        }
        let fault = open.disk.operate(Operation::Read, &open.path).await;
        if let Some(errno) = fault.and_then(FaultKind::errno) {
            return self.failure("read", errno);
        }
        let mut state = open.disk.state.borrow_mut();
        let bytes = state.medium.read(open.node, position, len);
        let mut bytes = bytes.map_err(|error| with_path(error, "read", &open.path))?;
        if fault == Some(FaultKind::BitFlip) && !bytes.is_empty() {
            let at = state.random.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << state.random.below(8);
        }
        buffer.clear();
        buffer.extend_from_slice(&bytes);
        Ok((buffer, bytes.len()))
    }

    async fn allocate(&self, position: u64, len: u64, keep_size: bool) -> io::Result<()> {
        self.resize("reserve space for", |medium, node| {
            medium.allocate(node, position, len, keep_size)
        })
        .await
    }

    async fn punch(&self, position: u64, len: u64) -> io::Result<()> {
        self.resize("give space back of", |medium, node| {
            medium.punch(node, position, len)
        })
        .await
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        self.resize("set the length of", |medium, node| {
            medium.set_len(node, len)
        })
        .await
    }

    async fn sync_data(&self) -> io::Result<()> {
        let open = &*self.open;
        let begun = open.disk.state.borrow().medium.begin_sync(open.node);
        let mark = begun.map_err(|error| with_path(error, "sync", &open.path))?;
        let fault = open.disk.operate(Operation::Sync, &open.path).await;
        let mut state = open.disk.state.borrow_mut();
        match fault.and_then(FaultKind::errno) {
            None => {
                state.medium.complete_sync(open.node, mark);
                Ok(())
            }
            Some(errno) => {
                state.medium.fail_sync(open.node, mark);
                self.failure("sync", errno)
            }
        }
    }

    async fn len(&self) -> io::Result<u64> {
        let node = self.open.node;
        self.open
            .disk
            .attempt(
                Operation::Names,
                &self.open.path,
                "ask for the length of",
                |state| state.medium.len(node),
            )
            .await
    }

    async fn close(self) -> io::Result<()> {
        Ok(())
    }
}
