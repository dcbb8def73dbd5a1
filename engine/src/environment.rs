//! What the engine is handed instead of reaching for it: disk, clocks, timers, tasks and randomness.
//!
//! Nothing else in the engine may name a runtime, start a timer or read a clock; that is what lets the same code run on real
//! hardware ([`DirectEnvironment`]) and, deterministically, in simulation (`sim::SimEnvironment`).

use std::cell::RefCell;
use std::future::Future;
use std::hash::BuildHasher;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;

use crate::disk::Disk;
use crate::disk::direct::DirectDisk;
use crate::random::Random;

/// Everything outside the engine that the engine uses; one per shard, never shared between threads.
pub trait Environment: Clone + 'static {
    /// The disk this environment stands on.
    type Disk: Disk;

    /// The door to files.
    fn disk(&self) -> &Self::Disk;

    /// Monotonic time in microseconds since an arbitrary moment, the same for all shards of a process.
    fn now(&self) -> u64;

    /// Wall-clock time in milliseconds since the Unix epoch; may jump either way.
    fn wall_clock_ms(&self) -> i64;

    /// Resolves when `duration` has passed.
    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static;

    /// Runs `future` on this shard to its end, supervised: a panic in it is logged under `name` and ends only this task.
    fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + 'static);

    /// 64 random bits; in simulation they follow from the seed.
    fn random(&self) -> u64;
}

/// The real thing: compio's runtime of the current thread, the system's clocks and files.
///
/// Another disk than the real one can be put in its place, such as one that records.
#[derive(Clone)]
pub struct DirectEnvironment<D = DirectDisk> {
    disk: D,
    random: Rc<RefCell<Random>>,
}

static PROCESS_START: LazyLock<Instant> = LazyLock::new(Instant::now);

impl<D: Disk> DirectEnvironment<D> {
    /// An environment for the current thread, which must be running a compio runtime whenever it is used.
    pub fn new(disk: D) -> Self {
        LazyLock::force(&PROCESS_START);
        // The standard library's hasher is keyed by the operating system's randomness.
        let seed = std::hash::RandomState::new().hash_one(SystemTime::now());
        Self {
            disk,
            random: Rc::new(RefCell::new(Random::new(seed))),
        }
    }
}

impl<D: Disk> Environment for DirectEnvironment<D> {
    type Disk = D;

    fn disk(&self) -> &D {
        &self.disk
    }

    fn now(&self) -> u64 {
        PROCESS_START.elapsed().as_micros() as u64
    }

    fn wall_clock_ms(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => since.as_millis() as i64,
            Err(before) => -(before.duration().as_millis() as i64),
        }
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        compio::time::sleep(duration)
    }

    fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + 'static) {
        let supervised = async move {
            if let Err(panic) = AssertUnwindSafe(future).catch_unwind().await {
                tracing::error!(
                    task = name,
                    "a task panicked and has ended: {}",
                    panic_message(panic.as_ref())
                );
            }
        };
        compio::runtime::spawn(supervised).detach();
    }

    fn random(&self) -> u64 {
        self.random.borrow_mut().next_u64()
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    if let Some(message) = panic.downcast_ref::<&str>() {
        message
    } else if let Some(message) = panic.downcast_ref::<String>() {
        message
    } else {
        "no message"
    }
}
