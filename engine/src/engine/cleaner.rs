//! The cleaner of a shard: one task that looks for the dirtiest compacted log, cleans it, notes how far, and goes on until nothing is due.
//!
//! It works in short stretches and under a limit of bytes a second, and halves its share while the journal is busy. A log that cannot be cleaned is left alone until the next start, and
//! counted. How far a log is clean stands in `cleaner-offset-checkpoint`; losing that costs work, nothing else.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

use super::ballast::is_full;
use super::maintain::name_of;
use super::shard::{LogKey, Shard};
use crate::cleaner::range::DirtyRange;
use crate::cleaner::throttle::{Pause, Throttle};
use crate::config::EngineConfig;
use crate::environment::Environment;
use crate::log::Log;
use crate::log::clean::{CleanFailure, Cleaned};
use crate::retention::ClockGuard;
use crate::wait::{Turnstile, yield_now};

/// Logs that are looked at before others have a turn.
const LOOKED_AT_A_STRETCH: usize = 64;

/// What the cleaner of a shard has done since the start, and how it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CleanerCounters {
    /// Passes over a log that came to their end.
    pub passes: u64,
    /// Bytes of segments that cleaned ones took the place of.
    pub replaced_bytes: u64,
    /// Bytes of the cleaned segments.
    pub kept_bytes: u64,
    /// Logs that cannot be cleaned until the next start.
    pub uncleanable: u64,
    /// Share of the dirtiest log that is dirty, when last looked at, percent.
    pub max_dirty_percent: u64,
}

/// What the shard keeps for its cleaner.
pub(crate) struct CleanerState {
    throttle: RefCell<Throttle>,
    /// Entries of the journal when the last stretch of work ended.
    journal_entries: Cell<u64>,
    counters: Cell<CleanerCounters>,
    uncleanable: RefCell<BTreeSet<LogKey>>,
    /// One pass at a time.
    turn: Turnstile,
    /// That there is no space was said.
    told_short: Cell<bool>,
}

/// Work on so many bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    /// Read or written.
    Io(usize),
    /// Unpacked, looked at or packed.
    Memory(usize),
}

/// What is not tried again before the cleaner has rested.
#[derive(Default)]
struct PassedOver {
    logs: BTreeSet<LogKey>,
    /// Log directories that are full.
    directories: BTreeSet<usize>,
}

impl PassedOver {
    fn has<E: Environment>(&self, log: &Log<E>) -> bool {
        self.directories.contains(&log.directory_index()) || self.logs.contains(&key_of(log))
    }
}

fn key_of<E: Environment>(log: &Log<E>) -> LogKey {
    (log.topic_id(), log.topic_partition().partition)
}

impl CleanerState {
    /// Nothing done yet.
    pub fn new(config: &EngineConfig, now_us: u64) -> Self {
        Self {
            throttle: RefCell::new(Throttle::new(config.cleaner_io_bytes_per_second, now_us)),
            journal_entries: Cell::new(0),
            counters: Cell::default(),
            uncleanable: RefCell::default(),
            turn: Turnstile::default(),
            told_short: Cell::new(false),
        }
    }

    /// So much was done; what to do before going on. `journal_entries` shows whether others are busy.
    pub fn done(&self, work: Work, now_us: u64, journal_entries: u64) -> Pause {
        let busy = self.journal_entries.get() != journal_entries;
        let mut throttle = self.throttle.borrow_mut();
        let pause = match work {
            Work::Io(bytes) => throttle.done(bytes as u64, now_us, busy),
            Work::Memory(bytes) => throttle.worked(bytes as u64, now_us, busy),
        };
        if pause != Pause::None {
            self.journal_entries.set(journal_entries);
        }
        pause
    }

    /// The pause is over.
    pub fn resumed(&self, now_us: u64) {
        self.throttle.borrow_mut().resumed(now_us);
    }

