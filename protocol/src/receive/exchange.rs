//! The receiver's side of the exchange before data flows (`docs/protocol.md`, section 5).

use std::sync::Arc;

use super::{Agreed, ReceiverSession, ReceiverTransfer};
use crate::{
    close::Code,
    codec,
    digest::Digests,
    disposition::Asks,
    envelope::{SealingKey, SealingPublicKey},
    error::{Error, Result},
    fingerprint::Fingerprint,
    grant::SignedGrant,
    id::{Epoch, TransferId},
    limits::{CLOCK_SKEW_SECONDS_MAX, EPOCH_MAX, LANE_WINDOW_BYTES_MAX, LANE_WINDOW_BYTES_MIN, LANES_MAX},
    manifest::Plan,
    message::{Accept, AcceptBody, Begin, BeginBody, Have, Message, Offer, Ready},
    negotiate::{choose_suite, choose_version},
    random::Random,
    seal::{EpochKeys, Suite},
    sealed_log::EpochRecord,
    sign::{PublicKey, Purpose, Signer},
    transcript::{Channel, Transcript},
};

/// What is known before an Offer: the sender has proven its ticket and its key.
pub struct Listening {
    /// The suites that the receiver allows, in its order of preference.
    pub suites: Vec<Suite>,
    /// The keys whose grants are trusted.
    pub grant_keys: Vec<PublicKey>,
    /// The fingerprint of this receiver.
    pub receiver: Fingerprint,
    /// The key in the sender's certificate, which it has proven to hold.
    pub sender_key: PublicKey,
    /// The transfer whose ticket the sender has proven to hold.
    pub proven: TransferId,
    /// Whether that transfer has begun, so that `finish_before` ends its grant and not
    /// `begin_before`.
    pub begun: bool,
    /// The targets that a grant may name.
    pub targets: Vec<String>,
}

/// The Offer has passed every check. Whether the target can take the plan is for the target to
/// decide.
pub struct Deciding {
    offer: Offer,
    suite: Suite,
    /// The suites that the receiver allows, one of which a spool must have.
    suites: Vec<Suite>,
    version: u16,
    sender_key: PublicKey,
    transcript: Transcript,
}

/// Accept was sent; Begin is due.
pub struct Accepting {
    suite: Suite,
    suites: Vec<Suite>,
    sender_key: PublicKey,
    epoch: Epoch,
    have: Vec<Have>,
    window: Window,
    transcript: Transcript,
}

/// What a side allows in flight (`docs/protocol.md`, section 7).
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Parts that are sent at once, 1 to [`LANES_MAX`].
    pub lanes: u16,
    /// Bytes of one part that may be sent and not yet verified.
    pub lane_bytes: u64,
}

impl Window {
    /// Bytes of all parts together that may be sent and not yet verified.
    pub fn bytes(&self) -> u64 {
        u64::from(self.lanes) * self.lane_bytes
    }

    /// Divides `bytes` evenly among as many lanes as get at least the smallest window each, and no
    /// more lanes than parts.
    pub fn share(bytes: u64, parts: usize) -> Self {
        let fitting = (bytes / LANE_WINDOW_BYTES_MIN).clamp(1, LANES_MAX.into());
        let lanes = fitting.min(parts as u64).max(1);
        Self { lanes: lanes as u16, lane_bytes: (bytes / lanes).clamp(LANE_WINDOW_BYTES_MIN, LANE_WINDOW_BYTES_MAX) }
    }
}

impl Listening {
    /// Checks an Offer in the order of `docs/protocol.md`, section 5.2, with the codes given there:
    /// version, suites, grant, clocks, times, agents and target, plan.
    pub fn handle_offer(self, offer: Offer, channel: &Channel, now_seconds: u64) -> Result<Deciding> {
        let version = choose_version(&offer.versions)?;
        let known: Vec<Suite> = offer.suites.iter().filter_map(|number| number.known()).collect();
        let suite = choose_suite(&known, &self.suites)?;
        offer.grant.verify(&self.grant_keys)?;
        offer.grant.grant.check_enforced()?;
        if offer.now_seconds.abs_diff(now_seconds) > CLOCK_SKEW_SECONDS_MAX {
            return Err(Error::new(Code::ClocksApart, "clocks"));
        }
        offer.grant.grant.check_time(now_seconds, self.begun)?;
        let grant = &offer.grant.grant;
        let foreign = |check| Err(Error::new(Code::GrantForeign, check));
        if grant.transfer != self.proven {
            return foreign("transfer");
        }
        if grant.sender.is_some_and(|sender| sender != Fingerprint::of(&self.sender_key)) {
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
        Ok(Deciding { offer, suite, suites: self.suites, version, sender_key: self.sender_key, transcript })
    }
}

impl Deciding {
    /// The plan, checked.
    pub fn plan(&self) -> &Plan {
        &self.offer.plan
    }

    /// The grant, verified.
    pub fn grant(&self) -> &SignedGrant {
        &self.offer.grant
    }

    /// The key in the sender's certificate.
    pub fn sender_key(&self) -> PublicKey {
        self.sender_key
    }

    /// What the sender asks of what is here of its transfer. What `is_proven` stays: it is sent the
    /// receipt.
    pub fn asks(&self, is_proven: bool) -> Asks {
        match self.offer.fresh && !is_proven {
            true => Asks::StartOver,
            false => Asks::Continue,
        }
    }

