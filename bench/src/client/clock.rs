//! The generator's clock: nanoseconds since the run began, and the wall clock that record timestamps need.
//!
//! One `Clock` is made per process and copied to whoever needs it, so that times taken by a producer and by a consumer can be
//! subtracted. Nothing here sleeps.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A monotonic clock with a fixed origin.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    origin_wall_ms: i64,
}

impl Clock {
    /// Starts counting now.
    pub fn start() -> Clock {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Clock {
            origin: Instant::now(),
            origin_wall_ms: i64::try_from(wall.as_millis()).unwrap_or(0),
        }
    }

    /// Nanoseconds since the origin.
    pub fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Milliseconds since the Unix epoch at `now` nanoseconds after the origin, as record timestamps want it.
    pub fn wall_ms(&self, now: u64) -> i64 {
        self.origin_wall_ms + i64::try_from(now / 1_000_000).unwrap_or(0)
    }
}
