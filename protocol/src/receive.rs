//! The receiver's side of a transfer, without I/O: messages and facts in, messages and judgements out.
//!
//! ```text
//! Listening ─handle_offer─▶ Judging ─accept─▶ Accepting ─handle_begin─▶ Receiving
//! Receiving: handle_stream, may_begin, handle_begun, handle_header, handle_taken, handle_stream_end, handle_durable,
//!            poll_ack, handle_finish, poll_complete, receipt
//! ```
//!
//! The receiver alone decides what is missing. It judges a chunk's place by its header, before any byte of it is
//! decrypted, and counts a chunk as verified only when its sink has taken it.

use std::sync::Arc;

use crate::{
    chunk::TakenChunk,
    close::Code,
    codec,
    digest::{Digests, PartRoot, Root},
    envelope::{SealingKey, SealingPublicKey},
    error::{Error, Result},
    frame::{ChunkHeader, StreamHeader},
    grant::SignedGrant,
    id::{ChunkCount, Epoch, PartIndex},
    limits::{EPOCH_MAX, LANE_WINDOW_BYTES_MAX, LANE_WINDOW_BYTES_MIN, LANES_MAX},
    manifest::{LoadedPart, PartKind, Plan, Proof, Receipt, SignedManifest, SignedReceipt},
    message::{Accept, AcceptBody, Ack, Begin, Message, Offer, Ready},
    negotiate::{choose_suite, choose_version},
    random::Random,
    seal::{EpochKeys, Suite},
    sign::{PublicKey, Purpose, Signer},
    transcript::{Channel, Transcript},
};

/// What the receiver knows before the sender has said anything.
pub struct Listening {
    pub suites: Vec<Suite>,
    /// Keys whose grants count here.
    pub grant_keys: Vec<PublicKey>,
    /// This receiver's SPIFFE identity, and the one in the sender's certificate.
    pub receiver: String,
    pub sender: String,
    pub sender_key: PublicKey,
    /// Targets that a grant may name here.
    pub targets: Vec<String>,
}

/// The grant is good and the plan well formed; whether the target can take it is for the sink to say.
pub struct Judging {
    offer: Offer,
    suite: Suite,
    version: u16,
    sender_key: PublicKey,
    transcript: Transcript,
}

/// Accept sent.
pub struct Accepting {
    offer: Offer,
    suite: Suite,
    sender_key: PublicKey,
    epoch: Epoch,
    lanes: u16,
    transcript: Transcript,
}

/// What the receiver allows in flight.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub lanes: u16,
    pub lane_bytes: u64,
}

impl Window {
    /// Shares `bytes` evenly among as many lanes as get at least the least window each.
    pub fn share(bytes: u64, parts: usize) -> Self {
        let fitting = (bytes / LANE_WINDOW_BYTES_MIN).clamp(1, LANES_MAX.into());
        let lanes = fitting.min(parts as u64).max(1);
        Self { lanes: lanes as u16, lane_bytes: (bytes / lanes).clamp(LANE_WINDOW_BYTES_MIN, LANE_WINDOW_BYTES_MAX) }
    }
}

impl Listening {
    /// Judges an offer at `now_seconds`: version, suite, grant, who and where to, plan.
    pub fn handle_offer(self, offer: Offer, channel: &Channel, now_seconds: u64) -> Result<Judging> {
        let version = choose_version(&offer.versions)?;
        let suite = choose_suite(&offer.suites, &self.suites)?;
        offer.grant.verify(&self.grant_keys)?;
        offer.grant.grant.check_time(now_seconds)?;
        let grant = &offer.grant.grant;
        let foreign = |check| Err(Error::new(Code::GrantForeign, check));
        if grant.sender != self.sender {
            return foreign("sender");
        }
        if grant.receiver != self.receiver {
            return foreign("receiver");
        }
        if !self.targets.contains(&grant.target) {
            return foreign("target");
        }
        offer.plan.check()?;
        let mut transcript = Transcript::new(channel, &offer.grant);
        transcript.absorb(&codec::encode(&Message::Offer(offer.clone())));
        Ok(Judging { offer, suite, version, sender_key: self.sender_key, transcript })
    }
}

impl Judging {
    pub fn plan(&self) -> &Plan {
        &self.offer.plan
    }

    pub fn grant(&self) -> &SignedGrant {
        &self.offer.grant
    }

    /// The sink can take the plan: says so, with the terms.
    pub fn accept(
        mut self,
        epoch: Epoch,
        window: Window,
        sealing_key: SealingPublicKey,
        signer: &dyn Signer,
        random: &mut dyn Random,
    ) -> Result<(Accepting, Message)> {
        if !(1..=EPOCH_MAX).contains(&epoch.0) {
            return Err(Error::new(Code::LimitExceeded, "epoch"));
        }
        let mut nonce = [0; 32];
        random.fill(&mut nonce);
        let body = AcceptBody {
            version: self.version,
            suite: self.suite,
            sealing_key,
            epoch,
            lanes: window.lanes,
            lane_window_bytes: window.lane_bytes,
            have: Vec::new(),
            nonce,
        };
        self.transcript.absorb(&codec::encode(&body));
        let signature = signer.sign(Purpose::Accept, &self.transcript.hash());
        self.transcript.absorb(&signature.0);
        let accepting = Accepting {
            offer: self.offer,
            suite: self.suite,
            sender_key: self.sender_key,
            epoch,
            lanes: window.lanes,
            transcript: self.transcript,
        };
        Ok((accepting, Message::Accept(Accept { body, signature })))
    }
}

