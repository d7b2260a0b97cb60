//! The sender's driver: what `sealift-sender` does with threads and QUIC, in single steps. A source that reads one part
//! at a time in the order it is asked, a chunk waiting for each lane, frames sealed and written in order.

use std::{collections::VecDeque, rc::Rc};

use bytes::Bytes;
use sealift_protocol::{
    chunk::{Chunk, Sealed},
    close::Code,
    codec,
    compress::Packer,
    digest::{Digests, Root},
    frame::StreamHeader,
    id::{ChunkIndex, Epoch, PartIndex, TransferId},
    key::{DigestSecret, EpochSecret},
    manifest::{Manifest, PartKind, SignedReceipt},
    message::{Ack, Message},
    random::Nonces,
    row::RowReader,
    seal::{EpochKeys, seal},
    send::{Beginning, Offering, Session, Transfer},
};

use super::{
    Moved, Step, World,
    pipe::Pipe,
    scenario::{Fault, Scenario, SenderFault},
};
use crate::wire::{Seeded, TestSigner};

pub struct Sender<'a> {
    scenario: &'a Scenario,
    signer: TestSigner,
    transfer: Transfer,
    state: State,
    random: Seeded,
    nonces: Nonces<Seeded>,
    packer: Packer,
    next_part: u32,
    jobs: VecDeque<(usize, usize)>,
    lanes: Vec<Lane>,
    last_ack: Vec<(u64, u64)>,
    chunks_sealed: u64,
    finished: bool,
    pub triggered: bool,
}

enum State {
    Offering(Box<Offering>),
    Beginning(Beginning),
    Running(Rc<Session>),
    Moving,
}

struct Lane {
    part: usize,
    stream: usize,
    waiting: Option<Chunk>,
    sealed: Option<Sealed>,
    out: Vec<u8>,
    held: Vec<u8>,
    in_flight: VecDeque<u64>,
    last_written: bool,
    done: bool,
}

impl<'a> Sender<'a> {
    pub fn new(
        scenario: &'a Scenario,
        signer: TestSigner,
        transfer: Transfer,
        offering: Offering,
        random: Seeded,
    ) -> Self {
        Self {
            scenario,
            signer,
            last_ack: vec![(0, 0); scenario.parts.len()],
            transfer,
            state: State::Offering(Box::new(offering)),
            random,
            nonces: Nonces::new(Seeded::new("sim nonces", scenario.seed)),
            packer: Packer::new(scenario.compression).expect("a zstd context"),
            next_part: 0,
            jobs: VecDeque::new(),
            lanes: Vec::new(),
            chunks_sealed: 0,
            finished: false,
            triggered: false,
        }
    }

    fn faulty(&self, fault: SenderFault) -> bool {
        matches!(self.scenario.fault, Fault::Sender(wanted, _) if wanted == fault)
    }

    /// Whether the sabotage of this run is due at this chunk; at a later one if it was not possible before.
    fn due(&mut self, fault: SenderFault) -> bool {
        let due =
            matches!(self.scenario.fault, Fault::Sender(wanted, at) if wanted == fault && at <= self.chunks_sealed);
        let now = due && !self.triggered;
        self.triggered |= now;
        now
    }

    /// Does one thing that can be done now, if there is one. The receipt is the end.
    pub fn step(&mut self, world: &mut World) -> Step {
        if let Some(message) = world.down.hear(&world.wire)? {
            return match self.handle(message, world)? {
                Some(receipt) => Ok(Moved::Ended(Box::new(receipt))),
                None => Ok(Moved::Yes),
            };
        }
        let State::Running(session) = &self.state else { return Ok(Moved::No) };
        let session = Rc::clone(session);
        if self.start_part(&session, world) || self.read_source() {
            return Ok(Moved::Yes);
        }
        let first = world.wire.chance.below(self.lanes.len());
        for offset in 0..self.lanes.len() {
            let lane = (first + offset) % self.lanes.len();
            if self.step_lane(lane, &session, world)? {
                return Ok(Moved::Yes);
            }
        }
        Ok(if self.finish(world) { Moved::Yes } else { Moved::No })
    }

