//! Reads a coordinator's partition from its start and hands every entry to the machine.

use bytes::Bytes;
use ringlog_engine::batch::{Batch, EndTransactionMarker, batches, read_records};
use ringlog_engine::log::ReadLimit;

use super::machine::{Machine, Replayed, Unreplayed};
use crate::shard::{Log, Shard};

/// Bytes read at a time.
const READ_BYTES: usize = 1 << 20;

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
    if header.record_count == 0 {
        // What compaction leaves of a batch.
        return Ok((0, 0));
    }
    if header.attributes.is_control() {
        let marker = EndTransactionMarker::of(header, batch.payload());
        let marker = marker.map_err(|error| at(error.to_string()))?;
        let entry = marker.map(|marker| Replayed::Marker {
            producer_id: marker.producer_id,
            committed: marker.committed,
        });
        return take(machine, entry, header.base_offset).map_err(at);
    }
    let cap = shard.config.decompressed_bytes_max;
    let records = read_records(batch.bytes, header, cap).map_err(|error| at(error.to_string()))?;
    let producer = header
        .attributes
        .is_transactional()
        .then_some((header.producer_id, header.producer_epoch));
    let (mut taken, mut skipped) = (0, 0);
    for record in records.iter() {
        let record = record.map_err(|error| at(error.to_string()))?;
        let entry = record.key.map(|key| Replayed::Record {
            producer,
            key: Bytes::copy_from_slice(key),
            value: record.value.map(Bytes::copy_from_slice),
        });
        let (more, left) = take(machine, entry, header.base_offset).map_err(at)?;
        taken += more;
        skipped += left;
    }
    Ok((taken, skipped))
}

/// Hands an entry over: how many were taken in, and how many passed over.
fn take<M: Machine>(
    machine: &mut M,
    entry: Option<Replayed>,
    offset: i64,
) -> Result<(u64, u64), String> {
    match entry.map(|entry| machine.replay(entry)) {
        Some(Ok(())) => Ok((1, 0)),
        Some(Err(Unreplayed::Foreign(reason))) => {
            tracing::debug!(offset, reason, "a record was skipped");
            Ok((0, 1))
        }
        Some(Err(Unreplayed::Unreadable(reason))) => Err(reason),
        None => Ok((0, 1)),
    }
}
