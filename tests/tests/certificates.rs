//! Bad certificates before real endpoints, in both directions: each is refused, and no byte of
//! application data passes.

use std::{
    net::{Ipv4Addr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use quinn::ConnectionError;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sealift_agent::{
    certificate::verify_leaf,
    identity::Identity,
    link::quic::{
        end_of,
        endpoint::{bind, client_config, server_config},
    },
    role::Role as AgentRole,
    trust::{self, Trust},
};
use sealift_protocol::{close::Code, message::ALPN};
use sealift_tests::{
    certs::{
        authority::{Authority, Presented, Role},
        catalogue,
        key::Kind,
    },
    tls::{Anybody, initial},
};
use tokio::{sync::mpsc, time::timeout};
use zeroize::Zeroizing;

/// A handshake over loopback takes milliseconds; what takes this long hangs.
const PATIENCE: Duration = Duration::from_secs(8);

/// quinn takes at most this much of a handshake at once, rustls four times as much of one message.
const HANDSHAKE_BYTES_MAX: usize = 16 << 10;

fn agent_role(role: Role) -> AgentRole {
    match role {
        Role::Sender => AgentRole::Sender,
        Role::Receiver => AgentRole::Receiver,
    }
}

fn identity(presented: &Presented) -> Identity {
    let chain = presented.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    Identity::new(chain, Zeroizing::new(presented.private_key.clone())).unwrap_or_else(|failure| panic!("{failure}"))
}

fn trusting(root: CertificateDer<'static>, expected: Option<String>) -> Trust {
    Trust::Authority(trust::Authority::new(root, expected))
}

fn trust(root: &[u8]) -> Trust {
    trusting(CertificateDer::from(root.to_vec()), None)
}

/// A good agent of this role. Strangers believe everybody, so any authority will do.
fn good(role: Role) -> Identity {
    identity(&Authority::new("good.test", Kind::Ed25519).present(role))
}

fn socket() -> UdpSocket {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
}

/// What a peer without Sealift's own scruples presents: any chain, any key, any of TLS's settings.
struct Stranger {
    chain: Vec<CertificateDer<'static>>,
    key: Option<Arc<dyn rustls::sign::SigningKey>>,
    provider: rustls::crypto::CryptoProvider,
    alpn: Vec<Vec<u8>>,
    early_data: bool,
}

impl Stranger {
    fn new(presented: &Presented) -> Self {
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(presented.private_key.clone()));
        Self {
            chain: presented.chain.iter().map(|der| CertificateDer::from(der.clone())).collect(),
            key: rustls::crypto::aws_lc_rs::sign::any_supported_type(&der).ok(),
            provider: rustls::crypto::aws_lc_rs::default_provider(),
            alpn: vec![ALPN.to_vec()],
            early_data: false,
        }
    }

    /// None if TLS itself cannot be made to present this key.
    fn certified(&self) -> Option<Arc<rustls::sign::SingleCertAndKey>> {
        let key = self.key.clone()?;
        let certified = rustls::sign::CertifiedKey::new(self.chain.clone(), key);
        Some(Arc::new(rustls::sign::SingleCertAndKey::from(certified)))
    }

    fn client(&self) -> Option<quinn::ClientConfig> {
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(self.provider.clone()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .ok()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody));
        let mut tls = match self.chain.is_empty() {
            true => builder.with_no_client_auth(),
            false => builder.with_client_cert_resolver(self.certified()?),
        };
        tls.alpn_protocols = self.alpn.clone();
        tls.enable_early_data = self.early_data;
        tls.resumption = rustls::client::Resumption::in_memory_sessions(8);
        let quic = quinn::crypto::rustls::QuicClientConfig::with_initial(Arc::new(tls), initial()).ok()?;
        Some(quinn::ClientConfig::new(Arc::new(quic)))
    }

    fn server(&self) -> Option<quinn::ServerConfig> {
        let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(self.provider.clone()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .ok()?
            .with_no_client_auth()
            .with_cert_resolver(self.certified()?);
        tls.alpn_protocols = self.alpn.clone();
        tls.max_early_data_size = u32::MAX;
        let quic = quinn::crypto::rustls::QuicServerConfig::with_initial(Arc::new(tls), initial()).ok()?;
        Some(quinn::ServerConfig::with_crypto(Arc::new(quic)))
    }
}

/// What came of a connection on the good side: what ended it, and whether anything was read before.
#[derive(Debug)]
struct Met {
    refused: Option<ConnectionError>,
    read: bool,
}

/// A stranger connects to a good receiver, and says something at once.
async fn before_receiver(stranger: &Stranger, trust: Trust) -> Option<Met> {
    let config = stranger.client()?;
    let server = bind(socket(), Some(server_config(&good(Role::Receiver), trust).unwrap())).unwrap();
    let address = server.local_addr().unwrap();
    let mut client = bind(socket(), None).unwrap();
    client.set_default_client_config(config);
    let connecting = client.connect(address, "receiver.sealift.invalid").unwrap();
    let (seen, mut ends) = mpsc::unbounded_channel();
    let talking = tokio::spawn(async move {
        let end = match timeout(PATIENCE, connecting).await {
            Ok(Ok(connection)) => {
                if let Ok((mut send, _)) = connection.open_bi().await {
                    let _ = send.write_all(b"rows").await;
                }
                timeout(PATIENCE, connection.closed()).await.ok()
            }
            Ok(Err(error)) => Some(error),
            Err(_) => None,
        };
        let _ = seen.send(end);
        client
    });
    let incoming = timeout(PATIENCE, server.accept()).await.expect("a packet arrives").unwrap();
    let met = match incoming.accept() {
        Ok(connecting) => meet(connecting).await,
        Err(error) => Met { refused: Some(error), read: false },
    };
    assert_no_text(&mut ends).await;
    talking.abort();
    Some(met)
}

/// Issue 9, D3: neither an application close nor one for a TLS alert carries text, as the stranger
/// sees it.
async fn assert_no_text(ends: &mut mpsc::UnboundedReceiver<Option<ConnectionError>>) {
    // Where nothing was answered, the stranger would wait for it.
    let Ok(Some(Some(end))) = timeout(Duration::from_secs(1), ends.recv()).await else { return };
    match &end {
        ConnectionError::ApplicationClosed(close) => assert!(close.reason.is_empty(), "{end:?}"),
        ConnectionError::ConnectionClosed(close) => assert!(close.reason.is_empty(), "{end:?}"),
        _ => {}
    }
}

/// A good sender connects to a stranger, who says something at once.
async fn before_sender(stranger: &Stranger, trust: Trust) -> Option<Met> {
    let server = bind(socket(), Some(stranger.server()?)).unwrap();
    let address = server.local_addr().unwrap();
    let (seen, mut ends) = mpsc::unbounded_channel();
    let talking = tokio::spawn(async move {
        while let Some(incoming) = server.accept().await {
            let end = match timeout(PATIENCE, incoming.into_future()).await {
                Ok(Ok(connection)) => {
                    // Nothing is allowed: the good side grants no streams.
                    let opened = timeout(Duration::from_millis(100), connection.open_uni()).await;
                    assert!(opened.is_err() || opened.is_ok_and(|stream| stream.is_err()), "a stream was allowed");
                    timeout(PATIENCE, connection.closed()).await.ok()
                }
                Ok(Err(error)) => Some(error),
                Err(_) => None,
            };
            let _ = seen.send(end);
        }
    });
    let mut client = bind(socket(), None).unwrap();
    client.set_default_client_config(client_config(&good(Role::Sender), trust).unwrap());
    let met = meet(client.connect(address, "receiver.sealift.invalid").unwrap()).await;
    assert_no_text(&mut ends).await;
    talking.abort();
    Some(met)
}

/// The good side of a handshake.
async fn meet(connecting: quinn::Connecting) -> Met {
    match timeout(PATIENCE, connecting).await.expect("the handshake ends") {
        Err(error) => Met { refused: Some(error), read: false },
        Ok(connection) => {
            let heard = timeout(Duration::from_millis(500), connection.accept_bi()).await;
            let read = heard.is_ok_and(|stream| stream.is_ok());
            Met { refused: connection.close_reason(), read }
        }
    }
}

/// A stranger in this role before a good peer.
async fn connect_and_meet(stranger: &Stranger, trust: Trust, role: Role) -> Option<Met> {
    match role {
        Role::Sender => before_receiver(stranger, trust).await,
        Role::Receiver => before_sender(stranger, trust).await,
    }
}

/// What is wrong with the way in which a stranger in this role was met, if anything is.
fn offence(met: &Met, role: Role, allowed: &[Code]) -> Option<String> {
    let Some(error) = &met.refused else { return Some("accepted".into()) };
    let code = end_of(error).failure(agent_role(role.other())).code;
    if met.read {
        return Some("application data was read".into());
    }
    let fits = allowed.contains(&code) && code.exit_code() == 4;
    (!fits).then(|| format!("{} for {error:?}", code.as_str()))
}

fn assert_refused(met: &Met, role: Role, allowed: &[Code], case: &str) {
    assert_eq!(offence(met, role, allowed), None, "{case} ({})", role.as_str());
}

/// Faults I1 to I8, I13, I14: every case of the catalogue. What TLS itself cannot be made to
/// present is checked without it.
async fn refuse_all(kind: Kind) {
    let authority = Authority::new("example.test", kind);
    let (mut refused, mut unsent, mut offences) = (0, Vec::new(), Vec::new());
    for bad in catalogue::all() {
        for role in Role::BOTH {
            let presented = bad.build(&authority, role);
            let case = format!("{}: {}", bad.row, bad.name);
            let Some(met) = connect_and_meet(&Stranger::new(&presented), trust(&presented.trusted), role).await else {
                let leaf = CertificateDer::from(presented.chain[0].clone());
                assert!(verify_leaf(&leaf, agent_role(role)).is_err(), "{case}");
                unsent.push(format!("{case} ({})", role.as_str()));
                continue;
            };
            // What is too long for a handshake, or no chain at all, TLS refuses before any of it
            // looks into it.
            let bytes: usize = presented.chain.iter().map(Vec::len).sum();
            let allowed: &[Code] = match bytes > HANDSHAKE_BYTES_MAX || bytes == 0 {
                true => &[Code::IdentityRefused, Code::ProtocolViolation],
                // No signature in common: that fails before the certificate is looked at.
                false if bad.name == "leaf key P-521" => &[Code::IdentityRefused, Code::SuiteUnsupported],
                false => &[Code::IdentityRefused],
            };
            match offence(&met, role, allowed) {
                Some(offence) => offences.push(format!("{case} ({}): {offence}", role.as_str())),
                None => refused += 1,
            }
        }
    }
    assert!(offences.is_empty(), "{offences:#?}");
    println!("{refused} refused; TLS cannot present: {unsent:#?}");
    assert!(refused >= 120, "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bad_certificate_is_refused_under_ed25519() {
    refuse_all(Kind::Ed25519).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bad_certificate_is_refused_under_p256() {
    refuse_all(Kind::P256).await;
}

/// The control: a stranger with a faultless certificate is let in, or the refusals above would
/// prove nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_faultless_peer_is_welcome() {
    for kind in [Kind::Ed25519, Kind::P256, Kind::P384] {
        let authority = Authority::new("example.test", kind);
        for role in Role::BOTH {
            // Below an ordinary intermediate too, or the refusals of bad ones would prove nothing.
            for presented in [authority.present(role), catalogue::through_intermediate(&authority, role)] {
                let met = connect_and_meet(&Stranger::new(&presented), trust(&presented.trusted), role).await.unwrap();
                assert!(met.refused.is_none(), "{kind:?} {role:?}: {met:?}");
                assert_eq!(met.read, role == Role::Sender, "what a sender says arrives");
            }
        }
    }
}

/// The one identity that a ticket names, and no other under the same root.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_identity_than_the_expected_is_refused() {
    let authority = Authority::new("example.test", Kind::Ed25519);
    for role in Role::BOTH {
        let presented = authority.present(role);
        let root = || CertificateDer::from(presented.trusted.clone());
        let right = trusting(root(), Some(authority.identity(role)));
        assert!(connect_and_meet(&Stranger::new(&presented), right, role).await.unwrap().refused.is_none());
        let wrong = trusting(root(), Some(authority.identity(role) + "2"));
        let met = connect_and_meet(&Stranger::new(&presented), wrong, role).await.unwrap();
        assert_refused(&met, role, &[Code::IdentityRefused], "another identity");
    }
}

/// Fault I16: a certificate that was renewed, over another key, is the same identity to every peer
/// that connects again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_is_the_same_identity() {
    let authority = Authority::new("example.test", Kind::Ed25519);
    for role in Role::BOTH {
        let (before, renewed) = (authority.present(role), authority.present(role));
        assert_ne!((&before.chain, &before.private_key), (&renewed.chain, &renewed.private_key));
        for presented in [before, renewed] {
            let root = CertificateDer::from(presented.trusted.clone());
            let expected = trusting(root, Some(authority.identity(role)));
            assert!(connect_and_meet(&Stranger::new(&presented), expected, role).await.unwrap().refused.is_none());
        }
    }
}

