//! The receiver's driver: what `sealift-receiver` does with threads and QUIC, in single steps. Streams in any order, a
//! chunk or two opened ahead, a sink that takes its time, acknowledgements of what it has taken.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use sealift_protocol::{
    chunk::VerifiedChunk,
    close::Code,
    compress::Unpacker,
    envelope::SealingKey,
    frame::{ChunkHeader, StreamHeader},
    id::{ChunkCount, Epoch, PartIndex},
    limits::{CHUNK_HEADER_BYTES, LANE_WINDOW_BYTES_MIN},
    manifest::{PartKind, Proof, SignedReceipt},
    message::{Ack, Message},
    receive::{Accepting, Listening, ReceiptFacts, Receiving, Window},
    row::put_length,
    seal::open,
    transcript::Channel,
};

use super::{
    Moved, Step, World,
    scenario::{Fault, ReceiverFault, Scenario},
    target::Target,
};
use crate::wire::{NOW_SECONDS, Seeded, TestSigner};

/// Chunks that may be opened before the sink takes them.
const OPENED_AHEAD: usize = 2;

pub struct Receiver<'a> {
    scenario: &'a Scenario,
    signer: TestSigner,
    channel: Channel,
    sealing_key: SealingKey,
    state: State,
    random: Seeded,
    unpacker: Unpacker,
    lanes: Vec<Lane>,
    pub target: Target,
    commits: usize,
    acks: u64,
    pub triggered: bool,
}

enum State {
    Listening(Listening),
    Accepting(Box<Accepting>),
    Receiving(Box<Receiving>),
    Moving,
}

#[derive(Default)]
struct Lane {
    incoming: BytesMut,
    part: Option<usize>,
    begun: bool,
    header: Option<ChunkHeader>,
    opened: VecDeque<VerifiedChunk>,
    stream_ended: bool,
    /// The sink has the chunk, or the whole part, at this time.
    busy_until_ms: Option<u64>,
    done: bool,
}

impl<'a> Receiver<'a> {
    pub fn new(
        scenario: &'a Scenario,
        signer: TestSigner,
        channel: Channel,
        listening: Listening,
        mut random: Seeded,
    ) -> Self {
        Self {
            scenario,
            signer,
            channel,
            sealing_key: SealingKey::generate(&mut random),
            state: State::Listening(listening),
            random,
            unpacker: Unpacker::new().expect("a zstd context"),
            lanes: Vec::new(),
            target: Target::new(scenario.plan.clone(), scenario.one_writer),
            commits: 0,
            acks: 0,
            triggered: false,
        }
    }

    pub fn step(&mut self, world: &mut World) -> Step {
        if let Some(message) = world.up.hear(&world.wire)? {
            self.handle(message, world)?;
            return Ok(Moved::Yes);
        }
        let mut receiving = match std::mem::replace(&mut self.state, State::Moving) {
            State::Receiving(receiving) => receiving,
            // Before data flows, only messages move this side.
            waiting => {
                self.state = waiting;
                return Ok(Moved::No);
            }
        };
        let moved = self.receive(&mut receiving, world);
        self.state = State::Receiving(receiving);
        moved
    }

    fn handle(&mut self, message: Message, world: &mut World) -> Result<(), Code> {
        let code = |error: sealift_protocol::error::Error| error.code;
        match (std::mem::replace(&mut self.state, State::Moving), message) {
            (_, Message::Refuse(refuse)) => return Err(refuse.code),
            (State::Listening(listening), Message::Offer(offer)) => {
                let judging = listening.handle_offer(offer, &self.channel, NOW_SECONDS).map_err(code)?;
                let window = Window { lanes: self.scenario.lanes, lane_bytes: LANE_WINDOW_BYTES_MIN };
                let key = self.sealing_key.public_key();
                let accepted = judging.accept(Epoch(1), window, key, &self.signer, &mut self.random);
                let (accepting, accept) = accepted.map_err(code)?;
                world.down.say(&accept);
                self.state = State::Accepting(Box::new(accepting));
            }
            (State::Accepting(accepting), Message::Begin(begin)) => {
                let (receiving, ready) = accepting.handle_begin(begin, &self.sealing_key).map_err(code)?;
                world.down.say(&ready);
                self.state = State::Receiving(Box::new(receiving));
            }
            (State::Receiving(mut receiving), Message::Finish(manifest)) => {
                receiving.handle_finish(manifest).map_err(code)?;
                self.state = State::Receiving(receiving);
            }
            _ => return Err(Code::ProtocolViolation),
        }
        Ok(())
    }

