//! The sequence rules of idempotent produce (KIP-98), for one producer.
//!
//! A producer numbers its records per partition, from 0 in each epoch; 0 follows `i32::MAX`. The last five batches are remembered, as many as a producer may have in
//! flight, so that each of them can be sent again and be answered with its first offset.

use crate::batch::{
    BatchError, BatchHeader, EndTransactionMarker, NO_PRODUCER_EPOCH, NO_SEQUENCE,
    advance_sequence, code,
};

/// Batches remembered per producer: as many as a producer may have in flight.
pub const BATCHES_KEPT: usize = 5;
/// What the table needs to know of a batch that has a producer id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerBatch {
    /// The producer.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// Sequence of the first record.
    pub base_sequence: i32,
    /// Records minus one.
    pub last_offset_delta: i32,
    /// Largest timestamp of the batch in ms.
    pub max_timestamp: i64,
    /// Part of a transaction.
    pub transactional: bool,
}

impl ProducerBatch {
    /// From a batch header; `None` where the batch has no producer id, or is a control batch (markers have no sequence).
    pub fn of(header: &BatchHeader) -> Option<Self> {
        (header.has_producer_id() && !header.attributes.is_control()).then_some(Self {
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
            last_offset_delta: header.last_offset_delta,
            max_timestamp: header.max_timestamp,
            transactional: header.attributes.is_transactional(),
        })
    }

    /// Sequence of the last record; none for what a coordinator wrote.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence == NO_SEQUENCE {
            return NO_SEQUENCE;
        }
        advance_sequence(self.base_sequence, self.last_offset_delta)
    }
}

/// What a batch tells of its producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProducerEvent {
    /// It has sent records.
    Records(ProducerBatch),
    /// Its transaction has ended.
    Marker(EndTransactionMarker),
}

impl ProducerEvent {
    /// From a batch's header and what follows it (needed of control batches only); `None` where the batch tells nothing of a producer.
    ///
    /// # Errors
    /// When a marker cannot be read.
    #[inline]
    pub fn of(header: &BatchHeader, payload: &[u8]) -> Result<Option<Self>, BatchError> {
        if EndTransactionMarker::is_possible(header) {
            return Ok(EndTransactionMarker::of(header, payload)?.map(Self::Marker));
        }
        Ok(ProducerBatch::of(header).map(Self::Records))
    }
}

/// The original of a batch that was sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duplicate {
    /// Offset the original's first record got.
    pub base_offset: i64,
    /// Offset the original's last record got.
    pub last_offset: i64,
    /// The original's largest timestamp in ms.
    pub timestamp: i64,
}

impl Duplicate {
    /// Success may be answered once the log is flushed up to here.
    pub fn next_offset(&self) -> i64 {
        self.last_offset + 1
    }
}

/// A batch that may be answered with success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceCheck {
    /// Continues its producer's sequence: append it, then [`ProducerStates::record`] it.
    Fresh,
    /// Already appended: do not append, answer with the original's offset.
    Duplicate(Duplicate),
}

/// Why a batch must not be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    /// A newer instance of the producer has taken over.
    #[error(
        "producer {producer_id} sent epoch {epoch} but {current} is current: a newer instance has taken over"
    )]
    InvalidEpoch {
        /// The producer.
        producer_id: i64,
        /// Epoch sent.
        epoch: i16,
        /// Epoch known.
        current: i16,
    },
    /// The sequence does not continue the last one.
    #[error("producer {producer_id} sent sequence {sequence} but its last one was {last}")]
    OutOfOrder {
        /// The producer.
        producer_id: i64,
        /// First sequence sent.
        sequence: i32,
        /// Last sequence known, -1 for none.
        last: i32,
    },
    /// A marker of a coordinator that has been replaced.
    #[error(
        "coordinator epoch {given} is older than {current}, in which producer {producer_id}'s last transaction was ended"
    )]
    CoordinatorFenced {
        /// The producer.
        producer_id: i64,
        /// The marker's coordinator epoch.
        given: i32,
        /// The newest known.
        current: i32,
    },
    /// The batch is not of the producer's transaction.
    #[error("producer {producer_id}: {reason}")]
    InvalidTransactionState {
        /// The producer.
        producer_id: i64,
        /// What is wrong.
        reason: &'static str,
    },
    /// The table is full of producers with open transactions.
    #[error(
        "the log remembers {producers_max} producers (producer.states.max), all in open transactions; try later or raise it"
    )]
    TooManyProducers {
        /// `producer.states.max`.
        producers_max: u32,
    },
}

