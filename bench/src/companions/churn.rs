//! Connections that come and go: each is opened, asks for versions and metadata as every client does first, and is closed.
//!
//! An open loop: a connection's latency runs from the moment it was meant to be opened. One at a time; where they take longer than
//! the rate allows, the delay adds up and is seen.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Serialize;

use crate::client::admin::Admin;
use crate::client::clock::Clock;
use crate::latency::{Latencies, Summary};
use crate::workload::Churn;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest sleep: how late the end is noticed.
const SLEEP_MAX: Duration = Duration::from_millis(50);

/// What was seen of them.
#[derive(Clone, Debug, Serialize)]
pub struct ChurnFigures {
    /// Connections opened, answered and closed, whole run.
    pub opened: u64,
    /// Connections that were refused, broke or were not answered.
    pub failed: u64,
    /// The first failure.
    pub first_failure: Option<String>,
    /// From when it was meant to be opened to its metadata, for those due in the window.
    pub latency: Option<Summary>,
}

pub(super) fn run(
    churn: &Churn,
    bootstrap: &str,
    clock: Clock,
    window: (u64, u64),
    stop: &AtomicBool,
) -> ChurnFigures {
    let mut latencies = Latencies::new(window.0);
    let mut figures = ChurnFigures {
        opened: 0,
        failed: 0,
        first_failure: None,
        latency: None,
    };
    let begun = clock.now();
    let gap_ns = 1e9 / churn.rate;
    let mut due = begun;
    while !stop.load(Ordering::Relaxed) && due < window.1 {
        let now = clock.now();
        if now < due {
            std::thread::sleep(Duration::from_nanos(due - now).min(SLEEP_MAX));
            continue;
        }
        match Admin::connect(bootstrap, ANSWER_TIMEOUT).and_then(|mut admin| admin.brokers()) {
            Ok(_) => {
                figures.opened += 1;
                let now = clock.now();
                if due >= window.0 {
                    latencies.record(now, now - due, 1);
                }
            }
            Err(error) => {
                figures.failed += 1;
                figures.first_failure.get_or_insert(error.to_string());
            }
        }
        due = begun + ((figures.opened + figures.failed) as f64 * gap_ns) as u64;
    }
    figures.latency = latencies.summary();
    figures
}
