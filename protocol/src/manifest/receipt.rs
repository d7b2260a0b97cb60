//! The receipt: what was verified and loaded, and the rules that hold whichever keys signed it.
//! Which keys to trust is for its reader to decide.

use minicbor::{Decode, Encode};

use super::{Evidence, Plan, Proof, SignedManifest};
use crate::{
    audit_head::AuditHead,
    certificate::Chain,
    close::Code,
    codec,
    error::{Error, Result},
    fingerprint::Fingerprint,
    grant::{DocumentHash, SignedGrant},
    limits::{CLOCK_SKEW_SECONDS_MAX, CONTROL_BYTES_MAX, FACT_BYTES_MAX, NAME_BYTES_MAX},
    link_facts::LinkFacts,
    seal::Suite,
    sign::{PublicKey, Purpose, Signature, Signer},
};

/// What was verified and loaded, as the receiver states it (`docs/receipt.md`).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Receipt {
    /// What was sent, signed by the sender.
    #[n(0)]
    pub manifest: SignedManifest,
    /// The plan that the manifest refers to by hash.
    #[n(1)]
    pub plan: Plan,
    /// What was found in the target.
    #[n(2)]
    pub evidence: Evidence,
    /// The grant under which the transfer ended.
    #[n(3)]
    pub grant: SignedGrant,
    /// The key that signed the manifest.
    #[n(4)]
    pub sender_key: PublicKey,
    /// The key that signs the receipt.
    #[n(5)]
    pub receiver_key: PublicKey,
    /// Who signed the grant.
    #[n(6)]
    pub authority: Authority,
    /// The suite of the epoch in which the receiver signed.
    #[n(7)]
    pub suite: Suite,
    /// The connection on which the receiver signed; `None` for an archive.
    #[n(8)]
    pub link: Option<LinkEvidence>,
    /// When the transfer began under this grant, in milliseconds since the Unix epoch by the
    /// receiver's clock.
    #[n(9)]
    pub started_ms: u64,
    /// When the load was proven; not before `started_ms`.
    #[n(10)]
    pub finished_ms: u64,
    /// The version of the receiver, at most [`FACT_BYTES_MAX`] bytes.
    #[n(11)]
    pub software: String,
    /// The name of the target host, at most [`NAME_BYTES_MAX`] bytes.
    #[n(12)]
    pub target_host: String,
    /// The target without what may be secret (of a command, the program alone), at most
    /// [`NAME_BYTES_MAX`] bytes.
    #[n(13)]
    pub target: String,
    /// The head of the receiver's audit log when it signed.
    #[n(14)]
    pub audit_head: Option<AuditHead>,
    /// The policy by which the data was de-identified, which is that of the grant.
    #[n(15)]
    pub policy: Option<DocumentHash>,
}

/// Who has signed the grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Authority {
    /// One of the agents: the receiver that of a ticket, the sender that of an archive.
    #[n(0)]
    Ticket,
    /// An operator, with this key.
    #[n(1)]
    Operator(#[n(0)] PublicKey),
}

impl Authority {
    /// The name in logs and `--json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ticket => "ticket",
            Self::Operator(_) => "operator",
        }
    }
}

/// The facts of a connection, and the certificates of both ends.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LinkEvidence {
    /// What was negotiated, as the receiver read it from the connection.
    #[n(0)]
    pub facts: LinkFacts,
    /// The sender's certificates.
    #[n(1)]
    pub sender: Chain,
    /// The receiver's certificates.
    #[n(2)]
    pub receiver: Chain,
}

/// A receipt with the receiver's signature over its canonical bytes, which include the sender's
/// signed manifest.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SignedReceipt {
    /// What the receiver verified and loaded.
    #[n(0)]
    pub receipt: Receipt,
    /// The receiver's signature, with [`Purpose::Receipt`].
    #[n(1)]
    pub signature: Signature,
}

impl Receipt {
    /// Signs the canonical encoding, without checks: see [`Receipt::check`].
    pub fn sign(self, signer: &dyn Signer) -> SignedReceipt {
        let signature = signer.sign(Purpose::Receipt, &codec::encode(&self));
        SignedReceipt { receipt: self, signature }
    }

    /// Checks everything that does not depend on the keys: the rules of the plan, the lengths of
    /// texts, times that are ordered and within the grant, the link, a proof that the engine can
    /// give, and that what was loaded is what was sent. The codes are in `docs/receipt.md`.
    pub fn check(&self) -> Result<()> {
        let manifest = &self.manifest.manifest;
        self.plan.check()?;
        manifest.check(&self.plan)?;
        self.check_texts()?;
        self.check_times()?;
        self.check_link()?;
        self.evidence.check(&self.plan, manifest)
    }

