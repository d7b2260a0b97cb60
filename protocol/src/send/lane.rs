//! The lane of one part on one connection: first the chunks that an earlier connection lost are
//! sent again; then each chunk that is read is either compared with what the receiver has, or sent
//! as the window allows.

use std::sync::Arc;

use super::{SenderSession, SenderTransfer};
use crate::{
    chunk::{Chunk, ChunkHash, Sealed},
    close::Code,
    digest::RowsDigest,
    error::{Error, Result},
    id::{ChunkCount, ChunkIndex, PartIndex},
    random::Nonce,
    seal::EpochKeys,
};

/// A chunk that was read from the source.
pub enum Read {
    /// To be sent; sealed with these keys, which are those of an earlier connection if that was
    /// lost meanwhile.
    Sealed(Sealed, Arc<EpochKeys>),
    /// Held by the receiver; to be compared.
    Held {
        /// The keyed hash of its plaintext.
        hash: ChunkHash,
        /// Its place in the part.
        index: ChunkIndex,
        /// The bytes of its plaintext.
        plain_bytes: u64,
        /// Whether the part ends with it.
        last: bool,
    },
}

/// A part that is read from the source. It outlives a connection, since what was read and is not
/// sent yet may be nowhere else.
pub struct SourceLane {
    part: PartIndex,
    /// Chunks of it that the receiver had when its reading began.
    held: ChunkCount,
    /// Read, and not sent or compared yet.
    next: Option<Read>,
    /// All of it was read.
    is_read: bool,
}

impl SourceLane {
    /// The lane of a part that is about to be read.
    pub fn new(transfer: &SenderTransfer, part: PartIndex) -> Self {
        Self { part, held: transfer.held(part), next: None, is_read: false }
    }

    /// Chunks of the part that the receiver had when its reading began.
    pub fn held(&self) -> ChunkCount {
        self.held
    }

    /// Takes the next chunk, which [`LaneStep::Read`] asked for.
    pub fn handle_read(&mut self, read: Read) {
        debug_assert!(self.next.is_none() && !self.is_read, "a chunk that was not asked for");
        self.next = Some(read);
    }
}

/// What becomes of a chunk that was read, before its lane takes it.
pub enum WasRead {
    /// The receiver has it: it is hashed with the keys of the transfer, to be compared.
    Held(Chunk),
    /// It is sealed with the keys of the connection that stands when it is read.
    New(Chunk),
}

impl WasRead {
    /// A chunk of a part of which the receiver had the first `held` when its reading began.
    pub fn of(chunk: Chunk, held: ChunkCount) -> Self {
        if chunk.index.0 < held.0 { Self::Held(chunk) } else { Self::New(chunk) }
    }
}

/// The next step of a lane.
pub enum LaneStep {
    /// Send this chunk, which was sent on an earlier connection and not acknowledged.
    Resend(Sealed),
    /// Send this chunk, which was just read.
    Send(Sealed),
    /// Nothing: the chunk that was read is the one that the receiver has.
    Proven {
        /// Its place in the part.
        index: ChunkIndex,
        /// The bytes of its plaintext.
        plain_bytes: u64,
    },
    /// Wait for an acknowledgement: the window of the part is full.
    AwaitWindow,
    /// Read the next chunk, for [`SourceLane::handle_read`]; if there is none, report that with
    /// [`SenderTransfer::handle_source_end`].
    Read,
    /// All of the part is sent: its stream ends.
    End,
}

impl SenderTransfer {
    /// The next step of a lane. Fails with `SourceChanged` if what was read is not what was sent
    /// before.
    pub fn poll_lane(
        &mut self,
        lane: &mut SourceLane,
        session: &SenderSession,
        mut draw: impl FnMut() -> Result<Nonce>,
    ) -> Result<LaneStep> {
        if let Some(sealed) = self.poll_resend(lane.part, session, &mut draw)? {
            return Ok(LaneStep::Resend(sealed));
        }
        match lane.next.take() {
            None if lane.is_read => {
                self.handle_stream_end(lane.part);
                Ok(LaneStep::End)
            }
            None => Ok(LaneStep::Read),
            Some(Read::Held { hash, index, plain_bytes, last }) => {
                self.handle_repeated(lane.part, &hash, plain_bytes, last)?;
                Ok(LaneStep::Proven { index, plain_bytes })
            }
            Some(Read::Sealed(sealed, keys)) if self.may_send(&sealed.header, session) => {
                self.handle_read(sealed, &keys, session, draw).map(LaneStep::Send)
            }
            full => {
                lane.next = full;
                Ok(LaneStep::AwaitWindow)
            }
        }
    }

    /// The source had no chunk left for a lane that asked for one. `rows` is the digest of the
    /// part's rows, and is ignored for a part without rows.
    pub fn handle_source_end(&mut self, lane: &mut SourceLane, rows: RowsDigest) {
        debug_assert!(lane.next.is_none() && !lane.is_read, "a part ends once");
        lane.is_read = true;
        self.handle_part_end(lane.part, rows);
    }

    /// Sends a chunk that was read, sealed again if it was sealed for an earlier connection. It is
    /// kept first, so that a chunk that was read and not sent when the connection is lost is sent
    /// again as if it had been.
    fn handle_read(
        &mut self,
        sealed: Sealed,
        keys: &Arc<EpochKeys>,
        session: &SenderSession,
        draw: impl FnMut() -> Result<Nonce>,
    ) -> Result<Sealed> {
        self.handle_sealed(&sealed, keys);
        if Arc::ptr_eq(keys, &session.keys) {
            return Ok(sealed);
        }
        let resealed = self.poll_resend(sealed.header.part, session, draw)?;
        resealed.ok_or(Error::new(Code::Internal, "a kept chunk is missing"))
    }
}
