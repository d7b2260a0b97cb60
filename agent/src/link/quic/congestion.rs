//! How much may be in flight: a congestion controller that models the path and does not take every
//! lost packet for a full queue.
//!
//! CUBIC, quinn's default, halves at a loss: at 1 % random loss, as on radio and on long or shaped
//! lines, it carries a few per cent of the line. What this one does is the idea of BBR (Cardwell et
//! al., "BBR: Congestion-Based Congestion Control", 2016; draft-ietf-ccwg-bbr), reduced to one
//! number per round trip:
//!
//! - A *round* ends when a packet that was sent after its beginning is acknowledged. What was
//!   delivered in it, over its length, is one sample of the rate. The *rate* is the largest sample
//!   of the last rounds.
//! - The *bare round trip* is the smallest one of the last seconds, which is that of an empty
//!   queue.
//! - Their product is what the path itself holds. The *window* is a little more than it: the
//!   surplus waits in the queue of the narrowest hop, keeps it busy, and lets the rate be seen to
//!   grow. quinn paces at 1.25 windows a round trip.
//! - *Start* doubles the window each round until the rate no longer grows, the round trip does, or
//!   much is lost.
//! - Then a *cycle* of rounds repeats: two at a larger surplus, by which a flow with a small share
//!   gains more than one with a large one; one below the product, so that the queue drains and the
//!   bare round trip is seen; the rest to cruise.
//! - Loss up to [`LOSS_HIGH`] is ignored. More of it, or a congestion mark, means that the queue
//!   overflows: the surplus (the *headroom*) halves and what was seen before is forgotten. Each
//!   round without it gives a thirty-second back.
//! - When the application had nothing to send, a low rate says nothing about the path and is not
//!   recorded.
//! - After persistent congestion (RFC 9002, 7.6) the path is taken for a new one.
//!
//! It reads no clock and draws no random number: the same events at the same times give the same
//! windows.

use std::{any::Any, sync::Arc, time::Duration, time::Instant};

use quinn::congestion::{Controller, ControllerFactory};
use quinn_proto::RttEstimator;

#[cfg(test)]
mod tests;

/// RFC 9002, 7.2: ten packets, before anything is known.
const START_PACKETS: u64 = 10;

/// Fewer in flight, and one loss would leave nothing behind it that shows it.
const WINDOW_PACKETS_MIN: u64 = 4;

/// Twice what a connection keeps for retransmission; only a bound on the arithmetic.
const WINDOW_BYTES_MAX: u64 = 32 << 20;

/// Window per product during the start. A sample is a round old, so doubling needs up to four;
/// three costs one round more and puts less into a queue at the end.
const START_GAIN: f64 = 3.0;

/// The start is over when the rate grew by less than this in so many rounds, or when the round trip
/// grew by more.
const START_GROWTH: f64 = 1.25;
const START_ROUNDS: u32 = 3;

/// Window per product in each round of the cycle. Cruising at 1.15 lets the rate grow by itself and
/// bears 13 % of loss.
const DRAIN: usize = 2;
const CYCLE: [f64; 10] = [1.4, 1.4, 0.75, 1.15, 1.15, 1.15, 1.15, 1.15, 1.15, 1.15];

/// Packets added to every surplus: a small window grows too, and a flow that has little gains more
/// than one with much.
const SURPLUS_PACKETS: u64 = 3;

/// Rounds a sample of the rate lives: longer than the cycle, so that one of its larger rounds is
/// always among them.
const RATES: usize = 12;
const _: () = assert!(RATES > CYCLE.len());

/// Of those, what is kept when the queue overflows, or stands: when even the shortest round trip of
/// a round is so much longer than the bare one, the line has become slower.
const RATES_CROWDED: usize = 2;
const QUEUE_STANDING: f64 = 2.0;

/// Share of lost bytes above which a queue overflows. Radio rarely loses more.
const LOSS_HIGH: f64 = 0.15;

/// Loss is measured over so many packets at least, or two lost of ten would count.
const LOSS_PACKETS: u64 = 100;

