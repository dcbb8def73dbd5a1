//! What the logs of one shard share: environment, memory budget, journal, the lines for write-behind, and the count of open files.
//!
//! Single-threaded; every line is bounded by the number of logs, because a log stands in each at most once.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::rc::{Rc, Weak};

use futures_util::future::{Either, select};

use super::ballast::Ballast;
use super::cleaner::CleanerState;
use super::maintain::Offsets;
use super::registry::Registry;
use crate::config::EngineConfig;
use crate::environment::Environment;
use crate::index::{ABORTED_ENTRY_BYTES, OFFSET_ENTRY_BYTES, TIME_ENTRY_BYTES};
use crate::journal::Journal;
use crate::log::parked::SETTLING_MAX;
use crate::log::tail::{CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, LetGo};
use crate::log::{Log, TopicId};
use crate::memory::{MemoryPool, round_down};
use crate::wait::{Event, Signal, Turn, Turnstile};

/// How many indexes of sealed segments are kept in memory; their bytes are limited, too.
const LOADED_INDEXES_MAX: usize = 4096;

/// A log by what journals call it.
pub(crate) type LogKey = (TopicId, i32);

/// See the module.
pub(crate) struct Shard<E: Environment> {
    pub env: E,
    pub config: EngineConfig,
    pub pool: MemoryPool,
    journal: RefCell<Option<Rc<Journal<E>>>>,
    pub logs: RefCell<BTreeMap<LogKey, Rc<Log<E>>>>,
    /// Bytes of chunks held by tails.
    tail_bytes: Cell<u64>,
    memory_changed: Event,
    /// Appends that wait for memory.
    memory_line: Turnstile,
    /// Somebody waits for memory.
    short_of_memory: Cell<u32>,
    /// Bytes by which tails are to grow for the first of them; 0: nobody waits.
    growth_wanted: Cell<usize>,
    /// Logs with enough to write behind.
    to_write: RefCell<VecDeque<Weak<Log<E>>>>,
    pub write_signal: Event,
    /// Logs with something unwritten, in the order in which it got there.
    pub aging: RefCell<VecDeque<Weak<Log<E>>>>,
    pub aging_signal: Signal,
    /// Chunk memory is freed in the order in which logs used it.
    open_files: Cell<usize>,
    uses: Cell<u64>,
    pub stopping: Cell<bool>,
    pub stop_signal: Event,
    written_behind: Cell<u64>,
    /// Batches that the start left in the journal, and those of them that have come into a tail since.
    parked: Cell<u64>,
    settled: Cell<u64>,
    /// Logs that bring in what is parked, so many at a time, each in one of these; and how many have found none of them free.
    settling: [Turnstile; SETTLING_MAX],
    settlings: Cell<usize>,
    /// Names, numbers and leavers of the logs.
    pub registry: Registry,
    /// Space kept back for a full disk.
    pub ballast: Ballast<E>,
    /// The running checkpoint or retention must not overlap with another.
    pub maintenance: Turnstile,
    /// Recovery points as each log directory's file has them.
    pub durable_points: RefCell<Vec<Offsets>>,
    /// Log start offsets as each log directory's file has them.
    pub durable_starts: RefCell<Vec<Offsets>>,
    /// How far logs are compacted, as each log directory's file has it.
    pub durable_cleaned: RefCell<Vec<Offsets>>,
    /// What the cleaner goes by.
    pub cleaner: CleanerState,
    /// A log has become dirty that no checkpoint waits for yet.
    pub dirtied: Signal,
    /// Indexes of sealed segments in memory, in the order in which they were read, with their size in bytes.
    loaded_indexes: RefCell<VecDeque<LoadedIndex<E>>>,
}

/// An index of a sealed segment in memory: its log, the segment's base offset, its size in bytes.
type LoadedIndex<E> = (Weak<Log<E>>, i64, usize);

