//! Certificates as receipts keep them: who the agents were, for a reader who checks the receipt
//! when both are gone.

use minicbor::{Decode, Encode};
use rustls_pki_types::CertificateDer;
use webpki::EndEntityCert;

use crate::{
    close::Code,
    codec,
    error::{Error, Result},
    limits::{CERTIFICATE_BYTES_MAX, CERTIFICATES_MAX},
    sign::PublicKey,
};

/// DER of an X.509 certificate.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Certificate(#[cbor(with = "minicbor::bytes")] pub Vec<u8>);

/// An agent's certificate, and those by which it was issued, if any: the leaf first.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Chain(#[cbor(decode_with = "codec::bounded::<_, _, CERTIFICATES_MAX>")] pub Vec<Certificate>);

impl Certificate {
    /// The Ed25519 key in it, which need not be valid in any other way; `None` if there is none.
    pub fn key(&self) -> Option<PublicKey> {
        let der = CertificateDer::from(self.0.as_slice());
        let parsed = EndEntityCert::try_from(&der).ok()?;
        PublicKey::from_spki(&parsed.subject_public_key_info())
    }
}

impl Chain {
    /// Of a certificate that its own key has signed.
    pub fn self_signed(der: &[u8]) -> Self {
        Self(vec![Certificate(der.to_vec())])
    }

    /// That it is within bounds, and that its leaf is of this key. Who issued it is for the reader
    /// to believe or not.
    pub fn check(&self, key: &PublicKey) -> Result<()> {
        if self.0.iter().any(|certificate| certificate.0.len() > CERTIFICATE_BYTES_MAX) {
            return Err(Error::new(Code::LimitExceeded, "length of a certificate"));
        }
        match self.0.first().and_then(Certificate::key) {
            Some(found) if found == *key => Ok(()),
            _ => Err(Error::new(Code::IdentityRefused, "certificate of another key")),
        }
    }
}
