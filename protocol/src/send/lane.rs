//! The lane of one part on one connection: first the chunks that an earlier connection lost are
//! sent again; then each chunk that is read is either compared with what the receiver has, or sent
//! as the window allows.

use std::sync::Arc;

use super::{Resume, SenderSession, SenderTransfer};
use crate::{
    chunk::{Chunk, ChunkHash, Sealed},
    close::Code,
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
    /// Read the next chunk; if there is none, the part ends.
    Read,
}

/// What this process can read of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readable {
    /// Nothing: it is not opened, since an earlier process has sent all of it.
    Nothing,
    /// Each part, once.
    Once,
    /// Each part, as often as needed.
    Again,
    /// The spool that everything is sent from, in which so many chunks are durable.
    Spooled(u64),
}

impl Readable {
    /// Of a source that is opened: whether its parts can be read more than once.
    pub fn of_source(can_repeat: Option<bool>) -> Self {
        can_repeat.map_or(Self::Nothing, |can_repeat| if can_repeat { Self::Again } else { Self::Once })
    }
}

impl SenderTransfer {
    /// The next step of the lane of `part`. `read` is the chunk that was read last; it is taken
    /// when it was sent or compared. Fails with `SourceChanged` if it is not what was sent before.
    pub fn poll_lane(
        &mut self,
        part: PartIndex,
        read: &mut Option<Read>,
        session: &SenderSession,
        mut draw: impl FnMut() -> Result<Nonce>,
    ) -> Result<LaneStep> {
        if let Some(sealed) = self.poll_resend(part, session, &mut draw)? {
            return Ok(LaneStep::Resend(sealed));
        }
        match read.take() {
            None => Ok(LaneStep::Read),
            Some(Read::Held { hash, index, plain_bytes, last }) => {
                self.handle_repeated(part, &hash, plain_bytes, last)?;
                Ok(LaneStep::Proven { index, plain_bytes })
            }
            Some(Read::Sealed(sealed, keys)) if self.may_send(&sealed.header, session) => {
                self.handle_read(sealed, &keys, session, draw).map(LaneStep::Send)
            }
            full => {
                *read = full;
                Ok(LaneStep::AwaitWindow)
            }
        }
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

    /// Resumes over a new connection, and returns the parts that have to be read again from their
    /// beginning. The caller drops what it has read of them before it asks the source for anything,
    /// since the source may be waiting to deliver more of it. Fails with `ResumeImpossible` if the
    /// receiver lacks what cannot be read.
    pub fn resume(&mut self, session: &SenderSession, readable: Readable) -> Result<Vec<PartIndex>> {
        if let Readable::Spooled(frames) = readable
            && session.have.iter().any(|have| have.verified.0 > frames)
        {
            return Err(Error::new(Code::AckImpossible, "more than was spooled"));
        }
        let resumed = self.handle_have(&session.have, session.keys.epoch())?;
        let parts = (0..).map(PartIndex).zip(resumed);
        let repeated: Vec<_> = parts.filter(|(_, resume)| *resume == Resume::Repeat).map(|(part, _)| part).collect();
        let is_possible = match readable {
            Readable::Nothing => (0..self.parts.len() as u32).all(|part| !self.is_open(PartIndex(part))),
            Readable::Once => repeated.is_empty(),
            Readable::Again | Readable::Spooled(_) => true,
        };
        if is_possible { Ok(repeated) } else { Err(Error::new(Code::ResumeImpossible, "source")) }
    }
}
