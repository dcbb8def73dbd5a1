//! The timers of all groups, in the order in which they end: setting, stopping and asking for the next one never looks at the others.

use std::collections::BTreeMap;

use ringlog_net::Str;

/// What a timer is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TimerKey {
    /// A member, or a pending one, of a classic group must be heard of.
    Session {
        /// The group.
        group: Str,
        /// The member.
        member: Str,
    },
    /// The phase in which members of a classic group join ends.
    Join(Str),
    /// Members of a classic group must have asked for their assignment.
    Sync(Str),
    /// A member of a consumer group must be heard of, or has to have given up partitions.
    Consumer(Str),
    /// Work over many groups goes on.
    Work,
}

/// Names a running timer: when it ends, and what tells it from others that end then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TimerHandle {
    deadline_ms: u64,
    number: u64,
}

/// All running timers.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    running: BTreeMap<TimerHandle, TimerKey>,
    numbers: u64,
}

impl Timers {
    /// Starts a timer in place of the one in `slot`, if one runs there.
    pub(crate) fn start(
        &mut self,
        slot: &mut Option<TimerHandle>,
        deadline_ms: u64,
        key: TimerKey,
    ) {
        self.stop(slot);
        self.numbers += 1;
        let handle = TimerHandle {
            deadline_ms,
            number: self.numbers,
        };
        self.running.insert(handle, key);
        *slot = Some(handle);
    }

    /// Moves the timer in `slot` to another end; starts it if none runs there.
    pub(crate) fn restart(
        &mut self,
        slot: &mut Option<TimerHandle>,
        deadline_ms: u64,
        key: impl FnOnce() -> TimerKey,
    ) {
        let key = slot
            .take()
            .and_then(|handle| self.running.remove(&handle))
            .unwrap_or_else(key);
        self.start(slot, deadline_ms, key);
    }

    /// Stops the timer in `slot`, if one runs there.
    pub(crate) fn stop(&mut self, slot: &mut Option<TimerHandle>) {
        if let Some(handle) = slot.take() {
            self.running.remove(&handle);
        }
    }

    /// When the first timer ends.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.running
            .first_key_value()
            .map(|(handle, _)| handle.deadline_ms)
    }

    /// Takes the first timer if it has ended. The slot it was started in still names it and is to be emptied.
    pub(crate) fn pop(&mut self, now_ms: u64) -> Option<TimerKey> {
        if self.next_deadline()? > now_ms {
            return None;
        }
        self.running.pop_first().map(|(_, key)| key)
    }

    /// How many run.
    pub(crate) fn len(&self) -> usize {
        self.running.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_end_in_order_and_once() {
        let mut timers = Timers::default();
        let (mut first, mut second, mut third) = (None, None, None);
        timers.start(&mut first, 20, TimerKey::Join("a".into()));
        timers.start(&mut second, 10, TimerKey::Sync("a".into()));
        timers.start(&mut third, 10, TimerKey::Work);
        assert_eq!(timers.next_deadline(), Some(10));
        assert_eq!(timers.pop(9), None);
        assert_eq!(timers.pop(10), Some(TimerKey::Sync("a".into())));
        timers.stop(&mut third);
        assert_eq!(timers.pop(19), None);
        timers.restart(&mut first, 30, || TimerKey::Work);
        assert_eq!((timers.pop(29), timers.len()), (None, 1));
        assert_eq!(timers.pop(30), Some(TimerKey::Join("a".into())));
        // The slot is stale now: stopping it must not stop another.
        timers.start(&mut second, 40, TimerKey::Work);
        timers.stop(&mut first);
        assert_eq!(timers.next_deadline(), Some(40));
    }
}
