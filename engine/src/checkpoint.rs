//! Kafka's small text files: offset checkpoints, the leader-epoch checkpoint, `partition.metadata` and `meta.properties`.
//!
//! Text in, values out, and back; whoever writes them does so atomically. Formatting gives Kafka's bytes. Parsing accepts what Kafka accepts and says which line is wrong otherwise, so that an operator can repair or delete the file.

use std::{collections::BTreeMap, fmt::Write};

use crate::{
    epochs::{EpochEntry, LeaderEpochs},
    log::TopicId,
};

/// `recovery-point-offset-checkpoint`, per data directory.
pub const RECOVERY_POINT_FILE: &str = "recovery-point-offset-checkpoint";
/// `log-start-offset-checkpoint`, per data directory.
pub const LOG_START_FILE: &str = "log-start-offset-checkpoint";
/// `cleaner-offset-checkpoint`, per data directory.
pub const CLEANER_OFFSET_FILE: &str = "cleaner-offset-checkpoint";
/// `replication-offset-checkpoint` (high watermarks), per data directory.
pub const HIGH_WATERMARK_FILE: &str = "replication-offset-checkpoint";
/// `leader-epoch-checkpoint`, per partition.
pub const LEADER_EPOCH_FILE: &str = "leader-epoch-checkpoint";
/// `partition.metadata`, per partition.
pub const PARTITION_METADATA_FILE: &str = "partition.metadata";
/// `meta.properties`, per data directory.
pub const META_PROPERTIES_FILE: &str = "meta.properties";

const CHECKPOINT_VERSION: i64 = 0;

/// Where and why a text file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Not UTF-8.
    #[error("not a text file (byte {at} is not UTF-8)")]
    NotText {
        /// First wrong byte.
        at: usize,
    },
    /// A line that cannot be understood.
    #[error("line {line}: {reason}")]
    BadLine {
        /// Line number from 1.
        line: usize,
        /// What is expected there.
        reason: &'static str,
    },
    /// A format version that is not known.
    #[error("version {found} is not supported, only {known} is: it was written by a newer release")]
    UnknownVersion {
        /// Version found.
        found: i64,
        /// Version supported.
        known: i64,
    },
    /// The number of entries is not what the second line says.
    #[error("{expected} entries announced but {found} found: the file is cut off or was edited")]
    WrongCount {
        /// Entries announced.
        expected: i64,
        /// Entries found.
        found: usize,
    },
    /// A key that has to be there is not.
    #[error("key {0} is missing")]
    MissingKey(&'static str),
    /// The value of a key is wrong.
    #[error("value of key {key} is wrong: {reason}")]
    BadValue {
        /// The key.
        key: &'static str,
        /// What is expected.
        reason: &'static str,
    },
}

/// One line of an offset checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetLine {
    /// Topic name.
    pub topic: String,
    /// Partition number.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

/// The text of an offset checkpoint: version, number of lines, then `topic partition offset`.
pub fn format_offsets<'a>(lines: impl ExactSizeIterator<Item = (&'a str, i32, i64)>) -> String {
    let mut out = format!("{CHECKPOINT_VERSION}\n{}\n", lines.len());
    for (topic, partition, offset) in lines {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{topic} {partition} {offset}");
    }
    out
}

/// Reads an offset checkpoint. A later line for the same partition stands beside the earlier one: the caller decides.
pub fn parse_offsets(bytes: &[u8]) -> Result<Vec<OffsetLine>, CheckpointError> {
    parse_counted(bytes, |line, fields| {
        let bad = |reason| CheckpointError::BadLine { line, reason };
        let [topic, partition, offset] = *fields else {
            return Err(bad("`topic partition offset` is expected"));
        };
        Ok(OffsetLine {
            topic: topic.to_owned(),
            partition: parse_from_zero(partition)
                .ok_or(bad("the partition is not a number from 0"))?,
            offset: parse_from_zero(offset).ok_or(bad("the offset is not a number from 0"))?,
        })
    })
}

/// The text of a leader-epoch checkpoint: version, number of lines, then `epoch start-offset`.
pub fn format_epochs(epochs: &LeaderEpochs) -> String {
    let mut out = format!("{CHECKPOINT_VERSION}\n{}\n", epochs.entries().len());
    for entry in epochs.entries() {
        let _ = writeln!(out, "{} {}", entry.epoch, entry.start_offset);
    }
    out
}

