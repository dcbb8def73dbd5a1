//! Transactions as records of `__transaction_state`, in Kafka's format: key type 0, values of version 1, read also in version 0.

use bytes::Bytes;
use ringlog_net::Str;
use ringlog_net::codec::{DecodeError, EncodeError, Message, Reader, Writer};
use ringlog_net::coordinators::{TransactionLogKey, TransactionLogValue};
use thiserror::Error;

use super::partitions::Partitions;
use super::state::TransactionState;
use super::transaction::{
    EPOCH_BUMP_VERSION, LAST_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, Transaction,
};

/// The type at the start of a key.
const KEY_TYPE: i16 = 0;
/// The only version of such a key.
const KEY_VERSION: i16 = 0;
/// Kafka writes this version once `transaction.version` is at least 1.
const VALUE_VERSION: i16 = 1;

/// Why a record was not taken in.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UnreadableRecord {
    /// Another type of key: something newer wrote it. To be passed over with a warning, as Kafka does.
    #[error("the key's type {0} is not that of a transaction")]
    KeyType(i16),
    /// Another version of the value. To be passed over with a warning, as Kafka does.
    #[error("the value's version {0} is not known here")]
    ValueVersion(i16),
    /// Nothing that is ever written. The partition must not be served.
    #[error("a transaction cannot be in state {0}")]
    State(i8),
    /// Damage. The partition must not be served.
    #[error("the record is malformed: {0}")]
    Malformed(#[from] DecodeError),
}

impl UnreadableRecord {
    /// Whether the record may be passed over: it is whole, and not for us.
    pub fn is_foreign(&self) -> bool {
        matches!(
            self,
            UnreadableRecord::KeyType(_) | UnreadableRecord::ValueVersion(_)
        )
    }
}

/// The key of an id.
///
/// # Errors
/// [`EncodeError`] when the id is longer than a key can say.
pub(super) fn key(transactional_id: &Str) -> Result<Bytes, EncodeError> {
    let mut writer = Writer::new();
    writer.i16(KEY_TYPE);
    TransactionLogKey {
        transactional_id: transactional_id.clone(),
    }
    .encode(&mut writer, KEY_VERSION)?;
    Ok(writer.into_bytes())
}

/// The value of a transaction.
///
/// # Errors
/// [`EncodeError`] when a field is longer than the record can say.
pub(super) fn value(transaction: &Transaction) -> Result<Bytes, EncodeError> {
    let mut writer = Writer::new();
    writer.i16(VALUE_VERSION);
    TransactionLogValue {
        producer_id: transaction.producer_id,
        previous_producer_id: transaction.previous_producer_id,
        next_producer_id: transaction.next_producer_id,
        producer_epoch: transaction.producer_epoch,
        // Kafka describes this field and never sets it.
        next_producer_epoch: NO_PRODUCER_EPOCH,
        transaction_timeout_ms: transaction.timeout_ms,
        transaction_status: transaction.state.number(),
        transaction_partitions: (transaction.state != TransactionState::Empty)
            .then(|| transaction.partitions.stored()),
        transaction_last_update_timestamp_ms: transaction.update_ms,
        transaction_start_timestamp_ms: transaction.start_ms,
        client_transaction_version: transaction.client_version,
    }
    .encode(&mut writer, VALUE_VERSION)?;
    Ok(writer.into_bytes())
}

/// The id in a key.
///
/// # Errors
/// [`UnreadableRecord`], as its variants say.
pub(super) fn read_key(key: &Bytes) -> Result<Str, UnreadableRecord> {
    let mut reader = Reader::new(key.clone());
    let kind = reader.i16()?;
    if kind != KEY_TYPE {
        return Err(UnreadableRecord::KeyType(kind));
    }
    let key = TransactionLogKey::decode(&mut reader, KEY_VERSION)?;
    reader.finish()?;
    Ok(key.transactional_id.detached())
}

/// The transaction in a value. Its deadline is not set: see [`super::TransactionCoordinator::loaded`].
///
/// # Errors
/// [`UnreadableRecord`], as its variants say.
pub(super) fn read_value(value: &Bytes) -> Result<Transaction, UnreadableRecord> {
    let mut reader = Reader::new(value.clone());
    let version = reader.i16()?;
    if !(0..=VALUE_VERSION).contains(&version) {
        return Err(UnreadableRecord::ValueVersion(version));
    }
    let value = TransactionLogValue::decode(&mut reader, version)?;
    reader.finish()?;
    let state = TransactionState::from_number(value.transaction_status)
        .ok_or(UnreadableRecord::State(value.transaction_status))?;
    let partitions = match &value.transaction_partitions {
        Some(stored) if state != TransactionState::Empty => Partitions::from_stored(stored),
        _ => Partitions::default(),
    };
    Ok(Transaction {
        producer_id: value.producer_id,
        previous_producer_id: value.previous_producer_id,
        next_producer_id: value.next_producer_id,
        producer_epoch: value.producer_epoch,
        last_producer_epoch: last_epoch(&value, state),
        timeout_ms: value.transaction_timeout_ms,
        state,
        partitions,
        start_ms: value.transaction_start_timestamp_ms,
        update_ms: value.transaction_last_update_timestamp_ms,
        client_version: value.client_transaction_version,
        deadline_ms: None,
        updated_monotonic_ms: None,
    })
}

/// The epoch before, which is not in the record. After an end that bumped the epoch it follows from the others, so that a retry finds its answer also across a
/// change of coordinator; Kafka forgets it here.
fn last_epoch(value: &TransactionLogValue, state: TransactionState) -> i16 {
    if value.client_transaction_version < EPOCH_BUMP_VERSION || state.decision().is_none() {
        return NO_PRODUCER_EPOCH;
    }
    let changed = value.producer_epoch == 0
        && value.previous_producer_id != NO_PRODUCER_ID
        && value.previous_producer_id != value.producer_id;
    if changed {
        LAST_EPOCH
    } else {
        value
            .producer_epoch
            .saturating_sub(1)
            .max(NO_PRODUCER_EPOCH)
    }
}
