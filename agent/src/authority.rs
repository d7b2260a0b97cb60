//! Issues identities and grants. The authority of a standing receiver is kept on disk ([`crate::standing`]); the one behind
//! a ticket of `listen` lives for the blink in which it signs one sender, one receiver and one grant, and its keys are then
//! gone.

use std::time::Duration;

use aws_lc_rs::signature::Ed25519KeyPair;
use minicbor::{Decode, Encode};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, SanType,
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use sealift_protocol::{
    close::Code,
    sign::{PublicKey, Purpose, Signature, Signer},
};
use time::OffsetDateTime;
use zeroize::{Zeroize, Zeroizing};

use crate::{
    failure::{Failure, Outcome},
    identity::{Identity, Role, SpiffeId, public_key_of, sign_with},
};

/// How long before now a certificate is already valid, so that a peer whose clock is behind accepts it.
const BACKDATED: Duration = Duration::from_secs(60);

/// A certificate authority and a key that signs grants.
pub struct Authority {
    name: String,
    root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    grant_key: Ed25519KeyPair,
    grant_pkcs8: Zeroizing<Vec<u8>>,
}

/// An authority as it is kept: all of its keys.
#[derive(Encode, Decode)]
#[cbor(map)]
pub struct KeptAuthority {
    #[n(0)]
    name: String,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    root: Vec<u8>,
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    key: Vec<u8>,
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    grant_key: Vec<u8>,
}

impl Drop for KeptAuthority {
    fn drop(&mut self) {
        self.key.zeroize();
        self.grant_key.zeroize();
    }
}

fn failed<E>(what: &'static str) -> impl FnOnce(E) -> Failure {
    move |_| Failure::new(Code::Internal, format!("cannot make {what}"), "")
}

fn generate_key() -> Outcome<KeyPair> {
    KeyPair::generate_for(&PKCS_ED25519).map_err(failed("a key"))
}

impl Authority {
    /// Makes an authority with fresh keys.
    pub fn generate(name: &str, now: OffsetDateTime, valid_for: Duration) -> Outcome<Self> {
        let key = generate_key()?;
        let mut params = base_params(now, valid_for);
        params.distinguished_name.push(DnType::CommonName, format!("Sealift authority {name}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root = params.self_signed(&key).map_err(failed("a certificate"))?.der().clone();
        let grant_pkcs8 = Zeroizing::new(generate_key()?.serialize_der());
        let grant_key = Ed25519KeyPair::from_pkcs8(&grant_pkcs8).map_err(failed("a key"))?;
        Ok(Self { name: name.to_owned(), root, issuer: Issuer::new(params, key), grant_key, grant_pkcs8 })
    }

    /// For a file that is as secret as the keys.
    pub fn keep(&self) -> KeptAuthority {
        KeptAuthority {
            name: self.name.clone(),
            root: self.root.to_vec(),
            key: self.issuer.key().serialize_der(),
            grant_key: self.grant_pkcs8.to_vec(),
        }
    }

    pub fn from_kept(kept: &KeptAuthority) -> Outcome<Self> {
        let root = CertificateDer::from(kept.root.clone());
        let pkcs8 = PrivatePkcs8KeyDer::from(kept.key.as_slice());
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &PKCS_ED25519).map_err(failed("a key"))?;
        let issuer = Issuer::from_ca_cert_der(&root, key).map_err(failed("a certificate"))?;
        let grant_pkcs8 = Zeroizing::new(kept.grant_key.clone());
        let grant_key = Ed25519KeyPair::from_pkcs8(&grant_pkcs8).map_err(failed("a key"))?;
        Ok(Self { name: kept.name.clone(), root, issuer, grant_key, grant_pkcs8 })
    }

    /// The identity of this `name` here.
    pub fn id(&self, role: Role, name: &str) -> Outcome<SpiffeId> {
        SpiffeId::new(&self.name, role, name)
    }

    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// Makes a key and certifies it.
    pub fn issue(&self, role: Role, name: &str, now: OffsetDateTime, valid_for: Duration) -> Outcome<Issued> {
        let id = self.id(role, name)?;
        let mut key = generate_key()?;
        let mut params = base_params(now, valid_for);
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match role {
            Role::Sender => ExtendedKeyUsagePurpose::ClientAuth,
            Role::Receiver => ExtendedKeyUsagePurpose::ServerAuth,
        }];
        let uri = id.as_str().try_into().map_err(failed("an identity"))?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed("a certificate"))?;
        let pkcs8 = Zeroizing::new(key.serialize_der());
        key.zeroize();
        Ok(Issued { chain: vec![certificate.der().clone()], pkcs8, role })
    }
}

/// A fresh certificate and its key.
pub struct Issued {
    pub chain: Vec<CertificateDer<'static>>,
    pub pkcs8: Zeroizing<Vec<u8>>,
    role: Role,
}

impl Issued {
    pub fn into_identity(self) -> Outcome<Identity> {
        Identity::new(self.chain, self.pkcs8, self.role)
    }
}

impl Signer for Authority {
    fn sign(&self, purpose: Purpose, message: &[u8]) -> Signature {
        sign_with(&self.grant_key, purpose, message)
    }

    fn public_key(&self) -> PublicKey {
        public_key_of(&self.grant_key)
    }
}

fn base_params(now: OffsetDateTime, valid_for: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = now - BACKDATED;
    params.not_after = now + valid_for;
    params
}
