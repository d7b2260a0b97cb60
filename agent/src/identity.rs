//! Who an agent is: an X.509 certificate whose one subject alternative name is a SPIFFE identity with the agent's role,
//! and the Ed25519 key that goes with it. The same key proves the agent in TLS and signs transcripts, manifests and
//! receipts.

use std::{fmt, sync::Arc};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sealift_protocol::{
    close::Code,
    sign::{PublicKey, Purpose, Signature, Signer},
};
use x509_parser::{
    extensions::{GeneralName, ParsedExtension},
    prelude::{FromDer, X509Certificate},
};
use zeroize::Zeroizing;

use crate::failure::{Failure, Outcome};

/// The longest identity: room for an authority and a name of 255 bytes each.
const SPIFFE_BYTES_MAX: usize = 600;

/// OID of Ed25519, RFC 8410.
const OID_ED25519: &str = "1.3.101.112";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Sender,
    Receiver,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Role::Sender => "sender",
            Role::Receiver => "receiver",
        }
    }

    pub fn peer(self) -> Role {
        match self {
            Role::Sender => Role::Receiver,
            Role::Receiver => Role::Sender,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `spiffe://AUTHORITY/sealift/ROLE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpiffeId(String);

impl SpiffeId {
    pub fn new(authority: &str, role: Role, name: &str) -> Outcome<Self> {
        let text = format!("spiffe://{authority}/sealift/{role}/{name}");
        Self::parse(&text, role).ok_or_else(|| {
            let next = "Use lower-case letters, digits, '-' and '_', and single dots between them.";
            Failure::usage(format!("'{name}' at '{authority}' makes no identity"), next)
        })
    }

    /// The identity in `text`, if it is one of this role: the SPIFFE character set, no empty segment, and
    /// dots only one at a time between other characters, so that one name has one spelling.
    pub fn parse(text: &str, role: Role) -> Option<Self> {
        let rest = text.strip_prefix("spiffe://").filter(|_| text.len() <= SPIFFE_BYTES_MAX)?;
        let segments: Vec<&str> = rest.split('/').collect();
        let [authority, "sealift", role_name, name] = segments[..] else { return None };
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
        let dotted = |segment: &str| segment.starts_with('.') || segment.ends_with('.') || segment.contains("..");
        let good = |segment: &str| !segment.is_empty() && !dotted(segment) && segment.bytes().all(plain);
        (role_name == role.name() && good(authority) && good(name)).then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An agent's own certificate chain and key.
pub struct Identity {
    pub id: SpiffeId,
    chain: Vec<CertificateDer<'static>>,
    pkcs8: Zeroizing<Vec<u8>>,
    key: Ed25519KeyPair,
}

impl Identity {
    /// Puts certificate and key together; fails if they do not belong to each other, or not to `role`.
    pub fn new(chain: Vec<CertificateDer<'static>>, pkcs8: Zeroizing<Vec<u8>>, role: Role) -> Outcome<Self> {
        let damaged = || Failure::new(Code::IdentityRefused, "identity and key do not fit each other", "");
        let leaf = chain.first().ok_or_else(damaged)?;
        let PeerIdentity { id, key: certified } = judge_leaf(leaf, role).map_err(|check| {
            Failure::new(Code::IdentityRefused, format!("this agent's own certificate: {check}"), "")
        })?;
        let key = Ed25519KeyPair::from_pkcs8(&pkcs8).map_err(|_| damaged())?;
        if key.public_key().as_ref() != certified.0 {
            return Err(damaged());
        }
        Ok(Self { id, chain, pkcs8, key })
    }

    pub fn leaf(&self) -> &CertificateDer<'static> {
        &self.chain[0]
    }

    /// Certificate chain and key as rustls wants them.
    pub(crate) fn certified_key(&self) -> Outcome<Arc<CertifiedKey>> {
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pkcs8.as_slice()));
        let key = rustls::crypto::aws_lc_rs::sign::any_eddsa_type(match &der {
            PrivateKeyDer::Pkcs8(pkcs8) => pkcs8,
            _ => unreachable!("made as PKCS #8 above"),
        })
        .map_err(|_| Failure::new(Code::IdentityRefused, "identity key is not usable", ""))?;
        Ok(Arc::new(CertifiedKey::new(self.chain.clone(), key)))
    }
}

impl Signer for Identity {
    fn sign(&self, purpose: Purpose, message: &[u8]) -> Signature {
        sign_with(&self.key, purpose, message)
    }

    fn public_key(&self) -> PublicKey {
        public_key_of(&self.key)
    }
}

pub(crate) fn sign_with(key: &Ed25519KeyPair, purpose: Purpose, message: &[u8]) -> Signature {
    let signature = key.sign(&purpose.signed_bytes(message));
    Signature(signature.as_ref().try_into().expect("an Ed25519 signature has 64 bytes"))
}

pub(crate) fn public_key_of(key: &Ed25519KeyPair) -> PublicKey {
    PublicKey(key.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes"))
}

/// What a peer's certificate says of it, once its chain is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    pub id: SpiffeId,
    pub key: PublicKey,
}

/// Judges what path validation leaves open: an Ed25519 key that may sign and nothing else, not a CA, the one extended
/// use of its role, and exactly one name, a SPIFFE identity of that role. The error is the check that failed.
pub fn judge_leaf(leaf: &CertificateDer<'_>, role: Role) -> Result<PeerIdentity, &'static str> {
    let (rest, certificate) = X509Certificate::from_der(leaf).map_err(|_| "not a certificate")?;
    if !rest.is_empty() {
        return Err("bytes after the certificate");
    }
    let key_info = certificate.public_key();
    if key_info.algorithm.algorithm.to_id_string() != OID_ED25519 {
        return Err("key is not Ed25519");
    }
    let key = key_info.subject_public_key.data.as_ref().try_into().map_err(|_| "key is not 32 bytes")?;
    judge_constraints(&certificate, role)?;
    let id = judge_names(&certificate, role)?;
    Ok(PeerIdentity { id, key: PublicKey(key) })
}

/// Judges what path validation leaves open of an intermediate: if it says what its key is for, then for signing
/// certificates (RFC 5280, 6.1.4 n). The error is the check that failed.
pub fn judge_intermediate(intermediate: &CertificateDer<'_>) -> Result<(), &'static str> {
    let (_, certificate) = X509Certificate::from_der(intermediate).map_err(|_| "intermediate is no certificate")?;
    let usage = certificate.key_usage().map_err(|_| "key usage of an intermediate")?;
    match usage.is_none_or(|usage| usage.value.key_cert_sign()) {
        true => Ok(()),
        false => Err("intermediate may not sign certificates"),
    }
}

fn judge_constraints(certificate: &X509Certificate<'_>, role: Role) -> Result<(), &'static str> {
    let is_ca = certificate.basic_constraints().map_err(|_| "basic constraints")?.is_some_and(|found| found.value.ca);
    if is_ca {
        return Err("a CA certificate is no agent's");
    }
    let usage = certificate.key_usage().map_err(|_| "key usage")?.ok_or("no key usage")?;
    if !usage.value.digital_signature() || usage.value.key_cert_sign() || usage.value.crl_sign() {
        return Err("key usage is not digital signature");
    }
    let extended =
        certificate.extended_key_usage().map_err(|_| "extended key usage")?.ok_or("no extended key usage")?;
    let uses = extended.value;
    let only_role = match role {
        Role::Sender => uses.client_auth && !uses.server_auth,
        Role::Receiver => uses.server_auth && !uses.client_auth,
    };
    let others = uses.any
        || uses.code_signing
        || uses.email_protection
        || uses.time_stamping
        || uses.ocsp_signing
        || !uses.other.is_empty();
    if only_role && !others { Ok(()) } else { Err("extended key usage is not that of the role") }
}

fn judge_names(certificate: &X509Certificate<'_>, role: Role) -> Result<SpiffeId, &'static str> {
    let mut names = certificate.extensions().iter().filter_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(names) => Some(names),
        _ => None,
    });
    let (Some(names), None) = (names.next(), names.next()) else {
        return Err("no subject alternative name");
    };
    match names.general_names[..] {
        [GeneralName::URI(uri)] => SpiffeId::parse(uri, role).ok_or("name is no identity of the role"),
        _ => Err("not exactly one URI as subject alternative name"),
    }
}