/// Faults I10, I11: another protocol, none, or weaker cryptography than both must have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weaker_terms_are_refused() {
    use rustls::crypto::aws_lc_rs::{cipher_suite::TLS13_AES_128_GCM_SHA256, kx_group::X25519};
    type Change = fn(&mut Stranger);
    let changes: [(&str, Change); 6] = [
        ("I10: no ALPN", |stranger| stranger.alpn.clear()),
        ("I10: another ALPN", |stranger| stranger.alpn = vec![b"h3".to_vec()]),
        ("I10: the next version alone", |stranger| stranger.alpn = vec![b"sealift/2".to_vec()]),
        ("I11: X25519 alone", |stranger| stranger.provider.kx_groups = vec![X25519]),
        ("I11: AES-128 alone", |stranger| stranger.provider.cipher_suites = vec![TLS13_AES_128_GCM_SHA256]),
        ("I1: no certificate", |stranger| stranger.chain.clear()),
    ];
    let authority = Authority::new("example.test", Kind::Ed25519);
    for (name, change) in changes {
        for role in Role::BOTH {
            let presented = authority.present(role);
            let mut stranger = Stranger::new(&presented);
            change(&mut stranger);
            let Some(met) = connect_and_meet(&stranger, trust(&presented.trusted), role).await else {
                panic!("{name} cannot be presented");
            };
            // A peer that has nothing in common with us is not told that its certificate is
            // refused.
            let allowed: &[Code] = match &name[..3] {
                "I10" => &[Code::VersionUnsupported],
                "I11" => &[Code::SuiteUnsupported],
                _ => &[Code::IdentityRefused, Code::ProtocolViolation],
            };
            assert_refused(&met, role, allowed, name);
        }
    }
}