    fn handle(&mut self, message: Message, world: &mut World) -> Result<Option<SignedReceipt>, Code> {
        let state = std::mem::replace(&mut self.state, State::Moving);
        match (state, message) {
            (_, Message::Refuse(refuse)) => return Err(refuse.code),
            (State::Offering(offering), Message::Accept(accept)) => {
                let (beginning, begin) = offering
                    .handle_accept(&self.transfer, accept, &self.signer, &mut self.random)
                    .map_err(|error| error.code)?;
                world.up.say(&begin);
                self.state = State::Beginning(beginning);
            }
            (State::Beginning(beginning), Message::Ready(ready)) => {
                let mut session = beginning.handle_ready(ready).map_err(|error| error.code)?;
                // Real windows hold megabytes; here they are to be felt.
                session.lane_window_bytes = self.scenario.window_bytes;
                self.state = State::Running(Rc::new(session));
            }
            (State::Running(session), Message::Ack(ack)) => {
                self.handle_ack(&ack)?;
                self.state = State::Running(session);
            }
            (State::Running(session), Message::Receipt(receipt)) => {
                self.transfer.handle_receipt(&receipt, &session).map_err(|error| error.code)?;
                return Ok(Some(*receipt));
            }
            _ => return Err(Code::ProtocolViolation),
        }
        Ok(None)
    }

