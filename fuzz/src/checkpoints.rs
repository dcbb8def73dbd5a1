//! Kafka's small text files: offset checkpoints, leader epochs, `partition.metadata`, `meta.properties`.
//!
//! What is read is written to a text that reads the same, in memory in proportion; what is not says why.

use ringlog_engine::checkpoint::{
    MetaProperties, PartitionMetadata, format_epochs, format_offsets, parse_epochs, parse_offsets,
};
use ringlog_engine::log::TopicId;

use crate::memory;

/// See the module.
pub fn run(input: &[u8]) {
    // A line of two bytes may become an entry of a few words, and lists grow by doubling.
    let limit = 100 * input.len() + 4096;
    match memory::within(limit, || parse_offsets(input)) {
        Ok(lines) => {
            let text = format_offsets(
                lines
                    .iter()
                    .map(|line| (line.topic.as_str(), line.partition, line.offset)),
            );
            assert_eq!(parse_offsets(text.as_bytes()), Ok(lines));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok(epochs) = memory::within(limit, || parse_epochs(input)) {
        assert_eq!(
            parse_epochs(format_epochs(&epochs).as_bytes()).as_ref(),
            Ok(&epochs)
        );
        for entry in epochs.entries() {
            assert_eq!(epochs.epoch_for(entry.start_offset), Some(entry.epoch));
            assert_eq!(epochs.end_offset_for(entry.epoch, i64::MAX).0, entry.epoch);
            let mut rest = epochs.clone();
            rest.truncate_from_start(entry.start_offset);
            assert_eq!(rest.entries().first(), Some(entry));
            rest.truncate_from_end(entry.start_offset);
            assert_eq!(rest.entries(), []);
        }
    }
    if let Ok(metadata) = memory::within(limit, || PartitionMetadata::parse(input)) {
        assert_eq!(
            PartitionMetadata::parse(metadata.format().as_bytes()),
            Ok(metadata)
        );
    }
    match memory::within(limit, || MetaProperties::parse(input)) {
        Ok(meta) => assert_eq!(MetaProperties::parse(meta.format().as_bytes()), Ok(meta)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// One of each, and Kafka's own way to write them.
pub fn seeds() -> Vec<Vec<u8>> {
    let meta = MetaProperties {
        cluster_id: "a =b\\c".to_owned(),
        node_id: 7,
        directory_id: Some("aaaaaaaaaaaaaaaaaaaaaA".to_owned()),
    };
    let partition = PartitionMetadata {
        topic_id: TopicId([9; 16]),
    };
    let texts = [
        format_offsets([("a.b-c", 0, 5), ("d", 11, i64::MAX)].into_iter()),
        format_offsets(std::iter::empty::<(&str, i32, i64)>()),
        "0\n3\n0 0\n1 20\n7 4000\n".to_owned(),
        partition.format(),
        meta.format(),
        "#\n#Mon Nov 23 08:00:00 UTC 2026\ncluster.id=AQIDBAUGBwgJCgsMDQ4PEA\nnode.id=1\nversion=1\n".to_owned(),
        "version = 1\n node.id : 7\ncluster.id=a\\=b\\u0041\r\n! comment\n".to_owned(),
    ];
    texts.map(String::into_bytes).into()
}