    /// The transfer that replaces `known`, if the sender asks to start over; it keeps what tells
    /// the sender apart. Fails with `SourceChanged` if grant or plan are not those of `known`, so
    /// that it cannot be resumed.
    pub fn started_over(&self, known: &ReceiverTransfer, asks: Asks) -> Result<Option<ReceiverTransfer>> {
        match asks {
            Asks::StartOver => {
                let mut transfer = self.new_transfer();
                transfer.handle_earlier(known.epoch, known.digest_check);
                Ok(Some(transfer))
            }
            Asks::Continue if self.offer.grant == known.grant && self.offer.plan.hash() == known.plan.hash() => {
                Ok(None)
            }
            Asks::Continue => Err(Error::new(Code::SourceChanged, "plan")),
        }
    }

    /// A transfer of which nothing has arrived.
    pub fn new_transfer(&self) -> ReceiverTransfer {
        ReceiverTransfer::new(self.offer.grant.clone(), self.offer.plan.clone())
    }

    /// The target can take the plan: makes Accept, with the terms and what is there of the
    /// transfer. Fails with `LimitExceeded` after the highest epoch.
    pub fn accept(
        mut self,
        transfer: &ReceiverTransfer,
        window: Window,
        sealing_key: SealingPublicKey,
        signer: &dyn Signer,
        random: &mut dyn Random,
    ) -> Result<(Accepting, Message)> {
        if transfer.epoch.0 >= EPOCH_MAX {
            return Err(Error::new(Code::LimitExceeded, "epoch"));
        }
        let epoch = Epoch(transfer.epoch.0 + 1);
        let have = transfer.have();
        let mut nonce = [0; 32];
        random.fill(&mut nonce);
        let body = AcceptBody {
            version: self.version,
            suite: self.suite,
            sealing_key,
            epoch,
            lanes: window.lanes,
            lane_window_bytes: window.lane_bytes,
            have: have.clone(),
            nonce,
        };
        self.transcript.absorb(&codec::encode(&body));
        let signature = signer.sign(Purpose::Accept, &self.transcript.hash());
        self.transcript.absorb(&signature.0);
        let accepting = Accepting {
            suite: self.suite,
            suites: self.suites,
            sender_key: self.sender_key,
            epoch,
            have,
            window,
            transcript: self.transcript,
        };
        Ok((accepting, Message::Accept(Accept { body, signature })))
    }
}

impl Accepting {
    /// Verifies the sender's signature (`TranscriptMismatch`), opens its envelope, compares
    /// commitment (`KeyCommitment`) and digest secret (`TransferBusy`), and opens the envelope of
    /// its spool. What was here is dropped only now, if the sender asks for that: it is the one
    /// that began the transfer.
    pub fn handle_begin(
        mut self,
        begin: Begin,
        sealing_key: &SealingKey,
        transfer: &mut ReceiverTransfer,
    ) -> Result<Agreed> {
        let envelope_info = self.transcript.hash();
        self.transcript.absorb(&codec::encode(&begin.body));
        let transcript = self.transcript.hash();
        self.sender_key.verify(Purpose::Begin, &transcript, &begin.signature, Code::TranscriptMismatch)?;
        if begin.body.epoch != self.epoch {
            return Err(Error::new(Code::ProtocolViolation, "epoch"));
        }
        let (secret, digest_secret) = begin.body.envelope.open(sealing_key, &envelope_info, self.epoch)?;
        let id = transfer.grant().grant.transfer;
        if secret.commitment(id, self.epoch) != begin.body.commitment {
            return Err(Error::new(Code::KeyCommitment, "key commitment"));
        }
        transfer.handle_digest_secret(&digest_secret)?;
        let spool = match &begin.body.spool {
            Some(spool) => Some(Arc::new(self.open_spool(spool, sealing_key, transfer)?)),
            None => None,
        };
        transfer.epoch = self.epoch;
        // The manifest is sent again on each connection, and the receipt is over that one.
        transfer.manifest = None;
        let keys = EpochKeys::new(self.suite, id, self.epoch, secret, Digests::new(&digest_secret));
        let session = ReceiverSession::new(Arc::new(keys), spool, self.sender_key, self.window, &self.have, transfer);
        let BeginBody { epoch, envelope, commitment, spool } = begin.body;
        let own = EpochRecord { epoch, suite: self.suite, envelope, info: envelope_info, commitment };
        Ok(Agreed::new(session, Message::Ready(Ready { transcript }), [Some(Box::new(own)), spool]))
    }

    /// The keys of the earlier connection on which the sender's spool was begun. The digest secret
    /// shows that they are this sender's.
    fn open_spool(&self, spool: &EpochRecord, key: &SealingKey, transfer: &mut ReceiverTransfer) -> Result<EpochKeys> {
        if !(1..self.epoch.0).contains(&spool.epoch.0) {
            return Err(Error::new(Code::ProtocolViolation, "epoch of a spool"));
        }
        if !self.suites.contains(&spool.suite) {
            return Err(Error::new(Code::SuiteUnsupported, "suite of a spool"));
        }
        let id = transfer.grant().grant.transfer;
        let (secret, digest_secret) = spool.open(key, id)?;
        transfer.handle_digest_secret(&digest_secret)?;
        Ok(EpochKeys::new(spool.suite, id, spool.epoch, secret, Digests::new(&digest_secret)))
    }
}
