//! How long to wait before a lost link is tried again.

use std::time::Duration;

use sealift_protocol::random::Random;

use crate::random::SystemRandom;

/// The first wait, and the longest: with the time of an attempt itself, data flows again within ten seconds of the link's
/// return.
const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(3);

/// Exponential back-off with jitter, so that many senders do not all come back to a restarted receiver at once.
#[derive(Default)]
pub struct Backoff {
    attempts: u32,
    random: SystemRandom,
}

impl Backoff {
    /// The next wait: between half and all of twice the one before.
    pub fn next_wait(&mut self) -> Duration {
        let full = FIRST.saturating_mul(1 << self.attempts.min(10)).min(LONGEST);
        self.attempts += 1;
        let mut byte = [0];
        self.random.fill(&mut byte);
        full / 2 + full.mul_f64(f64::from(byte[0]) / 512.0)
    }

    pub fn attempts(&self) -> u32 {
        self.attempts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_bounded() {
        let mut backoff = Backoff::default();
        for attempt in 0..50 {
            let full = FIRST.saturating_mul(1 << attempt.min(10)).min(LONGEST);
            let wait = backoff.next_wait();
            assert!(full / 2 <= wait && wait <= full, "{attempt}: {wait:?}");
        }
    }
}
