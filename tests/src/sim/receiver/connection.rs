//! Receiving over one connection, as `receiver/src/pipeline.rs` does: streams in any order, a chunk
//! or two opened ahead, a sink that takes its time, acknowledgements of what it has taken.

use std::collections::VecDeque;

use bytes::BytesMut;
use sealift_protocol::{
    chunk::VerifiedChunk,
    compress::Unpacker,
    frame::ChunkHeader,
    id::{ChunkCount, PartIndex},
    message::{Ack, Message},
    receive::{Arrived, PartStream, ReceiverSession},
    seal::open,
};

use super::{
    super::{
        fault::{Hostile, Moment, ReceiverFault},
        link::Link,
        scenario::{Scenario, TargetKind},
        world::{Outcome, Side, World},
    },
    load::Load,
    target::{Disk, Journalled},
};

/// Chunks that may be opened before the sink takes them.
const OPENED_AHEAD: usize = 2;

pub struct Connection {
    pub session: ReceiverSession,
    lanes: Vec<Lane>,
    unpacker: Unpacker,
    acks: u64,
}

#[derive(Default)]
struct Lane {
    incoming: BytesMut,
    arriving: PartStream,
    part: Option<PartIndex>,
    begun: bool,
    opened: VecDeque<Opened>,
    journalled: Journal,
    stream_ended: bool,
}

struct Opened {
    chunk: VerifiedChunk,
    /// For the journal: what it was opened from.
    sealed: Option<(ChunkHeader, Vec<u8>)>,
}

/// How many of the opened chunks are in the journal.
#[derive(Default)]
struct Journal {
    written: usize,
    synced: usize,
}

impl Connection {
    pub fn new(session: ReceiverSession) -> Self {
        let unpacker = Unpacker::new().expect("a zstd context");
        Self { session, lanes: Vec::new(), unpacker, acks: 0 }
    }

    pub fn step(&mut self, load: &mut Load, disk: &mut Disk, world: &mut World<'_>) -> Outcome<bool> {
        let streams = world.link().streams.len();
        self.lanes.resize_with(streams, Lane::default);
        let first = world.wire.chance.below(streams + 1);
        for offset in 0..=streams {
            let at = (first + offset) % (streams + 1);
            let moved = match at == streams {
                true => self.acknowledge(load, world),
                false => self.step_lane(at, load, disk, world)?,
            };
            if moved {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn step_lane(&mut self, at: usize, load: &mut Load, disk: &mut Disk, world: &mut World<'_>) -> Outcome<bool> {
        let lane = &mut self.lanes[at];
        let World { wire, link, scenario, .. } = world;
        let pipe = &mut link.as_mut().expect("a connection that was not left").streams[at];
        // A lane that waits reads nothing: that is what holds its sender back.
        if lane.opened.len() < OPENED_AHEAD && (lane.part.is_none() || lane.begun) {
            let arrived = pipe.read_all(wire);
            if !arrived.is_empty() {
                lane.incoming.extend(arrived);
                return Ok(true);
            }
        }
        let ended = pipe.ended(wire);
        let Some(part) = lane.part else {
            return lane.read(ended, false, load, &mut self.session, &mut self.unpacker);
        };
        if !lane.begun {
            lane.begun = load.begin(part.0);
            return Ok(lane.begun);
        }
        let journalled = scenario.target == TargetKind::Journalled;
        if lane.hand_on(part, journalled, load, disk, world)? {
            return Ok(true);
        }
        lane.read(ended, journalled, load, &mut self.session, &mut self.unpacker)
    }

    fn acknowledge(&mut self, load: &mut Load, world: &mut World<'_>) -> bool {
        let Some(Message::Ack(ack)) = self.session.poll_ack(&mut load.transfer) else { return false };
        if self.due(world, ReceiverFault::Forget) {
            return true;
        }
        let mut ack = ack;
        if self.due(world, ReceiverFault::AckAhead) {
            ack.verified.0 += 1000;
        }
        say(world.link(), &Message::Ack(ack));
        if self.due(world, ReceiverFault::Twice) {
            say(world.link(), &Message::Ack(ack));
        }
        if self.due(world, ReceiverFault::AckBackwards) {
            let verified = ChunkCount(ack.verified.0 - 1);
            say(world.link(), &Message::Ack(Ack { verified, durable: ChunkCount(0), ..ack }));
        }
        self.acks += 1;
        true
    }

    /// Whether it is time for `fault`.
    pub fn due(&mut self, world: &mut World<'_>, fault: ReceiverFault) -> bool {
        let due = world.scenario.hostile_receiver().is_some_and(|(wanted, at)| wanted == fault && at <= self.acks);
        world.harmed |= due;
        due
    }

    /// All acknowledgements are out: what was not done by now is done at the end.
    pub fn last_ack_said(&mut self) {
        self.acks = u64::MAX;
    }
}

impl Lane {
    /// Journals what was opened, if there is a journal, and hands it to the writer.
    fn hand_on(
        &mut self,
        part: PartIndex,
        journalled: bool,
        load: &mut Load,
        disk: &mut Disk,
        world: &mut World<'_>,
    ) -> Outcome<bool> {
        if journalled && self.journalled.written < self.opened.len() {
            for opened in self.opened.iter_mut().skip(self.journalled.written) {
                let (header, body) = opened.sealed.take().expect("kept for the journal");
                disk.journal.append(Journalled::Chunk { header, body });
            }
            self.journalled.written = self.opened.len();
            world.reach(Side::Receiver, Moment::JournalWritten)?;
            return Ok(true);
        }
        if journalled && self.journalled.synced < self.journalled.written {
            disk.journal.sync();
            self.journalled.synced = self.journalled.written;
            world.reach(Side::Receiver, Moment::Journalled)?;
            return Ok(true);
        }
        if !load.has_room(part.0) {
            return Ok(false);
        }
        let Some(opened) = self.opened.pop_front() else { return Ok(false) };
        self.journalled.written = self.journalled.written.saturating_sub(1);
        self.journalled.synced = self.journalled.synced.saturating_sub(1);
        load.take(opened.chunk, journalled);
        Ok(true)
    }

    /// Takes what has arrived as far as the next step of the stream, and opens a chunk that is
    /// whole.
    fn read(
        &mut self,
        pipe_ended: bool,
        journalled: bool,
        load: &Load,
        session: &mut ReceiverSession,
        unpacker: &mut Unpacker,
    ) -> Outcome<bool> {
        if self.stream_ended || self.opened.len() >= OPENED_AHEAD {
            return Ok(false);
        }
        let wanted = self.arriving.awaited_bytes();
        if self.incoming.len() < wanted {
            if pipe_ended {
                self.arriving.handle_end(self.incoming.len(), session)?;
                self.stream_ended = true;
            }
            return Ok(pipe_ended);
        }
        match self.arriving.handle(self.incoming.split_to(wanted), session, &load.transfer)? {
            Arrived::Part(part) => self.part = Some(part),
            Arrived::Header => {}
            Arrived::Frame(header, body) => {
                let sealed = journalled.then(|| (header, body.to_vec()));
                let chunk = open(&header, body, session.keys(), unpacker)?;
                self.opened.push_back(Opened { chunk, sealed });
            }
        }
        Ok(true)
    }
}

pub fn say(link: &mut Link, message: &Message) {
    link.said[Side::Receiver as usize].say(message);
}

impl Scenario {
    fn hostile_receiver(&self) -> Option<(ReceiverFault, u64)> {
        match self.hostile {
            Some(Hostile::Receiver(fault, at)) => Some((fault, at)),
            _ => None,
        }
    }
}
