//! The journal's files: made and zeroed ahead of need, recycled in order when no log needs them, never beyond the configured bytes
//! except for a single batch that is larger than a file.
//!
//! A recycled file is written to only after an entry that says "nothing before this is needed" is on the medium: recovery then never
//! looks for what was overwritten.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select;

use super::entry::{Identity, Item};
use super::supervised::Supervised;
use super::{FileMark, Journal, JournalFile, Refused, Room, State, wanted_for};
use crate::config::EngineConfig;
use crate::disk::{Disk, DiskFile, OpenOptions, write_zeros};
use crate::environment::Environment;
use crate::memory::{BLOCK_BYTES, MemoryPool};
use crate::wait::Signal;

/// How long to wait before a file that could not be made is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// What came of making one more file.
enum Making {
    /// It is there.
    Made,
    /// The configured bytes are used up: recycling has to bring room.
    Limit,
    /// The disk refused a file of the usual size.
    Failed(Arc<str>),
    /// The disk refused one for a large batch, whose append has been told.
    Refused,
}

/// The smallest journal file.
pub(crate) const FILE_BYTES_MIN: u64 = 16 * BLOCK_BYTES as u64;

/// The size of the files that a start makes.
pub(crate) fn first_file_bytes(config: &EngineConfig) -> u64 {
    config.journal_first_file_bytes.max(FILE_BYTES_MIN)
}

/// Where a new life takes up the chain.
pub(crate) struct ChainStart<E: Environment> {
    /// Files with entries that logs may still need, oldest first.
    pub live: Vec<JournalFile<E>>,
    /// Files that are free.
    pub free: Vec<JournalFile<E>>,
    /// Numbers below this are taken.
    pub next_file_number: u64,
    /// Sequence of the last entry of the chain; 0: there is none.
    pub previous_sequence: u64,
    /// Its checksum.
    pub previous_checksum: u32,
    /// A sequence above every one ever used.
    pub next_sequence: u64,
}

