//! How far groups are behind: committed offsets from the shards that coordinate them, high watermarks from the shards that own the partitions, joined when
//! metrics are asked for.
//!
//! Each shard leaves its part in [`Part`] when it is asked: first for committed offsets with its gauges, then for the high watermarks of the partitions that have any. Nothing is
//! kept up to date in between.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringlog_net::Uuid;

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

/// Partitions of topics whose high watermarks are wanted.
pub type Wanted = Arc<BTreeSet<(String, i32)>>;

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

    /// Brings the committed offsets up to date; high watermarks are to be asked for anew.
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
        *self.content() = content;
    }

    /// Looks up those of the wanted high watermarks that this shard has.
    pub fn take_high_watermarks(&self, shard: &Shard, wanted: &Wanted) {
        let image = shard.local_image();
        let id = |topic: &str| image.topic(topic).map(|topic| topic.id);
        let of = |topic_id: Uuid, partition: i32| {
            let log = shard.log(topic_id, partition)?;
            Some(log.high_watermark())
        };
        let found = look_up(wanted, id, of);
        self.content().high_watermarks = found;
    }
}

fn look_up(
    wanted: &Wanted,
    id: impl Fn(&str) -> Option<Uuid>,
    high_watermark: impl Fn(Uuid, i32) -> Option<i64>,
) -> HashMap<(String, i32), i64> {
    let found = wanted.iter().filter_map(|key| {
        let end = high_watermark(id(&key.0)?, key.1)?;
        Some((key.clone(), end))
    });
    found.collect()
}

/// The partitions that groups have committed offsets of.
pub fn wanted<'a>(parts: impl Iterator<Item = &'a Part>) -> Wanted {
    let mut wanted = BTreeSet::new();
    for part in parts {
        let content = part.content();
        let committed = content.committed.iter();
        wanted.extend(committed.map(|one| (one.topic.clone(), one.partition)));
    }
    Arc::new(wanted)
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
    //! Offsets from one shard meet high watermarks from another, which are asked for where there are offsets alone, and a group's name cannot break the text.
    use super::*;

    fn committed(group: &str, topic: &str, partition: i32) -> Committed {
        Committed {
            group: group.into(),
            topic: topic.into(),
            partition,
            offset: 5,
        }
    }

    #[test]
    fn only_partitions_that_are_read_are_asked_for() {
        let (first, second) = (Part::default(), Part::default());
        first.content().committed.push(committed("g", "t", 3));
        second.content().committed.push(committed("h", "t", 3));
        second.content().committed.push(committed("h", "gone", 0));
        let wanted = wanted([&first, &second].into_iter());
        assert_eq!(wanted.len(), 2);
        let asked = std::cell::RefCell::new(Vec::new());
        let id = |topic: &str| (topic == "t").then_some(Uuid([1; 16]));
        let found = look_up(&wanted, id, |topic_id, partition| {
            asked.borrow_mut().push((topic_id, partition));
            Some(12)
        });
        assert_eq!(*asked.borrow(), [(Uuid([1; 16]), 3)]);
        assert_eq!(found, HashMap::from([(("t".to_string(), 3), 12)]));
    }

    #[test]
    fn joined_and_escaped() {
        let (groups, logs) = (Part::default(), Part::default());
        groups.content().committed.push(committed("a\"b\n", "t", 3));
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
