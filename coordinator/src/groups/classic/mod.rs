//! A classic group: its members vote for a protocol, one of them, the leader, assigns, and the group waits for whom it must.
//!
//! A generation begins when all have joined, or those who have not are given up ([`rebalance`]), and is stable once the leader has handed in the
//! assignment ([`sync`]). Only then, and when the last member is gone, is the group written down; a coordinator that takes over goes on from there. A member
//! that waits has at most one request parked of each kind: when it sends another, the older is told to try again.

#[cfg(test)]
mod check;
mod converted;
mod join;
mod leave;
mod member;
mod rebalance;
mod stored;
mod subscription;
mod sync;

use std::collections::BTreeMap;

use ringlog_net::{ErrorCode, Str};

#[cfg(test)]
pub(crate) use self::check::Durable;
pub(crate) use self::join::{FIRST_WITH_KNOWN_MEMBER_ID, Offer};
pub(crate) use self::member::{Member, Members, Protocol};
pub(crate) use self::subscription::Subscription;
use super::context::{Context, Waiting, join_error, sync_error};
use super::timers::{TimerHandle, TimerKey};
use crate::Now;

/// Protocol type of consumers, whose metadata names the topics they read.
const CONSUMER_PROTOCOL_TYPE: &str = "consumer";
/// What a pending member takes besides its id, in bytes.
const PENDING_MEMBER_BYTES: usize = 160;

/// Where a classic group stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// No members.
    Empty,
    /// Members join.
    PreparingRebalance,
    /// The leader assigns.
    CompletingRebalance,
    /// Everybody has an assignment, or gets it for the asking.
    Stable,
}

impl State {
    /// Kafka's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::PreparingRebalance => "PreparingRebalance",
            State::CompletingRebalance => "CompletingRebalance",
            State::Stable => "Stable",
        }
    }
}

/// How far the first rebalance of a group may still be put off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct InitialDelay {
    /// The delay that runs.
    delay_ms: i32,
    /// What may be added to it.
    remaining_ms: i32,
}

/// A classic group.
#[derive(Debug)]
pub(crate) struct ClassicGroup {
    id: Str,
    state: State,
    /// When it came into the state, in milliseconds since the epoch; unknown of groups that an old Kafka wrote.
    state_timestamp_ms: Option<i64>,
    generation: i32,
    protocol_type: Option<Str>,
    protocol_name: Option<Str>,
    leader: Option<Str>,
    members: Members,
    /// Static members' ids by their own names, ordered.
    instances: Vec<(Str, Str)>,
    /// Ids that were given out and have not joined yet.
    pending: BTreeMap<Str, Option<TimerHandle>>,
    /// How many members know each protocol, ordered by name.
    votes: Vec<(Str, usize)>,
    /// Members whose JoinGroup is parked.
    joined: usize,
    /// Members that have not asked for their assignment.
    owing_sync: usize,
    /// The rebalance under way began without any member.
    is_initial: bool,
    /// A member came while the initial delay ran.
    has_new_member: bool,
    initial_delay: Option<InitialDelay>,
    join_timer: Option<TimerHandle>,
    sync_timer: Option<TimerHandle>,
    /// The memory of members, and of ids that are pending.
    bytes: usize,
    /// That it may not become a consumer group was said.
    pub(in crate::groups) told_no_upgrade: bool,
}

impl ClassicGroup {
    /// A group without members. The id is copied.
    pub(crate) fn new(id: &Str, state_timestamp_ms: Option<i64>) -> Self {
        Self {
            id: id.detached(),
            state: State::Empty,
            state_timestamp_ms,
            generation: 0,
            protocol_type: None,
            protocol_name: None,
            leader: None,
            members: Members::default(),
            instances: Vec::new(),
            pending: BTreeMap::new(),
            votes: Vec::new(),
            joined: 0,
            owing_sync: 0,
            is_initial: false,
            has_new_member: false,
            initial_delay: None,
            join_timer: None,
            sync_timer: None,
            bytes: 0,
            told_no_upgrade: false,
        }
    }

    pub(crate) fn id(&self) -> &Str {
        &self.id
    }

    pub(crate) fn generation(&self) -> i32 {
        self.generation
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    pub(crate) fn state_timestamp_ms(&self) -> Option<i64> {
        self.state_timestamp_ms
    }

    pub(crate) fn protocol_type(&self) -> Option<&Str> {
        self.protocol_type.as_ref()
    }

    pub(crate) fn protocol_name(&self) -> Option<&Str> {
        self.protocol_name.as_ref()
    }

    pub(crate) fn members(&self) -> &Members {
        &self.members
    }

    /// The memory of members, and of ids that are pending.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether its members are consumers in Kafka's sense.
    pub(crate) fn is_of_consumers(&self) -> bool {
        self.protocol_type
            .as_ref()
            .is_some_and(|kind| kind == CONSUMER_PROTOCOL_TYPE)
    }

    /// Whether there are no members, and none were given an id to join with.
    pub(crate) fn is_deserted(&self) -> bool {
        self.state == State::Empty && self.pending.is_empty()
    }

    fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_ref().is_some_and(|id| id == member_id)
    }

