//! The tasks of a shard that work behind the appends: write-behind by size, by age and under pressure, checkpoints spread out in time, retention.
//!
//! They sleep on signals; a timer runs only while there is something that ages. They end when the shard stops.

use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{Either, select};

use super::shard::Shard;
use crate::environment::Environment;
use crate::log::tail::LetGo;
use crate::log::{WriteBehind, WroteBehind};

/// The pause between the checkpoints of two logs while nothing presses.
const CHECKPOINT_PAUSE: Duration = Duration::from_millis(20);

impl<E: Environment> Shard<E> {
    /// Starts the tasks that write behind.
    pub(super) fn start_writing(self: &Rc<Self>) {
        for _ in 0..self.config.write_behind_depth.max(1) {
            self.env
                .spawn("write-behind", self.clone().run_write_behind());
        }
        self.env.spawn("aging", self.clone().run_aging());
    }

    /// Starts the tasks that need the journal.
    pub(super) fn start_maintenance(self: &Rc<Self>) {
        self.env
            .spawn("checkpoints", self.clone().run_checkpoints());
        self.env.spawn("retention", self.clone().run_retention());
        if self.config.cleaner_enabled {
            self.env.spawn("cleaner", self.clone().run_cleaner());
        }
    }

    async fn run_write_behind(self: Rc<Self>) {
        while !self.stopping.get() {
            let queued = self.write_signal.next();
            let Some(log) = self.next_to_write() else {
                queued.await;
                continue;
            };
            let how = if self.is_short_of_memory() {
                WriteBehind::Everything
            } else {
                WriteBehind::Blocks
            };
            // What has to be tried again is, by age.
            let _: WroteBehind = log.write_behind(how).await;
            log.release_memory(LetGo::AllButBlock, || !self.lacks_memory());
        }
    }

    async fn run_aging(self: Rc<Self>) {
        let age = self.config.write_behind_age.as_micros() as u64;
        while !self.stopping.get() {
            let front = self.aging.borrow_mut().pop_front();
            let Some(front) = front else {
                self.aging_signal.wait().await;
                continue;
            };
            let Some(log) = front.upgrade() else { continue };
            let Some(since) = log.state.borrow().dirty_since else {
                log.aging.set(false);
                continue;
            };
            let due = since + age;
            let now = self.env.now();
            if due > now {
                self.sleep_or_stop(Duration::from_micros(due - now)).await;
                if self.stopping.get() {
                    return;
                }
            }
            // It may have been written since, and dirtied again.
            let still = log
                .state
                .borrow()
                .dirty_since
                .is_some_and(|since| since + age <= self.env.now());
            let online =
                !still || log.write_behind(WriteBehind::Everything).await != WroteBehind::Offline;
            let mut state = log.state.borrow_mut();
            if still {
                state.tail.cool_down();
            }
            if online && state.dirty_since.is_some() {
                if still {
                    // What is left was not flushed yet, or could not be written: it is as old as this look at it.
                    state.dirty_since = Some(self.env.now());
                }
                self.aging.borrow_mut().push_back(log.weak());
            } else {
                log.aging.set(false);
            }
        }
    }

    /// Sleeps, but not beyond the shard's stop.
    pub(crate) async fn sleep_or_stop(&self, duration: Duration) {
        if self.stopping.get() {
            return;
        }
        let stop = std::pin::pin!(self.stop_signal.next());
        let sleep = std::pin::pin!(self.env.sleep(duration));
        select(stop, sleep).await;
    }

    async fn run_checkpoints(self: Rc<Self>) {
        let journal = self.journal();
        while !self.stopping.get() {
            let waiting = self.all_logs().iter().any(|log| log.needs_checkpoint());
            {
                let stop = std::pin::pin!(self.stop_signal.next());
                let pressed = std::pin::pin!(journal.pressed());
                if waiting {
                    let sleep = std::pin::pin!(self.env.sleep(self.config.checkpoint_interval));
                    if let Either::Left(_) = select(stop, select(pressed, sleep)).await {
                        return;
                    }
                } else {
                    let dirty = std::pin::pin!(self.dirtied.wait());
                    if let Either::Left(_) = select(stop, select(pressed, dirty)).await {
                        return;
                    }
                    if !journal.is_pressed() {
                        continue;
                    }
                }
            }
            self.checkpoint_round().await;
            if journal.is_pressed()
                && let Err(error) = self.restate_offline().await
            {
                tracing::warn!("the journal keeps files for offline logs as they are: {error}");
                self.sleep_or_stop(Duration::from_secs(1)).await;
            }
        }
    }

    /// Checkpoints every log that needs it, a few at a time, and makes their recovery points durable.
    async fn checkpoint_round(self: &Rc<Self>) {
        const BATCH: usize = 64;
        let journal = self.journal();
        let mut logs: Vec<_> = self
            .all_logs()
            .into_iter()
            .filter(|log| log.needs_checkpoint())
            .collect();
        // Those that hold the oldest journal files come first.
        logs.sort_by_key(|log| log.oldest_mark());
        for batch in logs.chunks(BATCH) {
            let mut reached = Vec::with_capacity(batch.len());
            for log in batch {
                if self.stopping.get() {
                    return;
                }
                if let Some(offset) = log.checkpoint(false).await {
                    reached.push((log.clone(), offset));
                }
                if !journal.is_pressed() {
                    self.sleep_or_stop(CHECKPOINT_PAUSE).await;
                }
            }
            if let Err(error) = self.write_recovery_points(&reached).await {
                tracing::error!(
                    "recovery points cannot be written, the journal keeps what they would release: {error}"
                );
                self.sleep_or_stop(Duration::from_secs(1)).await;
            }
        }
    }
}
