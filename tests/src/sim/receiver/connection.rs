//! Receiving over one connection: streams in any order, a chunk or two opened ahead, a target that
//! takes its time. What is done with a chunk, and in which order, [`Intake`] says.

use bytes::{Bytes, BytesMut};
use sealift_protocol::{
    chunk::VerifiedChunk,
    compress::Unpacker,
    id::{ChunkCount, PartIndex},
    message::{Ack, Message},
    receive::{Arrived, Intake, IntakeStep, PartStream, ReceiverSession},
    seal::open,
    sealed_log::Record,
};

use super::{
    super::{
        fault::{Hostile, Moment, ReceiverFault},
        link::Link,
        scenario::Scenario,
        world::{Outcome, Side, World},
    },
    disk::Disk,
    load::Load,
};

/// Chunks that may be opened before the sink takes them.
const OPENED_AHEAD: usize = 2;

/// A disk may take longer for a sync than an acknowledgement for its way.
const SYNC_MS_MAX: usize = 300;

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
    /// Once the part's writer has begun.
    intake: Option<Intake<VerifiedChunk>>,
    /// A chunk that the writer has no room for yet.
    next: Option<VerifiedChunk>,
    /// Records in the journal that are not synced, and when the disk will have them.
    unsynced: usize,
    synced_at_ms: Option<u64>,
    stream_ended: bool,
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
        let World { wire, link, .. } = world;
        let pipe = &mut link.as_mut().expect("a connection that was not left").streams[at];
        // A lane that waits reads nothing: that is what holds its sender back.
        if lane.part.is_none() || lane.has_room() {
            let arrived = pipe.read_all(wire);
            if !arrived.is_empty() {
                lane.incoming.extend(arrived);
                return Ok(true);
            }
        }
        let ended = pipe.ended(wire);
        if let (Some(part), None) = (lane.part, &lane.intake) {
            let begun = load.begin(part.0)?;
            lane.intake = begun.then(|| Intake::new(&load.transfer));
            return Ok(begun);
        }
        if lane.pass_on(load, disk, world)? {
            return Ok(true);
        }
        lane.read(ended, load, &mut self.session, &mut self.unpacker)
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

    /// When a disk will have synced what a lane waits for.
    pub fn next_event_ms(&self, now_ms: u64) -> Option<u64> {
        self.lanes.iter().filter_map(|lane| lane.synced_at_ms).filter(|at_ms| *at_ms > now_ms).min()
    }

    /// All acknowledgements are out: what was not done by now is done at the end.
    pub fn last_ack_said(&mut self) {
        self.acks = u64::MAX;
    }
}

impl Lane {
    fn has_room(&self) -> bool {
        self.intake.as_ref().is_some_and(|intake| intake.len() < OPENED_AHEAD)
    }

    /// Does what is next with a chunk that was opened.
    fn pass_on(&mut self, load: &mut Load, disk: &mut Disk, world: &mut World<'_>) -> Outcome<bool> {
        let Some(intake) = &mut self.intake else { return Ok(false) };
        if let Some(chunk) = self.next.take_if(|chunk| load.has_room(chunk.part().0)) {
            load.write(chunk);
            return Ok(true);
        }
        if self.synced_at_ms.take_if(|at_ms| *at_ms <= world.now_ms()).is_some() {
            disk.journal.sync();
            (0..self.unsynced).for_each(|_| intake.handle_journaled());
            self.unsynced = 0;
            world.reach(Side::Receiver, Moment::Journalled)?;
            return Ok(true);
        }
        if self.next.is_some() {
            return Ok(false);
        }
        match intake.poll() {
            Some(IntakeStep::Append(record)) => {
                disk.journal.append(record);
                self.unsynced += 1;
                let syncing_ms = world.wire.chance.below(SYNC_MS_MAX) as u64;
                self.synced_at_ms.get_or_insert(world.now_ms() + syncing_ms);
                world.reach(Side::Receiver, Moment::JournalWritten)?;
            }
            Some(IntakeStep::Write(chunk)) => self.next = Some(chunk),
            None => return Ok(false),
        }
        Ok(true)
    }

    /// Takes what has arrived as far as the next step of the stream, and opens a chunk that is
    /// whole.
    fn read(
        &mut self,
        pipe_ended: bool,
        load: &Load,
        session: &mut ReceiverSession,
        unpacker: &mut Unpacker,
    ) -> Outcome<bool> {
        if self.stream_ended || self.part.is_some() && !self.has_room() {
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
                let sealed = load.transfer.has_journal().then(|| Bytes::copy_from_slice(&body));
                let chunk = open(&header, body, session.keys_of(header.epoch), unpacker)?;
                let intake = self.intake.as_mut().expect("a part is begun before its chunks are read");
                intake.handle_verified(chunk, sealed.map(|sealed| Record::Chunk { header, sealed }));
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
