//! The only place that builds TLS configurations. TLS 1.3 alone, both sides with certificates,
//! hybrid key exchange, 256-bit ciphers, no resumption of any kind, no key log. Every transport
//! uses these.

use std::sync::Arc;

use rustls::{
    ClientConfig, NoKeyLog, ServerConfig,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
    server::NoServerSessionStorage,
    sign::SingleCertAndKey,
    version::TLS13,
};
use sealift_protocol::{close::Code, message::ALPN};

use crate::{
    failure::{Failure, Outcome},
    identity::Identity,
    role::Role,
    trust::{PeerVerifier, SIGNATURES, Trust},
};

fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
            aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768, aws_lc_rs::kx_group::SECP256R1MLKEM768],
        signature_verification_algorithms: SIGNATURES,
        ..aws_lc_rs::default_provider()
    })
}

pub(super) fn broken(what: &str) -> Failure {
    Failure::new(Code::Internal, format!("TLS cannot be set up: {what}"), "")
}

/// How a receiver accepts: senders that `trust` vouches for, and no others.
pub(super) fn server_tls(identity: &Identity, trust: Arc<Trust>) -> Outcome<Arc<ServerConfig>> {
    let verifier = Arc::new(PeerVerifier::new(trust, Role::Sender));
    let mut tls = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|_| broken("version"))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from((*identity.certified_key()?).clone())));
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.send_tls13_tickets = 0;
    tls.max_early_data_size = 0;
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    tls.key_log = Arc::new(NoKeyLog {});
    Ok(Arc::new(tls))
}

/// How a sender connects: to receivers that `trust` vouches for, and no others.
pub(super) fn client_tls(identity: &Identity, trust: Arc<Trust>) -> Outcome<Arc<ClientConfig>> {
    let verifier = Arc::new(PeerVerifier::new(trust, Role::Receiver));
    let mut tls = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|_| broken("version"))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from((*identity.certified_key()?).clone())));
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.resumption = Resumption::disabled();
    tls.enable_early_data = false;
    tls.enable_sni = false;
    tls.key_log = Arc::new(NoKeyLog {});
    Ok(Arc::new(tls))
}
