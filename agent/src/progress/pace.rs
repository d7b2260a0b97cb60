//! How fast a transfer moves.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Before that, a rate says nothing.
const RATE_AFTER: Duration = Duration::from_secs(1);
/// A rate is that of the last samples: a transfer may get slower or faster.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
const SAMPLES_MAX: usize = 30;

/// How fast bytes move while the link is up: an outage is no part of it, so that the time left is
/// the same before and after.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Time in which data flowed, up to `since`.
    before: Duration,
    since: Option<Instant>,
    /// Time in which data had flowed, and what had moved by then; the oldest first.
    samples: VecDeque<(Duration, u64)>,
}

impl Pace {
    fn flowed(&self, now: Instant) -> Duration {
        self.before + self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    pub(super) fn handle_moved(&mut self, bytes: u64, now: Instant) {
        self.since.get_or_insert(now);
        let flowed = self.flowed(now);
        if self.samples.back().is_none_or(|(last, _)| flowed.saturating_sub(*last) >= SAMPLE_EVERY) {
            if self.samples.len() == SAMPLES_MAX {
                self.samples.pop_front();
            }
            self.samples.push_back((flowed, bytes));
        }
    }

    /// Nothing flows until something moves again.
    pub(super) fn handle_lost(&mut self, now: Instant) {
        self.before = self.flowed(now);
        self.since = None;
    }

    /// For how long data could flow. None before it could.
    pub(super) fn flowing(&self, now: Instant) -> Option<Duration> {
        self.samples.front().map(|_| self.flowed(now))
    }

    /// Bytes a second.
    pub(super) fn rate(&self, bytes: u64, now: Instant) -> Option<f64> {
        let (from, moved) = self.samples.front()?;
        let span = self.flowed(now).saturating_sub(*from);
        (span >= RATE_AFTER).then(|| bytes.saturating_sub(*moved) as f64 / span.as_secs_f64())
    }
}
