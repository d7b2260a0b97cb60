//! One connection's part in a transfer: which streams carry what, and what the sender was told.

use std::sync::Arc;

use super::Transfer;
use crate::{
    close::Code,
    error::{Error, Result},
    frame::{ChunkHeader, StreamHeader},
    id::{ChunkCount, Epoch, PartIndex},
    manifest::SignedManifest,
    message::{Ack, Have, Message},
    seal::EpochKeys,
    sign::PublicKey,
};

/// What was agreed for one connection: data may flow.
pub struct Session {
    pub(super) keys: Arc<EpochKeys>,
    /// Of the sender's spool, if it sends from one that an earlier connection began.
    spool: Option<Arc<EpochKeys>>,
    pub(super) sender_key: PublicKey,
    lanes: u16,
    parts: Vec<Arriving>,
    /// Those whose streams may be open.
    open: Vec<PartIndex>,
    manifest_heard: bool,
}

/// A part as it arrives on one connection.
struct Arriving {
    /// Chunks that are there, or whose headers were judged good.
    received: ChunkCount,
    last_received: bool,
    stream: Stream,
    /// What the sender was last told.
    acknowledged: (ChunkCount, ChunkCount),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    None,
    Open,
    Ended,
}

impl Session {
    /// A connection on which the sender knows of what is in `have`, and of nothing else.
    pub(super) fn new(
        keys: Arc<EpochKeys>,
        spool: Option<Arc<EpochKeys>>,
        sender_key: PublicKey,
        lanes: u16,
        have: &[Have],
        transfer: &mut Transfer,
    ) -> Self {
        let arriving = || Arriving {
            received: ChunkCount(0),
            last_received: false,
            stream: Stream::None,
            acknowledged: (ChunkCount(0), ChunkCount(0)),
        };
        let mut parts: Vec<_> = transfer.parts.iter().map(|_| arriving()).collect();
        for have in have {
            let arriving = &mut parts[have.part.0 as usize];
            arriving.received = have.verified;
            arriving.last_received = have.ended;
            arriving.acknowledged = (have.verified, have.durable);
        }
        // An earlier connection may have taken a part out of `moved` to acknowledge it, and have
        // ended before it did.
        let moved = parts.iter().zip(&transfer.parts).zip(0..).filter_map(|((arriving, progress), index)| {
            (arriving.acknowledged != progress.state()).then_some(PartIndex(index))
        });
        transfer.moved = moved.collect();
        Self { keys, spool, sender_key, lanes, parts, open: Vec::new(), manifest_heard: false }
    }

    pub fn keys(&self) -> &Arc<EpochKeys> {
        &self.keys
    }

    /// What opens a chunk of `epoch`: the connection's keys, unless it is the spool's.
    pub fn keys_of(&self, epoch: Epoch) -> &Arc<EpochKeys> {
        self.spool.as_ref().filter(|spool| spool.epoch() == epoch).unwrap_or(&self.keys)
    }

    /// A stream says which part it carries, and from which chunk on.
    pub fn handle_stream(&mut self, transfer: &Transfer, header: StreamHeader) -> Result<()> {
        let part = header.part;
        let refuse = |code, check| Err(Error::new(code, check).at_part(part));
        // A part whose last chunk was acknowledged is no longer in flight for the sender, whether
        // or not the end of its stream was seen here.
        let parts = &self.parts;
        self.open.retain(|open| {
            let place = open.0 as usize;
            parts[place].stream == Stream::Open && !transfer.parts[place].is_whole()
        });
        if self.open.len() >= self.lanes.into() {
            return refuse(Code::LimitExceeded, "parts in flight");
        }
        let Some(section) = transfer.plan.section(part) else {
            return refuse(Code::ProtocolViolation, "no such part");
        };
        if !transfer.may_follow(section) {
            return refuse(Code::ProtocolViolation, "part before those it depends on");
        }
        let arriving = &mut self.parts[part.0 as usize];
        if arriving.stream != Stream::None || arriving.last_received || header.first != arriving.received.next_index() {
            return refuse(Code::ChunkOrder, "part is sent twice");
        }
        arriving.stream = Stream::Open;
        self.open.push(part);
        Ok(())
    }

    /// A chunk's header arrived on the stream of `part`: judges its place, before its bytes are
    /// read.
    pub fn handle_header(&mut self, part: PartIndex, header: &ChunkHeader) -> Result<()> {
        let refuse = |code, check| Err(Error::new(code, check).at_chunk(header.part, header.index));
        if header.part != part {
            return refuse(Code::ChunkForeign, "chunk of another part");
        }
        let arriving = &mut self.parts[part.0 as usize];
        if arriving.last_received {
            return refuse(Code::ChunkOrder, "chunk after the last");
        }
        if header.index != arriving.received.next_index() {
            return refuse(Code::ChunkOrder, "chunk index");
        }
        arriving.received.0 += 1;
        arriving.last_received = header.last;
        Ok(())
    }

    /// A part's stream ended cleanly: its last chunk must have come (fault-matrix X5).
    pub fn handle_stream_end(&mut self, part: PartIndex) -> Result<()> {
        let arriving = &mut self.parts[part.0 as usize];
        arriving.stream = Stream::Ended;
        match arriving.last_received {
            true => Ok(()),
            false => Err(Error::new(Code::PartTruncated, "stream end").at_part(part)),
        }
    }

    /// The next acknowledgement that is due. Several chunks of one part become one message.
    pub fn poll_ack(&mut self, transfer: &mut Transfer) -> Option<Message> {
        while let Some(part) = transfer.moved.pop_first() {
            let arriving = &mut self.parts[part.0 as usize];
            let progress = &transfer.parts[part.0 as usize];
            let (verified, durable) = progress.state();
            if arriving.acknowledged != (verified, durable) {
                arriving.acknowledged = (verified, durable);
                return Some(Message::Ack(Ack { part, verified, durable }));
            }
        }
        None
    }

    /// The sender says what it sent, which it may once every chunk was acknowledged. Checked here
    /// as far as a signature goes; the rest when all of it is committed.
    pub fn handle_finish(&mut self, transfer: &mut Transfer, manifest: SignedManifest) -> Result<()> {
        let acknowledged = self
            .parts
            .iter()
            .zip(&transfer.parts)
            .all(|(arriving, progress)| progress.is_whole() && arriving.acknowledged.0 == progress.chunks());
        match acknowledged {
            true => self.handle_carried_finish(transfer, manifest),
            false => Err(Error::new(Code::ProtocolViolation, "manifest before the last acknowledgement")),
        }
    }

    /// The same from an archive, in which nothing is acknowledged: its order says when the manifest
    /// may come.
    pub fn handle_carried_finish(&mut self, transfer: &mut Transfer, manifest: SignedManifest) -> Result<()> {
        if self.manifest_heard {
            return Err(Error::new(Code::ProtocolViolation, "second manifest"));
        }
        manifest.verify(&self.sender_key)?;
        self.manifest_heard = true;
        transfer.manifest = Some(manifest);
        Ok(())
    }
}
