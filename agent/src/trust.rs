//! Which peers an agent believes: a root, the one identity that is expected if it is known, and revocation lists if any
//! are configured.

use std::{
    fmt,
    net::Ipv4Addr,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::verify_tls13_signature,
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use sealift_protocol::close::Code;
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList, RevocationCheckDepth,
    RevocationOptionsBuilder, UnknownStatusPolicy, anchor_from_trusted_cert,
};

use crate::{
    endpoint::SIGNATURES,
    failure::{Failure, Outcome},
    identity::{Role, judge_intermediate, judge_leaf},
    refusals::Refusals,
};

/// Certificates between a peer's and the root. Two allow an offline root over an issuing authority and one more.
const INTERMEDIATES_MAX: usize = 2;

/// One certificate; ours have about 400 bytes.
const CERTIFICATE_BYTES_MAX: usize = 8 << 10;

/// DER bodies of id-kp-clientAuth and id-kp-serverAuth (RFC 5280, 4.2.1.12).
const CLIENT_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];
const SERVER_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];

pub struct Trust {
    roots: Vec<CertificateDer<'static>>,
    expected: Option<String>,
    revocation: Option<Vec<CertRevocationList<'static>>>,
}

impl Trust {
    /// Peers under `root`; if `expected` is given, only the one with that identity.
    pub fn new(root: CertificateDer<'static>, expected: Option<String>) -> Self {
        Self { roots: vec![root], expected, revocation: None }
    }

    /// Asks for a current revocation list from every authority in a peer's chain; none for one of them is a refusal.
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

    /// Path validation (RFC 5280), by a parser that reads no more than that needs; then what the path says nothing of. The
    /// error is the check that failed.
    fn judge(
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
        // Asked of every certificate in the path. Authorities ordinarily name no use; the leaf's is judged below.
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
        let peer = judge_leaf(leaf, role)?;
        intermediates.iter().try_for_each(judge_intermediate)?;
        if self.expected.as_ref().is_some_and(|expected| expected != peer.id.as_str()) {
            return Err("identity is not the one expected");
        }
        Ok(())
    }
}

/// [`Trust`] as rustls asks it, for peers of one role.
pub(crate) struct PeerVerifier {
    trust: Trust,
    role: Role,
    /// So that strangers do not fill the log.
    refusals: Mutex<Refusals>,
}

impl PeerVerifier {
    pub(crate) fn new(trust: Trust, role: Role) -> Self {
        Self { trust, role, refusals: Mutex::default() }
    }

    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        self.trust.judge(self.role, leaf, intermediates, now).map_err(|check| {
            let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
            // The connections are counted by address elsewhere; this says what was wrong with the first of them.
            let time = Instant::now();
            refusals.report(time);
            if refusals.count(check, Ipv4Addr::UNSPECIFIED.into(), time) {
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
    use std::time::Duration;

    use time::OffsetDateTime;

    use super::*;
    use crate::authority::Authority;

    const VALID_FOR: Duration = Duration::from_secs(3600);

    /// C2: the general parser sees only what a trusted authority has signed.
    #[test]
    fn a_path_is_checked_before_anything_else() {
        let now = OffsetDateTime::now_utc();
        let [trusted, stranger] =
            ["trusted", "stranger"].map(|name| Authority::generate(name, now, VALID_FOR).unwrap());
        let trust = Trust::new(trusted.root().clone(), None);
        let judge = |leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]| {
            trust.judge(Role::Sender, leaf, intermediates, UnixTime::now())
        };
        let leaf_of =
            |authority: &Authority, role| authority.issue(role, "one", now, VALID_FOR).unwrap().chain[0].clone();
        let good = leaf_of(&trusted, Role::Sender);
        assert_eq!(judge(&good, &[]), Ok(()));
        // Of the wrong role, and an authority's: the path is refused before that is looked at.
        assert_eq!(judge(&leaf_of(&stranger, Role::Receiver), &[]), Err("path"));
        assert_eq!(judge(stranger.root(), &[]), Err("path"));
        assert_eq!(judge(&b"\x30\x03\x02\x01\x00".as_slice().into(), &[]), Err("path"));
        let beside = "a certificate that is not in the path";
        assert_eq!(judge(&good, &[stranger.root().clone()]), Err(beside));
        assert_eq!(judge(&good, &[b"no certificate".as_slice().into()]), Err(beside));
    }
}
