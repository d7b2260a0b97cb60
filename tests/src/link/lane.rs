//! What one direction of the link does to each datagram. No socket and no clock: time is passed in.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    time::{Duration, Instant},
};

use crate::random::Random;

/// What is wrong with a direction. The default is a perfect link.
#[derive(Clone, Debug)]
pub struct Faults {
    pub loss_percent: f64,
    pub duplicate_percent: f64,
    /// One bit of the datagram is flipped.
    pub corrupt_percent: f64,
    /// So many datagrams wait together, and leave in random order; none waits longer than
    /// `REORDER_HOLD`.
    pub reorder_window: usize,
    pub delay: Duration,
    /// Added to `delay`, drawn for each datagram: also reorders.
    pub jitter: Duration,
    pub bits_per_second: Option<u64>,
    /// What a rate limit keeps waiting before it drops.
    pub queue_bytes_max: usize,
    /// Larger datagrams are dropped without an error.
    pub datagram_bytes_max: Option<usize>,
    /// Nothing passes.
    pub blocked: bool,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            loss_percent: 0.0,
            duplicate_percent: 0.0,
            corrupt_percent: 0.0,
            reorder_window: 0,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            bits_per_second: None,
            queue_bytes_max: 128 << 10, // a home router's
            datagram_bytes_max: None,
            blocked: false,
        }
    }
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub received: u64,
    pub received_bytes: u64,
    pub lost: u64,
    pub blocked: u64,
    pub too_large: u64,
    pub queue_full: u64,
    pub duplicated: u64,
    pub corrupted: u64,
    pub sent: u64,
    pub sent_bytes: u64,
}

/// A datagram that waits for full company must not wait for ever: half a typical round trip.
const REORDER_HOLD: Duration = Duration::from_millis(30);

/// One direction. `T` goes with each datagram: whose it is.
pub struct Lane<T> {
    faults: Faults,
    random: Random,
    counters: Counters,
    shuffled: Vec<(Instant, T, Vec<u8>)>,
    waiting: BinaryHeap<Reverse<Waiting<T>>>,
    order: u64,
    /// When the wire is free again, under a rate limit.
    wire_free: Option<Instant>,
}

struct Waiting<T> {
    due: Instant,
    order: u64,
    whose: T,
    datagram: Vec<u8>,
}

impl<T: Copy> Lane<T> {
    pub fn new(faults: Faults, seed: u64) -> Self {
        let (random, counters) = (Random::new(seed), Counters::default());
        Self { faults, random, counters, shuffled: vec![], waiting: BinaryHeap::new(), order: 0, wire_free: None }
    }

    pub fn faults_mut(&mut self) -> &mut Faults {
        &mut self.faults
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    pub fn push(&mut self, now: Instant, whose: T, mut datagram: Vec<u8>) {
        self.counters.received += 1;
        self.counters.received_bytes += datagram.len() as u64;
        if self.faults.blocked {
            self.counters.blocked += 1;
            return;
        }
        if self.faults.datagram_bytes_max.is_some_and(|most| datagram.len() > most) {
            self.counters.too_large += 1;
            return;
        }
        if self.random.chance(self.faults.loss_percent) {
            self.counters.lost += 1;
            return;
        }
        if self.random.chance(self.faults.corrupt_percent) && !datagram.is_empty() {
            self.counters.corrupted += 1;
            let at = self.random.below(datagram.len());
            datagram[at] ^= 1 << self.random.below(8);
        }
        if self.random.chance(self.faults.duplicate_percent) {
            self.counters.duplicated += 1;
            self.shuffle(now, whose, datagram.clone());
        }
        self.shuffle(now, whose, datagram);
    }

    /// The next datagram that is due.
    pub fn pop(&mut self, now: Instant) -> Option<(T, Vec<u8>)> {
        while let Some(at) = self.shuffled.iter().position(|(until, ..)| *until <= now) {
            let (_, whose, datagram) = self.shuffled.swap_remove(at);
            self.onto_wire(now, whose, datagram);
        }
        while self.waiting.peek()?.0.due <= now {
            let Reverse(next) = self.waiting.pop()?;
            if !self.faults.blocked {
                self.counters.sent += 1;
                self.counters.sent_bytes += next.datagram.len() as u64;
                return Some((next.whose, next.datagram));
            }
            self.counters.blocked += 1; // it was on its way when the link was cut
        }
        None
    }

    pub fn next_due(&self) -> Option<Instant> {
        let shuffled = self.shuffled.iter().map(|(until, ..)| *until).min();
        let waiting = self.waiting.peek().map(|Reverse(next)| next.due);
        [shuffled, waiting].into_iter().flatten().min()
    }

    fn shuffle(&mut self, now: Instant, whose: T, datagram: Vec<u8>) {
        if self.faults.reorder_window == 0 {
            return self.onto_wire(now, whose, datagram);
        }
        self.shuffled.push((now + REORDER_HOLD, whose, datagram));
        if self.shuffled.len() > self.faults.reorder_window {
            let at = self.random.below(self.shuffled.len());
            let (_, whose, datagram) = self.shuffled.swap_remove(at);
            self.onto_wire(now, whose, datagram);
        }
    }

    fn onto_wire(&mut self, now: Instant, whose: T, datagram: Vec<u8>) {
        let mut leaves = now;
        if let Some(rate) = self.faults.bits_per_second {
            let free = self.wire_free.unwrap_or(now).max(now);
            let queued_bytes = free.duration_since(now).as_secs_f64() * rate as f64 / 8.0;
            if queued_bytes as usize + datagram.len() > self.faults.queue_bytes_max {
                self.counters.queue_full += 1;
                return;
            }
            leaves = free + Duration::from_secs_f64(datagram.len() as f64 * 8.0 / rate as f64);
            self.wire_free = Some(leaves);
        }
        let due = leaves + self.faults.delay + self.random.between(Duration::ZERO, self.faults.jitter);
        self.order += 1;
        self.waiting.push(Reverse(Waiting { due, order: self.order, whose, datagram }));
    }
}

impl<T> Ord for Waiting<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.order).cmp(&(other.due, other.order))
    }
}