impl<E: Environment> Shard<E> {
    /// A shard without logs and journal.
    pub fn new(env: E, config: EngineConfig) -> Rc<Self> {
        // Chunks come free and are taken in bursts: what write-behind lets go of in one is what appends take in the next.
        let idle_bytes = (config.tail_cache_bytes / 4).min(32 << 20) as usize;
        let cleaner = CleanerState::new(&config, env.now());
        Rc::new(Self {
            env,
            cleaner,
            pool: MemoryPool::new(idle_bytes),
            journal: RefCell::new(None),
            logs: RefCell::default(),
            tail_bytes: Cell::new(0),
            memory_changed: Event::default(),
            memory_line: Turnstile::default(),
            short_of_memory: Cell::new(0),
            growth_wanted: Cell::new(0),
            to_write: RefCell::default(),
            write_signal: Event::default(),
            aging: RefCell::default(),
            aging_signal: Signal::default(),
            open_files: Cell::new(0),
            uses: Cell::new(0),
            stopping: Cell::new(false),
            stop_signal: Event::default(),
            written_behind: Cell::new(0),
            parked: Cell::new(0),
            settled: Cell::new(0),
            settling: Default::default(),
            settlings: Cell::new(0),
            registry: Registry::new(config.log_dirs.len()),
            ballast: Ballast::new(&config),
            maintenance: Turnstile::default(),
            durable_points: RefCell::new(config.log_dirs.iter().map(|_| Offsets::new()).collect()),
            durable_starts: RefCell::new(config.log_dirs.iter().map(|_| Offsets::new()).collect()),
            durable_cleaned: RefCell::new(config.log_dirs.iter().map(|_| Offsets::new()).collect()),
            dirtied: Signal::default(),
            loaded_indexes: RefCell::default(),
            config,
        })
    }

    /// The journal; there from the end of opening on.
    ///
    /// # Panics
    /// While the shard is still recovering, when nothing appends.
    pub fn journal(&self) -> Rc<Journal<E>> {
        match &*self.journal.borrow() {
            Some(journal) => journal.clone(),
            None => unreachable!("logs are handed out once the journal is open"),
        }
    }

    /// Puts the journal in place.
    pub fn set_journal(&self, journal: Rc<Journal<E>>) {
        *self.journal.borrow_mut() = Some(journal);
    }

    /// All logs.
    pub fn all_logs(&self) -> Vec<Rc<Log<E>>> {
        self.logs.borrow().values().cloned().collect()
    }

    /// Whether tails may grow by so many bytes, after letting go of what is written behind if need be.
    pub fn has_memory(&self, growth: usize) -> bool {
        growth == 0 || self.tail_bytes.get() + growth as u64 <= self.config.tail_cache_bytes
    }

    /// Whether others wait for memory: who needs some waits behind them.
    pub fn has_memory_line(&self) -> bool {
        !self.memory_line.is_free()
    }

    /// Whether tails hold so much that they let go of what is written behind, or somebody waits for it. No more than is needed: what stays is what consumers read, and
    /// what is let go at once is more than the pool keeps for the appends to come.
    pub fn over_budget(&self) -> bool {
        self.lacks_memory() || self.tail_bytes.get() > self.config.tail_cache_bytes / 8 * 7
    }

    /// Whether there is too little memory for who is first in line for it.
    pub fn lacks_memory(&self) -> bool {
        !self.has_memory(self.growth_wanted.get())
    }

    /// Whether somebody waits for memory.
    pub fn is_short_of_memory(&self) -> bool {
        self.short_of_memory.get() > 0
    }

    /// Tails have grown.
    pub fn memory_taken(&self, bytes: usize) {
        self.tail_bytes.set(self.tail_bytes.get() + bytes as u64);
    }

    /// Tails have shrunk.
    pub fn memory_freed(&self, bytes: usize) {
        debug_assert!(self.tail_bytes.get() >= bytes as u64);
        self.tail_bytes
            .set(self.tail_bytes.get().saturating_sub(bytes as u64));
        if self.short_of_memory.get() > 0 {
            self.memory_changed.happen();
        }
    }

    /// Bytes of chunks held by tails.
    pub fn tail_bytes(&self) -> u64 {
        self.tail_bytes.get()
    }

    /// The largest chunk that a tail may take now: the more logs are being written to, the smaller, so that what they reserve is not much more
    /// than what they hold.
    pub fn chunk_bytes_max(&self) -> usize {
        let busy = self.aging.borrow().len().max(16) as u64;
        let share = (self.config.tail_cache_bytes / (2 * busy)) as usize;
        round_down(share).clamp(4 * CHUNK_BYTES_MIN, CHUNK_BYTES_MAX)
    }

