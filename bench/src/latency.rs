//! Latencies as they are recorded and reported: one histogram for the whole window and one per second of it.
//!
//! HdrHistogram with three significant digits between 1 µs and 10 minutes; what is longer counts as 10 minutes. Durations come in
//! and are kept in nanoseconds, and are reported in milliseconds.

use hdrhistogram::Histogram;
use serde::Serialize;

const LOWEST_NS: u64 = 1_000;
const HIGHEST_NS: u64 = 600_000_000_000;
const DIGITS: u8 = 3;
/// Points of a percentile curve for each further nine.
const POINTS_PER_NINE: f64 = 10.0;
/// Seconds of the time series kept at most; a longer run keeps its first part.
const SERIES_MAX: usize = 24 * 3600;

/// One second of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Second {
    /// Seconds since the measured window began.
    pub at_s: u64,
    /// Samples in this second, by when they completed.
    pub count: u64,
    /// Median, in milliseconds.
    pub p50_ms: f64,
    /// 99th percentile, in milliseconds.
    pub p99_ms: f64,
    /// Largest, in milliseconds.
    pub max_ms: f64,
}

/// The figures of a distribution.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Samples.
    pub count: u64,
    /// Mean, in milliseconds.
    pub mean_ms: f64,
    /// Median.
    pub p50_ms: f64,
    /// 90th percentile.
    pub p90_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// 99.9th percentile.
    pub p999_ms: f64,
    /// Largest.
    pub max_ms: f64,
    /// Percentile curve for plots: (percentile, milliseconds), ten points per further nine, as far as the samples tell them apart.
    pub curve: Vec<(f64, f64)>,
    /// Second by second.
    pub series: Vec<Second>,
}

/// Records durations.
pub struct Latencies {
    whole: Histogram<u64>,
    second: Histogram<u64>,
    second_at: u64,
    window_start: u64,
    series: Vec<Second>,
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(LOWEST_NS, HIGHEST_NS, DIGITS)
        .expect("constant bounds that the histogram accepts")
}

/// Quantiles evenly spaced on the scale of nines: each decade of the share that is slower has ten. The last is the one beyond
/// which a single sample of `count` lies; more would repeat the largest value.
fn quantiles(count: u64) -> impl Iterator<Item = f64> {
    let slower = (0..=80).map(|tenth| 10f64.powf(-f64::from(tenth) / POINTS_PER_NINE));
    let resolved = 1.0 / count.max(1) as f64;
    slower
        .take_while(move |&share| share > resolved)
        .chain([resolved])
        .map(|share| 1.0 - share)
}

fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

impl Latencies {
    /// An empty recording whose series counts from `window_start` on the run's clock.
    pub fn new(window_start: u64) -> Latencies {
        Latencies {
            whole: histogram(),
            second: histogram(),
            second_at: 0,
            window_start,
            series: Vec::new(),
        }
    }

    /// Records `count` samples of `duration_ns` that completed at `now`.
    pub fn record(&mut self, now: u64, duration_ns: u64, count: u64) {
        let at = now.saturating_sub(self.window_start) / 1_000_000_000;
        if at != self.second_at {
            self.close_second();
            self.second_at = at;
        }
        let value = duration_ns.clamp(1, HIGHEST_NS);
        self.whole.saturating_record_n(value, count);
        self.second.saturating_record_n(value, count);
    }

    fn close_second(&mut self) {
        if self.second.is_empty() || self.series.len() >= SERIES_MAX {
            return;
        }
        self.series.push(Second {
            at_s: self.second_at,
            count: self.second.len(),
            p50_ms: ms(self.second.value_at_quantile(0.5)),
            p99_ms: ms(self.second.value_at_quantile(0.99)),
            max_ms: ms(self.second.max()),
        });
        self.second.reset();
    }

    /// Ends the recording; `None` where nothing was recorded.
    pub fn summary(mut self) -> Option<Summary> {
        self.close_second();
        if self.whole.is_empty() {
            return None;
        }
        let at = |quantile: f64| ms(self.whole.value_at_quantile(quantile));
        let curve = quantiles(self.whole.len())
            .map(|quantile| (quantile * 100.0, at(quantile)))
            .collect();
        Some(Summary {
            count: self.whole.len(),
            mean_ms: self.whole.mean() / 1e6,
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: ms(self.whole.max()),
            curve,
            series: self.series,
        })
    }
}

#[cfg(test)]
mod tests {
    //! Three digits hold, seconds are told apart, absurd durations are clamped.
    use super::*;

    #[test]
    fn summary_and_series() {
        let mut latencies = Latencies::new(5_000_000_000);
        for i in 1..=1000u64 {
            latencies.record(5_000_000_000 + i, i * 1_000_000, 1);
        }
        latencies.record(6_500_000_000, u64::MAX, 1);
        let summary = latencies.summary().unwrap();
        assert_eq!(summary.count, 1001);
        assert!((summary.p50_ms - 501.0).abs() < 1.0, "{}", summary.p50_ms);
        assert!((summary.p99_ms - 991.0).abs() < 2.0, "{}", summary.p99_ms);
        assert!((summary.max_ms - 600_000.0).abs() < 600.0);
        assert_eq!(summary.curve[0].0, 0.0);
        assert!(
            (summary.curve[10].0 - 90.0).abs() < 1e-9,
            "ten points to the first nine"
        );
        let rising = summary
            .curve
            .windows(2)
            .all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
        assert!(rising, "{:?}", summary.curve);
        // 1001 samples say something about the 99.9th percentile and nothing about the 99.99th.
        assert!(summary.curve.last().unwrap().0 < 99.91);
        let counts: Vec<(u64, u64)> = summary
            .series
            .iter()
            .map(|second| (second.at_s, second.count))
            .collect();
        assert_eq!(counts, [(0, 1000), (1, 1)]);
        assert!(Latencies::new(0).summary().is_none());
    }
}