impl<T> PartialOrd for Waiting<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Waiting<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Waiting<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pushes `count` numbered datagrams of `bytes` at once and returns what comes out within
    /// `span`, with its time.
    fn passed(faults: Faults, count: u32, bytes: usize, span: Duration) -> (Vec<(Duration, u32)>, Counters) {
        let start = Instant::now();
        let mut lane = Lane::new(faults, 7);
        for number in 0..count {
            let mut datagram = number.to_le_bytes().to_vec();
            datagram.resize(bytes, 0);
            lane.push(start, (), datagram);
        }
        let mut out = Vec::new();
        for millisecond in 0..=span.as_millis() as u64 {
            let at = Duration::from_millis(millisecond);
            while let Some(((), datagram)) = lane.pop(start + at) {
                out.push((at, u32::from_le_bytes(datagram[..4].try_into().unwrap())));
            }
        }
        (out, lane.counters())
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_perfect_link_changes_nothing() {
        let (out, counters) = passed(Faults::default(), 100, 1200, SECOND);
        assert!(out.iter().map(|(_, number)| *number).eq(0..100));
        assert!(out.iter().all(|(at, _)| at.is_zero()));
        assert_eq!((counters.received, counters.sent), (100, 100));
    }

    #[test]
    fn loss_and_duplication_come_as_often_as_asked_and_alike_each_time() {
        let faults = Faults { loss_percent: 20.0, duplicate_percent: 50.0, ..Faults::default() };
        let (out, counters) = passed(faults.clone(), 10_000, 100, SECOND);
        assert!((1800..2200).contains(&counters.lost), "{counters:?}");
        assert!((3800..4200).contains(&counters.duplicated), "{counters:?}");
        assert_eq!(out, passed(faults, 10_000, 100, SECOND).0);
    }

    #[test]
    fn reordering_keeps_every_datagram() {
        let (out, _) = passed(Faults { reorder_window: 50, ..Faults::default() }, 1000, 100, SECOND);
        let mut numbers: Vec<_> = out.iter().map(|(_, number)| *number).collect();
        assert!(!numbers.is_sorted());
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..1000));
    }

    #[test]
    fn a_rate_limit_spreads_and_its_queue_is_bounded() {
        let faults = Faults { bits_per_second: Some(800_000), queue_bytes_max: 50_000, ..Faults::default() };
        let (out, counters) = passed(faults, 100, 1000, SECOND);
        assert_eq!((out.len(), counters.queue_full), (50, 50));
        assert_eq!(out.last().unwrap().0, Duration::from_millis(500));
    }

    #[test]
    fn a_cut_takes_what_is_on_its_way_and_size_limits_take_the_large() {
        let start = Instant::now();
        let faults = Faults { delay: SECOND, datagram_bytes_max: Some(1200), ..Faults::default() };
        let mut lane = Lane::new(faults, 1);
        lane.push(start, (), vec![0; 1201]);
        lane.push(start, (), vec![0; 1200]);
        assert_eq!(lane.next_due(), Some(start + SECOND));
        lane.faults_mut().blocked = true;
        assert_eq!(lane.pop(start + SECOND), None);
        assert_eq!((lane.counters().too_large, lane.counters().blocked), (1, 1));
    }
}
