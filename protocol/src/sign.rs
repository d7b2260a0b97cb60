//! Signatures over what two agents, or an operator and an agent, have to be able to prove later: Ed25519 (RFC 8032),
//! always with a label, so that a signature made for one purpose is never valid for another. TLS 1.3 signs with the
//! same keys behind 64 spaces and its own context string (RFC 8446, 4.4.3), which no label here can imitate.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use minicbor::{Decode, Encode};

use crate::{
    close::Code,
    error::{Error, Result},
};

/// What a signature is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Accept,
    Begin,
    Manifest,
    Receipt,
    Grant,
    Archive,
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
        }
    }

    /// The bytes that are signed: the label, then the message.
    pub fn signed_bytes(self, message: &[u8]) -> Vec<u8> {
        [self.label(), message].concat()
    }
}

/// 64 bytes of Ed25519.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Signature(#[cbor(with = "minicbor::bytes")] pub [u8; 64]);

/// An Ed25519 public key, 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct PublicKey(#[cbor(with = "minicbor::bytes")] pub [u8; 32]);

/// Whoever holds a signing key.
pub trait Signer {
    fn sign(&self, purpose: Purpose, message: &[u8]) -> Signature;
    fn public_key(&self) -> PublicKey;
}

impl PublicKey {
    /// Whether the holder of this key signed `message` for `purpose`; `otherwise` is the code of the error if not.
    pub fn verify(&self, purpose: Purpose, message: &[u8], signature: &Signature, otherwise: Code) -> Result<()> {
        UnparsedPublicKey::new(&ED25519, &self.0)
            .verify(&purpose.signed_bytes(message), &signature.0)
            .map_err(|_| Error::new(otherwise, "signature"))
    }
}
