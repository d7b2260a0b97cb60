//! One part at its sender: what was sent, what the receiver has of that, and what may have to be
//! sent again.

use std::{collections::VecDeque, sync::Arc};

use super::tally::{PartState, Tally};
use crate::{
    chunk::Sealed,
    close::Code,
    digest::{PartRoot, RowsDigest},
    error::{Error, Result},
    frame::ChunkHeader,
    id::{ChunkCount, PartIndex},
    manifest::{Plan, Section},
    message::Have,
    seal::EpochKeys,
};

/// The progress of one part.
pub(super) struct SentProgress {
    /// The root over the chunks sent, or read again and found to be what the receiver has.
    pub(super) root: PartRoot,
    /// The root over those that the receiver has verified, and whether the part's last chunk is
    /// among them.
    pub(super) verified_root: PartRoot,
    pub(super) verified_last: bool,
    /// Chunks sent and not yet verified, oldest first.
    pub(super) kept: VecDeque<Kept>,
    pub(super) kept_bytes: u64,
    pub(super) verified: ChunkCount,
    pub(super) durable: ChunkCount,
    /// Whether it was started on this connection, and whether all of it was sent there.
    pub(super) started: bool,
    pub(super) sent_whole: bool,
    /// The digest of its rows, once it was read to its end.
    pub(super) ended: Option<RowsDigest>,
    /// What the receiver has of a part that is being read again, until that is found to be the
    /// same.
    pub(super) to_prove: Option<Have>,
    /// Whether the receiver has all of it, by the manifest of an earlier process.
    pub(super) settled: bool,
    /// What was sent from a spool, if the sender has one.
    pub(super) spooled: Option<Spooled>,
    /// How the tally counts it.
    pub(super) counted: PartState,
}

/// A chunk that may have to be sent again, and the keys that open it. It is not a copy: the link
/// holds the same bytes.
pub(super) struct Kept {
    pub(super) sealed: Sealed,
    pub(super) keys: Arc<EpochKeys>,
}

/// The frames of one part that were sent from a spool.
pub(super) struct Spooled {
    pub(super) sent: ChunkCount,
    /// The weights of those that are not verified, oldest first.
    pub(super) weights: VecDeque<u64>,
}

/// How a part is resumed over a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Reading continues where it stopped; what was sent and not verified is still in memory.
    Continue,
    /// The part has to be read again from its beginning.
    Repeat,
}

/// Counts all parts by their states.
pub(super) fn count_all(parts: &mut [SentProgress], plan: &Plan) -> Tally {
    let mut tally = Tally::default();
    for ((progress, planned), index) in parts.iter_mut().zip(&plan.parts).zip(0..) {
        progress.counted = progress.state();
        tally.add(PartIndex(index), progress.counted, planned.section);
    }
    tally
}

impl SentProgress {
    fn state(&self) -> PartState {
        PartState {
            started: self.started,
            sent: self.sent_whole,
            verified: self.is_verified(),
            kept_bytes: self.kept_bytes,
        }
    }

    /// Counts this part, which is of `section`, again.
    pub(super) fn count_again(&mut self, tally: &mut Tally, part: PartIndex, section: Section) {
        tally.remove(part, self.counted, section);
        self.counted = self.state();
        tally.add(part, self.counted, section);
    }

    /// Nothing of it has been sent on a new connection.
    pub(super) fn handle_connection(&mut self) {
        self.started = false;
        self.sent_whole = false;
    }

    pub(super) fn is_verified(&self) -> bool {
        self.settled || self.ended.is_some() && self.verified == self.sent()
    }

    /// Drops what is only needed while chunks of the part are sent.
    pub(super) fn shrink(&mut self) {
        if self.ended.is_some() && self.verified == self.sent() {
            self.root.end();
            self.verified_root.end();
            self.kept = VecDeque::new();
        }
    }

    /// The number of chunks that were sent, or that the receiver had before.
    pub(super) fn sent(&self) -> ChunkCount {
        self.spooled.as_ref().map_or(self.root.chunks(), |spooled| spooled.sent)
    }

    /// Drops the chunks that the receiver has verified.
    pub(super) fn forget(&mut self, verified: ChunkCount) {
        for _ in self.verified.0..verified.0 {
            let weight = match &mut self.spooled {
                Some(spooled) => spooled.weights.pop_front(),
                None => self.kept.pop_front().map(|Kept { sealed, .. }| {
                    self.verified_root.add(&sealed.hash, sealed.header.plain_bytes.into());
                    self.verified_last = sealed.header.last;
                    weight(&sealed.header)
                }),
            };
            self.kept_bytes -= weight.unwrap_or(0);
        }
        self.verified = verified;
    }

    /// Checks that the receiver has what was sent: the same chunks, and the last of them if it has
    /// that.
    fn check_verified(&self, have: Option<&Have>) -> Result<()> {
        let Some(have) = have else { return Ok(()) };
        match have.root == self.verified_root.root() && have.ended == self.verified_last {
            true => Ok(()),
            false => Err(Error::new(Code::AckImpossible, "another part than was sent")),
        }
    }

    /// Resumes over a new connection. With `again`, the part is read again in any case.
    pub(super) fn handle_have(&mut self, have: Option<&Have>, again: bool, fresh_root: PartRoot) -> Result<Resume> {
        self.handle_connection();
        let verified = have.map_or(ChunkCount(0), |have| have.verified);
        let sent = self.root.chunks();
        // Comparing a long part may take longer than any connection lasts: it continues over the
        // next.
        if let (false, Some(proving), Some(have)) = (again, &mut self.to_prove, have)
            && (proving.verified, proving.root, proving.ended) == (have.verified, have.root, have.ended)
        {
            proving.durable = have.durable;
            return Ok(Resume::Continue);
        }
        let read_before = sent.0 > 0 && self.to_prove.is_none();
        if read_before && verified > sent {
            return Err(Error::new(Code::AckImpossible, "more chunks than were sent"));
        }
        let durable = have.map_or(ChunkCount(0), |have| have.durable);
        if durable < self.durable {
            return Err(Error::new(Code::AckImpossible, "what was durable is gone"));
        }
        let still_here = !again && self.to_prove.is_none() && (self.verified..=sent).contains(&verified);
        if still_here {
            self.forget(verified);
            self.durable = durable;
            return self.check_verified(have).map(|()| Resume::Continue);
        }
        self.root = fresh_root.clone();
        self.verified_root = fresh_root;
        self.verified_last = false;
        self.kept.clear();
        (self.kept_bytes, self.verified, self.durable) = (0, ChunkCount(0), ChunkCount(0));
        self.ended = None;
        self.to_prove = have.copied();
        Ok(Resume::Repeat)
    }
}

/// The weight of a chunk in a window: its plaintext or its frame, whichever is longer. With frames
/// alone, a dump that compresses well would run far ahead of a slow loader.
pub(super) fn weight(header: &ChunkHeader) -> u64 {
    (header.frame_bytes() as u64).max(header.plain_bytes.into())
}