    fn receive(&mut self, receiving: &mut Receiving, world: &mut World) -> Step {
        self.lanes.resize_with(world.streams.len(), Lane::default);
        let first = world.wire.chance.below(self.lanes.len() + 1);
        for offset in 0..=self.lanes.len() {
            let at = (first + offset) % (self.lanes.len() + 1);
            let moved = match at == self.lanes.len() {
                true => self.acknowledge(receiving, world),
                false => self.step_lane(at, receiving, world).map_err(|error| error.code)?,
            };
            if moved {
                return Ok(Moved::Yes);
            }
        }
        self.complete(receiving, world)
    }

    fn step_lane(
        &mut self,
        at: usize,
        receiving: &mut Receiving,
        world: &mut World,
    ) -> sealift_protocol::error::Result<bool> {
        let lane = &mut self.lanes[at];
        if lane.done {
            return Ok(false);
        }
        let pipe = &mut world.streams[at];
        // A lane that waits reads nothing: that is what holds its sender back.
        if lane.opened.len() < OPENED_AHEAD && (lane.part.is_none() || lane.begun) {
            let arrived = pipe.read_all(&world.wire);
            if !arrived.is_empty() {
                lane.incoming.extend(arrived);
                return Ok(true);
            }
        }
        let Some(part) = lane.part else {
            if lane.incoming.len() < StreamHeader::BYTES {
                return Ok(false);
            }
            let bytes = lane.incoming.split_to(StreamHeader::BYTES);
            let header = StreamHeader::from_bytes(bytes[..].try_into().expect("split to its length"))?;
            receiving.handle_stream(header)?;
            lane.part = Some(header.part.0 as usize);
            return Ok(true);
        };
        let index = PartIndex(part as u32);
        if !lane.begun {
            lane.begun = receiving.may_begin(index) && self.target.begin(part);
            if lane.begun {
                receiving.handle_begun(index);
            }
            return Ok(lane.begun);
        }
        if self.step_sink(at, index, receiving, world) {
            return Ok(true);
        }
        let ended = world.streams[at].ended(&world.wire);
        self.read_frame(at, index, ended, receiving)
    }

    /// The sink takes its time for each chunk and for the end of the part.
    fn step_sink(&mut self, at: usize, part: PartIndex, receiving: &mut Receiving, world: &mut World) -> bool {
        let lane = &mut self.lanes[at];
        let now_ms = world.wire.now_ms;
        let whole = lane.stream_ended && lane.opened.is_empty();
        match lane.busy_until_ms {
            None if whole || !lane.opened.is_empty() => {
                lane.busy_until_ms = Some(now_ms + world.wire.chance.below(30) as u64);
            }
            Some(until_ms) if until_ms <= now_ms => {
                lane.busy_until_ms = None;
                match lane.opened.pop_front() {
                    Some(chunk) => {
                        self.target.staged[part.0 as usize].extend_from_slice(chunk.plain());
                        receiving.handle_taken(&chunk.into_taken());
                    }
                    None => {
                        lane.done = true;
                        self.target.finish(part.0 as usize);
                        receiving.handle_durable(part);
                        self.commits += 1;
                        world.cut |= self.scenario.fault == Fault::CutAfterCommit(self.commits);
                    }
                }
            }
            _ => return false,
        }
        true
    }

