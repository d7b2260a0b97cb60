//! The sender's side of a transfer, without I/O: messages and facts in, messages and permissions out.
//!
//! ```text
//! Transfer::offer ─▶ Offering ─handle_accept─▶ Beginning ─handle_ready─▶ Session      one a connection
//! Transfer: handle_have, may_start, handle_start, poll_resend, handle_repeated, may_send, handle_sealed, handle_ack,
//!           handle_part_end, poll_finish, handle_receipt
//! ```
//!
//! A state of the exchange is consumed by moving on, so that a message out of turn does not compile. [`Transfer`] holds
//! what outlives a connection: what was sent of each part, what of it the receiver has, and what it may yet ask for again.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    chunk::{ChunkHash, Sealed},
    close::Code,
    codec,
    digest::{Digests, PartRoot, Root},
    envelope::KeyEnvelope,
    error::{Error, Result},
    grant::SignedGrant,
    id::{ChunkCount, PartIndex},
    key::{DigestSecret, EpochSecret},
    limits::{EPOCH_MAX, LANE_WINDOW_BYTES_MAX, LANE_WINDOW_BYTES_MIN, LANES_MAX},
    manifest::{Manifest, PartKind, Plan, SentPart, SignedManifest, SignedReceipt},
    message::{Accept, Ack, Begin, BeginBody, Have, Message, Offer, Ready, VERSION},
    random::{Nonce, Random},
    seal::{EpochKeys, Suite, reseal},
    sign::{PublicKey, Purpose, Signer},
    transcript::{Channel, Transcript},
};

/// One transfer as its sender knows it, over all its connections.
pub struct Transfer {
    suites: Vec<Suite>,
    grant: SignedGrant,
    plan: Plan,
    digest_secret: DigestSecret,
    digests: Digests,
    parts: Vec<PartProgress>,
    manifest: Option<SignedManifest>,
}

/// What was sent of one part.
struct PartProgress {
    /// Over the chunks sent, or read again and found to be what the receiver has.
    root: PartRoot,
    /// Chunks sent and not yet verified, oldest first.
    kept: VecDeque<Kept>,
    kept_bytes: u64,
    verified: ChunkCount,
    durable: ChunkCount,
    /// On this connection.
    started: bool,
    ended: Option<(u64, Option<Root>)>,
    /// What the receiver has of a part that is being read again, until it is proven to be the same.
    to_prove: Option<Have>,
    /// The receiver has all of it, as an earlier process of this sender said in its manifest.
    settled: bool,
}

/// A chunk that may have to be sent again, and what opens it. It costs no copy: the link holds the same bytes.
struct Kept {
    sealed: Sealed,
    keys: Arc<EpochKeys>,
}

/// How a part goes on over a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// From where its reading stopped; what was sent and is missing is still here.
    Continue,
    /// It has to be read again from its beginning.
    Repeat,
}

/// Offer sent.
pub struct Offering {
    offered_suites: Vec<Suite>,
    grant: SignedGrant,
    fresh: bool,
    transcript: Transcript,
    receiver_key: PublicKey,
}

/// Begin sent.
pub struct Beginning {
    session: Session,
    transcript_hash: [u8; 32],
}

/// What was agreed for one connection: data may flow.
pub struct Session {
    pub keys: Arc<EpochKeys>,
    pub lanes: u16,
    pub lane_window_bytes: u64,
    /// What the receiver has already, for [`Transfer::handle_have`]; empty on a first connection.
    pub have: Vec<Have>,
    pub receiver_key: PublicKey,
    pub sender_key: PublicKey,
}

impl PartProgress {
    fn is_verified(&self) -> bool {
        self.settled || self.ended.is_some() && self.verified == self.root.chunks()
    }

    fn is_durable(&self) -> bool {
        self.settled || self.ended.is_some() && self.durable == self.root.chunks()
    }

    /// The receiver has this many: they need not be kept.
    fn forget(&mut self, verified: ChunkCount) {
        for _ in self.verified.0..verified.0 {
            self.kept_bytes -= self.kept.pop_front().map_or(0, |kept| weight(&kept.sealed));
        }
        self.verified = verified;
    }

