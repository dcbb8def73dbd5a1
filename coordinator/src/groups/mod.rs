//! Consumer groups and their committed offsets: the state of one partition of `__consumer_offsets`.
//!
//! [`GroupCoordinator`] finds the group of an event, and carries out what the group says. What a group is lives in [`group`]; how the members of a classic
//! one come to an agreement in [`classic`]; offsets, which do not depend on that, in [`offsets`], with their requests in `commit`, `fetch` and `delete`.
//! State is changed at once, and the records that say so are appended by whoever drives the coordinator, who holds the answers back until then.
//!
//! **Of two commits the later in the log wins. A group's assignment is stored before anybody gets it. Nothing grows without a limit in [`GroupConfig`].**

#[cfg(test)]
mod check;
mod classic;
mod commit;
mod config;
pub mod consumer;
mod consumers;
mod context;
mod delete;
mod expire;
mod fetch;
mod group;
mod list;
mod load;
mod membership;
mod migration;
mod offsets;
mod reply;
mod stored;
mod table;
#[cfg(test)]
mod tests;
mod timers;
mod work;

use std::collections::{BTreeMap, VecDeque};

use ringlog_net::Str;

use self::classic::ClassicGroup;
pub use self::config::GroupConfig;
use self::consumer::{ConsumerGroupConfig, TopicView};
use self::consumers::News;
use self::context::Context;
use self::group::{Group, GroupKind};
pub use self::list::{GroupCounts, ListFilter};
use self::offsets::PendingOffsets;
pub use self::reply::GroupReply;
pub use self::stored::ReplayError;
use self::timers::{TimerHandle, TimerKey, Timers};
use self::work::Work;
use crate::{Commands, Now};

/// The longest name that is taken, in bytes: group ids, names of static members and protocols, and clients where these become part of an id. The stored form
/// ends at 32767.
const NAME_BYTES_MAX: usize = 8 << 10;
/// Timers that one call carries out.
const TIMEOUTS_PER_CALL_MAX: usize = 1_000;
/// Below this no group's own record would be sure to fit.
const BATCH_BYTES_LEAST: usize = 64 << 10;

/// All groups of one partition of `__consumer_offsets`.
#[derive(Debug)]
pub struct GroupCoordinator {
    config: GroupConfig,
    groups: BTreeMap<Str, Box<Group>>,
    timers: Timers,
    /// Commits that wait for the end of a transaction.
    pending: PendingOffsets,
    /// How many offsets are committed.
    offsets_count: usize,
    /// The memory of members, in bytes.
    member_bytes: usize,
    /// The place in the log of the last commit.
    sequence: u64,
    /// Records whose type is not known here.
    skipped_records: u64,
    /// What goes over many groups and is done bit by bit.
    work: VecDeque<Work>,
    /// What consumer groups are still to hear of topics.
    news: News,
    work_timer: Option<TimerHandle>,
}

impl GroupCoordinator {
    /// A coordinator without groups; [`replay`](Self::replay) fills it.
    pub fn new(config: GroupConfig) -> Self {
        let batch_bytes_max = config.batch_bytes_max.max(BATCH_BYTES_LEAST);
        Self {
            config: GroupConfig {
                batch_bytes_max,
                consumer: ConsumerGroupConfig {
                    // Less what a group of another kind takes that it is in the place of.
                    batch_bytes_max: batch_bytes_max - 2 * NAME_BYTES_MAX,
                    ..config.consumer
                },
                ..config
            },
            groups: BTreeMap::new(),
            timers: Timers::default(),
            pending: PendingOffsets::default(),
            offsets_count: 0,
            member_bytes: 0,
            sequence: 0,
            skipped_records: 0,
            work: VecDeque::new(),
            news: News::default(),
            work_timer: None,
        }
    }

    /// When [`on_timeout`](Self::on_timeout) is to be called next, in milliseconds of the monotonic clock. Ask after every event.
    pub fn next_deadline(&self) -> Option<u64> {
        self.timers.next_deadline()
    }

