//! Who an agent is: an Ed25519 key that it makes at its first start, that never leaves its host,
//! and that people know by its fingerprint. The same key proves the agent in TLS and signs
//! transcripts, grants, manifests and receipts. An authority certifies it on a signing request:
//! what it gives back takes the place of the certificate that the agent made for itself.

use std::{path::Path, sync::Arc};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use minicbor::{Decode, Encode};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ED25519};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use sealift_protocol::{
    certificate::Certificate,
    close::Code,
    codec,
    fingerprint::Fingerprint,
    limits::CERTIFICATE_BYTES_MAX,
    sign::{PublicKey, Purpose, Signature, Signer},
};
use time::OffsetDateTime;
use zeroize::{Zeroize, Zeroizing};

use crate::{
    audit::{AuditLog, entry::Entry},
    failure::{Failure, Outcome},
    own_file::{read_own, unusable},
    role::Role,
    state::{StateDir, write_durably},
};

/// Its file in the state directory.
const NAME: &str = "identity";

/// A key of some hundred bytes, and a certificate.
const FILE_BYTES_MAX: usize = CERTIFICATE_BYTES_MAX + (1 << 10);

/// "To indicate that a certificate has no well-defined expiration date" (RFC 5280, 4.1.2.5): what
/// ends a transfer's authority is its grant.
const NO_EXPIRATION: (i32, u8, u8) = (9999, 12, 31);

/// An agent's own certificate chain and key.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    pkcs8: Zeroizing<Vec<u8>>,
    key: Ed25519KeyPair,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Kept {
    /// PKCS #8.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    key: Vec<u8>,
    /// DER.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    certificate: Vec<u8>,
}

impl Kept {
    /// Durable when this returns.
    fn write(&self, state: &StateDir) -> Outcome {
        let path = state.path().join(NAME);
        let bytes = Zeroizing::new(codec::encode(self));
        write_durably(&path, &bytes).map_err(|error| unusable(&path, &error))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl Identity {
    /// The identity in the state directory; made, and noted in the audit log, at the first start.
    pub fn open(state: &StateDir, role: Role, audit: &AuditLog) -> Outcome<Self> {
        if let Some(identity) = Self::kept(state)? {
            return Ok(identity);
        }
        // Of two agents that start at once, one makes the identity and the other finds it.
        let _lock = state.lock()?;
        if let Some(identity) = Self::kept(state)? {
            return Ok(identity);
        }
        let (kept, identity) = make(role)?;
        audit.append(None, &Entry::IdentityMake { fingerprint: identity.fingerprint() })?;
        kept.write(state)?;
        Ok(identity)
    }

    /// The identity in the state directory as it is there now; none if there is none.
    pub fn kept(state: &StateDir) -> Outcome<Option<Self>> {
        let path = state.path().join(NAME);
        let Some(bytes) = read_own(&path, FILE_BYTES_MAX)? else { return Ok(None) };
        let kept: Kept = codec::decode(&bytes, FILE_BYTES_MAX, "identity").map_err(|_| damaged(&path))?;
        let chain = vec![CertificateDer::from(kept.certificate.clone())];
        Self::new(chain, Zeroizing::new(kept.key.clone())).map(Some).map_err(|_| damaged(&path))
    }

    /// An identity of certificate chain and key; fails if they do not belong to each other.
    pub fn new(chain: Vec<CertificateDer<'static>>, pkcs8: Zeroizing<Vec<u8>>) -> Outcome<Self> {
        let mismatched = || Failure::new(Code::IdentityRefused, "certificate and key do not fit each other", "");
        let certified = chain.first().and_then(certified_key).ok_or_else(mismatched)?;
        let key = Ed25519KeyPair::from_pkcs8(&pkcs8).map_err(|_| mismatched())?;
        if public_key_of(&key) != certified {
            return Err(mismatched());
        }
        Ok(Self { chain, pkcs8, key })
    }

    /// A request (PKCS #10, RFC 2986) for a certificate of this key, in PEM. It asks for a role;
    /// which name and how long is for the authority to say.
    pub fn signing_request(&self, role: Role) -> Outcome<String> {
        let failed = |_| Failure::new(Code::Internal, "cannot make a signing request", "");
        let mut key = KeyPair::try_from(&PrivatePkcs8KeyDer::from(self.pkcs8.as_slice())).map_err(failed)?;
        let request = params(role).serialize_request(&key);
        key.zeroize();
        request.and_then(|request| request.pem()).map_err(failed)
    }

    /// Keeps a certificate of this key in the state directory, in place of the one there.
    pub(crate) fn keep_certificate(&self, state: &StateDir, issued: &CertificateDer<'_>) -> Outcome {
        let kept = Kept { key: self.pkcs8.to_vec(), certificate: issued.to_vec() };
        kept.write(state)
    }

    /// An identity that no file holds, for one process.
    pub fn generate(role: Role) -> Outcome<Self> {
        make(role).map(|(_, identity)| identity)
    }

    pub fn leaf(&self) -> &CertificateDer<'static> {
        &self.chain[0]
    }

    /// What people know it by.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.public_key())
    }