    /// `again` says that it has to be read again, whatever is still here.
    fn handle_have(
        &mut self,
        have: Option<&Have>,
        again: bool,
        fresh_root: impl FnOnce() -> PartRoot,
    ) -> Result<Resume> {
        self.started = false;
        let verified = have.map_or(ChunkCount(0), |have| have.verified);
        let sent = self.root.chunks();
        let read_before = sent.0 > 0 && self.to_prove.is_none();
        if read_before && verified > sent {
            return Err(Error::new(Code::AckImpossible, "more chunks than were sent"));
        }
        let still_here = !again && self.to_prove.is_none() && (self.verified..=sent).contains(&verified);
        if still_here {
            self.forget(verified);
            self.durable = have.map_or(ChunkCount(0), |have| have.durable);
            return Ok(Resume::Continue);
        }
        self.root = fresh_root();
        self.kept.clear();
        (self.kept_bytes, self.verified, self.durable) = (0, ChunkCount(0), ChunkCount(0));
        self.ended = None;
        self.to_prove = have.copied();
        Ok(Resume::Repeat)
    }
}

impl Transfer {
    pub fn new(suites: Vec<Suite>, grant: SignedGrant, plan: Plan, digest_secret: DigestSecret) -> Result<Self> {
        plan.check()?;
        let digests = Digests::new(&digest_secret);
        let parts = (0..plan.parts.len() as u32).map(|index| PartProgress {
            root: digests.part_root(PartIndex(index)),
            kept: VecDeque::new(),
            kept_bytes: 0,
            verified: ChunkCount(0),
            durable: ChunkCount(0),
            started: false,
            ended: None,
            to_prove: None,
            settled: false,
        });
        Ok(Self { parts: parts.collect(), suites, grant, plan, digest_secret, digests, manifest: None })
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    pub fn digests(&self) -> &Digests {
        &self.digests
    }

    /// Opens the exchange on a new connection to the holder of `receiver_key`. `fresh` asks it to drop what it has.
    pub fn offer(
        &self,
        channel: &Channel,
        receiver_key: PublicKey,
        fresh: bool,
        random: &mut dyn Random,
    ) -> (Offering, Message) {
        let mut nonce = [0; 32];
        random.fill(&mut nonce);
        let offer = Message::Offer(Offer {
            versions: vec![VERSION],
            suites: self.suites.clone(),
            grant: self.grant.clone(),
            plan: self.plan.clone(),
            nonce,
            fresh,
        });
        let mut transcript = Transcript::new(channel, &self.grant);
        transcript.absorb(&codec::encode(&offer));
        let offering = Offering {
            offered_suites: self.suites.clone(),
            grant: self.grant.clone(),
            fresh,
            transcript,
            receiver_key,
        };
        (offering, offer)
    }

    /// A new connection stands, and the receiver has this much: says how each part goes on. Parts to be repeated start as
    /// if nothing of them had been sent.
    ///
    /// After a part that is read again, every part whose reading had not ended is read again too. A source reads its parts
    /// in the order in which it is asked: it would be waiting to hand on more of the later part, whose turn comes only when
    /// the earlier one is through.
    pub fn handle_have(&mut self, have: &[Have]) -> Result<Vec<Resume>> {
        if self.is_as_sent(have) {
            self.parts.iter_mut().for_each(|progress| (progress.settled, progress.started) = (true, false));
            return Ok(vec![Resume::Continue; self.parts.len()]);
        }
        self.parts.iter_mut().for_each(|progress| progress.settled = false);
        // Nothing was read by this process, and the receiver lacks something of what an earlier one had sent.
        let unread = self.manifest.is_some() && self.parts.iter().any(|progress| progress.ended.is_none());
        let mut have = have.iter().peekable();
        let digests = &self.digests;
        let mut repeated = false;
        let resumed = self.parts.iter_mut().zip(0..).map(|(progress, index)| {
            let part = PartIndex(index);
            let again = unread || repeated && progress.ended.is_none();
            let have = have.next_if(|have| have.part == part);
            let resume = progress.handle_have(have, again, || digests.part_root(part))?;
            repeated |= resume == Resume::Repeat;
            Ok(resume)
        });
        let resumed = resumed.collect::<Result<Vec<_>>>()?;
        if resumed.contains(&Resume::Repeat) {
            self.manifest = None;
        }
        Ok(resumed)
    }

    /// The manifest that an earlier process of this sender sent: if the receiver has all of it, nothing is read again.
    pub fn handle_earlier(&mut self, manifest: SignedManifest) {
        self.manifest = Some(manifest);
    }

    /// Whether the receiver has all that the manifest says.
    fn is_as_sent(&self, have: &[Have]) -> bool {
        let Some(manifest) = &self.manifest else { return false };
        let sent = &manifest.manifest.parts;
        let same =
            |(have, sent): (&Have, &SentPart)| (have.ended, have.verified, have.root) == (true, sent.chunks, sent.root);
        have.len() == sent.len() && have.iter().zip(sent).all(same)
    }

    /// Chunks of a part that the receiver has and that are not sent again.
    pub fn held(&self, part: PartIndex) -> ChunkCount {
        let progress = &self.parts[part.0 as usize];
        progress.to_prove.map_or(progress.verified, |have| have.verified)
    }

    /// Whether the part needs a lane on this connection: something of it is yet to be sent, or to be read again.
    pub fn is_open(&self, part: PartIndex) -> bool {
        !self.parts[part.0 as usize].is_verified()
    }

    /// The next chunk that was sent over an earlier connection and that the receiver does not have, sealed for this one.
    pub fn poll_resend(&mut self, part: PartIndex, session: &Session, nonce: Nonce) -> Result<Option<Sealed>> {
        let progress = &mut self.parts[part.0 as usize];
        // By the keys themselves: a receiver that was restored from a snapshot counts its epochs from there again.
        let stale = |kept: &&mut Kept| !Arc::ptr_eq(&kept.keys, &session.keys);
        let Some(kept) = progress.kept.iter_mut().find(stale) else { return Ok(None) };
        let sealed = reseal(&kept.sealed, &kept.keys, &session.keys, nonce)?;
        progress.kept_bytes = progress.kept_bytes - weight(&kept.sealed) + weight(&sealed);
        *kept = Kept { sealed: sealed.clone(), keys: Arc::clone(&session.keys) };
        Ok(Some(sealed))
    }

    /// A chunk that the receiver has was read again. After the last of them the part must be what was sent before.
    pub fn handle_repeated(&mut self, part: PartIndex, hash: &ChunkHash, plain_bytes: u64, last: bool) -> Result<()> {
        let progress = &mut self.parts[part.0 as usize];
        let changed = Err(Error::new(Code::SourceChanged, "what was sent before").at_part(part));
        let Some(have) = progress.to_prove else {
            return Err(Error::new(Code::Internal, "nothing to prove").at_part(part));
        };
        progress.root.add(hash, plain_bytes);
        if progress.root.chunks() < have.verified {
            return if last { changed } else { Ok(()) };
        }
        if progress.root.root() != have.root || last != have.ended {
            return changed;
        }
        progress.to_prove = None;
        (progress.verified, progress.durable) = (have.verified, have.durable);
        Ok(())
    }

    /// Whether a part may start now: parts start in the order of the plan, those that must be loaded before this one are
    /// durable, and a lane is free. A lane is free again when all of its part is verified, and not when the last byte was
    /// handed to the link: only then does the receiver, too, count the part as no longer in flight.
    pub fn may_start(&self, part: PartIndex, session: &Session) -> bool {
        let kind = self.plan.parts[part.0 as usize].kind;
        let (earlier, rest) = self.parts.split_at(part.0 as usize);
        let in_turn = rest.first().is_some_and(|part| !part.started) && earlier.iter().all(|part| part.started);
        let mut needed = earlier.iter().zip(&self.plan.parts).filter(|(_, planned)| planned.kind < kind);
        let in_flight = earlier.iter().filter(|part| !part.is_verified()).count();
        in_turn && needed.all(|(part, _)| part.is_durable()) && in_flight < session.lanes.into()
    }

    /// A part's stream is opened.
    pub fn handle_start(&mut self, part: PartIndex) {
        self.parts[part.0 as usize].started = true;
    }

    /// Whether a chunk fits the window of its part. One chunk always does, or nothing would ever move.
    pub fn may_send(&self, sealed: &Sealed, session: &Session) -> bool {
        let progress = &self.parts[sealed.header.part.0 as usize];
        progress.kept.is_empty() || progress.kept_bytes + weight(sealed) <= session.lane_window_bytes
    }

    /// A chunk goes out, sealed with these keys.
    pub fn handle_sealed(&mut self, sealed: &Sealed, keys: &Arc<EpochKeys>) {
        let progress = &mut self.parts[sealed.header.part.0 as usize];
        assert_eq!(progress.root.chunks().next_index(), sealed.header.index, "chunks of a part are sent in order");
        progress.root.add(&sealed.hash, sealed.header.plain_bytes.into());
        progress.kept.push_back(Kept { sealed: sealed.clone(), keys: Arc::clone(keys) });
        progress.kept_bytes += weight(sealed);
    }

    /// A part's last chunk went out. `rows` and `digest` are those of its rows; other kinds of parts have none.
    pub fn handle_part_end(&mut self, part: PartIndex, rows: u64, digest: Option<Root>) {
        let has_rows = self.plan.parts[part.0 as usize].kind == PartKind::Rows;
        self.parts[part.0 as usize].ended = Some(if has_rows { (rows, digest) } else { (0, None) });
    }

    /// Parts that were read to their end, and their rows.
    pub fn ended(&self) -> (u64, u64) {
        let ended = self.parts.iter().filter_map(|part| part.ended);
        ended.fold((0, 0), |(parts, rows), (more, _)| (parts + 1, rows + more))
    }

    /// The receiver has more of a part than before. Refuses what cannot be (fault-matrix X12).
    pub fn handle_ack(&mut self, ack: &Ack) -> Result<()> {
        let impossible = |check| Err(Error::new(Code::AckImpossible, check).at_part(ack.part));
        let Some(progress) = self.parts.get_mut(ack.part.0 as usize) else {
            return impossible("no such part");
        };
        if progress.settled {
            return Ok(());
        }
        if let Some(have) = &mut progress.to_prove {
            // Nothing is sent before what is there is proven: it can only have become durable.
            if ack.verified != have.verified || !(have.durable..=have.verified).contains(&ack.durable) {
                return impossible("a part that is read again");
            }
            have.durable = ack.durable;
            return Ok(());
        }
        if ack.verified > progress.root.chunks() {
            return impossible("more chunks than were sent");
        }
        if ack.verified < progress.verified || ack.durable < progress.durable || ack.durable > ack.verified {
            return impossible("counts go backwards");
        }
        progress.forget(ack.verified);
        progress.durable = ack.durable;
        Ok(())
    }

    /// The manifest, once every part has ended and every chunk is verified; the same one each time it is asked for.
    pub fn poll_finish(&mut self, signer: &dyn Signer) -> Option<Message> {
        if self.manifest.is_none() {
            if !self.parts.iter().all(PartProgress::is_verified) {
                return None;
            }
            self.manifest = Some(self.make_manifest().sign(signer));
        }
        self.manifest.clone().map(Message::Finish)
    }

    /// The manifest that was sent, if it was.
    pub fn manifest(&self) -> Option<&SignedManifest> {
        self.manifest.as_ref()
    }

    fn make_manifest(&self) -> Manifest {
        let transfer = self.grant.grant.transfer;
        let sent = self.parts.iter().map(|part| {
            let (rows, digest) = part.ended.unwrap_or((0, None));
            SentPart {
                chunks: part.root.chunks(),
                plain_bytes: part.root.plain_bytes(),
                root: part.root.root(),
                rows,
                digest,
            }
        });
        let parts: Vec<SentPart> = sent.collect();
        Manifest {
            transfer,
            grant_hash: self.grant.hash(),
            plan_hash: self.plan.hash(),
            root: self.digests.transfer_root(transfer, parts.iter().map(|part| part.root)),
            parts,
        }
    }

    /// The receipt is good if the receiver signed it, over the very manifest that was sent, and loaded what was sent.
    pub fn handle_receipt(&self, receipt: &SignedReceipt, session: &Session) -> Result<()> {
        let wrong = |check| Err(Error::new(Code::AckImpossible, check));
        let Some(manifest) = &self.manifest else {
            return wrong("receipt before the manifest");
        };
        if receipt.receipt.receiver_key != session.receiver_key {
            return wrong("receipt of another receiver");
        }
        if receipt.receipt.sender_key != session.sender_key || receipt.receipt.suite != session.keys.suite() {
            return wrong("receipt for another sender or suite");
        }
        if receipt.receipt.manifest != *manifest || receipt.receipt.grant != self.grant {
            return wrong("receipt for another manifest or grant");
        }
        receipt.verify()
    }
}

/// What a chunk counts for in a window: its plaintext or its frame, whichever is more. Counting frames alone, a dump that
/// compresses well would run far ahead of a slow loader.
fn weight(sealed: &Sealed) -> u64 {
    (sealed.frame.len() as u64).max(sealed.header.plain_bytes.into())
}

impl Offering {
    /// The receiver accepts: checks its signature and terms, makes this connection's keys, and seals them to it.
    pub fn handle_accept(
        mut self,
        transfer: &Transfer,
        accept: Accept,
        signer: &dyn Signer,
        random: &mut dyn Random,
    ) -> Result<(Beginning, Message)> {
        self.transcript.absorb(&codec::encode(&accept.body));
        let mismatch = Code::TranscriptMismatch;
        self.receiver_key.verify(Purpose::Accept, &self.transcript.hash(), &accept.signature, mismatch)?;
        self.check_terms(&accept)?;
        self.check_have(&accept.body.have, &transfer.plan)?;
        self.transcript.absorb(&accept.signature.0);

        let id = self.grant.grant.transfer;
        let body = accept.body;
        let secret = EpochSecret::generate(random);
        let begin = BeginBody {
            epoch: body.epoch,
            commitment: secret.commitment(id, body.epoch),
            envelope: KeyEnvelope::seal(
                &secret,
                &transfer.digest_secret,
                &body.sealing_key,
                &self.transcript.hash(),
                body.epoch,
                random,
            )?,
        };
        self.transcript.absorb(&codec::encode(&begin));
        let transcript_hash = self.transcript.hash();
        let signature = signer.sign(Purpose::Begin, &transcript_hash);
        let session = Session {
            keys: Arc::new(EpochKeys::new(body.suite, id, body.epoch, secret, transfer.digests.clone())),
            lanes: body.lanes,
            lane_window_bytes: body.lane_window_bytes,
            have: body.have,
            receiver_key: self.receiver_key,
            sender_key: signer.public_key(),
        };
        Ok((Beginning { session, transcript_hash }, Message::Begin(Begin { body: begin, signature })))
    }

