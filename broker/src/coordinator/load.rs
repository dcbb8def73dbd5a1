//! Reads a coordinator's partition from its start and hands every entry to the machine.

use bytes::Bytes;
use ringlog_engine::batch::{Batch, Records, batches, decompress};
use ringlog_engine::log::ReadLimit;

use super::machine::{Machine, Replayed, Unreplayed};
use crate::shard::{Log, Shard};

/// Bytes read at a time.
const READ_BYTES: usize = 1 << 20;
/// Versions of the key of a control record that say what we read: its type comes second.
const MARKER_KEY_BYTES: usize = 4;
/// Types of a control record that end a transaction.
const ABORT: i16 = 0;
const COMMIT: i16 = 1;

/// Replays the whole log.
///
/// # Errors
/// Why it cannot be read.
pub(super) async fn load<M: Machine>(
    shard: &Shard,
    log: &Log,
    machine: &mut M,
) -> Result<(), String> {
    let began = std::time::Instant::now();
    let mut offset = log.log_start_offset();
    let mut skipped = 0u64;
    let mut entries = 0u64;
    while offset < log.log_end_offset() {
        let found = log
            .read(offset, READ_BYTES, true, ReadLimit::LogEnd)
            .await
            .map_err(|error| error.to_string())?;
        if found.is_empty() || found.next_offset <= offset {
            return Err(format!("nothing is found at offset {offset}"));
        }
        offset = found.next_offset;
        let bytes = match found.pieces.as_slice() {
            [only] => only.clone(),
            pieces => Bytes::from(pieces.concat()),
        };
        // Measured, so that a long log leaves the thread to others now and then.
        let replayed = shard.measured(async {
            for batch in batches(&bytes) {
                let batch = batch.map_err(|error| error.to_string())?;
                let (taken, left) = replay(shard, &batch, machine)?;
                entries += taken;
                skipped += left;
            }
            Ok::<(), String>(())
        });
        replayed.await?;
    }
    // What is not durable yet may still be lost, and the state with it.
    log.flushed(offset)
        .await
        .map_err(|error| error.to_string())?;
    if skipped > 0 {
        tracing::warn!(log = %log.topic_partition(), skipped, "records of a coordinator's partition could not be understood and were skipped");
    }
    if entries > 0 {
        tracing::info!(log = %log.topic_partition(), entries, ms = began.elapsed().as_millis() as u64, "a coordinator has loaded its state");
    }
    Ok(())
}

fn replay<M: Machine>(
    shard: &Shard,
    batch: &Batch<'_>,
    machine: &mut M,
) -> Result<(u64, u64), String> {
    let header = &batch.header;
    let at = |reason: String| format!("the batch at offset {}: {reason}", header.base_offset);
    if !batch.checksum_matches() {
        return Err(at("its checksum does not match".into()));
    }
    let compression = header
        .attributes
        .compression()
        .map_err(|error| at(error.to_string()))?;
    let cap = shard.config.decompressed_bytes_max;
    let payload =
        decompress(compression, batch.payload(), cap).map_err(|error| at(error.to_string()))?;
    let producer = header
        .attributes
        .is_transactional()
        .then_some((header.producer_id, header.producer_epoch));
    let (mut taken, mut skipped) = (0, 0);
    for record in Records::new(&payload, header.record_count) {
        let record = record.map_err(|error| at(error.to_string()))?;
        let entry = if header.attributes.is_control() {
            marker(header.producer_id, record.key)
        } else {
            record.key.map(|key| Replayed::Record {
                producer,
                key: Bytes::copy_from_slice(key),
                value: record.value.map(Bytes::copy_from_slice),
            })
        };
        match entry.map(|entry| machine.replay(entry)) {
            Some(Ok(())) => taken += 1,
            Some(Err(Unreplayed::Foreign(reason))) => {
                tracing::debug!(offset = header.base_offset, reason, "a record was skipped");
                skipped += 1;
            }
            Some(Err(Unreplayed::Unreadable(reason))) => return Err(at(reason)),
            None => skipped += 1,
        }
    }
    Ok((taken, skipped))
}

fn marker(producer_id: i64, key: Option<&[u8]>) -> Option<Replayed> {
    let key = key?.get(..MARKER_KEY_BYTES)?;
    let committed = match i16::from_be_bytes([key[2], key[3]]) {
        COMMIT => true,
        ABORT => false,
        _ => return None,
    };
    Some(Replayed::Marker {
        producer_id,
        committed,
    })
}
