//! Which peers TLS lets through: the one that a ticket names by the fingerprint of its key; any
//! key, where the proof of a ticket follows; or those that an authority certifies, which no command
//! offers yet: it is for an operator's authority.

use std::{
    fmt,
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use sealift_protocol::{close::Code, fingerprint::Fingerprint};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList, RevocationCheckDepth,
    RevocationOptionsBuilder, UnknownStatusPolicy, anchor_from_trusted_cert,
};

use crate::{
    certificate::{verify_intermediate, verify_leaf},
    failure::{Failure, Outcome},
    identity::certified_key,
    refusals::{RefusalCause, Refusals},
    role::Role,
};

/// The signature algorithms that certificates and handshakes may use.
pub(crate) static SIGNATURES: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[webpki::aws_lc_rs::ED25519, webpki::aws_lc_rs::ECDSA_P256_SHA256, webpki::aws_lc_rs::ECDSA_P384_SHA384],
    mapping: &[
        (rustls::SignatureScheme::ED25519, &[webpki::aws_lc_rs::ED25519]),
        (rustls::SignatureScheme::ECDSA_NISTP256_SHA256, &[webpki::aws_lc_rs::ECDSA_P256_SHA256]),
        (rustls::SignatureScheme::ECDSA_NISTP384_SHA384, &[webpki::aws_lc_rs::ECDSA_P384_SHA384]),
    ],
};

/// Certificates between a peer's and the root. Two allow an offline root over an issuing authority
/// and one more.
const INTERMEDIATES_MAX: usize = 2;

/// One certificate; ours have about 400 bytes.
const CERTIFICATE_BYTES_MAX: usize = 8 << 10;

/// DER bodies of id-kp-clientAuth and id-kp-serverAuth (RFC 5280, 4.2.1.12).
const CLIENT_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];
const SERVER_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];

pub enum Trust {
    /// The peer with this key, whatever else its certificate says.
    Pinned(Fingerprint),
    /// Any peer that holds the key in its certificate. Who that is has to be proven by other means.
    AnyKey,
    /// Those that an authority vouches for.
    Authority(Authority),
}

impl Trust {
    /// Whether the peer is let through; the error is the check that failed.
    fn verify(
        &self,
        role: Role,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), &'static str> {
        if let Self::Authority(authority) = self {
            return authority.verify(role, leaf, intermediates, now);
        }
        if leaf.len() > CERTIFICATE_BYTES_MAX || !intermediates.is_empty() {
            return Err("size of the chain");
        }
        let key = certified_key(leaf).ok_or("key is not Ed25519")?;
        match self {
            Self::Pinned(fingerprint) if *fingerprint != Fingerprint::of(&key) => Err("fingerprint"),
            _ => Ok(()),
        }
    }
}

/// A root, the one identity that is expected if it is known, and revocation lists if any are
/// configured.
pub struct Authority {
    roots: Vec<CertificateDer<'static>>,
    expected: Option<String>,
    revocation: Option<Vec<CertRevocationList<'static>>>,
}

impl Authority {
    /// Peers under `root`; if `expected` is given, only the one with that identity.
    pub fn new(root: CertificateDer<'static>, expected: Option<String>) -> Self {
        Self { roots: vec![root], expected, revocation: None }
    }

    /// Asks for a current revocation list from every authority in a peer's chain; none for one of
    /// them is a refusal.
    pub fn with_revocation_lists(mut self, lists: &[CertificateRevocationListDer<'_>]) -> Outcome<Self> {
        let parse = |der: &CertificateRevocationListDer<'_>| {
            OwnedCertRevocationList::from_der(der).map(CertRevocationList::from).map_err(|_| {
                let next = "Give the authority's list as it publishes it, in DER.";
                Failure::new(Code::Usage, "a certificate revocation list cannot be read", next)
            })
        };
        self.revocation = Some(lists.iter().map(parse).collect::<Outcome<_>>()?);
        Ok(self)
    }

    /// Path validation (RFC 5280), by a parser that reads no more than that needs; then what the
    /// path says nothing of. The error is the check that failed.
    fn verify(
        &self,
        role: Role,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), &'static str> {
        let over = |der: &CertificateDer<'_>| der.len() > CERTIFICATE_BYTES_MAX;
        if intermediates.len() > INTERMEDIATES_MAX || over(leaf) || intermediates.iter().any(over) {
            return Err("size of the chain");
        }
        let anchors: Vec<_> =
            self.roots.iter().map(anchor_from_trusted_cert).collect::<Result<_, _>>().map_err(|_| "root")?;
        // Asked of every certificate in the path. Authorities ordinarily name no use; the leaf's is
        // checked below.
        let usage = KeyUsage::required_if_present(match role {
            Role::Sender => CLIENT_AUTH,
            Role::Receiver => SERVER_AUTH,
        });
        let lists: Vec<&CertRevocationList<'_>> = self.revocation.iter().flatten().collect();
        let revocation = match self.revocation {
            None => None,
            Some(_) => Some(
                RevocationOptionsBuilder::new(&lists)
                    .map_err(|_| "no revocation list")?
                    .with_depth(RevocationCheckDepth::Chain)
                    .with_status_policy(UnknownStatusPolicy::Deny)
                    .with_expiration_policy(ExpirationPolicy::Enforce)
                    .build(),
            ),
        };
        let leaf_in_path = EndEntityCert::try_from(leaf).map_err(|_| "path")?;
        let path = leaf_in_path
            .verify_for_usage(SIGNATURES.all, &anchors, intermediates, now, usage, revocation, None)
            .map_err(|_| "path")?;
        // Only what an authority has signed is given to the parser of everything else.
        if path.intermediate_certificates().count() != intermediates.len() {
            return Err("a certificate that is not in the path");
        }
        let peer = verify_leaf(leaf, role)?;
        intermediates.iter().try_for_each(verify_intermediate)?;
        if self.expected.as_ref().is_some_and(|expected| expected != peer.id.as_str()) {
            return Err("identity is not the one expected");
        }
        Ok(())
    }
}

