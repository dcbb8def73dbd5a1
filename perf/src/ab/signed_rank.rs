//! Wilcoxon's signed-rank test turned into an interval: where the middle of paired differences lies, and between which bounds.
//!
//! The estimate is that of Hodges and Lehmann (1963), the median of all pairwise means (Walsh averages); the bounds are those averages that the exact
//! null distribution of the signed-rank statistic leaves (Hollander, Wolfe and Chicken, *Nonparametric Statistical Methods*, 3.2 and 3.3). No shape of
//! noise is assumed. What is needed is that each difference is as likely to have either sign when there is no effect, which a coin thrown for the
//! order of every round makes true whatever the noise looks like, trends and dependence from run to run included.
//!
//! Pure: no clock, no randomness.

/// Most pairs that are looked at: the averages grow with their square.
pub const PAIRS_MAX: usize = 200;

/// Where the middle of differences lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The Hodges–Lehmann estimate.
    pub estimate: f64,
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
}

/// The fewest pairs from which a bound of one-sided error `alpha` can be had at all: with fewer even the most extreme outcome is likelier than that.
pub fn pairs_needed(alpha: f64) -> usize {
    (1..PAIRS_MAX)
        .find(|&pairs| chance_of_extreme(pairs) <= alpha)
        .unwrap_or(PAIRS_MAX)
}

fn chance_of_extreme(pairs: usize) -> f64 {
    0.5f64.powi(pairs.min(1000) as i32)
}

/// The estimate and bounds that each miss the truth with a chance of at most `alpha`; `None` of fewer than [`pairs_needed`] differences, of more than
/// [`PAIRS_MAX`], or where one of them is not finite.
pub fn interval(differences: &[f64], alpha: f64) -> Option<Interval> {
    let count = differences.len();
    let sound = differences.iter().all(|difference| difference.is_finite());
    if !sound || count > PAIRS_MAX {
        return None;
    }
    let cut = averages_cut(count, alpha)?;
    let averages = walsh_averages(differences);
    let middle = averages.len() / 2;
    let estimate = if averages.len() % 2 == 1 {
        averages[middle]
    } else {
        (averages[middle - 1] + averages[middle]) / 2.0
    };
    Some(Interval {
        estimate,
        low: averages[cut - 1],
        high: averages[averages.len() - cut],
    })
}

/// Means of all pairs, each value with itself included, in order.
fn walsh_averages(values: &[f64]) -> Vec<f64> {
    let mut averages: Vec<f64> = (0..values.len())
        .flat_map(|first| values[first..].iter().map(move |other| (first, *other)))
        .map(|(first, other)| values[first] / 2.0 + other / 2.0)
        .collect();
    averages.sort_by(f64::total_cmp);
    averages
}

/// How many averages from either end the bound is, counted from 1: the largest `k` for which the statistic is below `k` with a chance of at most `alpha`.
fn averages_cut(pairs: usize, alpha: f64) -> Option<usize> {
    let mut below = 0.0;
    let mut cut = None;
    for (value, chance) in null_distribution(pairs).iter().enumerate() {
        below += chance;
        if below > alpha {
            break;
        }
        cut = Some(value + 1);
    }
    cut.filter(|&cut| cut * 2 <= pairs * (pairs + 1) / 2)
}

/// The chance of every value of the signed-rank statistic when each sign is a coin's.
fn null_distribution(pairs: usize) -> Vec<f64> {
    let mut chances = vec![0.0; pairs * (pairs + 1) / 2 + 1];
    chances[0] = 1.0;
    for rank in 1..=pairs {
        for value in (0..chances.len()).rev() {
            let with = if value >= rank {
                chances[value - rank]
            } else {
                0.0
            };
            chances[value] = (chances[value] + with) / 2.0;
        }
    }
    chances
}

#[cfg(test)]
mod tests {
    //! The distribution against counting all signs, bounds against published tables, and what must hold of any interval.
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_distribution_is_what_counting_all_signs_gives() {
        for pairs in 1..=10 {
            let mut counted = vec![0u32; pairs * (pairs + 1) / 2 + 1];
            for signs in 0u32..1 << pairs {
                let sum: usize = (0..pairs)
                    .filter(|bit| signs >> bit & 1 == 1)
                    .map(|bit| bit + 1)
                    .sum();
                counted[sum] += 1;
            }
            for (chance, count) in null_distribution(pairs).iter().zip(counted) {
                assert!((chance - f64::from(count) / f64::from(1u32 << pairs)).abs() < 1e-12);
            }
        }
    }

    /// Critical values of Wilcoxon's test as tables print them: the largest statistic that is still significant.
    #[test]
    fn cuts_are_those_of_the_tables() {
        for (pairs, alpha, critical) in [
            (6, 0.025, 0),
            (8, 0.025, 3),
            (10, 0.025, 8),
            (12, 0.025, 13),
            (12, 0.005, 7),
            (20, 0.025, 52),
        ] {
            assert_eq!(
                averages_cut(pairs, alpha),
                Some(critical + 1),
                "{pairs} pairs at {alpha}"
            );
        }
        assert_eq!(averages_cut(5, 0.025), None);
    }

    #[test]
    fn as_many_pairs_as_needed_and_no_fewer() {
        for alpha in [0.05, 0.025, 0.002, 0.0001] {
            let needed = pairs_needed(alpha);
            let differences = |count: usize| (0..count).map(|n| n as f64).collect::<Vec<_>>();
            assert!(interval(&differences(needed), alpha).is_some(), "{alpha}");
            assert!(
                interval(&differences(needed - 1), alpha).is_none(),
                "{alpha}"
            );
        }
        assert_eq!(pairs_needed(0.05 / 22.0), 9);
    }

    #[test]
    fn what_is_not_a_number_gives_nothing() {
        let mut differences = vec![0.5; 12];
        assert_eq!(
            interval(&differences, 0.01).map(|found| found.low),
            Some(0.5)
        );
        differences[3] = f64::NAN;
        assert_eq!(interval(&differences, 0.01), None);
        assert_eq!(interval(&vec![0.0; PAIRS_MAX + 1], 0.01), None);
        assert_eq!(interval(&[], 0.01), None);
    }

    proptest! {
        #[test]
        fn bounds_hold_the_estimate_turn_with_the_sign_and_move_with_the_values(
            differences in prop::collection::vec(-2.0f64..2.0, 10..40),
            shift in -1.0f64..1.0,
        ) {
            let found = interval(&differences, 0.01).unwrap();
            prop_assert!(found.low <= found.estimate && found.estimate <= found.high);
            let wide = interval(&differences, 0.001).unwrap();
            prop_assert!(wide.low <= found.low && wide.high >= found.high);
            let turned: Vec<f64> = differences.iter().map(|difference| -difference).collect();
            let turned = interval(&turned, 0.01).unwrap();
            prop_assert!((turned.low + found.high).abs() < 1e-12 && (turned.estimate + found.estimate).abs() < 1e-12);
            let moved: Vec<f64> = differences.iter().map(|difference| difference + shift).collect();
            let moved = interval(&moved, 0.01).unwrap();
            prop_assert!((moved.low - shift - found.low).abs() < 1e-9 && (moved.high - shift - found.high).abs() < 1e-9);
        }
    }
}
