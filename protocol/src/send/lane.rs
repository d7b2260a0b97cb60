//! One part on its way over one connection: what an earlier connection lost goes out first; then
//! what is read, in its order, each chunk either proven to be what the receiver has or sent as its
//! window allows.

use std::sync::Arc;

use super::{Resume, Session, Transfer};
use crate::{
    chunk::{ChunkHash, Sealed},
    close::Code,
    error::{Error, Result},
    id::{ChunkIndex, PartIndex},
    random::Nonce,
    seal::EpochKeys,
};

/// A chunk that was read from the source.
pub enum Read {
    /// To be sent; sealed with these keys, which are those of an earlier connection if that was
    /// lost in between.
    Sealed(Sealed, Arc<EpochKeys>),
    /// The receiver has it: to be proven.
    Held { hash: ChunkHash, index: ChunkIndex, plain_bytes: u64, last: bool },
}

/// What a lane does next.
pub enum Step {
    /// Send this chunk, which an earlier connection lost.
    Resend(Sealed),
    /// Send this chunk, which was read.
    Send(Sealed),
    /// Nothing: the chunk that was read is what the receiver has.
    Proven { index: ChunkIndex, plain_bytes: u64 },
    /// Wait until the receiver has verified more: the window of the part is full.
    AwaitWindow,
    /// Read the next chunk; the part ends if there is none.
    Read,
}

/// What this process can read of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readable {
    /// Nothing: it was not opened, since an earlier process had sent all of it.
    Nothing,
    /// Each part once.
    Once,
    /// Each part as often as needed.
    Again,
}

impl Transfer {
    /// The next step of the lane of `part`; `read` is the chunk that was read last, and is taken
    /// once it is done with.
    pub fn poll_lane(
        &mut self,
        part: PartIndex,
        read: &mut Option<Read>,
        session: &Session,
        mut draw: impl FnMut() -> Result<Nonce>,
    ) -> Result<Step> {
        if let Some(sealed) = self.poll_resend(part, session, &mut draw)? {
            return Ok(Step::Resend(sealed));
        }
        match read.take() {
            None => Ok(Step::Read),
            Some(Read::Held { hash, index, plain_bytes, last }) => {
                self.handle_repeated(part, &hash, plain_bytes, last)?;
                Ok(Step::Proven { index, plain_bytes })
            }
            Some(Read::Sealed(sealed, keys)) if self.may_send(&sealed.header, session) => {
                self.handle_read(sealed, &keys, session, draw).map(Step::Send)
            }
            full => {
                *read = full;
                Ok(Step::AwaitWindow)
            }
        }
    }

    /// A chunk that was read goes out over this connection: sealed for it, if it was read and
    /// sealed before this one stood. It is kept first, so that one that was read and not sent when
    /// a connection is lost is sent again as if it had been.
    fn handle_read(
        &mut self,
        sealed: Sealed,
        keys: &Arc<EpochKeys>,
        session: &Session,
        draw: impl FnMut() -> Result<Nonce>,
    ) -> Result<Sealed> {
        self.handle_sealed(&sealed, keys);
        if Arc::ptr_eq(keys, &session.keys) {
            return Ok(sealed);
        }
        let resealed = self.poll_resend(sealed.header.part, session, draw)?;
        resealed.ok_or(Error::new(Code::Internal, "a kept chunk is missing"))
    }

    /// A new connection stands: which parts have to be read again from their beginning. What was
    /// read of them is of no use: it is dropped before anything is asked for, since the source may
    /// be waiting to hand on more of it. Fails with `ResumeImpossible` where the receiver lacks
    /// what cannot be read.
    pub fn resume(&mut self, session: &Session, readable: Readable) -> Result<Vec<PartIndex>> {
        let resumed = self.handle_have(&session.have, session.keys.epoch())?;
        let parts = (0..).map(PartIndex).zip(resumed);
        let repeated: Vec<_> = parts.filter(|(_, resume)| *resume == Resume::Repeat).map(|(part, _)| part).collect();
        let is_possible = match readable {
            Readable::Nothing => (0..self.parts.len() as u32).all(|part| !self.is_open(PartIndex(part))),
            Readable::Once => repeated.is_empty(),
            Readable::Again => true,
        };
        if is_possible { Ok(repeated) } else { Err(Error::new(Code::ResumeImpossible, "source")) }
    }
}
