//! Decides from pairs of figures whether a revision is worse, better, the same, or whether that cannot be told.
//!
//! A figure's pairs become logarithms of ratios, turned so that more is worse, and those an interval ([`signed_rank`](super::signed_rank)). All figures together may be
//! wrong with a chance of [`ERROR_MAX`] (Bonferroni over figures, both sides, and looks), so that a revision against itself is called changed in one of twenty
//! comparisons at most, however many figures there are. A figure is
//!
//! - **worse** where the interval lies above no change, so that it has moved for certain, and the estimate reaches the figure's threshold,
//!   so that it matters; **better** likewise;
//! - **cannot tell** where it is neither, and the interval reaches beyond what the figure must not hide (its resolution), or there are too few pairs;
//! - **no change** otherwise.
//!
//! Pure: no clock, no randomness.

use serde::Serialize;

use super::signed_rank::{interval, pairs_needed};

/// The chance that any figure at all is called changed where nothing has.
pub const ERROR_MAX: f64 = 0.05;

/// How often figures are looked at, at most: what could not be told is measured as long again, once. Each look has its share of the error.
pub const LOOKS: usize = 2;

/// Which way is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Better {
    /// Costs and latencies.
    Lower,
    /// Throughputs.
    Higher,
}

/// How much of a change matters, and how much must not be hidden by noise. Both are in parts of the better side's figure: 0.25 is a cost a quarter higher,
/// or a throughput of which four fifths are left.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Limits {
    /// A change from here on matters.
    pub threshold: f64,
    /// A figure that may be worse by more than this without being shown to be is not called unchanged.
    pub resolution: f64,
}

/// What is known of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// B is worse.
    Worse,
    /// Noise may hide too much.
    CannotTell,
    /// B is better.
    Better,
    /// Nothing that matters.
    NoChange,
}

impl Verdict {
    /// As reports say it.
    pub fn words(self) -> &'static str {
        match self {
            Verdict::Worse => "worse",
            Verdict::CannotTell => "cannot tell",
            Verdict::Better => "better",
            Verdict::NoChange => "no change",
        }
    }
}

/// A figure's verdict and what it rests on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Judged {
    /// The verdict.
    pub verdict: Verdict,
    /// Pairs it rests on.
    pub pairs: usize,
    /// B's figure in A's; absent with too few pairs.
    pub ratio: Option<f64>,
    /// Lower bound of the ratio, which all figures' bounds hold together with a chance of 95 %.
    pub low: Option<f64>,
    /// Upper bound.
    pub high: Option<f64>,
}

/// The one-sided error of each bound where `figures` figures are looked at, [`LOOKS`] times.
pub fn error_of_each(figures: usize) -> f64 {
    ERROR_MAX / (2 * LOOKS * figures.max(1)) as f64
}

/// The rounds without which nothing can ever be shown of `figures` figures.
pub fn rounds_needed(figures: usize) -> usize {
    pairs_needed(error_of_each(figures))
}

/// Judges one of `figures` figures by its pairs of A's and B's values; a pair that is not of two positive numbers says nothing and is left out.
pub fn judge(pairs: &[(f64, f64)], better: Better, limits: Limits, figures: usize) -> Judged {
    let sign = match better {
        Better::Lower => 1.0,
        Better::Higher => -1.0,
    };
    let sound = pairs
        .iter()
        .filter(|(a, b)| *a > 0.0 && *b > 0.0 && a.is_finite() && b.is_finite());
    let worse_by: Vec<f64> = sound.map(|(a, b)| sign * (b / a).ln()).collect();
    let Some(found) = interval(&worse_by, error_of_each(figures)) else {
        return Judged {
            verdict: Verdict::CannotTell,
            pairs: worse_by.len(),
            ratio: None,
            low: None,
            high: None,
        };
    };
    let threshold = limits.threshold.ln_1p();
    let verdict = if found.low > 0.0 && found.estimate >= threshold {
        Verdict::Worse
    } else if found.high < 0.0 && found.estimate <= -threshold {
        Verdict::Better
    } else if found.high > limits.resolution.ln_1p() {
        Verdict::CannotTell
    } else {
        Verdict::NoChange
    };
    let (one, other) = ((sign * found.low).exp(), (sign * found.high).exp());
    Judged {
        verdict,
        pairs: worse_by.len(),
        ratio: Some((sign * found.estimate).exp()),
        low: Some(one.min(other)),
        high: Some(one.max(other)),
    }
}

/// What all figures together say: the first of worse, cannot tell, better, no change that any of them says. Of none at all nothing can be told.
pub fn answer(verdicts: impl IntoIterator<Item = Verdict>) -> Verdict {
    let mut found = verdicts.into_iter().peekable();
    if found.peek().is_none() {
        return Verdict::CannotTell;
    }
    let rank = |verdict: &Verdict| match verdict {
        Verdict::Worse => 0,
        Verdict::CannotTell => 1,
        Verdict::Better => 2,
        Verdict::NoChange => 3,
    };
    found.min_by_key(rank).unwrap_or(Verdict::CannotTell)
}

#[cfg(test)]
mod tests;
