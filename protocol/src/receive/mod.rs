//! The receiver's side of a transfer, without I/O: messages and facts in, messages and judgements
//! out.
//!
//! ```text
//! Listening ─handle_offer─▶ Judging ─accept─▶ Accepting ─handle_begin─▶ Session      one a connection
//! Unsealing ─handle─▶ Sealed ─session─▶ Session                                       or one an archive
//! Session: handle_stream, handle_header, handle_stream_end, poll_ack, handle_finish
//! Transfer: may_begin, handle_begun, handle_taken, handle_finished, poll_complete, receipt
//! ```
//!
//! The receiver alone decides what is missing: [`Transfer`] holds, over all connections, what was
//! verified and what is durable. It judges a chunk's place by its header, before any byte of it is
//! decrypted, and counts a chunk as verified only when the sink, or the thread that feeds it, has
//! it.

mod archive;
mod exchange;
mod session;

use std::collections::BTreeSet;

pub use self::{
    archive::{Expected, Order, Sealed, Unsealing},
    exchange::{Accepting, Judging, Listening, Window},
    session::Session,
};
use crate::{
    audit_head::AuditHead,
    chunk::TakenChunk,
    close::Code,
    digest::{Digests, PartRoot, Root},
    error::{Error, Result},
    grant::SignedGrant,
    id::{ChunkCount, Epoch, PartIndex},
    key::DigestSecret,
    manifest::{Authority, Evidence, LinkEvidence, Plan, Receipt, Section, SentPart, SignedManifest, SignedReceipt},
    message::Have,
    sign::Signer,
};

/// One transfer as its receiver knows it, over all its connections.
pub struct Transfer {
    grant: SignedGrant,
    plan: Plan,
    /// Of the last connection that was agreed on; 0 before the first.
    epoch: Epoch,
    /// Known with the first Begin, or from a journal.
    digests: Option<Digests>,
    digest_check: Option<[u8; 32]>,
    parts: Vec<PartProgress>,
    manifest: Option<SignedManifest>,
    /// All parts before this one are begun. With the three below, no step looks at more parts than
    /// it is about: a database may have tens of thousands of them.
    begun_to: usize,
    /// Parts of each section of which a chunk is missing.
    incomplete: [usize; Section::COUNT],
    /// Parts of each section that the target has not taken whole.
    unfinished: [usize; Section::COUNT],
    /// Parts that may have got further than the sender of the connection that stands was told.
    moved: BTreeSet<PartIndex>,
}

/// What came of one part.
#[derive(Default)]
struct PartProgress {
    verified: Verified,
    durable: ChunkCount,
    /// The sink takes its chunks.
    begun: bool,
    /// The target has taken all of it, for good if it keeps anything.
    finished: bool,
}

/// The chunks of a part that were verified and that the sink has, or has been handed.
#[derive(Default)]
enum Verified {
    #[default]
    Nothing,
    Some(Box<PartRoot>),
    Whole(WholePart),
    /// An earlier process committed them; what makes their root is not known before a connection is
    /// agreed on.
    Found(Box<FoundPrefix>),
}

impl PartProgress {
    fn chunks(&self) -> ChunkCount {
        match &self.verified {
            Verified::Nothing => ChunkCount(0),
            Verified::Some(root) => root.chunks(),
            Verified::Whole(whole) => whole.chunks,
            Verified::Found(prefix) => prefix.chunks,
        }
    }

    /// Chunks that are verified, and that are durable.
    fn state(&self) -> (ChunkCount, ChunkCount) {
        (self.chunks(), self.durable)
    }

    fn is_whole(&self) -> bool {
        matches!(self.verified, Verified::Whole(_))
    }

    fn is_as_sent(&self, sent: &SentPart) -> bool {
        let Verified::Whole(whole) = &self.verified else { return false };
        (sent.chunks, sent.plain_bytes, sent.root) == (whole.chunks, whole.plain_bytes, whole.root)
    }
}

impl Transfer {
    pub fn new(grant: SignedGrant, plan: Plan) -> Self {
        let parts = plan.parts.iter().map(|_| PartProgress::default()).collect();
        let mut unfinished = [0; Section::COUNT];
        plan.parts.iter().for_each(|part| unfinished[part.section as usize] += 1);
        Self {
            grant,
            plan,
            epoch: Epoch(0),
            digests: None,
            digest_check: None,
            parts,
            manifest: None,
            begun_to: 0,
            incomplete: unfinished,
            unfinished,
            moved: BTreeSet::new(),
        }
    }

    /// What an earlier process knew: the last epoch, and which sender's digests they were.
    pub fn handle_earlier(&mut self, epoch: Epoch, digest_check: Option<[u8; 32]>) {
        (self.epoch, self.digest_check) = (epoch, digest_check);
    }

    /// A part that an earlier process committed in the target.
    pub fn handle_found(&mut self, whole: WholePart) {
        if (whole.part.0 as usize) < self.parts.len() {
            self.handle_whole(whole);
            self.handle_begun(whole.part);
            self.handle_finished(whole.part, true);
        }
    }

