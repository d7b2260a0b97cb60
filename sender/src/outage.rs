//! How long a transfer has been without a link.

use std::time::{Duration, Instant};

use sealift_agent::{backoff::Backoff, link::IDLE_TIMEOUT};

/// How long a link may have been dead before that is noticed, and its connection left.
const UNNOTICED_MAX: Duration = IDLE_TIMEOUT.saturating_add(Duration::from_secs(4));

/// The outages since the receiver last acknowledged anything. That a connection stands is no
/// progress: over a link that drops each of them after the greeting, the transfer would be tried
/// for ever.
#[derive(Default)]
pub struct Outage {
    /// Of those that a connection ended, over which nothing was acknowledged.
    earlier: Duration,
    since: Option<Instant>,
    /// Since when a connection stands over which nothing was acknowledged.
    idle_since: Option<Instant>,
    pub backoff: Backoff,
}

impl Outage {
    /// There is no connection; returns whether that is news.
    pub fn handle_lost(&mut self, now: Instant) -> bool {
        // One may well stand for hours while the target is proven; but it may as well have been
        // dead for as long as this.
        let stood = self.idle_since.take().map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        self.earlier += stood.min(UNNOTICED_MAX);
        let is_new = self.since.is_none();
        self.since.get_or_insert(now);
        is_new
    }

    /// A connection stands, and is ready for data.
    pub fn handle_ready(&mut self, now: Instant) {
        self.earlier = self.elapsed(now);
        (self.since, self.idle_since) = (None, Some(now));
    }

    /// The receiver acknowledged what it did not have before.
    pub fn handle_progress(&mut self) {
        (self.earlier, self.idle_since) = (Duration::ZERO, None);
        self.backoff = Backoff::default();
    }

    pub fn is_down(&self) -> bool {
        self.since.is_some()
    }

    pub fn elapsed(&self, now: Instant) -> Duration {
        self.earlier + self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Connections that stand for so long, with ten seconds between them; how often one was tried
    /// within ten minutes.
    fn tries(stood: Duration, progress: bool) -> u32 {
        let mut now = Instant::now();
        let mut outage = Outage::default();
        for tried in 0..1000 {
            outage.handle_lost(now);
            if outage.elapsed(now) >= Duration::from_secs(600) {
                return tried;
            }
            now += Duration::from_secs(10);
            outage.handle_ready(now);
            now += stood;
            if progress {
                outage.handle_progress();
            }
        }
        1000
    }

    #[test]
    fn a_link_that_drops_every_connection_after_its_greeting_is_given_up() {
        assert_eq!(tries(Duration::ZERO, false), 60);
        assert_eq!(tries(Duration::from_secs(10), false), 30);
    }

    #[test]
    fn each_outage_after_progress_counts_by_itself() {
        assert_eq!(tries(Duration::ZERO, true), 1000);
    }

    #[test]
    fn a_connection_that_stood_long_counts_for_no_more_than_a_dead_one() {
        assert_eq!(tries(Duration::from_secs(3600), false), 28);
    }

    #[test]
    fn only_progress_shortens_the_wait_again() {
        let (mut outage, now) = (Outage::default(), Instant::now());
        assert!(outage.handle_lost(now) && !outage.handle_lost(now), "told once");
        outage.backoff.next_wait();
        outage.handle_ready(now);
        assert_eq!((outage.backoff.attempts(), outage.is_down()), (1, false));
        outage.handle_progress();
        assert_eq!(outage.backoff.attempts(), 0);
    }
}
