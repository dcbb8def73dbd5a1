//! What a producing load saw: records offered, acknowledged and refused, in all and while the window was open, and their latencies.

use std::collections::BTreeMap;

use super::lane::Sent;
use crate::latency::Latencies;
use crate::series::Flow;

/// What the measured window and the whole run saw.
#[derive(Default, Debug)]
pub struct ProducerCounts {
    /// Records offered to batches, whole run.
    pub offered: u64,
    /// Records acknowledged, whole run.
    pub acknowledged: u64,
    /// Records acknowledged while the window was open.
    pub window_records: u64,
    /// Bytes of their values.
    pub window_bytes: u64,
    /// Requests answered while the window was open.
    pub window_requests: u64,
    /// Batches acknowledged while the window was open.
    pub window_batches: u64,
    /// Records refused, by Kafka's error.
    pub errors: BTreeMap<String, u64>,
}

/// Counts and times.
pub struct Tally {
    /// The measured window on the run's clock.
    window: (u64, u64),
    /// Counters.
    pub counts: ProducerCounts,
    /// Latencies of records that fell due in the window.
    pub latencies: Latencies,
    /// Acknowledged records and bytes of values, second by second.
    pub flow: Flow,
}

impl Tally {
    /// Nothing was seen yet.
    pub fn new(window: (u64, u64)) -> Tally {
        Tally {
            window,
            counts: ProducerCounts::default(),
            latencies: Latencies::new(window.0),
            flow: Flow::new(window),
        }
    }

    fn open_at(&self, when: u64) -> bool {
        when >= self.window.0 && when < self.window.1
    }

    /// `requests` were answered at `now`.
    pub fn answered(&mut self, requests: u64, now: u64) {
        if self.open_at(now) {
            self.counts.window_requests += requests;
        }
    }

    /// `records` will never be written, because of `error`.
    pub fn refused(&mut self, error: &impl ToString, records: u64) {
        *self.counts.errors.entry(error.to_string()).or_default() += records;
    }

    /// A batch was acknowledged at `now`; `timed` where that was an answer and not only the end of sending.
    pub fn acknowledged(&mut self, sent: &Sent, now: u64, timed: bool) {
        self.counts.acknowledged += sent.count;
        if self.open_at(now) {
            self.counts.window_records += sent.count;
            self.counts.window_bytes += sent.value_bytes;
            self.counts.window_batches += 1;
        }
        self.flow.count(now, sent.count, sent.value_bytes);
        if !timed {
            return;
        }
        if sent.intended.is_empty() {
            if self.open_at(sent.made) {
                self.latencies.record(now, now - sent.made, sent.count);
            }
            return;
        }
        let window = self.window.0..self.window.1;
        for &intended in sent.intended.iter().filter(|when| window.contains(when)) {
            self.latencies.record(now, now.saturating_sub(intended), 1);
        }
    }
}

#[cfg(test)]
mod tests {
    //! What falls due in the window is timed even when its answer comes later; what is answered in the window is counted.
    use super::*;

    fn sent(intended: &[u64], made: u64) -> Sent {
        Sent {
            intended: intended.to_vec(),
            count: 2,
            value_bytes: 20,
            made,
            ..Sent::default()
        }
    }

    /// Samples of one batch.
    fn timed(sent: Sent, now: u64, answered: bool) -> u64 {
        let mut tally = Tally::new((1_000, 2_000));
        tally.acknowledged(&sent, now, answered);
        tally.latencies.summary().map_or(0, |summary| summary.count)
    }

    #[test]
    fn due_times_decide_what_is_timed() {
        assert_eq!(timed(sent(&[900, 1_100], 0), 1_500, true), 1);
        assert_eq!(timed(sent(&[1_800, 1_999], 0), 9_000, true), 2);
        assert_eq!(timed(sent(&[2_000, 2_100], 0), 9_000, true), 0);
        assert_eq!(timed(sent(&[1_100, 1_200], 0), 1_500, false), 0);
        // A closed loop times whole batches.
        assert_eq!(timed(sent(&[], 999), 1_500, true), 0);
        assert_eq!(timed(sent(&[], 1_000), 1_500, true), 2);
    }

    #[test]
    fn answers_decide_what_is_counted() {
        let mut tally = Tally::new((1_000, 2_000));
        tally.acknowledged(&sent(&[900, 950], 0), 1_000, true);
        tally.acknowledged(&sent(&[1_100, 1_200], 0), 1_999, false);
        tally.acknowledged(&sent(&[1_100, 1_200], 0), 2_000, true);
        let counts = &tally.counts;
        assert_eq!((counts.acknowledged, counts.window_records), (6, 4));
        assert_eq!((counts.window_batches, counts.window_bytes), (2, 40));
    }

    #[test]
    fn refusals_are_counted_by_error_and_requests_by_window() {
        let mut tally = Tally::new((1_000, 2_000));
        tally.refused(&"NOT_LEADER", 3);
        tally.refused(&"NOT_LEADER", 4);
        assert_eq!(tally.counts.errors["NOT_LEADER"], 7);
        tally.answered(5, 1_999);
        tally.answered(5, 2_000);
        assert_eq!(tally.counts.window_requests, 5);
    }
}
