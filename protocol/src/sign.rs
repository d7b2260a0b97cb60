//! Signatures: Ed25519 (RFC 8032), always with a label, so that a signature made for one purpose is
//! never valid for another (`docs/protocol.md`, section 4). TLS 1.3 signs with the same keys, after
//! 64 spaces and a context string of its own (RFC 8446, section 4.4.3); no label here begins with a
//! space.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use minicbor::{Decode, Encode};

use crate::{
    bytes::hex,
    close::Code,
    error::{Error, Result},
};

/// What a signature is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The receiver's, over the transcript after the body of Accept.
    Accept,
    /// The sender's, over the transcript after the body of Begin.
    Begin,
    /// The sender's, over a manifest.
    Manifest,
    /// The receiver's, over a receipt.
    Receipt,
    /// Over a grant: the receiver's (ticket), the sender's (archive) or an operator's.
    Grant,
    /// The sender's, over the transcript of an archive after its epoch record.
    Archive,
    /// The receiver's, over its standing sealing key.
    SealingKey,
}

impl Purpose {
    const fn label(self) -> &'static [u8] {
        match self {
            Purpose::Accept => b"sealift/1 accept\0",
            Purpose::Begin => b"sealift/1 begin\0",
            Purpose::Manifest => b"sealift/1 manifest\0",
            Purpose::Receipt => b"sealift/1 receipt\0",
            Purpose::Grant => b"sealift/1 grant\0",
            Purpose::Archive => b"sealift/1 archive\0",
            Purpose::SealingKey => b"sealift/1 sealing key\0",
        }
    }

    /// The bytes that are signed: the label, then the message.
    pub fn signed_bytes(self, message: &[u8]) -> Vec<u8> {
        [self.label(), message].concat()
    }
}

/// An Ed25519 signature, 64 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Signature(#[cbor(with = "minicbor::bytes")] pub [u8; 64]);

/// An Ed25519 public key, 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct PublicKey(#[cbor(with = "minicbor::bytes")] pub [u8; 32]);

/// A holder of a private key.
pub trait Signer {
    /// Signs [`Purpose::signed_bytes`].
    fn sign(&self, purpose: Purpose, message: &[u8]) -> Signature;
    /// The key that verifies the signatures.
    fn public_key(&self) -> PublicKey;
}

/// The DER of an Ed25519 SubjectPublicKeyInfo before the 32 bytes of the key (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The y coordinates of the eight points of small order on edwards25519, without the sign of x; and
/// p and p + 1, which are 0 and 1 in another encoding.
const SMALL_ORDER_Y: [[u8; 32]; 7] = [
    hex("0000000000000000000000000000000000000000000000000000000000000000"),
    hex("0100000000000000000000000000000000000000000000000000000000000000"),
    hex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    hex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    hex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    hex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    hex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
];

impl PublicKey {
    /// The DER of the key's SubjectPublicKeyInfo, as in a certificate.
    pub fn to_spki(&self) -> [u8; 44] {
        let mut spki = [0; 44];
        spki[..12].copy_from_slice(&SPKI_PREFIX);
        spki[12..].copy_from_slice(&self.0);
        spki
    }

    /// The key in a SubjectPublicKeyInfo; `None` unless it is the DER of an Ed25519 key.
    pub fn from_spki(spki: &[u8]) -> Option<Self> {
        let key = spki.strip_prefix(&SPKI_PREFIX)?;
        key.try_into().ok().map(Self)
    }

    /// Whether it is one of the points of small order, under which one signature can verify for any
    /// message.
    fn is_of_small_order(&self) -> bool {
        let mut y = self.0;
        y[31] &= 0x7f;
        SMALL_ORDER_Y.contains(&y)
    }

    /// Verifies that the holder of this key has signed `message` for `purpose`; fails with the code
    /// `otherwise`. A key of small order verifies nothing.
    pub fn verify(&self, purpose: Purpose, message: &[u8], signature: &Signature, otherwise: Code) -> Result<()> {
        if self.is_of_small_order() {
            return Err(Error::new(otherwise, "public key of small order"));
        }
        UnparsedPublicKey::new(&ED25519, &self.0)
            .verify(&purpose.signed_bytes(message), &signature.0)
            .map_err(|_| Error::new(otherwise, "signature"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Issue 9, A2: under the neutral element, a signature of zeros with the right R verifies for
    /// every message unless the verifier checks the key.
    #[test]
    fn a_key_of_small_order_verifies_nothing() {
        for y in SMALL_ORDER_Y {
            for sign_of_x in [0, 0x80] {
                let mut key = PublicKey(y);
                key.0[31] |= sign_of_x;
                assert!(key.is_of_small_order());
                let mut forged = Signature([0; 64]);
                forged.0[0] = 1;
                let got = key.verify(Purpose::Receipt, b"anything", &forged, Code::TranscriptMismatch);
                assert_eq!(got.unwrap_err().check, "public key of small order");
            }
        }
        assert!(!PublicKey([9; 32]).is_of_small_order());
    }
}
