//! What an append needs beforehand, and what it leaves behind in memory: the log's directory, a segment with reserved space, the rules by which
//! segments roll, and the notes on a batch that has its place.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::rc::Rc;

use super::flush::{FlushState, Place};
use super::stable::note_event;
use super::tail::Tail;
use super::{AppendError, Log, LogState, Presence, ReadError, TopicId, TopicPartition};
use crate::batch::BatchHeader;
use crate::checkpoint::{PARTITION_METADATA_FILE, PartitionMetadata};
use crate::config::LogConfig;
use crate::disk::{Disk, DiskFile, OpenOptions};
use crate::engine::ballast::is_full;
use crate::engine::shard::Shard;
use crate::environment::Environment;
use crate::epochs::LeaderEpochs;
use crate::memory::round_up;
use crate::producer_state::{ProducerEvent, ProducerLimits, ProducerStates, Verifications};
use crate::segment::{SEGMENT_BYTES_LIMIT, Segment, open_log_file};
use crate::wait::Turnstile;

impl<E: Environment> Log<E> {
    /// A log without records that starts at `offset`. Its files are made by the first append.
    pub(crate) fn new(
        shard: Rc<Shard<E>>,
        topic_partition: TopicPartition,
        topic_id: TopicId,
        directory: usize,
        config: LogConfig,
        offset: i64,
    ) -> Rc<Self> {
        let limits = ProducerLimits {
            expiration_ms: shard.config.producer_id_expiration_ms,
            ..ProducerLimits::default()
        };
        Rc::new_cyclic(|me| Self {
            topic_partition,
            topic_id,
            directory,
            flush: Rc::new(FlushState::new(
                offset,
                Place {
                    segment: offset,
                    position: 0,
                },
            )),
            state: RefCell::new(LogState {
                config,
                leader_epoch: -1,
                log_start: offset,
                next_offset: offset,
                segments: BTreeMap::new(),
                tail: Tail::new(),
                parked: None,
                producers: ProducerStates::new(limits),
                verifications: Verifications::default(),
                epochs: LeaderEpochs::new(),
                marks: VecDeque::new(),
                recovery_point: offset,
                dirty_since: None,
                materialized: false,
                reserving: false,
                durable_epochs: Vec::new(),
                snapshots: Vec::new(),
            }),
            appending: Turnstile::default(),
            io: Turnstile::default(),
            settling: Turnstile::default(),
            queued: Cell::new(false),
            aging: Cell::new(false),
            essential: Cell::new(false),
            presence: Cell::new(Presence::Here),
            replacements: Cell::new(0),
            replacing: Turnstile::default(),
            indexing: Turnstile::default(),
            truncated: Cell::new(None),
            me: me.clone(),
            shard,
        })
    }

    /// Whether a batch has to go to a new segment: size, time, a full index, or an offset that the indexes cannot hold.
    pub(super) fn must_roll(
        &self,
        state: &LogState<E>,
        header: &BatchHeader,
        length: usize,
    ) -> bool {
        let Some(segment) = state.segments.last_entry_ref() else {
            return true;
        };
        let config = &state.config;
        if segment.size == 0 {
            return header.last_offset() - segment.base_offset > i64::from(i32::MAX);
        }
        let end = segment.size + length as u64;
        end > config.segment_bytes.min(SEGMENT_BYTES_LIMIT)
            || header.last_offset() - segment.base_offset > i64::from(i32::MAX)
            || segment.first_timestamp.is_some_and(|first| {
                first >= 0
                    && header.max_timestamp.saturating_sub(first) > config.segment_ms_effective()
            })
            || segment
                .indexes
                .as_ref()
                .is_some_and(crate::index::SegmentIndexes::is_full)
    }

    pub(super) fn producer_limits(&self) -> ProducerLimits {
        ProducerLimits {
            expiration_ms: self.shard.config.producer_id_expiration_ms,
            ..ProducerLimits::default()
        }
    }

    /// Whether the active segment has no reserved space for `length` more bytes.
    pub(super) fn must_reserve(&self, state: &LogState<E>, length: usize) -> bool {
        state
            .segments
            .last_entry_ref()
            .is_none_or(|segment| segment.size + length as u64 > segment.reserved)
    }