    fn handle_ack(&mut self, ack: &Ack) -> Result<(), Code> {
        self.transfer.handle_ack(ack).map_err(|error| error.code)?;
        let last = &mut self.last_ack[ack.part.0 as usize];
        assert!(last.0 <= ack.verified.0 && last.1 <= ack.durable.0 && ack.durable <= ack.verified, "acks only grow");
        if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.part == ack.part.0 as usize) {
            lane.in_flight.drain(..(ack.verified.0 - last.0) as usize);
        }
        *last = (ack.verified.0, ack.durable.0);
        Ok(())
    }

    fn start_part(&mut self, session: &Session, world: &mut World) -> bool {
        let part = PartIndex(self.next_part);
        if part.0 as usize == self.scenario.parts.len() {
            return false;
        }
        let hasty = self.faulty(SenderFault::AllPartsAtOnce);
        if !hasty && !self.transfer.may_start(part, session) {
            return false;
        }
        self.triggered |= hasty && !self.transfer.may_start(part, session);
        self.next_part += 1;
        self.transfer.handle_start(part);
        let mut named = part;
        if part.0 > 0 && self.due(SenderFault::OtherPart) {
            named.0 -= 1;
        }
        let mut pipe = Pipe::new(self.scenario.stream_bytes.max(StreamHeader::BYTES));
        pipe.write(&mut world.wire, &StreamHeader { part: named, first: ChunkIndex(0) }.to_bytes());
        world.streams.push(pipe);
        self.jobs.push_back((part.0 as usize, 0));
        self.lanes.push(Lane {
            part: part.0 as usize,
            stream: world.streams.len() - 1,
            waiting: None,
            sealed: None,
            out: Vec::new(),
            held: Vec::new(),
            in_flight: VecDeque::new(),
            last_written: false,
            done: false,
        });
        true
    }

    /// The source's one thread: blocks on the first part that was asked for.
    fn read_source(&mut self) -> bool {
        let Some((part, next)) = self.jobs.front_mut() else { return false };
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.part == *part) else { return false };
        if lane.waiting.is_some() {
            return false;
        }
        let chunks = &self.scenario.parts[*part];
        let last = *next + 1 == chunks.len();
        let (index, plain) = (ChunkIndex(*next as u64), Bytes::copy_from_slice(&chunks[*next]));
        lane.waiting = Some(Chunk::new(PartIndex(*part as u32), index, last, plain));
        *next += 1;
        if last {
            self.jobs.pop_front();
        }
        true
    }

    fn step_lane(&mut self, at: usize, session: &Session, world: &mut World) -> Result<bool, Code> {
        let lane = &mut self.lanes[at];
        if lane.done {
            return Ok(false);
        }
        if !lane.out.is_empty() {
            let written = world.streams[lane.stream].write(&mut world.wire, &lane.out);
            lane.out.drain(..written);
            return Ok(written > 0);
        }
        if lane.last_written {
            lane.done = true;
            let part = lane.part;
            world.streams[lane.stream].finish(&mut world.wire);
            let (mut rows, digest) = self.digest_rows(part, session.keys.digests());
            if self.scenario.plan.parts[part].kind == PartKind::Rows && self.due(SenderFault::RowsMiscounted) {
                rows += 1;
            }
            self.transfer.handle_part_end(PartIndex(part as u32), rows, Some(digest));
            return Ok(true);
        }
        if lane.sealed.is_none() {
            let Some(chunk) = lane.waiting.take() else { return Ok(false) };
            let sealed = self.seal(&chunk, session)?;
            self.lanes[at].sealed = Some(sealed);
            return Ok(true);
        }
        self.send_sealed(at, session)
    }

    fn seal(&mut self, chunk: &Chunk, session: &Session) -> Result<Sealed, Code> {
        let packed = self.packer.pack(chunk.clone(), session.keys.digests());
        let nonce = self.nonces.draw().map_err(|error| error.code)?;
        if self.due(SenderFault::ForeignKeys) {
            let secret = EpochSecret::generate(&mut self.random);
            let digests = session.keys.digests().clone();
            let foreign = EpochKeys::new(session.keys.suite(), TransferId([7; 16]), Epoch(1), secret, digests);
            return seal(packed, &foreign, nonce).map_err(|error| error.code);
        }
        seal(packed, &session.keys, nonce).map_err(|error| error.code)
    }

    fn send_sealed(&mut self, at: usize, session: &Session) -> Result<bool, Code> {
        let lane = &self.lanes[at];
        let Some(sealed) = &lane.sealed else { return Ok(false) };
        let weight = (sealed.frame.len() as u64).max(sealed.header.plain_bytes.into());
        if !self.transfer.may_send(sealed, session) {
            return Ok(false);
        }
        let sealed = self.lanes[at].sealed.take().expect("looked at above");
        self.transfer.handle_sealed(&sealed);
        self.chunks_sealed += 1;
        let frame = sealed.frame.to_vec();
        let last = sealed.header.last;
        let mut out = std::mem::take(&mut self.lanes[at].held);
        let swap_held = !out.is_empty();
        if swap_held {
            out = [&frame[..], &out].concat();
        } else if !last && self.due(SenderFault::Skip) {
            out.clear();
        } else if !last && self.due(SenderFault::Swap) {
            self.lanes[at].held = frame.clone();
        } else if self.due(SenderFault::Repeat) || (last && self.due(SenderFault::AfterLast)) {
            out = [&frame[..], &frame].concat();
        } else {
            out = frame;
        }
        let ends_early = !last && self.due(SenderFault::EndPart);
        let lane = &mut self.lanes[at];
        lane.out = out;
        lane.last_written = last || ends_early;
        lane.in_flight.push_back(weight);
        let in_flight_bytes: u64 = lane.in_flight.iter().sum();
        assert!(lane.in_flight.len() == 1 || in_flight_bytes <= self.scenario.window_bytes, "the window is kept");
        Ok(true)
    }

    fn digest_rows(&self, part: usize, digests: &Digests) -> (u64, Root) {
        let mut digest = digests.multiset();
        if self.scenario.plan.parts[part].kind == PartKind::Rows {
            let plain = Bytes::from(self.scenario.parts[part].concat());
            let fed = RowReader::new(1 << 20).feed(plain, |row| -> sealift_protocol::error::Result<()> {
                digest.add(row);
                Ok(())
            });
            fed.expect("the scenario is made of rows");
        }
        (digest.rows(), digest.root())
    }

    fn finish(&mut self, world: &mut World) -> bool {
        if self.finished {
            return false;
        }
        let Some(Message::Finish(mut signed)) = self.transfer.poll_finish(&self.signer) else { return false };
        if self.faulty(SenderFault::Manifest) {
            self.triggered = true;
            let mut bytes = codec::encode(&signed.manifest);
            // Some bit of a hash near its end: the transfer's root.
            let at = bytes.len() - 1 - self.chunks_sealed as usize % 32;
            bytes[at] ^= 1;
            let changed: Manifest = codec::decode(&bytes, bytes.len(), "manifest").expect("only a hash was changed");
            signed = changed.sign(&self.signer);
        }
        world.up.say(&Message::Finish(signed));
        self.finished = true;
        true
    }
}

/// What a sender needs before it can offer.
pub fn transfer_of(scenario: &Scenario, grant: sealift_protocol::grant::SignedGrant, random: &mut Seeded) -> Transfer {
    let secret = DigestSecret::generate(random);
    Transfer::new(scenario.offered.clone(), grant, scenario.plan.clone(), secret).expect("the scenario's plan is good")
}
