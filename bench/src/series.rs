//! Throughput second by second over the measured window: what a chart needs, beside the totals that a table needs.
//!
//! A second in which nothing happened is there with zeros, so that a broker that stood still or died is seen to have done so.

use serde::Serialize;

/// Seconds kept at most; a longer run keeps its first part.
const SECONDS_MAX: u64 = 24 * 3600;
const SECOND_NS: u64 = 1_000_000_000;

/// One second of the window; the last one may be shorter, and its figures are per second all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct FlowSecond {
    /// Seconds since the window began.
    pub at_s: u64,
    /// Records per second.
    pub records_per_s: f64,
    /// 10⁶ bytes per second.
    pub mb_per_s: f64,
}

/// Counts what passes while the window is open.
#[derive(Clone, Debug)]
pub struct Flow {
    window: (u64, u64),
    seconds: Vec<(u64, u64)>,
}

impl Flow {
    /// Nothing has passed yet.
    pub fn new(window: (u64, u64)) -> Flow {
        Flow {
            window,
            seconds: Vec::new(),
        }
    }

    /// Takes note of what passed at `now`.
    pub fn count(&mut self, now: u64, records: u64, bytes: u64) {
        if now < self.window.0 || now >= self.window.1 {
            return;
        }
        let at = (now - self.window.0) / SECOND_NS;
        if at >= SECONDS_MAX {
            return;
        }
        if self.seconds.len() <= at as usize {
            self.seconds.resize(at as usize + 1, (0, 0));
        }
        let second = &mut self.seconds[at as usize];
        second.0 += records;
        second.1 += bytes;
    }

    /// Every second of the window.
    pub fn series(mut self) -> Vec<FlowSecond> {
        let length = self.window.1.saturating_sub(self.window.0);
        let seconds = length.div_ceil(SECOND_NS).min(SECONDS_MAX);
        self.seconds.resize(seconds as usize, (0, 0));
        let rate = |(at_s, (records, bytes)): (u64, (u64, u64))| {
            let covered = (length - at_s * SECOND_NS).min(SECOND_NS) as f64 / SECOND_NS as f64;
            FlowSecond {
                at_s,
                records_per_s: records as f64 / covered,
                mb_per_s: bytes as f64 / covered / 1e6,
            }
        };
        (0u64..).zip(self.seconds).map(rate).collect()
    }
}

#[cfg(test)]
mod tests {
    //! Idle seconds are there, a short last second is scaled, and what is outside the window is not counted.
    use super::*;

    #[test]
    fn every_second_is_there() {
        let mut flow = Flow::new((10 * SECOND_NS, 13 * SECOND_NS + SECOND_NS / 2));
        flow.count(9 * SECOND_NS, 100, 100);
        flow.count(10 * SECOND_NS, 2, 1_000_000);
        flow.count(13 * SECOND_NS, 5, 0);
        flow.count(14 * SECOND_NS, 100, 100);
        let series = flow.series();
        let rates: Vec<f64> = series.iter().map(|second| second.records_per_s).collect();
        assert_eq!(rates, [2.0, 0.0, 0.0, 10.0]);
        assert_eq!(series[0].mb_per_s, 1.0);
        assert!(Flow::new((5, 5)).series().is_empty());
    }
}
