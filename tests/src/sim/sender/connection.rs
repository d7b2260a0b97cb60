//! Sending over one connection: moves bytes as [`sealift_protocol::send`] says.

use std::cell::RefCell;

use sealift_protocol::{
    chunk::Sealed,
    close::Code,
    digest::RowsDigest,
    frame::{ChunkHeader, StreamHeader},
    id::{ChunkCount, PartIndex},
    key::KeyCommitment,
    message::Ack,
    seal::seal,
    send::{LaneStep, Read, SenderSession, SenderTransfer, Sent, SpoolLane, SpoolStep, SpooledStep, WasRead},
};
use std::{collections::VecDeque, sync::Arc};

use super::{
    super::{
        Moved,
        fault::{Moment, SenderFault},
        link::Pipe,
        world::{Outcome, Side, World},
    },
    Disk, Sender, keep_changed, record,
    spool::Spool,
};

/// Chunks sealed ahead of a lane.
const SEALED_AHEAD: usize = 2;

pub struct Connection {
    pub session: SenderSession,
    commitment: KeyCommitment,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    outs: Vec<Out>,
    finish_said: bool,
}

/// A part on its way out.
struct Out {
    part: u32,
    header: StreamHeader,
    /// Chunks that the receiver has.
    first: ChunkCount,
    /// Of a spool.
    spooled: SpoolLane,
    stream: Option<usize>,
    bytes: Vec<u8>,
    /// The frame that a saboteur sends later.
    held_back: Vec<u8>,
    resent_bytes: u64,
    resent_largest: u64,
    in_flight: VecDeque<u64>,
    ends_early: bool,
    done: bool,
}

impl Connection {
    pub fn new(session: SenderSession, commitment: KeyCommitment) -> Self {
        Self { session, commitment, state: RefCell::default() }
    }

    pub fn handle_ack(&self, ack: &Ack) {
        let mut state = self.state.borrow_mut();
        if let Some(out) = state.outs.iter_mut().find(|out| out.part == ack.part.0) {
            let acknowledged = ack.verified.0.saturating_sub(out.first.0);
            out.first = out.first.max(ack.verified);
            out.in_flight.drain(..(acknowledged as usize).min(out.in_flight.len()));
        }
    }

    pub fn step(&self, sender: &mut Sender<'_>, disk: &mut Disk, world: &mut World<'_>) -> Outcome<Moved> {
        let mut state = self.state.borrow_mut();
        if self.start_part(&mut state, sender)? {
            return Ok(Moved::Yes);
        }
        if let Some(source) = &mut sender.source
            && source.step(world)?
        {
            return Ok(Moved::Yes);
        }
        let first = world.wire.chance.below(state.outs.len());
        for offset in 0..state.outs.len() {
            let at = (first + offset) % state.outs.len();
            if self.step_out(&mut state.outs[at], sender, disk, world)? {
                return Ok(Moved::Yes);
            }
        }
        self.finish(&mut state, sender, disk, world)
    }

    fn start_part(&self, state: &mut State, sender: &mut Sender<'_>) -> Outcome<bool> {
        let started = sender.transfer.poll_start(&self.session);
        let hurried = started.is_none().then(|| sender.transfer.next_part()).flatten();
        let hurried = hurried.filter(|_| sender.sabotage.hurries());
        let Some(part) = started.or(hurried) else { return Ok(false) };
        sender.transfer.handle_start(part);
        if let Some(source) = &mut sender.source {
            source.ask(part, &sender.transfer)?;
        }
        state.outs.push(Out::new(part, &sender.transfer));
        Ok(true)
    }

