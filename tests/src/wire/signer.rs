use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use sealift_protocol::sign::{PublicKey, Purpose, Signature, Signer};

/// An Ed25519 key from a seed.
pub struct TestSigner(Ed25519KeyPair);

impl TestSigner {
    pub fn new(seed: [u8; 32]) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&seed).expect("any 32 bytes are a seed"))
    }
}

impl Signer for TestSigner {
    fn sign(&self, purpose: Purpose, message: &[u8]) -> Signature {
        Signature(self.0.sign(&purpose.signed_bytes(message)).as_ref().try_into().unwrap())
    }

    fn public_key(&self) -> PublicKey {
        PublicKey(self.0.public_key().as_ref().try_into().unwrap())
    }
}
