//! The phases of a rebalance: members are asked to join, a generation begins, and whoever does not follow in time is given up.

use ringlog_net::{ErrorCode, Str};

use super::{ClassicGroup, InitialDelay, State, restart_session, sync_error};
use crate::groups::context::Context;
use crate::groups::timers::TimerKey;

impl ClassicGroup {
    /// Starts a rebalance if one can start, otherwise sees whether the one under way is through.
    pub(super) fn rebalance_or_complete_join(&mut self, context: &mut Context<'_>) {
        if self.state == State::PreparingRebalance {
            self.complete_join_if_all_are_there(context);
        } else {
            self.prepare_rebalance(context);
        }
    }

    /// Begins the next generation at once if nobody is missing; a group's first one waits for those who may still come.
    pub(super) fn complete_join_if_all_are_there(&mut self, context: &mut Context<'_>) {
        if self.state == State::PreparingRebalance && !self.is_initial && self.has_all_joined() {
            self.complete_join(context);
        }
    }

    /// Asks all members to join again.
    pub(crate) fn prepare_rebalance(&mut self, context: &mut Context<'_>) {
        if self.state == State::CompletingRebalance {
            self.reset_assignment(ErrorCode::REBALANCE_IN_PROGRESS, context);
        }
        self.forgive_sync(context);
        self.is_initial = self.state == State::Empty;
        self.has_new_member = false;
        self.enter(State::PreparingRebalance, context.now);
        if self.is_initial {
            let delay_ms = context.config.initial_rebalance_delay_ms.max(0);
            let remaining_ms = (self.rebalance_timeout_ms() - delay_ms).max(0);
            self.delay_initial_rebalance(delay_ms, remaining_ms, context);
        } else if self.has_all_joined() {
            self.complete_join(context);
        } else {
            self.initial_delay = None;
            self.start_join_timer(self.rebalance_timeout_ms(), context);
        }
    }

    fn delay_initial_rebalance(
        &mut self,
        delay_ms: i32,
        remaining_ms: i32,
        context: &mut Context<'_>,
    ) {
        self.initial_delay = Some(InitialDelay {
            delay_ms,
            remaining_ms,
        });
        self.start_join_timer(delay_ms, context);
    }

    fn start_join_timer(&mut self, after_ms: i32, context: &mut Context<'_>) {
        let deadline = context.deadline(after_ms);
        let key = TimerKey::Join(self.id.clone());
        context.timers.start(&mut self.join_timer, deadline, key);
    }

    /// The time to join is over; a first rebalance waits on if somebody came meanwhile.
    pub(crate) fn on_join_timeout(&mut self, context: &mut Context<'_>) {
        self.join_timer = None;
        if self.state != State::PreparingRebalance {
            return;
        }
        match self.initial_delay {
            Some(delay) if self.has_new_member && delay.remaining_ms > 0 => {
                self.has_new_member = false;
                let next_ms = context
                    .config
                    .initial_rebalance_delay_ms
                    .min(delay.remaining_ms)
                    .max(0);
                let remaining_ms = (delay.remaining_ms - delay.delay_ms).max(0);
                self.delay_initial_rebalance(next_ms, remaining_ms, context);
            }
            _ => self.complete_join(context),
        }
    }

    /// Begins the next generation with those who have joined, and static members who have not.
    pub(super) fn complete_join(&mut self, context: &mut Context<'_>) {
        context.timers.stop(&mut self.join_timer);
        self.initial_delay = None;
        let missing: Vec<Str> = self
            .members
            .iter()
            .filter(|member| member.join.is_none() && member.instance_id.is_none())
            .map(|member| member.id.clone())
            .collect();
        for id in missing {
            self.remove(&id, context);
        }
        if !self.elect_joined_leader() && !self.members.is_empty() {
            // Static members alone, none of which is back: wait until one is or their sessions end. Never without a pause, whatever they asked for.
            let pause_ms = self
                .rebalance_timeout_ms()
                .max(context.config.min_session_timeout_ms);
            self.start_join_timer(pause_ms, context);
            return;
        }
        self.forgive_sync(context);
        self.is_initial = false;
        self.generation = self.generation.checked_add(1).unwrap_or(0);
        if self.members.is_empty() {
            self.protocol_name = None;
            self.leader = None;
            self.enter(State::Empty, context.now);
            let is_stored = self.store(context);
            debug_assert!(is_stored, "an empty group fits into any batch");
            return;
        }
        self.protocol_name = self.select_protocol();
        debug_assert!(self.protocol_name.is_some(), "all share a protocol");
        self.enter(State::CompletingRebalance, context.now);
        self.answer_joins(context);
        for member in self.members.iter_mut() {
            let timeout_ms = member.session_timeout_ms;
            restart_session(&self.id, member, timeout_ms, context);
            member.is_new = false;
            member.owes_sync = true;
        }
        self.owing_sync = self.members.len();
        let deadline = context.deadline(self.rebalance_timeout_ms());
        let key = TimerKey::Sync(self.id.clone());
        context.timers.start(&mut self.sync_timer, deadline, key);
    }