/// [`Trust`] as rustls asks it, for peers of one role.
pub(crate) struct PeerVerifier {
    trust: Arc<Trust>,
    role: Role,
    /// So that strangers do not fill the log.
    refusals: Mutex<Refusals>,
}

impl PeerVerifier {
    pub(crate) fn new(trust: Arc<Trust>, role: Role) -> Self {
        Self { trust, role, refusals: Mutex::default() }
    }

    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        self.trust.verify(self.role, leaf, intermediates, now).map_err(|check| {
            let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
            // The connections are counted by address elsewhere; this says what was wrong with the
            // first of them.
            let time = Instant::now();
            refusals.report(time);
            if refusals.count(RefusalCause::Certificate, Ipv4Addr::UNSPECIFIED.into(), time) {
                tracing::warn!(peer = self.role.name(), check, "certificate refused");
            }
            Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
        })
    }
}

impl fmt::Debug for PeerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerVerifier({})", self.role)
    }
}

fn no_tls12<T>() -> Result<T, Error> {
    Err(Error::General("TLS 1.2 is not spoken".into()))
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &SIGNATURES)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SIGNATURES.supported_schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity, intermediates, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &SIGNATURES)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SIGNATURES.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
        PKCS_ED25519, SanType,
    };

    use super::*;

    struct TestAuthority {
        root: CertificateDer<'static>,
        issuer: Issuer<'static, KeyPair>,
    }

    impl TestAuthority {
        fn new() -> Self {
            let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            let root = params.self_signed(&key).unwrap().der().clone();
            Self { root, issuer: Issuer::new(params, key) }
        }

        fn leaf(&self, role: Role) -> CertificateDer<'static> {
            let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::ExplicitNoCa;
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![match role {
                Role::Sender => ExtendedKeyUsagePurpose::ClientAuth,
                Role::Receiver => ExtendedKeyUsagePurpose::ServerAuth,
            }];
            let id = format!("spiffe://example.test/sealift/{role}/one");
            params.subject_alt_names = vec![SanType::URI(id.as_str().try_into().unwrap())];
            params.signed_by(&key, &self.issuer).unwrap().der().clone()
        }
    }

    /// Issue 9, C2: the general parser sees only what a trusted authority has signed.
    #[test]
    fn a_path_is_checked_before_anything_else() {
        let trusted = TestAuthority::new();
        let stranger = TestAuthority::new();
        let trust = Authority::new(trusted.root.clone(), None);
        let verify = |leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]| {
            trust.verify(Role::Sender, leaf, intermediates, UnixTime::now())
        };
        let good = trusted.leaf(Role::Sender);
        assert_eq!(verify(&good, &[]), Ok(()));
        // Of the wrong role, and an authority's: the path is refused before that is looked at.
        assert_eq!(verify(&stranger.leaf(Role::Receiver), &[]), Err("path"));
        assert_eq!(verify(&stranger.root, &[]), Err("path"));
        assert_eq!(verify(&b"\x30\x03\x02\x01\x00".as_slice().into(), &[]), Err("path"));
        let beside = "a certificate that is not in the path";
        assert_eq!(verify(&good, std::slice::from_ref(&stranger.root)), Err(beside));
        assert_eq!(verify(&good, &[b"no certificate".as_slice().into()]), Err(beside));
    }

    /// Issue 9, A1: a pin is for one key, and whatever stands for a ticket takes one certificate
    /// with an Ed25519 key.
    #[test]
    fn a_pin_is_for_one_key() {
        use crate::identity::Identity;
        let own = Identity::generate(Role::Receiver).unwrap();
        let other = Identity::generate(Role::Receiver).unwrap();
        let passes = |trust: &Trust, leaf: &CertificateDer<'_>, more: &[CertificateDer<'_>]| {
            trust.verify(Role::Receiver, leaf, more, UnixTime::now()).is_ok()
        };
        let pinned = Trust::Pinned(own.fingerprint());
        assert!(passes(&pinned, own.leaf(), &[]));
        assert!(!passes(&pinned, other.leaf(), &[]));
        assert!(!passes(&pinned, own.leaf(), std::slice::from_ref(other.leaf())));
        let p256 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let p256 = CertificateParams::default().self_signed(&p256).unwrap().der().clone();
        for trust in [pinned, Trust::AnyKey] {
            assert!(!passes(&trust, &p256, &[]));
            assert!(!passes(&trust, &b"no certificate".as_slice().into(), &[]));
            assert!(!passes(&trust, &vec![0x30; CERTIFICATE_BYTES_MAX + 1].into(), &[]));
        }
        assert!(passes(&Trust::AnyKey, other.leaf(), &[]));
    }
}
