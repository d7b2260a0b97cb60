//! How long to wait before a lost link is tried again.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// The shortest first wait, and the longest of all; jitter makes each wait up to twice as long.
/// With the time of an attempt itself, data flows again within ten seconds of the link's return.
const FIRST_MIN: Duration = Duration::from_millis(125);
const LONGEST: Duration = Duration::from_secs(3);

/// Exponential back-off with jitter, so that many senders do not all come back to a restarted
/// receiver at once.
pub struct Backoff {
    waits: ExponentialBackoff,
    attempts: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        let waits = ExponentialBuilder::new().with_min_delay(FIRST_MIN).with_max_delay(LONGEST / 2);
        Self { waits: waits.with_jitter().without_max_times().build(), attempts: 0 }
    }
}

impl Backoff {
    pub fn next_wait(&mut self) -> Duration {
        self.attempts = self.attempts.saturating_add(1);
        self.waits.next().unwrap_or(LONGEST)
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
            let half = FIRST_MIN.saturating_mul(1 << attempt.min(10)).min(LONGEST / 2);
            let wait = backoff.next_wait();
            assert!(half <= wait && wait <= 2 * half, "{attempt}: {wait:?}");
        }
    }
}
