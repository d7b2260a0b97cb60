//! Keys that sign certificates: the allowed kinds through rcgen, the forbidden ones through the
//! `openssl` program.

use std::{fs, process::Command};

use rcgen::{KeyPair, PublicKeyData, SigningKey};

use super::der::{null, oid, sequence};
use crate::shared;

/// A kind of key, and the one algorithm it signs certificates with here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ed25519,
    P256,
    P384,
    // From here on nothing that Sealift accepts.
    P521,
    P192,
    Ed448,
    Rsa1024Sha256,
    Rsa2048Sha256,
    Rsa2048Sha1,
    P256Sha1,
}

pub struct Key {
    pub kind: Kind,
    /// SubjectPublicKeyInfo.
    pub public: Vec<u8>,
    /// PKCS #8.
    pub private: Vec<u8>,
    signer: Signer,
}

enum Signer {
    Rcgen(Box<KeyPair>),
    OpenSsl,
}

impl Kind {
    /// AlgorithmIdentifier of a signature by such a key.
    pub fn signature_algorithm(self) -> Vec<u8> {
        let ecdsa_sha2 = |last| sequence(&[oid(&[1, 2, 840, 10045, 4, 3, last])]);
        let rsa = |last| sequence(&[oid(&[1, 2, 840, 113_549, 1, 1, last]), null()]);
        match self {
            Kind::Ed25519 => sequence(&[oid(&[1, 3, 101, 112])]),
            Kind::Ed448 => sequence(&[oid(&[1, 3, 101, 113])]),
            Kind::P256 | Kind::P192 => ecdsa_sha2(2),
            Kind::P384 => ecdsa_sha2(3),
            Kind::P521 => ecdsa_sha2(4),
            Kind::P256Sha1 => sequence(&[oid(&[1, 2, 840, 10045, 4, 1])]),
            Kind::Rsa1024Sha256 | Kind::Rsa2048Sha256 => rsa(11),
            Kind::Rsa2048Sha1 => rsa(5),
        }
    }

    fn openssl_genpkey(self) -> &'static [&'static str] {
        match self {
            Kind::Ed448 => &["-algorithm", "ED448"],
            Kind::P192 => &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-192"],
            Kind::P256Sha1 => &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
            Kind::Rsa1024Sha256 => &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"],
            _ => &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        }
    }

    fn openssl_digest(self) -> &'static [&'static str] {
        match self {
            Kind::Ed448 => &[],
            Kind::Rsa2048Sha1 | Kind::P256Sha1 => &["-digest", "sha1"],
            _ => &["-digest", "sha256"],
        }
    }
}

impl Key {
    pub fn generate(kind: Kind) -> Self {
        let algorithm = match kind {
            Kind::Ed25519 => &rcgen::PKCS_ED25519,
            Kind::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            Kind::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            Kind::P521 => &rcgen::PKCS_ECDSA_P521_SHA512,
            _ => return Self::by_openssl(kind),
        };
        let pair = KeyPair::generate_for(algorithm).unwrap();
        let (public, private) = (pair.subject_public_key_info(), pair.serialize_der());
        Self { kind, public, private, signer: Signer::Rcgen(Box::new(pair)) }
    }

    fn by_openssl(kind: Kind) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (private, public) = (folder.path().join("private"), folder.path().join("public"));
        let mut generate = Command::new("openssl");
        generate.args(["genpkey", "-quiet", "-outform", "DER", "-out"]).arg(&private).args(kind.openssl_genpkey());
        shared::run(&mut generate);
        let mut export = Command::new("openssl");
        export.args(["pkey", "-inform", "DER", "-pubout", "-outform", "DER", "-in"]).arg(&private);
        shared::run(export.arg("-out").arg(&public));
        let (private, public) = (fs::read(private).unwrap(), fs::read(public).unwrap());
        Self { kind, public, private, signer: Signer::OpenSsl }
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        if let Signer::Rcgen(pair) = &self.signer {
            return pair.sign(message).unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        let file = |name| folder.path().join(name);
        fs::write(file("key"), &self.private).unwrap();
        fs::write(file("message"), message).unwrap();
        let mut sign = Command::new("openssl");
        sign.args(["pkeyutl", "-sign", "-rawin", "-keyform", "DER", "-inkey"]).arg(file("key"));
        sign.arg("-in").arg(file("message")).arg("-out").arg(file("signature")).args(self.kind.openssl_digest());
        shared::run(&mut sign);
        fs::read(file("signature")).unwrap()
    }
}