    fn step_out(&self, out: &mut Out, sender: &mut Sender<'_>, disk: &Disk, world: &mut World<'_>) -> Outcome<bool> {
        if out.done {
            return Ok(false);
        }
        if !out.bytes.is_empty() {
            return Ok(out.write(sender, world));
        }
        if out.ends_early {
            out.done = true;
            sender.transfer.handle_part_end(PartIndex(out.part), RowsDigest::default());
            out.finish_stream(world);
            return Ok(true);
        }
        if let Some(spool) = &sender.spool {
            return self.send_spooled(spool, out, &mut sender.transfer, disk, world);
        }
        let Some(source) = &mut sender.source else { return Err(Code::Internal.into()) };
        let Some(lane) = source.lanes.get_mut(&out.part) else { return Err(Code::Internal.into()) };
        let draw = || sender.nonces.draw();
        match sender.transfer.poll_lane(&mut lane.rules, &self.session, draw)? {
            LaneStep::Resend(sealed) => return self.resend(sealed, out, world).map(|()| true),
            LaneStep::Send(sealed) => return self.send(sealed, out, sender, world).map(|()| true),
            LaneStep::Proven { .. } => return world.reach(Side::Sender, Moment::Proving).map(|()| true),
            LaneStep::AwaitWindow => return self.read_ahead(out.part, sender, world),
            LaneStep::End => {
                out.done = true;
                out.finish_stream(world);
                return Ok(true);
            }
            LaneStep::Read => {}
        }
        if let Some(read) = lane.ready.pop_front() {
            lane.rules.handle_read(read);
            return Ok(true);
        }
        let Some(mut rows) = lane.drained() else { return self.read_ahead(out.part, sender, world) };
        rows.rows += sender.sabotage.rows_miscounted(world.scenario.plan.parts[out.part as usize].section);
        sender.transfer.handle_source_end(&mut lane.rules, rows);
        Ok(true)
    }

    /// The next chunk of a spool, as it lies there, from the first that the receiver does not have.
    fn send_spooled(
        &self,
        spool: &Spool,
        out: &mut Out,
        transfer: &mut SenderTransfer,
        disk: &Disk,
        world: &mut World<'_>,
    ) -> Outcome<bool> {
        let index = match out.spooled.poll(spool.frames, spool.whole.is_some()) {
            SpoolStep::Read(index) => index,
            SpoolStep::AwaitSpooled => return Ok(false),
            SpoolStep::End => {
                out.done = true;
                out.finish_stream(world);
                return Ok(true);
            }
        };
        let (header, frame) = spool.frame(index, disk);
        match transfer.poll_spooled(&header, &self.session)? {
            SpooledStep::AwaitWindow => return Ok(false),
            SpooledStep::Held => out.spooled.handle_read(),
            SpooledStep::Send => {
                out.spooled.handle_read();
                out.push(&header, frame, world);
            }
        }
        Ok(true)
    }

    /// Takes a chunk that was read: seals it, or hashes it if the receiver has it.
    fn read_ahead(&self, part: u32, sender: &mut Sender<'_>, world: &mut World<'_>) -> Outcome<bool> {
        let Some(lane) = sender.source.as_mut().and_then(|source| source.lanes.get_mut(&part)) else {
            return Ok(false);
        };
        if lane.ready.len() >= SEALED_AHEAD {
            return Ok(false);
        }
        let Some(chunk) = lane.waiting.take() else { return Ok(false) };
        let digests = self.session.keys.digests();
        let chunk = match WasRead::of(chunk, lane.rules.held()) {
            WasRead::New(chunk) => chunk,
            WasRead::Held(chunk) => {
                let (hash, plain_bytes) = (digests.chunk_hash(chunk.plain()), chunk.plain().len() as u64);
                lane.ready.push_back(Read::Held { hash, index: chunk.index, plain_bytes, last: chunk.last });
                return Ok(true);
            }
        };
        let packed = sender.packer.pack(chunk, digests);
        let nonce = sender.nonces.draw()?;
        let foreign = sender.sabotage.foreign_keys(&self.session, &mut sender.random);
        let sealed = seal(packed, foreign.as_ref().unwrap_or(&self.session.keys), nonce)?;
        world.checks.sealed(self.commitment, &sealed);
        lane.ready.push_back(Read::Sealed(sealed, Arc::clone(&self.session.keys)));
        Ok(true)
    }

    fn resend(&self, sealed: Sealed, out: &mut Out, world: &mut World<'_>) -> Outcome {
        world.reach(Side::Sender, Moment::Resending)?;
        world.checks.sealed(self.commitment, &sealed);
        let weight = weight(&sealed.header);
        out.resent_bytes += weight;
        out.resent_largest = out.resent_largest.max(weight);
        let bound = world.scenario.window_bytes.max(out.resent_largest);
        assert!(out.resent_bytes <= bound, "{} bytes were sent again, and {bound} may be", out.resent_bytes);
        out.push(&sealed.header, sealed.frame.to_vec(), world);
        Ok(())
    }

