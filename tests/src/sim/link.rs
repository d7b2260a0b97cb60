//! The link: streams that are reliable and ordered in themselves, late and cut at will. What QUIC
//! does with lost, doubled and reordered datagrams appears here as delay, and as pieces that end
//! anywhere.

use std::collections::VecDeque;

use sealift_protocol::{close::Code, frame::control_length, message::Message, transcript::Channel};

use super::world::Side;
use crate::random::Random;

/// What has to be sent again comes later by the time it takes to notice; only its own stream waits
/// for it.
const LOST_PERCENT: f64 = 5.0;

/// The link that all streams share, under virtual time in milliseconds.
pub struct Wire {
    pub now_ms: u64,
    pub chance: Random,
    pub delay_ms: (usize, usize),
    /// None is as fast as one likes.
    pub bytes_per_second: Option<u64>,
    /// When the bytes sent last have left: streams share the bandwidth.
    free_at_us: u64,
    /// The place, counted over all streams, of the byte that a hostile relay changes.
    pub corrupt_at: Option<u64>,
    pub corrupted: bool,
    /// What this side says arrives nowhere.
    pub dead: [bool; 2],
    passed_bytes: u64,
}

impl Wire {
    pub fn new(chance: Random, delay_ms: (usize, usize), bytes_per_second: Option<u64>) -> Self {
        let (corrupt_at, corrupted, dead, passed_bytes) = (None, false, [false; 2], 0);
        Self { now_ms: 0, chance, delay_ms, bytes_per_second, free_at_us: 0, corrupt_at, corrupted, dead, passed_bytes }
    }

    fn arrival_ms(&mut self, bytes: usize) -> u64 {
        let mut delay = self.delay_ms.0 + self.chance.below(self.delay_ms.1 - self.delay_ms.0 + 1);
        if self.chance.chance(LOST_PERCENT) {
            delay += 3 * self.delay_ms.1;
        }
        let Some(rate) = self.bytes_per_second else { return self.now_ms + delay as u64 };
        self.free_at_us = self.free_at_us.max(self.now_ms * 1000) + bytes as u64 * 1_000_000 / rate;
        self.free_at_us.div_ceil(1000) + delay as u64
    }

    fn relay(&mut self, bytes: &mut [u8]) {
        let end = self.passed_bytes + bytes.len() as u64;
        if let Some(at) = self.corrupt_at.filter(|at| (self.passed_bytes..end).contains(at)) {
            bytes[(at - self.passed_bytes) as usize] ^= 1 << self.chance.below(8);
            self.corrupted = true;
        }
        self.passed_bytes = end;
    }
}

pub struct Pipe {
    from: Side,
    coming: VecDeque<(u64, Vec<u8>)>,
    here: VecDeque<u8>,
    unread_bytes: usize,
    /// Flow control: unread bytes that the writer may be ahead.
    capacity_bytes: usize,
    end_at_ms: Option<u64>,
    last_arrival_ms: u64,
}

impl Pipe {
    pub fn new(from: Side, capacity_bytes: usize) -> Self {
        let (coming, here) = (VecDeque::new(), VecDeque::new());
        Self { from, coming, here, unread_bytes: 0, capacity_bytes, end_at_ms: None, last_arrival_ms: 0 }
    }

    /// Takes as much of `bytes` as fits, in pieces of any size, and says how much.
    pub fn write(&mut self, wire: &mut Wire, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.capacity_bytes - self.unread_bytes);
        self.unread_bytes += taken;
        if wire.dead[self.from as usize] {
            return taken;
        }
        let mut rest = &bytes[..taken];
        while !rest.is_empty() {
            let piece_bytes = 1 + wire.chance.below(rest.len());
            let mut piece = rest[..piece_bytes].to_vec();
            wire.relay(&mut piece);
            self.last_arrival_ms = self.last_arrival_ms.max(wire.arrival_ms(piece_bytes));
            self.coming.push_back((self.last_arrival_ms, piece));
            rest = &rest[piece_bytes..];
        }
        taken
    }

    pub fn finish(&mut self, wire: &mut Wire) {
        if wire.dead[self.from as usize] {
            return;
        }
        self.end_at_ms = Some(self.last_arrival_ms.max(wire.arrival_ms(0)));
    }

    fn advance_to(&mut self, now_ms: u64) {
        while self.coming.front().is_some_and(|(at, _)| *at <= now_ms) {
            let (_, piece) = self.coming.pop_front().expect("there is a front");
            self.here.extend(piece);
        }
    }

    /// All that is here.
    pub fn read_all(&mut self, wire: &Wire) -> Vec<u8> {
        self.advance_to(wire.now_ms);
        self.unread_bytes -= self.here.len();
        self.here.drain(..).collect()
    }

    /// Whether everything was read and the end is here.
    pub fn ended(&self, wire: &Wire) -> bool {
        self.end_at_ms.is_some_and(|at| at <= wire.now_ms) && self.unread_bytes == 0
    }

    /// When something will happen on this stream, if anything will.
    pub fn next_event_ms(&self, now_ms: u64) -> Option<u64> {
        self.coming.front().map(|(at, _)| *at).or(self.end_at_ms).filter(|at| *at > now_ms)
    }
}

