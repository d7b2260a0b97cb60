//! Resuming over a new connection: what of each part is sent again, and what is read again.

use super::{
    SenderSession, SenderTransfer,
    part::{Resume, count_all},
};
use crate::{
    close::Code,
    error::{Error, Result},
    id::{Epoch, PartIndex},
    manifest::SentPart,
    message::Have,
};

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

    /// Resumes over a new connection, and returns how each part is resumed. Parts to be repeated
    /// start as if nothing of them had been sent. Fails with `AckImpossible` if the receiver cannot
    /// have what it states.
    ///
    /// After a part that is read again, every part whose reading had not ended is read again as
    /// well: a source that reads one part at a time would wait to deliver more of the later part,
    /// whose turn comes only after the earlier one.
    pub fn handle_have(&mut self, have: &[Have], epoch: Epoch) -> Result<Vec<Resume>> {
        self.epoch = epoch;
        let resumed = self.resume_parts(have);
        self.started_to = 0;
        self.tally = count_all(&mut self.parts, &self.plan);
        resumed
    }

    fn resume_parts(&mut self, have: &[Have]) -> Result<Vec<Resume>> {
        if self.is_as_sent(have) {
            for progress in &mut self.parts {
                progress.settled = true;
                progress.handle_connection();
            }
            return Ok(vec![Resume::Continue; self.parts.len()]);
        }
        self.parts.iter_mut().for_each(|progress| progress.settled = false);
        if self.spool.is_some() {
            return self.resume_spooled(have);
        }
        // This process has read nothing, and the receiver lacks some of what an earlier process has
        // sent.
        let unread = self.manifest.is_some() && self.parts.iter().any(|progress| progress.ended.is_none());
        let mut have = have.iter().peekable();
        let digests = &self.digests;
        let mut repeated = false;
        let resumed = self.parts.iter_mut().zip(0..).map(|(progress, index)| {
            let part = PartIndex(index);
            let again = unread || repeated && progress.ended.is_none();
            let have = have.next_if(|have| have.part == part);
            let resume = progress.handle_have(have, again, digests.part_root(part))?;
            repeated |= resume == Resume::Repeat;
            Ok(resume)
        });
        let resumed = resumed.collect::<Result<Vec<_>>>()?;
        if resumed.contains(&Resume::Repeat) {
            self.manifest = None;
        }
        Ok(resumed)
    }

    /// Whether the receiver has everything that the manifest states.
    fn is_as_sent(&self, have: &[Have]) -> bool {
        let Some(manifest) = &self.manifest else { return false };
        let sent = &manifest.manifest.parts;
        let same =
            |(have, sent): (&Have, &SentPart)| (have.ended, have.verified, have.root) == (true, sent.chunks, sent.root);
        have.len() == sent.len() && have.iter().zip(sent).all(same)
    }
}
