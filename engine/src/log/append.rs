//! Appending: validation, the producer's sequence and transaction, an offset, one copy into the tail, an item in the journal's entry.
//!
//! An append that finds everything in place completes within its first poll. One that has to wait (for a segment, for memory, for the journal) takes a turn, and
//! those behind it line up: the order of first polls is the order of offsets.

use std::rc::Rc;

use bytes::Bytes;
use futures_util::future::{Either, select};

use super::flush::Place;
use super::{AppendError, Appended, Log, LogError, LogState};
use crate::batch::{
    BatchError, BatchHeader, EndTransactionMarker, HEADER_BYTES, ProduceRules, batches,
    validate_produce,
};
use crate::environment::Environment;
use crate::journal::entry::{Item, cut};
use crate::journal::{FlushPoint, Room};
use crate::memory::BLOCK_BYTES;
use crate::producer_state::{
    ProducerEvent, SequenceCheck, SequenceError, VerificationGuard, Verifications,
};
use crate::segment::SEGMENT_BYTES_LIMIT;

/// What an append has to wait for.
enum Wait {
    /// A segment with reserved space.
    Segment,
    /// Memory for this many bytes.
    Memory(usize),
    /// Room in the journal for a body of this many bytes in this many pieces.
    Journal(usize, usize),
}

/// Who appends, and so what is asked of its producer.
#[derive(Clone, Copy)]
enum Origin {
    /// A client; with proof, if there is one, that the batch belongs to its producer's transaction.
    Client(Option<VerificationGuard>),
    /// A coordinator, with the same.
    Coordinator(Option<VerificationGuard>),
    /// A transaction's coordinator, with its transaction version.
    Marker(i8),
    /// Another log, where it was asked.
    Leader,
}

/// A batch about to be appended: its header as it will be stored, and the bytes after the header.
struct Incoming<'a> {
    header: BatchHeader,
    payload: &'a [u8],
    /// What it tells of its producer.
    event: Option<ProducerEvent>,
    origin: Origin,
    log_append_time: Option<i64>,
}