    fn has_all_joined(&self) -> bool {
        self.members.len() == self.joined && self.pending.is_empty()
    }

    fn instance_position(&self, instance_id: &str) -> Result<usize, usize> {
        self.instances
            .binary_search_by(|(known, _)| known.as_str().cmp(instance_id))
    }

    /// The id of a static member.
    fn static_member(&self, instance_id: &str) -> Option<&Str> {
        let position = self.instance_position(instance_id).ok()?;
        Some(&self.instances[position].1)
    }

    fn enter(&mut self, state: State, now: Now) {
        self.state = state;
        self.state_timestamp_ms = Some(now.wall_ms);
    }

    /// Checks that a request comes from a member, and a static one's from whoever holds its name now.
    ///
    /// # Errors
    /// `UNKNOWN_MEMBER_ID` and `FENCED_INSTANCE_ID`.
    pub(crate) fn check_member(
        &self,
        member_id: &str,
        instance_id: Option<&Str>,
    ) -> Result<(), ErrorCode> {
        if let Some(instance_id) = instance_id {
            match self.static_member(instance_id) {
                None => return Err(ErrorCode::UNKNOWN_MEMBER_ID),
                Some(holder) if holder != member_id => {
                    return Err(ErrorCode::FENCED_INSTANCE_ID);
                }
                Some(_) => {}
            }
        }
        if self.members.contains(member_id) {
            Ok(())
        } else {
            Err(ErrorCode::UNKNOWN_MEMBER_ID)
        }
    }

    /// Checks that whoever commits may. Commits within a transaction bind themselves to the generation by their own wish (KIP-447).
    ///
    /// # Errors
    /// `UNKNOWN_MEMBER_ID`, `FENCED_INSTANCE_ID`, `ILLEGAL_GENERATION`, `REBALANCE_IN_PROGRESS`.
    pub(crate) fn check_commit(
        &self,
        member_id: &str,
        instance_id: Option<&Str>,
        generation: i32,
        is_transactional: bool,
    ) -> Result<(), ErrorCode> {
        if generation < 0 && self.state == State::Empty {
            // From outside the group's membership: a consumer that assigns its partitions itself, or an administrator.
            return Ok(());
        }
        if generation >= 0 || !member_id.is_empty() || instance_id.is_some() {
            self.check_member(member_id, instance_id)?;
            if generation != self.generation {
                return Err(ErrorCode::ILLEGAL_GENERATION);
            }
        } else if !is_transactional {
            return Err(ErrorCode::UNKNOWN_MEMBER_ID);
        }
        if !is_transactional && self.state == State::CompletingRebalance {
            return Err(ErrorCode::REBALANCE_IN_PROGRESS);
        }
        Ok(())
    }

    /// A sign of life from a member outside of heartbeats.
    pub(crate) fn refresh(&mut self, member_id: &str, context: &mut Context<'_>) {
        if matches!(self.state, State::Stable | State::PreparingRebalance) {
            self.restart_session(member_id, context);
        }
    }

    /// Gives a member its whole session timeout again.
    fn restart_session(&mut self, member_id: &str, context: &mut Context<'_>) {
        if let Some(member) = self.members.get_mut(member_id) {
            restart_session(&self.id, member, member.session_timeout_ms, context);
        }
    }

    /// Whether a joining member's protocols can become the group's.
    fn supports(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        if self.state == State::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type
            .as_ref()
            .is_some_and(|kind| kind == protocol_type)
            && protocols
                .iter()
                .any(|protocol| self.votes_for(&protocol.name) == self.members.len())
    }

    fn votes_for(&self, protocol: &str) -> usize {
        self.votes
            .binary_search_by(|(name, _)| name.as_str().cmp(protocol))
            .map_or(0, |position| self.votes[position].1)
    }

    fn count_votes(&mut self, protocols: &[Protocol], is_added: bool) {
        for protocol in protocols {
            let place = self
                .votes
                .binary_search_by(|(name, _)| name.as_str().cmp(&protocol.name));
            match (place, is_added) {
                (Ok(position), true) => self.votes[position].1 += 1,
                (Err(position), true) => {
                    self.votes.reserve_exact(1);
                    self.votes.insert(position, (protocol.name.clone(), 1));
                }
                (Ok(position), false) => {
                    self.votes[position].1 -= 1;
                    if self.votes[position].1 == 0 {
                        self.votes.remove(position);
                    }
                }
                (Err(_), false) => debug_assert!(false, "a vote that was never cast"),
            }
        }
    }

    /// The protocol that all members know and most of them prefer.
    pub(crate) fn select_protocol(&self) -> Option<Str> {
        let mut ballots: Vec<(&Str, usize)> = self
            .votes
            .iter()
            .filter(|(_, votes)| *votes == self.members.len())
            .map(|(name, _)| (name, 0))
            .collect();
        for member in self.members.iter() {
            let choice = member.protocols.iter().find_map(|protocol| {
                ballots
                    .binary_search_by(|(name, _)| name.as_str().cmp(&protocol.name))
                    .ok()
            });
            if let Some(choice) = choice {
                ballots[choice].1 += 1;
            }
        }
        // Of equals the first by name: any rule will do that gives the same answer again.
        ballots
            .iter()
            .rev()
            .max_by_key(|(_, votes)| *votes)
            .map(|(name, _)| (*name).clone())
    }

