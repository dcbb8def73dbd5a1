//! A consumer group becomes a classic one, when its last member that speaks the consumer protocol goes or comes back with the classic one.
//!
//! Its members keep what they may own as their assignment and must rebalance, which takes from them what is not theirs. It is stored without a leader, which says so to
//! whoever loads it. Only if everybody has all it should have nothing needs to happen: the group is stable.

use ringlog_net::messages::join_group::JoinGroupRequest;
use ringlog_net::{Bytes, Str};

use crate::groups::classic::{self, ClassicGroup, Protocol};
use crate::groups::consumer::classic::Joining;
use crate::groups::consumer::embedded::write_assignment;
use crate::groups::consumer::{self, ConsumerGroup, TopicView};
use crate::groups::context::bytes_of;
use crate::groups::group::GroupKind;
use crate::groups::reply::GroupReply;
use crate::groups::{GroupConfig, GroupCoordinator};
use crate::{Caller, Commands, Now, Record};

impl ConsumerGroup {
    /// Whether the group could be classic when these members are gone.
    fn is_classic_without(&self, gone: &[Str], config: &GroupConfig) -> bool {
        let left = self.member_count() - gone.len();
        let size_max = usize::try_from(config.max_size).unwrap_or(0);
        let classic_left = self.classic_count() - self.classic_among(gone);
        left > 0 && classic_left == left && left <= size_max
    }

    fn classic_among(&self, ids: &[Str]) -> usize {
        let members = ids.iter().filter_map(|id| self.member(id));
        members.filter(|member| member.is_classic()).count()
    }

    /// Whether the group could be classic when a member takes the place of another.
    fn is_classic_after(&self, joining: &Joining, config: &GroupConfig) -> bool {
        let replaced = joining.replaces.as_ref().and_then(|id| self.member(id));
        let size_max = usize::try_from(config.max_size).unwrap_or(0);
        replaced.is_some_and(|replaced| !replaced.is_classic())
            && self.classic_count() == self.member_count() - 1
            && self.member_count() <= size_max
    }

    fn is_settled(&self) -> bool {
        let (epoch, target_epoch) = (self.epoch(), self.target_epoch());
        epoch == target_epoch
            && !self.must_look_at_topics()
            && self.members().all(|member| member.is_reconciled_to(epoch))
    }

    /// The classic group of the members that are left; none if they have no protocol in common, which does not happen.
    fn to_classic(&self, gone: &[Str], topics: &dyn TopicView, now: Now) -> Option<ClassicGroup> {
        let left = self.members().filter(|member| !gone.contains(&member.id));
        let members = left.map(|member| classic_member(member, topics));
        let members: Option<Vec<_>> = members.collect();
        ClassicGroup::of_members(self.id(), self.epoch(), members?, now)
    }
}

fn classic_member(
    member: &consumer::Member,
    topics: &dyn TopicView,
) -> Option<Box<classic::Member>> {
    let metadata = &member.metadata;
    let classic = metadata.classic.as_ref()?;
    let subscription = classic.protocols.first();
    let subscription = subscription.map_or_else(Bytes::new, |(_, metadata)| metadata.clone());
    // Until it has said to have given something up it owns it.
    let mut owned = member.current.assigned.clone();
    for (topic, partitions) in &member.current.revoking {
        owned.entry(*topic).or_default().extend(partitions);
    }
    let owned = owned
        .into_iter()
        .map(|(topic, partitions)| (topic, partitions.into_keys().collect()));
    let protocols = classic.protocols.iter();
    Some(Box::new(classic::Member {
        id: member.id.clone(),
        instance_id: metadata.instance_id.clone(),
        client_id: metadata.client_id.as_str().into(),
        client_host: metadata.client_host.as_str().into(),
        rebalance_timeout_ms: metadata.rebalance_timeout_ms,
        session_timeout_ms: classic.session_timeout_ms,
        protocols: protocols
            .map(|(name, metadata)| Protocol {
                name: name.clone(),
                metadata: metadata.clone(),
            })
            .collect(),
        assignment: write_assignment(owned, &subscription, topics),
        join: None,
        sync: None,
        session: None,
        is_new: false,
        owes_sync: false,
    }))
}

fn no_downgrade(group_id: &Str) -> String {
    format!(
        "group {} stays a consumer group although only members of the classic protocol are left: group.consumer.migration.policy does not allow the downgrade",
        group_id.escape_debug()
    )
}