    /// Every chunk of a part is verified.
    fn handle_whole(&mut self, whole: WholePart) {
        let place = whole.part.0 as usize;
        let progress = &mut self.parts[place];
        if !progress.is_whole() {
            self.incomplete[self.plan.parts[place].section as usize] -= 1;
        }
        progress.verified = Verified::Whole(whole);
    }

    /// The same of the first chunks of a part.
    pub fn handle_found_prefix(&mut self, prefix: FoundPrefix) -> Result<()> {
        if let Some(progress) = self.parts.get_mut(prefix.part.0 as usize) {
            progress.durable = prefix.chunks;
            progress.verified = Verified::Found(Box::new(prefix));
        }
        self.know_found()
    }

    /// With the digests, what was found becomes a root that can be gone on with.
    fn know_found(&mut self) -> Result<()> {
        let Some(digests) = &self.digests else { return Ok(()) };
        for progress in &mut self.parts {
            let Verified::Found(prefix) = &progress.verified else { continue };
            let root = digests.part_root_of(prefix.part, &prefix.hashes, prefix.plain_bytes);
            if root.chunks() != prefix.chunks || root.root() != prefix.root {
                return Err(Error::new(Code::TargetMismatch, "what is committed of a part").at_part(prefix.part));
            }
            progress.verified = Verified::Some(Box::new(root));
        }
        Ok(())
    }

