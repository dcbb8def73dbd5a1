//! When members of a group run out of time.

use std::collections::{BTreeMap, BTreeSet};

use ringlog_net::Str;

/// What a member is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Any heartbeat.
    Session,
    /// That it gives up partitions.
    Rebalance,
    /// That it joins again; of a member that speaks the classic protocol.
    Join,
    /// That it asks for its assignment; of a member that speaks the classic protocol.
    Sync,
}

/// The timers of a group's members. Times are in ms of the monotonic clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timers {
    by_time: BTreeSet<(u64, Str, Timer)>,
    of_member: BTreeMap<(Str, Timer), u64>,
}

impl Timers {
    /// Sets a timer, in place of the one that was set.
    pub fn set(&mut self, member: &Str, timer: Timer, deadline_ms: u64) {
        self.cancel(member, timer);
        self.of_member.insert((member.clone(), timer), deadline_ms);
        self.by_time.insert((deadline_ms, member.clone(), timer));
    }

    /// Sets a timer, unless it is set.
    pub fn set_if_absent(&mut self, member: &Str, timer: Timer, deadline_ms: u64) {
        if !self.of_member.contains_key(&(member.clone(), timer)) {
            self.set(member, timer, deadline_ms);
        }
    }

    /// Stops a timer.
    pub fn cancel(&mut self, member: &Str, timer: Timer) {
        let key = (member.clone(), timer);
        if let Some(deadline_ms) = self.of_member.remove(&key) {
            self.by_time.remove(&(deadline_ms, key.0, timer));
        }
    }

    /// Stops all of a member's timers.
    pub fn cancel_all(&mut self, member: &Str) {
        for timer in [Timer::Session, Timer::Rebalance, Timer::Join, Timer::Sync] {
            self.cancel(member, timer);
        }
    }

    /// When the next timer runs out.
    pub fn next_deadline(&self) -> Option<u64> {
        self.by_time.first().map(|(deadline_ms, _, _)| *deadline_ms)
    }

    /// Takes a timer that has run out.
    pub fn expired(&mut self, now_ms: u64) -> Option<(Str, Timer)> {
        let (deadline_ms, member, timer) = self.by_time.pop_first()?;
        if deadline_ms > now_ms {
            self.by_time.insert((deadline_ms, member, timer));
            return None;
        }
        self.of_member.remove(&(member.clone(), timer));
        Some((member, timer))
    }
}
