//! Sending from a spool (`docs/sealed-log.md`, The spool). Its keys are those of the connection on
//! which it was begun; on later ones its frames are sent as they are, and never sealed again.

use std::collections::VecDeque;

use super::{
    SenderTransfer,
    part::{Resume, SentProgress, Spooled, count_all, weight},
};
use crate::{
    close::Code,
    digest::RowsDigest,
    error::{Error, Result},
    frame::ChunkHeader,
    id::{ChunkCount, PartIndex},
    message::Have,
    sealed_log::{EpochRecord, KeyFingerprint},
};

/// The epoch of a spool, and the key that opens it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spool {
    /// The epoch record at the start of the log.
    pub epoch: Box<EpochRecord>,
    /// The fingerprint of the sealing key that its envelope is sealed to.
    pub key: KeyFingerprint,
}

impl SenderTransfer {
    /// From now on everything is sent from a spool.
    pub fn handle_spool(&mut self, spool: Spool) {
        self.spool = Some(spool);
        for progress in &mut self.parts {
            progress.spooled = Some(Spooled { sent: progress.verified, weights: VecDeque::new() });
        }
        self.tally = count_all(&mut self.parts, &self.plan);
    }

    /// A frame is sent as it is in the spool. Fails with `LogDamaged` if it is not the next of its
    /// part.
    pub fn handle_spooled(&mut self, header: &ChunkHeader) -> Result<()> {
        let progress = &mut self.parts[header.part.0 as usize];
        let weight = weight(header);
        match &mut progress.spooled {
            Some(spooled) if spooled.sent.next_index() == header.index => {
                spooled.sent.0 += 1;
                spooled.weights.push_back(weight);
            }
            _ => return Err(Error::new(Code::LogDamaged, "order of a spool").at_chunk(header.part, header.index)),
        }
        progress.kept_bytes += weight;
        if header.last {
            progress.ended = Some(RowsDigest::default());
        }
        self.count(header.part);
        Ok(())
    }

    /// Resumes after what the receiver has. The sender cannot compute a root over a beginning of
    /// the spool, so it compares what it can with the manifest; the receipt is over that manifest
    /// in any case.
    pub(super) fn resume_spooled(&mut self, have: &[Have]) -> Result<Vec<Resume>> {
        let manifest = self.manifest.as_ref().map(|manifest| &manifest.manifest.parts);
        for (progress, index) in self.parts.iter_mut().zip(0..) {
            let part = PartIndex(index);
            let have = have.iter().find(|have| have.part == part);
            let sent = manifest.and_then(|parts| parts.get(index as usize));
            if let (Some(have), Some(sent)) = (have, sent) {
                let whole = have.verified == sent.chunks;
                if have.verified > sent.chunks || have.ended != whole || whole && have.root != sent.root {
                    return Err(Error::new(Code::AckImpossible, "another end than was sent").at_part(part));
                }
            }
            if have.map_or(ChunkCount(0), |have| have.durable) < progress.durable {
                return Err(Error::new(Code::AckImpossible, "what was durable is gone").at_part(part));
            }
            progress.resume_spooled(have);
        }
        Ok(vec![Resume::Continue; self.parts.len()])
    }
}

impl SentProgress {
    fn resume_spooled(&mut self, have: Option<&Have>) {
        let (verified, durable) = have.map_or_else(Default::default, |have| (have.verified, have.durable));
        (self.verified, self.durable, self.started, self.kept_bytes) = (verified, durable, false, 0);
        self.ended = have.filter(|have| have.ended).map(|_| RowsDigest::default());
        self.spooled = Some(Spooled { sent: verified, weights: VecDeque::new() });
    }
}
