//! A small, fast, seedable generator of pseudo-random numbers (xoshiro256**, Blackman and Vigna, 2018).
//!
//! For scheduling, jitter, identifiers of a process's life and simulation; never for secrets.

/// The generator's state.
#[derive(Clone, Debug)]
pub struct Random {
    state: [u64; 4],
}

impl Random {
    /// A generator whose whole output follows from `seed`.
    pub fn new(seed: u64) -> Self {
        let mut expand = seed;
        let state = std::array::from_fn(|_| {
            // SplitMix64, which the authors give for spreading a seed over the state.
            expand = expand.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = expand;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word ^ (word >> 31)
        });
        Self { state }
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        let result = self.state[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = self.state[1] << 17;
        self.state[2] ^= self.state[0];
        self.state[3] ^= self.state[1];
        self.state[1] ^= self.state[2];
        self.state[0] ^= self.state[3];
        self.state[2] ^= shifted;
        self.state[3] = self.state[3].rotate_left(45);
        result
    }

    /// A number below `bound`, as good as evenly spread; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A number of `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// True with the given probability, of 0.0 to 1.0.
    pub fn chance(&mut self, probability: f64) -> bool {
        ((self.next_u64() >> 11) as f64) < probability * (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    //! The generator repeats itself for a seed, differs between seeds, and keeps to its bounds.

    use super::*;

    #[test]
    fn a_seed_decides_everything() {
        let (mut one, mut same, mut other) = (Random::new(7), Random::new(7), Random::new(8));
        let first: Vec<u64> = (0..32).map(|_| one.next_u64()).collect();
        assert_eq!(first, (0..32).map(|_| same.next_u64()).collect::<Vec<_>>());
        assert_ne!(first, (0..32).map(|_| other.next_u64()).collect::<Vec<_>>());
    }

    #[test]
    fn bounds_hold_and_are_reached() {
        let mut random = Random::new(1);
        let mut seen = [0u32; 5];
        for _ in 0..1000 {
            seen[random.below(5) as usize] += 1;
        }
        assert!(
            seen.iter().all(|count| (120..280).contains(count)),
            "{seen:?}"
        );
        assert!((0..100).all(|_| (3..=4).contains(&random.between(3, 4))));
        assert!((0..100).all(|_| !random.chance(0.0)));
        assert!((0..100).all(|_| random.chance(1.0)));
        assert_eq!(random.below(0), 0);
    }
}
