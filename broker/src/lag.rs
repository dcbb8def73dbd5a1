//! How far groups are behind: committed offsets from the shards that coordinate them, high watermarks from the shards that own the partitions, joined when
//! metrics are asked for.
//!
//! Each shard leaves its part in [`Part`] when it is asked for its gauges; nothing is kept up to date in between.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::shard::Shard;

/// Most committed offsets of one shard that are shown; of the rest only the number is.
const OFFSETS_MAX: usize = 10_000;

/// A group's committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The group.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

/// What one shard knows.
#[derive(Debug, Default)]
pub struct Part {
    content: Mutex<Content>,
}

#[derive(Debug, Default)]
struct Content {
    committed: Vec<Committed>,
    left_out: u64,
    high_watermarks: HashMap<(String, i32), i64>,
}

impl Part {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings the part up to date.
    pub fn take(&self, shard: &Shard) {
        let mut content = Content::default();
        for host in shard.coordinators.groups() {
            let _ = host.look(|machine| {
                // There may be millions: those that are not shown are not looked at either.
                let room = OFFSETS_MAX - content.committed.len();
                let shown = machine.committed_offsets().take(room);
                let before = content.committed.len();
                content
                    .committed
                    .extend(shown.map(|(group, topic, partition, offset)| Committed {
                        group: group.to_string(),
                        topic: topic.to_string(),
                        partition,
                        offset,
                    }));
                let shown = content.committed.len() - before;
                let left = machine.committed_offsets_count().saturating_sub(shown);
                content.left_out += left as u64;
            });
        }
        let has_groups = shard.with_image(|image| {
            let topic = crate::coordinator::topics::Internal::ConsumerOffsets.name();
            image.topic(topic).is_some()
        });
        if has_groups {
            for log in shard.engine.logs() {
                let name = log.topic_partition();
                let key = (name.topic.to_string(), name.partition);
                content.high_watermarks.insert(key, log.high_watermark());
            }
        }
        *self.content() = content;
    }
}

/// The names, types and meanings.
pub const DESCRIPTIONS: &[(&str, &str, &str)] = &[
    (
        "ringlog_group_committed_offset",
        "`group`, `topic`, `partition`",
        "The offset that a group has committed.",
    ),
    (
        "ringlog_group_lag",
        "`group`, `topic`, `partition`",
        "Records between a group's committed offset and the high watermark.",
    ),
    (
        "ringlog_group_offsets_left_out",
        "",
        "Committed offsets that are not shown because there are too many.",
    ),
];

/// All parts as Prometheus text.
pub fn render<'a>(parts: impl Iterator<Item = &'a Part> + Clone, text: &mut String) {
    let [committed, lag, left_out] = DESCRIPTIONS else {
        return;
    };
    let mut ends: HashMap<(String, i32), i64> = HashMap::new();
    let mut offsets = Vec::new();
    let mut missing = 0;
    for part in parts {
        let content = part.content();
        ends.extend(
            content
                .high_watermarks
                .iter()
                .map(|(key, end)| (key.clone(), *end)),
        );
        offsets.extend(content.committed.iter().cloned());
        missing += content.left_out;
    }
    let head = |text: &mut String, (name, _, meaning): &(&str, &str, &str)| {
        let _ = writeln!(text, "# HELP {name} {meaning}\n# TYPE {name} gauge");
    };
    let labels = |one: &Committed| {
        let (group, topic) = (escaped(&one.group), escaped(&one.topic));
        format!(
            "group=\"{group}\",topic=\"{topic}\",partition=\"{}\"",
            one.partition
        )
    };
    head(text, committed);
    for one in &offsets {
        let _ = writeln!(text, "{}{{{}}} {}", committed.0, labels(one), one.offset);
    }
    head(text, lag);
    for one in &offsets {
        if let Some(end) = ends.get(&(one.topic.clone(), one.partition)) {
            let behind = end.saturating_sub(one.offset).max(0);
            let _ = writeln!(text, "{}{{{}}} {behind}", lag.0, labels(one));
        }
    }
    head(text, left_out);
    let _ = writeln!(text, "{} {missing}", left_out.0);
}

/// A label's value: what a client called its group may hold anything.
fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for character in value.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    //! Offsets from one shard meet high watermarks from another, and a group's name cannot break the text.
    use super::*;

    #[test]
    fn joined_and_escaped() {
        let (groups, logs) = (Part::default(), Part::default());
        groups.content().committed.push(Committed {
            group: "a\"b\n".into(),
            topic: "t".into(),
            partition: 3,
            offset: 5,
        });
        logs.content().high_watermarks.insert(("t".into(), 3), 12);
        let mut text = String::new();
        render([&groups, &logs].into_iter(), &mut text);
        let labels = "{group=\"a\\\"b\\n\",topic=\"t\",partition=\"3\"}";
        assert!(
            text.contains(&format!("ringlog_group_lag{labels} 7\n")),
            "{text}"
        );
        assert!(text.contains(&format!("ringlog_group_committed_offset{labels} 5\n")));
    }
}