impl SequenceError {
    /// The protocol's error number.
    pub fn code(&self) -> i16 {
        match self {
            Self::InvalidEpoch { .. } => code::INVALID_PRODUCER_EPOCH,
            Self::OutOfOrder { .. } => code::OUT_OF_ORDER_SEQUENCE_NUMBER,
            Self::CoordinatorFenced { .. } => code::TRANSACTION_COORDINATOR_FENCED,
            Self::InvalidTransactionState { .. } => code::INVALID_TXN_STATE,
            Self::TooManyProducers { .. } => code::THROTTLING_QUOTA_EXCEEDED,
        }
    }
}

/// A remembered batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct KeptBatch {
    pub last_sequence: i32,
    pub last_offset: i64,
    pub offset_delta: i32,
    pub timestamp: i64,
}

impl KeptBatch {
    fn base_sequence(&self) -> i32 {
        // Backwards over the wrap: 0 comes after i32::MAX.
        ((i64::from(self.last_sequence) - i64::from(self.offset_delta)) & i64::from(i32::MAX))
            as i32
    }
}

/// What is remembered of one producer's batches: its epoch and the last five appended in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct History {
    pub epoch: i16,
    kept: [KeptBatch; BATCHES_KEPT],
    kept_count: u8,
}

impl History {
    /// Nothing appended yet.
    pub fn new(epoch: i16) -> Self {
        Self {
            epoch,
            kept: [KeptBatch::default(); BATCHES_KEPT],
            kept_count: 0,
        }
    }

    /// Remembered batches, oldest first.
    pub fn batches(&self) -> &[KeptBatch] {
        &self.kept[..usize::from(self.kept_count)]
    }

    /// Sequence of the last record, -1 where there is none.
    pub fn last_sequence(&self) -> i32 {
        self.batches()
            .last()
            .map_or(NO_SEQUENCE, |batch| batch.last_sequence)
    }

    /// The batch of the current epoch that this one repeats.
    #[inline]
    pub fn original_of(&self, batch: &ProducerBatch) -> Option<Duplicate> {
        if batch.producer_epoch != self.epoch {
            return None;
        }
        let (first, last) = (batch.base_sequence, batch.last_sequence());
        let is_original =
            |kept: &&KeptBatch| kept.last_sequence == last && kept.base_sequence() == first;
        let kept = self.batches().iter().rev().find(is_original)?;
        Some(Duplicate {
            base_offset: kept.last_offset - i64::from(kept.offset_delta),
            last_offset: kept.last_offset,
            timestamp: kept.timestamp,
        })
    }

    /// Judges the next batch of a known producer. The order of the rules is given at [`super::ProducerStates::check`].
    pub fn check(&self, batch: &ProducerBatch) -> Result<SequenceCheck, SequenceError> {
        let producer_id = batch.producer_id;
        if batch.producer_epoch < self.epoch {
            return Err(SequenceError::InvalidEpoch {
                producer_id,
                epoch: batch.producer_epoch,
                current: self.epoch,
            });
        }
        let sequence = batch.base_sequence;
        if batch.producer_epoch > self.epoch {
            if sequence != 0 && self.epoch != NO_PRODUCER_EPOCH {
                return Err(SequenceError::OutOfOrder {
                    producer_id,
                    sequence,
                    last: NO_SEQUENCE,
                });
            }
            return Ok(SequenceCheck::Fresh);
        }
        if let Some(original) = self.original_of(batch) {
            return Ok(SequenceCheck::Duplicate(original));
        }
        let last = self.last_sequence();
        let next = if last == NO_SEQUENCE {
            0
        } else {
            advance_sequence(last, 1)
        };
        if sequence != next {
            return Err(SequenceError::OutOfOrder {
                producer_id,
                sequence,
                last,
            });
        }
        Ok(SequenceCheck::Fresh)
    }

    /// Moves to another epoch, whose sequences start anew.
    pub fn enter_epoch(&mut self, epoch: i16) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.kept_count = 0;
        }
    }

    /// Remembers a batch, in place of the oldest where there are five.
    pub fn push(&mut self, batch: KeptBatch) {
        if usize::from(self.kept_count) == BATCHES_KEPT {
            self.kept.rotate_left(1);
            self.kept_count -= 1;
        }
        self.kept[usize::from(self.kept_count)] = batch;
        self.kept_count += 1;
    }

    /// Puts `earlier` before the last batch; ignored where there is none.
    pub fn prepend(&mut self, earlier: &[KeptBatch]) {
        let Some(&last) = self.batches().last() else {
            return;
        };
        self.kept_count = 0;
        for &batch in earlier {
            self.push(batch);
        }
        self.push(last);
    }
}
