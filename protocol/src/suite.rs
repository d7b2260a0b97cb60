//! The AEADs that can seal chunks.

use minicbor::{Decode, Encode};

/// Which AEAD seals chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
#[repr(u8)]
pub enum Suite {
    /// NIST SP 800-38D with random 96-bit nonces, through aws-lc-rs.
    #[n(1)]
    Aes256Gcm = 1,
    /// XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03) with random 192-bit nonces, through the
    /// chacha20poly1305 crate.
    #[n(2)]
    ChaCha20Poly1305 = 2,
}

impl Suite {
    /// The suite with this number in a chunk header, or `None`.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Suite::Aes256Gcm),
            2 => Some(Suite::ChaCha20Poly1305),
            _ => None,
        }
    }

    /// The name that users type and receipts show.
    pub fn name(self) -> &'static str {
        match self {
            Suite::Aes256Gcm => "aes-256-gcm",
            Suite::ChaCha20Poly1305 => "chacha20-poly1305",
        }
    }
}

/// The number of a suite in an Offer, known to this version or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct SuiteNumber(#[n(0)] pub u16);

impl SuiteNumber {
    /// The suite, or `None` if this version does not know the number.
    pub fn known(self) -> Option<Suite> {
        u8::try_from(self.0).ok().and_then(Suite::from_byte)
    }
}

impl From<Suite> for SuiteNumber {
    fn from(suite: Suite) -> Self {
        Self(suite as u16)
    }
}
