//! Snapshots of the metadata, so that a start reads what there is and not all that ever was.
//!
//! A snapshot is a file `<end offset>-<term>.checkpoint` beside the log, in KRaft's form (KIP-630): a control batch that opens it, the records that make
//! the image, a control batch that closes it. It is durable before the log before it may go. Pure, but for giving way to others while a large one is made.

use std::future::poll_fn;
use std::task::Poll;

use bytes::Bytes;
use ringlog_engine::batch::batches;
use ringlog_net::metadata::{SnapshotFooterRecord, SnapshotHeaderRecord};

use super::batch::{BadBatch, Content, decode, encode, encode_control};
use super::replay::MetadataError;
use crate::controller::{Image, ImageBuilder};

/// Types of the control records at both ends.
const HEADER: i16 = 3;
const FOOTER: i16 = 4;
/// Version of both.
const VERSION: i16 = 0;
/// Records in one batch; others on the shard get their turn in between.
const RECORDS_PER_BATCH: usize = 500;
const SUFFIX: &str = ".checkpoint";

/// What a snapshot has: everything before `end_offset`, the last of it in term `epoch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotId {
    /// The first offset that is not in it.
    pub end_offset: i64,
    /// Term of the last record in it.
    pub epoch: i32,
}

impl SnapshotId {
    /// Of an image.
    pub fn of(image: &Image) -> Self {
        Self {
            end_offset: image.offset + 1,
            epoch: image.epoch,
        }
    }

    /// The snapshot's file name.
    pub fn file_name(self) -> String {
        format!("{:020}-{:010}{SUFFIX}", self.end_offset, self.epoch)
    }

    /// What a file name says, if it is a snapshot's.
    pub fn parse(name: &str) -> Option<Self> {
        let (end_offset, epoch) = name.strip_suffix(SUFFIX)?.split_once('-')?;
        let id = Self {
            end_offset: end_offset.parse().ok()?,
            epoch: epoch.parse().ok()?,
        };
        (id.file_name() == name).then_some(id)
    }
}

/// The content of a snapshot of `image`.
///
/// # Errors
/// A record that cannot be written in the log's form.
pub async fn write(image: &Image, timestamp_ms: i64) -> Result<Vec<u8>, BadBatch> {
    let header = SnapshotHeaderRecord {
        version: VERSION,
        last_contained_log_timestamp: timestamp_ms,
    };
    let mut content =
        encode_control(0, image.epoch, timestamp_ms, HEADER, &header, VERSION)?.to_vec();
    let mut next = 1;
    let mut records = image.records();
    loop {
        let some: Vec<_> = records.by_ref().take(RECORDS_PER_BATCH).collect();
        if some.is_empty() {
            break;
        }
        content.extend_from_slice(&encode(next, image.epoch, timestamp_ms, &some)?);
        next += some.len() as i64;
        give_way().await;
    }
    let footer = SnapshotFooterRecord { version: VERSION };
    content.extend_from_slice(&encode_control(
        next,
        image.epoch,
        timestamp_ms,
        FOOTER,
        &footer,
        VERSION,
    )?);
    Ok(content)
}

/// The image in a snapshot.
///
/// # Errors
/// Damage, a missing end, or records that do not fit together.
pub fn read(id: SnapshotId, content: &Bytes) -> Result<Image, MetadataError> {
    let bad = |offset, reason: &str| BadBatch {
        offset,
        reason: format!("snapshot {}: {reason}", id.file_name()),
    };
    let mut builder = ImageBuilder::new(&Image::empty());
    let (mut next, mut controls, mut whole) = (0, 0, 0);
    for batch in batches(content) {
        let batch = batch.map_err(|error| bad(next, &error.to_string()))?;
        if batch.header.base_offset != next {
            return Err(bad(next, "batches are missing").into());
        }
        match decode(&batch)? {
            Content::Control => controls += 1,
            Content::Records(records) => builder.batch(next, id.epoch, &records)?,
        }
        next = batch.header.next_offset();
        whole += batch.bytes.len();
    }
    if controls != 2 || whole != content.len() {
        return Err(bad(
            next,
            "it is cut short; remove it if the log before it is still there",
        )
        .into());
    }
    builder.skip_to(id.end_offset - 1, id.epoch);
    Ok(builder.finish().0)
}

/// Lets other tasks of this thread go on.
async fn give_way() {
    let mut given = false;
    poll_fn(|context| {
        if std::mem::replace(&mut given, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    //! File names are KRaft's, and nothing else is taken for one; a snapshot that is damaged or cut anywhere is refused.
    use futures_util::FutureExt;

    use super::*;
    use crate::controller::tests::{Cluster, topic};

    #[test]
    fn names() {
        let id = SnapshotId {
            end_offset: 30_005,
            epoch: 2,
        };
        assert_eq!(id.file_name(), "00000000000000030005-0000000002.checkpoint");
        assert_eq!(SnapshotId::parse(&id.file_name()), Some(id));
        for other in [
            "5-2.checkpoint",
            "00000000000000030005-0000000002.checkpoint.tmp",
            "00000000000000030005.log",
        ] {
            assert_eq!(SnapshotId::parse(other), None);
        }
    }

    #[test]
    fn damaged_and_cut_ones_are_refused() {
        let mut cluster = Cluster::new(1, &[]);
        cluster.create(topic("t", 5, 1));
        let image = cluster.image();
        let mut writing = Box::pin(write(image, 7));
        let content = std::iter::repeat_with(|| (&mut writing).now_or_never())
            .flatten()
            .next()
            .unwrap()
            .unwrap();
        let id = SnapshotId::of(image);
        assert_eq!(
            read(id, &Bytes::from(content.clone())).unwrap().topic("t"),
            image.topic("t")
        );
        for cut in 0..content.len() {
            assert!(
                read(id, &Bytes::copy_from_slice(&content[..cut])).is_err(),
                "cut at {cut}"
            );
        }
        for at in (0..content.len())
            .filter(|at| !(12..16).contains(at))
            .step_by(7)
        {
            let mut damaged = content.clone();
            damaged[at] ^= 0x20;
            if let Ok(found) = read(id, &Bytes::from(damaged)) {
                // Only a batch's leader epoch lies outside its checksum and place.
                assert_eq!(found.topic("t"), image.topic("t"), "byte {at}");
            }
        }
    }
}
