//! The receiver's side of a transfer, without I/O: messages and facts in, messages and verdicts
//! out.
//!
//! ```text
//! Listening ─handle_offer─▶ Deciding ─accept─▶ Accepting ─handle_begin─▶ Agreed
//! Agreed: poll ─▶ AgreedStep, ready ─▶ ReceiverSession
//! Unsealing ─handle─▶ SealedArchive ─session─▶ ReceiverSession
//! PartStream: handle ─▶ Arrived, handle_end
//! ReceiverSession: handle_stream, handle_header, handle_stream_end, poll_ack, handle_finish
//! Intake: handle_verified, poll, handle_journaled
//! ReceiverTransfer: handle_prepared, may_begin, handle_begun, handle_taken, handle_synced,
//!                   handle_finished, poll_complete, receipt
//! ```
//!
//! The receiver alone decides what is missing: [`ReceiverTransfer`] holds, over all connections,
//! what was verified and what is durable. The place of a chunk is checked by its header, before any
//! byte of it is decrypted, and a chunk counts as verified only when the target, or the thread that
//! feeds it, has it.

mod agreed;
mod archive;
mod exchange;
mod found;
mod intake;
mod replay;
mod session;
mod stream;

use std::collections::{BTreeSet, VecDeque};

pub use self::{
    agreed::{Agreed, AgreedStep},
    archive::{ExpectedArchive, Order, SealedArchive, Unsealing},
    exchange::{Accepting, Deciding, Listening, Window},
    found::{Found, FoundPrefix, WholePart},
    intake::{Durability, Intake, IntakeStep, Syncing},
    replay::{JournalReplay, Replayed},
    session::ReceiverSession,
    stream::{Arrived, Awaited, PartStream},
};
use crate::{
    audit_head::AuditHead,
    chunk::TakenChunk,
    close::Code,
    digest::{Digests, PartRoot},
    error::{Error, Result},
    grant::SignedGrant,
    id::{ChunkCount, Epoch, PartIndex},
    key::DigestSecret,
    manifest::{Authority, Evidence, LinkEvidence, Plan, Receipt, Section, SentPart, SignedManifest, SignedReceipt},
    message::Have,
    sign::Signer,
};

/// One transfer as its receiver knows it, over all its connections.
pub struct ReceiverTransfer {
    grant: SignedGrant,
    plan: Plan,
    /// The epoch of the last connection that was agreed on; 0 before the first.
    epoch: Epoch,
    /// Known with the first Begin, or from a journal.
    digests: Option<Digests>,
    digest_check: Option<[u8; 32]>,
    /// What the target promises, once it is prepared.
    durability: Durability,
    /// Chunks that a writer has and that count when they are synced, oldest first.
    unsynced: VecDeque<TakenChunk>,
    parts: Vec<ReceivedProgress>,
    manifest: Option<SignedManifest>,
    /// All parts before this one are begun. With this and the three fields below, a step looks only
    /// at the parts concerned: a database may have tens of thousands of them.
    begun_to: usize,
    /// Parts of each section of which a chunk is missing.
    incomplete: [usize; Section::COUNT],
    /// Parts of each section that the target has not taken whole.
    unfinished: [usize; Section::COUNT],
    /// Parts with progress that may not be acknowledged yet on the current connection.
    moved: BTreeSet<PartIndex>,
}

/// The progress of one part.
#[derive(Default)]
struct ReceivedProgress {
    verified: Verified,
    durable: ChunkCount,
    /// The target has begun it.
    begun: bool,
    /// The target has taken all of it, for good if it keeps anything.
    finished: bool,
}

/// The chunks of a part that were verified and that the target has, or has been handed.
#[derive(Default)]
enum Verified {
    #[default]
    Nothing,
    Some(Box<PartRoot>),
    Whole(WholePart),
    /// Committed by an earlier process. Their root cannot be continued before the digest secret is
    /// known.
    Found(Box<FoundPrefix>),
}

impl ReceivedProgress {
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

impl ReceiverTransfer {
    /// A transfer of which nothing has arrived.
    pub fn new(grant: SignedGrant, plan: Plan) -> Self {
        let parts = plan.parts.iter().map(|_| ReceivedProgress::default()).collect();
        let mut unfinished = [0; Section::COUNT];
        plan.parts.iter().for_each(|part| unfinished[part.section as usize] += 1);
        Self {
            grant,
            plan,
            epoch: Epoch(0),
            digests: None,
            digest_check: None,
            durability: Durability::default(),
            unsynced: VecDeque::new(),
            parts,
            manifest: None,
            begun_to: 0,
            incomplete: unfinished,
            unfinished,
            moved: BTreeSet::new(),
        }
    }

