//! Work over many groups or many offsets, done in steps that are bounded, so that no event holds up others or makes a batch that is too large.
//!
//! The first step is done with the event that asks for it. As long as work is left, a timer is due.

use ringlog_net::messages::delete_groups::DeletableGroupResult;
use ringlog_net::{ErrorCode, Str, Uuid};

use super::GroupCoordinator;
use super::offsets::CommittedOffset;
use super::reply::GroupReply;
use super::table::OffsetKey;
use super::timers::TimerKey;
use crate::{Commands, Now, Token};

/// What is left to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Delete the offsets in a topic.
    DeleteTopic {
        topic: Str,
        /// Zero for any topic of the name.
        topic_id: Uuid,
        /// The last commit before the deletion: what comes while it is carried out is about a newer topic.
        until: u64,
        /// The group to go on with.
        from: Option<Str>,
    },
    /// Delete a group with its offsets.
    DeleteGroup {
        group: Str,
        /// Who waits for it.
        token: Token,
    },
    /// Delete what is not needed any more.
    Expire {
        /// The group to go on with.
        from: Option<Str>,
    },
}

impl GroupCoordinator {
    /// Does the first step of some work, and keeps the rest.
    pub(super) fn start_work(&mut self, work: Work, now: Now, out: &mut Commands<GroupReply>) {
        if let Some(rest) = self.step(work, now, out) {
            self.work.push_back(rest);
        }
        self.arm_work_timer(now);
    }

    /// Does the next step of the work that is left.
    pub(super) fn go_on_working(&mut self, now: Now, out: &mut Commands<GroupReply>) {
        self.work_timer = None;
        if let Some(work) = self.work.pop_front()
            && let Some(rest) = self.step(work, now, out)
        {
            self.work.push_back(rest);
        }
        self.arm_work_timer(now);
    }

    fn arm_work_timer(&mut self, now: Now) {
        if self.work_timer.is_none() && !self.work.is_empty() {
            let deadline = now.monotonic_ms;
            self.timers
                .start(&mut self.work_timer, deadline, TimerKey::Work);
        }
    }

    /// Does one step; returns what is left.
    fn step(&mut self, work: Work, now: Now, out: &mut Commands<GroupReply>) -> Option<Work> {
        match work {
            Work::DeleteGroup { group, token } => {
                let is_done = self.delete_group_step(&group, token, now, out);
                (!is_done).then_some(Work::DeleteGroup { group, token })
            }
            Work::DeleteTopic {
                topic,
                topic_id,
                until,
                from,
            } => {
                let is_gone = |offset: &CommittedOffset| {
                    offset.is_of_topic(topic_id) && offset.sequence <= until
                };
                let next = self.each_group(from, |coordinator, group| {
                    coordinator.delete_topic_step(group, &topic, is_gone, out)
                });
                next.map(|from| Work::DeleteTopic {
                    topic: topic.clone(),
                    topic_id,
                    until,
                    from: Some(from),
                })
            }
            Work::Expire { from } => {
                let next = self.each_group(from, |coordinator, group| {
                    coordinator.expire_step(group, now, out)
                });
                next.map(|from| Work::Expire { from: Some(from) })
            }
        }
    }

    /// Does something with a bounded number of groups. Returns the group to go on with: the next one, or one that is not finished.
    fn each_group(
        &mut self,
        from: Option<Str>,
        mut handle: impl FnMut(&mut Self, &Str) -> bool,
    ) -> Option<Str> {
        let count = self.config.groups_per_call_max.max(1);
        let from = from.unwrap_or_default();
        let mut groups: Vec<Str> = self
            .groups
            .range(from..)
            .take(count + 1)
            .map(|(id, _)| id.clone())
            .collect();
        let next = (groups.len() > count).then(|| groups.pop()).flatten();
        for group in groups {
            if !handle(self, &group) {
                return Some(group);
            }
        }
        next
    }

    /// Deletes a group's offsets in a topic; says whether that were all of them. A tombstone takes all that there is of a partition, what is pending too, so a partition
    /// with anything newer is left alone: the newer commit will win, and until then the topic's id tells that the older one is about another topic.
    fn delete_topic_step(
        &mut self,
        group_id: &Str,
        topic: &Str,
        is_gone: impl Fn(&CommittedOffset) -> bool,
        out: &mut Commands<GroupReply>,
    ) -> bool {
        let Some(group) = self.groups.get(group_id) else {
            return true;
        };
        let committed = group.offsets.of_topic(topic);
        let keys = committed.chain(group.unstable.of_topic(topic));
        let keys = keys.filter(|key| {
            let pending = group.unstable.get(key).into_iter().flatten();
            let pending = pending.filter_map(|producer| self.pending.get(*producer, group_id, key));
            let committed = group.offsets.get(key).map(|offset| &**offset);
            committed.into_iter().chain(pending).all(&is_gone)
        });
        let keys: Vec<OffsetKey> = keys.cloned().collect();
        self.remove_offsets(group_id, keys, out)
    }

    /// Answers those who wait for work that will not be done here.
    pub(super) fn refuse_waiting_work(&mut self, out: &mut Commands<GroupReply>) {
        for work in std::mem::take(&mut self.work) {
            if let Work::DeleteGroup { group, token } = work {
                let reply = DeletableGroupResult {
                    group_id: group,
                    error_code: ErrorCode::NOT_COORDINATOR,
                };
                out.reply(token, reply);
            }
        }
    }
}