    /// Rolls and reserves as needed, so that a batch fits. The caller has the turn.
    pub(super) async fn prepare_segment(
        &self,
        header: &BatchHeader,
        length: usize,
    ) -> Result<(), AppendError> {
        // A log that has left must not make files: another may have its directory by now.
        self.check_online()?;
        let result = self.make_room_in_segment(header, length).await;
        result.map_err(|error| {
            if is_full(&error) {
                AppendError::StorageFull(format!("{} ({error})", self.topic_partition))
            } else {
                AppendError::Log(self.storage_error("making a segment", &error))
            }
        })
    }

    async fn make_room_in_segment(&self, header: &BatchHeader, length: usize) -> io::Result<()> {
        self.materialize().await?;
        self.warm_up().await.map_err(ReadError::into_io)?;
        let (roll, base_offset) = {
            let state = self.state.borrow();
            let header = header.assigned(
                state.next_offset.max(header.base_offset),
                header.leader_epoch,
            );
            (self.must_roll(&state, &header, length), state.next_offset)
        };
        if roll {
            let mut segment = Segment::new(base_offset, &self.config());
            self.reserve(&mut segment, length as u64).await?;
            self.shard.env.disk().sync_dir(&self.path()).await?;
            let mut state = self.state.borrow_mut();
            if let Some((&last, _)) = state.segments.last_key_value()
                && state.segments[&last].size == 0
            {
                // An empty segment whose base offset is too far behind is replaced.
                state.segments.remove(&last);
            }
            state.segments.insert(base_offset, segment);
            drop(state);
            self.shard.segment_rolled(self);
            return Ok(());
        }
        let _io = self.io.enter().await;
        let file = self.open_active().await?;
        let (end, wished, reserved) = {
            let state = self.state.borrow();
            let Some(segment) = state.segments.last_entry_ref() else {
                return Ok(());
            };
            let end = segment.size + length as u64;
            (
                end,
                segment.reservation_for(end, state.config.segment_bytes),
                segment.reserved,
            )
        };
        if end <= reserved {
            return Ok(());
        }
        let reserved = self.allocate(&file, reserved, wished, end).await?;
        if let Some(mut segment) = self.state.borrow_mut().segments.last_entry() {
            segment.get_mut().reserved = reserved;
        }
        Ok(())
    }

    /// Reserves space from `reserved` on: up to `wished`, or else up to `needed`. Returns up to where it is reserved.
    pub(super) async fn allocate(
        &self,
        file: &<E::Disk as Disk>::File,
        reserved: u64,
        wished: u64,
        needed: u64,
    ) -> io::Result<u64> {
        let needed = round_up(needed as usize) as u64;
        // What the journal holds has to go somewhere, and so have the changes that make room; new records have to wait until there is space for more than them.
        let for_sure =
            self.essential.get() || self.is_parked() || self.shard.registry.opening.get();
        if !for_sure && !self.shard.restore_ballast(self.directory).await {
            return Err(io::ErrorKind::StorageFull.into());
        }
        match file.allocate(reserved, wished - reserved, true).await {
            Ok(()) => return Ok(wished),
            Err(error) if is_full(&error) => {}
            Err(error) => return Err(error),
        }
        let exactly = || file.allocate(reserved, needed - reserved, true);
        if for_sure {
            self.shard.write_for_sure(self.directory, exactly).await?;
        } else {
            exactly().await?;
        }
        Ok(needed)
    }

    async fn reserve(&self, segment: &mut Segment<E>, length: u64) -> io::Result<()> {
        let file = open_log_file(
            &self.shard.env,
            &self.path(),
            segment.base_offset,
            OpenOptions::SEGMENT,
        )
        .await?;
        let wished = segment.reservation_for(length, self.config().segment_bytes);
        segment.reserved = self.allocate(&file, 0, wished, length).await?;
        segment.file = Some(file);
        self.shard.file_opened();
        Ok(())
    }

