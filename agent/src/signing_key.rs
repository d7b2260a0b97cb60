//! An Ed25519 key without a certificate: one that is known by its fingerprint.

use aws_lc_rs::{rand::SystemRandom, signature::Ed25519KeyPair};
use sealift_protocol::{
    close::Code,
    sign::{PublicKey, Purpose, Signature, Signer},
};
use zeroize::Zeroizing;

use crate::{
    failure::{Failure, Outcome},
    identity::{public_key_of, sign_with},
};

pub struct SigningKey {
    key: Ed25519KeyPair,
}

impl SigningKey {
    pub fn generate() -> Outcome<Self> {
        Self::from_pkcs8(&Self::generate_pkcs8()?)
    }

    /// A fresh key, to be kept with mode 0600.
    pub fn generate_pkcs8() -> Outcome<Zeroizing<Vec<u8>>> {
        let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
        let made = made.map_err(|_| Failure::new(Code::Internal, "cannot make a key", ""))?;
        Ok(Zeroizing::new(made.as_ref().to_vec()))
    }

    pub fn from_pkcs8(pkcs8: &[u8]) -> Outcome<Self> {
        let damaged = |_| Failure::new(Code::Preflight, "a kept signing key is damaged", "");
        Ok(Self { key: Ed25519KeyPair::from_pkcs8(pkcs8).map_err(damaged)? })
    }
}

impl Signer for SigningKey {
    fn sign(&self, purpose: Purpose, message: &[u8]) -> Signature {
        sign_with(&self.key, purpose, message)
    }

    fn public_key(&self) -> PublicKey {
        public_key_of(&self.key)
    }
}
