//! Retention: which clock to believe, and a task that lets every log drop what has expired, one after the other.
//!
//! A wall clock that jumps forward would expire everything at once. A jump is believed only after it has lasted; until then nothing is deleted by
//! time, and the log says so. A jump across a restart cannot be told from a long pause, so the time last believed is kept in a file and both must last.
//! The rule is pure ([`ClockGuard`]); the task only sleeps, asks and remembers.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use crate::disk::Disk;
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
    /// Starts with believing the wall clock, unless it is far ahead of the time that was last believed in an earlier life (`remembered_ms`).
    pub fn new(
        jump: Duration,
        confirmation: Duration,
        monotonic_ms: i64,
        wall_ms: i64,
        remembered_ms: Option<i64>,
    ) -> Self {
        let jump_ms = jump.as_millis() as i64;
        let difference = wall_ms.saturating_sub(monotonic_ms);
        let remembered = remembered_ms
            .filter(|remembered| wall_ms.saturating_sub(*remembered) > jump_ms)
            .map(|remembered| remembered.saturating_sub(monotonic_ms));
        Self {
            jump_ms,
            confirmation_ms: confirmation.as_millis() as i64,
            believed: remembered.unwrap_or(difference),
            suspected: remembered.map(|_| (difference, monotonic_ms)),
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
        let began = (monotonic_ms(&self), self.env.wall_clock_ms());
        let mut remembered = self.remembered_time().await;
        let mut guard = ClockGuard::new(
            config.clock_jump,
            config.clock_jump_confirmation,
            began.0,
            began.1,
            remembered,
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
                    "the wall clock has moved far ahead of the time last believed (a jump, or a long pause): nothing is deleted by age until that has lasted {:?}",
                    config.clock_jump_confirmation
                );
            }
            told = now_ms.is_none();
            if let Some(now_ms) = now_ms {
                self.remember_time(now_ms, &mut remembered).await;
            }
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

impl<E: Environment> Shard<E> {
    fn remembered_time_path(&self, shard: u32) -> Option<PathBuf> {
        let first = self.config.log_dirs.first()?;
        Some(first.join(format!("retention-clock.{shard}")))
    }

    /// The wall-clock time that was last believed in an earlier life; after a change of the number of shards, what the first one believed.
    pub(crate) async fn remembered_time(&self) -> Option<i64> {
        for shard in [self.config.shard, 0] {
            let path = self.remembered_time_path(shard)?;
            let bytes = self.env.disk().read_small(&path).await;
            let text = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok());
            if let Some(time) = text.and_then(|text| text.trim().parse().ok()) {
                return Some(time);
            }
        }
        None
    }

    /// Keeps `now_ms` for the next life, unless what was kept is close enough.
    async fn remember_time(&self, now_ms: i64, remembered: &mut Option<i64>) {
        let enough = (self.config.clock_jump.as_millis() / 2) as u64;
        if remembered.is_some_and(|kept| now_ms.abs_diff(kept) < enough) {
            return;
        }
        let Some(path) = self.remembered_time_path(self.config.shard) else {
            return;
        };
        let text = format!("{now_ms}\n");
        match self.env.disk().write_atomic(&path, text.as_bytes()).await {
            Ok(()) => *remembered = Some(now_ms),
            // Retention goes on: it may be what makes room.
            Err(error) => tracing::warn!(path = %path.display(), "the time is not kept: {error}"),
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
            None,
        )
    }

    #[test]
    fn a_jump_across_a_restart_must_last_too() {
        let after = |remembered| {
            ClockGuard::new(
                Duration::from_secs(600),
                Duration::from_secs(1800),
                5000,
                100 * HOUR,
                Some(remembered),
            )
        };
        let mut short = after(100 * HOUR - 300_000);
        assert_eq!(
            short.judge(6000, 100 * HOUR + 1000),
            Some(100 * HOUR + 1000)
        );
        let mut back = after(200 * HOUR);
        assert_eq!(back.judge(6000, 100 * HOUR + 1000), Some(100 * HOUR + 1000));
        let mut long = after(50 * HOUR);
        assert_eq!(long.judge(6000, 100 * HOUR + 1000), None);
        let lasted = 100 * HOUR + 1_800_000;
        assert_eq!(long.judge(1_805_000, lasted), Some(lasted));
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