    /// Has more space reserved in the background once most of what a busy segment has is used, so that appends need not wait for it.
    pub(super) fn reserve_ahead(&self, state: &mut LogState<E>) {
        const BUSY_BYTES: u64 = 1 << 20;
        let Some(segment) = state.segments.last_entry_ref() else {
            return;
        };
        let (base, reserved) = (segment.base_offset, segment.reserved);
        let used_up = segment.size > reserved - reserved / 4;
        if state.reserving
            || reserved < BUSY_BYTES
            || !used_up
            || reserved >= state.config.segment_bytes
            || !self.shard.has_whole_ballast(self.directory)
        {
            return;
        }
        let wished = segment.reservation_for(reserved + 1, state.config.segment_bytes);
        let Some(file) = segment.file.clone() else {
            return;
        };
        state.reserving = true;
        let log = self.weak();
        self.shard.env.spawn("reservation", async move {
            let Some(log) = log.upgrade() else { return };
            let _io = log.io.enter().await;
            let current = log
                .state
                .borrow()
                .segments
                .get(&base)
                .is_some_and(|segment| segment.reserved == reserved && !segment.sealed);
            // An append that needs it meets the error itself.
            let done = current
                && wished > reserved
                && file
                    .allocate(reserved, wished - reserved, true)
                    .await
                    .is_ok();
            let mut state = log.state.borrow_mut();
            state.reserving = false;
            if let Some(segment) = state.segments.get_mut(&base)
                && done
                && segment.reserved == reserved
            {
                segment.reserved = wished;
            }
        });
    }

    /// Makes the log's directory and `partition.metadata`, durably.
    pub(crate) async fn materialize(&self) -> io::Result<()> {
        if self.state.borrow().materialized {
            return Ok(());
        }
        let directory = self.path();
        let disk = self.shard.env.disk();
        self.refuse_foreign_directory().await?;
        disk.create_dir_all(&directory).await?;
        let metadata = format!("version: 0\ntopic_id: {}", self.topic_id);
        disk.write_atomic(
            &directory.join(PARTITION_METADATA_FILE),
            metadata.as_bytes(),
        )
        .await?;
        disk.sync_dir(&self.shard.config.log_dirs[self.directory])
            .await?;
        self.state.borrow_mut().materialized = true;
        Ok(())
    }

    /// A directory of this name that belongs to another topic is left alone: its files would be taken for this log's.
    async fn refuse_foreign_directory(&self) -> io::Result<()> {
        let path = self.path().join(PARTITION_METADATA_FILE);
        let bytes = match self.shard.env.disk().read_small(&path).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let whose = match PartitionMetadata::parse(&bytes) {
            Ok(metadata) if metadata.topic_id == self.topic_id => return Ok(()),
            Ok(metadata) => format!("topic {}", metadata.topic_id),
            Err(error) => format!("who knows whom ({error})"),
        };
        Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!(
                "{} belongs to {whose}, not to topic {}: if that topic is still being deleted, appends resume by themselves; otherwise restart the broker, which sets the directory aside, or move it away",
                self.path().display(),
                self.topic_id
            ),
        ))
    }

    /// Notes a batch that lies at `position` of the active segment.
    pub(super) fn note_batch(
        &self,
        state: &mut LogState<E>,
        header: &BatchHeader,
        position: u64,
        event: Option<&ProducerEvent>,
        now_ms: i64,
    ) {
        let aborted = event.and_then(|event| {
            let unstable = &self.flush.unstable;
            note_event(&mut state.producers, unstable, event, header, now_ms)
        });
        state.epochs.assign(header.leader_epoch, header.base_offset);
        state.leader_epoch = state.leader_epoch.max(header.leader_epoch);
        state.next_offset = header.next_offset();
        if let Some(mut entry) = state.segments.last_entry() {
            let segment = entry.get_mut();
            segment.size = position + header.size() as u64;
            segment.first_timestamp.get_or_insert(header.max_timestamp);
            segment.max_timestamp = segment.max_timestamp.max(header.max_timestamp);
            if let Some(indexes) = &mut segment.indexes
                && let Err(error) = indexes.on_append(header, position as u32)
            {
                tracing::error!(log = %self.topic_partition, "a batch does not fit its segment's indexes: {error}");
            }
            if let Some(aborted) = aborted
                && let Some(indexes) = &mut segment.indexes
                && let Err(error) = indexes.transactions.append(aborted)
            {
                tracing::error!(log = %self.topic_partition, "an aborted transaction does not fit its segment's index: {error}");
            }
        }
    }
}

/// The last segment, by reference.
pub(super) trait LastSegment<E: Environment> {
    /// The active segment, if there is one.
    fn last_entry_ref(&self) -> Option<&Segment<E>>;
}

impl<E: Environment> LastSegment<E> for BTreeMap<i64, Segment<E>> {
    fn last_entry_ref(&self) -> Option<&Segment<E>> {
        self.last_key_value().map(|(_, segment)| segment)
    }
}
