//! One direction of one stream: reliable and ordered in itself, late and cut at will. What QUIC does with lost, doubled
//! and reordered datagrams appears here as delay, and as pieces that end anywhere.

use std::collections::VecDeque;

use sealift_protocol::{close::Code, frame::control_length, message::Message};

use crate::random::Random;

/// What has to be sent again comes later by the time it takes to notice; only its own stream waits for it.
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
    passed_bytes: u64,
}

impl Wire {
    pub fn new(chance: Random, delay_ms: (usize, usize), bytes_per_second: Option<u64>) -> Self {
        let (corrupt_at, corrupted, passed_bytes) = (None, false, 0);
        Self { now_ms: 0, chance, delay_ms, bytes_per_second, free_at_us: 0, corrupt_at, corrupted, passed_bytes }
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
    coming: VecDeque<(u64, Vec<u8>)>,
    here: VecDeque<u8>,
    unread_bytes: usize,
    /// Flow control: unread bytes that the writer may be ahead.
    capacity_bytes: usize,
    end_at_ms: Option<u64>,
    last_arrival_ms: u64,
}

impl Pipe {
    pub fn new(capacity_bytes: usize) -> Self {
        let (coming, here) = (VecDeque::new(), VecDeque::new());
        Self { coming, here, unread_bytes: 0, capacity_bytes, end_at_ms: None, last_arrival_ms: 0 }
    }

    /// Takes as much of `bytes` as fits, in pieces of any size, and says how much.
    pub fn write(&mut self, wire: &mut Wire, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.capacity_bytes - self.unread_bytes);
        let mut rest = &bytes[..taken];
        while !rest.is_empty() {
            let piece_bytes = 1 + wire.chance.below(rest.len());
            let mut piece = rest[..piece_bytes].to_vec();
            wire.relay(&mut piece);
            self.last_arrival_ms = self.last_arrival_ms.max(wire.arrival_ms(piece_bytes));
            self.coming.push_back((self.last_arrival_ms, piece));
            rest = &rest[piece_bytes..];
        }
        self.unread_bytes += taken;
        taken
    }

    pub fn finish(&mut self, wire: &mut Wire) {
        self.end_at_ms = Some(self.last_arrival_ms.max(wire.arrival_ms(0)));
    }

    fn settle(&mut self, now_ms: u64) {
        while self.coming.front().is_some_and(|(at, _)| *at <= now_ms) {
            let (_, piece) = self.coming.pop_front().expect("there is a front");
            self.here.extend(piece);
        }
    }

    /// All that is here.
    pub fn read_all(&mut self, wire: &Wire) -> Vec<u8> {
        self.settle(wire.now_ms);
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
    /// What its writer has said and the wire has not taken yet.
    pub outgoing: Vec<u8>,
    /// What has arrived and is not yet a whole message.
    incoming: Vec<u8>,
}

impl Control {
    pub fn new() -> Self {
        Self { pipe: Pipe::new(4096), outgoing: Vec::new(), incoming: Vec::new() }
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

    pub fn next_event_ms(&self, now_ms: u64) -> Option<u64> {
        self.pipe.next_event_ms(now_ms)
    }
}

impl Default for Control {
    fn default() -> Self {
        Self::new()
    }
}
