//! The other side of a connection, as an attacker would write it: TLS that presents anything, believes anybody, and
//! offers what it likes.

use std::{fmt, net::UdpSocket, sync::Arc};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::{
    CipherSuite, DigitallySignedStruct, DistinguishedName, Error, SignatureAlgorithm, SignatureScheme,
    client::{
        ResolvesClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    server::{
        ClientHello, ResolvesServerCert,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::{CertifiedKey, Signer, SigningKey},
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use sealift_agent::{
    endpoint::{bind, client_config, server_config},
    identity::{Identity, Role as AgentRole},
    trust::Trust,
};
use zeroize::Zeroizing;

use crate::certs::{
    authority::{Presented, Role},
    key::{Key, Kind},
};

impl From<Role> for AgentRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Sender => AgentRole::Sender,
            Role::Receiver => AgentRole::Receiver,
        }
    }
}

/// An identity as the agents hold it. Panics if they would not: only the faultless can be.
pub fn identity(presented: &Presented, role: Role) -> Identity {
    let chain = presented.chain.iter().cloned().map(CertificateDer::from).collect();
    Identity::new(chain, Zeroizing::new(presented.private_key.clone()), role.into()).unwrap()
}

/// A receiver's endpoint, made by the agent's own code.
pub fn agent_server(own: &Identity, trusted: &[u8]) -> quinn::Endpoint {
    bind(socket(), Some(server_config(own, trust(trusted)).unwrap())).unwrap()
}

/// A sender's endpoint, likewise.
pub fn agent_client(own: &Identity, trusted: &[u8]) -> quinn::Endpoint {
    let mut endpoint = bind(socket(), None).unwrap();
    endpoint.set_default_client_config(client_config(own, trust(trusted)).unwrap());
    endpoint
}

fn trust(root: &[u8]) -> Trust {
    Trust::new(CertificateDer::from(root.to_vec()), None)
}

fn socket() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").unwrap()
}

/// What a hostile peer offers.
pub struct Offer {
    pub alpn: Vec<Vec<u8>>,
    pub provider: CryptoProvider,
    pub resumption: bool,
}

impl Default for Offer {
    /// What an agent would offer.
    fn default() -> Self {
        let alpn = vec![sealift_protocol::message::ALPN.to_vec()];
        Self { alpn, provider: aws_lc_rs::default_provider(), resumption: false }
    }
}

impl Offer {
    pub fn only_groups(mut self, groups: &[&'static dyn rustls::crypto::SupportedKxGroup]) -> Self {
        self.provider.kx_groups = groups.to_vec();
        self
    }

    pub fn only_suite(mut self, suite: CipherSuite) -> Self {
        self.provider.cipher_suites.retain(|known| known.suite() == suite);
        self
    }
}

/// A client that presents this, whatever the server asks for, and believes any server.
pub fn hostile_client(presented: &Presented, offer: Offer) -> quinn::Endpoint {
    let resolver = Arc::new(Presents::new(presented));
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(offer.provider))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(BelievesAnybody))
        .with_client_cert_resolver(resolver);
    tls.alpn_protocols = offer.alpn;
    if offer.resumption {
        tls.enable_early_data = true;
    } else {
        tls.resumption = rustls::client::Resumption::disabled();
    }
    let initial = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13().unwrap().quic_suite().unwrap();
    let crypto = QuicClientConfig::with_initial(Arc::new(tls), initial).unwrap();
    let mut endpoint = bind(socket(), None).unwrap();
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
    endpoint
}

/// A server that presents this and believes any client.
pub fn hostile_server(presented: &Presented, offer: Offer) -> quinn::Endpoint {
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(offer.provider))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_client_cert_verifier(Arc::new(BelievesAnybody))
        .with_cert_resolver(Arc::new(Presents::new(presented)));
    tls.alpn_protocols = offer.alpn;
    let initial = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13().unwrap().quic_suite().unwrap();
    let crypto = QuicServerConfig::with_initial(Arc::new(tls), initial).unwrap();
    bind(socket(), Some(quinn::ServerConfig::with_crypto(Arc::new(crypto)))).unwrap()
}

/// Presents a chain with whatever key is at hand.
#[derive(Debug)]
struct Presents(Option<Arc<CertifiedKey>>);

impl Presents {
    fn new(presented: &Presented) -> Self {
        let chain: Vec<_> = presented.chain.iter().cloned().map(CertificateDer::from).collect();
        let key = Arc::new(AnyKey::new(&presented.private_key));
        Self((!chain.is_empty()).then(|| Arc::new(CertifiedKey::new(chain, key))))
    }
}

impl ResolvesClientCert for Presents {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

impl ResolvesServerCert for Presents {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }
}

/// The certificate's own key where TLS can use it and the peer offers its algorithm; else another one, since the peer
/// must refuse the certificate before it looks at a signature.
struct AnyKey {
    own: Option<Arc<dyn SigningKey>>,
    other: Arc<dyn SigningKey>,
}

impl AnyKey {
    fn new(pkcs8: &[u8]) -> Self {
        let parse = |der: &[u8]| {
            let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der.to_vec()));
            aws_lc_rs::sign::any_supported_type(&der).ok()
        };
        Self { own: parse(pkcs8), other: parse(&Key::generate(Kind::Ed25519).private).unwrap() }
    }
}

impl SigningKey for AnyKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let own = self.own.as_ref().and_then(|own| own.choose_scheme(offered));
        own.or_else(|| self.other.choose_scheme(offered))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.own.as_ref().unwrap_or(&self.other).algorithm()
    }
}

impl fmt::Debug for AnyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnyKey")
    }
}

#[derive(Debug)]
struct BelievesAnybody;

fn every_scheme() -> Vec<SignatureScheme> {
    aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
}

macro_rules! believes_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            every_scheme()
        }
    };
}

impl ServerCertVerifier for BelievesAnybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    believes_signatures!();
}

impl ClientCertVerifier for BelievesAnybody {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    believes_signatures!();
}
