//! The generator's loop: one thread that offers records when they fall due, moves bytes, and sleeps in between.
//!
//! It decides nothing about workloads; it runs the loads it is given over the measured window, waits for what is still on its
//! way, and says what went wrong.

use std::collections::HashMap;
use std::time::Duration;

use crate::client::clock::Clock;
use crate::client::error::LoadError;
use crate::client::poller::{Poller, Readiness};
use crate::consumer::ConsumerLoad;
use crate::latency::Latencies;
use crate::producer::ProducerLoad;
use crate::schedule::Schedule;
use crate::verify::Verifier;

/// Records offered before sockets are looked at again.
const OFFERS_PER_ROUND: usize = 256;
/// The longest sleep.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// What a drive needs and fills.
pub struct Drive {
    /// The run's clock.
    pub clock: Clock,
    /// Sockets.
    pub poller: Poller,
    /// Producing load.
    pub producer: Option<ProducerLoad>,
    /// Consuming load.
    pub consumer: Option<ConsumerLoad>,
    /// Verification of what is consumed.
    pub verifier: Option<Verifier>,
    /// Open loop: when records are due. Absent: closed loop.
    pub schedule: Option<Schedule>,
    /// The measured window on the run's clock.
    pub window: (u64, u64),
    /// How long after the window to wait for answers and deliveries.
    pub drain: Duration,
    /// Closed loop: no more records after this many.
    pub records_max: Option<u64>,
    /// Whether the consumer must catch up with everything acknowledged before the end.
    pub await_consumer: bool,
    /// How late the generator itself was: offered minus intended, where the broker was not the reason.
    pub lateness: Latencies,
    /// Records that were due in the run and never offered.
    pub never_offered: u64,
    /// What went wrong, for people.
    pub problems: Vec<String>,
    /// Whether a connection broke, and not only time ran out.
    pub broken: bool,
}

/// A line of progress: milliseconds since the origin, records acknowledged and received so far.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64, u64);

impl Drive {
    /// Runs until the window is over and everything is settled, or the drain time is up, or a connection breaks.
    pub fn run(&mut self, progress: Progress<'_>) {
        let mut events: Vec<Readiness> = Vec::new();
        let mut backlogged = false;
        let mut next_progress = self.clock.now() + 1_000_000_000;
        let give_up = self
            .window
            .1
            .saturating_add(u64::try_from(self.drain.as_nanos()).unwrap_or(u64::MAX));
        loop {
            let now = self.clock.now();
            self.offer(now, &mut backlogged);
            let stopped = self.stopped(now);
            if let Err(error) = self.pump(now, stopped) {
                self.broke(&error);
                break;
            }
            if stopped && self.settled() {
                break;
            }
            if now >= give_up {
                self.problems.push(format!(
                    "gave up after waiting {:?} for what was still on its way",
                    self.drain
                ));
                break;
            }
            if now >= next_progress {
                next_progress = now + 1_000_000_000;
                progress(now / 1_000_000, self.acknowledged(), self.received());
            }
            if let Err(error) = self.wait(now, &mut events) {
                self.broke(&error);
                break;
            }
        }
        self.count_never_offered();
    }

    fn broke(&mut self, error: &LoadError) {
        self.problems.push(error.to_string());
        self.broken = true;
    }

    fn offer(&mut self, now: u64, backlogged: &mut bool) {
        let (Some(schedule), Some(producer)) = (&mut self.schedule, &mut self.producer) else {
            return;
        };
        for _ in 0..OFFERS_PER_ROUND {
            let due = schedule.peek();
            if due > now || due >= self.window.1 {
                *backlogged = false;
                return;
            }
            if !producer.has_room() {
                *backlogged = true;
                return;
            }
            schedule.take();
            producer.offer(due, now);
            if !*backlogged && due >= self.window.0 {
                self.lateness.record(now, now - due, 1);
            }
        }
    }

