//! The controller on a simulated link: a rate, a delay, a queue that drops what does not fit,
//! random loss, outages. Time is counted, chance is seeded, and flows send as quinn does: paced at
//! 1.25 windows a round trip.

use std::collections::VecDeque;

use super::*;

const PACKET: u64 = 1200;
const TICK: Duration = Duration::from_micros(500);
const BURST: f64 = 10.0 * PACKET as f64;

struct Bottleneck {
    rate: f64,
    delay: Duration,
    queue_bytes: f64,
    loss: f64,
    down: bool,
    /// When the wire has sent all that waits.
    free: Instant,
    random: u64,
}

struct Sent {
    at: Instant,
    /// When its acknowledgement is back, if ever.
    back: Option<Instant>,
}

struct Flow {
    path: Path,
    sent: VecDeque<Sent>,
    tokens: f64,
    smoothed: Duration,
    acked_at: Instant,
    probes: u32,
    delivered: u64,
    lost: u64,
    /// Largest round trip.
    slowest: Duration,
}

struct Run {
    start: Instant,
    now: Instant,
    link: Bottleneck,
    flows: Vec<Flow>,
}

impl Bottleneck {
    fn carry(&mut self, now: Instant) -> Option<Instant> {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let chance = (self.random >> 11) as f64 / (1u64 << 53) as f64;
        let waiting = self.free.saturating_duration_since(now).as_secs_f64() * self.rate;
        if self.down || waiting + PACKET as f64 > self.queue_bytes {
            return None;
        }
        self.free = self.free.max(now) + Duration::from_secs_f64(PACKET as f64 / self.rate);
        (chance >= self.loss).then_some(self.free + self.delay)
    }
}

impl Flow {
    fn new(now: Instant) -> Self {
        let path = Path::new(now, PACKET as u16);
        let (smoothed, slowest) = (Duration::from_millis(100), Duration::ZERO);
        Self {
            path,
            sent: VecDeque::new(),
            tokens: BURST,
            smoothed,
            acked_at: now,
            probes: 0,
            delivered: 0,
            lost: 0,
            slowest,
        }
    }

    fn hear(&mut self, now: Instant) {
        let Some(last) = self.sent.iter().rposition(|sent| sent.back.is_some_and(|back| back <= now)) else { return };
        (self.acked_at, self.probes) = (now, 0);
        let timeout = self.timeout();
        let mut lost: Vec<Instant> = Vec::new();
        let mut kept = VecDeque::new();
        for (index, sent) in std::mem::take(&mut self.sent).into_iter().enumerate() {
            match sent.back {
                Some(back) if back <= now => {
                    self.smoothed = self.smoothed.mul_f64(0.875) + (now - sent.at).mul_f64(0.125);
                    self.slowest = self.slowest.max(now - sent.at);
                    self.path.acknowledged(now, sent.at, PACKET, false);
                    self.delivered += PACKET;
                }
                _ if index + 3 <= last => lost.push(sent.at),
                _ => kept.push_back(sent),
            }
        }
        self.sent = kept;
        self.path.acknowledgements_done(now);
        if let (Some(first), Some(end)) = (lost.first(), lost.last()) {
            self.lost += lost.len() as u64 * PACKET;
            let persistent = *end - *first > 3 * timeout;
            self.path.on_congestion_event(now, *end, persistent, lost.len() as u64 * PACKET);
        }
    }

    fn timeout(&self) -> Duration {
        self.smoothed * 2 + Duration::from_millis(25)
    }

    fn send(&mut self, now: Instant, link: &mut Bottleneck) {
        let window = self.path.window();
        let rate = window as f64 * 1.25 / self.smoothed.as_secs_f64();
        self.tokens = (self.tokens + rate * TICK.as_secs_f64()).min(BURST.max(rate * 0.002));
        let mut probe = now - self.acked_at > self.timeout() * 2u32.pow(self.probes);
        self.probes += u32::from(probe);
        while probe || (self.tokens >= PACKET as f64 && (self.sent.len() as u64 + 1) * PACKET < window) {
            probe = false;
            self.tokens -= PACKET as f64;
            self.sent.push_back(Sent { at: now, back: link.carry(now) });
        }
    }
}