    /// Frees memory that is written behind, or has dirty logs written, until tails may grow by `growth` bytes. First come, first served: only the first in
    /// line looks for something to free, and nobody takes what it has found as long as it holds the turn that it is given.
    ///
    /// What is dirty can be written behind only once it is flushed, so the journal's progress is waited for as well.
    pub async fn wait_for_memory(&self, growth: usize, waiting: &Log<E>) -> Turn<'_> {
        self.short_of_memory.set(self.short_of_memory.get() + 1);
        let _counted = Waiting(self);
        let turn = self.memory_line.enter().await;
        self.growth_wanted.set(growth);
        let _wanted = Wanted(self);
        let mut changed_memory = true;
        loop {
            let changed = self.memory_changed.next();
            let journal = self.journal.borrow().clone();
            let flushed = async {
                match &journal {
                    Some(journal) => journal.room_changed().await,
                    // While recovering everything is flushed.
                    None => std::future::pending().await,
                }
            };
            if changed_memory && !self.has_memory(growth) {
                self.evict_clean(growth, waiting);
            }
            let nothing_else = self.tail_bytes.get() <= CHUNK_BYTES_MIN as u64;
            if self.has_memory(growth) || nothing_else || self.stopping.get() {
                return turn;
            }
            self.queue_dirty();
            changed_memory = matches!(select(pin!(changed), pin!(flushed)).await, Either::Left(_));
        }
    }

    /// Has everything written behind that can be, unless there is still something in line.
    fn queue_dirty(&self) {
        if !self.to_write.borrow().is_empty() {
            return;
        }
        for log in self.all_logs() {
            if log.has_unwritten() {
                self.queue_write_behind(&log);
            }
        }
    }

    /// Lets go of what is clean, coldest log first, until `growth` more bytes fit, and some more so that it need not be done for every chunk: chunks, then all but the
    /// blocks that logs go on in, then, only as far as needed, these. The log that waits keeps the block it is about to append to.
    fn evict_clean(&self, growth: usize, waiting: &Log<E>) {
        for log in self.all_logs() {
            log.release_if_closed();
        }
        let target = growth + (self.config.tail_cache_bytes / 32) as usize;
        let mut logs: Vec<(u64, Rc<Log<E>>)> = self
            .all_logs()
            .into_iter()
            .filter_map(|log| Some((log.evictable_since()?, log)))
            .collect();
        logs.sort_unstable_by_key(|(used, _)| *used);
        for (what, enough) in [
            (LetGo::Chunks, target),
            (LetGo::AllButBlock, target),
            (LetGo::Everything, growth),
        ] {
            for (_, log) in &logs {
                if self.has_memory(enough) {
                    return;
                }
                if what != LetGo::Everything || !std::ptr::eq(&**log, waiting) {
                    log.release_memory(what, || self.has_memory(enough));
                }
            }
        }
    }

    /// A log answers no more: what it holds in memory is of no use to anybody, and may be what others wait for.
    pub fn log_closed(&self) {
        if self.is_short_of_memory() {
            self.memory_changed.happen();
        }
    }

    /// A log has something unwritten that was clean before.
    pub fn became_dirty(&self, log: &Log<E>) {
        if !log.aging.replace(true) {
            self.aging.borrow_mut().push_back(log.weak());
            self.aging_signal.raise();
            self.dirtied.raise();
        }
    }

    /// A log has enough to be written behind.
    pub fn queue_write_behind(&self, log: &Log<E>) {
        if !log.queued.replace(true) {
            self.to_write.borrow_mut().push_back(log.weak());
            self.write_signal.happen();
        }
    }

    /// The next log to write behind.
    pub fn next_to_write(&self) -> Option<Rc<Log<E>>> {
        loop {
            let log = self.to_write.borrow_mut().pop_front()?;
            if let Some(log) = log.upgrade() {
                log.queued.set(false);
                return Some(log);
            }
        }
    }

    /// A log has rolled: what is left of the segment before can be written.
    pub fn segment_rolled(&self, log: &Log<E>) {
        self.queue_write_behind(log);
    }

    /// Bytes went to segment files.
    pub fn wrote_behind(&self, bytes: u64) {
        self.written_behind.set(self.written_behind.get() + bytes);
        if self.is_short_of_memory() {
            // What was dirty is clean: who waits looks again, whether something was let go or not.
            self.memory_changed.happen();
        }
    }

    /// Bytes that went to segment files since the start.
    pub fn written_behind(&self) -> u64 {
        self.written_behind.get()
    }

    /// A batch was left in the journal.
    pub fn note_parked(&self) {
        self.parked.set(self.parked.get() + 1);
    }

    /// A batch that was left in the journal is in its log's tail.
    pub fn note_settled(&self) {
        self.settled.set(self.settled.get() + 1);
    }

    /// Where a log gets its turn to bring in what is parked.
    pub fn settling_lane(&self) -> &Turnstile {
        if let Some(free) = self.settling.iter().find(|lane| lane.is_free()) {
            return free;
        }
        let count = self.settlings.get();
        self.settlings.set(count.wrapping_add(1));
        &self.settling[count % SETTLING_MAX]
    }

    /// Batches that the start left in the journal, and how many of them have come into a tail since.
    pub fn parked(&self) -> [u64; 2] {
        [self.parked.get(), self.settled.get()]
    }

    /// A point in the order of uses.
    pub fn tick(&self) -> u64 {
        self.uses.set(self.uses.get() + 1);
        self.uses.get()
    }

    /// A segment file was opened; closes the coldest ones when there are too many.
    pub fn file_opened(&self) {
        self.open_files.set(self.open_files.get() + 1);
        if self.open_files.get() <= self.config.open_files_max.max(16) {
            return;
        }
        // Several at once, so that the search is rare.
        let mut open: Vec<(u64, Rc<Log<E>>, i64)> = Vec::new();
        for log in self.all_logs() {
            let Ok(state) = log.state.try_borrow() else {
                continue;
            };
            let files = state
                .segments
                .values()
                .filter(|segment| segment.file.is_some() && !segment.pinned);
            open.extend(files.map(|segment| (segment.used, log.clone(), segment.base_offset)));
        }
        open.sort_unstable_by_key(|(used, ..)| *used);
        let count = (self.config.open_files_max / 16).max(1);
        for (_, log, base) in open.into_iter().take(count) {
            let Ok(mut state) = log.state.try_borrow_mut() else {
                continue;
            };
            if state
                .segments
                .get_mut(&base)
                .and_then(|segment| segment.file.take())
                .is_some()
            {
                self.files_closed(1);
            }
        }
    }

    /// A segment's indexes were read into memory; lets go of the oldest ones beyond the limit. Never of these: who had them read is about to use them, and to find none would mean that
    /// nothing was aborted in the segment.
    pub fn indexes_loaded(&self, log: &Log<E>, base: i64) {
        let bytes = log
            .state
            .borrow()
            .segments
            .get(&base)
            .and_then(|segment| segment.indexes.as_ref())
            .map_or(0, |indexes| {
                let [offsets, times, transactions] = indexes.entry_counts();
                offsets * OFFSET_ENTRY_BYTES
                    + times * TIME_ENTRY_BYTES
                    + transactions * ABORTED_ENTRY_BYTES
            });
        let mut loaded = self.loaded_indexes.borrow_mut();
        loaded.push_back((log.weak(), base, bytes));
        let mut held: usize = loaded.iter().map(|(.., bytes)| bytes).sum();
        let (read_of, read_base) = (log, base);
        while loaded.len() > 1
            && (held > self.config.loaded_index_bytes_max || loaded.len() > LOADED_INDEXES_MAX)
        {
            let Some((log, base, bytes)) = loaded.pop_front() else {
                break;
            };
            held -= bytes;
            if let Some(log) = log.upgrade()
                && !(base == read_base && std::ptr::eq(&*log, read_of))
                && let Ok(mut state) = log.state.try_borrow_mut()
                && let Some(segment) = state.segments.get_mut(&base)
                && segment.sealed
                && !segment.pinned
            {
                segment.indexes = None;
            }
        }
    }

    /// Segment files were closed.
    pub fn files_closed(&self, count: usize) {
        self.open_files
            .set(self.open_files.get().saturating_sub(count));
    }

    /// Open segment files.
    pub fn open_files(&self) -> usize {
        self.open_files.get()
    }
}

/// Counts somebody as waiting for memory, for as long as it lives.
struct Waiting<'a, E: Environment>(&'a Shard<E>);

impl<E: Environment> Drop for Waiting<'_, E> {
    fn drop(&mut self) {
        self.0.short_of_memory.set(self.0.short_of_memory.get() - 1);
    }
}

/// Somebody is first in line for memory, for as long as it lives.
struct Wanted<'a, E: Environment>(&'a Shard<E>);

impl<E: Environment> Drop for Wanted<'_, E> {
    fn drop(&mut self) {
        self.0.growth_wanted.set(0);
    }
}
