//! Fault I9: revocation lists, where they are configured.

use std::{
    net::{Ipv4Addr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ED25519, RevokedCertParams, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use sealift_agent::{
    credentials::Credentials,
    door::Door,
    identity::Identity,
    link::{
        Acceptor, Dialer, Listener,
        quic::{
            end_of,
            endpoint::{bind, client_config, server_config},
        },
    },
    role::Role,
    trust::{self, Trust},
};
use sealift_protocol::close::Code;
use time::OffsetDateTime;
use tokio::time::timeout;
use zeroize::Zeroizing;

const DAY: Duration = Duration::from_secs(86_400);
const PATIENCE: Duration = Duration::from_secs(8);

struct Authority {
    root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (OffsetDateTime::now_utc() - DAY, OffsetDateTime::now_utc() + DAY);
    params
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root = params.self_signed(&key).unwrap().der().clone();
        Self { root, issuer: Issuer::new(params, key) }
    }

    fn identity(&self, role: Role, serial: u64) -> Identity {
        self.certify(&KeyPair::generate_for(&PKCS_ED25519).unwrap(), role, serial)
    }

    fn certify(&self, key: &KeyPair, role: Role, serial: u64) -> Identity {
        let mut params = params("agent");
        params.serial_number = Some(SerialNumber::from(serial));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match role {
            Role::Sender => ExtendedKeyUsagePurpose::ClientAuth,
            Role::Receiver => ExtendedKeyUsagePurpose::ServerAuth,
        }];
        let uri = format!("spiffe://example.test/sealift/{role}/agent");
        params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into().unwrap())];
        let certificate = params.signed_by(key, &self.issuer).unwrap();
        Identity::new(vec![certificate.der().clone()], Zeroizing::new(key.serialize_der()))
            .unwrap_or_else(|failure| panic!("{failure}"))
    }

    /// A list that revokes these, valid from `age` ago for two days.
    fn list(&self, revoked: &[u64], age: Duration) -> CertificateRevocationListDer<'static> {
        let this_update = OffsetDateTime::now_utc() - age;
        let entry = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: this_update,
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update,
            next_update: this_update + 2 * DAY,
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().der().clone()
    }
}