impl Run {
    /// `queue` in products of the rate and the round trip.
    fn new(megabits: f64, round_trip_ms: u64, queue: f64, loss: f64, flows: usize) -> Self {
        let start = Instant::now();
        let (rate, delay) = (megabits * 125_000.0, Duration::from_millis(round_trip_ms));
        let queue_bytes = (rate * delay.as_secs_f64() * queue).max(4.0 * PACKET as f64);
        let link = Bottleneck { rate, delay, queue_bytes, loss, down: false, free: start, random: 1 };
        Self { start, now: start, link, flows: (0..flows).map(|_| Flow::new(start)).collect() }
    }

    /// Runs until `seconds` after the start; the share of the link's rate that each flow got, and
    /// of what it lost.
    fn until(&mut self, seconds: f64) -> Vec<(f64, f64)> {
        let begin = self.now;
        for flow in &mut self.flows {
            (flow.delivered, flow.lost, flow.slowest) = (0, 0, Duration::ZERO);
        }
        while self.now - self.start < Duration::from_secs_f64(seconds) {
            self.now += TICK;
            // No flow is always the first.
            self.flows.rotate_left(1);
            for flow in &mut self.flows {
                flow.hear(self.now);
                flow.send(self.now, &mut self.link);
            }
        }
        let possible = self.link.rate * (self.now - begin).as_secs_f64();
        let shares = self.flows.iter().map(|flow| {
            let acked_at = (flow.delivered + flow.lost).max(1) as f64;
            (flow.delivered as f64 / possible, flow.lost as f64 / acked_at)
        });
        shares.collect()
    }
}

#[test]
fn random_loss_costs_little_more_than_what_is_lost() {
    for (megabits, round_trip_ms, loss) in [(40.0, 50, 0.01), (50.0, 20, 0.05), (10.0, 600, 0.005), (40.0, 50, 0.1)] {
        let mut run = Run::new(megabits, round_trip_ms, 1.0, loss, 1);
        run.until(10.0);
        let (goodput, lost) = run.until(20.0)[0];
        assert!(goodput > 0.8, "{megabits} Mbit/s, {round_trip_ms} ms, loss {loss}: {goodput}");
        assert!(lost < loss + 0.01, "{megabits} Mbit/s, {round_trip_ms} ms, loss {loss}: lost {lost}");
    }
}

#[test]
fn the_start_takes_a_second_at_50_ms() {
    let (goodput, lost) = Run::new(40.0, 50, 1.0, 0.01, 1).until(2.0)[0];
    assert!(goodput > 0.7, "{goodput}");
    assert!(lost < 0.1, "{lost}");
}

#[test]
fn a_queue_is_neither_filled_nor_overflowed() {
    for (queue, lost_most) in [(8.0, 0.001), (1.0, 0.001), (0.5, 0.01), (0.25, 0.05), (0.1, 0.1)] {
        let mut run = Run::new(40.0, 50, queue, 0.0, 1);
        run.until(3.0);
        let (goodput, lost) = run.until(13.0)[0];
        assert!(goodput > 0.9, "queue {queue}: {goodput}");
        assert!(lost < lost_most, "queue {queue}: lost {lost}");
        assert!(run.flows[0].slowest < Duration::from_millis(80), "queue {queue}: {:?}", run.flows[0].slowest);
    }
}

#[test]
fn a_flow_that_comes_later_gets_its_share() {
    for (megabits, queue) in [(40.0, 0.5), (40.0, 1.0), (10.0, 8.0)] {
        let mut run = Run::new(megabits, 50, queue, 0.0, 1);
        run.until(5.0);
        run.flows.push(Flow::new(run.now));
        run.until(15.0);
        let shares = run.until(30.0);
        assert!(shares.iter().all(|(goodput, _)| *goodput > 0.25), "{megabits} Mbit/s, queue {queue}: {shares:?}");
        assert!(shares[0].0 + shares[1].0 > 0.9, "{megabits} Mbit/s, queue {queue}: {shares:?}");
    }
}