/// Reads a leader-epoch checkpoint. Entries have to increase in both columns.
pub fn parse_epochs(bytes: &[u8]) -> Result<LeaderEpochs, CheckpointError> {
    let mut last: Option<EpochEntry> = None;
    let entries = parse_counted(bytes, |line, fields| {
        let bad = |reason| CheckpointError::BadLine { line, reason };
        let [epoch, start_offset] = *fields else {
            return Err(bad("`epoch start-offset` is expected"));
        };
        let entry = EpochEntry {
            epoch: parse_from_zero(epoch).ok_or(bad("the epoch is not a number from 0"))?,
            start_offset: parse_from_zero(start_offset)
                .ok_or(bad("the start offset is not a number from 0"))?,
        };
        if last.is_some_and(|last| {
            entry.epoch <= last.epoch || entry.start_offset <= last.start_offset
        }) {
            return Err(bad("epochs and start offsets have to increase"));
        }
        last = Some(entry);
        Ok(entry)
    })?;
    Ok(LeaderEpochs::from_entries(entries))
}

/// `partition.metadata`: which topic a partition's directory belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionMetadata {
    /// The topic's id.
    pub topic_id: TopicId,
}

impl PartitionMetadata {
    /// The file's text.
    pub fn format(&self) -> String {
        format!("version: {CHECKPOINT_VERSION}\ntopic_id: {}", self.topic_id)
    }

    /// Reads the file. The all-zero topic id is refused.
    pub fn parse(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let mut lines = text(bytes)?.lines();
        let mut value = |key: &'static str, line: usize, reason: &'static str| {
            let found = lines.next().ok_or(CheckpointError::MissingKey(key))?;
            let (name, value) = found
                .split_once(':')
                .ok_or(CheckpointError::BadLine { line, reason })?;
            if name.trim() != key {
                return Err(CheckpointError::BadLine { line, reason });
            }
            Ok(value.trim())
        };
        let version = value("version", 1, "`version: 0` is expected")?;
        check_version("version", version, CHECKPOINT_VERSION)?;
        let topic_id = value("topic_id", 2, "`topic_id: …` is expected")?;
        let topic_id = TopicId::parse(topic_id)
            .filter(|id| id.0 != [0; 16])
            .ok_or(CheckpointError::BadValue {
                key: "topic_id",
                reason: "22 characters of base64url are expected",
            })?;
        Ok(Self { topic_id })
    }
}

/// `meta.properties`, version 1: which cluster and node a data directory belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaProperties {
    /// Id of the cluster.
    pub cluster_id: String,
    /// Id of the node, ≥ 0.
    pub node_id: i32,
    /// Id of this directory (KIP-858), base64url; Kafka before 3.7 wrote none.
    pub directory_id: Option<String>,
}

const META_PROPERTIES_VERSION: i64 = 1;

impl MetaProperties {
    /// The file's text, as a Java properties file.
    pub fn format(&self) -> String {
        let mut out = String::from("#\n");
        let _ = writeln!(out, "cluster.id={}", escape(&self.cluster_id));
        if let Some(directory_id) = &self.directory_id {
            let _ = writeln!(out, "directory.id={}", escape(directory_id));
        }
        let _ = writeln!(out, "node.id={}", self.node_id);
        let _ = writeln!(out, "version={META_PROPERTIES_VERSION}");
        out
    }

    /// Reads the file; unknown keys are ignored. Version 0 (before KRaft) is refused.
    pub fn parse(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let values = parse_properties(text(bytes)?)?;
        let value = |key: &'static str| values.get(key).map(String::as_str);
        let version = value("version").ok_or(CheckpointError::MissingKey("version"))?;
        check_version("version", version, META_PROPERTIES_VERSION)?;
        let filled = |key: &'static str| match value(key) {
            Some("") => Err(CheckpointError::BadValue {
                key,
                reason: "it is empty",
            }),
            other => Ok(other),
        };
        let cluster_id = filled("cluster.id")?.ok_or(CheckpointError::MissingKey("cluster.id"))?;
        let node_id = value("node.id").ok_or(CheckpointError::MissingKey("node.id"))?;
        let node_id = parse_from_zero(node_id).ok_or(CheckpointError::BadValue {
            key: "node.id",
            reason: "a number from 0 is expected",
        })?;
        let directory_id = filled("directory.id")?.map(str::to_owned);
        Ok(Self {
            cluster_id: cluster_id.to_owned(),
            node_id,
            directory_id,
        })
    }
}

