//! What goes on beside the measured load, on a thread of its own: connections that come and go, readers that hardly read.
//!
//! They are there to be in the way: the question is what they do to the load beside them. Each counts what it did, and its failures
//! make the run incomplete.

mod churn;
mod slow;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

pub use churn::ChurnFigures;
pub use slow::SlowFigures;

use crate::client::admin::TopicLayout;
use crate::client::clock::Clock;
use crate::workload::{Churn, SlowReaders};

/// Both, where the workload has them.
pub struct Companions {
    stop: Arc<AtomicBool>,
    churn: Option<JoinHandle<ChurnFigures>>,
    slow: Option<JoinHandle<SlowFigures>>,
}

/// What they run against.
pub struct Setting<'a> {
    /// `host:port` of the broker.
    pub bootstrap: &'a str,
    /// The run's clock.
    pub clock: Clock,
    /// The measured window on it.
    pub window: (u64, u64),
    /// Topics and leaders.
    pub layouts: &'a [TopicLayout],
    /// Fetch version to speak.
    pub fetch_version: i16,
}

impl Companions {
    /// Starts what the workload asks for.
    pub fn start(
        churn: Option<&Churn>,
        slow: Option<&SlowReaders>,
        setting: &Setting<'_>,
    ) -> Companions {
        let stop = Arc::new(AtomicBool::new(false));
        let churn = churn.map(|churn| {
            let (churn, stop, clock, window) =
                (churn.clone(), stop.clone(), setting.clock, setting.window);
            let bootstrap = setting.bootstrap.to_string();
            std::thread::spawn(move || churn::run(&churn, &bootstrap, clock, window, &stop))
        });
        let slow = slow.map(|slow| {
            let (slow, stop) = (slow.clone(), stop.clone());
            let requests = slow::requests(&slow, setting.layouts, setting.fetch_version);
            std::thread::spawn(move || slow::run(&slow, requests, &stop))
        });
        Companions { stop, churn, slow }
    }

    /// Ends them and gives what they did.
    pub fn finish(self) -> (Option<ChurnFigures>, Option<SlowFigures>) {
        self.stop.store(true, Ordering::Relaxed);
        // A thread that panicked has nothing to tell; its absence is seen in the result.
        (
            self.churn.and_then(|thread| thread.join().ok()),
            self.slow.and_then(|thread| thread.join().ok()),
        )
    }
}
