//! News of topics, kept until the groups that may care ask for them: a topic that is created costs the same with a hundred thousand groups as with one.
//!
//! What is told has no effect before a group's next heartbeat, so each group hears what it has missed when that comes. Only the latest news are kept: who has missed more is
//! told that anything may have changed.

use std::collections::VecDeque;

use ringlog_net::Str;

use super::super::consumer::{ConsumerGroup, TopicView};

/// News that are kept.
const LATEST_MAX: usize = 1_000;

/// What has changed of topics, and in which state of the metadata.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// A topic's name, and whether it is there, as of when it was told.
    latest: VecDeque<(Str, bool)>,
    /// How many there ever were.
    count: u64,
    version: u64,
}

impl News {
    /// Takes in that topics were created, deleted or got partitions.
    pub(super) fn add(&mut self, changed: &[Str], topics: &dyn TopicView) {
        self.version = self.version.max(topics.version());
        for name in changed {
            if self.latest.len() == LATEST_MAX {
                self.latest.pop_front();
            }
            let there = topics.topic_by_name(name).is_some();
            self.latest.push_back((name.detached(), there));
            self.count += 1;
        }
    }

    /// Tells a group what it has not heard yet, and notes that it has.
    pub(in crate::groups) fn tell(&self, group: &mut ConsumerGroup, heard: &mut u64) {
        let missed = self.count - std::mem::replace(heard, self.count);
        if missed == 0 {
            return;
        }
        let missed = usize::try_from(missed).unwrap_or(usize::MAX);
        match self.latest.len().checked_sub(missed) {
            Some(known) => group.on_metadata(self.latest.range(known..), self.version),
            None => group.on_unknown_metadata(self.version),
        }
    }
}