    /// The secret of the transfer's digests, from the first envelope that was opened. It tells
    /// senders apart: whoever does not know it cannot go on with the transfer, nor drop it.
    pub fn handle_digest_secret(&mut self, secret: &DigestSecret) -> Result<()> {
        let check = secret.check();
        if self.digest_check.is_some_and(|known| known != check) {
            return Err(Error::new(Code::TransferBusy, "another sender has begun this transfer"));
        }
        self.digest_check = Some(check);
        self.digests.get_or_insert_with(|| Digests::new(secret));
        self.know_found()
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    pub fn grant(&self) -> &SignedGrant {
        &self.grant
    }

    /// What the sender says it sent, once it has.
    pub fn manifest(&self) -> Option<&SignedManifest> {
        self.manifest.as_ref()
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub fn digest_check(&self) -> Option<[u8; 32]> {
        self.digest_check
    }

    /// Known once a connection was agreed on.
    pub fn digests(&self) -> Option<&Digests> {
        self.digests.as_ref()
    }

    /// Whether anything of it was verified.
    pub fn has_anything(&self) -> bool {
        self.parts.iter().any(|progress| progress.chunks().0 > 0)
    }

    /// Whether the target has taken any part.
    pub fn has_finished(&self) -> bool {
        self.parts.iter().any(|progress| progress.finished)
    }

    /// Whether the target has taken all of `part`.
    pub fn is_finished(&self, part: PartIndex) -> bool {
        self.parts.get(part.0 as usize).is_some_and(|progress| progress.finished)
    }

    /// Chunks of a part that were verified and handed on.
    pub fn verified(&self, part: PartIndex) -> ChunkCount {
        self.parts[part.0 as usize].chunks()
    }

    /// The same of all parts.
    pub fn verified_in_all(&self) -> u64 {
        self.parts.iter().map(|progress| progress.chunks().0).fold(0, u64::saturating_add)
    }

    /// What is there, for a sender to go on from.
    fn have(&self) -> Vec<Have> {
        let have = self.parts.iter().zip(0..).filter_map(|(progress, index)| {
            let root = match &progress.verified {
                Verified::Nothing => return None,
                Verified::Some(root) => root.root(),
                Verified::Whole(whole) => whole.root,
                Verified::Found(prefix) => prefix.root,
            };
            let (part, verified, durable) = (PartIndex(index), progress.chunks(), progress.durable);
            Some(Have { part, verified, durable, ended: progress.is_whole(), root })
        });
        have.collect()
    }

    /// Whether the sink may be asked to begin `part`: one part at a time, in the order of the plan,
    /// and each when the target has taken the sections before it. Streams arrive in any order; were
    /// a later part to take a target's one writer first, its sender might be waiting for the window
    /// of an earlier part, and neither would ever move.
    pub fn may_begin(&self, part: PartIndex) -> bool {
        let earlier = &self.unfinished[..self.plan.parts[part.0 as usize].section as usize];
        part.0 as usize <= self.begun_to && earlier.iter().all(|unfinished| *unfinished == 0)
    }

    /// Whether a sender may open a stream for a part of this section: all parts of those before it
    /// are verified.
    fn may_follow(&self, section: Section) -> bool {
        self.incomplete[..section as usize].iter().all(|incomplete| *incomplete == 0)
    }

    /// The sink has begun `part`.
    pub fn handle_begun(&mut self, part: PartIndex) {
        self.parts[part.0 as usize].begun = true;
        while self.parts.get(self.begun_to).is_some_and(|progress| progress.begun) {
            self.begun_to += 1;
        }
    }

    /// A verified chunk was handed on, and will not be asked for again unless the process dies; if
    /// it is `durable`, not even then.
    pub fn handle_taken(&mut self, chunk: &TakenChunk, durable: bool) {
        let digests = self.digests.as_ref().expect("a chunk is opened with the keys of a connection");
        let progress = &mut self.parts[chunk.part.0 as usize];
        assert_eq!(progress.chunks().next_index(), chunk.index, "chunks are taken in order");
        if let Verified::Nothing = progress.verified {
            progress.verified = Verified::Some(Box::new(digests.part_root(chunk.part)));
        }
        let Verified::Some(root) = &mut progress.verified else { unreachable!("a whole part takes no chunk") };
        root.add(&chunk.hash, chunk.plain_bytes);
        if durable {
            progress.durable = root.chunks();
        }
        if chunk.last {
            let (chunks, plain_bytes, root) = (root.chunks(), root.plain_bytes(), root.root());
            self.handle_whole(WholePart { part: chunk.part, chunks, plain_bytes, root });
        }
        self.moved.insert(chunk.part);
    }

    /// The target has the first chunks of a part for good.
    pub fn handle_durable(&mut self, part: PartIndex, chunks: ChunkCount) {
        let progress = &mut self.parts[part.0 as usize];
        // The sink may be ahead of what was counted as handed to it.
        progress.durable = progress.durable.max(chunks.min(progress.chunks()));
        self.moved.insert(part);
    }

    /// The target has taken all of a part; if it is `durable`, no crash undoes that.
    pub fn handle_finished(&mut self, part: PartIndex, durable: bool) {
        let progress = &mut self.parts[part.0 as usize];
        if durable {
            progress.durable = progress.chunks();
        }
        if !std::mem::replace(&mut progress.finished, true) {
            self.unfinished[self.plan.parts[part.0 as usize].section as usize] -= 1;
        }
        self.moved.insert(part);
    }

    /// Once the manifest is here and the sink has finished every part: whether what arrived is what
    /// it says (fault-matrix X13).
    pub fn poll_complete(&self) -> Option<Result<()>> {
        let manifest = &self.manifest.as_ref()?.manifest;
        let digests = self.digests.as_ref()?;
        if self.unfinished.iter().any(|unfinished| *unfinished > 0) {
            return None;
        }
        let plain_bytes = manifest.parts.iter().fold(0u64, |sum, part| sum.saturating_add(part.plain_bytes));
        if self.plan.empty.is_none() && self.plan.moves_nothing(plain_bytes) {
            return Some(Err(Error::new(Code::SourceEmpty, "manifest")));
        }
        let arrived = manifest.parts.len() == self.parts.len()
            && manifest.parts.iter().zip(&self.parts).all(|(sent, progress)| progress.is_as_sent(sent));
        let transfer = self.grant.grant.transfer;
        let fits = arrived
            && manifest.check(&self.plan).is_ok()
            && manifest.transfer == transfer
            && manifest.grant_hash == self.grant.hash()
            && manifest.plan_hash == self.plan.hash()
            && manifest.root == digests.transfer_root(transfer, manifest.parts.iter().map(|part| part.root));
        Some(if fits { Ok(()) } else { Err(Error::new(Code::ManifestMismatch, "manifest")) })
    }

    /// Counter-signs the manifest, if what the target holds is what it says.
    pub fn receipt(&self, session: &Session, facts: ReceiptFacts, signer: &dyn Signer) -> Result<SignedReceipt> {
        let manifest = self.manifest.clone().ok_or(Error::new(Code::Internal, "receipt before the manifest"))?;
        // A later grant may go on with what began under an earlier one; and a clock may be set back
        // meanwhile.
        let not_before_ms = self.grant.grant.not_before_seconds.saturating_mul(1000);
        let started_ms = facts.started_ms.max(not_before_ms);
        let receipt = Receipt {
            manifest,
            plan: self.plan.clone(),
            evidence: facts.evidence,
            grant: self.grant.clone(),
            sender_key: session.sender_key,
            receiver_key: signer.public_key(),
            suite: session.keys.suite(),
            authority: Authority::Ticket,
            link: facts.link,
            started_ms,
            finished_ms: facts.finished_ms.max(started_ms),
            software: facts.software,
            target_host: facts.target_host,
            audit_head: facts.audit_head,
            policy: None,
        };
        receipt.check()?;
        Ok(receipt.sign(signer))
    }
}

/// All of a part, as it was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WholePart {
    pub part: PartIndex,
    pub chunks: ChunkCount,
    pub plain_bytes: u64,
    /// Over the hashes of its chunks.
    pub root: Root,
}

/// The first chunks of a part, as an earlier process committed them in the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundPrefix {
    pub part: PartIndex,
    pub chunks: ChunkCount,
    pub plain_bytes: u64,
    /// Over the hashes.
    pub root: Root,
    /// Of each chunk, one after the other.
    pub hashes: Vec<u8>,
}

/// What is committed in the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Whole(WholePart),
    Prefix(FoundPrefix),
}

/// What a receipt says that the state machine cannot know.
pub struct ReceiptFacts {
    pub evidence: Evidence,
    /// None of an archive.
    pub link: Option<LinkEvidence>,
    pub started_ms: u64,
    pub finished_ms: u64,
    pub software: String,
    pub target_host: String,
    pub audit_head: Option<AuditHead>,
}
