//! Noise as it was measured: whole rounds of a revision against itself, for the decision's tests. Made by `ringlog-perf ab HEAD HEAD --json`, reduced to the figures.

use serde::Deserialize;

use super::figure::Kind;

/// What was recorded.
#[derive(Deserialize)]
pub struct Recorded {
    /// The figures' kinds.
    pub kinds: Vec<Kind>,
    /// Per round, per figure: one run and the other.
    pub rounds: Vec<Vec<(f64, f64)>>,
}

/// The record.
pub fn rounds() -> Recorded {
    serde_json::from_str(include_str!("recorded.json")).expect("the recorded rounds")
}