/// Fault I10: a QUIC version that is not 1.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_version_of_quic_is_refused() {
    const DRAFT_29: u32 = 0xff00_001d;
    let authority = Authority::new("example.test", Kind::Ed25519);
    let presented = authority.present(Role::Sender);
    let server_config = server_config(&good(Role::Receiver), trust(&presented.trusted)).unwrap();
    let server = bind(socket(), Some(server_config)).unwrap();
    let mut both_versions = quinn::EndpointConfig::default();
    both_versions.supported_versions(vec![1, DRAFT_29]);
    let runtime = Arc::new(quinn::TokioRuntime);
    let mut client = quinn::Endpoint::new(both_versions, None, socket(), runtime).unwrap();
    let mut config = Stranger::new(&presented).client().unwrap();
    config.version(DRAFT_29);
    client.set_default_client_config(config);
    let connecting = client.connect(server.local_addr().unwrap(), "receiver.sealift.invalid").unwrap();
    let serving = tokio::spawn(async move {
        let incoming = server.accept().await.unwrap();
        incoming.accept().unwrap().await.is_ok()
    });
    let outcome = timeout(PATIENCE, connecting).await.unwrap();
    assert!(matches!(outcome, Err(ConnectionError::VersionMismatch)), "{outcome:?}");
    serving.abort();
}