    /// Carries out what is due. What one call leaves is due at once: see [`next_deadline`](Self::next_deadline).
    pub fn on_timeout(&mut self, now: Now, topics: &dyn TopicView, out: &mut Commands<GroupReply>) {
        for _ in 0..TIMEOUTS_PER_CALL_MAX {
            if context::bytes_of(&out.records) > self.config.batch_bytes_max / 2 {
                break;
            }
            let Some(key) = self.timers.pop(now.monotonic_ms) else {
                break;
            };
            match key {
                TimerKey::Session { group, member } => {
                    self.with_classic(&group, now, out, |group, context| {
                        group.on_session_timeout(&member, context);
                    });
                }
                TimerKey::Join(group) => {
                    self.with_classic(&group, now, out, |group, context| {
                        group.on_join_timeout(context);
                    });
                }
                TimerKey::Sync(group) => {
                    self.with_classic(&group, now, out, |group, context| {
                        group.on_sync_timeout(context);
                    });
                }
                TimerKey::Consumer(group) => self.on_consumer_timeout(&group, topics, now, out),
                TimerKey::Work => {
                    self.go_on_working(now, out);
                    break;
                }
            }
        }
    }

    /// Answers everything that waits with `NOT_COORDINATOR`, and forgets all groups.
    pub fn resign(&mut self, out: &mut Commands<GroupReply>) {
        let now = Now {
            monotonic_ms: 0,
            wall_ms: 0,
        };
        self.refuse_waiting_work(out);
        for mut group in std::mem::take(&mut self.groups).into_values() {
            let mut context = Context {
                config: &self.config,
                timers: &mut self.timers,
                now,
                out,
                member_bytes_free: 0,
            };
            if let Some(group) = group.as_classic_mut() {
                group.resign(&mut context);
            }
        }
        *self = Self::new(self.config.clone());
    }

    /// Lets a classic group handle an event. `None` if there is no such group.
    fn with_classic<R>(
        &mut self,
        group_id: &str,
        now: Now,
        out: &mut Commands<GroupReply>,
        handle: impl FnOnce(&mut ClassicGroup, &mut Context<'_>) -> R,
    ) -> Option<R> {
        let group = self.groups.get_mut(group_id)?.as_classic_mut()?;
        let bytes_before = group.bytes();
        let mut context = Context {
            config: &self.config,
            timers: &mut self.timers,
            now,
            out,
            member_bytes_free: self
                .config
                .members_bytes_max
                .saturating_sub(self.member_bytes),
        };
        let result = handle(group, &mut context);
        self.member_bytes = self.member_bytes + group.bytes() - bytes_before;
        Some(result)
    }

    /// Makes a group that has offsets but no members, unless there is one of any kind. It is stored with its first offset.
    fn ensure_group(&mut self, group_id: &Str, state_timestamp_ms: Option<i64>) -> &mut Group {
        if !self.groups.contains_key(group_id) {
            let group = ClassicGroup::new(group_id, state_timestamp_ms);
            let id = group.id().clone();
            self.groups.insert(id, Group::classic(group));
        }
        // Just made sure of; the entry API would copy the id of every group that exists.
        match self.groups.get_mut(group_id) {
            Some(group) => group,
            None => unreachable!("the group was inserted"),
        }
    }

    /// Drops a group with its timers and members. Its offsets must be gone.
    fn drop_group(&mut self, group_id: &str, now: Now, out: &mut Commands<GroupReply>) {
        let Some(mut group) = self.groups.remove(group_id) else {
            return;
        };
        debug_assert!(group.offsets.is_empty() && group.unstable.is_empty());
        self.member_bytes -= group.member_bytes();
        self.stop_timers(&mut group.kind, now, out);
    }

    /// Stops all timers of a group that is to be dropped.
    fn stop_timers(&mut self, kind: &mut GroupKind, now: Now, out: &mut Commands<GroupReply>) {
        match kind {
            GroupKind::Classic(group) => {
                let mut context = Context {
                    config: &self.config,
                    timers: &mut self.timers,
                    now,
                    out,
                    member_bytes_free: 0,
                };
                group.stop_timers(&mut context);
            }
            GroupKind::Consumer(held) => self.timers.stop(&mut held.timer),
        }
    }
}