    fn read_frame(
        &mut self,
        at: usize,
        part: PartIndex,
        pipe_ended: bool,
        receiving: &mut Receiving,
    ) -> sealift_protocol::error::Result<bool> {
        let lane = &mut self.lanes[at];
        if lane.stream_ended || lane.opened.len() >= OPENED_AHEAD {
            return Ok(false);
        }
        let Some(header) = lane.header else {
            if lane.incoming.len() >= CHUNK_HEADER_BYTES {
                let bytes = lane.incoming.split_to(CHUNK_HEADER_BYTES);
                let header = ChunkHeader::from_bytes(bytes[..].try_into().expect("split to its length"))?;
                receiving.handle_header(part, &header)?;
                lane.header = Some(header);
                return Ok(true);
            }
            if pipe_ended && lane.incoming.is_empty() {
                lane.stream_ended = true;
                receiving.handle_stream_end(part)?;
                return Ok(true);
            }
            return truncated(pipe_ended);
        };
        if lane.incoming.len() < header.sealed_bytes() {
            return truncated(pipe_ended);
        }
        let body = lane.incoming.split_to(header.sealed_bytes());
        let keys = receiving.keys().clone();
        lane.opened.push_back(open(&header, body, &keys, &mut self.unpacker)?);
        lane.header = None;
        Ok(true)
    }

    fn due(&mut self, fault: ReceiverFault) -> bool {
        let due = matches!(self.scenario.fault, Fault::Receiver(wanted, at) if wanted == fault && at <= self.acks);
        self.triggered |= due;
        due
    }

    fn acknowledge(&mut self, receiving: &mut Receiving, world: &mut World) -> bool {
        let Some(Message::Ack(ack)) = receiving.poll_ack() else { return false };
        if self.due(ReceiverFault::Forget) {
            return true;
        }
        let mut ack = ack;
        if self.due(ReceiverFault::AckAhead) {
            ack.verified.0 += 1000;
        }
        world.down.say(&Message::Ack(ack));
        if self.due(ReceiverFault::Twice) {
            world.down.say(&Message::Ack(ack));
        }
        if self.due(ReceiverFault::AckBackwards) {
            let back = Ack { verified: ChunkCount(ack.verified.0 - 1), durable: ChunkCount(0), ..ack };
            world.down.say(&Message::Ack(back));
        }
        self.acks += 1;
        true
    }

    fn complete(&mut self, receiving: &mut Receiving, world: &mut World) -> Step {
        match receiving.poll_complete() {
            None => return Ok(Moved::No),
            Some(judged) => judged.map_err(|error| error.code)?,
        }
        if self.scenario.fault == Fault::CutBeforeReceipt {
            world.cut = true;
            return Ok(Moved::Yes);
        }
        self.acks = u64::MAX;
        let table = self.scenario.plan.parts.iter().position(|part| part.kind == PartKind::Rows);
        if let (Some(table), true) =
            (table, matches!(self.scenario.fault, Fault::Receiver(ReceiverFault::ChangedRows, _)))
        {
            self.triggered = true;
            let mut row = BytesMut::new();
            put_length(&mut row, 3);
            row.extend_from_slice(&Bytes::from_static(b"new"));
            self.target.staged[table].extend_from_slice(&row);
        }
        let receipt = self.sign(receiving)?;
        self.target.published = true;
        world.down.say(&Message::Receipt(Box::new(receipt.clone())));
        Ok(Moved::Ended(Box::new(receipt)))
    }

    fn sign(&mut self, receiving: &Receiving) -> Result<SignedReceipt, Code> {
        let facts = ReceiptFacts {
            proof: match self.scenario.plan.parts[0].kind {
                PartKind::Opaque => Proof::LoaderExit,
                _ => Proof::ReadAgain,
            },
            loaded: self.target.prove(receiving.keys().digests()),
            tls: "simulated".into(),
            started_ms: 0,
            finished_ms: 1,
            software: "simulator".into(),
        };
        let receipt = receiving.receipt(facts, &self.signer).map_err(|error| error.code)?;
        if self.due(ReceiverFault::OtherReceipt) {
            let mut other = receipt.receipt;
            other.plan.parts[0].name.push('x');
            return Ok(other.sign(&self.signer));
        }
        Ok(receipt)
    }

    /// When the sink will have done something.
    pub fn next_event_ms(&self, now_ms: u64) -> Option<u64> {
        self.lanes.iter().filter_map(|lane| lane.busy_until_ms).filter(|at| *at > now_ms).min()
    }
}

fn truncated(pipe_ended: bool) -> sealift_protocol::error::Result<bool> {
    match pipe_ended {
        true => Err(sealift_protocol::error::Error::new(Code::PartTruncated, "stream ends inside a chunk")),
        false => Ok(false),
    }
}