/// The least share of the surplus that is left, however much is lost: without any, nothing could
/// grow again.
const HEADROOM_MIN: f64 = 0.125;
const HEADROOM_STEP: f64 = 1.0 / 32.0;

/// What a busy machine adds to a round trip: processes wait for their turn. Added to the bare one,
/// or a local link, whose round trip is far shorter, would idle meanwhile. Rounds are no shorter
/// either, since samples would be noise.
const SCHEDULING: Duration = Duration::from_millis(3);

/// The bare round trip is the smallest of this and the previous period.
const BARE_PERIOD: Duration = Duration::from_secs(5);

/// Makes one controller for each path.
#[derive(Debug, Default)]
pub struct Congestion {
    /// Kept by each controller: quinn drops it with the last of a connection, and in no other way
    /// says that it has.
    pub kept: Option<Arc<()>>,
}

impl ControllerFactory for Congestion {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Path { _kept: self.kept.clone(), ..Path::new(now, current_mtu) })
    }
}

#[derive(Clone, Debug)]
struct Path {
    _kept: Option<Arc<()>>,
    mtu: u64,
    window: u64,
    phase: Phase,
    round: Round,
    /// Bytes per second, newest first.
    rates: [f64; RATES],
    /// Smallest round trip of this period and of the previous one.
    bare: [Duration; 2],
    bare_since: Instant,
    /// Share of the surplus in use.
    headroom: f64,
    /// What is measured for loss next.
    delivered: u64,
    lost: u64,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Start { best: f64, stalled: u32 },
    Cycle { step: usize },
}

#[derive(Clone, Copy, Debug)]
struct Round {
    since: Instant,
    delivered: u64,
    /// Smallest round trip, and the smoothed one, which is about the latest.
    rtt: Duration,
    rtt_late: Duration,
    /// A packet sent since its beginning was acknowledged.
    over: bool,
    app_limited: bool,
    marked: bool,
}

impl Round {
    fn new(since: Instant) -> Self {
        Self {
            since,
            delivered: 0,
            rtt: Duration::MAX,
            rtt_late: Duration::ZERO,
            over: false,
            app_limited: false,
            marked: false,
        }
    }
}

impl Path {
    fn new(now: Instant, mtu: u16) -> Self {
        Self {
            _kept: None,
            mtu: mtu.into(),
            window: START_PACKETS * u64::from(mtu),
            phase: Phase::Start { best: 0.0, stalled: 0 },
            round: Round::new(now),
            rates: [0.0; RATES],
            bare: [Duration::MAX; 2],
            bare_since: now,
            headroom: 1.0,
            delivered: 0,
            lost: 0,
        }
    }

    fn acknowledged(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool) {
        let rtt = now.saturating_duration_since(sent);
        self.bare[0] = self.bare[0].min(rtt);
        self.delivered += bytes;
        let round = &mut self.round;
        round.rtt = round.rtt.min(rtt);
        round.rtt_late = if round.delivered == 0 { rtt } else { (round.rtt_late * 7 + rtt) / 8 };
        round.delivered += bytes;
        round.over |= sent >= round.since;
        round.app_limited |= app_limited;
        if matches!(self.phase, Phase::Start { .. }) && !app_limited {
            let most = if self.rate() > 0.0 { self.product(START_GAIN) } else { WINDOW_BYTES_MAX };
            self.set_window((self.window + bytes).min(most.max(self.window)));
        }
    }

    fn acknowledgements_done(&mut self, now: Instant) {
        let length = now.saturating_duration_since(self.round.since);
        if self.round.over && length >= SCHEDULING {
            let round = std::mem::replace(&mut self.round, Round::new(now));
            self.end_round(now, &round, round.delivered as f64 / length.as_secs_f64());
        } else if matches!(self.phase, Phase::Start { .. }) && self.start_is_over() {
            self.enter(DRAIN);
        }
    }

    /// The queue fills faster than rounds end.
    fn start_is_over(&self) -> bool {
        self.rate() > 0.0
            && self.round.delivered >= START_PACKETS * self.mtu
            && self.is_queueing(self.round.rtt_late, START_GROWTH, SCHEDULING)
    }

