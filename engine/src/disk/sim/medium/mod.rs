//! The model of a file system on a device that may lose power: names, files, space. No time, no tasks.
//!
//! Names follow the same rule as contents: what was created, renamed or removed and not yet synced with its directory may or may not
//! have happened after a power loss, each change for itself, except that a change whose names depend on an earlier one does not happen without it
//! (`images`).

mod images;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path};

use bytes::Bytes;
use nix::errno::Errno;

use super::file_node::{FileNode, SyncMark, WriteId};
use crate::disk::DirEntry;
use crate::random::Random;

pub(crate) type NodeId = u64;

/// How far the changes to names had come when a directory sync began.
pub(crate) type NameMark = u64;

const ROOT: NodeId = 0;

/// Everything a simulated disk holds.
#[derive(Clone)]
pub(crate) struct Medium {
    nodes: BTreeMap<NodeId, Node>,
    next_node: NodeId,
    /// Changes to names that are not durable yet, with their place in the order of all changes.
    pending_names: Vec<(NameMark, NameChange)>,
    name_changes: NameMark,
    capacity_bytes: u64,
    used_bytes: u64,
    /// Whether a durable write that makes a file longer also makes the new length durable.
    pub(crate) extension_is_durable: bool,
}

#[derive(Clone)]
enum Node {
    Dir(DirNode),
    File(FileNode),
}

#[derive(Clone, Default)]
struct DirNode {
    live: BTreeMap<String, NodeId>,
    durable: BTreeMap<String, NodeId>,
}

#[derive(Clone)]
enum NameChange {
    Link { at: Name, node: NodeId },
    Unlink { at: Name },
    Rename { from: Name, to: Name },
}

type Name = (NodeId, String);

impl NameChange {
    fn names(&self) -> impl Iterator<Item = &Name> {
        let (first, second) = match self {
            Self::Link { at, .. } | Self::Unlink { at } => (at, None),
            Self::Rename { from, to } => (from, Some(to)),
        };
        std::iter::once(first).chain(second)
    }
}

fn failure(errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(errno as i32)
}

impl Medium {
    /// An empty file system with this much space.
    pub(crate) fn new(capacity_bytes: u64) -> Self {
        Self {
            nodes: BTreeMap::from([(ROOT, Node::Dir(DirNode::default()))]),
            next_node: ROOT + 1,
            pending_names: Vec::new(),
            name_changes: 0,
            capacity_bytes,
            used_bytes: 0,
            extension_is_durable: false,
        }
    }

    pub(crate) fn set_capacity_bytes(&mut self, capacity_bytes: u64) {
        self.capacity_bytes = capacity_bytes;
    }

    pub(crate) fn available_bytes(&self) -> u64 {
        self.capacity_bytes.saturating_sub(self.used_bytes)
    }

    // Names

    fn dir(&self, id: NodeId) -> io::Result<&DirNode> {
        match self.nodes.get(&id) {
            Some(Node::Dir(dir)) => Ok(dir),
            Some(Node::File(_)) => Err(failure(Errno::ENOTDIR)),
            None => Err(failure(Errno::ENOENT)),
        }
    }

    fn dir_mut(&mut self, id: NodeId) -> io::Result<&mut DirNode> {
        match self.nodes.get_mut(&id) {
            Some(Node::Dir(dir)) => Ok(dir),
            Some(Node::File(_)) => Err(failure(Errno::ENOTDIR)),
            None => Err(failure(Errno::ENOENT)),
        }
    }

    fn components(path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for component in path.components() {
            match component {
                Component::Normal(name) => match name.to_str() {
                    Some(name) => names.push(name.to_owned()),
                    None => return Err(failure(Errno::EINVAL)),
                },
                Component::RootDir | Component::CurDir => {}
                Component::ParentDir | Component::Prefix(_) => return Err(failure(Errno::EINVAL)),
            }
        }
        Ok(names)
    }

    fn find(&self, path: &Path) -> io::Result<NodeId> {
        let mut id = ROOT;
        for name in Self::components(path)? {
            id = *self
                .dir(id)?
                .live
                .get(&name)
                .ok_or_else(|| failure(Errno::ENOENT))?;
        }
        Ok(id)
    }

