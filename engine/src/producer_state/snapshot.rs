//! Producer state in Kafka's `.snapshot` format, version 1, so that Kafka's tools read it.
//!
//! Version i16, CRC-32C u32 of all that follows, count i32, then per producer: id i64, epoch i16, last sequence i32, last offset i64, offset delta i32, timestamp i64,
//! coordinator epoch i32, first offset of the open transaction i64; big endian. Kafka keeps one batch per producer there. Ours follow in a tail that Kafka does not look at: a magic, then the earlier batches of each
//! producer that has any, so that duplicates are known after a restart as before it. A file without the tail is complete, too.

use super::{
    rules::{BATCHES_KEPT, KeptBatch},
    table::{ProducerLimits, ProducerStates, Stored},
};
use crate::batch::{NO_SEQUENCE, crc32c};

const VERSION: i16 = 1;
const CHECKED_FROM: usize = 6;
const ENTRY_BYTES: usize = 46;
/// "RLEB": Ringlog's earlier batches, format 1.
const TAIL_MAGIC: [u8; 5] = *b"RLEB\x01";
const BATCH_BYTES: usize = 24;

/// Why a snapshot cannot be used: it is to be deleted, and an older one or the log itself read instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// A version that is not 1.
    #[error(
        "producer snapshot has version {version}, only 1 is known; it is to be rebuilt from the log"
    )]
    UnknownVersion {
        /// Version found.
        version: i16,
    },
    /// The checksum does not match.
    #[error(
        "producer snapshot is damaged (its checksum does not match); it is to be rebuilt from the log"
    )]
    BadChecksum,
    /// The content contradicts itself.
    #[error("producer snapshot is damaged: {0}; it is to be rebuilt from the log")]
    Damaged(&'static str),
}

impl ProducerStates {
    /// The bytes of a snapshot, expired producers left out. Its file is named after the log end offset it stands for.
    pub fn encode_snapshot(&self, now_ms: i64) -> Vec<u8> {
        let live = || {
            self.by_use()
                .filter(|entry| !self.is_expired(entry, now_ms))
        };
        let mut out = Vec::with_capacity(CHECKED_FROM + 4 + self.len() * ENTRY_BYTES);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(live().count() as i32).to_be_bytes());
        for entry in live() {
            let last = entry
                .history
                .batches()
                .last()
                .copied()
                .unwrap_or(KeptBatch::NONE);
            out.extend_from_slice(&entry.producer_id.to_be_bytes());
            out.extend_from_slice(&entry.history.epoch.to_be_bytes());
            out.extend_from_slice(&last.last_sequence.to_be_bytes());
            out.extend_from_slice(&last.last_offset.to_be_bytes());
            out.extend_from_slice(&last.offset_delta.to_be_bytes());
            out.extend_from_slice(&entry.last_timestamp.to_be_bytes());
            out.extend_from_slice(&entry.coordinator_epoch.to_be_bytes());
            out.extend_from_slice(&entry.transaction_first_offset.to_be_bytes());
        }
        if live().any(|entry| entry.history.batches().len() > 1) {
            out.extend_from_slice(&TAIL_MAGIC);
            for entry in live().filter(|entry| entry.history.batches().len() > 1) {
                let (_, earlier) = entry
                    .history
                    .batches()
                    .split_last()
                    .unwrap_or((&KeptBatch::NONE, &[]));
                out.extend_from_slice(&entry.producer_id.to_be_bytes());
                out.push(earlier.len() as u8);
                for batch in earlier {
                    out.extend_from_slice(&batch.last_sequence.to_be_bytes());
                    out.extend_from_slice(&batch.last_offset.to_be_bytes());
                    out.extend_from_slice(&batch.offset_delta.to_be_bytes());
                    out.extend_from_slice(&batch.timestamp.to_be_bytes());
                }
            }
        }
        let checksum = crc32c(&out[CHECKED_FROM..]);
        out[2..CHECKED_FROM].copy_from_slice(&checksum.to_be_bytes());
        out
    }

    /// The table a snapshot stands for. All its producers count as used at `now_ms`: a restart prolongs their life, never shortens it.
    ///
    /// Where there are more than `limits` allow, those used longest ago are left out.
    pub fn decode_snapshot(
        bytes: &[u8],
        limits: ProducerLimits,
        now_ms: i64,
    ) -> Result<Self, SnapshotError> {
        let mut fields = Fields { bytes };
        let version = i16::from_be_bytes(fields.take()?);
        if version != VERSION {
            return Err(SnapshotError::UnknownVersion { version });
        }
        let checksum = u32::from_be_bytes(fields.take()?);
        if checksum != crc32c(fields.bytes) {
            return Err(SnapshotError::BadChecksum);
        }
        let count = usize::try_from(i32::from_be_bytes(fields.take()?))
            .map_err(|_| SnapshotError::Damaged("negative number of producers"))?;
        if count > fields.bytes.len() / ENTRY_BYTES {
            return Err(SnapshotError::Damaged("fewer producers than it counts"));
        }
        let mut states = Self::new(limits);
        for _ in 0..count {
            states.restore(&fields.entry()?, now_ms);
        }
        // A tail of an unknown kind is somebody else's addition: the producers above are complete without it.
        if let Some(tail) = fields.bytes.strip_prefix(&TAIL_MAGIC) {
            let mut fields = Fields { bytes: tail };
            while !fields.bytes.is_empty() {
                fields.earlier(&mut states)?;
            }
        }
        Ok(states)
    }
}

