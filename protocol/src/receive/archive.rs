//! Reading an archive ([`crate::archive`]): the exchange without a peer.
//!
//! ```text
//! Unsealing ─handle, three times─▶ Sealed ─session─▶ Session      checked against what is Expected
//! Order: handle_chunk, handle_finish                              then
//! ```

use std::sync::Arc;

use super::{ReceiverSession, ReceiverTransfer, Window};
use crate::{
    archive::{ARCHIVE_EPOCH, ARCHIVE_TARGET, ARCHIVE_VERSION, ArchiveOffer, Statement},
    close::Code,
    codec,
    digest::Digests,
    envelope::SealingKey,
    error::{Error, Result},
    fingerprint::Fingerprint,
    frame::ChunkHeader,
    grant::SignedGrant,
    limits::LANE_WINDOW_BYTES_MIN,
    manifest::{Plan, SignedManifest},
    seal::{EpochKeys, Suite},
    sealed_log::{EpochRecord, LogHeader, Record},
    sign::{PublicKey, Purpose},
    transcript::Transcript,
};

/// What is known before the archive is read.
pub struct ExpectedArchive {
    /// The fingerprint of the sender, as the operator got it out of band.
    pub from: Fingerprint,
    /// The receiver's own fingerprint.
    pub receiver: Fingerprint,
    /// The suites that the receiver allows.
    pub suites: Vec<Suite>,
}

/// Nothing waits for an acknowledgement.
const WINDOW: Window = Window { lanes: 1, lane_bytes: LANE_WINDOW_BYTES_MIN };

/// Reads the records before the first chunk.
pub struct Unsealing {
    header: LogHeader,
    transcript: Transcript,
    offer: Option<Box<ArchiveOffer>>,
    epoch: Option<Box<EpochRecord>>,
}

/// The sender is the expected one, its grant permits the load, and its signature over the keys is
/// good. Nothing is opened yet.
pub struct SealedArchive {
    offer: Box<ArchiveOffer>,
    epoch: Box<EpochRecord>,
}

fn out_of_turn(check: &'static str) -> Error {
    Error::new(Code::ProtocolViolation, check)
}

impl Unsealing {
    /// Starts with the header of the log, which the caller has checked to be of kind archive.
    pub fn new(header: &LogHeader) -> Self {
        Self { header: *header, transcript: Transcript::of_archive(header), offer: None, epoch: None }
    }

    /// Takes the next record, and returns [`SealedArchive`] with the third. The checks and their
    /// codes are those of `docs/archive.md`, What the receiver checks.
    pub fn handle(
        &mut self,
        record: Record,
        expected: &ExpectedArchive,
        now_seconds: u64,
    ) -> Result<Option<SealedArchive>> {
        match record {
            Record::Mark => Ok(None),
            Record::Statement(bytes) if self.offer.is_none() => {
                let Statement::Offer(offer) = Statement::from_bytes(&bytes)? else { return Err(out_of_turn("Offer")) };
                self.check_offer(&offer, expected, now_seconds)?;
                self.transcript.absorb(&bytes);
                self.offer = Some(offer);
                Ok(None)
            }
            Record::Epoch(epoch) if self.offer.is_some() && self.epoch.is_none() => {
                if epoch.epoch != ARCHIVE_EPOCH || epoch.info != self.transcript.hash() {
                    return Err(out_of_turn("epoch of an archive"));
                }
                if !expected.suites.contains(&epoch.suite) {
                    return Err(Error::new(Code::SuiteUnsupported, "suite of an archive"));
                }
                self.transcript.absorb(&codec::encode(&*epoch));
                self.epoch = Some(epoch);
                Ok(None)
            }
            Record::Statement(bytes) => {
                let Statement::Begin(signature) = Statement::from_bytes(&bytes)? else {
                    return Err(out_of_turn("Begin"));
                };
                let (Some(offer), Some(epoch)) = (self.offer.take(), self.epoch.take()) else {
                    return Err(out_of_turn("Begin"));
                };
                let hash = self.transcript.hash();
                offer.sender_key.verify(Purpose::Archive, &hash, &signature, Code::TranscriptMismatch)?;
                Ok(Some(SealedArchive { offer, epoch }))
            }
            Record::Epoch(_) | Record::Chunk { .. } => Err(out_of_turn("opening of an archive")),
        }
    }

