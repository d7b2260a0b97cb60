//! The sender's side of the exchange before data flows (`docs/protocol.md`, section 5).

use std::sync::Arc;

use super::{SenderTransfer, spool::Spool};
use crate::{
    close::Code,
    codec,
    disposition::Asks,
    envelope::KeyEnvelope,
    error::{Error, Result},
    grant::SignedGrant,
    key::EpochSecret,
    limits::{CHUNK_INDEX_MAX, EPOCH_MAX, LANE_WINDOW_BYTES_MAX, LANE_WINDOW_BYTES_MIN, LANES_MAX},
    manifest::Plan,
    message::{Accept, Begin, BeginBody, Have, Message, Ready, VERSION},
    random::Random,
    seal::{EpochKeys, Suite},
    sealed_log::{EpochRecord, KeyFingerprint},
    sign::{PublicKey, Purpose, Signer},
    transcript::Transcript,
};

/// Offer was sent; Accept is due.
pub struct Offering {
    pub(super) offered_suites: Vec<Suite>,
    pub(super) grant: SignedGrant,
    pub(super) asks: Asks,
    pub(super) transcript: Transcript,
    pub(super) expected: ExpectedReceiver,
}

/// The expected receiver: the key that it has proven to hold, and the key that the data keys may be
/// sealed to. The second is known from the ticket, so that the inner layer of encryption does not
/// depend on the outer one.
#[derive(Clone, Copy)]
pub struct ExpectedReceiver {
    /// The key of the receiver's certificate.
    pub receiver_key: PublicKey,
    /// The fingerprint of the sealing key in the ticket.
    pub sealing_key: KeyFingerprint,
}

/// Accept is good. Begin is said once the record names this connection ([`SenderRecord::begin`]).
///
/// [`SenderRecord::begin`]: super::SenderRecord::begin
pub struct Accepted {
    beginning: Beginning,
    begin: Begin,
}

/// Begin was sent; Ready is due.
pub struct Beginning {
    session: SenderSession,
    transcript_hash: [u8; 32],
}

/// What was agreed for one connection: data may flow.
pub struct SenderSession {
    /// The keys of this connection's epoch.
    pub keys: Arc<EpochKeys>,
    /// Parts in flight at once: what both sides allow.
    pub lanes: u16,
    /// The window of each part: what both sides allow.
    pub lane_window_bytes: u64,
    /// What the receiver has already, for [`SenderTransfer::resume`]; empty on a first connection.
    pub have: Vec<Have>,
    /// The spool that everything is sent from; or, if there is none, what a spool that is begun on
    /// this connection has to record.
    pub spool: Spool,
    /// The key that signed Accept and has to sign the receipt.
    pub receiver_key: PublicKey,
    /// The key that signs the manifest.
    pub sender_key: PublicKey,
}

impl Offering {
    /// Verifies the receiver's signature and checks its terms (`docs/protocol.md`, section 5.2,
    /// with the codes given there), makes the keys of this connection, and seals them to the
    /// receiver in Begin.
    pub fn handle_accept(
        mut self,
        transfer: &SenderTransfer,
        accept: Accept,
        signer: &dyn Signer,
        random: &mut dyn Random,
    ) -> Result<Accepted> {
        self.transcript.absorb(&codec::encode(&accept.body));
        let mismatch = Code::TranscriptMismatch;
        self.expected.receiver_key.verify(Purpose::Accept, &self.transcript.hash(), &accept.signature, mismatch)?;
        self.check_terms(&accept, transfer)?;
        self.check_have(&accept.body.have, &transfer.plan)?;
        self.check_spool(transfer.spool.as_ref(), &accept)?;
        self.transcript.absorb(&accept.signature.0);

        let id = self.grant.grant.transfer;
        let body = accept.body;
        let secret = EpochSecret::generate(random);
        let envelope_info = self.transcript.hash();
        let begin = BeginBody {
            epoch: body.epoch,
            commitment: secret.commitment(id, body.epoch),
            envelope: KeyEnvelope::seal(
                &secret,
                &transfer.digest_secret,
                &body.sealing_key,
                &envelope_info,
                body.epoch,
                random,
            )?,
            spool: transfer.spool.as_ref().map(|spool| spool.epoch.clone()),
        };
        let spool = transfer.spool.clone().unwrap_or_else(|| Spool {
            epoch: Box::new(EpochRecord {
                epoch: body.epoch,
                suite: body.suite,
                envelope: begin.envelope.clone(),
                info: envelope_info,
                commitment: begin.commitment,
            }),
            key: KeyFingerprint::of(&body.sealing_key),
        });
        self.transcript.absorb(&codec::encode(&begin));
        let transcript_hash = self.transcript.hash();
        let signature = signer.sign(Purpose::Begin, &transcript_hash);
        let session = SenderSession {
            keys: Arc::new(EpochKeys::new(body.suite, id, body.epoch, secret, transfer.digests.clone())),
            lanes: body.lanes.min(transfer.window_max.lanes),
            lane_window_bytes: body.lane_window_bytes.min(transfer.window_max.lane_bytes),
            have: body.have,
            spool,
            receiver_key: self.expected.receiver_key,
            sender_key: signer.public_key(),
        };
        let beginning = Beginning { session, transcript_hash };
        Ok(Accepted { beginning, begin: Begin { body: begin, signature } })
    }