struct Fields<'a> {
    bytes: &'a [u8],
}

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let (field, rest) = self
            .bytes
            .split_first_chunk::<N>()
            .ok_or(SnapshotError::Damaged("it is cut off"))?;
        self.bytes = rest;
        Ok(*field)
    }

    fn entry(&mut self) -> Result<Stored, SnapshotError> {
        let producer_id = i64::from_be_bytes(self.take()?);
        let epoch = i16::from_be_bytes(self.take()?);
        let last_sequence = i32::from_be_bytes(self.take()?);
        let last_offset = i64::from_be_bytes(self.take()?);
        let offset_delta = i32::from_be_bytes(self.take()?);
        let timestamp = i64::from_be_bytes(self.take()?);
        let coordinator_epoch = i32::from_be_bytes(self.take()?);
        let transaction_first_offset = i64::from_be_bytes(self.take()?);
        // Only a producer whose batches are all gone (markers remain) has no last offset.
        let last_batch = if last_offset < 0 {
            None
        } else {
            Some(KeptBatch::checked(
                last_sequence,
                last_offset,
                offset_delta,
                timestamp,
            )?)
        };
        Ok(Stored {
            producer_id,
            epoch,
            last_batch,
            last_timestamp: timestamp,
            coordinator_epoch,
            transaction_first_offset: transaction_first_offset.max(-1),
        })
    }

    fn earlier(&mut self, states: &mut ProducerStates) -> Result<(), SnapshotError> {
        let producer_id = i64::from_be_bytes(self.take()?);
        let [count] = self.take()?;
        let count = usize::from(count);
        if count >= BATCHES_KEPT || self.bytes.len() < count * BATCH_BYTES {
            return Err(SnapshotError::Damaged("more earlier batches than it holds"));
        }
        let mut batches = [KeptBatch::NONE; BATCHES_KEPT];
        for batch in &mut batches[..count] {
            let last_sequence = i32::from_be_bytes(self.take()?);
            let last_offset = i64::from_be_bytes(self.take()?);
            let offset_delta = i32::from_be_bytes(self.take()?);
            let timestamp = i64::from_be_bytes(self.take()?);
            *batch = KeptBatch::checked(last_sequence, last_offset, offset_delta, timestamp)?;
        }
        states.restore_earlier(producer_id, &batches[..count]);
        Ok(())
    }
}

impl KeptBatch {
    /// How "no batch" is stored.
    const NONE: Self = Self {
        last_sequence: -1,
        last_offset: -1,
        offset_delta: 0,
        timestamp: -1,
    };

    fn checked(
        last_sequence: i32,
        last_offset: i64,
        offset_delta: i32,
        timestamp: i64,
    ) -> Result<Self, SnapshotError> {
        // What a coordinator wrote has no sequence.
        if last_sequence < NO_SEQUENCE
            || offset_delta < 0
            || last_offset < i64::from(offset_delta)
            || last_offset == i64::MAX
        {
            return Err(SnapshotError::Damaged(
                "a batch's sequence and offsets contradict each other",
            ));
        }
        Ok(Self {
            last_sequence,
            last_offset,
            offset_delta,
            timestamp,
        })
    }
}
