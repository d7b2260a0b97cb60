//! The sender's side of a transfer, without I/O: messages and facts in, messages and permissions
//! out.
//!
//! ```text
//! SenderTransfer::offer ─▶ Offering ─handle_accept─▶ Accepted ─SenderRecord::begin─▶ Beginning
//!                          ─handle_ready─▶ SenderSession
//! SenderTransfer: resume, poll_start, poll_lane, handle_source_end, handle_ack, poll_manifest,
//!                 handle_receipt; from a spool also: handle_spool, poll_spooled
//! SenderRecord: handle_accepted, begin, handle_all_sent, finish; handle_written before each of
//!               begin and finish
//! ```
//!
//! A state of the exchange is consumed by moving on, so that a message out of turn does not
//! compile. [`SenderTransfer`] holds what outlives a connection: what was sent of each part, what
//! of it the receiver has, and what it may yet ask for again.

mod exchange;
mod finish;
mod lane;
mod part;
mod read_queue;
mod record;
mod resume;
mod spool;
mod tally;

use std::{collections::VecDeque, sync::Arc};

pub use self::{
    exchange::{Accepted, Beginning, ExpectedReceiver, Offering, SenderSession},
    lane::{LaneStep, Read, SourceLane, WasRead},
    part::Resume,
    read_queue::ReadQueue,
    record::{SenderRecord, Sent},
    resume::Readable,
    spool::{SPOOLED_PART, Spool, SpoolContents, SpoolFilling, SpoolLane, SpoolStep, SpooledStep, WholeSpool},
};
use self::{
    part::{Kept, SentProgress, count_all, weight},
    tally::{PartState, Tally},
};
use crate::{
    chunk::{ChunkHash, Sealed},
    close::Code,
    codec,
    digest::{Digests, RowsDigest},
    disposition::Asks,
    error::{Error, Result},
    frame::{ChunkHeader, StreamHeader},
    grant::SignedGrant,
    id::{ChunkCount, Epoch, PartIndex},
    key::DigestSecret,
    limits::{LANE_WINDOW_BYTES_MAX, LANES_MAX, STREAMS_MAX},
    manifest::{Origin, Plan, Section, SignedManifest},
    message::{Ack, Message, Offer, VERSION},
    random::{Nonce, Random},
    receive::Window,
    seal::{EpochKeys, Suite, reseal},
    transcript::{Channel, Transcript},
};

/// One transfer at its sender, over all its connections.
pub struct SenderTransfer {
    suites: Vec<Suite>,
    /// The suites with which a connection of this transfer was agreed on, in this process or an
    /// earlier one.
    agreed: Vec<Suite>,
    grant: SignedGrant,
    plan: Plan,
    digest_secret: DigestSecret,
    digests: Digests,
    parts: Vec<SentProgress>,
    manifest: Option<SignedManifest>,
    spool: Option<Spool>,
    /// The epoch of the last connection that was agreed on; 0 before the first of this process.
    epoch: Epoch,
    /// All parts before this one have started on this connection.
    started_to: usize,
    tally: Tally,
    /// What this side has memory for, which may be less than the receiver allows.
    window_max: Window,
    /// The origin of the data, for the manifest.
    origin: Origin,
}

impl SenderTransfer {
    /// A transfer of which nothing was sent. Fails if the plan, the origin or a limit of the grant
    /// is not acceptable, with the code of its check.
    pub fn new(
        suites: Vec<Suite>,
        grant: SignedGrant,
        plan: Plan,
        digest_secret: DigestSecret,
        origin: Origin,
    ) -> Result<Self> {
        plan.check()?;
        origin.check()?;
        grant.grant.check_enforced()?;
        let digests = Digests::new(&digest_secret);
        let parts = (0..plan.parts.len() as u32).map(|index| SentProgress {
            root: digests.part_root(PartIndex(index)),
            verified_root: digests.part_root(PartIndex(index)),
            verified_last: false,
            kept: VecDeque::new(),
            kept_bytes: 0,
            verified: ChunkCount(0),
            durable: ChunkCount(0),
            started: false,
            sent_whole: false,
            ended: None,
            to_prove: None,
            settled: false,
            spooled: None,
            counted: PartState::default(),
        });
        let mut parts: Vec<_> = parts.collect();
        let tally = count_all(&mut parts, &plan);
        let window_max = Window { lanes: LANES_MAX, lane_bytes: LANE_WINDOW_BYTES_MAX };
        Ok(Self {
            parts,
            suites,
            agreed: Vec::new(),
            grant,
            plan,
            digest_secret,
            digests,
            manifest: None,
            spool: None,
            epoch: Epoch(0),
            started_to: 0,
            tally,
            window_max,
            origin,
        })
    }