    /// Whether the leader has joined, after making another one leader if it has not.
    fn elect_joined_leader(&mut self) -> bool {
        let leader = self.leader.as_ref();
        let leader = leader.and_then(|leader| self.members.get(leader));
        if leader.is_some_and(|leader| leader.join.is_some()) {
            return true;
        }
        let next = self
            .members
            .iter()
            .find(|member| member.join.is_some())
            .map(|member| member.id.clone());
        match next {
            Some(next) => {
                self.leader = Some(next);
                true
            }
            None => false,
        }
    }

    /// Members did not ask for their assignment in time.
    pub(crate) fn on_sync_timeout(&mut self, context: &mut Context<'_>) {
        self.sync_timer = None;
        if !matches!(self.state, State::CompletingRebalance | State::Stable) || self.owing_sync == 0
        {
            return;
        }
        let owing: Vec<Str> = self
            .members
            .iter()
            .filter(|member| member.owes_sync)
            .map(|member| member.id.clone())
            .collect();
        for id in owing {
            self.remove(&id, context);
        }
        self.prepare_rebalance(context);
    }

    /// Nobody has to ask for an assignment any more.
    fn forgive_sync(&mut self, context: &mut Context<'_>) {
        context.timers.stop(&mut self.sync_timer);
        if self.owing_sync > 0 {
            for member in self.members.iter_mut() {
                member.owes_sync = false;
            }
            self.owing_sync = 0;
        }
    }

    /// Takes all assignments back, and tells those who wait for theirs why.
    pub(super) fn reset_assignment(&mut self, error: ErrorCode, context: &mut Context<'_>) {
        for member in self.members.iter_mut() {
            self.bytes -= member.assignment.len();
            member.assignment = ringlog_net::Bytes::new();
            if let Some(waiting) = member.sync.take() {
                context.out.reply(waiting.token, sync_error(error));
                let timeout_ms = member.session_timeout_ms;
                restart_session(&self.id, member, timeout_ms, context);
            }
        }
    }

    /// A member, or one that was only given an id, was not heard of in time.
    pub(crate) fn on_session_timeout(&mut self, member_id: &str, context: &mut Context<'_>) {
        if self.pending.contains_key(member_id) {
            self.remove_pending(member_id, context);
            if self.state == State::PreparingRebalance && self.has_all_joined() {
                self.complete_join(context);
            }
            return;
        }
        match self.members.get_mut(member_id) {
            None => return,
            Some(member) => {
                member.session = None;
                if member.is_excused() {
                    // Its time starts again with the answer.
                    return;
                }
            }
        }
        self.remove(member_id, context);
        match self.state {
            State::Stable | State::CompletingRebalance => self.prepare_rebalance(context),
            State::PreparingRebalance if self.has_all_joined() => self.complete_join(context),
            State::PreparingRebalance | State::Empty => {}
        }
    }

    /// A group that was loaded, or made of another: everybody gets a whole session timeout; one above the limit is rebalanced, so that it shrinks, and so is one
    /// without a leader.
    pub(crate) fn on_loaded(&mut self, context: &mut Context<'_>) {
        for member in self.members.iter_mut() {
            let timeout_ms = member.session_timeout_ms;
            restart_session(&self.id, member, timeout_ms, context);
        }
        let size_max = usize::try_from(context.config.max_size).unwrap_or(0);
        if self.members.len() > size_max || (!self.members.is_empty() && self.leader.is_none()) {
            self.prepare_rebalance(context);
        }
    }
}
