use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use sealift_protocol::sign::{PublicKey, Purpose, Signature, Signer};

/// What stands before the 32 bytes of an Ed25519 private key in PKCS #8 (RFC 8410, 7).
const PKCS8_PREFIX: &[u8] = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

/// An Ed25519 key from a seed.
pub struct TestSigner {
    seed: [u8; 32],
    key: Ed25519KeyPair,
}

impl TestSigner {
    pub fn new(seed: [u8; 32]) -> Self {
        Self { seed, key: Ed25519KeyPair::from_seed_unchecked(&seed).expect("any 32 bytes are a seed") }
    }

    /// A certificate that the key has signed for itself: the same bytes each time.
    pub fn certificate(&self) -> Vec<u8> {
        let pkcs8 = [PKCS8_PREFIX, &self.seed[..]].concat();
        let key = rcgen::KeyPair::try_from(pkcs8.as_slice()).expect("a private key as RFC 8410 has it");
        let mut params = rcgen::CertificateParams::default();
        params.serial_number = Some(1.into());
        params.self_signed(&key).expect("what a key signs for itself").der().to_vec()
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
