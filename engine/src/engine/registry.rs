//! What a shard notes about its logs besides the logs themselves: who has which name, how many lie in each directory, who is leaving, and whose offsets the checkpoint
//! files still name without need.
//!
//! Nothing here waits or touches a disk, and asking costs no more with a hundred thousand logs than with one.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

use super::maintain::{OffsetFile, OffsetName};
use super::shard::Shard;
use crate::environment::Environment;
use crate::log::{Log, TopicId, TopicPartition};
use crate::wait::Turnstile;

/// Names that may be left in checkpoint files for the next writer to take out.
const FORGOTTEN_MAX: usize = 4096;

/// See the module.
pub(crate) struct Registry {
    names: RefCell<BTreeSet<(TopicPartition, TopicId)>>,
    /// Logs in each directory.
    counts: RefCell<Vec<usize>>,
    /// Logs leave one call at a time; whoever wants a name of theirs waits here.
    pub retirements: Turnstile,
    /// The shard is being opened: what has to be put back may take space that was kept back.
    pub opening: Cell<bool>,
    /// Checkpoints fail for want of space, which has been said.
    pub short: Cell<bool>,
    /// The shard stops: nothing is appended, truncated or made any more.
    pub closing: Cell<bool>,
    /// What the checkpoint files may say of logs that are gone.
    forgotten: RefCell<BTreeSet<(OffsetFile, usize, OffsetName)>>,
}

impl Registry {
    /// For so many log directories, without logs.
    pub fn new(directories: usize) -> Self {
        Self {
            names: RefCell::default(),
            counts: RefCell::new(vec![0; directories.max(1)]),
            retirements: Turnstile::default(),
            opening: Cell::new(true),
            short: Cell::new(false),
            closing: Cell::new(false),
            forgotten: RefCell::default(),
        }
    }

    /// The directory with the fewest logs.
    pub fn least_loaded_directory(&self) -> usize {
        let counts = self.counts.borrow();
        let least = counts.iter().enumerate().min_by_key(|(_, count)| **count);
        least.map_or(0, |(index, _)| index)
    }

    /// What a file may still say of a log that is gone has to be taken out by its next writer. Returns whether there is so much of it that one should come soon.
    pub fn forget(&self, directory: usize, name: &OffsetName) -> bool {
        let mut forgotten = self.forgotten.borrow_mut();
        for which in OffsetFile::ALL {
            forgotten.insert((which, directory, name.clone()));
        }
        forgotten.len() > FORGOTTEN_MAX
    }

    /// Whether a file may still say something of a log of this name that is gone.
    pub fn is_forgotten(&self, which: OffsetFile, directory: usize, name: &OffsetName) -> bool {
        let forgotten = self.forgotten.borrow();
        forgotten.contains(&(which, directory, name.clone()))
    }

    /// The names to be taken out of a file.
    pub fn forgotten_in(&self, which: OffsetFile, directory: usize) -> Vec<OffsetName> {
        let forgotten = self.forgotten.borrow();
        let here = forgotten
            .iter()
            .filter(|(file, index, _)| (*file, *index) == (which, directory));
        here.map(|(.., name)| name.clone()).collect()
    }

    /// They are out of it, durably.
    pub fn taken_out(&self, which: OffsetFile, directory: usize, names: Vec<OffsetName>) {
        let mut forgotten = self.forgotten.borrow_mut();
        for name in names {
            forgotten.remove(&(which, directory, name));
        }
    }
}

impl<E: Environment> Shard<E> {
    /// The log of this name, if there is one.
    pub fn named(&self, name: &TopicPartition) -> Option<Rc<Log<E>>> {
        let names = self.registry.names.borrow();
        let all = (name.clone(), TopicId([0; 16]))..=(name.clone(), TopicId([u8::MAX; 16]));
        let (_, topic_id) = names.range(all).next()?;
        self.logs
            .borrow()
            .get(&(*topic_id, name.partition))
            .cloned()
    }

    /// A log is there from now on.
    pub fn admit(&self, log: &Rc<Log<E>>) {
        let (name, topic_id) = (log.topic_partition(), log.topic_id());
        let key = (topic_id, name.partition);
        if self.logs.borrow_mut().insert(key, log.clone()).is_none() {
            self.registry.counts.borrow_mut()[log.directory_index()] += 1;
        }
        let mut names = self.registry.names.borrow_mut();
        names.insert((name.clone(), topic_id));
    }

    /// A log is gone.
    pub fn dismiss(&self, log: &Log<E>) {
        let (name, topic_id) = (log.topic_partition(), log.topic_id());
        let key = (topic_id, name.partition);
        if self.logs.borrow_mut().remove(&key).is_some() {
            self.registry.counts.borrow_mut()[log.directory_index()] -= 1;
        }
        let mut names = self.registry.names.borrow_mut();
        names.remove(&(name.clone(), topic_id));
    }
}