    fn pump(&mut self, now: u64, stopped: bool) -> Result<(), LoadError> {
        if let Some(producer) = &mut self.producer {
            producer.pump(now, stopped, &self.poller)?;
        }
        if let Some(consumer) = &mut self.consumer {
            consumer.pump(&self.poller)?;
        }
        Ok(())
    }

    fn stopped(&self, now: u64) -> bool {
        let enough = self.records_max.is_some_and(|max| {
            self.producer
                .as_ref()
                .is_none_or(|load| load.tally.counts.offered >= max)
        });
        let exhausted = self
            .schedule
            .as_ref()
            .is_none_or(|schedule| schedule.peek() >= self.window.1);
        enough || (now >= self.window.1 && exhausted)
    }

    fn acknowledged(&self) -> u64 {
        self.producer
            .as_ref()
            .map_or(0, |load| load.tally.counts.acknowledged)
    }

    fn received(&self) -> u64 {
        self.consumer
            .as_ref()
            .map_or(0, |load| load.counts.received)
    }

    /// Records of this run, without what was in the topics before.
    fn own_received(&self) -> u64 {
        self.consumer.as_ref().map_or(0, |load| load.counts.own)
    }

    fn settled(&self) -> bool {
        self.producer.as_ref().is_none_or(ProducerLoad::settled)
            && (!self.await_consumer || self.own_received() >= self.acknowledged())
    }

    fn wait(&mut self, now: u64, events: &mut Vec<Readiness>) -> Result<(), LoadError> {
        let due = self
            .schedule
            .as_ref()
            .map(Schedule::peek)
            .filter(|&due| due < self.window.1);
        // Where the buffer is full only an answer helps, and that wakes us by itself.
        let due = due.filter(|_| self.producer.as_ref().is_some_and(ProducerLoad::has_room));
        let deadlines = [
            due,
            self.producer.as_ref().and_then(ProducerLoad::next_deadline),
        ];
        let next = deadlines.into_iter().flatten().min().unwrap_or(u64::MAX);
        let end = if now < self.window.1 {
            self.window.1
        } else {
            u64::MAX
        };
        // Time has passed since the round began: sleeping from its beginning would oversleep.
        let now = self.clock.now();
        let sleep = Duration::from_nanos(next.min(end).saturating_sub(now)).min(SLEEP_MAX);
        events.clear();
        self.poller
            .wait(sleep, |readiness| events.push(readiness))
            .map_err(LoadError::Io)?;
        for &readiness in events.iter() {
            if let Some(producer) = &mut self.producer
                && producer.owns(readiness.token)
            {
                producer.ready(readiness, &self.poller)?;
            } else if let Some(consumer) = &mut self.consumer {
                consumer.ready(readiness, &self.poller, &mut self.verifier)?;
            }
        }
        Ok(())
    }

    fn count_never_offered(&mut self) {
        let Some(schedule) = &mut self.schedule else {
            return;
        };
        while schedule.peek() < self.window.1 {
            schedule.take();
            self.never_offered += 1;
        }
    }

    /// Runs only the consumer until it has reached `ends`, or `patience` is over.
    pub fn read_to(&mut self, ends: &HashMap<(String, i32), i64>, patience: Duration) {
        let mut events: Vec<Readiness> = Vec::new();
        let give_up = self.clock.now() + u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX / 2);
        while self
            .consumer
            .as_ref()
            .is_some_and(|consumer| consumer.alive() && !consumer.reached(ends))
        {
            let now = self.clock.now();
            let step = match &mut self.consumer {
                Some(consumer) => consumer.pump(&self.poller),
                None => Ok(()),
            };
            if let Err(error) = step.and_then(|()| self.wait(now, &mut events)) {
                self.broke(&error);
                return;
            }
            if now > give_up {
                self.problems
                    .push(format!("reading back took longer than {patience:?}"));
                return;
            }
        }
    }
}