    /// Bounds the chunks that are kept until they are acknowledged to `memory_bytes`.
    pub fn within(self, memory_bytes: u64) -> Self {
        Self { window_max: Window::share(memory_bytes, self.plan.parts.len()), ..self }
    }

    /// The plan that is offered.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The hash keys of the transfer.
    pub fn digests(&self) -> &Digests {
        &self.digests
    }

    /// Starts the exchange on a new connection. `asks` says whether to resume or to start over.
    pub fn offer(
        &self,
        channel: &Channel,
        expected: ExpectedReceiver,
        asks: Asks,
        now_seconds: u64,
        random: &mut dyn Random,
    ) -> (Offering, Message) {
        let mut nonce = [0; 32];
        random.fill(&mut nonce);
        let offer = Message::Offer(Offer {
            versions: vec![VERSION],
            suites: self.suites.iter().map(|&suite| suite.into()).collect(),
            grant: self.grant.clone(),
            plan: self.plan.clone(),
            nonce,
            fresh: asks == Asks::StartOver,
            now_seconds,
        });
        let mut transcript = Transcript::new(channel, &self.grant);
        transcript.absorb(&codec::encode(&offer));
        let offering =
            Offering { offered_suites: self.suites.clone(), grant: self.grant.clone(), asks, transcript, expected };
        (offering, offer)
    }

    /// Restores the manifest that an earlier process sent: if the receiver has everything, nothing
    /// is read again.
    pub fn handle_earlier(&mut self, manifest: SignedManifest) {
        self.manifest = Some(manifest);
    }

    /// Whether the receiver is known to have anything.
    pub fn has_anything(&self) -> bool {
        (0..self.parts.len() as u32).any(|part| self.held(PartIndex(part)).0 > 0)
    }

    /// The number of chunks of a part that the receiver has and that are not sent again.
    pub fn held(&self, part: PartIndex) -> ChunkCount {
        let progress = &self.parts[part.0 as usize];
        progress.to_prove.map_or(progress.verified, |have| have.verified)
    }

    /// Whether the part needs a lane on this connection: something of it is yet to be sent, or to
    /// be read again.
    pub fn is_open(&self, part: PartIndex) -> bool {
        !self.parts[part.0 as usize].is_verified()
    }

    /// The next chunk that was sent over an earlier connection and that the receiver does not have,
    /// sealed for this one; `None` when there is no more.
    pub fn poll_resend(
        &mut self,
        part: PartIndex,
        session: &SenderSession,
        mut draw: impl FnMut() -> Result<Nonce>,
    ) -> Result<Option<Sealed>> {
        let progress = &mut self.parts[part.0 as usize];
        // The keys are compared, not the epochs: a receiver that was restored from a snapshot uses
        // the same epochs again.
        let stale = |kept: &&mut Kept| !Arc::ptr_eq(&kept.keys, &session.keys);
        let Some(kept) = progress.kept.iter_mut().find(stale) else { return Ok(None) };
        let sealed = reseal(&kept.sealed, &kept.keys, &session.keys, draw()?)?;
        progress.kept_bytes = progress.kept_bytes - weight(&kept.sealed.header) + weight(&sealed.header);
        *kept = Kept { sealed: sealed.clone(), keys: Arc::clone(&session.keys) };
        self.count(part);
        Ok(Some(sealed))
    }

