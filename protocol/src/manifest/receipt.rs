//! What was verified and loaded, and what has to hold of that whoever signed it. A receipt
//! contradicts itself, or it does not: which keys are to be believed is for the reader to know.

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

/// What the receiver says it verified and loaded.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Receipt {
    #[n(0)]
    pub manifest: SignedManifest,
    #[n(1)]
    pub plan: Plan,
    #[n(2)]
    pub evidence: Evidence,
    #[n(3)]
    pub grant: SignedGrant,
    #[n(4)]
    pub sender_key: PublicKey,
    #[n(5)]
    pub receiver_key: PublicKey,
    #[n(6)]
    pub authority: Authority,
    #[n(7)]
    pub suite: Suite,
    /// The connection on which the receiver signed. None of an archive, which is carried otherwise.
    #[n(8)]
    pub link: Option<LinkEvidence>,
    /// Milliseconds since the Unix epoch by the receiver's clock: when the transfer began under
    /// this grant.
    #[n(9)]
    pub started_ms: u64,
    #[n(10)]
    pub finished_ms: u64,
    /// Version of the receiver.
    #[n(11)]
    pub software: String,
    /// Name of the target host.
    #[n(12)]
    pub target_host: String,
    /// Of the receiver's log, when it signed.
    #[n(13)]
    pub audit_head: Option<AuditHead>,
    /// The policy by which the data was de-identified.
    #[n(14)]
    pub policy: Option<DocumentHash>,
}

/// Who stands behind the grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Authority {
    /// Nobody but the agents: the receiver has signed the grant of a ticket, the sender that of an
    /// archive.
    #[n(0)]
    Ticket,
    /// An operator, with this key.
    #[n(1)]
    Operator(#[n(0)] PublicKey),
}

impl Authority {
    /// For `--json` and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ticket => "ticket",
            Self::Operator(_) => "operator",
        }
    }
}

/// What a connection was made of, and who was at its ends.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LinkEvidence {
    #[n(0)]
    pub facts: LinkFacts,
    #[n(1)]
    pub sender: Chain,
    #[n(2)]
    pub receiver: Chain,
}

/// A receipt with the receiver's signature over its canonical bytes, which include the sender's
/// signed manifest.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SignedReceipt {
    #[n(0)]
    pub receipt: Receipt,
    #[n(1)]
    pub signature: Signature,
}

impl Receipt {
    pub fn sign(self, signer: &dyn Signer) -> SignedReceipt {
        let signature = signer.sign(Purpose::Receipt, &codec::encode(&self));
        SignedReceipt { receipt: self, signature }
    }

    /// Everything that has to hold whatever the keys are: the plan keeps its rules, texts are
    /// bounded, times are ordered and within the grant, the engine can give this proof, and what
    /// was loaded is what was sent.
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
        match self.target_host.len() <= NAME_BYTES_MAX && self.software.len() <= FACT_BYTES_MAX {
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

    /// A loader that has everything is waited for past the end of the grant, since its exit alone
    /// says whether it committed ([`crate::disposition`]); every other load ends within it.
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

    /// That the grant is for these two agents, and signed by whom the receipt says.
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
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        codec::decode(bytes, CONTROL_BYTES_MAX, "receipt")
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// What audit logs call this receipt by: the BLAKE3 hash of its file.
    pub fn hash(&self) -> [u8; 32] {
        *blake3::hash(&self.to_bytes()).as_bytes()
    }

    /// Everything that can be checked with nothing but the receipt: all signatures, that manifest,
    /// plan and grant belong together, and that it does not contradict itself.
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
