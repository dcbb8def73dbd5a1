//! Medians, spreads, and bootstrap confidence intervals of paired ratios.
//!
//! Rounds are the unit: the two sides of a round ran one after the other, so a round's ratio is free of slow drift, and rounds
//! are what is drawn again. With few rounds an interval is wide, and that is the truth.

use serde::Serialize;

use crate::schedule::Random;

/// Drawings of the bootstrap.
const DRAWINGS: usize = 10_000;

/// Median and extremes of one side.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The middle value, or the mean of the two in the middle.
    pub median: f64,
    /// Smallest.
    pub low: f64,
    /// Largest.
    pub high: f64,
    /// Values.
    pub count: usize,
}

/// Ratio of two sides, round by round.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// Median of the rounds' ratios.
    pub median: f64,
    /// Lower end of the 95 % bootstrap interval of that median.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Pairs.
    pub count: usize,
}

/// The median of `values`, which are sorted on the way; `None` of nothing.
pub fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// Median and extremes.
pub fn spread(values: &[f64]) -> Option<Spread> {
    let mut sorted = values.to_vec();
    let median = median(&mut sorted)?;
    Some(Spread {
        median,
        low: sorted[0],
        high: sorted[sorted.len() - 1],
        count: sorted.len(),
    })
}

/// Median ratio of `subject` to `other`, paired by round, with its 95 % percentile-bootstrap interval (Efron 1979).
pub fn ratio(subject: &[f64], other: &[f64]) -> Option<Ratio> {
    let pairs = subject.iter().zip(other).filter(|(_, other)| **other > 0.0);
    let mut ratios: Vec<f64> = pairs.map(|(subject, other)| subject / other).collect();
    let middle = median(&mut ratios)?;
    // A fixed seed: the same results give the same report.
    let mut random = Random::new(0x0b00_75e7);
    let mut medians: Vec<f64> = (0..DRAWINGS)
        .filter_map(|_| {
            let mut drawn: Vec<f64> = (0..ratios.len())
                .map(|_| ratios[random.below(ratios.len() as u64) as usize])
                .collect();
            median(&mut drawn)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    let at = |quantile: f64| medians[((medians.len() - 1) as f64 * quantile) as usize];
    Some(Ratio {
        count: ratios.len(),
        median: middle,
        low: at(0.025),
        high: at(0.975),
    })
}

#[cfg(test)]
mod tests {
    //! Known values, and an interval that covers what it should.
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&mut []), None);
        let spread = spread(&[5.0, 1.0, 9.0]).unwrap();
        assert_eq!(
            (spread.low, spread.median, spread.high, spread.count),
            (1.0, 5.0, 9.0, 3)
        );
    }

    #[test]
    fn ratios_cover_the_truth() {
        let exact = ratio(&[2.0, 4.0, 6.0], &[1.0, 2.0, 3.0]).unwrap();
        assert_eq!(
            exact,
            Ratio {
                median: 2.0,
                low: 2.0,
                high: 2.0,
                count: 3
            }
        );
        // Noisy pairs whose true ratio is 0.5: the 95 % interval must cover it most of the time.
        let mut random = Random::new(1);
        let mut covered = 0;
        for _ in 0..40 {
            let mut noisy = |mean: f64| mean * (1.0 + (random.unit() - 0.5) * 0.2);
            let subject: Vec<f64> = (0..9).map(|_| noisy(5.0)).collect();
            let other: Vec<f64> = (0..9).map(|_| noisy(10.0)).collect();
            let found = ratio(&subject, &other).unwrap();
            covered += usize::from(found.low <= 0.5 && found.high >= 0.5);
        }
        assert!(covered >= 34, "{covered} of 40");
        assert!(ratio(&[1.0], &[0.0]).is_none());
    }
}