impl Accepting {
    /// Checks the sender's signature, opens its envelope and compares the commitment.
    pub fn handle_begin(mut self, begin: Begin, sealing_key: &SealingKey) -> Result<(Receiving, Message)> {
        let envelope_info = self.transcript.hash();
        self.transcript.absorb(&codec::encode(&begin.body));
        let transcript = self.transcript.hash();
        self.sender_key.verify(Purpose::Begin, &transcript, &begin.signature, Code::TranscriptMismatch)?;
        if begin.body.epoch != self.epoch {
            return Err(Error::new(Code::ProtocolViolation, "epoch"));
        }
        let (secret, digest_secret) = begin.body.envelope.open(sealing_key, &envelope_info, self.epoch)?;
        let transfer = self.offer.grant.grant.transfer;
        if secret.commitment(transfer, self.epoch) != begin.body.commitment {
            return Err(Error::new(Code::KeyCommitment, "key commitment"));
        }
        let digests = Digests::new(&digest_secret);
        let keys = EpochKeys::new(self.suite, transfer, self.epoch, secret, digests.clone());
        let parts = (0..self.offer.plan.parts.len() as u32).map(|index| PartProgress {
            root: digests.part_root(PartIndex(index)),
            received: ChunkCount(0),
            durable: ChunkCount(0),
            stream: Stream::None,
            begun: false,
            last_received: false,
            ended: false,
            acknowledged: None,
        });
        let receiving = Receiving {
            parts: parts.collect(),
            grant: self.offer.grant,
            plan: self.offer.plan,
            sender_key: self.sender_key,
            lanes: self.lanes,
            keys: Arc::new(keys),
            manifest: None,
        };
        Ok((receiving, Message::Ready(Ready { transcript })))
    }
}

/// Data may flow.
pub struct Receiving {
    grant: SignedGrant,
    plan: Plan,
    sender_key: PublicKey,
    lanes: u16,
    keys: Arc<EpochKeys>,
    parts: Vec<PartProgress>,
    manifest: Option<SignedManifest>,
}

/// What came of one part.
struct PartProgress {
    /// Over the chunks that the sink has taken.
    root: PartRoot,
    /// Chunks whose headers were judged good.
    received: ChunkCount,
    durable: ChunkCount,
    stream: Stream,
    /// The sink takes its chunks.
    begun: bool,
    last_received: bool,
    /// The sink has the last chunk.
    ended: bool,
    acknowledged: Option<(ChunkCount, ChunkCount)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    None,
    Open,
    Ended,
}

