//! The comparison held against itself on a real machine: a revision beside itself, many times, and how often it was called changed; or beside itself slowed on
//! purpose, and how often that was found.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use super::decision::{ERROR_MAX, Verdict};
use super::{AbError, Options, compare};

/// A check that fails more rarely than this by chance alone.
const CHANCE_MIN: f64 = 0.01;

/// How often each answer was given.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    times: BTreeMap<&'static str, usize>,
    planted: bool,
    incomplete: usize,
}

impl Tally {
    /// Whether all of every comparison could be measured.
    pub fn is_complete(&self) -> bool {
        self.incomplete == 0
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.times.get(verdict.words()).copied().unwrap_or(0)
    }

    fn comparisons(&self) -> usize {
        self.times.values().sum()
    }

    /// Whether it went as it must. Beside itself a revision may be called changed about as often as is promised; a slow-down that was planted must be found
    /// every time.
    pub fn sound(&self) -> bool {
        let comparisons = self.comparisons();
        if self.planted {
            return comparisons > 0 && self.count(Verdict::Worse) == comparisons;
        }
        let changed = self.count(Verdict::Worse) + self.count(Verdict::Better);
        changed <= allowed(comparisons)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let beside = if self.planted {
            "itself slowed"
        } else {
            "itself"
        };
        write!(f, "{} comparisons with {beside}:", self.comparisons())?;
        let all = [
            Verdict::NoChange,
            Verdict::CannotTell,
            Verdict::Worse,
            Verdict::Better,
        ];
        for (at, verdict) in all.into_iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma} {} {}", self.count(verdict), verdict.words())?;
        }
        Ok(())
    }
}

/// The most of `comparisons` that may be wrong where each is with the chance that is promised, unless something is.
fn allowed(comparisons: usize) -> usize {
    let mut beyond = 1.0;
    let mut exactly = (1.0 - ERROR_MAX).powi(i32::try_from(comparisons).unwrap_or(i32::MAX));
    for wrong in 0..comparisons {
        beyond -= exactly;
        if beyond < CHANCE_MIN {
            return wrong;
        }
        let left = (comparisons - wrong) as f64 / (wrong + 1) as f64;
        exactly *= left * ERROR_MAX / (1.0 - ERROR_MAX);
    }
    comparisons
}

/// Compares `times` times, each with a seed of its own from the options' on.
pub fn check(options: &Options, times: usize) -> Result<Tally, AbError> {
    let mut tally = Tally {
        planted: options.plant.is_some(),
        ..Tally::default()
    };
    let mut options = options.clone();
    for time in 1..=times {
        let begun = Instant::now();
        let found = compare(&options, &|_| {})?;
        tally.incomplete += usize::from(!found.complete);
        *tally.times.entry(found.answer.words()).or_default() += 1;
        println!(
            "{time} of {times}: {} (seed {}, {:.0} s)",
            super::report::headline(&found),
            options.seed,
            begun.elapsed().as_secs_f64()
        );
        options.seed = options.seed.wrapping_add(1);
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    //! What is allowed follows from what is promised, and a planted slow-down that was missed is a failure.
    use super::*;

    fn tally(planted: bool, times: &[(Verdict, usize)]) -> Tally {
        Tally {
            planted,
            incomplete: 0,
            times: times
                .iter()
                .map(|(one, times)| (one.words(), *times))
                .collect(),
        }
    }

    #[test]
    fn one_in_twenty_may_be_wrong_and_hardly_more() {
        assert_eq!((allowed(0), allowed(1), allowed(20)), (0, 1, 4));
        assert_eq!(allowed(1000), 67);
        let quiet = [(Verdict::NoChange, 15), (Verdict::CannotTell, 3)];
        assert!(tally(false, &[&quiet[..], &[(Verdict::Worse, 2)]].concat()).sound());
        let wrong = [(Verdict::Worse, 3), (Verdict::Better, 2)];
        assert!(!tally(false, &[&quiet[..], &wrong].concat()).sound());
    }

    #[test]
    fn what_was_planted_must_be_found() {
        assert!(tally(true, &[(Verdict::Worse, 3)]).sound());
        let missed = tally(true, &[(Verdict::Worse, 2), (Verdict::CannotTell, 1)]);
        assert!(!missed.sound() && !tally(true, &[]).sound());
        assert_eq!(
            missed.to_string(),
            "3 comparisons with itself slowed: 0 no change, 1 cannot tell, 2 worse, 0 better"
        );
    }
}