impl GroupCoordinator {
    /// Removes members of a consumer group, which becomes classic if only members are left that speak the classic protocol.
    pub(in crate::groups) fn remove_consumer_members(
        &mut self,
        group_id: &Str,
        gone: &[Str],
        topics: &dyn TopicView,
        now: Now,
        out: &mut Commands<GroupReply>,
    ) {
        if gone.is_empty() {
            return;
        }
        if let Some((classic, records)) = self.downgraded(group_id, gone, topics, now, out) {
            if self.has_room(&records, out) {
                out.records.extend(records);
                self.put_classic(group_id, classic, now, out);
                return;
            }
            if !out.records.is_empty() && bytes_of(&records) <= self.config.batch_bytes_max {
                self.with_consumer(group_id, |group, _| group.put_off(gone, now));
                return;
            }
        }
        self.with_consumer(group_id, |group, _| {
            group.fence(gone, topics, &mut out.records);
        });
    }

    fn downgraded(
        &self,
        group_id: &Str,
        gone: &[Str],
        topics: &dyn TopicView,
        now: Now,
        out: &mut Commands<GroupReply>,
    ) -> Option<(ClassicGroup, Vec<Record>)> {
        let group = self
            .consumer_group(group_id)
            .filter(|group| group.is_classic_without(gone, &self.config))?;
        if !self.config.consumer.migration_policy.downgrades() {
            // Said when the last goes that kept the group from being classic, not for each that goes later.
            if group.classic_among(gone) < gone.len() {
                out.notices.push(no_downgrade(group_id));
            }
            return None;
        }
        let mut classic = group.to_classic(gone, topics, now)?;
        classic.must_rebalance();
        let mut records = group.tombstones();
        records.push(classic.record()?);
        Some((classic, records))
    }

    /// Lets a static member that speaks the classic protocol take the place of the last that did not, if it does: the group becomes classic. Answered now or when
    /// all have joined. Whether that was so.
    pub(super) fn join_downgrading(
        &mut self,
        caller: &Caller,
        request: &JoinGroupRequest,
        joining: &Joining,
        topics: &dyn TopicView,
        out: &mut Commands<GroupReply>,
    ) -> bool {
        let now = caller.now;
        let group = self.consumer_group(&request.group_id);
        if !group.is_some_and(|group| group.is_classic_after(joining, &self.config)) {
            return false;
        }
        if !self.config.consumer.migration_policy.downgrades() {
            out.notices.push(no_downgrade(&request.group_id));
            return false;
        }
        // What it has yet to hear of its topics counts as well: whoever leads it afterwards knows them only as they are then.
        let copied = self.with_consumer(&request.group_id, |group, _| {
            (group.tombstones(), group.clone())
        });
        let Some((mut records, mut group)) = copied else {
            return false;
        };
        let mut unwritten = Vec::new();
        let config = &self.config.consumer;
        let changed = group.enter_classic(joining, now, config, topics, &mut unwritten);
        if group.epoch() == group.target_epoch() {
            group.reconcile_classic(joining, changed, now, topics, &mut unwritten);
        }
        let Some(mut classic) = group.to_classic(&[], topics, now) else {
            return false;
        };
        let is_settled = group.is_settled();
        if is_settled {
            classic.lead_by(&joining.id);
        } else {
            classic.must_rebalance();
        }
        records.extend(classic.record());
        if !self.has_room(&records, out) {
            return false;
        }
        out.records.extend(records);
        if !is_settled {
            classic.await_join(&joining.id, caller);
        }
        self.put_classic(&request.group_id, classic, now, out);
        if is_settled {
            self.with_classic(&request.group_id, now, out, |group, context| {
                let reply = group.replaced_reply(&joining.id, Str::default(), caller.version);
                context.out.reply(caller.token, reply);
            });
        }
        true
    }

    fn has_room(&self, records: &[Record], out: &Commands<GroupReply>) -> bool {
        bytes_of(&out.records) + bytes_of(records) <= self.config.batch_bytes_max
    }

    fn put_classic(
        &mut self,
        group_id: &Str,
        classic: ClassicGroup,
        now: Now,
        out: &mut Commands<GroupReply>,
    ) {
        let bytes = classic.bytes();
        self.put_kind(group_id, GroupKind::Classic(classic), bytes, now, out);
        self.with_classic(group_id, now, out, |group, context| {
            group.on_loaded(context);
        });
    }
}