    /// Counters and levels.
    pub fn counters(&self) -> CleanerCounters {
        self.counters.get()
    }

    fn count(&self, change: impl FnOnce(&mut CleanerCounters)) {
        let mut counters = self.counters.get();
        change(&mut counters);
        self.counters.set(counters);
    }
}

impl<E: Environment> Shard<E> {
    /// The cleaner's task.
    pub(super) async fn run_cleaner(self: Rc<Self>) {
        let remembered = self.remembered_time().await;
        let monotonic_ms = |shard: &Self| (shard.env.now() / 1000) as i64;
        let mut guard = ClockGuard::new(
            self.config.clock_jump,
            self.config.clock_jump_confirmation,
            monotonic_ms(&self),
            self.env.wall_clock_ms(),
            remembered,
        );
        loop {
            self.sleep_or_stop(self.config.cleaner_backoff).await;
            if self.stopping.get() {
                return;
            }
            // A tombstone that goes too early is missed by who has not read it yet: no clock is believed blindly.
            let Some(now_ms) = guard.judge(monotonic_ms(&self), self.env.wall_clock_ms()) else {
                continue;
            };
            self.clean_what_is_due(now_ms).await;
        }
    }

    /// Cleans one log after the other, the dirtiest first, until none is due but those that have to wait.
    pub(crate) async fn clean_what_is_due(&self, now_ms: i64) {
        let _turn = self.cleaner.turn.enter().await;
        let mut passed_over = PassedOver::default();
        while let Some((log, range)) = self.dirtiest_log(now_ms, &passed_over).await {
            if self.stopping.get() {
                return;
            }
            self.clean_log(&log, &range, now_ms, &mut passed_over).await;
        }
    }

    async fn dirtiest_log(
        &self,
        now_ms: i64,
        passed_over: &PassedOver,
    ) -> Option<(Rc<Log<E>>, DirtyRange)> {
        {
            let logs = self.logs.borrow();
            let mut uncleanable = self.cleaner.uncleanable.borrow_mut();
            uncleanable.retain(|key| logs.contains_key(key));
            let count = uncleanable.len() as u64;
            self.cleaner.count(|counters| counters.uncleanable = count);
        }
        let mut dirtiest: Option<(Rc<Log<E>>, DirtyRange)> = None;
        let mut max_dirty_percent = 0;
        for (number, log) in self.all_logs().into_iter().enumerate() {
            if number % LOOKED_AT_A_STRETCH == LOOKED_AT_A_STRETCH - 1 {
                yield_now().await;
            }
            let compact = log.state.borrow().config.compact;
            if !compact || log.is_retiring() || log.failure().is_some() || self.is_uncleanable(&log)
            {
                continue;
            }
            let cleaned_to = self.cleaned_to(&log);
            let range = match log.dirty_range(cleaned_to, now_ms).await {
                Ok(range) => range,
                Err(failure) => {
                    self.cleaning_failed(&log, failure, &mut PassedOver::default());
                    continue;
                }
            };
            max_dirty_percent = max_dirty_percent.max(range.dirty_percent());
            if passed_over.has(&log) {
                continue;
            }
            let least = log.state.borrow().config.min_cleanable_dirty_millionths;
            if range.is_due(least)
                && dirtiest
                    .as_ref()
                    .is_none_or(|(_, most)| range.dirty_millionths() > most.dirty_millionths())
            {
                dirtiest = Some((log, range));
            }
        }
        self.cleaner
            .count(|counters| counters.max_dirty_percent = max_dirty_percent);
        dirtiest
    }

