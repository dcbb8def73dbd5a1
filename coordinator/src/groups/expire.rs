//! Retention: offsets that nobody needs any more, and groups without members and offsets, are deleted (KIP-211).
//!
//! While a group has members, offsets of topics they do not read expire some time after they were committed. When the last member is gone, the time counts
//! from there for all. Offsets of a consumer that assigns its partitions itself count from their commit. An offset waits for a transaction that is about to
//! change it.

use ringlog_net::Str;

use super::GroupCoordinator;
use super::classic::{ClassicGroup, State, Subscription};
use super::context::bytes_of;
use super::group::{Group, GroupKind};
use super::offsets::CommittedOffset;
use super::reply::GroupReply;
use super::table::OffsetKey;
use super::work::Work;
use crate::{Commands, Now};

/// From when retention counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    /// A time in milliseconds since the epoch.
    Time(i64),
    Commit,
}

impl Since {
    fn of(self, offset: &CommittedOffset) -> i64 {
        match self {
            Since::Time(time_ms) => time_ms,
            Since::Commit => offset.commit_timestamp_ms,
        }
    }
}

impl GroupCoordinator {
    /// Deletes what is past retention, if need be in several steps, the others with [`on_timeout`](Self::on_timeout). To be called every
    /// `offsets.retention.check.interval.ms`.
    pub fn expire(&mut self, now: Now, out: &mut Commands<GroupReply>) {
        let is_under_way = self
            .work
            .iter()
            .any(|work| matches!(work, Work::Expire { .. }));
        if !is_under_way {
            self.start_work(Work::Expire { from: None }, now, out);
        }
    }

    /// Deletes what is past retention in one group; says whether that was all.
    pub(super) fn expire_step(
        &mut self,
        group_id: &Str,
        now: Now,
        out: &mut Commands<GroupReply>,
    ) -> bool {
        if bytes_of(&out.records) > self.config.batch_bytes_max / 2 {
            return false;
        }
        let Some(group) = self.groups.get(group_id) else {
            return true;
        };
        let keys = expired(group, now.wall_ms, self.config.offsets_retention_ms());
        if !self.remove_offsets(group_id, keys, out) {
            return false;
        }
        let is_unneeded = self.groups.get(group_id).is_some_and(|group| {
            group.offsets.is_empty() && group.unstable.is_empty() && group.is_deserted()
        });
        if is_unneeded {
            self.remove_empty_group(group_id, now, out);
        }
        true
    }
}

fn expired(group: &Group, now_ms: i64, retention_ms: i64) -> Vec<OffsetKey> {
    if group.offsets.is_empty() {
        return Vec::new();
    }
    let (since, subscription) = match &group.kind {
        GroupKind::Classic(group) => {
            let subscription = group.subscription();
            match since(group, &subscription) {
                Some(since) => (since, subscription),
                None => return Vec::new(),
            }
        }
        GroupKind::Consumer(held) => (Since::Commit, held.group.subscription()),
    };
    group
        .offsets
        .iter()
        .filter(|(key, offset)| {
            offset.is_expired(since.of(offset), now_ms, retention_ms)
                && !subscription.contains(&key.0)
                && !group.unstable.contains_key(key)
        })
        .map(|(key, _)| key.clone())
        .collect()
}

/// From when retention counts for a group's offsets; `None` while none of them may expire.
fn since(group: &ClassicGroup, subscription: &Subscription) -> Option<Since> {
    if group.protocol_type().is_none() {
        return Some(Since::Commit);
    }
    match group.state() {
        State::Empty => Some(
            group
                .state_timestamp_ms()
                .map_or(Since::Commit, Since::Time),
        ),
        State::Stable if group.is_of_consumers() && subscription.is_known() => Some(Since::Commit),
        _ => None,
    }
}
