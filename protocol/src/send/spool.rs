//! Sending from a spool (`docs/sealed-log.md`, The spool). Its keys are those of the connection on
//! which it was begun; on later ones its frames are sent as they are, and never sealed again.

use std::{collections::VecDeque, sync::Arc};

use super::{
    SenderSession, SenderTransfer,
    part::{Resume, SentProgress, Spooled, count_all, weight},
};
use crate::{
    archive::Statement,
    audit_head::AuditHead,
    chunk::Sealed,
    close::Code,
    digest::RowsDigest,
    error::{Error, Result},
    frame::ChunkHeader,
    id::{ChunkCount, ChunkIndex, PartIndex},
    limits::CHUNK_HEADER_BYTES,
    manifest::SignedManifest,
    message::{Ack, Have},
    seal::EpochKeys,
    sealed_log::{EpochRecord, KeyFingerprint, Record},
    sign::Signer,
};

/// The epoch of a spool, and the key that opens it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spool {
    /// The epoch record at the start of the log.
    pub epoch: Box<EpochRecord>,
    /// The fingerprint of the sealing key that its envelope is sealed to.
    pub key: KeyFingerprint,
}

/// The part that a spool holds: a source that can be read only once is one part.
pub const SPOOLED_PART: PartIndex = PartIndex(0);

/// What is appended to a spool, and what of it may be sent: first the epoch record, then the chunks
/// of the source as they are read, then the manifest. Nothing is sent before it is durable, since a
/// receiver could have what no later process could send again.
pub struct SpoolFilling {
    /// As if the spool were its receiver: what is durable there counts as acknowledged.
    transfer: SenderTransfer,
    keys: Arc<EpochKeys>,
}

impl SpoolFilling {
    /// Fills the spool of a transfer that was just begun, sealed with `keys`.
    pub fn new(mut transfer: SenderTransfer, keys: Arc<EpochKeys>) -> Self {
        transfer.handle_start(SPOOLED_PART);
        Self { transfer, keys }
    }

    /// The keys that the chunks are to be sealed with.
    pub fn keys(&self) -> &Arc<EpochKeys> {
        &self.keys
    }

    /// The next chunk of the source, as it is appended.
    pub fn append(&mut self, sealed: &Sealed) -> Record {
        self.transfer.handle_sealed(sealed, &self.keys);
        Record::Chunk { header: sealed.header, sealed: sealed.frame.slice(CHUNK_HEADER_BYTES..) }
    }

    /// All that was appended is durable. Returns the number of chunks that may be sent.
    pub fn handle_synced(&mut self) -> Result<u64> {
        let count = self.transfer.parts[SPOOLED_PART.0 as usize].sent();
        self.transfer.handle_ack(&Ack { part: SPOOLED_PART, verified: count, durable: count })?;
        Ok(count.0)
    }

    /// The source has ended well. Returns the manifest, and the record that is appended for it:
    /// once that is durable, the spool is whole.
    pub fn end(
        mut self,
        rows: RowsDigest,
        signer: &dyn Signer,
        audit_head: Option<AuditHead>,
    ) -> Result<(SignedManifest, Record)> {
        self.transfer.handle_part_end(SPOOLED_PART, rows);
        let Some(manifest) = self.transfer.poll_manifest(signer, audit_head) else {
            return Err(Error::new(Code::Internal, "a spool ends before all of it is durable"));
        };
        let record = Statement::Finish(manifest.clone()).to_record();
        Ok((manifest, record))
    }
}

/// What is read next of a spool, to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpoolStep {
    /// The chunk with this index, for [`SenderTransfer::poll_spooled`].
    Read(ChunkIndex),
    /// Wait until more of the spool is durable.
    AwaitSpooled,
    /// All of the source is sent: the stream of its part ends.
    End,
}

/// What becomes of a chunk that was read from a spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpooledStep {
    /// Nothing: the receiver has it.
    Held,
    /// It is sent, as it is.
    Send,
    /// Wait for an acknowledgement: the window of the part is full.
    AwaitWindow,
}

/// The lane of a spool on one connection.
#[derive(Debug)]
pub struct SpoolLane {
    next: ChunkIndex,
}

impl SpoolLane {
    /// Reads from this chunk on, which is no later than the first that the receiver lacks.
    pub fn new(first: ChunkIndex) -> Self {
        Self { next: first }
    }

    /// The next step, with so many chunks durable. Only once `is_whole` does the part end, whatever
    /// its last chunk says: the source may fail behind it.
    pub fn poll(&self, durable: u64, is_whole: bool) -> SpoolStep {
        if self.next.0 < durable {
            return SpoolStep::Read(self.next);
        }
        if is_whole { SpoolStep::End } else { SpoolStep::AwaitSpooled }
    }

    /// The chunk that [`SpoolStep::Read`] asked for was read.
    pub fn handle_read(&mut self) {
        self.next.0 += 1;
    }
}

/// What a later process finds in a spool.
#[derive(Default)]
pub struct SpoolContents {
    epoch: Option<Box<EpochRecord>>,
    frames: u64,
    manifest: Option<SignedManifest>,
}

/// A spool that holds all of its source.
pub struct WholeSpool {
    /// The record at its start.
    pub epoch: Box<EpochRecord>,
    /// The number of its chunks.
    pub frames: u64,
    /// What was sent, and is to be sent again.
    pub manifest: SignedManifest,
}

impl SpoolContents {
    /// Takes the next record. Fails with `LogDamaged` if no spool has it there.
    pub fn handle(&mut self, record: &Record) -> Result<()> {
        let damaged = |check| Err(Error::new(Code::LogDamaged, check));
        match record {
            Record::Mark => {}
            _ if self.manifest.is_some() => return damaged("a spool has more behind its end"),
            Record::Epoch(_) if self.epoch.is_some() => return damaged("a spool has one epoch"),
            Record::Epoch(found) => self.epoch = Some(found.clone()),
            Record::Chunk { header, .. } if header.index.0 != self.frames => return damaged("order of a spool"),
            Record::Chunk { .. } => self.frames += 1,
            Record::Statement(bytes) => match Statement::from_bytes(bytes)? {
                Statement::Finish(found) => self.manifest = Some(found),
                _ => return damaged("statement of a spool"),
            },
        }
        Ok(())
    }

    /// After the last record; `None` if the source had not ended: what is missing is nowhere.
    pub fn whole(self) -> Option<WholeSpool> {
        Some(WholeSpool { epoch: self.epoch?, frames: self.frames, manifest: self.manifest? })
    }
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

    /// What becomes of a chunk that was read from the spool; it is asked again for one that waits
    /// for the window. Fails as [`Self::handle_spooled`] does.
    pub fn poll_spooled(&mut self, header: &ChunkHeader, session: &SenderSession) -> Result<SpooledStep> {
        if header.index.0 < self.held(header.part).0 {
            return Ok(SpooledStep::Held);
        }
        if !self.may_send(header, session) {
            return Ok(SpooledStep::AwaitWindow);
        }
        self.handle_spooled(header)?;
        Ok(SpooledStep::Send)
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
        self.handle_connection();
        (self.verified, self.durable, self.kept_bytes) = (verified, durable, 0);
        self.ended = have.filter(|have| have.ended).map(|_| RowsDigest::default());
        self.spooled = Some(Spooled { sent: verified, weights: VecDeque::new() });
    }
}
