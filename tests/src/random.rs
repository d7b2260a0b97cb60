//! Chance that can be played again: every decision of a test comes from one seed, which the test
//! prints.

use std::time::Duration;

/// SplitMix64 (Steele, Lea, Flood 2014): small, seedable, good enough to choose faults with.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed of this run: `SEALIFT_SEED`, else always the same, so that a run in CI can be
    /// repeated at a desk. `what` keeps tests with one seed apart.
    pub fn of_this_run(what: &str) -> Self {
        let seed = match std::env::var("SEALIFT_SEED") {
            Ok(text) => text.parse().expect("SEALIFT_SEED is a number"),
            Err(_) => 1,
        };
        println!("{what}: SEALIFT_SEED={seed} plays this again");
        let hash = blake3::hash(what.as_bytes());
        let salt = u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap());
        Self(seed ^ salt)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 up to, and without, `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % end.max(1) as u64) as usize
    }

    pub fn chance(&mut self, percent: f64) -> bool {
        percent > 0.0 && (self.number() >> 11) as f64 / ((1u64 << 53) as f64) < percent / 100.0
    }

    pub fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let span = most.saturating_sub(least).as_micros() as usize;
        least + Duration::from_micros(self.below(span + 1) as u64)
    }
}