impl<E: Environment> Journal<E> {
    /// Starts a life: makes sure that there is a free file, writes the entry that ties this life to the chain, and starts the tasks.
    pub async fn start(
        env: &E,
        config: &EngineConfig,
        identity: Identity,
        pool: MemoryPool,
        keeper: Rc<Signal>,
        chain: ChainStart<E>,
    ) -> io::Result<Rc<Self>> {
        let directory = config.journal_path();
        let mut state = State {
            files: chain.live.into(),
            cooling: VecDeque::new(),
            ready: chain.free.into(),
            next_file_number: chain.next_file_number,
            position: 0,
            gathering: None,
            closed: VecDeque::new(),
            closed_bytes: 0,
            in_flight: VecDeque::new(),
            next_sequence: chain.next_sequence,
            completed: chain.previous_sequence,
            durable_oldest_live: 0,
            previous_checksum: chain.previous_checksum,
        };
        let first_bytes = first_file_bytes(config);
        while state.ready.len() < 2 {
            let number = state.next_file_number;
            state.next_file_number += 1;
            let made = make_file(env, &directory, number, first_bytes, &keeper).await;
            match made {
                Ok(file) => state.ready.push_back(file),
                Err(_) if !state.ready.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        if let Some(file) = state.ready.pop_front() {
            state.start_file(file);
        }
        let journal = Self::new(env, config, directory, identity, pool, keeper, state);
        env.spawn("journal writer", journal.clone().run_writer());
        let life_start = Item::LifeStart {
            previous_sequence: chain.previous_sequence,
        };
        let (_, mark) = journal
            .write_item(&life_start)
            .await
            .map_err(|reason| io::Error::other(&*reason))?;
        mark.unpin();
        env.spawn("journal files", journal.clone().run_keeper());
        Ok(journal)
    }

    /// A journal that takes nothing, for `reason`, and leaves the files as they are.
    pub fn unusable(
        env: &E,
        config: &EngineConfig,
        identity: Identity,
        pool: MemoryPool,
        keeper: Rc<Signal>,
        chain: ChainStart<E>,
        reason: &str,
    ) -> Rc<Self> {
        let state = State {
            files: chain.live.into(),
            cooling: VecDeque::new(),
            ready: VecDeque::new(),
            next_file_number: chain.next_file_number,
            position: 0,
            gathering: None,
            closed: VecDeque::new(),
            closed_bytes: 0,
            in_flight: VecDeque::new(),
            next_sequence: chain.next_sequence,
            completed: chain.previous_sequence,
            durable_oldest_live: 0,
            previous_checksum: chain.previous_checksum,
        };
        let journal = Self::new(
            env,
            config,
            config.journal_path(),
            identity,
            pool,
            keeper,
            state,
        );
        journal.stopping.set(true);
        journal.fail(reason.into());
        journal
    }

    /// The keeper task: recycles, makes files ahead of need, asks for checkpoints when there is no other way.
    async fn run_keeper(self: Rc<Self>) {
        let _supervised = Supervised(self.clone());
        let mut failures = 0;
        // When a file may be tried again that could not be made.
        let mut next_try = 0;
        while !self.stopping.get() && self.failure().is_none() {
            self.recycle();
            if self.wants_file() && (self.env.now() >= next_try || self.wants_large_file()) {
                match self.make_next_file().await {
                    Making::Made | Making::Refused => {}
                    // What a log lets go of wakes the keeper.
                    Making::Limit => self.pressure.raise(),
                    Making::Failed(reason) => {
                        self.pressure.raise();
                        next_try = self.env.now() + RETRY.as_micros() as u64;
                        failures += 1;
                        // The checkpoints had their time to make room.
                        if failures > 1 && self.state.borrow().ready.is_empty() {
                            self.room_may_not_come(reason);
                        }
                    }
                }
            }
            if !self.state.borrow().ready.is_empty() {
                failures = 0;
                self.room_may_come();
            }
            let troubled = self.trouble.borrow().is_some();
            if self.is_pressed() {
                self.pressure.raise();
            }
            if failures > 0 || troubled {
                let sleep = std::pin::pin!(self.env.sleep(RETRY));
                let asked = std::pin::pin!(self.keeper.wait());
                select(asked, sleep).await;
            } else {
                self.keeper.wait().await;
            }
        }
    }

    /// Neither a new file nor a checkpoint can make room at present: whoever waits for it, and whoever comes, is told why.
    pub fn room_may_not_come(&self, reason: impl Into<Arc<str>>) {
        *self.trouble.borrow_mut() = Some(reason.into());
        self.room.happen();
        self.keeper.raise();
    }

    /// It can again.
    pub fn room_may_come(&self) {
        *self.trouble.borrow_mut() = None;
    }

    fn wants_large_file(&self) -> bool {
        self.wanted_bytes.get() > self.file_bytes
    }

    /// Moves files that nobody needs out of the chain, and those of which the chain on the medium says so to the free ones.
    fn recycle(&self) {
        let mut state = self.state.borrow_mut();
        while state.files.len() > 1
            && let Some(front) = state.files.front()
            && !front.mark.is_pinned()
            && front.last_sequence <= state.completed
        {
            if let Some(file) = state.files.pop_front() {
                state.cooling.push_back(file);
            }
        }
        let mut freed = false;
        while let Some(front) = state.cooling.front()
            && front.last_sequence < state.durable_oldest_live
        {
            if let Some(file) = state.cooling.pop_front() {
                state.ready.push_back(file);
                freed = true;
            }
        }
        let last_cooling = state.cooling.back().map(|file| file.last_sequence);
        // An entry not yet sealed will carry the news; otherwise one is written for it.
        if let Some(last) = last_cooling
            && state.oldest_live() > last
            && state.gathering.is_none()
            && state.closed.is_empty()
            && state.in_flight.is_empty()
        {
            self.push_checkpoint(&mut state);
            self.work.raise();
        }
        drop(state);
        if freed {
            self.room.happen();
        }
    }

    fn push_checkpoint(&self, state: &mut State<E>) {
        let fits = |state: &State<E>| {
            let back = state.files.back();
            back.is_some_and(|file| state.position + BLOCK_BYTES as u64 <= file.size)
        };
        if !fits(state)
            && let Some(file) = state.ready.pop_front()
        {
            // The block kept back for this was used for it before: the next file begins with it.
            state.start_file(file);
        }
        if fits(state) {
            state.gather_here(&self.pool);
            state.add(&Item::Checkpoint, &[], Vec::new(), None);
        }
    }

    fn wants_file(&self) -> bool {
        let state = self.state.borrow();
        let wanted = self.wanted_bytes.get();
        let gathered = state
            .gathering
            .as_ref()
            .map_or(0, |gathering| gathering.builder.size() as u64);
        if wanted > 0
            && state
                .place_for(wanted - 2 * BLOCK_BYTES as u64, gathered)
                .is_some()
        {
            self.wanted_bytes.set(0);
            drop(state);
            self.room.happen();
            return false;
        }
        // One file ahead is enough: making one takes less time than filling one.
        let idle = state.files.len() == 1
            && state.position < state.files.back().map_or(0, |file| file.size / 2);
        wanted > 0 || (state.ready.is_empty() && !idle)
    }

    /// Makes one more file where the limit or a large batch allows it.
    async fn make_next_file(&self) -> Making {
        let wanted = self.wanted_bytes.get();
        let (number, size) = {
            let mut state = self.state.borrow_mut();
            let all: u64 = state
                .files
                .iter()
                .chain(&state.cooling)
                .chain(&state.ready)
                .map(|file| file.size)
                .sum();
            let oversized = wanted > self.file_bytes;
            let size = if oversized {
                crate::memory::round_up(wanted as usize) as u64
            } else {
                self.file_bytes
            };
            let few = state.files.len() + state.cooling.len() + state.ready.len() < 3;
            let free_of_limit = few || oversized || self.restating.get();
            if all + size > self.bytes_limit() && !free_of_limit {
                // Recycling will bring room; whoever waits is woken then.
                self.wanted_bytes.set(0);
                return Making::Limit;
            }
            let number = state.next_file_number;
            state.next_file_number += 1;
            (number, size)
        };
        match make_file(&self.env, &self.directory, number, size, &self.keeper).await {
            Ok(file) => {
                self.wanted_bytes.set(0);
                self.state.borrow_mut().ready.push_back(file);
                self.room.happen();
                Making::Made
            }
            Err(error) => {
                tracing::warn!(
                    "cannot make a journal file of {size} bytes, going on with those there are: {error}"
                );
                self.wanted_bytes.set(0);
                let reason: Arc<str> = error.to_string().into();
                if wanted <= self.file_bytes {
                    return Making::Failed(reason);
                }
                self.refusals.set(self.refusals.get() + 1);
                *self.refused.borrow_mut() = Some(Refused {
                    bytes: wanted,
                    reason,
                });
                self.room.happen();
                Making::Refused
            }
        }
    }

    /// Waits for room for an item with a body of `length` bytes.
    pub async fn wait_for_room(&self, length: usize, pieces: usize) -> Result<(), Arc<str>> {
        let refusals = self.refusals.get();
        loop {
            if let Some(reason) = self.failure() {
                return Err(reason);
            }
            // Asked for before the check, so that nothing that happens in between is missed.
            let changed = self.room.next();
            if self.room_for(length, pieces)? == Room::Now {
                return Ok(());
            }
            if self.refusals.get() != refusals
                && let Some(refused) = &*self.refused.borrow()
                && wanted_for(length) >= refused.bytes
            {
                return Err(refused.reason.clone());
            }
            changed.await;
        }
    }
}

/// Makes a journal file of zeros, durably with its name.
pub(crate) async fn make_file<E: Environment>(
    env: &E,
    directory: &Path,
    number: u64,
    size: u64,
    keeper: &Rc<Signal>,
) -> io::Result<JournalFile<E>> {
    let disk = env.disk();
    let path = directory.join(JournalFile::<E>::name(number));
    let made = async {
        let file = disk.open(&path, OpenOptions::JOURNAL).await?;
        file.allocate(0, size, false).await?;
        write_zeros(&file, 0, size).await?;
        disk.sync_dir(directory).await?;
        Ok(file)
    }
    .await;
    match made {
        Ok(file) => Ok(JournalFile {
            number,
            file,
            size,
            first_sequence: 0,
            last_sequence: 0,
            mark: FileMark::new(keeper.clone()),
        }),
        Err(error) => {
            // What was made is useless; that it cannot be removed either changes nothing.
            let _ = disk.remove_file(&path).await;
            Err(error)
        }
    }
}