impl Receiving {
    pub fn keys(&self) -> &Arc<EpochKeys> {
        &self.keys
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// A stream says which part it carries.
    pub fn handle_stream(&mut self, header: StreamHeader) -> Result<()> {
        let part = header.part;
        let refuse = |code, check| Err(Error::new(code, check).at_part(part));
        // A part whose last chunk was acknowledged is no longer in flight for the sender, whether or not the end of its
        // stream was seen here.
        let in_flight = |progress: &&PartProgress| progress.stream == Stream::Open && !progress.ended;
        if self.parts.iter().filter(in_flight).count() >= self.lanes.into() {
            return refuse(Code::LimitExceeded, "parts in flight");
        }
        let Some(kind) = self.plan.parts.get(part.0 as usize).map(|planned| planned.kind) else {
            return refuse(Code::ProtocolViolation, "no such part");
        };
        let mut earlier = self.parts.iter().zip(&self.plan.parts).filter(|(_, planned)| planned.kind < kind);
        if !earlier.all(|(progress, _)| progress.ended && progress.durable == progress.root.chunks()) {
            return refuse(Code::ProtocolViolation, "part before those it depends on");
        }
        let progress = &mut self.parts[part.0 as usize];
        if progress.stream != Stream::None || header.first != progress.received.next_index() {
            return refuse(Code::ChunkOrder, "part is sent twice");
        }
        progress.stream = Stream::Open;
        Ok(())
    }

    /// Whether the sink may be asked to begin `part`: one part at a time, in the order of the plan. Streams arrive in any
    /// order; were a later part to take a target's one writer first, its sender might be waiting for the window of an
    /// earlier part, and neither would ever move.
    pub fn may_begin(&self, part: PartIndex) -> bool {
        self.parts[..part.0 as usize].iter().all(|progress| progress.begun)
    }

    /// The sink has begun `part`.
    pub fn handle_begun(&mut self, part: PartIndex) {
        self.parts[part.0 as usize].begun = true;
    }

    /// A chunk's header arrived on the stream of `part`: judges its place, before its bytes are read.
    pub fn handle_header(&mut self, part: PartIndex, header: &ChunkHeader) -> Result<()> {
        let refuse = |code, check| Err(Error::new(code, check).at_chunk(header.part, header.index));
        if header.part != part {
            return refuse(Code::ChunkForeign, "chunk of another part");
        }
        let progress = &mut self.parts[part.0 as usize];
        if progress.last_received {
            return refuse(Code::ChunkOrder, "chunk after the last");
        }
        if header.index != progress.received.next_index() {
            return refuse(Code::ChunkOrder, "chunk index");
        }
        progress.received.0 += 1;
        progress.last_received = header.last;
        Ok(())
    }

    /// The sink has taken a chunk.
    pub fn handle_taken(&mut self, chunk: &TakenChunk) {
        let progress = &mut self.parts[chunk.part.0 as usize];
        assert_eq!(progress.root.chunks().next_index(), chunk.index, "a sink takes chunks in order");
        progress.root.add(&chunk.hash, chunk.plain_bytes);
        progress.ended = chunk.last;
    }

    /// A part's stream ended cleanly: its last chunk must have come (fault-matrix X5).
    pub fn handle_stream_end(&mut self, part: PartIndex) -> Result<()> {
        let progress = &mut self.parts[part.0 as usize];
        progress.stream = Stream::Ended;
        match progress.last_received {
            true => Ok(()),
            false => Err(Error::new(Code::PartTruncated, "stream end").at_part(part)),
        }
    }

    /// All of a part is committed in the target.
    pub fn handle_durable(&mut self, part: PartIndex) {
        let progress = &mut self.parts[part.0 as usize];
        progress.durable = progress.root.chunks();
    }

    /// The next acknowledgement that is due. Several chunks of one part become one message.
    pub fn poll_ack(&mut self) -> Option<Message> {
        self.parts.iter_mut().enumerate().find_map(|(index, progress)| {
            let state = (progress.root.chunks(), progress.durable);
            let nothing_new = state.0.0 == 0 || progress.acknowledged == Some(state);
            if nothing_new {
                return None;
            }
            progress.acknowledged = Some(state);
            Some(Message::Ack(Ack { part: PartIndex(index as u32), verified: state.0, durable: state.1 }))
        })
    }

    /// The sender says what it sent. Judged here as far as a signature goes; the rest when all of it is there.
    pub fn handle_finish(&mut self, manifest: SignedManifest) -> Result<()> {
        if self.manifest.is_some() {
            return Err(Error::new(Code::ProtocolViolation, "second manifest"));
        }
        manifest.verify(&self.sender_key)?;
        self.manifest = Some(manifest);
        Ok(())
    }

    /// Once the manifest is here and the sink has finished every part: whether what arrived is what it says (fault-matrix X13).
    pub fn poll_complete(&self) -> Option<Result<()>> {
        let manifest = &self.manifest.as_ref()?.manifest;
        if !self.parts.iter().all(|part| part.ended && part.durable == part.root.chunks()) {
            return None;
        }
        let arrived = manifest.parts.len() == self.parts.len()
            && manifest.parts.iter().zip(&self.parts).all(|(sent, got)| {
                sent.chunks == got.root.chunks()
                    && sent.plain_bytes == got.root.plain_bytes()
                    && sent.root == got.root.root()
            });
        // The digest is what a table is read again for: without one, nothing would be compared.
        let described = manifest.parts.iter().zip(&self.plan.parts).all(|(sent, planned)| match planned.kind {
            PartKind::Rows => sent.digest.is_some(),
            _ => sent.rows == 0 && sent.digest.is_none(),
        });
        let transfer = self.grant.grant.transfer;
        let roots = self.parts.iter().map(|part| part.root.root());
        let fits = arrived
            && described
            && manifest.transfer == transfer
            && manifest.grant_hash == self.grant.hash()
            && manifest.plan_hash == self.plan.hash()
            && manifest.root == self.keys.digests().transfer_root(transfer, roots);
        Some(if fits { Ok(()) } else { Err(Error::new(Code::ManifestMismatch, "manifest")) })
    }

    /// Counter-signs the manifest, if what the target holds is what it says.
    pub fn receipt(&self, facts: ReceiptFacts, signer: &dyn Signer) -> Result<SignedReceipt> {
        let manifest = self.manifest.clone().ok_or(Error::new(Code::Internal, "receipt before the manifest"))?;
        let receipt = Receipt {
            manifest,
            plan: self.plan.clone(),
            loaded: facts.loaded,
            proof: facts.proof,
            grant: self.grant.clone(),
            sender_key: self.sender_key,
            receiver_key: signer.public_key(),
            suite: self.keys.suite(),
            tls: facts.tls,
            started_ms: facts.started_ms,
            finished_ms: facts.finished_ms,
            software: facts.software,
        };
        receipt.check_loaded()?;
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

/// What a receipt says that the state machine cannot know.
pub struct ReceiptFacts {
    pub proof: Proof,
    pub loaded: Vec<LoadedPart>,
    pub tls: String,
    pub started_ms: u64,
    pub finished_ms: u64,
    pub software: String,
}
