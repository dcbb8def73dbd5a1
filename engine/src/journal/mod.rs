//! The journal of a shard: the one place where an acknowledgement comes from.
//!
//! Everything that the shard's logs append while writes are in flight is *gathered* into the next [`entry`]; the writer keeps at most
//! `journal_depth` entries in flight and reports the unbroken run of completed ones. An entry gets its place in a file when
//! its first item arrives, so an offset is given out only for space that is there. Files are zeroed ahead of use and recycled in order
//! once no log needs them ([`FileMark`]).
//!
//! Single-threaded and shared by `Rc`. It never retries a failed write: the journal fails once and for all, and every log of the shard with it.

pub mod entry;
mod files;
pub(crate) mod found;
pub(crate) mod scan;
pub(crate) mod space;
mod supervised;
pub(crate) mod window;
mod writer;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use crate::config::EngineConfig;
use crate::environment::Environment;
use crate::log::flush::{FlushState, Place};
use crate::memory::{AlignedSlice, BLOCK_BYTES, MemoryPool};
use crate::wait::{Event, OffsetWaiters, Signal};
use entry::{EntryBuilder, Identity, Item};
pub(crate) use files::{FileMark, JournalFile};

/// What a completed entry means for a log: everything before `next_offset` is on the medium.
pub(crate) struct FlushPoint {
    /// The log's flush state.
    pub flush: Rc<FlushState>,
    /// Offset after the batch.
    pub next_offset: i64,
    /// Where the batch ends in its segment.
    pub end: Place,
}

/// Whether an item can be gathered now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// Yes; push it before anything else runs.
    Now,
    /// Not until [`Journal::room_changed`].
    Later,
}

/// Counters of a journal since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalCounters {
    /// Entries written.
    pub entries: u64,
    /// Bytes written, padding included.
    pub bytes: u64,
    /// Items written.
    pub items: u64,
    /// Bytes of files that some log still needs.
    pub live_bytes: u64,
    /// Bytes of all files.
    pub file_bytes: u64,
}

/// What is called with the reason when the journal fails.
type OnFailure = Box<dyn Fn(Arc<str>)>;

/// A file for large batches that could not be made.
struct Refused {
    bytes: u64,
    reason: Arc<str>,
}

/// See the module.
pub(crate) struct Journal<E: Environment> {
    env: E,
    directory: PathBuf,
    identity: Identity,
    life: u64,
    pool: MemoryPool,
    depth: usize,
    entry_bytes: usize,
    backlog_bytes: usize,
    bytes_max: u64,
    file_bytes: u64,
    state: RefCell<State<E>>,
    /// Wakes the writer.
    work: Signal,
    /// Wakes the keeper of the files.
    keeper: Rc<Signal>,
    /// Asks for checkpoints: space runs low.
    pressure: Signal,
    /// Room may have appeared.
    room: Event,
    completions: OffsetWaiters,
    failed: RefCell<Option<Arc<str>>>,
    on_failure: RefCell<Option<OnFailure>>,
    counters: Cell<JournalCounters>,
    /// A file of at least this size is needed; 0: none in particular.
    wanted_bytes: Cell<u64>,
    /// How many files for large batches could not be made, and the last of them.
    refusals: Cell<u64>,
    refused: RefCell<Option<Refused>>,
    /// Why no room is to be expected, while that is so.
    trouble: RefCell<Option<Arc<str>>>,
    /// What offline logs need of the journal: it comes on top of the configured bytes, so that the others are not starved.
    exempt_bytes: Cell<u64>,
    /// While that is being said again, files may be made beyond the limit.
    restating: Cell<bool>,
    stopping: Cell<bool>,
    stopped: Event,
}

