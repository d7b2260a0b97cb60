//! A grant: who may move what, where to, why, and until when, for one transfer. The grant of a
//! ticket is signed by the receiver's own key and that of an archive by the sender's, so no third
//! party vouches for it.

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

/// What the grant of a ticket calls its target where the receiver has but one, which its operator
/// names on the command line.
pub const LISTEN_TARGET: &str = "listen";

/// What is permitted. Times are seconds since the Unix epoch, UTC.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Grant {
    /// The one transfer that is permitted.
    #[n(0)]
    pub transfer: TransferId,
    /// The one sender that may use it. `None` if the first valid proof of the ticket decides that.
    #[n(1)]
    pub sender: Option<Fingerprint>,
    /// The one receiver that may accept it.
    #[n(2)]
    pub receiver: Fingerprint,
    /// The name of the source in the sender's configuration; empty if the source is given on the
    /// command line. At most [`NAME_BYTES_MAX`] bytes.
    #[n(3)]
    pub source: String,
    /// The name of the target in the receiver's configuration. At most [`NAME_BYTES_MAX`] bytes.
    #[n(4)]
    pub target: String,
    /// The reason for the transfer, such as a change number: free text of the operator. At most
    /// [`NAME_BYTES_MAX`] bytes.
    #[n(5)]
    pub purpose: String,
    /// The transfer does not begin before this time, but for [`CLOCK_SKEW_SECONDS_MAX`].
    #[n(6)]
    pub not_before_seconds: u64,
    /// The transfer begins before this time, exclusive, or not at all.
    #[n(7)]
    pub begin_before_seconds: u64,
    /// At this time the transfer is suspended: nothing more is read, opened or committed.
    #[n(8)]
    pub finish_before_seconds: u64,
    /// Until this time, what is staged and the sealing key are kept after the grant has ended, so
    /// that another grant can resume the transfer.
    #[n(9)]
    pub retain_until_seconds: u64,
    /// The document that lists the tables, columns and filters that the transfer is limited to.
    #[n(10)]
    pub scope: Option<DocumentHash>,
    /// The document that says how columns are de-identified.
    #[n(11)]
    pub policy: Option<DocumentHash>,
}

/// The hash of a signed document, by which another document refers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct DocumentHash(#[cbor(with = "minicbor::bytes")] pub [u8; 32]);

/// A grant and the signature over its canonical bytes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SignedGrant {
    /// What is permitted.
    #[n(0)]
    pub grant: Grant,
    /// The signature of the receiver (ticket), the sender (archive) or an operator, with
    /// [`Purpose::Grant`].
    #[n(1)]
    pub signature: Signature,
}

impl Grant {
    /// Signs the canonical encoding.
    pub fn sign(self, signer: &dyn Signer) -> SignedGrant {
        let signature = signer.sign(Purpose::Grant, &codec::encode(&self));
        SignedGrant { grant: self, signature }
    }

    /// Checks that the transfer may begin at `now_seconds` or, once it is `begun`, continue. Fails
    /// with `GrantNotYetValid` or `GrantExpired`; both ends are exclusive.
    pub fn check_time(&self, now_seconds: u64, begun: bool) -> Result<()> {
        if now_seconds.saturating_add(CLOCK_SKEW_SECONDS_MAX) < self.not_before_seconds {
            return Err(Error::new(Code::GrantNotYetValid, "grant start"));
        }
        if now_seconds >= self.end_seconds(begun) {
            return Err(Error::new(Code::GrantExpired, "grant end"));
        }
        Ok(())
    }

    /// The time at which the grant ends, exclusive, for a transfer that has or has not begun.
    pub fn end_seconds(&self, begun: bool) -> u64 {
        match begun {
            true => self.finish_before_seconds,
            false => self.begin_before_seconds.min(self.finish_before_seconds),
        }
    }

    /// Fails with `GrantInvalid` if the grant has a limit that is not enforced: scope and policy
    /// are not implemented yet.
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
    /// Decodes a signed grant of at most [`GRANT_BYTES_MAX`] bytes; every failure is
    /// `GrantInvalid`. The signature is not verified.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        codec::decode(bytes, GRANT_BYTES_MAX, "grant").map_err(|error| Error { code: Code::GrantInvalid, ..error })
    }

    /// The canonical encoding, signature included.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// The hash by which transcripts, manifests and receipts refer to this grant. It does not cover
    /// the signature, so a grant keeps its hash when others sign it.
    pub fn hash(&self) -> [u8; 32] {
        blake3::derive_key("sealift/1 2026-11 grant hash", &codec::encode(&self.grant))
    }

    /// The hash that a ticket's proof covers. It includes the signature, so that a ticket whose
    /// signature was altered on its way proves nothing and binds nothing.
    pub fn hash_with_signature(&self) -> [u8; 32] {
        blake3::derive_key("sealift/1 2026-11 signed grant hash", &codec::encode(self))
    }

    /// Checks the lengths of the texts (`LimitExceeded`), and that one of `trusted` has signed the
    /// grant (`GrantInvalid`).
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
