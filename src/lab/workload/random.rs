//! Chance from a seed.

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): one addition and three mixings a number, and any seed will do.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// Starts from a seed.
    pub fn new(seed: u64) -> Random {
        Random { state: seed }
    }

    /// The next 64 bits.
    pub fn word(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is above 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The upper half of the product; its bias is bound / 2^64.
        ((u128::from(self.word()) * u128::from(bound)) >> 64) as u64
    }

    /// A place in something of this length, which is above 0.
    pub fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// Chance of its own for a part of what is drawn.
    #[must_use]
    pub fn split(&mut self) -> Random {
        Random::new(self.word())
    }

    /// A number from 0 to below 1.
    pub fn unit(&mut self) -> f64 {
        (self.word() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_numbers_stay_in_their_bounds() {
        let (mut one, mut same, mut other) = (Random::new(7), Random::new(7), Random::new(8));
        assert_ne!(one.clone().word(), other.word());
        for _ in 0..1_000 {
            assert_eq!(one.word(), same.word());
            assert!(one.below(10) < 10 && same.below(10) < 10);
            assert!((0.0..1.0).contains(&one.unit()) && (0.0..1.0).contains(&same.unit()));
        }
    }
}
