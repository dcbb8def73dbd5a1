//! Noise as it was measured, for the decision's tests: logarithms of the ratio between two runs of one workload on one build of Ringlog.
//!
//! From the two rounds of a `ringlog-bench compare` of twelve workloads on two cores, minutes apart, while other work kept 0.2 to 0.5 cores busy: more
//! noise than a machine that is left alone has, and more than between the two runs of a round, which follow each other at once.

use std::collections::BTreeMap;

use super::figure::Kind;

/// The differences by kind of figure.
pub fn differences() -> BTreeMap<Kind, Vec<f64>> {
    serde_json::from_str(include_str!("recorded.json")).expect("the recorded differences")
}