    fn end_round(&mut self, now: Instant, round: &Round, rate: f64) {
        let crowded = self.handle_loss() || round.marked;
        if crowded || !round.app_limited || rate > self.rate() {
            self.rates.rotate_right(1);
            self.rates[0] = rate;
        }
        if crowded || self.is_queueing(round.rtt, QUEUE_STANDING, 4 * SCHEDULING) {
            self.rates[RATES_CROWDED..].fill(0.0);
        }
        if crowded {
            self.headroom = (self.headroom / 2.0).max(HEADROOM_MIN);
        } else {
            self.headroom = (self.headroom + HEADROOM_STEP).min(1.0);
        }
        match self.phase {
            Phase::Start { .. } if crowded => self.enter(DRAIN),
            Phase::Start { .. } if round.app_limited => {}
            Phase::Start { best, .. } if rate >= best * START_GROWTH => {
                self.phase = Phase::Start { best: rate, stalled: 0 };
            }
            Phase::Start { best, stalled } if stalled + 1 < START_ROUNDS => {
                self.phase = Phase::Start { best, stalled: stalled + 1 };
            }
            Phase::Start { .. } => self.enter(DRAIN),
            Phase::Cycle { step } => {
                if step == DRAIN && now.saturating_duration_since(self.bare_since) >= BARE_PERIOD {
                    self.bare = [round.rtt, self.bare[0]];
                    self.bare_since = now;
                }
                self.enter((step + 1) % CYCLE.len());
            }
        }
    }

    fn enter(&mut self, step: usize) {
        self.phase = Phase::Cycle { step };
        self.set_window(self.product(CYCLE[step]));
    }

    /// Whether the queue overflowed, as far as enough was acknowledged to know.
    fn handle_loss(&mut self) -> bool {
        let accounted = self.delivered + self.lost;
        if accounted < LOSS_PACKETS * self.mtu {
            return false;
        }
        let share = self.lost as f64 / accounted as f64;
        (self.delivered, self.lost) = (0, 0);
        share > LOSS_HIGH
    }

    /// Whether a round trip is longer than the bare one by more than the surplus and a busy machine
    /// explain.
    fn is_queueing(&self, rtt: Duration, growth: f64, slack: Duration) -> bool {
        rtt > self.bare_rtt().mul_f64(growth) + slack
    }

    fn rate(&self) -> f64 {
        self.rates.iter().copied().fold(0.0, f64::max)
    }

    fn bare_rtt(&self) -> Duration {
        self.bare[0].min(self.bare[1])
    }

    /// What the path holds, times `gain`, the surplus of which shrinks with the headroom.
    fn product(&self, gain: f64) -> u64 {
        let (gain, packets) =
            if gain > 1.0 { (1.0 + (gain - 1.0) * self.headroom, SURPLUS_PACKETS) } else { (gain, 0) };
        let seconds = self.bare_rtt().as_secs_f64() * gain + SCHEDULING.as_secs_f64() * self.headroom;
        (self.rate() * seconds) as u64 + packets * self.mtu
    }

    fn set_window(&mut self, bytes: u64) {
        self.window = bytes.clamp(WINDOW_PACKETS_MIN * self.mtu, WINDOW_BYTES_MAX);
    }
}

impl Controller for Path {
    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, _rtt: &RttEstimator) {
        self.acknowledged(now, sent, bytes, app_limited);
    }

    fn on_end_acks(&mut self, now: Instant, _in_flight: u64, _app_limited: bool, _largest: Option<u64>) {
        self.acknowledgements_done(now);
    }

    fn on_congestion_event(&mut self, now: Instant, _sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        if is_persistent_congestion {
            *self = Self::new(now, self.mtu as u16);
        } else {
            self.lost += lost_bytes;
            // By quinn's contract, no bytes lost is an explicit congestion mark.
            self.round.marked |= lost_bytes == 0;
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu.into();
        self.set_window(self.window);
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        START_PACKETS * self.mtu
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
