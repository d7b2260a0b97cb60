//! One connection of a transfer: which stream carries which part, and what was acknowledged.

use std::sync::Arc;

use super::{ReceiverTransfer, Window};
use crate::{
    close::Code,
    error::{Error, Result},
    frame::{ChunkHeader, StreamHeader},
    id::{ChunkCount, Epoch, PartIndex},
    limits::STREAMS_MAX,
    manifest::SignedManifest,
    message::{Ack, Have, Message},
    seal::EpochKeys,
    sign::PublicKey,
};

/// The state of one connection from Ready on.
pub struct ReceiverSession {
    pub(super) keys: Arc<EpochKeys>,
    /// The keys of the sender's spool, if it sends from one that an earlier connection began.
    spool: Option<Arc<EpochKeys>>,
    pub(super) sender_key: PublicKey,
    window: Window,
    parts: Vec<Arriving>,
    /// The parts whose streams may be open.
    open: Vec<PartIndex>,
    has_manifest: bool,
}

/// A part as it arrives on one connection.
struct Arriving {
    /// Chunks that were there before, or whose headers were accepted.
    received: ChunkCount,
    last_received: bool,
    stream: Stream,
    /// Verified and durable, as last acknowledged.
    acknowledged: (ChunkCount, ChunkCount),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    None,
    Open,
    Ended,
}

impl ReceiverSession {
    /// A connection on which `have` was sent in Accept.
    pub(super) fn new(
        keys: Arc<EpochKeys>,
        spool: Option<Arc<EpochKeys>>,
        sender_key: PublicKey,
        window: Window,
        have: &[Have],
        transfer: &mut ReceiverTransfer,
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
        // An earlier connection may have taken a part out of `moved` and have ended before the
        // acknowledgement was sent.
        let moved = parts.iter().zip(&transfer.parts).zip(0..).filter_map(|((arriving, progress), index)| {
            (arriving.acknowledged != progress.state()).then_some(PartIndex(index))
        });
        transfer.moved = moved.collect();
        Self { keys, spool, sender_key, window, parts, open: Vec::new(), has_manifest: false }
    }

    /// The keys of this connection.
    pub fn keys(&self) -> &Arc<EpochKeys> {
        &self.keys
    }

    /// The keys that open a chunk of `epoch`: the spool's if it has that epoch, else the
    /// connection's.
    pub fn keys_of(&self, epoch: Epoch) -> &Arc<EpochKeys> {
        self.spool.as_ref().filter(|spool| spool.epoch() == epoch).unwrap_or(&self.keys)
    }

    /// What the sender may have in flight.
    pub fn window(&self) -> Window {
        self.window
    }

    /// Checks a stream header, in the order and with the codes of `docs/protocol.md`, section 7.
    pub fn handle_stream(&mut self, transfer: &ReceiverTransfer, header: StreamHeader) -> Result<()> {
        let part = header.part;
        let refuse = |code, check| Err(Error::new(code, check).at_part(part));
        // To the sender, a part is no longer in flight once its last chunk was acknowledged, even
        // if the end of its stream was not received yet.
        let parts = &self.parts;
        self.open.retain(|open| {
            let place = open.0 as usize;
            parts[place].stream == Stream::Open && !transfer.parts[place].is_whole()
        });
        if self.open.len() >= STREAMS_MAX.into() {
            return refuse(Code::LimitExceeded, "streams at once");
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

    /// Checks the place of a chunk on the stream of `part` by its header, before its bytes are
    /// read: `ChunkForeign` or `ChunkOrder`.
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

    /// A part's stream ended cleanly. Fails with `PartTruncated` if its last chunk has not arrived
    /// (fault X5).
    pub fn handle_stream_end(&mut self, part: PartIndex) -> Result<()> {
        let arriving = &mut self.parts[part.0 as usize];
        arriving.stream = Stream::Ended;
        match arriving.last_received {
            true => Ok(()),
            false => Err(Error::new(Code::PartTruncated, "stream end").at_part(part)),
        }
    }

    /// The next acknowledgement that is due, until there is none. Several chunks of one part become
    /// one message.
    pub fn poll_ack(&mut self, transfer: &mut ReceiverTransfer) -> Option<Message> {
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

    /// Takes the manifest, which may come once every chunk was acknowledged. Only its order
    /// (`ProtocolViolation`) and signature (`ManifestMismatch`) are checked here;
    /// [`ReceiverTransfer::poll_complete`] checks the rest.
    pub fn handle_finish(&mut self, transfer: &mut ReceiverTransfer, manifest: SignedManifest) -> Result<()> {
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

    /// Takes the manifest of an archive, in which nothing is acknowledged; [`super::Order`] says
    /// when it may come.
    pub fn handle_carried_finish(&mut self, transfer: &mut ReceiverTransfer, manifest: SignedManifest) -> Result<()> {
        if self.has_manifest {
            return Err(Error::new(Code::ProtocolViolation, "second manifest"));
        }
        manifest.verify(&self.sender_key)?;
        self.has_manifest = true;
        transfer.manifest = Some(manifest);
        Ok(())
    }
}