impl<E: Environment> Log<E> {
    /// Appends one batch as a producer sent it. Resolves as soon as its order is fixed: it is durable only once [`Log::flushed`] says so.
    ///
    /// A batch that the producer has sent before gets the original's offsets and `duplicate`.
    ///
    /// # Errors
    /// See [`AppendError`]; no offset was given out then.
    pub fn append<'a>(
        &'a self,
        batch: Bytes,
        rules: &'a ProduceRules,
        leader_epoch: i32,
    ) -> impl Future<Output = Result<Appended, AppendError>> + 'a {
        // Not a future around a future: on the hottest path each would be moved.
        self.append_verified(batch, rules, leader_epoch, None)
    }

    /// As [`Log::append`]; the first batch of a transaction needs the guard of its verification ([`Log::begin_verification`]).
    ///
    /// # Errors
    /// See [`AppendError`]; no offset was given out then.
    pub async fn append_verified(
        &self,
        batch: Bytes,
        rules: &ProduceRules,
        leader_epoch: i32,
        guard: Option<VerificationGuard>,
    ) -> Result<Appended, AppendError> {
        self.check_online()?;
        let valid = validate_produce(&batch, rules)?;
        let log_append_time = (valid.log_append_time >= 0).then_some(valid.log_append_time);
        let incoming = Incoming {
            header: BatchHeader {
                leader_epoch,
                ..valid.header
            },
            payload: &batch[HEADER_BYTES..],
            // No client's batch is a marker, so nothing of it need be read.
            event: ProducerEvent::of(&valid.header, &[])?,
            origin: Origin::Client(guard),
            log_append_time,
        };
        self.append_in_turn(incoming, None).await
    }

    /// Appends one batch that a coordinator of this broker made: it gets the next offset, and is not held to a topic's rules for producers. What is written in a producer's transaction, with its id
    /// and the transactional bit, needs the same proof as the producer's own batches, and has no sequence.
    ///
    /// # Errors
    /// See [`AppendError`]; no offset was given out then.
    pub async fn append_from_coordinator(
        &self,
        batch: Bytes,
        leader_epoch: i32,
        guard: Option<VerificationGuard>,
    ) -> Result<Appended, AppendError> {
        self.append_own(&batch, leader_epoch, Origin::Coordinator(guard))
            .await
    }

    /// Appends a marker: the producer's transaction ends here. Resolves as soon as its order is fixed: it is durable only once [`Log::flushed`] says so. A marker of a transaction that has
    /// ended already, or of none, does no harm.
    ///
    /// # Errors
    /// [`SequenceError::InvalidEpoch`](crate::producer_state::SequenceError) and `CoordinatorFenced`, by the rules of the transaction version
    /// ([`check_marker`](crate::producer_state::ProducerStates::check_marker)); otherwise see [`AppendError`].
    pub async fn append_marker(
        &self,
        marker: &EndTransactionMarker,
        leader_epoch: i32,
        transaction_version: i8,
    ) -> Result<Appended, AppendError> {
        let batch = marker.build()?;
        self.append_own(&batch, leader_epoch, Origin::Marker(transaction_version))
            .await
    }

    async fn append_own(
        &self,
        batch: &[u8],
        leader_epoch: i32,
        origin: Origin,
    ) -> Result<Appended, AppendError> {
        self.check_online()?;
        let header = BatchHeader::parse(batch)?;
        if header.size() != batch.len() || !header.checksum_matches(batch) {
            return Err(AppendError::Batch(BatchError::BadHeader(
                "the batch does not match its length or checksum",
            )));
        }
        let payload = &batch[HEADER_BYTES..];
        let incoming = Incoming {
            header: BatchHeader {
                leader_epoch,
                ..header
            },
            payload,
            event: ProducerEvent::of(&header, payload)?,
            origin,
            log_append_time: None,
        };
        self.append_in_turn(incoming, None).await
    }

    /// Appends batches that carry their offsets and leader epochs, as a follower or the metadata log does. Gaps are allowed, going back is not.
    ///
    /// Returns the offsets of the first and last batch; batches before a failing one stay appended.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub async fn append_raw(&self, bytes: Bytes) -> Result<Appended, AppendError> {
        self.check_online()?;
        let mut appended: Option<Appended> = None;
        let mut walked = 0;
        for batch in batches(&bytes) {
            let batch = batch?;
            if !batch.checksum_matches() {
                return Err(AppendError::Batch(BatchError::BadHeader(
                    "the batch does not match its checksum",
                )));
            }
            walked = batch.position + batch.bytes.len();
            let incoming = Incoming {
                header: batch.header,
                payload: batch.payload(),
                event: ProducerEvent::of(&batch.header, batch.payload())?,
                origin: Origin::Leader,
                log_append_time: None,
            };
            let one = self
                .append_in_turn(incoming, Some(batch.header.base_offset))
                .await?;
            appended = Some(Appended {
                last_offset: one.last_offset,
                ..appended.unwrap_or(one)
            });
        }
        match appended {
            Some(appended) if walked == bytes.len() => Ok(appended),
            _ => Err(AppendError::Batch(BatchError::TooShort {
                len: bytes.len() - walked,
            })),
        }
    }

    async fn append_in_turn(
        &self,
        incoming: Incoming<'_>,
        given_offset: Option<i64>,
    ) -> Result<Appended, AppendError> {
        let mut turn = if self.appending.is_free() {
            None
        } else {
            Some(self.appending.enter().await)
        };
        let mut memory = None;
        loop {
            let wait = match self.try_append(&incoming, given_offset, memory.is_some())? {
                Ok(appended) => return Ok(appended),
                Err(wait) => wait,
            };
            memory = None;
            if turn.is_none() {
                turn = Some(self.appending.enter().await);
            }
            match wait {
                // What is rare has its state elsewhere: this future is moved with every append.
                Wait::Segment => {
                    let size = incoming.header.size();
                    Box::pin(self.prepare_segment(&incoming.header, size)).await?;
                }
                Wait::Memory(bytes) => {
                    let turn = self.shard.wait_for_memory(bytes, self);
                    memory = Some(Box::pin(self.while_open(turn)).await?);
                }
                Wait::Journal(length, pieces) => {
                    let journal = self.shard.journal();
                    let room = self.while_open(journal.wait_for_room(length, pieces));
                    Box::pin(room)
                        .await?
                        .map_err(|reason| AppendError::StorageFull(reason.to_string()))?;
                }
            }
        }
    }

    /// Waits for something, but no longer than the log answers: what it waits for may never come, and its turn is needed.
    pub(super) async fn while_open<T>(&self, wait: impl Future<Output = T>) -> Result<T, LogError> {
        let wait = std::pin::pin!(wait);
        let closed = std::pin::pin!(self.flush.wait_closed());
        match select(wait, closed).await {
            Either::Left((done, _)) => {
                // Its end may be what gave others, and so this wait, what was wanting.
                self.check_online()?;
                Ok(done)
            }
            Either::Right((reason, _)) => Err(reason),
        }
    }

    /// Appends if nothing has to be waited for; runs to its end without yielding. With `first_for_memory` nobody is before it in line for memory.
    fn try_append(
        &self,
        incoming: &Incoming<'_>,
        given_offset: Option<i64>,
        first_for_memory: bool,
    ) -> Result<Result<Appended, Wait>, AppendError> {
        self.check_online()?;
        self.check_staying()?;
        let now_ms = self.now_ms();
        let length = incoming.header.size();
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        if let Some(event) = &incoming.event
            && let SequenceCheck::Duplicate(original) =
                check_producer(state, event, incoming.origin, now_ms)?
        {
            return Ok(Ok(Appended {
                base_offset: original.base_offset,
                last_offset: original.last_offset,
                log_append_time: incoming.log_append_time.map(|_| original.timestamp),
                log_start_offset: state.log_start,
                duplicate: true,
            }));
        }
        let base_offset = given_offset.unwrap_or(state.next_offset);
        if base_offset < state.next_offset {
            return Err(AppendError::OffsetsNotContinuing {
                given: base_offset,
                log_end: state.next_offset,
            });
        }
        let given = incoming.header.leader_epoch;
        if let Some(latest) = state.epochs.latest_epoch()
            && (0..latest).contains(&given)
        {
            return Err(AppendError::StaleLeaderEpoch { given, latest });
        }
        let header = incoming
            .header
            .assigned(base_offset, incoming.header.leader_epoch);
        if base_offset
            .checked_add(i64::from(header.last_offset_delta) + 1)
            .is_none()
        {
            return Err(AppendError::Batch(BatchError::BadHeader(
                "offsets overflow",
            )));
        }
        if length as u64 > SEGMENT_BYTES_LIMIT {
            return Err(AppendError::TooLarge {
                size: length,
                limit: SEGMENT_BYTES_LIMIT,
            });
        }
        if self.is_cold(state)
            || self.must_roll(state, &header, length)
            || self.must_reserve(state, length)
        {
            return Ok(Err(Wait::Segment));
        }
        let at = state.end();
        state.tail.set_chunk_bytes_max(self.shard.chunk_bytes_max());
        let growth = state.tail.growth_for(at, length);
        if growth as u64 + 2 * BLOCK_BYTES as u64 > self.shard.config.tail_cache_bytes {
            return Err(AppendError::TooLarge {
                size: length,
                limit: self.shard.config.tail_cache_bytes,
            });
        }
        let overtakes = growth > 0 && !first_for_memory && self.shard.has_memory_line();
        if overtakes || !self.shard.has_memory(growth) {
            return Ok(Err(Wait::Memory(growth)));
        }
        let pieces = state.tail.pieces_for(length);
        let journal = self.shard.journal();
        match journal
            .room_for(length, pieces)
            .map_err(|reason| AppendError::StorageFull(reason.to_string()))?
        {
            Room::Now => {}
            Room::Later => return Ok(Err(Wait::Journal(length, pieces))),
        }

        // Nothing can fail or wait from here on.
        let raw = header.encode();
        let body: [&[u8]; 2] = [&raw, incoming.payload];
        let before = state.tail.capacity();
        state.tail.append(&self.shard.pool, at, &[], &body);
        self.shard.memory_taken(state.tail.capacity() - before);
        let (_, whole, _) = cut(at.position as u32, length);
        let blocks = state.tail.blocks(
            at.segment,
            at.position + whole.start as u64..at.position + whole.end as u64,
        );
        let item = Item::Append {
            topic_id: self.topic_id,
            partition: self.topic_partition.partition,
            leader_epoch: header.leader_epoch,
            base_offset,
            last_offset: header.last_offset(),
            segment_base: at.segment,
            position: at.position as u32,
            length: length as u32,
        };
        let next_offset = header.next_offset();
        let end = Place {
            position: at.position + length as u64,
            ..at
        };
        let point = FlushPoint {
            flush: self.flush.clone(),
            next_offset,
            end,
        };
        let (_, mark) = journal.push(&item, &body, blocks, Some(point));
        match state.marks.back_mut() {
            Some((last, needed_to)) if Rc::ptr_eq(last, &mark) => *needed_to = next_offset,
            _ => {
                mark.pin();
                state.marks.push_back((mark, next_offset));
            }
        }
        self.note_batch(state, &header, at.position, incoming.event.as_ref(), now_ms);
        if let Some(event) = &incoming.event {
            note_verified(&mut state.verifications, event);
        }
        if state.dirty_since.is_none() {
            state.dirty_since = Some(self.shard.env.now());
            self.shard.became_dirty(self);
        }
        if state.dirty_bytes() >= self.shard.config.write_behind_bytes {
            self.shard.queue_write_behind(self);
        }
        self.reserve_ahead(state);
        Ok(Ok(Appended {
            base_offset,
            last_offset: header.last_offset(),
            log_append_time: incoming.log_append_time,
            log_start_offset: state.log_start,
            duplicate: false,
        }))
    }
}

