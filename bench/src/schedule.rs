//! When records are due in an open loop: a sequence of intended send times that does not depend on the broker.

use crate::workload::Arrival;

/// A cheap random source (SplitMix64): reproducible from its seed, not for secrets.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in 0 (included) to 1 (excluded).
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }
}

/// Intended send times, nanoseconds on the run's clock.
#[derive(Clone, Debug)]
pub struct Schedule {
    start: u64,
    gap_ns: f64,
    arrival: Arrival,
    burst: u64,
    elapsed_ns: f64,
    given: u64,
    random: Random,
}

impl Schedule {
    /// `rate` records per second from `start` on, `burst` of them at a time.
    pub fn new(start: u64, rate: f64, arrival: Arrival, burst: u32, seed: u64) -> Schedule {
        Schedule {
            start,
            gap_ns: 1e9 / rate,
            arrival,
            burst: u64::from(burst.max(1)),
            elapsed_ns: 0.0,
            given: 0,
            random: Random::new(seed),
        }
    }

    /// When the next record is due.
    pub fn peek(&self) -> u64 {
        self.start + self.elapsed_ns as u64
    }

    /// Takes the next record's time and moves on.
    pub fn take(&mut self) -> u64 {
        let due = self.peek();
        self.given += 1;
        if !self.given.is_multiple_of(self.burst) {
            return due;
        }
        match self.arrival {
            // From the count, so that rounding never adds up.
            Arrival::Uniform => self.elapsed_ns = self.given as f64 * self.gap_ns,
            Arrival::Poisson => {
                let gap_ns = self.gap_ns * self.burst as f64;
                self.elapsed_ns -= (1.0 - self.random.unit()).ln() * gap_ns;
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    //! Both arrivals give the rate they were asked for, and never go back in time.
    use super::*;

    #[test]
    fn rates_hold() {
        for (arrival, tolerance) in [(Arrival::Uniform, 1), (Arrival::Poisson, 40_000_000)] {
            let mut schedule = Schedule::new(1_000, 20_000.0, arrival, 1, 7);
            let mut last = 0;
            for _ in 0..200_000 {
                let due = schedule.take();
                assert!(due >= last);
                last = due;
            }
            assert!(
                (schedule.peek() as i64 - 10_000_001_000).abs() <= tolerance,
                "{arrival:?} {}",
                schedule.peek()
            );
        }
    }

    #[test]
    fn bursts_are_due_at_once_and_keep_the_rate() {
        let mut schedule = Schedule::new(0, 1_000.0, Arrival::Uniform, 50, 7);
        let due: Vec<u64> = (0..101).map(|_| schedule.take()).collect();
        assert!(due[..50].iter().all(|&at| at == 0));
        assert!(due[50..100].iter().all(|&at| at == 50_000_000));
        assert_eq!(due[100], 100_000_000);
    }
}