    /// Certificate chain and key as rustls wants them.
    pub fn certified_key(&self) -> Outcome<Arc<CertifiedKey>> {
        let key = rustls::crypto::aws_lc_rs::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(self.pkcs8.as_slice()))
            .map_err(|_| Failure::new(Code::IdentityRefused, "the identity's key is not usable", ""))?;
        Ok(Arc::new(CertifiedKey::new(self.chain.clone(), key)))
    }
}

/// The Ed25519 key in a certificate, which need not be valid in any other way; `None` if there is
/// none.
pub fn certified_key(certificate: &CertificateDer<'_>) -> Option<PublicKey> {
    Certificate(certificate.to_vec()).key()
}

/// A fresh key, and a certificate that it signs for itself. No name in it is trusted.
fn make(role: Role) -> Outcome<(Kept, Identity)> {
    let failed = |_| Failure::new(Code::Internal, "cannot make an identity", "");
    let mut key = KeyPair::generate_for(&PKCS_ED25519).map_err(failed)?;
    let certificate = params(role).self_signed(&key).map_err(failed)?.der().clone();
    let pkcs8 = Zeroizing::new(key.serialize_der());
    key.zeroize();
    let kept = Kept { key: pkcs8.to_vec(), certificate: certificate.to_vec() };
    Ok((kept, Identity::new(vec![certificate], pkcs8)?))
}

/// What a certificate of this role says, and a request asks for.
fn params(role: Role) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("sealift-{role}"));
    params.not_before = OffsetDateTime::UNIX_EPOCH;
    let (year, month, day) = NO_EXPIRATION;
    params.not_after = rcgen::date_time_ymd(year, month, day);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match role {
        Role::Sender => ExtendedKeyUsagePurpose::ClientAuth,
        Role::Receiver => ExtendedKeyUsagePurpose::ServerAuth,
    }];
    params
}

fn damaged(path: &Path) -> Failure {
    let next = "Restore it from a copy. Without one, move it away: this agent is then another one to everybody who pinned \
                it, and cannot resume what it had begun.";
    Failure::new(Code::Preflight, format!("{} is damaged", path.display()), next)
}

impl Signer for Identity {
    fn sign(&self, purpose: Purpose, message: &[u8]) -> Signature {
        let signature = self.key.sign(&purpose.signed_bytes(message));
        Signature(signature.as_ref().try_into().expect("an Ed25519 signature has 64 bytes"))
    }

    fn public_key(&self) -> PublicKey {
        public_key_of(&self.key)
    }
}

fn public_key_of(key: &Ed25519KeyPair) -> PublicKey {
    PublicKey(key.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    use super::*;

    /// Issue 9, A1: made once, kept closed to others, and the same at every later start.
    #[test]
    fn an_identity_is_made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(Some(folder.path().join("state")), "test").unwrap();
        let audit = AuditLog::open(&state, "test").unwrap();
        let first = Identity::open(&state, Role::Sender, &audit).unwrap();
        let again = Identity::open(&state, Role::Sender, &audit).unwrap();
        assert_eq!((first.fingerprint(), first.leaf()), (again.fingerprint(), again.leaf()));
        let path = state.path().join(NAME);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(certified_key(first.leaf()), Some(first.public_key()));

        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(Identity::open(&state, Role::Sender, &audit).err().unwrap().code, Code::Preflight);
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, b"no identity").unwrap();
        assert!(Identity::open(&state, Role::Sender, &audit).err().unwrap().what.contains("damaged"));
    }
}
