//! An archive, as its receiver reads it ([`crate::archive`]): the exchange without a peer.
//!
//! ```text
//! Unsealing ─handle, three times─▶ Sealed ─session─▶ Session      judged against what is Expected
//! Order: handle_chunk, handle_finish                              then
//! ```

use std::sync::Arc;

use super::{Session, Transfer};
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
    manifest::{Plan, SignedManifest},
    seal::{EpochKeys, Suite},
    sealed_log::{EpochRecord, LogHeader, Record},
    sign::{PublicKey, Purpose},
    transcript::Transcript,
};

/// What the receiver knows before it has read anything.
pub struct Expected {
    /// Whom the operator was told to expect.
    pub from: Fingerprint,
    /// The receiver's own.
    pub receiver: Fingerprint,
    pub suites: Vec<Suite>,
}

/// The records before the chunks, one after the other.
pub struct Unsealing {
    header: LogHeader,
    transcript: Transcript,
    offer: Option<Box<ArchiveOffer>>,
    epoch: Option<Box<EpochRecord>>,
}

/// The sender is the one that was expected, it permits the load, and it has vouched for the keys.
/// Nothing is opened yet.
pub struct Sealed {
    offer: Box<ArchiveOffer>,
    epoch: Box<EpochRecord>,
}

fn out_of_turn(check: &'static str) -> Error {
    Error::new(Code::ProtocolViolation, check)
}

impl Unsealing {
    pub fn new(header: &LogHeader) -> Self {
        Self { header: *header, transcript: Transcript::of_archive(header), offer: None, epoch: None }
    }

    /// Takes the next record at `now_seconds`; the third ends the opening.
    pub fn handle(&mut self, record: Record, expected: &Expected, now_seconds: u64) -> Result<Option<Sealed>> {
        match record {
            Record::Mark => Ok(None),
            Record::Statement(bytes) if self.offer.is_none() => {
                let Statement::Offer(offer) = Statement::from_bytes(&bytes)? else { return Err(out_of_turn("Offer")) };
                self.judge(&offer, expected, now_seconds)?;
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
                Ok(Some(Sealed { offer, epoch }))
            }
            Record::Epoch(_) | Record::Chunk { .. } => Err(out_of_turn("opening of an archive")),
        }
    }

    /// As an offer on the link, in the same order.
    fn judge(&self, offer: &ArchiveOffer, expected: &Expected, now_seconds: u64) -> Result<()> {
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

impl Sealed {
    pub fn grant(&self) -> &SignedGrant {
        &self.offer.grant
    }

    pub fn plan(&self) -> &Plan {
        &self.offer.plan
    }

    pub fn sender_key(&self) -> PublicKey {
        self.offer.sender_key
    }

    /// A transfer of which nothing is there.
    pub fn new_transfer(&self) -> Transfer {
        Transfer::new(self.offer.grant.clone(), self.offer.plan.clone())
    }

    /// Opens the envelope: chunks may be opened from here on. `transfer` knows by now what is in
    /// the target.
    pub fn session(self, key: &SealingKey, transfer: &mut Transfer) -> Result<Session> {
        let id = transfer.grant().grant.transfer;
        let (secret, digest_secret) = self.epoch.open(key, id)?;
        transfer.handle_digest_secret(&digest_secret)?;
        transfer.epoch = ARCHIVE_EPOCH;
        let keys = EpochKeys::new(self.epoch.suite, id, ARCHIVE_EPOCH, secret, Digests::new(&digest_secret));
        let have = transfer.have();
        Ok(Session::new(Arc::new(keys), None, self.offer.sender_key, 1, &have, transfer))
    }
}

/// The order of what follows: every part of the plan, from its first chunk to its last, and the
/// manifest behind them.
pub struct Order {
    parts: u32,
    /// Of the chunk that comes next.
    part: u32,
    index: u64,
    finished: bool,
}

impl Order {
    pub fn new(plan: &Plan) -> Self {
        Self { parts: plan.parts.len() as u32, part: 0, index: 0, finished: false }
    }

    /// A chunk's header: judges its place, before it is opened.
    pub fn handle_chunk(&mut self, header: &ChunkHeader) -> Result<()> {
        let refuse = |code, check| Err(Error::new(code, check).at_chunk(header.part, header.index));
        let (part, index) = (header.part.0, header.index.0);
        match () {
            () if self.finished => refuse(Code::ChunkOrder, "chunk after the manifest"),
            () if part >= self.parts => refuse(Code::ChunkForeign, "no such part"),
            () if part < self.part => refuse(Code::ChunkOrder, "chunk after the last"),
            () if part > self.part => refuse(Code::PartTruncated, "next part before the last chunk"),
            () if index != self.index => refuse(Code::ChunkOrder, "chunk index"),
            () if header.last => {
                (self.part, self.index) = (self.part + 1, 0);
                Ok(())
            }
            () => {
                self.index += 1;
                Ok(())
            }
        }
    }

    /// The statement behind the chunks.
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

    /// Whether the manifest was seen: nothing may be missing behind it.
    pub fn is_finished(&self) -> bool {
        self.finished
    }
}
