//! How long a transfer has been waiting for its sender. A standing receiver has few places, and one
//! whose sender brings nothing keeps its place only until another needs it.
//!
//! Time buys itself with bytes: a sender that brings as many as the least rate asks for is never
//! waited for, however it spreads them; one that brings a byte now and then is. While the receiver
//! itself is at work, nobody is waited for.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// What a sender brings at least on average. The slowest link that is served, 64 kbit/s, carries
/// seven times as much.
const BYTES_PER_SECOND_MIN: u64 = 1 << 10;

pub struct Activity {
    /// From when on the sender is waited for, as far as its bytes reach.
    since: Cell<Instant>,
    /// Steps of the receiver that run.
    at_work: Cell<u32>,
    /// The target is finishing what it was given.
    finishing: Cell<bool>,
}

/// The receiver is at work until this is dropped.
pub struct AtWork<'a>(&'a Activity);

impl Activity {
    pub fn new(now: Instant) -> Self {
        Self { since: Cell::new(now), at_work: Cell::default(), finishing: Cell::default() }
    }

    /// So many bytes came from the sender.
    pub fn handle_arrived(&self, bytes: usize, now: Instant) {
        let bought = Duration::from_nanos((bytes as u64).saturating_mul(1_000_000_000) / BYTES_PER_SECOND_MIN);
        self.since.set((self.since.get() + bought).min(now));
    }

    pub fn at_work(&self) -> AtWork<'_> {
        self.at_work.set(self.at_work.get() + 1);
        AtWork(self)
    }

    /// Whether the target is finishing what it was given, so that its sender waits for it.
    pub fn set_finishing(&self, finishing: bool) {
        if self.finishing.replace(finishing) && !finishing {
            self.since.set(Instant::now());
        }
    }

    /// How long the sender has been waited for.
    pub fn waiting(&self, now: Instant) -> Duration {
        match self.at_work.get() > 0 || self.finishing.get() {
            true => Duration::ZERO,
            false => now.saturating_duration_since(self.since.get()),
        }
    }
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        let activity = self.0;
        activity.at_work.set(activity.at_work.get() - 1);
        activity.since.set(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn bytes_buy_time_and_none_in_advance() {
        let start = Instant::now();
        let activity = Activity::new(start);
        assert_eq!(activity.waiting(start + seconds(9)), seconds(9));
        activity.handle_arrived(4 << 10, start + seconds(9));
        assert_eq!(activity.waiting(start + seconds(9)), seconds(5));
        activity.handle_arrived(1 << 30, start + seconds(9));
        assert_eq!(activity.waiting(start + seconds(9)), Duration::ZERO);
        assert_eq!(activity.waiting(start + seconds(12)), seconds(3), "nothing is bought in advance");
    }

    /// Issue 9, C1: a byte now and then does not keep a place.
    #[test]
    fn a_dribble_is_waited_for_and_a_slow_link_is_not() {
        let start = Instant::now();
        let [dribble, slow] = [100, 8000].map(|bytes| {
            let activity = Activity::new(start);
            (1..=100).for_each(|second| activity.handle_arrived(bytes, start + seconds(second)));
            activity.waiting(start + seconds(100))
        });
        assert!(dribble > seconds(90) && slow == Duration::ZERO, "{dribble:?}, {slow:?}");
    }

    #[test]
    fn nobody_is_waited_for_while_the_receiver_is_at_work() {
        let activity = Activity::new(Instant::now());
        let later = || Instant::now() + seconds(60);
        let (one, two) = (activity.at_work(), activity.at_work());
        drop(one);
        assert_eq!(activity.waiting(later()), Duration::ZERO);
        drop(two);
        assert!(activity.waiting(later()) >= seconds(60));
        activity.set_finishing(true);
        assert_eq!(activity.waiting(later()), Duration::ZERO);
        activity.set_finishing(false);
        assert!(activity.waiting(later()) >= seconds(60));
    }
}