    /// One pass.
    async fn clean_log(
        &self,
        log: &Rc<Log<E>>,
        range: &DirtyRange,
        now_ms: i64,
        passed_over: &mut PassedOver,
    ) {
        let cleaned = match log.clean(range, now_ms).await {
            Ok(cleaned) => cleaned,
            Err(failure) => return self.cleaning_failed(log, failure, passed_over),
        };
        self.cleaner.told_short.set(false);
        self.cleaner.count(|counters| {
            counters.passes += 1;
            counters.replaced_bytes += cleaned.replaced_bytes;
            counters.kept_bytes += cleaned.kept_bytes;
        });
        tracing::debug!(log = %log.topic_partition(), ?cleaned, "cleaned");
        if let Err(error) = self.write_cleaned_to(log, &cleaned).await {
            // The next pass begins where this one did.
            tracing::warn!(log = %log.topic_partition(), "how far it was cleaned cannot be noted: {error}");
            passed_over.logs.insert(key_of(log));
        }
    }

    /// Says what kept a log from being cleaned, and what has to wait therefore.
    fn cleaning_failed(
        &self,
        log: &Rc<Log<E>>,
        failure: CleanFailure,
        passed_over: &mut PassedOver,
    ) {
        match failure {
            CleanFailure::Interrupted(reason) => {
                tracing::debug!(log = %log.topic_partition(), "cleaning ends early: {reason}");
                passed_over.logs.insert(key_of(log));
            }
            CleanFailure::Short(error) => {
                if !self.cleaner.told_short.replace(true) {
                    let what = if is_full(&error) {
                        "space"
                    } else {
                        "descriptors"
                    };
                    tracing::warn!(log = %log.topic_partition(), "cleaning has to wait for {what}: {error}");
                }
                // To read all of the next log only to find the same disk full again would be a waste.
                passed_over.directories.insert(log.directory_index());
            }
            CleanFailure::Uncleanable(reason) => {
                tracing::error!(log = %log.topic_partition(), "it is not cleaned any more until the next start: {reason}");
                let mut uncleanable = self.cleaner.uncleanable.borrow_mut();
                uncleanable.insert(key_of(log));
                let count = uncleanable.len() as u64;
                self.cleaner.count(|counters| counters.uncleanable = count);
            }
        }
    }

    fn is_uncleanable(&self, log: &Log<E>) -> bool {
        self.cleaner.uncleanable.borrow().contains(&key_of(log))
    }

    fn cleaned_to(&self, log: &Log<E>) -> Option<i64> {
        let cleaned = self.durable_cleaned.borrow();
        let here = cleaned.get(log.directory_index())?;
        here.get(&name_of(log.topic_partition())).copied()
    }

    async fn write_cleaned_to(&self, log: &Log<E>, cleaned: &Cleaned) -> std::io::Result<()> {
        self.write_cleaned(log, cleaned.end_offset, || {
            log.check_cleanable(cleaned.truncations).is_ok()
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    //! What was found dirty is not cleaned once the log was truncated: by then there may be other records, which nothing has made safe yet.
    use std::time::Duration;

    use crate::config::LogConfig;
    use crate::environment::Environment;
    use crate::log::clean::CleanFailure;
    use crate::log::testing::{busy, fill, with_log};

    #[test]
    fn a_range_of_before_a_truncation_is_not_cleaned() {
        let log_config = LogConfig {
            segment_bytes: 4 << 10,
            compact: true,
            delete: false,
            ..LogConfig::default()
        };
        with_log(5, busy(), log_config, |env, log| async move {
            // Each time long enough for checkpoints.
            let checkpoints = Duration::from_millis(500);
            fill(&log, 60, 300).await;
            env.sleep(checkpoints).await;
            let range = log.dirty_range(None, 0).await.expect("found");
            assert!(range.first_uncleanable > 40);
            log.truncate_to(20).await.expect("truncated");
            fill(&log, 60, 300).await;
            env.sleep(checkpoints).await;
            let cleaned = log.clean(&range, 0).await;
            assert!(
                matches!(cleaned, Err(CleanFailure::Interrupted(_))),
                "{cleaned:?}"
            );
            let size = log.size_bytes();
            assert!(size > 60 * 300, "{size} bytes are left");
        });
    }
}