/// One direction of the control stream.
pub struct Control {
    pipe: Pipe,
    /// What its writer has sent and the wire has not taken yet.
    pub outgoing: Vec<u8>,
    /// What has arrived and is not yet a whole message.
    incoming: Vec<u8>,
}

impl Control {
    pub fn new(from: Side) -> Self {
        Self { pipe: Pipe::new(from, 4096), outgoing: Vec::new(), incoming: Vec::new() }
    }

    pub fn say(&mut self, message: &Message) {
        self.outgoing.extend(message.to_frame().expect("messages of the simulator are short"));
    }

    /// Moves what is waiting onto the wire; whether anything moved.
    pub fn pump(&mut self, wire: &mut Wire) -> bool {
        let written = self.pipe.write(wire, &self.outgoing);
        self.outgoing.drain(..written);
        written > 0
    }

    /// The next whole message.
    pub fn hear(&mut self, wire: &Wire) -> Result<Option<Message>, Code> {
        self.incoming.extend(self.pipe.read_all(wire));
        let Some(prefix) = self.incoming.first_chunk::<4>() else { return Ok(None) };
        let length = control_length(*prefix).map_err(|error| error.code)?;
        if self.incoming.len() < 4 + length {
            return Ok(None);
        }
        let message = Message::from_bytes(&self.incoming[4..4 + length]).map_err(|error| error.code)?;
        self.incoming.drain(..4 + length);
        Ok(Some(message))
    }

    /// Whether all that was sent has arrived.
    fn is_delivered(&self) -> bool {
        self.outgoing.is_empty() && self.pipe.coming.is_empty()
    }
}

/// What lies between the two agents while a connection stands, and for as long as one of them
/// believes that it does.
pub struct Link {
    pub channel: Channel,
    /// Control messages of the sender, and of the receiver.
    pub said: [Control; 2],
    /// One for each part in flight or past, in the order of their opening.
    pub streams: Vec<Pipe>,
    pub left: [bool; 2],
    /// The side ends the connection when what it sent has arrived.
    closing: [bool; 2],
    /// When a side notices that the connection is gone.
    lost_at_ms: [Option<u64>; 2],
    /// The sender ended its side of the control stream, as it does after the receipt.
    pub control_ended: bool,
}

/// Silence for this long is the end of a connection: the idle timeout of the real link.
pub const IDLE_MS: u64 = 10_000;

impl Link {
    pub fn new(channel: Channel) -> Self {
        let said = [Control::new(Side::Sender), Control::new(Side::Receiver)];
        let (streams, left, closing, lost_at_ms) = (Vec::new(), [false; 2], [false; 2], [None; 2]);
        Self { channel, said, streams, left, closing, lost_at_ms, control_ended: false }
    }

    pub fn is_lost(&self, side: Side, now_ms: u64) -> bool {
        self.lost_at_ms[side as usize].is_some_and(|at| at <= now_ms)
    }

    fn lose(&mut self, side: Side, at_ms: u64) {
        let lost = &mut self.lost_at_ms[side as usize];
        *lost = Some(lost.map_or(at_ms, |at| at.min(at_ms)));
    }

    /// Both directions are dead; each side notices at some time.
    pub fn cut(&mut self, wire: &mut Wire) {
        wire.dead = [true; 2];
        for side in Side::BOTH {
            let notice_ms = wire.chance.below(IDLE_MS as usize) as u64;
            self.lose(side, wire.now_ms + notice_ms);
        }
    }

    /// What `from` says arrives no longer: the other falls silent when it notices, and so `from`
    /// notices too (fault N7).
    pub fn half_open(&mut self, from: Side, wire: &mut Wire) {
        wire.dead[from as usize] = true;
        self.lose(from.other(), wire.now_ms + IDLE_MS);
        self.lose(from, wire.now_ms + 2 * IDLE_MS);
    }

    /// The side has nothing more to do with this connection: it closes it, or it is gone without a
    /// word.
    pub fn leave(&mut self, side: Side, politely: bool, wire: &mut Wire) {
        self.left[side as usize] = true;
        if politely && !wire.dead[side as usize] {
            self.closing[side as usize] = true;
        } else {
            wire.dead[side as usize] = true;
            self.lose(side.other(), wire.now_ms + IDLE_MS);
        }
    }

    /// Moves what was sent onto the wire; whether anything moved.
    pub fn pump(&mut self, wire: &mut Wire) -> bool {
        let mut moved = false;
        for side in Side::BOTH {
            moved |= self.said[side as usize].pump(wire);
            if self.closing[side as usize] && self.said[side as usize].is_delivered() {
                self.lose(side.other(), wire.now_ms);
            }
        }
        moved
    }

    /// When something will happen on it, if anything will.
    pub fn next_event_ms(&self, now_ms: u64) -> Option<u64> {
        let said = self.said.iter().map(|control| control.pipe.next_event_ms(now_ms));
        let streams = self.streams.iter().map(|pipe| pipe.next_event_ms(now_ms));
        let lost = self.lost_at_ms.iter().zip(self.left).map(|(at, left)| at.filter(|at| *at > now_ms && !left));
        said.chain(streams).chain(lost).flatten().min()
    }
}