#[test]
fn the_rate_is_followed_down_and_up() {
    let mut run = Run::new(40.0, 50, 1.0, 0.01, 1);
    run.until(5.0);
    run.link.rate /= 10.0;
    run.until(8.0);
    let (goodput, lost) = run.until(10.0)[0];
    assert!(goodput > 0.8 && lost < 0.05, "slower: {goodput}, lost {lost}");
    run.link.rate *= 10.0;
    run.until(13.0);
    let (goodput, lost) = run.until(15.0)[0];
    assert!(goodput > 0.8 && lost < 0.05, "faster: {goodput}, lost {lost}");
}

#[test]
fn a_longer_way_is_noticed() {
    let mut run = Run::new(40.0, 20, 4.0, 0.0, 1);
    run.until(5.0);
    run.link.delay = Duration::from_millis(100);
    run.until(20.0);
    let (goodput, lost) = run.until(25.0)[0];
    assert!(goodput > 0.8 && lost < 0.05, "{goodput}, lost {lost}");
}

#[test]
fn at_64_kbit_a_second_little_waits() {
    let mut run = Run::new(0.064, 50, 1000.0, 0.0, 1);
    run.until(10.0);
    let (goodput, lost) = run.until(30.0)[0];
    assert!(goodput > 0.8 && lost == 0.0, "{goodput}, lost {lost}");
    // A packet takes 150 ms by itself: seven of them.
    assert!(run.flows[0].slowest < Duration::from_millis(1100), "{:?}", run.flows[0].slowest);
}

#[test]
fn after_an_outage_it_is_as_before() {
    for seconds in [0.2, 1.0, 4.0] {
        let mut run = Run::new(40.0, 50, 1.0, 0.01, 1);
        run.until(5.0);
        run.link.down = true;
        run.until(5.0 + seconds);
        run.link.down = false;
        // Until a probe crosses, the transport waits, at most as long again as the outage took.
        run.until(7.0 + 2.0 * seconds);
        let (goodput, lost) = run.until(9.0 + 2.0 * seconds)[0];
        assert!(goodput > 0.8 && lost < 0.05, "{seconds} s: {goodput}, lost {lost}");
    }
}

#[test]
fn a_sender_without_data_does_not_lower_the_rate() {
    let mut run = Run::new(40.0, 50, 1.0, 0.0, 1);
    run.until(5.0);
    let (mut now, path) = (run.now, &mut run.flows[0].path);
    let rate = path.rate();
    for _ in 0..50 {
        let sent = now;
        now += Duration::from_millis(60);
        path.acknowledged(now, sent, PACKET, true);
        path.acknowledgements_done(now);
    }
    assert!(path.rate() >= rate);
}

#[test]
fn a_congestion_mark_and_heavy_loss_halve_the_headroom() {
    let now = Instant::now();
    for lost in [0, 100 * PACKET] {
        let mut path = Path::new(now, PACKET as u16);
        path.acknowledged(now + Duration::from_millis(50), now, 100 * PACKET, false);
        path.on_congestion_event(now, now, false, lost);
        path.acknowledgements_done(now + Duration::from_millis(50));
        assert_eq!(path.headroom, 0.5);
        assert!(matches!(path.phase, Phase::Cycle { step: DRAIN }));
    }
}

#[test]
fn the_same_events_give_the_same_windows() {
    let run = || {
        let mut run = Run::new(20.0, 50, 0.5, 0.02, 2);
        let shares = run.until(5.0);
        (shares, run.flows.iter().map(|flow| flow.path.window()).collect::<Vec<_>>())
    };
    assert_eq!(run(), run());
}