    /// The directory a path lies in, and its last name.
    fn name(&self, path: &Path) -> io::Result<Name> {
        let mut names = Self::components(path)?;
        let last = names.pop().ok_or_else(|| failure(Errno::EINVAL))?;
        let mut id = ROOT;
        for name in names {
            id = *self
                .dir(id)?
                .live
                .get(&name)
                .ok_or_else(|| failure(Errno::ENOENT))?;
        }
        self.dir(id)?;
        Ok((id, last))
    }

    fn link(&mut self, at: Name, node: Node) -> io::Result<NodeId> {
        let id = self.next_node;
        self.next_node += 1;
        self.dir_mut(at.0)?.live.insert(at.1.clone(), id);
        self.nodes.insert(id, node);
        self.change_names(NameChange::Link { at, node: id });
        Ok(id)
    }

    /// Opens a file, making it when asked to; to be closed with [`Medium::close`].
    pub(crate) fn open(&mut self, path: &Path, create: bool) -> io::Result<NodeId> {
        let at = self.name(path)?;
        let id = match self.dir(at.0)?.live.get(&at.1) {
            Some(id) => *id,
            None if create => self.link(at, Node::File(FileNode::default().linked(1, 0)))?,
            None => return Err(failure(Errno::ENOENT)),
        };
        self.file_mut(id)?.open_handles += 1;
        Ok(id)
    }

    pub(crate) fn close(&mut self, id: NodeId) {
        if let Ok(file) = self.file_mut(id) {
            file.open_handles = file.open_handles.saturating_sub(1);
        }
        self.free_if_unused(id);
    }