struct State<E: Environment> {
    /// Files that hold the live chain, the one written to last.
    files: VecDeque<JournalFile<E>>,
    /// No longer needed, but not yet said so by an entry on the medium.
    cooling: VecDeque<JournalFile<E>>,
    /// Zeroed or recycled, free for use.
    ready: VecDeque<JournalFile<E>>,
    next_file_number: u64,
    /// Where the entry being gathered, or else the next one, starts in the last of `files`.
    position: u64,
    gathering: Option<Gathering>,
    closed: VecDeque<Gathering>,
    /// Bytes in `closed`.
    closed_bytes: usize,
    in_flight: VecDeque<InFlight>,
    next_sequence: u64,
    /// The unbroken run of completed entries ends here.
    completed: u64,
    /// `oldest_live` of the last completed entry.
    durable_oldest_live: u64,
    previous_checksum: u32,
}

/// An entry that has its place and its number and takes items.
struct Gathering {
    builder: EntryBuilder,
    sequence: u64,
    file: Rc<FileMark>,
    position: u64,
    points: Vec<FlushPoint>,
}

struct InFlight {
    sequence: u64,
    oldest_live: u64,
    done: bool,
    points: Vec<FlushPoint>,
}

impl<E: Environment> Journal<E> {
    fn new(
        env: &E,
        config: &EngineConfig,
        directory: PathBuf,
        identity: Identity,
        pool: MemoryPool,
        keeper: Rc<Signal>,
        state: State<E>,
    ) -> Rc<Self> {
        Rc::new(Self {
            env: env.clone(),
            directory,
            identity,
            life: env.random(),
            pool,
            depth: config.journal_depth.max(1),
            entry_bytes: config.journal_entry_bytes.max(BLOCK_BYTES),
            backlog_bytes: config.journal_backlog_bytes.max(config.journal_entry_bytes),
            bytes_max: config.journal_bytes_max,
            file_bytes: config.journal_file_bytes.max(16 * BLOCK_BYTES as u64),
            state: RefCell::new(state),
            work: Signal::default(),
            keeper,
            pressure: Signal::default(),
            room: Event::default(),
            completions: OffsetWaiters::default(),
            failed: RefCell::new(None),
            on_failure: RefCell::new(None),
            counters: Cell::default(),
            wanted_bytes: Cell::new(0),
            refusals: Cell::new(0),
            refused: RefCell::new(None),
            trouble: RefCell::new(None),
            exempt_bytes: Cell::new(0),
            restating: Cell::new(false),
            stopping: Cell::new(false),
            stopped: Event::default(),
        })
    }

    /// Why the journal no longer writes, if so.
    pub fn failure(&self) -> Option<Arc<str>> {
        self.failed.borrow().clone()
    }

    /// What is called, once, when the journal fails.
    pub fn on_failure(&self, call: impl Fn(Arc<str>) + 'static) {
        *self.on_failure.borrow_mut() = Some(Box::new(call));
    }

    /// Resolves when checkpoints are asked for because space runs low.
    pub async fn pressed(&self) {
        self.pressure.wait().await;
    }

    /// Most bytes that files may take now. What is exempt is there twice while it is being said again.
    fn bytes_limit(&self) -> u64 {
        self.bytes_max + 2 * self.exempt_bytes.get()
    }

    /// The files of the chain for reading, and the last entry that is on the medium.
    pub fn live_files(&self) -> (Vec<JournalFile<E>>, u64) {
        let state = self.state.borrow();
        (
            state.files.iter().map(JournalFile::share).collect(),
            state.completed,
        )
    }

    /// What marks its entries.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Begins or ends saying again what offline logs need; in the end, how many bytes that is.
    pub fn restating(&self, ended_with: Option<u64>) {
        self.restating.set(ended_with.is_none());
        if let Some(bytes) = ended_with {
            self.exempt_bytes.set(bytes);
        }
        self.keeper.raise();
    }

    /// Whether space runs low now.
    pub fn is_pressed(&self) -> bool {
        let state = self.state.borrow();
        let live: u64 = state.files.iter().map(|file| file.size).sum();
        live > self.bytes_limit() / 2 || (state.ready.is_empty() && state.files.len() > 1)
    }