    /// A chunk that the receiver has was read again. After the last of them the part must be what
    /// was sent before, or this fails with `SourceChanged`.
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
        progress.verified_root = progress.root.clone();
        progress.verified_last = have.ended;
        (progress.verified, progress.durable) = (have.verified, have.durable);
        self.count(part);
        Ok(())
    }

    /// Whether a part may start now: parts start in the order of the plan, those that must be
    /// loaded before this one are verified, and a lane and a stream are free. A lane is free again
    /// when all of its part was sent, and a stream when all of it is verified, which takes a round
    /// trip more.
    pub fn may_start(&self, part: PartIndex, session: &SenderSession) -> bool {
        let place = part.0 as usize;
        let in_turn = !self.parts[place].started && self.started_to >= place;
        let section = self.plan.parts[place].section;
        let has_lane = self.tally.sending.len() < session.lanes.into();
        let has_stream = self.tally.in_flight < STREAMS_MAX.into();
        in_turn && self.tally.may_follow(section) && has_lane && has_stream
    }

    /// Updates the counts after a change of this part.
    fn count(&mut self, part: PartIndex) {
        let place = part.0 as usize;
        self.parts[place].count_again(&mut self.tally, part, self.plan.parts[place].section);
        self.parts[place].shrink();
    }

    /// The next part that has to be sent on this connection, whether or not it may start now.
    pub fn next_part(&self) -> Option<PartIndex> {
        let waits = |part: &PartIndex| !self.parts[part.0 as usize].started && self.is_open(*part);
        (self.started_to as u32..self.parts.len() as u32).map(PartIndex).find(waits)
    }

    /// What the stream of a part begins with, when the first chunk is sent that the receiver lacks.
    pub fn stream_header(&self, part: PartIndex) -> StreamHeader {
        StreamHeader { part, first: self.held(part).next_index() }
    }

    /// The next part to open a stream for, if one may start now. Call it until it returns `None`.
    /// Parts that the receiver has completely are skipped.
    pub fn poll_start(&mut self, session: &SenderSession) -> Option<PartIndex> {
        while let Some(progress) = self.parts.get(self.started_to) {
            let part = PartIndex(self.started_to as u32);
            if progress.is_verified() {
                self.handle_start(part);
                continue;
            }
            if !self.may_start(part, session) {
                return None;
            }
            self.handle_start(part);
            return Some(part);
        }
        None
    }

    /// A part's stream was opened.
    pub fn handle_start(&mut self, part: PartIndex) {
        self.parts[part.0 as usize].started = true;
        self.count(part);
        while self.parts.get(self.started_to).is_some_and(|part| part.started) {
            self.started_to += 1;
        }
    }

    /// All of a part was sent on this connection.
    pub fn handle_stream_end(&mut self, part: PartIndex) {
        self.parts[part.0 as usize].sent_whole = true;
        self.count(part);
    }

    /// Whether a chunk fits the window of its part, and that of all parts.
    ///
    /// A part that is sent has the whole window of its lane, and leaves the lanes of earlier parts
    /// theirs: where a target has one writer, nothing of a later part is acknowledged before the
    /// earlier ones are there. What is left is for parts that were sent whole. A single chunk of
    /// the earliest part may always be sent, whatever its size.
    pub fn may_send(&self, header: &ChunkHeader, session: &SenderSession) -> bool {
        let kept_bytes = self.parts[header.part.0 as usize].kept_bytes;
        let earlier = self.tally.sending.range(..header.part).count() as u64;
        if earlier == 0 && kept_bytes == 0 {
            return true;
        }
        let window = session.lane_window_bytes;
        let with_it = kept_bytes + weight(header);
        let of_all = earlier * window + self.tally.sent_bytes + with_it;
        (kept_bytes == 0 || with_it <= window) && of_all <= window * u64::from(session.lanes)
    }

    /// A chunk is sent, sealed with these keys. It is kept until it is acknowledged.
    pub fn handle_sealed(&mut self, sealed: &Sealed, keys: &Arc<EpochKeys>) {
        let progress = &mut self.parts[sealed.header.part.0 as usize];
        assert_eq!(progress.root.chunks().next_index(), sealed.header.index, "chunks of a part are sent in order");
        progress.root.add(&sealed.hash, sealed.header.plain_bytes.into());
        progress.kept.push_back(Kept { sealed: sealed.clone(), keys: Arc::clone(keys) });
        progress.kept_bytes += weight(&sealed.header);
        self.count(sealed.header.part);
    }

    /// A part's last chunk was sent. `rows` is the digest of its rows, and is ignored for a part
    /// without rows.
    pub fn handle_part_end(&mut self, part: PartIndex, rows: RowsDigest) {
        let has_rows = self.plan.section(part) == Some(Section::Data);
        self.parts[part.0 as usize].ended = Some(if has_rows { rows } else { RowsDigest::default() });
        self.count(part);
    }

    /// The number of parts that the receiver has verified to their end.
    pub fn parts_verified(&self) -> u64 {
        self.tally.verified as u64
    }

    /// Takes an acknowledgement, and returns whether it is progress. Impossible counts are
    /// `AckImpossible` (fault X12).
    pub fn handle_ack(&mut self, ack: &Ack) -> Result<bool> {
        let impossible = |check| Err(Error::new(Code::AckImpossible, check).at_part(ack.part));
        let Some(progress) = self.parts.get_mut(ack.part.0 as usize) else {
            return impossible("no such part");
        };
        if progress.settled {
            return Ok(false);
        }
        if let Some(have) = &mut progress.to_prove {
            // Nothing is sent before the comparison has ended: the counts can only have become
            // durable.
            if ack.verified != have.verified || !(have.durable..=have.verified).contains(&ack.durable) {
                return impossible("a part that is read again");
            }
            let is_more = ack.durable > have.durable;
            have.durable = ack.durable;
            return Ok(is_more);
        }
        if ack.verified > progress.sent() {
            return impossible("more chunks than were sent");
        }
        if ack.verified < progress.verified || ack.durable < progress.durable || ack.durable > ack.verified {
            return impossible("counts go backwards");
        }
        let is_more = ack.verified > progress.verified || ack.durable > progress.durable;
        progress.forget(ack.verified);
        progress.durable = ack.durable;
        self.count(ack.part);
        Ok(is_more)
    }
}