    fn check_terms(&self, accept: &Accept) -> Result<()> {
        let body = &accept.body;
        if body.version != VERSION {
            return Err(Error::new(Code::VersionUnsupported, "version was not offered"));
        }
        if !self.offered_suites.contains(&body.suite) {
            return Err(Error::new(Code::SuiteUnsupported, "suite was not offered"));
        }
        if !(1..=EPOCH_MAX).contains(&body.epoch.0) {
            return Err(Error::new(Code::LimitExceeded, "epoch"));
        }
        let window = LANE_WINDOW_BYTES_MIN..=LANE_WINDOW_BYTES_MAX;
        if !(1..=LANES_MAX).contains(&body.lanes) || !window.contains(&body.lane_window_bytes) {
            return Err(Error::new(Code::LimitExceeded, "window"));
        }
        Ok(())
    }

    /// What the receiver has: parts of the plan, in order, with counts that can be; nothing if it was asked to drop it.
    fn check_have(&self, have: &[Have], plan: &Plan) -> Result<()> {
        let in_order = have.is_sorted_by(|one, next| one.part < next.part);
        let counts = have.iter().all(|have| have.durable <= have.verified && have.verified.0 > 0);
        let in_plan = have.last().is_none_or(|last| (last.part.0 as usize) < plan.parts.len());
        match in_order && counts && in_plan && (have.is_empty() || !self.fresh) {
            true => Ok(()),
            false => Err(Error::new(Code::AckImpossible, "what the receiver has")),
        }
    }
}

impl Beginning {
    /// The receiver has the keys and the same transcript: data may flow.
    pub fn handle_ready(self, ready: Ready) -> Result<Session> {
        match ready.transcript == self.transcript_hash {
            true => Ok(self.session),
            false => Err(Error::new(Code::TranscriptMismatch, "transcript")),
        }
    }
}