    /// Whether an item with a body of `length` bytes in up to `pieces` block pieces can be gathered now.
    ///
    /// The error says why there is none and none is to be expected.
    pub fn room_for(&self, length: usize, pieces: usize) -> Result<Room, Arc<str>> {
        let state = self.state.borrow();
        let gathered = state
            .gathering
            .as_ref()
            .map_or(0, |gathering| gathering.builder.size());
        if state.closed_bytes + gathered > 0
            && state.closed_bytes + gathered + length > self.backlog_bytes
        {
            return Ok(Room::Later);
        }
        if self.fits_gathering(&state, length, pieces) {
            return Ok(Room::Now);
        }
        let needed = fresh_entry_bytes(length);
        if state.place_for(needed, gathered as u64).is_some() {
            return Ok(Room::Now);
        }
        drop(state);
        self.wanted_bytes
            .set(self.wanted_bytes.get().max(wanted_for(length)));
        self.keeper.raise();
        match &*self.trouble.borrow() {
            Some(reason) if !self.restating.get() => Err(reason.clone()),
            _ => Ok(Room::Later),
        }
    }

    /// Resolves when entries were written or files came free: what waits on the journal's progress may go on.
    pub async fn room_changed(&self) {
        self.room.next().await;
    }

    fn fits_gathering(&self, state: &State<E>, length: usize, pieces: usize) -> bool {
        let Some(gathering) = &state.gathering else {
            return false;
        };
        let size = gathering.builder.size_with(length);
        let end = state.position + size as u64;
        let limit = state.files.back().map_or(0, JournalFile::regular_end);
        size <= self.entry_bytes && end <= limit && gathering.builder.takes_pieces(pieces)
    }

    /// Gathers an item. Its body lies in `pieces`; `blocks` are the body's whole blocks when it is large. Returns the sequence of its entry and
    /// the file it will be in.
    ///
    /// # Panics
    /// When there is no room: ask [`Journal::room_for`] first, with nothing in between.
    pub fn push(
        &self,
        item: &Item,
        pieces: &[&[u8]],
        blocks: Vec<AlignedSlice>,
        point: Option<FlushPoint>,
    ) -> (u64, Rc<FileMark>) {
        let length = pieces.iter().map(|piece| piece.len()).sum();
        let mut state = self.state.borrow_mut();
        if !self.fits_gathering(&state, length, blocks.len()) {
            state.close_gathering();
            let opened = state.open_gathering(&self.pool, fresh_entry_bytes(length));
            assert!(opened, "the journal was not asked for room");
        }
        let pushed = state.add(item, pieces, blocks, point);
        drop(state);
        self.work.raise();
        pushed
    }

    /// Resolves when the entry of `sequence` and all before it are on the medium.
    pub async fn completed(&self, sequence: u64) -> Result<(), Arc<str>> {
        self.completions
            .wait(sequence as i64, || {
                if self.state.borrow().completed >= sequence {
                    return Some(Ok(()));
                }
                self.failure().map(Err)
            })
            .await
    }

    /// Gathers an item without a body, waiting for room. The file it will be in is pinned, so that it is not recycled before the caller has taken it over.
    pub async fn say(&self, item: &Item) -> Result<(u64, Rc<FileMark>), Arc<str>> {
        self.wait_for_room(0, 0).await?;
        let (sequence, mark) = self.push(item, &[], Vec::new(), None);
        mark.pin();
        Ok((sequence, mark))
    }

    /// The same, and waits until it is on the medium.
    pub async fn write_item(&self, item: &Item) -> Result<(u64, Rc<FileMark>), Arc<str>> {
        let (sequence, mark) = self.say(item).await?;
        let done = self.completed(sequence).await;
        if done.is_err() {
            mark.unpin();
        }
        done.map(|()| (sequence, mark))
    }

    /// At the next start nothing before this sequence counts.
    pub fn durable_oldest_live(&self) -> u64 {
        self.state.borrow().durable_oldest_live
    }

    /// The largest sequence used.
    pub fn last_sequence(&self) -> u64 {
        self.state.borrow().next_sequence - 1
    }

