//! What a certificate that an operator's authority issued says of an agent: its one subject
//! alternative name is a SPIFFE identity with the agent's role. Of a peer's, nothing here is asked
//! before its path was validated. Agents take such certificates (`identity --certificate`); no
//! command asks a peer for one yet, since tickets pin keys.

use std::fmt;

use rustls_pki_types::CertificateDer;
use sealift_protocol::sign::PublicKey;
use x509_parser::{
    extensions::{GeneralName, ParsedExtension},
    prelude::{FromDer, X509Certificate},
};

use crate::{
    failure::{Failure, Outcome},
    role::Role,
};

/// The longest identity: room for an authority and a name of 255 bytes each.
const SPIFFE_BYTES_MAX: usize = 600;

/// OID of Ed25519, RFC 8410.
const OID_ED25519: &str = "1.3.101.112";

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

    /// The identity in `text`, if it is one of this role: the SPIFFE character set, no empty
    /// segment, and dots only one at a time between other characters, so that one name has one
    /// spelling.
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

/// What a peer's certificate says of it, once its chain is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    pub id: SpiffeId,
    pub key: PublicKey,
}

/// Checks what path validation leaves open: an Ed25519 key that may sign and nothing else, not a
/// CA, the one extended use of its role, and exactly one name, a SPIFFE identity of that role. The
/// error is the check that failed.
pub fn verify_leaf(leaf: &CertificateDer<'_>, role: Role) -> Result<PeerIdentity, &'static str> {
    let (rest, certificate) = X509Certificate::from_der(leaf).map_err(|_| "not a certificate")?;
    if !rest.is_empty() {
        return Err("bytes after the certificate");
    }
    let key_info = certificate.public_key();
    if key_info.algorithm.algorithm.to_id_string() != OID_ED25519 {
        return Err("key is not Ed25519");
    }
    let key = key_info.subject_public_key.data.as_ref().try_into().map_err(|_| "key is not 32 bytes")?;
    verify_constraints(&certificate, role)?;
    let id = verify_names(&certificate, role)?;
    Ok(PeerIdentity { id, key: PublicKey(key) })
}

/// Whether a certificate is valid at that time. The error is the check that failed.
pub fn check_time(certificate: &CertificateDer<'_>, now_seconds: u64) -> Result<(), &'static str> {
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| "not a certificate")?;
    let validity = certificate.validity();
    let now = i64::try_from(now_seconds).map_err(|_| "the clock")?;
    if now < validity.not_before.timestamp() {
        return Err("it is not valid yet; or this host's clock is behind");
    }
    if now > validity.not_after.timestamp() {
        return Err("it has expired; or this host's clock is ahead");
    }
    Ok(())
}

/// Checks what path validation leaves open of an intermediate: if it says what its key is for, then
/// for signing certificates (RFC 5280, 6.1.4 n). The error is the check that failed.
pub fn verify_intermediate(intermediate: &CertificateDer<'_>) -> Result<(), &'static str> {
    let (_, certificate) = X509Certificate::from_der(intermediate).map_err(|_| "intermediate is no certificate")?;
    let usage = certificate.key_usage().map_err(|_| "key usage of an intermediate")?;
    match usage.is_none_or(|usage| usage.value.key_cert_sign()) {
        true => Ok(()),
        false => Err("intermediate may not sign certificates"),
    }
}

fn verify_constraints(certificate: &X509Certificate<'_>, role: Role) -> Result<(), &'static str> {
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

fn verify_names(certificate: &X509Certificate<'_>, role: Role) -> Result<SpiffeId, &'static str> {
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