/// Whether the good side of this role lets its peer in: `None`, or the code of the refusal.
async fn refusal(authority: &Authority, verifier: Role, lists: &[CertificateRevocationListDer<'_>]) -> Option<Code> {
    let plain = || trust::Authority::new(authority.root.clone(), None);
    let strict = || plain().with_revocation_lists(lists).unwrap_or_else(|failure| panic!("{failure}"));
    let (sender_trust, receiver_trust) = match verifier {
        Role::Sender => (strict(), plain()),
        Role::Receiver => (plain(), strict()),
    };
    let socket = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (sender, receiver) = (authority.identity(Role::Sender, 7), authority.identity(Role::Receiver, 7));
    let server = bind(socket(), Some(server_config(&receiver, Trust::Authority(receiver_trust)).unwrap())).unwrap();
    let mut client = bind(socket(), None).unwrap();
    client.set_default_client_config(client_config(&sender, Trust::Authority(sender_trust)).unwrap());
    let connecting = client.connect(server.local_addr().unwrap(), "receiver.sealift.invalid").unwrap();
    let accepting = async {
        let incoming = server.accept().await.unwrap();
        incoming.await
    };
    let (accepted, connected) = timeout(PATIENCE, async { tokio::join!(accepting, connecting) }).await.unwrap();
    let verified = if verifier == Role::Sender { connected } else { accepted };
    verified.err().map(|error| end_of(&error).failure(verifier).code)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_asked_and_must_be_there_current_and_genuine() {
    let (authority, other) = (Authority::new("one"), Authority::new("another"));
    let mut forged = authority.list(&[], DAY).to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let same_name = Authority::new("one");
    let cases = [
        ("not revoked", vec![authority.list(&[8], DAY)], None),
        ("not revoked, beside another's list", vec![other.list(&[7], DAY), authority.list(&[], DAY)], None),
        ("revoked", vec![authority.list(&[6, 7], DAY)], Some(Code::IdentityRefused)),
        ("list expired", vec![authority.list(&[], 3 * DAY)], Some(Code::IdentityRefused)),
        ("list of another authority alone", vec![other.list(&[], DAY)], Some(Code::IdentityRefused)),
        ("list of another with the same name", vec![same_name.list(&[], DAY)], Some(Code::IdentityRefused)),
        ("no list", vec![], Some(Code::IdentityRefused)),
        ("forged list", vec![forged.into()], Some(Code::IdentityRefused)),
    ];
    for (name, lists, expected) in &cases {
        for verifier in [Role::Sender, Role::Receiver] {
            assert_eq!(refusal(&authority, verifier, lists).await, *expected, "{name}, verified by the {verifier}");
        }
    }
}

/// Issue 10, item 5: what is renewed while a receiver listens counts from the next connection on:
/// its own certificate, and a list that revokes a sender. The connection that stands is not
/// touched.
#[tokio::test]
async fn what_is_renewed_counts_for_the_next_connection() {
    let authority = Authority::new("one");
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let trusting = |revoked: &[u64]| {
        let plain = trust::Authority::new(authority.root.clone(), None);
        let strict = plain.with_revocation_lists(&[authority.list(revoked, DAY)]);
        Trust::Authority(strict.unwrap_or_else(|failure| panic!("{failure}")))
    };
    let first = Arc::new(authority.certify(&key, Role::Receiver, 1));
    let credentials = Credentials::new(Arc::clone(&first), trusting(&[]));
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = [socket.local_addr().unwrap().to_string()];
    let listener = Listener::start(socket, &credentials).unwrap();
    let door = Door::default();
    let mut acceptor = Acceptor::new(&listener, &door).unwrap();
    let sender = authority.identity(Role::Sender, 7);
    let trust = Trust::Authority(trust::Authority::new(authority.root.clone(), None));
    let dialer = Dialer::new(&sender, trust).unwrap();
    let connect = async |acceptor: &mut Acceptor<'_>| {
        let (arrived, link) = tokio::join!(acceptor.next(), dialer.connect(&address));
        (arrived.unwrap_or_else(|failure| panic!("{failure}")), link.unwrap_or_else(|failure| panic!("{failure}")))
    };
    let (standing, link) = connect(&mut acceptor).await;
    assert_eq!(link.channel.receiver_certificate, first.leaf().to_vec());

    let renewed = Arc::new(authority.certify(&key, Role::Receiver, 2));
    credentials.renew_identity(Arc::clone(&renewed)).unwrap();
    let other_key = Arc::new(authority.identity(Role::Receiver, 3));
    assert_eq!(credentials.renew_identity(other_key).map_err(|failure| failure.code), Err(Code::IdentityRefused));
    let (again, link_again) = connect(&mut acceptor).await;
    assert_eq!(link_again.channel.receiver_certificate, renewed.leaf().to_vec());
    assert_eq!(again.link.channel.receiver_certificate, renewed.leaf().to_vec(), "both ends bind the same");

    credentials.renew_trust(trusting(&[7]));
    let refused = async {
        // A TLS 1.3 client is connected, as far as it can see, before the server has verified its
        // certificate.
        match dialer.connect(&address).await {
            Ok(link) => link.closed().await.failure(Role::Sender).code,
            Err(failure) => failure.code,
        }
    };
    let refused = tokio::select! {
        code = timeout(PATIENCE, refused) => code.unwrap(),
        arrived = acceptor.next() => panic!("a revoked sender was let in: {}", arrived.is_ok()),
    };
    assert_eq!(refused, Code::IdentityRefused);
    let still_open = timeout(Duration::from_millis(100), standing.link.closed()).await;
    assert!(still_open.is_err(), "the connection that stands is not touched");
}

#[test]
fn a_list_that_is_none_is_an_error_at_the_start() {
    let authority = Authority::new("one");
    let garbage = CertificateRevocationListDer::from(vec![0x30, 0]);
    let trust = trust::Authority::new(authority.root.clone(), None).with_revocation_lists(&[garbage]);
    assert_eq!(trust.err().map(|failure| failure.code), Some(Code::Usage));
}