    /// Counters since the start.
    pub fn counters(&self) -> JournalCounters {
        let state = self.state.borrow();
        let live_bytes = state.files.iter().map(|file| file.size).sum();
        let idle: u64 = state
            .cooling
            .iter()
            .chain(&state.ready)
            .map(|file| file.size)
            .sum();
        JournalCounters {
            live_bytes,
            file_bytes: live_bytes + idle,
            ..self.counters.get()
        }
    }

    fn fail(&self, reason: Arc<str>) {
        if self.failed.borrow().is_some() {
            return;
        }
        tracing::error!(directory = %self.directory.display(), "{reason}");
        *self.failed.borrow_mut() = Some(reason.clone());
        {
            let mut state = self.state.borrow_mut();
            state.gathering = None;
            state.closed.clear();
            state.closed_bytes = 0;
            for entry in &mut state.in_flight {
                entry.points.clear();
            }
        }
        self.completions.reached(i64::MAX);
        self.room.happen();
        if let Some(call) = &*self.on_failure.borrow() {
            call(reason);
        }
    }
}

/// Bytes of a file that a body of `length` bytes fits in.
fn wanted_for(length: usize) -> u64 {
    fresh_entry_bytes(length) + 2 * BLOCK_BYTES as u64
}

/// Bytes of an entry with a single item of `length` bytes, at most.
fn fresh_entry_bytes(length: usize) -> u64 {
    crate::memory::round_up(entry::HEADER_BYTES + entry::bytes_at_most(length)) as u64
}

impl<E: Environment> State<E> {
    /// Where an entry of `needed` bytes would go after the one being gathered: in the current file, or in the ready file with this index.
    fn place_for(&self, needed: u64, gathered: u64) -> Option<Option<usize>> {
        if let Some(current) = self.files.back()
            && self.position + gathered + needed <= current.regular_end()
        {
            return Some(None);
        }
        self.ready
            .iter()
            .position(|file| needed <= file.regular_end())
            .map(Some)
    }

    fn close_gathering(&mut self) {
        if let Some(gathering) = self.gathering.take() {
            let size = gathering.builder.size();
            self.position += size as u64;
            self.closed_bytes += size;
            self.closed.push_back(gathering);
        }
    }

    /// Starts a new entry; false when there is no place for it.
    fn open_gathering(&mut self, pool: &MemoryPool, needed: u64) -> bool {
        match self.place_for(needed, 0) {
            None => return false,
            Some(None) => {}
            Some(Some(index)) => match self.ready.remove(index) {
                Some(file) => self.start_file(file),
                None => return false,
            },
        }
        self.gather_here(pool);
        true
    }

    /// Makes `file` the one that is written to.
    fn start_file(&mut self, mut file: JournalFile<E>) {
        file.begin(self.next_sequence);
        self.files.push_back(file);
        self.position = 0;
    }

    fn gather_here(&mut self, pool: &MemoryPool) {
        let Some(file) = self.files.back_mut() else {
            return;
        };
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        file.last_sequence = sequence;
        self.gathering = Some(Gathering {
            builder: EntryBuilder::new(pool.clone()),
            sequence,
            file: file.mark.clone(),
            position: self.position,
            points: Vec::new(),
        });
    }

    fn add(
        &mut self,
        item: &Item,
        pieces: &[&[u8]],
        blocks: Vec<AlignedSlice>,
        point: Option<FlushPoint>,
    ) -> (u64, Rc<FileMark>) {
        match &mut self.gathering {
            Some(gathering) => {
                gathering.builder.push(item, pieces, blocks);
                gathering.points.extend(point);
                (gathering.sequence, gathering.file.clone())
            }
            None => unreachable!("an entry was opened just before"),
        }
    }

    /// The oldest entry that some log still needs, or else the one being gathered.
    fn oldest_live(&self) -> u64 {
        let pinned = self.files.iter().find(|file| file.mark.is_pinned());
        pinned
            .or(self.files.back())
            .map_or(self.next_sequence, |file| file.first_sequence)
    }
}