    /// The checks of an offer on the link, in the same order.
    fn check_offer(&self, offer: &ArchiveOffer, expected: &ExpectedArchive, now_seconds: u64) -> Result<()> {
        if offer.version != ARCHIVE_VERSION {
            return Err(Error::new(Code::VersionUnsupported, "version of an archive"));
        }
        if Fingerprint::of(&offer.sender_key) != expected.from {
            return Err(Error::new(Code::IdentityRefused, "fingerprint of the sender"));
        }
        offer.grant.verify(&[offer.sender_key])?;
        offer.grant.grant.check_enforced()?;
        offer.grant.grant.check_time(now_seconds, false)?;
        let grant = &offer.grant.grant;
        let foreign = |check| Err(Error::new(Code::GrantForeign, check));
        if grant.transfer != self.header.id.transfer {
            return foreign("transfer");
        }
        if grant.sender != Some(expected.from) {
            return foreign("sender");
        }
        if grant.receiver != expected.receiver {
            return foreign("receiver");
        }
        if grant.target != ARCHIVE_TARGET {
            return foreign("target");
        }
        offer.plan.check()
    }
}

impl SealedArchive {
    /// The grant, verified.
    pub fn grant(&self) -> &SignedGrant {
        &self.offer.grant
    }

    /// The plan, checked.
    pub fn plan(&self) -> &Plan {
        &self.offer.plan
    }

    /// The sender's key, whose fingerprint was the expected one.
    pub fn sender_key(&self) -> PublicKey {
        self.offer.sender_key
    }

    /// A transfer of which nothing is in the target.
    pub fn new_transfer(&self) -> ReceiverTransfer {
        ReceiverTransfer::new(self.offer.grant.clone(), self.offer.plan.clone())
    }

    /// Opens the envelope, so that chunks can be opened. What is in the target already was restored
    /// in `transfer` before. Fails with `KeyCommitment` if the envelope does not open or the keys
    /// are not the committed ones.
    pub fn session(self, key: &SealingKey, transfer: &mut ReceiverTransfer) -> Result<ReceiverSession> {
        let id = transfer.grant().grant.transfer;
        let (secret, digest_secret) = self.epoch.open(key, id)?;
        transfer.handle_digest_secret(&digest_secret)?;
        transfer.epoch = ARCHIVE_EPOCH;
        let keys = EpochKeys::new(self.epoch.suite, id, ARCHIVE_EPOCH, secret, Digests::new(&digest_secret));
        let have = transfer.have();
        Ok(ReceiverSession::new(Arc::new(keys), None, self.offer.sender_key, WINDOW, &have, transfer))
    }
}

/// Checks the order of the records after Begin: every part of the plan, from its first chunk to its
/// last, then the manifest.
pub struct Order {
    parts: u32,
    /// The place of the next chunk.
    part: u32,
    index: u64,
    finished: bool,
}

impl Order {
    /// Starts before the first chunk of the first part.
    pub fn new(plan: &Plan) -> Self {
        Self { parts: plan.parts.len() as u32, part: 0, index: 0, finished: false }
    }

    /// Checks the place of a chunk by its header, before it is opened: `ChunkOrder`, `ChunkForeign`
    /// or `PartTruncated`.
    pub fn handle_chunk(&mut self, header: &ChunkHeader) -> Result<()> {
        let refuse = |code, check| Err(Error::new(code, check).at_chunk(header.part, header.index));
        let (part, index) = (header.part.0, header.index.0);
        if self.finished {
            return refuse(Code::ChunkOrder, "chunk after the manifest");
        }
        if part >= self.parts {
            return refuse(Code::ChunkForeign, "no such part");
        }
        if part < self.part {
            return refuse(Code::ChunkOrder, "chunk after the last");
        }
        if part > self.part {
            return refuse(Code::PartTruncated, "next part before the last chunk");
        }
        if index != self.index {
            return refuse(Code::ChunkOrder, "chunk index");
        }
        if header.last {
            self.part += 1;
            self.index = 0;
        } else {
            self.index += 1;
        }
        Ok(())
    }

    /// Takes the statement after the last chunk. Fails with `PartTruncated` if a chunk is missing;
    /// the signature is not verified here.
    pub fn handle_finish(&mut self, statement: &[u8]) -> Result<SignedManifest> {
        let Statement::Finish(manifest) = Statement::from_bytes(statement)? else { return Err(out_of_turn("Finish")) };
        if self.part < self.parts {
            return Err(Error::new(Code::PartTruncated, "manifest before the last chunk"));
        }
        match std::mem::replace(&mut self.finished, true) {
            true => Err(out_of_turn("second manifest")),
            false => Ok(manifest),
        }
    }

    /// Whether the manifest was read.
    pub fn is_finished(&self) -> bool {
        self.finished
    }
}
