//! From a metadata log to an image, and from there into a new term.

use std::sync::Arc;

use ringlog_engine::batch::batches;
use ringlog_net::metadata::MetadataRecord;

use super::batch::{self, BadBatch, Content};
use super::log::{LogFailure, MetadataLog};
use super::snapshot;
use crate::controller::{ApplyError, Image, ImageBuilder};

/// Why the metadata could not be opened. The broker does not start.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MetadataError {
    /// The log cannot be read or written.
    #[error(transparent)]
    Log(#[from] LogFailure),
    /// A batch is damaged.
    #[error(transparent)]
    Batch(#[from] BadBatch),
    /// A record contradicts those before it.
    #[error("the metadata log does not fit together: {0}")]
    Apply(#[from] ApplyError),
    /// The log's file could not be opened.
    #[error("the metadata log could not be opened: {0}")]
    Open(String),
    /// Batches are missing.
    #[error(
        "the metadata log goes on at offset {found} where {expected} should be; restore it from a copy"
    )]
    Gap {
        /// Where it should go on.
        expected: i64,
        /// Where it does.
        found: i64,
    },
}

/// The image in the newest snapshot that can be read; the empty one when there is none.
///
/// # Errors
/// What is wrong with the newest one, when none can be read and the log does not go back to its beginning.
pub async fn newest_snapshot(log: &impl MetadataLog) -> Result<Image, MetadataError> {
    let mut damage = None;
    for id in log.snapshots().await?.into_iter().rev() {
        match snapshot::read(id, &log.read_snapshot(id).await?) {
            Ok(image) => return Ok(image),
            Err(error) => {
                tracing::error!(%error, "a snapshot of the metadata cannot be used");
                damage.get_or_insert(error);
            }
        }
    }
    match damage {
        Some(error) if log.start_offset() > 0 => Err(error),
        _ => Ok(Image::empty()),
    }
}

/// Reads the log from what `image` already has to its end; also says how many bytes that took.
///
/// # Errors
/// The first thing that is wrong: half of a log is never acted on.
pub async fn replay(log: &impl MetadataLog, image: &Image) -> Result<(Image, u64), MetadataError> {
    let mut builder = ImageBuilder::new(image);
    let mut next = image.offset + 1;
    let mut bytes = 0;
    if log.start_offset() > next {
        return Err(MetadataError::Gap {
            expected: next,
            found: log.start_offset(),
        });
    }
    while next < log.end_offset() {
        let page = log.read(next).await?;
        let before = next;
        for found in batches(&page) {
            let found = found.map_err(|error| BadBatch {
                offset: next,
                reason: error.to_string(),
            })?;
            let header = found.header;
            if header.next_offset() <= next {
                continue;
            }
            if header.base_offset != next {
                return Err(MetadataError::Gap {
                    expected: next,
                    found: header.base_offset,
                });
            }
            match batch::decode(&found)? {
                Content::Records(records) => builder.batch(next, header.leader_epoch, &records)?,
                Content::Control => builder.skip_to(header.last_offset(), header.leader_epoch),
            }
            next = header.next_offset();
            bytes += found.bytes.len() as u64;
        }
        if next == before {
            let reason = "nothing can be read there although the log goes on".to_string();
            return Err(BadBatch {
                offset: next,
                reason,
            }
            .into());
        }
    }
    Ok((builder.finish().0, bytes))
}

/// Opens a term and writes the batches that `decide` makes one by one, each from the image that the ones before it make; all are committed on return.
pub async fn open_term(
    log: &impl MetadataLog,
    image: Image,
    leader: i32,
    timestamp_ms: i64,
    mut decide: impl FnMut(&Arc<Image>) -> Vec<MetadataRecord>,
) -> Result<Arc<Image>, MetadataError> {
    let epoch = image.epoch + 1;
    let start = image.offset + 1;
    log.append(batch::encode_leader_change(
        start,
        epoch,
        timestamp_ms,
        leader,
    )?)
    .await?;
    let mut builder = ImageBuilder::new(&image);
    builder.skip_to(start, epoch);
    let mut image = Arc::new(builder.finish().0);
    loop {
        let records = decide(&image);
        if records.is_empty() {
            break;
        }
        let base_offset = image.offset + 1;
        log.append(batch::encode(base_offset, epoch, timestamp_ms, &records)?)
            .await?;
        let mut builder = ImageBuilder::new(&image);
        builder.batch(base_offset, epoch, &records)?;
        image = Arc::new(builder.finish().0);
    }
    log.committed(image.offset + 1).await?;
    Ok(image)
}