    /// Restores what an earlier process recorded: the last epoch, and the check of the digest
    /// secret.
    pub fn handle_earlier(&mut self, epoch: Epoch, digest_check: Option<[u8; 32]>) {
        (self.epoch, self.digest_check) = (epoch, digest_check);
    }

    /// The target is prepared, and promises this of what it takes. Before, nothing counts as
    /// durable.
    pub fn handle_prepared(&mut self, durability: Durability) {
        self.durability = durability;
    }

    /// What the target promises.
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// Whether chunks are durable in a journal before the target has them.
    pub fn has_journal(&self) -> bool {
        self.durability == Durability::Journal
    }

    /// Restores a part that an earlier process committed in the target.
    pub fn handle_found(&mut self, whole: WholePart) {
        if (whole.part.0 as usize) < self.parts.len() {
            self.handle_whole(whole);
            self.handle_begun(whole.part);
            self.finish(whole.part, true);
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

    /// Restores the first chunks of a part, as an earlier process committed them. Fails with
    /// `TargetMismatch` if their hashes do not give the recorded root.
    pub fn handle_found_prefix(&mut self, prefix: FoundPrefix) -> Result<()> {
        if let Some(progress) = self.parts.get_mut(prefix.part.0 as usize) {
            progress.durable = prefix.chunks;
            progress.verified = Verified::Found(Box::new(prefix));
        }
        self.know_found()
    }

    /// Once the digest secret is known, the roots of restored chunks can be continued.
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

    /// The digest secret from an opened envelope. It tells senders apart: one that does not know it
    /// can neither resume the transfer nor drop it, and is refused with `TransferBusy`.
    pub fn handle_digest_secret(&mut self, secret: &DigestSecret) -> Result<()> {
        let check = secret.check();
        if self.digest_check.is_some_and(|known| known != check) {
            return Err(Error::new(Code::TransferBusy, "another sender has begun this transfer"));
        }
        self.digest_check = Some(check);
        self.digests.get_or_insert_with(|| Digests::new(secret));
        self.know_found()
    }

    /// The plan, the same on every connection.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The grant under which the transfer runs now.
    pub fn grant(&self) -> &SignedGrant {
        &self.grant
    }

    /// The manifest, once the sender of the current connection has sent it.
    pub fn manifest(&self) -> Option<&SignedManifest> {
        self.manifest.as_ref()
    }

    /// The epoch of the last connection that was agreed on; 0 before the first.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// What tells the sender apart ([`DigestSecret::check`]), to be recorded; `None` before the
    /// first Begin.
    pub fn digest_check(&self) -> Option<[u8; 32]> {
        self.digest_check
    }

    /// The hash keys, once the digest secret is known.
    pub fn digests(&self) -> Option<&Digests> {
        self.digests.as_ref()
    }

    /// Whether any chunk was verified.
    pub fn has_anything(&self) -> bool {
        self.parts.iter().any(|progress| progress.chunks().0 > 0)
    }

    /// Whether the target has finished any part.
    pub fn has_finished(&self) -> bool {
        self.parts.iter().any(|progress| progress.finished)
    }

    /// Whether the target has finished `part`.
    pub fn is_finished(&self, part: PartIndex) -> bool {
        self.parts.get(part.0 as usize).is_some_and(|progress| progress.finished)
    }

    /// Whether the target has yet to finish a part of which it has every chunk.
    pub fn is_finishing(&self) -> bool {
        self.incomplete != self.unfinished
    }

    /// The number of chunks of a part that were verified and passed to the target.
    pub fn verified(&self, part: PartIndex) -> ChunkCount {
        self.parts[part.0 as usize].chunks()
    }

    /// The root over the chunks of a part that were verified and passed to the target, to be
    /// continued with the next. `None` before any keys, and for a part of which every chunk is
    /// there.
    pub fn part_root(&self, part: PartIndex) -> Option<PartRoot> {
        match &self.parts.get(part.0 as usize)?.verified {
            Verified::Nothing => Some(self.digests.as_ref()?.part_root(part)),
            Verified::Some(root) => Some((**root).clone()),
            Verified::Whole(_) | Verified::Found(_) => None,
        }
    }

    /// The number of chunks of all parts that were verified and passed to the target.
    pub fn verified_in_all(&self) -> u64 {
        self.parts.iter().map(|progress| progress.chunks().0).fold(0, u64::saturating_add)
    }

    /// What is there, from which the sender resumes.
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

    /// Whether the target may be asked to begin `part`: one part at a time, in the order of the
    /// plan, and each when the target has finished the sections before it. Streams arrive in any
    /// order. If a later part took a target's only writer first, while the sender waits for the
    /// window of an earlier part, neither side could ever continue.
    pub fn may_begin(&self, part: PartIndex) -> bool {
        let earlier = &self.unfinished[..self.plan.parts[part.0 as usize].section as usize];
        part.0 as usize <= self.begun_to && earlier.iter().all(|unfinished| *unfinished == 0)
    }

    /// Whether a sender may open a stream for a part of this section: all parts of those before it
    /// are verified.
    fn may_follow(&self, section: Section) -> bool {
        self.incomplete[..section as usize].iter().all(|incomplete| *incomplete == 0)
    }

    /// The target has begun `part`.
    pub fn handle_begun(&mut self, part: PartIndex) {
        self.parts[part.0 as usize].begun = true;
        while self.parts.get(self.begun_to).is_some_and(|progress| progress.begun) {
            self.begun_to += 1;
        }
    }

    /// A verified chunk was handed to its part's writer, in the order of the part. It counts now,
    /// or once it is synced; then it is asked for again only if the process dies before it is
    /// durable.
    pub fn handle_taken(&mut self, chunk: TakenChunk) {
        match self.durability {
            Durability::SyncedChunks => self.unsynced.push_back(chunk),
            _ => self.count(&chunk),
        }
    }

    /// Whether the target has chunks that do not count yet.
    pub fn is_syncing(&self) -> bool {
        !self.unsynced.is_empty()
    }

    /// The first chunks of the one part are synced: they count as verified.
    pub fn handle_synced(&mut self, part: PartIndex, chunks: ChunkCount) {
        while self.verified(part) < chunks {
            let Some(chunk) = self.unsynced.pop_front_if(|chunk| chunk.part == part) else { return };
            self.count(&chunk);
        }
    }

    fn count(&mut self, chunk: &TakenChunk) {
        let digests = self.digests.as_ref().expect("a chunk is opened with the keys of a connection");
        let progress = &mut self.parts[chunk.part.0 as usize];
        assert_eq!(progress.chunks().next_index(), chunk.index, "chunks are taken in order");
        if let Verified::Nothing = progress.verified {
            progress.verified = Verified::Some(Box::new(digests.part_root(chunk.part)));
        }
        let Verified::Some(root) = &mut progress.verified else { unreachable!("a whole part takes no chunk") };
        root.add(&chunk.hash, chunk.plain_bytes);
        if self.durability == Durability::Journal {
            // It was durable there before the target had it.
            progress.durable = root.chunks();
        }
        if chunk.last {
            let whole = WholePart::of(chunk.part, root);
            self.handle_whole(whole);
        }
        self.moved.insert(chunk.part);
    }

    /// The target has finished a part.
    pub fn handle_finished(&mut self, part: PartIndex) {
        self.handle_synced(part, ChunkCount(u64::MAX));
        self.finish(part, self.durability == Durability::Parts);
    }

    fn finish(&mut self, part: PartIndex, durable: bool) {
        let progress = &mut self.parts[part.0 as usize];
        if durable {
            progress.durable = progress.chunks();
        }
        if !std::mem::replace(&mut progress.finished, true) {
            self.unfinished[self.plan.parts[part.0 as usize].section as usize] -= 1;
        }
        self.moved.insert(part);
    }

    /// Once the manifest is here and the target has finished every part: whether what arrived is
    /// what the manifest states (fault X13). Fails with `ManifestMismatch`, or with `SourceEmpty`
    /// if nothing was moved and that was not allowed. `None` before that.
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

    /// Signs the receipt over the manifest, if the evidence matches it. Fails with the code of
    /// [`Receipt::check`].
    pub fn receipt(
        &self,
        session: &ReceiverSession,
        facts: ReceiptFacts,
        signer: &dyn Signer,
    ) -> Result<SignedReceipt> {
        let manifest = self.manifest.clone().ok_or(Error::new(Code::Internal, "receipt before the manifest"))?;
        // A later grant may resume what began under an earlier one, and the clock may have been set
        // back.
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
            target: facts.target,
            audit_head: facts.audit_head,
            policy: None,
        };
        receipt.check()?;
        Ok(receipt.sign(signer))
    }
}

/// The fields of a receipt that the state machine does not know.
pub struct ReceiptFacts {
    /// What was found in the target.
    pub evidence: Evidence,
    /// The connection; `None` for an archive.
    pub link: Option<LinkEvidence>,
    /// When the transfer began, in milliseconds since the Unix epoch by the receiver's clock.
    pub started_ms: u64,
    /// When the load was proven, by the same clock.
    pub finished_ms: u64,
    /// The version of the receiver.
    pub software: String,
    /// The name of the target host.
    pub target_host: String,
    /// What was loaded into there.
    pub target: String,
    /// The head of the receiver's audit log.
    pub audit_head: Option<AuditHead>,
}