fn text(bytes: &[u8]) -> Result<&str, CheckpointError> {
    std::str::from_utf8(bytes).map_err(|error| CheckpointError::NotText {
        at: error.valid_up_to(),
    })
}

fn check_version(key: &'static str, value: &str, known: i64) -> Result<(), CheckpointError> {
    let found = value.parse().map_err(|_| CheckpointError::BadValue {
        key,
        reason: "a number is expected",
    })?;
    if found == known {
        Ok(())
    } else {
        Err(CheckpointError::UnknownVersion { found, known })
    }
}

/// Reads version, count and as many lines of fields separated by white space.
fn parse_counted<T>(
    bytes: &[u8],
    mut entry: impl FnMut(usize, &[&str]) -> Result<T, CheckpointError>,
) -> Result<Vec<T>, CheckpointError> {
    let mut lines = text(bytes)?.lines();
    let mut number = |line, reason| {
        let found: Option<i64> = lines.next().and_then(|text| text.trim().parse().ok());
        found.ok_or(CheckpointError::BadLine { line, reason })
    };
    let found = number(1, "the format version is expected")?;
    if found != CHECKPOINT_VERSION {
        return Err(CheckpointError::UnknownVersion {
            found,
            known: CHECKPOINT_VERSION,
        });
    }
    let expected = number(2, "the number of entries is expected")?;
    let mut entries = Vec::new();
    let mut fields = Vec::new();
    for (index, line) in lines.enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        fields.clear();
        fields.extend(line.split_whitespace());
        entries.push(entry(index + 3, &fields)?);
    }
    if usize::try_from(expected) != Ok(entries.len()) {
        return Err(CheckpointError::WrongCount {
            expected,
            found: entries.len(),
        });
    }
    Ok(entries)
}

/// A decimal number that is not negative, without sign or space.
fn parse_from_zero<T: std::str::FromStr>(text: &str) -> Option<T> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

/// White space in Java properties.
const PROPERTIES_SPACE: [char; 3] = [' ', '\t', '\u{c}'];

/// Java properties, as far as such files use them: comments, `=` or `:`, white space around keys, backslash escapes.
fn parse_properties(text: &str) -> Result<BTreeMap<String, String>, CheckpointError> {
    let mut values = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start_matches(PROPERTIES_SPACE);
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let bad = |reason| CheckpointError::BadLine {
            line: index + 1,
            reason,
        };
        let (key, value) = line
            .split_once(['=', ':'])
            .ok_or(bad("`key=value` is expected"))?;
        let value = unescape(value.trim_start_matches(PROPERTIES_SPACE)).ok_or(bad(
            "it ends in the middle of an escape, or the escape is not known",
        ))?;
        values.insert(key.trim_end_matches(PROPERTIES_SPACE).to_owned(), value);
    }
    Ok(values)
}

fn unescape(value: &str) -> Option<String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(char) = chars.next() {
        if char != '\\' {
            out.push(char);
            continue;
        }
        out.push(match chars.next()? {
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'f' => '\u{c}',
            'u' => {
                let digits: String = chars.by_ref().take(4).collect();
                if digits.len() != 4 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return None;
                }
                char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?
            }
            other => other,
        });
    }
    Some(out)
}

fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for (index, char) in value.chars().enumerate() {
        match char {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{c}' => out.push_str("\\f"),
            ' ' if index > 0 => out.push(' '),
            ' ' | '\\' | '=' | ':' | '#' | '!' => {
                out.push('\\');
                out.push(char);
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    //! Proves: the texts are Kafka's, round-trip, and any other text is refused with the place that is wrong; nothing panics.

    use proptest::prelude::*;

    use super::*;

    fn line(topic: &str, partition: i32, offset: i64) -> OffsetLine {
        OffsetLine {
            topic: topic.to_owned(),
            partition,
            offset,
        }
    }

    #[test]
    fn offset_checkpoints_have_kafkas_text() {
        let text = format_offsets([("a.b-c", 0, 5), ("d", 11, i64::MAX)].into_iter());
        assert_eq!(text, "0\n2\na.b-c 0 5\nd 11 9223372036854775807\n");
        let parsed = parse_offsets(text.as_bytes()).expect("its own text");
        assert_eq!(parsed, [line("a.b-c", 0, 5), line("d", 11, i64::MAX)]);
        assert_eq!(
            format_offsets(std::iter::empty::<(&str, i32, i64)>()),
            "0\n0\n"
        );
        assert_eq!(parse_offsets(b"0\n0"), Ok(vec![]));
    }

    #[test]
    fn what_is_wrong_in_an_offset_checkpoint_is_named() {
        let bad = |line| move |error: &CheckpointError| matches!(error, CheckpointError::BadLine { line: found, .. } if *found == line);
        type Expected<'a> = &'a dyn Fn(&CheckpointError) -> bool;
        let cases: [(&[u8], Expected<'_>); 11] = [
            (b"", &bad(1)),
            (b"x\n0\n", &bad(1)),
            (b"1\n0\n", &|error| {
                *error == CheckpointError::UnknownVersion { found: 1, known: 0 }
            }),
            (b"0\n", &bad(2)),
            (b"0\n2\na 0 0\n", &|error| {
                *error
                    == CheckpointError::WrongCount {
                        expected: 2,
                        found: 1,
                    }
            }),
            (b"0\n-1\n", &|error| {
                matches!(error, CheckpointError::WrongCount { .. })
            }),
            (b"0\n1\na 0\n", &bad(3)),
            (b"0\n1\na -1 0\n", &bad(3)),
            (b"0\n2\na 0 0\na 1 +1\n", &bad(4)),
            (b"0\n1\na 0 9223372036854775808\n", &bad(3)),
            (b"0\n1\n\xff 0 0\n", &|error| {
                *error == CheckpointError::NotText { at: 4 }
            }),
        ];
        for (text, expected) in cases {
            let error = parse_offsets(text).expect_err("wrong text");
            assert!(
                expected(&error),
                "{:?}: {error}",
                String::from_utf8_lossy(text)
            );
        }
    }

    #[test]
    fn leader_epoch_checkpoints_have_kafkas_text() {
        let epochs = LeaderEpochs::from_entries([
            EpochEntry {
                epoch: 0,
                start_offset: 0,
            },
            EpochEntry {
                epoch: 5,
                start_offset: 100,
            },
        ]);
        assert_eq!(format_epochs(&epochs), "0\n2\n0 0\n5 100\n");
        assert_eq!(parse_epochs(b"0\n2\n0 0\n5 100\n"), Ok(epochs));
        assert!(matches!(
            parse_epochs(b"0\n2\n5 100\n6 100\n"),
            Err(CheckpointError::BadLine { line: 4, .. })
        ));
    }

    #[test]
    fn partition_metadata_has_kafkas_text() {
        let metadata = PartitionMetadata {
            topic_id: TopicId(std::array::from_fn(|index| index as u8 + 1)),
        };
        assert_eq!(
            metadata.format(),
            "version: 0\ntopic_id: AQIDBAUGBwgJCgsMDQ4PEA"
        );
        assert_eq!(
            PartitionMetadata::parse(metadata.format().as_bytes()),
            Ok(metadata)
        );
        assert_eq!(
            PartitionMetadata::parse(b"version:0\ntopic_id:AQIDBAUGBwgJCgsMDQ4PEA\n"),
            Ok(metadata)
        );
        assert_eq!(
            PartitionMetadata::parse(b"version: 1\ntopic_id: AQIDBAUGBwgJCgsMDQ4PEA"),
            Err(CheckpointError::UnknownVersion { found: 1, known: 0 })
        );
        assert_eq!(
            PartitionMetadata::parse(b"version: 0\n"),
            Err(CheckpointError::MissingKey("topic_id"))
        );
        for wrong in ["AAAAAAAAAAAAAAAAAAAAAA", "AQIDBAUGBwgJCgsMDQ4PE", ""] {
            let text = format!("version: 0\ntopic_id: {wrong}\n");
            assert!(
                matches!(
                    PartitionMetadata::parse(text.as_bytes()),
                    Err(CheckpointError::BadValue { .. })
                ),
                "{wrong}"
            );
        }
        assert!(matches!(
            PartitionMetadata::parse(b"topic_id: x"),
            Err(CheckpointError::BadLine { line: 1, .. })
        ));
    }

    #[test]
    fn meta_properties_as_kafka_writes_them_are_read() {
        let text = "#\n#Mon Nov 23 08:00:00 UTC 2026\ncluster.id=AQIDBAUGBwgJCgsMDQ4PEA\ndirectory.id=aaaaaaaaaaaaaaaaaaaaaA\nnode.id=1\nversion=1\n";
        let meta = MetaProperties::parse(text.as_bytes()).expect("Kafka's own");
        let expected = MetaProperties {
            cluster_id: "AQIDBAUGBwgJCgsMDQ4PEA".to_owned(),
            node_id: 1,
            directory_id: Some("aaaaaaaaaaaaaaaaaaaaaA".to_owned()),
        };
        assert_eq!(meta, expected);
        assert_eq!(
            MetaProperties::parse(expected.format().as_bytes()),
            Ok(expected)
        );
        let spaced = MetaProperties::parse(
            b"version = 1\n node.id : 7\ncluster.id=a\\=b\\u0041\r\n! comment\n",
        )
        .expect("valid");
        assert_eq!(
            (
                spaced.node_id,
                spaced.cluster_id.as_str(),
                spaced.directory_id
            ),
            (7, "a=bA", None)
        );
    }

    #[test]
    fn what_is_wrong_in_meta_properties_is_named() {
        let cases: [(&str, CheckpointError); 5] = [
            (
                "node.id=1\ncluster.id=x",
                CheckpointError::MissingKey("version"),
            ),
            (
                "version=1\nnode.id=1",
                CheckpointError::MissingKey("cluster.id"),
            ),
            (
                "version=1\ncluster.id=x",
                CheckpointError::MissingKey("node.id"),
            ),
            (
                "version=0\nbroker.id=1",
                CheckpointError::UnknownVersion { found: 0, known: 1 },
            ),
            (
                "version=1\ncluster.id=\nnode.id=1",
                CheckpointError::BadValue {
                    key: "cluster.id",
                    reason: "it is empty",
                },
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(
                MetaProperties::parse(text.as_bytes()),
                Err(expected),
                "{text}"
            );
        }
        assert!(matches!(
            MetaProperties::parse(b"version=1\nnonsense"),
            Err(CheckpointError::BadLine { line: 2, .. })
        ));
        assert!(matches!(
            MetaProperties::parse(b"version=1\nnode.id=-1\ncluster.id=x"),
            Err(CheckpointError::BadValue { key: "node.id", .. })
        ));
    }

    proptest! {
        #[test]
        fn offsets_round_trip(lines in prop::collection::vec(("[a-zA-Z0-9._-]{1,40}", 0..=i32::MAX, 0..=i64::MAX), 0..30)) {
            let text = format_offsets(lines.iter().map(|(topic, partition, offset)| (topic.as_str(), *partition, *offset)));
            let expected: Vec<OffsetLine> = lines.iter().map(|(topic, partition, offset)| line(topic, *partition, *offset)).collect();
            prop_assert_eq!(parse_offsets(text.as_bytes()), Ok(expected));
        }

        #[test]
        fn meta_properties_round_trip(cluster_id in "\\PC{1,30}", node_id in 0..=i32::MAX, directory_id in prop::option::of("[a-zA-Z0-9_-]{22}")) {
            let meta = MetaProperties { cluster_id, node_id, directory_id };
            prop_assert_eq!(MetaProperties::parse(meta.format().as_bytes()), Ok(meta));
        }

        #[test]
        fn any_text_is_answered(text in "[0-3 \n:=a-c.#\\\\u-]{0,60}", bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            for input in [text.as_bytes(), &bytes] {
                let _ = parse_offsets(input);
                let _ = parse_epochs(input);
                let _ = PartitionMetadata::parse(input);
                let _ = MetaProperties::parse(input);
            }
        }
    }
}