    /// The longest time that a member needs to join again, in milliseconds.
    fn rebalance_timeout_ms(&self) -> i32 {
        let timeouts = self
            .members
            .iter()
            .map(|member| member.rebalance_timeout_ms);
        timeouts.max().unwrap_or(0).max(0)
    }

    /// Adds a member, which is not there yet; of a static one the name is not taken yet.
    fn add(&mut self, member: Box<Member>) {
        if let Some(instance_id) = &member.instance_id
            && let Err(position) = self.instance_position(instance_id)
        {
            let entry = (instance_id.clone(), member.id.clone());
            self.instances.insert(position, entry);
        }
        if self.leader.is_none() {
            self.leader = Some(member.id.clone());
        }
        self.count_votes(&member.protocols, true);
        self.joined += usize::from(member.join.is_some());
        self.owing_sync += usize::from(member.owes_sync);
        self.bytes += member.bytes();
        let before = self.members.insert(member);
        debug_assert!(before.is_none(), "a member is added once");
    }

    /// Takes a member out as it is, its name and the leadership staying where they are.
    fn take(&mut self, member_id: &str) -> Option<Box<Member>> {
        let member = self.members.remove(member_id)?;
        self.count_votes(&member.protocols, false);
        self.joined -= usize::from(member.join.is_some());
        self.owing_sync -= usize::from(member.owes_sync);
        self.bytes -= member.bytes();
        Some(member)
    }

    /// Removes a member or a pending one, if it is there. What it waits for is answered `UNKNOWN_MEMBER_ID`, so that it joins anew if it still lives.
    fn remove(&mut self, member_id: &str, context: &mut Context<'_>) {
        self.remove_pending(member_id, context);
        let Some(mut member) = self.take(member_id) else {
            return;
        };
        context.timers.stop(&mut member.session);
        answer_removed(
            &mut member,
            Str::default(),
            ErrorCode::UNKNOWN_MEMBER_ID,
            context,
        );
        if let Some(instance_id) = &member.instance_id
            && let Ok(position) = self.instance_position(instance_id)
            && self.instances[position].1 == member.id
        {
            self.instances.remove(position);
        }
        if self.is_leader(member_id) {
            self.leader = self.members.iter().next().map(|next| next.id.clone());
        }
    }

    /// Forgets an id that was given out.
    fn remove_pending(&mut self, member_id: &str, context: &mut Context<'_>) {
        if let Some(mut timer) = self.pending.remove(member_id) {
            context.timers.stop(&mut timer);
            self.bytes -= PENDING_MEMBER_BYTES + member_id.len();
            if self.pending.is_empty() {
                // An emptied tree keeps its root.
                self.pending = BTreeMap::new();
            }
        }
    }

    /// Parks a member's JoinGroup. One that was parked before is told to try again.
    fn park_join(&mut self, member_id: &str, waiting: Waiting, context: &mut Context<'_>) {
        let Some(member) = self.members.get_mut(member_id) else {
            return;
        };
        match member.join.replace(waiting) {
            None => self.joined += 1,
            Some(older) => {
                let id = member.id.clone();
                let error = join_error(older.version, id, ErrorCode::REBALANCE_IN_PROGRESS);
                context.out.reply(older.token, error);
            }
        }
    }

    /// Answers all that waits, when this coordinator is one no longer.
    pub(crate) fn resign(&mut self, context: &mut Context<'_>) {
        for member in self.members.iter_mut() {
            let id = member.id.clone();
            answer_removed(member, id, ErrorCode::NOT_COORDINATOR, context);
        }
        self.joined = 0;
    }

    /// Stops all timers, before the group is dropped.
    pub(crate) fn stop_timers(&mut self, context: &mut Context<'_>) {
        context.timers.stop(&mut self.join_timer);
        context.timers.stop(&mut self.sync_timer);
        for timer in self.pending.values_mut() {
            context.timers.stop(timer);
        }
        for member in self.members.iter_mut() {
            context.timers.stop(&mut member.session);
        }
    }
}

/// Gives a member a time within which it must be heard of.
fn restart_session(group: &Str, member: &mut Member, after_ms: i32, context: &mut Context<'_>) {
    let deadline = context.deadline(after_ms);
    let id = &member.id;
    context
        .timers
        .restart(&mut member.session, deadline, || TimerKey::Session {
            group: group.clone(),
            member: id.clone(),
        });
}

/// Answers what a member waits for that is no member any more.
fn answer_removed(
    member: &mut Member,
    join_member_id: Str,
    error: ErrorCode,
    context: &mut Context<'_>,
) {
    if let Some(waiting) = member.join.take() {
        let reply = join_error(waiting.version, join_member_id, error);
        context.out.reply(waiting.token, reply);
    }
    if let Some(waiting) = member.sync.take() {
        context.out.reply(waiting.token, sync_error(error));
    }
}