    fn check_terms(&self, accept: &Accept, transfer: &SenderTransfer) -> Result<()> {
        let body = &accept.body;
        if body.version != VERSION {
            return Err(Error::new(Code::VersionUnsupported, "version was not offered"));
        }
        if !self.offered_suites.contains(&body.suite) {
            return Err(Error::new(Code::SuiteUnsupported, "suite was not offered"));
        }
        if KeyFingerprint::of(&body.sealing_key) != self.expected.sealing_key {
            return Err(Error::new(Code::IdentityRefused, "sealing key is not the one of the ticket"));
        }
        if !(1..=EPOCH_MAX).contains(&body.epoch.0) {
            return Err(Error::new(Code::LimitExceeded, "epoch"));
        }
        if body.epoch <= transfer.epoch {
            return Err(Error::new(Code::AckImpossible, "an epoch that is not later than the last"));
        }
        let window = LANE_WINDOW_BYTES_MIN..=LANE_WINDOW_BYTES_MAX;
        if !(1..=LANES_MAX).contains(&body.lanes) || !window.contains(&body.lane_window_bytes) {
            return Err(Error::new(Code::LimitExceeded, "window"));
        }
        Ok(())
    }

    /// What the receiver has: parts of the plan, in order, with possible counts; nothing if it was
    /// asked to start over.
    fn check_have(&self, have: &[Have], plan: &Plan) -> Result<()> {
        let in_order = have.is_sorted_by(|one, next| one.part < next.part);
        let can_be = 1..=CHUNK_INDEX_MAX + 1;
        let counts = have.iter().all(|have| have.durable <= have.verified && can_be.contains(&have.verified.0));
        let in_plan = have.last().is_none_or(|last| (last.part.0 as usize) < plan.parts.len());
        match in_order && counts && in_plan && (have.is_empty() || self.asks == Asks::Continue) {
            true => Ok(()),
            false => Err(Error::new(Code::AckImpossible, "what the receiver has")),
        }
    }

    /// A receiver with another key, or one whose epochs are again at or before the spool's, cannot
    /// open what the spool holds.
    fn check_spool(&self, spool: Option<&Spool>, accept: &Accept) -> Result<()> {
        let Some(spool) = spool else { return Ok(()) };
        if !self.offered_suites.contains(&spool.epoch.suite) {
            return Err(Error::new(Code::SuiteUnsupported, "suite of a spool"));
        }
        match KeyFingerprint::of(&accept.body.sealing_key) == spool.key && accept.body.epoch > spool.epoch.epoch {
            true => Ok(()),
            false => Err(Error::new(Code::ResumeImpossible, "spool")),
        }
    }
}

impl Accepted {
    /// The suite that the receiver chose.
    pub fn suite(&self) -> Suite {
        self.beginning.session.keys.suite()
    }

    pub(super) fn begin(self) -> (Beginning, Message) {
        (self.beginning, Message::Begin(self.begin))
    }
}

impl Beginning {
    /// Checks that the receiver has the same transcript (`TranscriptMismatch`): data may flow.
    pub fn handle_ready(self, ready: Ready) -> Result<SenderSession> {
        match ready.transcript == self.transcript_hash {
            true => Ok(self.session),
            false => Err(Error::new(Code::TranscriptMismatch, "transcript")),
        }
    }
}
