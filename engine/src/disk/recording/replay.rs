//! Plays a recording back, event by event, and gives the disk as a power loss between two events may have left it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::{Change, Event, FileId, OperationId};
use crate::disk::sim::{Medium, NameMark, NodeId, SimDisk, SyncMark, WriteId};
use crate::random::Random;

/// A walk through a recording.
pub struct Replay {
    events: std::vec::IntoIter<Event>,
    medium: Medium,
    files: BTreeMap<FileId, NodeId>,
    under_way: BTreeMap<OperationId, UnderWay>,
    random: Random,
}

/// What happened in one step of the walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Something changed on the disk or began to.
    Change,
    /// The recorded program promised something.
    Mark(u64),
}

enum UnderWay {
    Write(NodeId, WriteId),
    Sync(NodeId, SyncMark),
    SyncDir(NodeId, NameMark),
    Other(Change),
}

impl Replay {
    pub(super) fn new(root: &Path, events: Vec<Event>) -> io::Result<Self> {
        let mut medium = Medium::new(u64::MAX / 2);
        medium.create_dir_all(root)?;
        medium.settle_names();
        Ok(Self {
            events: events.into_iter(),
            medium,
            files: BTreeMap::new(),
            under_way: BTreeMap::new(),
            random: Random::new(0),
        })
    }

    /// Goes one event further; none at the end of the recording.
    pub fn step(&mut self) -> Option<io::Result<Step>> {
        let step = match self.events.next()? {
            Event::Mark(mark) => Ok(Step::Mark(mark)),
            Event::Began(id, change) => self.begin(id, change).map(|()| Step::Change),
            Event::Ended(id, succeeded) => self.end(id, succeeded).map(|()| Step::Change),
            Event::Closed(file) => {
                if let Some(node) = self.files.remove(&file) {
                    self.medium.close(node);
                }
                Ok(Step::Change)
            }
        };
        Some(step)
    }

    /// The disk as it may be found after the power went at this moment; another seed, another possibility.
    pub fn crash(&self, seed: u64) -> SimDisk {
        let mut random = Random::new(seed);
        let mut before = self.medium.clone();
        let mut files = self.files.clone();
        for under_way in self.under_way.values() {
            if let UnderWay::Other(change) = under_way
                && random.chance(0.5)
            {
                // A change that could not have happened yet, because another one under way comes first, has not.
                apply(&mut before, &mut files, change).ok();
            }
        }
        SimDisk::from_medium(before.after_power_loss(&mut random), seed)
    }

    /// The disk as a reader sees it at this moment, for comparing with the recorded one.
    pub fn now(&self) -> SimDisk {
        SimDisk::from_medium(self.medium.clone(), 0)
    }

    fn node(&self, file: FileId) -> io::Result<NodeId> {
        node(&self.files, file)
    }

    fn begin(&mut self, id: OperationId, change: Change) -> io::Result<()> {
        let under_way = match change {
            Change::Write {
                file,
                position,
                pieces,
                durable,
            } => {
                let node = self.node(file)?;
                UnderWay::Write(
                    node,
                    self.medium.begin_write(node, position, &pieces, durable)?,
                )
            }
            Change::Sync { file } => {
                let node = self.node(file)?;
                UnderWay::Sync(node, self.medium.begin_sync(node)?)
            }
            Change::SyncDir(path) => match self.medium.begin_sync_dir(&path) {
                Ok((node, mark)) => UnderWay::SyncDir(node, mark),
                // A directory outside the recording, or a sync that is about to fail.
                Err(_) => return Ok(()),
            },
            other => UnderWay::Other(other),
        };
        self.under_way.insert(id, under_way);
        Ok(())
    }

    fn end(&mut self, id: OperationId, succeeded: bool) -> io::Result<()> {
        match (self.under_way.remove(&id), succeeded) {
            (Some(UnderWay::Write(node, write)), true) => self.medium.complete_write(node, write),
            (Some(UnderWay::Write(node, write)), false) => {
                self.medium.fail_write(node, write, &mut self.random)
            }
            (Some(UnderWay::Sync(node, mark)), true) => self.medium.complete_sync(node, mark),
            (Some(UnderWay::Sync(node, mark)), false) => self.medium.fail_sync(node, mark),
            (Some(UnderWay::SyncDir(node, mark)), true) => {
                self.medium.complete_sync_dir((node, mark))
            }
            (Some(UnderWay::Other(change)), true) => {
                return apply(&mut self.medium, &mut self.files, &change);
            }
            (Some(UnderWay::SyncDir(..) | UnderWay::Other(_)), false) | (None, _) => {}
        }
        Ok(())
    }
}

fn node(files: &BTreeMap<FileId, NodeId>, file: FileId) -> io::Result<NodeId> {
    files
        .get(&file)
        .copied()
        .ok_or_else(|| io::Error::other("the recording uses a file that it did not open"))
}

/// Carries out a change that is not durable by itself.
fn apply(
    medium: &mut Medium,
    files: &mut BTreeMap<FileId, NodeId>,
    change: &Change,
) -> io::Result<()> {
    match change {
        Change::Open { path, create, file } => {
            match medium.open(path, *create) {
                Ok(node) => files.insert(*file, node),
                Err(error) if *create => return Err(error),
                // Opened for reading: a directory, or a file from before the recording.
                Err(_) => None,
            };
            Ok(())
        }
        Change::CreateDirAll(path) => medium.create_dir_all(path),
        Change::Rename { from, to } => medium.rename(from, to),
        Change::RemoveFile(path) => medium.remove_file(path),
        Change::RemoveDir(path) => medium.remove_dir(path),
        Change::Allocate {
            file,
            position,
            len,
            keep_size,
        } => medium.allocate(node(files, *file)?, *position, *len, *keep_size),
        Change::Punch {
            file,
            position,
            len,
        } => medium.punch(node(files, *file)?, *position, *len),
        Change::SetLen { file, len } => medium.set_len(node(files, *file)?, *len),
        Change::Write { .. } | Change::Sync { .. } | Change::SyncDir(_) => Err(io::Error::other(
            "writes and syncs have a beginning and an end of their own",
        )),
    }
}
