//! How fast cleaning may go: bytes a second, and stretches of work between which others have their turn.
//!
//! Pure: told the time and what was done, says when to pause and for how long.

/// Microseconds of work at a stretch.
pub(crate) const SLICE_US: u64 = 1000;
/// And bytes, which bound it where the clock stands still.
const SLICE_BYTES: u64 = 256 << 10;
/// Unused allowance that is kept, in microseconds.
const SAVED_US: u64 = 100_000;

/// What to do before going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pause {
    /// Nothing.
    None,
    /// Let others have a turn.
    Yield,
    /// Do nothing for so many microseconds.
    Sleep(u64),
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Throttle {
    bytes_per_second: u64,
    /// When everything done so far is paid for.
    paid_at: u64,
    slice_began: u64,
    slice_bytes: u64,
}

impl Throttle {
    /// At most so many bytes a second; `u64::MAX`: no limit.
    pub fn new(bytes_per_second: u64, now_us: u64) -> Self {
        Self {
            bytes_per_second: bytes_per_second.max(1),
            paid_at: now_us,
            slice_began: now_us,
            slice_bytes: 0,
        }
    }

    /// So many bytes were read or written. While others are busy, each stretch of work is followed by as long a pause.
    pub fn done(&mut self, bytes: u64, now_us: u64, others_busy: bool) -> Pause {
        let mut wait = 0;
        if self.bytes_per_second < u64::MAX {
            let cost = u128::from(bytes) * 1_000_000 / u128::from(self.bytes_per_second);
            let cost = u64::try_from(cost).unwrap_or(u64::MAX);
            let from = self.paid_at.max(now_us.saturating_sub(SAVED_US));
            self.paid_at = from.saturating_add(cost);
            wait = self.paid_at.saturating_sub(now_us);
        }
        self.stretch(bytes, wait, now_us, others_busy)
    }

    /// So many bytes were worked on in memory, which the limit does not count.
    pub fn worked(&mut self, bytes: u64, now_us: u64, others_busy: bool) -> Pause {
        self.stretch(bytes, 0, now_us, others_busy)
    }

    fn stretch(&mut self, bytes: u64, mut wait: u64, now_us: u64, others_busy: bool) -> Pause {
        self.slice_bytes = self.slice_bytes.saturating_add(bytes);
        let over =
            now_us.saturating_sub(self.slice_began) >= SLICE_US || self.slice_bytes >= SLICE_BYTES;
        if over && others_busy {
            wait = wait.max(SLICE_US);
        }
        match (wait, over) {
            (0, false) => Pause::None,
            (0, true) => Pause::Yield,
            (wait, _) => Pause::Sleep(wait),
        }
    }

    /// The pause is over.
    pub fn resumed(&mut self, now_us: u64) {
        self.slice_began = now_us;
        self.slice_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    //! The rate is kept over time, a stretch of work ends, and idle time is not saved up without end.
    use super::*;

    #[test]
    fn a_second_takes_the_bytes_of_a_second() {
        let mut throttle = Throttle::new(1_000_000, 0);
        let mut now = 0;
        for _ in 0..100 {
            match throttle.done(50_000, now, false) {
                Pause::Sleep(wait) => now += wait,
                Pause::None | Pause::Yield => {}
            }
            throttle.resumed(now);
        }
        assert!((4_900_000..=5_000_000).contains(&now), "{now}");
        // An hour of rest allows a tenth of a second's bytes at once, no more.
        now += 3_600_000_000;
        throttle.resumed(now);
        assert_eq!(throttle.done(100_000, now, false), Pause::None);
        throttle.resumed(now);
        assert_eq!(throttle.done(50_000, now, false), Pause::Sleep(50_000));
    }

    #[test]
    fn a_stretch_of_work_ends() {
        let mut throttle = Throttle::new(u64::MAX, 0);
        assert_eq!(throttle.done(1000, 999, false), Pause::None);
        assert_eq!(throttle.done(1000, 1000, false), Pause::Yield);
        throttle.resumed(1000);
        assert_eq!(throttle.done(1000, 1500, true), Pause::None);
        assert_eq!(throttle.done(1000, 2000, true), Pause::Sleep(SLICE_US));
        throttle.resumed(5000);
        assert_eq!(throttle.done(SLICE_BYTES, 5000, false), Pause::Yield);
    }

    #[test]
    fn work_in_memory_ends_a_stretch_and_costs_nothing() {
        let mut throttle = Throttle::new(1000, 0);
        assert_eq!(throttle.worked(SLICE_BYTES - 1, 0, false), Pause::None);
        assert_eq!(throttle.worked(1, 0, false), Pause::Yield);
        throttle.resumed(0);
        assert_eq!(throttle.done(1, 0, false), Pause::Sleep(1000));
    }
}