    pub(crate) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut id = ROOT;
        for name in Self::components(path)? {
            id = match self.dir(id)?.live.get(&name) {
                Some(child) => *child,
                None => self.link((id, name), Node::Dir(DirNode::default()))?,
            };
        }
        match self.nodes.get(&id) {
            Some(Node::File(_)) => Err(failure(Errno::EEXIST)),
            _ => Ok(()),
        }
    }

    pub(crate) fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let dir = self.dir(self.find(path)?)?;
        let entries = dir.live.iter().filter_map(|(name, id)| {
            let (len, is_dir) = match self.nodes.get(id)? {
                Node::Dir(_) => (0, true),
                Node::File(file) => (file.len(), false),
            };
            Some(DirEntry {
                name: name.clone(),
                len,
                is_dir,
            })
        });
        Ok(entries.collect())
    }

    pub(crate) fn exists(&self, path: &Path) -> bool {
        self.find(path).is_ok()
    }

    pub(crate) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        let at = self.name(path)?;
        let id = *self
            .dir(at.0)?
            .live
            .get(&at.1)
            .ok_or_else(|| failure(Errno::ENOENT))?;
        self.file_mut(id)?.live_links -= 1;
        self.dir_mut(at.0)?.live.remove(&at.1);
        self.change_names(NameChange::Unlink { at });
        self.free_if_unused(id);
        Ok(())
    }

    pub(crate) fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        let at = self.name(path)?;
        let id = *self
            .dir(at.0)?
            .live
            .get(&at.1)
            .ok_or_else(|| failure(Errno::ENOENT))?;
        if !self.dir(id)?.live.is_empty() {
            return Err(failure(Errno::ENOTEMPTY));
        }
        self.dir_mut(at.0)?.live.remove(&at.1);
        self.change_names(NameChange::Unlink { at });
        Ok(())
    }

    pub(crate) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from_names, to_names) = (Self::components(from)?, Self::components(to)?);
        let (from, to) = (self.name(from)?, self.name(to)?);
        let id = *self
            .dir(from.0)?
            .live
            .get(&from.1)
            .ok_or_else(|| failure(Errno::ENOENT))?;
        if from == to {
            return Ok(());
        }
        if to_names.starts_with(&from_names) {
            return Err(failure(Errno::EINVAL));
        }
        if from_names.starts_with(&to_names) {
            return Err(failure(Errno::ENOTEMPTY));
        }
        let replaced = self.dir(to.0)?.live.get(&to.1).copied();
        if let Some(replaced) = replaced {
            match self.nodes.get(&replaced) {
                Some(Node::Dir(_)) if self.dir(id).is_err() => return Err(failure(Errno::EISDIR)),
                Some(Node::File(_)) if self.dir(id).is_ok() => return Err(failure(Errno::ENOTDIR)),
                Some(Node::Dir(dir)) if !dir.live.is_empty() => {
                    return Err(failure(Errno::ENOTEMPTY));
                }
                _ => {}
            }
        }
        self.dir_mut(from.0)?.live.remove(&from.1);
        self.dir_mut(to.0)?.live.insert(to.1.clone(), id);
        self.change_names(NameChange::Rename { from, to });
        if let Some(replaced) = replaced {
            if let Ok(file) = self.file_mut(replaced) {
                file.live_links -= 1;
            }
            self.free_if_unused(replaced);
        }
        Ok(())
    }

    fn change_names(&mut self, change: NameChange) {
        self.name_changes += 1;
        self.pending_names.push((self.name_changes, change));
    }

    /// The directory whose names are to be synced, and the changes that the sync covers.
    pub(crate) fn begin_sync_dir(&self, path: &Path) -> io::Result<(NodeId, NameMark)> {
        let id = self.find(path)?;
        self.dir(id).map(|_| (id, self.name_changes))
    }

    /// Makes the changes to the names in directory `id` up to `mark` durable, and the earlier changes they build on.
    pub(crate) fn complete_sync_dir(&mut self, (id, mark): (NodeId, NameMark)) {
        let mut chosen = vec![false; self.pending_names.len()];
        let mut names: BTreeSet<Name> = BTreeSet::new();
        for (index, (at, change)) in self.pending_names.iter().enumerate().rev() {
            let of_this_dir = *at <= mark && change.names().any(|name| name.0 == id);
            if of_this_dir || change.names().any(|name| names.contains(name)) {
                chosen[index] = true;
                names.extend(change.names().cloned());
            }
        }
        let changes = std::mem::take(&mut self.pending_names);
        for ((at, change), chosen) in changes.into_iter().zip(chosen) {
            if chosen {
                self.make_durable(&change);
            } else {
                self.pending_names.push((at, change));
            }
        }
        self.forget_removed();
    }

    fn make_durable(&mut self, change: &NameChange) {
        let mut replaced = None;
        match change {
            NameChange::Link { at, node } => {
                if let Ok(file) = self.file_mut(*node) {
                    file.durable_links += 1;
                }
                if let Ok(dir) = self.dir_mut(at.0) {
                    replaced = dir.durable.insert(at.1.clone(), *node);
                }
            }
            NameChange::Unlink { at } => {
                if let Ok(dir) = self.dir_mut(at.0) {
                    replaced = dir.durable.remove(&at.1);
                }
            }
            NameChange::Rename { from, to } => {
                let node = self
                    .dir_mut(from.0)
                    .ok()
                    .and_then(|dir| dir.durable.remove(&from.1));
                if let (Some(node), Ok(dir)) = (node, self.dir_mut(to.0)) {
                    replaced = dir.durable.insert(to.1.clone(), node);
                }
            }
        }
        if let Some(Ok(file)) = replaced.map(|id| self.file_mut(id)) {
            file.durable_links = file.durable_links.saturating_sub(1);
        }
    }

    fn forget_removed(&mut self) {
        let named: BTreeSet<NodeId> = self
            .pending_names
            .iter()
            .filter_map(|(_, change)| match change {
                NameChange::Link { node, .. } => Some(*node),
                _ => None,
            })
            .collect();
        self.nodes.retain(|id, node| match node {
            Node::Dir(_) => true,
            Node::File(file) => {
                file.live_links > 0
                    || file.durable_links > 0
                    || file.open_handles > 0
                    || named.contains(id)
            }
        });
    }

    // Files

    fn file(&self, id: NodeId) -> io::Result<&FileNode> {
        match self.nodes.get(&id) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Dir(_)) => Err(failure(Errno::EISDIR)),
            None => Err(failure(Errno::ENOENT)),
        }
    }

    fn file_mut(&mut self, id: NodeId) -> io::Result<&mut FileNode> {
        match self.nodes.get_mut(&id) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Dir(_)) => Err(failure(Errno::EISDIR)),
            None => Err(failure(Errno::ENOENT)),
        }
    }

    fn free_if_unused(&mut self, id: NodeId) {
        if let Ok(file) = self.file(id)
            && file.live_links == 0
            && file.open_handles == 0
        {
            self.used_bytes = self.used_bytes.saturating_sub(file.allocated_bytes());
        }
    }

    fn take_space(&mut self, id: NodeId, position: u64, len: u64) -> io::Result<()> {
        let missing = self.file(id)?.missing_bytes(position, len);
        if missing > self.available_bytes() {
            return Err(failure(Errno::ENOSPC));
        }
        self.used_bytes += missing;
        Ok(())
    }

    pub(crate) fn len(&self, id: NodeId) -> io::Result<u64> {
        Ok(self.file(id)?.len())
    }

    pub(crate) fn read(&self, id: NodeId, position: u64, len: usize) -> io::Result<Vec<u8>> {
        Ok(self.file(id)?.read(position, len))
    }

    pub(crate) fn begin_write(
        &mut self,
        id: NodeId,
        position: u64,
        pieces: &[Bytes],
        durable: bool,
    ) -> io::Result<WriteId> {
        let len: usize = pieces.iter().map(Bytes::len).sum();
        self.take_space(id, position, len as u64)?;
        Ok(self.file_mut(id)?.begin_write(position, pieces, durable))
    }

    pub(crate) fn complete_write(&mut self, id: NodeId, write: WriteId) {
        let extension_is_durable = self.extension_is_durable;
        if let Ok(file) = self.file_mut(id) {
            file.complete_write(write, extension_is_durable);
        }
    }

    pub(crate) fn cancel_write(&mut self, id: NodeId, write: WriteId) {
        if let Ok(file) = self.file_mut(id) {
            file.cancel_write(write);
        }
    }

    pub(crate) fn fail_write(&mut self, id: NodeId, write: WriteId, random: &mut Random) {
        if let Ok(file) = self.file_mut(id) {
            file.fail_write(write, random);
        }
    }

    pub(crate) fn allocate(
        &mut self,
        id: NodeId,
        position: u64,
        len: u64,
        keep_size: bool,
    ) -> io::Result<()> {
        self.take_space(id, position, len)?;
        self.file_mut(id)?.allocate(position, len, keep_size);
        Ok(())
    }

    pub(crate) fn punch(&mut self, id: NodeId, position: u64, len: u64) -> io::Result<()> {
        self.resize(id, |file| file.punch(position, len))
    }

    pub(crate) fn set_len(&mut self, id: NodeId, len: u64) -> io::Result<()> {
        self.resize(id, |file| file.set_len(len))
    }

    fn resize(&mut self, id: NodeId, change: impl FnOnce(&mut FileNode)) -> io::Result<()> {
        let file = self.file_mut(id)?;
        let before = file.allocated_bytes();
        change(file);
        let after = file.allocated_bytes();
        self.used_bytes = (self.used_bytes + after).saturating_sub(before);
        Ok(())
    }

    pub(crate) fn begin_sync(&self, id: NodeId) -> io::Result<SyncMark> {
        Ok(self.file(id)?.begin_sync())
    }

    pub(crate) fn complete_sync(&mut self, id: NodeId, mark: SyncMark) {
        if let Ok(file) = self.file_mut(id) {
            file.complete_sync(mark);
        }
    }

    pub(crate) fn fail_sync(&mut self, id: NodeId, mark: SyncMark) {
        if let Ok(file) = self.file_mut(id) {
            file.fail_sync(mark);
        }
    }

    pub(crate) fn flip_bit(&mut self, path: &Path, position: u64, bit: u8) -> io::Result<()> {
        let id = self.find(path)?;
        self.file_mut(id)?.flip_bit(position, bit);
        Ok(())
    }

    /// Puts a file there that is wholly on the medium, with its name and directories.
    pub(crate) fn place(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            self.create_dir_all(parent)?;
        }
        let at = self.name(path)?;
        let file = FileNode::settled(bytes).linked(1, 0);
        self.used_bytes += file.allocated_bytes();
        self.link(at, Node::File(file))?;
        self.settle_names();
        Ok(())
    }

    /// Makes all names durable at once.
    pub(crate) fn settle_names(&mut self) {
        for (_, change) in std::mem::take(&mut self.pending_names) {
            self.make_durable(&change);
        }
        self.forget_removed();
    }
}
