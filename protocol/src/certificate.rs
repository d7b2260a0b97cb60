//! Certificates as receipts keep them: the identities of the agents, for a reader who checks the
//! receipt when both are gone.

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

/// An agent's certificate, then the certificates of its issuers, if any: at most
/// [`CERTIFICATES_MAX`], the leaf first.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Chain(#[cbor(decode_with = "codec::bounded::<_, _, CERTIFICATES_MAX>")] pub Vec<Certificate>);

impl Certificate {
    /// The Ed25519 key in the certificate, or `None`. Nothing else in the certificate is checked.
    pub fn key(&self) -> Option<PublicKey> {
        let der = CertificateDer::from(self.0.as_slice());
        let parsed = EndEntityCert::try_from(&der).ok()?;
        PublicKey::from_spki(&parsed.subject_public_key_info())
    }
}

impl Chain {
    /// The chain of one self-signed certificate, given as DER.
    pub fn self_signed(der: &[u8]) -> Self {
        Self(vec![Certificate(der.to_vec())])
    }

    /// Checks that every certificate is within [`CERTIFICATE_BYTES_MAX`] (`LimitExceeded`) and that
    /// the leaf has this key (`IdentityRefused`). The signatures of the chain are not verified: the
    /// reader of the receipt decides which issuer to trust.
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
