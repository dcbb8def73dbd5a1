//! Where to look next for the highest rate that holds: doubling or halving until one holds and one does not, then halving the
//! bracket on a logarithmic scale, then once more at the highest that held, since one run may be luck.

use serde::Serialize;

/// Trials at most.
const TRIALS_MAX: usize = 40;
/// The lowest rate that is tried, records per second.
const RATE_MIN: f64 = 1.0;
/// Times a rate must hold to be the answer.
const TIMES: usize = 2;

/// What a trial showed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tried {
    /// Records per second.
    pub rate: f64,
    /// Whether it held.
    pub held: bool,
    /// Whether it was the generator that could not.
    pub generator: bool,
}

/// How a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Between a rate that held twice and one that did not.
    Found,
    /// The highest rate that was allowed held twice.
    Ceiling,
    /// The rate above is one that the generator cannot make.
    Generator,
    /// Not even the lowest rate held.
    Nothing,
    /// The limit of trials was reached.
    Trials,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// Run at this rate.
    Try(f64),
    /// No more.
    Over(Ending),
}

/// A search's bounds.
#[derive(Clone, Copy, Debug)]
pub struct Bracket {
    /// First rate.
    pub start: f64,
    /// Ratio of the bracket's ends, less one, at which it is narrow enough.
    pub precision: f64,
    /// Highest rate.
    pub rate_max: f64,
}

/// The lowest rate at which any trial failed.
pub fn lowest_failed(tried: &[Tried]) -> Option<f64> {
    let failed = tried.iter().filter(|one| !one.held).map(|one| one.rate);
    failed.min_by(f64::total_cmp)
}

/// The highest rate below every failed one that held.
pub fn highest(tried: &[Tried]) -> Option<f64> {
    let ceiling = lowest_failed(tried).unwrap_or(f64::INFINITY);
    let held = tried
        .iter()
        .filter(|one| one.held && one.rate < ceiling)
        .map(|one| one.rate);
    held.max_by(f64::total_cmp)
}

impl Bracket {
    /// The next step after these trials.
    pub fn next(&self, tried: &[Tried]) -> Step {
        let (low, high) = (highest(tried), lowest_failed(tried));
        if tried.len() >= TRIALS_MAX {
            return Step::Over(Ending::Trials);
        }
        let (low, high) = match (low, high) {
            (None, None) => return Step::Try(self.start),
            (None, Some(high)) if high <= RATE_MIN => return Step::Over(Ending::Nothing),
            (None, Some(high)) => return Step::Try((high / 2.0).round().max(RATE_MIN)),
            (Some(low), None) if low < self.rate_max => {
                return Step::Try((low * 2.0).min(self.rate_max));
            }
            (Some(low), high) => (low, high),
        };
        let between = high.map(|high| (low * high).sqrt().round());
        if let (Some(high), Some(between)) = (high, between)
            && high / low > 1.0 + self.precision
            && between > low
            && between < high
        {
            return Step::Try(between);
        }
        let times = tried.iter().filter(|one| one.rate == low).count();
        if times < TIMES {
            return Step::Try(low);
        }
        let by_generator = |high: f64| {
            tried
                .iter()
                .any(|one| !one.held && one.rate == high && one.generator)
        };
        Step::Over(match high {
            None => Ending::Ceiling,
            Some(high) if by_generator(high) => Ending::Generator,
            Some(_) => Ending::Found,
        })
    }
}

#[cfg(test)]
mod tests {
    //! Against brokers that are only a number, and one that is moody.
    use super::*;

    fn search(
        start: f64,
        rate_max: f64,
        mut broker: impl FnMut(f64, usize) -> (bool, bool),
    ) -> (Vec<Tried>, Ending) {
        let bracket = Bracket {
            start,
            precision: 0.05,
            rate_max,
        };
        let mut tried = Vec::new();
        loop {
            match bracket.next(&tried) {
                Step::Over(ending) => return (tried, ending),
                Step::Try(rate) => {
                    let (held, generator) = broker(rate, tried.len());
                    tried.push(Tried {
                        rate,
                        held,
                        generator,
                    });
                }
            }
        }
    }

    #[test]
    fn finds_the_limit_from_below_and_above() {
        for start in [10.0, 700.0, 1_000.0, 90_000.0] {
            let (tried, ending) = search(start, 1e6, |rate, _| (rate <= 1_000.0, false));
            assert_eq!(ending, Ending::Found);
            let (low, high) = (highest(&tried).unwrap(), lowest_failed(&tried).unwrap());
            assert!(
                low <= 1_000.0 && high > 1_000.0 && high / low <= 1.05 + 1e-9,
                "{low} {high}"
            );
            assert_eq!(tried.iter().filter(|one| one.rate == low).count(), 2);
            assert!(tried.len() < 20, "{}", tried.len());
        }
    }

    #[test]
    fn ends_are_told_apart() {
        let (tried, ending) = search(100.0, 5_000.0, |_, _| (true, false));
        assert_eq!((ending, highest(&tried)), (Ending::Ceiling, Some(5_000.0)));
        let (tried, ending) = search(100.0, 1e6, |_, _| (false, false));
        assert_eq!(
            (ending, lowest_failed(&tried)),
            (Ending::Nothing, Some(1.0))
        );
        let (_, ending) = search(100.0, 1e6, |rate, _| (rate < 3_000.0, rate >= 3_000.0));
        assert_eq!(ending, Ending::Generator);
        // Holds by turns: it must end all the same, and the answer must lie below every failure.
        let (tried, _) = search(64.0, 1e6, |_, count| (count % 2 == 0, false));
        assert!(tried.len() <= TRIALS_MAX);
        assert!(highest(&tried).is_none_or(|low| low < lowest_failed(&tried).unwrap()));
    }
}