/// Fault I12: a peer that asks for tickets and early data never gets them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_resumed() {
    let authority = Authority::new("example.test", Kind::Ed25519);
    let presented = authority.present(Role::Sender);
    let config = server_config(&good(Role::Receiver), trust(&presented.trusted)).unwrap();
    let server = bind(socket(), Some(config)).unwrap();
    let address = server.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        while let Some(incoming) = server.accept().await {
            let connection = incoming.await.unwrap();
            connection.closed().await;
        }
    });
    let mut stranger = Stranger::new(&presented);
    stranger.early_data = true;
    let mut client = bind(socket(), None).unwrap();
    client.set_default_client_config(stranger.client().unwrap());
    for _ in 0..3 {
        let connecting = client.connect(address, "receiver.sealift.invalid").unwrap();
        let connecting = match connecting.into_0rtt() {
            Ok(_) => panic!("early data was possible"),
            Err(connecting) => connecting,
        };
        let connection = timeout(PATIENCE, connecting).await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        connection.close(0u32.into(), b"");
    }
    serving.abort();
}

/// Fault I12, the other way: a sender takes no ticket from a receiver that hands them out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_keeps_no_ticket() {
    let authority = Authority::new("example.test", Kind::Ed25519);
    let presented = authority.present(Role::Receiver);
    let server = bind(socket(), Some(Stranger::new(&presented).server().unwrap())).unwrap();
    let address = server.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        while let Some(incoming) = server.accept().await {
            let connection = incoming.await.unwrap();
            connection.closed().await;
        }
    });
    let mut client = bind(socket(), None).unwrap();
    client.set_default_client_config(client_config(&good(Role::Sender), trust(&presented.trusted)).unwrap());
    for _ in 0..3 {
        let connecting = client.connect(address, "receiver.sealift.invalid").unwrap();
        let connecting = match connecting.into_0rtt() {
            Ok(_) => panic!("early data was possible"),
            Err(connecting) => connecting,
        };
        let connection = timeout(PATIENCE, connecting).await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        connection.close(0u32.into(), b"");
    }
    serving.abort();
}

/// Fault I18: with `SSLKEYLOGFILE` set, a handshake writes no file.
#[test]
fn no_keys_are_logged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_faultless_peer_is_welcome"])
        .env("SSLKEYLOGFILE", &path)
        .output()
        .unwrap();
    assert!(status.status.success());
    assert!(!path.exists());
}