    fn check_texts(&self) -> Result<()> {
        let names = [&self.target_host, &self.target];
        match names.iter().all(|name| name.len() <= NAME_BYTES_MAX) && self.software.len() <= FACT_BYTES_MAX {
            true => Ok(()),
            false => Err(Error::new(Code::LimitExceeded, "a text of the receipt")),
        }
    }

    /// The certificates are of the keys that signed, and the link is one that the protocol allows.
    fn check_link(&self) -> Result<()> {
        let Some(link) = &self.link else { return Ok(()) };
        link.sender.check(&self.sender_key)?;
        link.receiver.check(&self.receiver_key)?;
        match link.facts.is_allowed() {
            true => Ok(()),
            false => Err(Error::new(Code::ManifestMismatch, "a link that the protocol does not allow")),
        }
    }

    /// The receiver waits for a loader that has everything past the end of the grant, since only
    /// its exit says whether it committed ([`crate::disposition`]). Every other load ends within
    /// the grant.
    fn check_times(&self) -> Result<()> {
        let grant = &self.grant.grant;
        let started_seconds = self.started_ms / 1000;
        if self.started_ms > self.finished_ms {
            return Err(Error::new(Code::ManifestMismatch, "finished before it started"));
        }
        if started_seconds.saturating_add(CLOCK_SKEW_SECONDS_MAX) < grant.not_before_seconds {
            return Err(Error::new(Code::GrantNotYetValid, "started before the grant"));
        }
        let last_seconds = match self.evidence.proof {
            Proof::LoaderExit => started_seconds,
            _ => self.finished_ms / 1000,
        };
        match last_seconds < grant.finish_before_seconds {
            true => Ok(()),
            false => Err(Error::new(Code::GrantExpired, "finished after the grant")),
        }
    }

    /// The grant is for these two agents, and signed by the authority that the receipt names.
    fn check_grant(&self) -> Result<()> {
        let agents = [self.receiver_key, self.sender_key];
        match self.authority {
            Authority::Ticket => self.grant.verify(&agents)?,
            Authority::Operator(key) if agents.contains(&key) => {
                return Err(Error::new(Code::GrantInvalid, "an agent that calls itself an operator"));
            }
            Authority::Operator(key) => self.grant.verify(&[key])?,
        }
        let grant = &self.grant.grant;
        if self.policy != grant.policy {
            return Err(Error::new(Code::GrantForeign, "policy of the grant"));
        }
        let foreign = |check| Err(Error::new(Code::GrantForeign, check));
        if grant.receiver != Fingerprint::of(&self.receiver_key) {
            return foreign("receiver of the grant");
        }
        match grant.sender {
            Some(sender) if sender != Fingerprint::of(&self.sender_key) => foreign("sender of the grant"),
            _ => Ok(()),
        }
    }
}

impl SignedReceipt {
    /// Decodes a receipt file of at most [`CONTROL_BYTES_MAX`] bytes: `LimitExceeded` over that,
    /// else `ProtocolViolation`. Nothing is verified.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        codec::decode(bytes, CONTROL_BYTES_MAX, "receipt")
    }

    /// The canonical encoding, which is the content of a receipt file.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// The hash by which audit logs refer to this receipt: BLAKE3 of its file.
    pub fn hash(&self) -> [u8; 32] {
        *blake3::hash(&self.to_bytes()).as_bytes()
    }

    /// Checks everything that the receipt alone allows: all signatures, that manifest, plan and
    /// grant belong together, and [`Receipt::check`]. It does not say whether the keys are to be
    /// trusted.
    pub fn verify(&self) -> Result<()> {
        let receipt = &self.receipt;
        let signed = codec::encode(receipt);
        receipt.receiver_key.verify(Purpose::Receipt, &signed, &self.signature, Code::TranscriptMismatch)?;
        receipt.manifest.verify(&receipt.sender_key)?;
        let manifest = &receipt.manifest.manifest;
        let belongs = manifest.transfer == receipt.grant.grant.transfer
            && manifest.grant_hash == receipt.grant.hash()
            && manifest.plan_hash == receipt.plan.hash();
        if !belongs {
            return Err(Error::new(Code::ManifestMismatch, "transfer, grant or plan"));
        }
        receipt.check_grant()?;
        receipt.check()
    }
}
