use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use sealift_protocol::sign::{PublicKey, Purpose, Signature, Signer};

/// An Ed25519 key from a seed.
pub struct TestSigner {
    seed: [u8; 32],
    key: Ed25519KeyPair,
}

impl TestSigner {
    pub fn new(seed: [u8; 32]) -> Self {
        Self { seed, key: Ed25519KeyPair::from_seed_unchecked(&seed).expect("any 32 bytes are a seed") }
    }

    /// The private key, as RFC 8032 has it.
    pub fn seed(&self) -> [u8; 32] {
        self.seed
    }
}

impl Signer for TestSigner {
    fn sign(&self, purpose: Purpose, message: &[u8]) -> Signature {
        Signature(self.key.sign(&purpose.signed_bytes(message)).as_ref().try_into().unwrap())
    }

    fn public_key(&self) -> PublicKey {
        PublicKey(self.key.public_key().as_ref().try_into().unwrap())
    }
}