/// Whether a batch may be appended as far as its producer is concerned.
#[inline]
fn check_producer<E: Environment>(
    state: &LogState<E>,
    event: &ProducerEvent,
    origin: Origin,
    now_ms: i64,
) -> Result<SequenceCheck, SequenceError> {
    let (producers, verifications) = (&state.producers, &state.verifications);
    match (event, origin) {
        (ProducerEvent::Records(batch), Origin::Client(guard)) if batch.transactional => {
            producers.check_transactional(batch, verifications, guard, now_ms)
        }
        (ProducerEvent::Records(batch), Origin::Client(_)) => producers.check(batch, now_ms),
        (ProducerEvent::Records(batch), Origin::Coordinator(guard)) => producers
            .check_coordinator_batch(batch, verifications, guard, now_ms)
            .map(|()| SequenceCheck::Fresh),
        (ProducerEvent::Marker(marker), Origin::Marker(version)) => producers
            .check_marker(marker, version)
            .map(|()| SequenceCheck::Fresh),
        (ProducerEvent::Records(_), Origin::Marker(_) | Origin::Leader)
        | (ProducerEvent::Marker(_), Origin::Client(_) | Origin::Coordinator(_) | Origin::Leader) => {
            Ok(SequenceCheck::Fresh)
        }
    }
}

/// What was appended of a transaction ends its verification.
#[inline]
fn note_verified(verifications: &mut Verifications, event: &ProducerEvent) {
    match event {
        ProducerEvent::Records(batch) if batch.transactional => {
            verifications.appended(batch.producer_id);
        }
        ProducerEvent::Records(_) => {}
        ProducerEvent::Marker(marker) => verifications.ended(marker),
    }
}
