//! Retention: which clock to believe, and a task that lets every log drop what has expired, one after the other.
//!
//! A wall clock that jumps forward would expire everything at once. A jump is believed only after it has lasted; until then nothing is deleted by
//! time, and the log says so. The rule is pure ([`ClockGuard`]); the task only sleeps and asks.

use std::rc::Rc;
use std::time::Duration;

use crate::engine::shard::Shard;
use crate::environment::Environment;

/// Compares the wall clock with monotonic time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClockGuard {
    jump_ms: i64,
    confirmation_ms: i64,
    /// Wall clock minus monotonic clock, as last believed.
    believed: i64,
    /// A larger difference, and the monotonic time at which it was first seen.
    suspected: Option<(i64, i64)>,
}

impl ClockGuard {
    /// Starts with believing the wall clock.
    pub fn new(jump: Duration, confirmation: Duration, monotonic_ms: i64, wall_ms: i64) -> Self {
        Self {
            jump_ms: jump.as_millis() as i64,
            confirmation_ms: confirmation.as_millis() as i64,
            believed: wall_ms.saturating_sub(monotonic_ms),
            suspected: None,
        }
    }

    /// The wall-clock time to judge ages by; `None` while a forward jump waits for its confirmation.
    pub fn judge(&mut self, monotonic_ms: i64, wall_ms: i64) -> Option<i64> {
        let difference = wall_ms.saturating_sub(monotonic_ms);
        if difference <= self.believed.saturating_add(self.jump_ms) {
            // Backwards or a little forwards: believing that deletes nothing early.
            self.believed = difference;
            self.suspected = None;
            return Some(wall_ms);
        }
        match self.suspected {
            Some((suspected, since)) if (difference - suspected).abs() <= self.jump_ms => {
                if monotonic_ms - since >= self.confirmation_ms {
                    self.believed = difference;
                    self.suspected = None;
                    return Some(wall_ms);
                }
            }
            _ => self.suspected = Some((difference, monotonic_ms)),
        }
        None
    }
}

impl<E: Environment> Shard<E> {
    /// The retention task.
    pub(crate) async fn run_retention(self: Rc<Self>) {
        let monotonic_ms = |shard: &Self| (shard.env.now() / 1000) as i64;
        let config = &self.config;
        let mut guard = ClockGuard::new(
            config.clock_jump,
            config.clock_jump_confirmation,
            monotonic_ms(&self),
            self.env.wall_clock_ms(),
        );
        let mut told = false;
        loop {
            self.sleep_or_stop(config.retention_check_interval).await;
            if self.stopping.get() {
                return;
            }
            let now_ms = guard.judge(monotonic_ms(&self), self.env.wall_clock_ms());
            if now_ms.is_none() && !told {
                tracing::warn!(
                    "the wall clock has jumped forward: nothing is deleted by age until the jump has lasted {:?}",
                    config.clock_jump_confirmation
                );
            }
            told = now_ms.is_none();
            for log in self.all_logs() {
                if self.stopping.get() {
                    return;
                }
                if let Err(error) = log.apply_retention(now_ms).await {
                    tracing::warn!(log = %log.topic_partition(), "retention: {error}");
                }
                // A breath between logs: deletions are spread out.
                self.sleep_or_stop(Duration::from_millis(1)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    //! A jump forward is believed after it has lasted, a jump back at once, slow drift always.
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn guard() -> ClockGuard {
        ClockGuard::new(
            Duration::from_secs(600),
            Duration::from_secs(1800),
            0,
            1_000_000,
        )
    }

    #[test]
    fn a_jump_forward_must_last() {
        let mut guard = guard();
        assert_eq!(guard.judge(1000, 1_001_000), Some(1_001_000));
        let jumped = |monotonic: i64| 1_000_000 + monotonic + 100 * HOUR;
        assert_eq!(guard.judge(2000, jumped(2000)), None);
        assert_eq!(guard.judge(900_000, jumped(900_000)), None);
        assert_eq!(
            guard.judge(1_802_000, jumped(1_802_000)),
            Some(jumped(1_802_000))
        );
    }

    #[test]
    fn a_jump_that_is_taken_back_changes_nothing() {
        let mut guard = guard();
        assert_eq!(guard.judge(1000, 50 * HOUR), None);
        assert_eq!(guard.judge(2000, 1_002_000), Some(1_002_000));
        assert_eq!(
            guard.judge(2_000_000, 2_000_000 + 50 * HOUR),
            None,
            "the wait starts anew"
        );
    }

    #[test]
    fn a_jump_back_is_believed() {
        assert_eq!(guard().judge(1000, 5000), Some(5000));
    }
}
