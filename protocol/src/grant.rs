//! A grant: who may move what, where to, why, until when; for one transfer. The grant of a ticket
//! is signed by the receiver's own key, that of an archive by the sender's: no third party vouches
//! for it.

use minicbor::{Decode, Encode};

use crate::{
    close::Code,
    codec,
    error::{Error, Result},
    fingerprint::Fingerprint,
    id::TransferId,
    limits::{CLOCK_SKEW_SECONDS_MAX, GRANT_BYTES_MAX, NAME_BYTES_MAX},
    sign::{PublicKey, Purpose, Signature, Signer},
};

/// What is permitted. Times are seconds since the Unix epoch, UTC.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Grant {
    #[n(0)]
    pub transfer: TransferId,
    /// The one sender that may use it; `None` where the first valid proof of the ticket decides
    /// that.
    #[n(1)]
    pub sender: Option<Fingerprint>,
    /// The one receiver that may accept it.
    #[n(2)]
    pub receiver: Fingerprint,
    /// What the sender's configuration calls the source; empty where the sender names it on its
    /// command line.
    #[n(3)]
    pub source: String,
    /// What the receiver's configuration calls the target.
    #[n(4)]
    pub target: String,
    /// Why: a change number, a ticket; free text of the operator.
    #[n(5)]
    pub purpose: String,
    #[n(6)]
    pub not_before_seconds: u64,
    /// The first sealed chunk is opened before this time, exclusive, or none is.
    #[n(7)]
    pub begin_before_seconds: u64,
    /// From this time on nothing more is read, opened or committed: the transfer is suspended.
    #[n(8)]
    pub finish_before_seconds: u64,
    /// How long what is staged, and the key to it, are kept for another grant once this one has
    /// ended.
    #[n(9)]
    pub retain_until_seconds: u64,
    /// The list of tables, columns and filters that the transfer is limited to.
    #[n(10)]
    pub scope: Option<DocumentHash>,
    /// How columns are de-identified.
    #[n(11)]
    pub policy: Option<DocumentHash>,
}

/// The hash of a signed document, by which another refers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct DocumentHash(#[cbor(with = "minicbor::bytes")] pub [u8; 32]);

/// A grant and the signature over its canonical bytes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SignedGrant {
    #[n(0)]
    pub grant: Grant,
    #[n(1)]
    pub signature: Signature,
}

impl Grant {
    pub fn sign(self, signer: &dyn Signer) -> SignedGrant {
        let signature = signer.sign(Purpose::Grant, &codec::encode(&self));
        SignedGrant { grant: self, signature }
    }

    /// Whether the times allow the transfer to begin at `now_seconds`, or, once it is `begun`, to
    /// continue. Both ends are exclusive.
    pub fn check_time(&self, now_seconds: u64, begun: bool) -> Result<()> {
        if now_seconds.saturating_add(CLOCK_SKEW_SECONDS_MAX) < self.not_before_seconds {
            return Err(Error::new(Code::GrantNotYetValid, "grant start"));
        }
        if now_seconds >= self.end_seconds(begun) {
            return Err(Error::new(Code::GrantExpired, "grant end"));
        }
        Ok(())
    }

    /// When the grant ends, exclusive, for a transfer that has or has not begun.
    pub fn end_seconds(&self, begun: bool) -> u64 {
        match begun {
            true => self.finish_before_seconds,
            false => self.begin_before_seconds.min(self.finish_before_seconds),
        }
    }

    /// A limit that an agent does not know how to keep is a reason not to begin: neither a scope
    /// nor a policy is enforced yet.
    pub fn check_enforced(&self) -> Result<()> {
        match self.scope.or(self.policy) {
            Some(_) => Err(Error::new(Code::GrantInvalid, "a scope or a policy, which cannot be enforced here")),
            None => Ok(()),
        }
    }

    fn check_lengths(&self) -> Result<()> {
        let texts = [&self.source, &self.target, &self.purpose];
        match texts.iter().all(|text| text.len() <= NAME_BYTES_MAX) {
            true => Ok(()),
            false => Err(Error::new(Code::LimitExceeded, "grant text")),
        }
    }
}

impl SignedGrant {
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        codec::decode(bytes, GRANT_BYTES_MAX, "grant").map_err(|error| Error { code: Code::GrantInvalid, ..error })
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// What transcripts, manifests and receipts call this grant by. It does not cover the
    /// signature: a grant stays the same one when others sign it, too.
    pub fn hash(&self) -> [u8; 32] {
        blake3::derive_key("sealift/1 2026-11 grant hash", &codec::encode(&self.grant))
    }

    /// What a ticket's proof is bound to: the grant with its signature, so that a ticket whose
    /// signature was altered on its way proves nothing and binds nothing.
    pub fn hash_with_signature(&self) -> [u8; 32] {
        blake3::derive_key("sealift/1 2026-11 signed grant hash", &codec::encode(self))
    }

    /// Signed by one of `trusted`.
    pub fn verify(&self, trusted: &[PublicKey]) -> Result<()> {
        self.grant.check_lengths()?;
        let signed = codec::encode(&self.grant);
        let by_trusted =
            |key: &&PublicKey| key.verify(Purpose::Grant, &signed, &self.signature, Code::GrantInvalid).is_ok();
        match trusted.iter().find(by_trusted) {
            Some(_) => Ok(()),
            None => Err(Error::new(Code::GrantInvalid, "grant signature")),
        }
    }
}
