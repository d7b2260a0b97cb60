//! An identity is certified by an authority on a signing request: the agent's key never leaves its
//! host, and what the authority issued takes the place of the certificate that the agent made.

use std::{fs::File, io::Read, path::Path};

use rustls_pki_types::{CertificateDer, pem::PemObject};
use sealift_protocol::{close::Code, limits::CERTIFICATE_BYTES_MAX, sign::Signer};

use crate::{
    audit::{
        AuditLog,
        entry::{Entry, Name},
    },
    certificate::{check_time, verify_leaf},
    clock::now_seconds,
    failure::{Failure, Outcome},
    identity::{Identity, certified_key},
    role::Role,
    state::StateDir,
};

/// A certificate of ours has some 500 bytes; a chain of three with its text, some ten thousand.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Takes the certificate in the file at `path`: from the next connection on, the agent shows it.
pub fn certify(identity: &Identity, role: Role, state: &StateDir, audit: &AuditLog, path: &Path) -> Outcome {
    let issued = read_certificate(path)?;
    let refused = |why: &str| {
        let hint = format!(
            "Have it issued again, on what `{} identity --request` prints: for the same key, with a name \
             spiffe://AUTHORITY/sealift/{role}/NAME, and for the use of a {role} alone.",
            role.program()
        );
        Failure::new(Code::IdentityRefused, format!("the certificate is refused: {why}"), hint)
    };
    if certified_key(&issued) != Some(identity.public_key()) {
        return Err(refused("it is of another key than this agent's"));
    }
    if issued.len() > CERTIFICATE_BYTES_MAX {
        return Err(refused("it is too large"));
    }
    let subject = verify_leaf(&issued, role).map_err(refused)?;
    check_time(&issued, now_seconds()).map_err(refused)?;
    let _lock = state.lock()?;
    let name = Name::new(subject.id.as_str());
    audit.append(None, &Entry::IdentityCertify { fingerprint: identity.fingerprint(), name })?;
    identity.keep_certificate(state, &issued)
}

/// The one certificate in a PEM file.
fn read_certificate(path: &Path) -> Outcome<CertificateDer<'static>> {
    let unreadable = |what: &str| {
        let hint = "Give the agent's own certificate, in PEM, without any other: openssl x509 -in FILE prints it.";
        Failure::usage(format!("--certificate {}: {what}", path.display()), hint)
    };
    let io = |error: std::io::Error| unreadable(&error.kind().to_string());
    let mut text = Vec::new();
    File::open(path).map_err(io)?.take(FILE_BYTES_MAX).read_to_end(&mut text).map_err(io)?;
    let mut found = CertificateDer::pem_slice_iter(&text);
    match (found.next(), found.next()) {
        (Some(Ok(certificate)), None) => Ok(certificate),
        (None, _) => Err(unreadable("there is no certificate in it")),
        (Some(Ok(_)), Some(Ok(_))) => Err(unreadable("there is more than one certificate in it")),
        _ => Err(unreadable("it is damaged")),
    }
}