    fn send(&self, sealed: Sealed, out: &mut Out, sender: &mut Sender<'_>, world: &mut World<'_>) -> Outcome {
        world.checks.sealed(self.commitment, &sealed);
        let bytes = sender.sabotage.frame(&sealed, &mut out.held_back);
        out.ends_early = !sealed.header.last && sender.sabotage.due(SenderFault::EndPart);
        out.push(&sealed.header, bytes, world);
        Ok(())
    }

    fn finish(
        &self,
        state: &mut State,
        sender: &mut Sender<'_>,
        disk: &mut Disk,
        world: &mut World<'_>,
    ) -> Outcome<Moved> {
        // An earlier process's manifest may be there before all parts of this connection are
        // through.
        if state.finish_said || state.outs.iter().any(|out| !out.done) {
            return Ok(Moved::No);
        }
        if sender.transfer.next_part().is_some() {
            return Ok(Moved::No);
        }
        if let Some(spool) = &sender.spool {
            let Some(manifest) = &spool.whole else { return Ok(Moved::No) };
            assert!(disk.spool.is_synced(), "what Finish states is in the spool, whatever happens");
            sender.transfer.handle_earlier(manifest.clone());
        }
        let Some(manifest) = sender.transfer.poll_manifest(sender.signer, None) else { return Ok(Moved::No) };
        let sent = Sent { plan: sender.transfer.plan().clone(), manifest };
        let finish = keep_changed(disk, world, |record| record.handle_all_sent(sent))?.finish()?;
        assert!(disk.record.is_synced() && record(disk)?.of_transfer.sent().is_some(), "Finish before its record");
        let finish = sender.sabotage.finish(finish, sender.signer);
        sender.say(&finish, world);
        state.finish_said = true;
        world.reach(Side::Sender, Moment::FinishSaid)?;
        Ok(Moved::Yes)
    }
}

impl Out {
    fn new(part: PartIndex, transfer: &SenderTransfer) -> Self {
        let first = transfer.held(part);
        Self {
            part: part.0,
            header: transfer.stream_header(part),
            first,
            spooled: SpoolLane::new(first.next_index()),
            stream: None,
            bytes: Vec::new(),
            held_back: Vec::new(),
            resent_bytes: 0,
            resent_largest: 0,
            in_flight: VecDeque::new(),
            ends_early: false,
            done: false,
        }
    }

    fn push(&mut self, header: &ChunkHeader, bytes: Vec<u8>, world: &World<'_>) {
        assert!(header.index.0 >= self.first.0, "what was acknowledged is not sent again");
        self.bytes = bytes;
        self.in_flight.push_back(weight(header));
        let in_flight: u64 = self.in_flight.iter().sum();
        assert!(self.in_flight.len() == 1 || in_flight <= world.scenario.window_bytes, "the window is kept");
    }

    /// The stream is opened with the first bytes, which are those of a chunk that the receiver
    /// lacks.
    fn write(&mut self, sender: &mut Sender<'_>, world: &mut World<'_>) -> bool {
        let capacity_bytes = world.scenario.stream_bytes.max(StreamHeader::BYTES);
        let link = world.link.as_mut().expect("asked for while a connection stands");
        let stream = *self.stream.get_or_insert_with(|| {
            let mut pipe = Pipe::new(Side::Sender, capacity_bytes);
            let part = PartIndex(sender.sabotage.named(self.part));
            let header = StreamHeader { part, ..self.header };
            pipe.write(&mut world.wire, &header.to_bytes());
            link.streams.push(pipe);
            link.streams.len() - 1
        });
        let written = link.streams[stream].write(&mut world.wire, &self.bytes);
        self.bytes.drain(..written);
        written > 0
    }

    fn finish_stream(&mut self, world: &mut World<'_>) {
        if let (Some(stream), Some(link)) = (self.stream, &mut world.link) {
            link.streams[stream].finish(&mut world.wire);
        }
    }
}

fn weight(header: &ChunkHeader) -> u64 {
    (header.frame_bytes() as u64).max(header.plain_bytes.into())
}
