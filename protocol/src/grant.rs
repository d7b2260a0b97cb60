//! A grant: who may move what, where to, why, until when; for one transfer. Signed by the operator's grant key, or, for
//! a ticket, by the authority that the receiver makes for one transfer.

use minicbor::{Decode, Encode};

use crate::{
    close::Code,
    codec,
    error::{Error, Result},
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
    /// SPIFFE identity of the sender that may use it.
    #[n(1)]
    pub sender: String,
    /// SPIFFE identity of the receiver that may accept it.
    #[n(2)]
    pub receiver: String,
    /// What the sender's configuration calls the source; empty where the sender names it on its command line.
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
    #[n(7)]
    pub not_after_seconds: u64,
}

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

    /// Whether the times allow a start at `now_seconds`.
    pub fn check_time(&self, now_seconds: u64) -> Result<()> {
        if now_seconds.saturating_add(CLOCK_SKEW_SECONDS_MAX) < self.not_before_seconds {
            return Err(Error::new(Code::GrantNotYetValid, "grant start"));
        }
        if now_seconds >= self.not_after_seconds {
            return Err(Error::new(Code::GrantExpired, "grant end"));
        }
        Ok(())
    }

    fn check_lengths(&self) -> Result<()> {
        let texts = [&self.sender, &self.receiver, &self.source, &self.target, &self.purpose];
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

    /// What transcripts, manifests and receipts call this grant by.
    pub fn hash(&self) -> [u8; 32] {
        blake3::derive_key("sealift/1 2026-11 grant hash", &self.to_bytes())
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
