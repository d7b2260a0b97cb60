//! Peers that prove their address and nothing else: handshakes that are begun and never completed,
//! and handshakes that are completed by a peer without a ticket.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use quinn::crypto::rustls::QuicClientConfig;
use rustls::{
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::ServerName,
    quic::{ClientConnection, Version},
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};
use sealift_agent::{identity::Identity, role::Role};
use sealift_protocol::message::ALPN;

use crate::{
    flood::{Initial, V1},
    random::Random,
    tls::{self, Anybody},
};

/// Between two looks at the socket.
const TICK: Duration = Duration::from_millis(2);

/// How long a stranger waits for what a receiver says to it.
const PATIENCE: Duration = Duration::from_secs(5);

/// The stranger's own connection identifier, the same for all: nothing is ever looked for by it.
const OWN_ID: [u8; 8] = *b"stranger";

/// CRYPTO bytes of one first packet that carries a token.
const CRYPTO_BYTES: usize = 1000;

/// Strangers at one port, so many a second, until it is dropped.
pub struct Strangers {
    begun: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Strangers {
    /// Handshakes that are begun from `address`, and never go on: three packets each.
    pub fn half_open(victim: SocketAddr, address: IpAddr, per_second: u64) -> Self {
        Self::start(move |begun, over| half_open(victim, address, per_second, begun, over))
    }

    /// Handshakes that are completed from `address` with a key of its own, and never followed by a
    /// proof.
    pub fn foreign(victim: SocketAddr, address: IpAddr, per_second: u64) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self::start(move |begun, over| runtime.block_on(foreign(victim, address, per_second, begun, over)))
    }

    fn start(work: impl FnOnce(&Arc<AtomicU64>, &AtomicBool) + Send + 'static) -> Self {
        let begun = Arc::new(AtomicU64::new(0));
        let over = Arc::new(AtomicBool::new(false));
        let (count, stop) = (begun.clone(), over.clone());
        let thread = thread::spawn(move || work(&count, &stop));
        Self { begun, over, thread: Some(thread) }
    }

    /// Handshakes so far.
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Returns once so many more have begun; panics if that takes longer than `within`.
    pub fn wait_for_more(&self, handshakes: u64, within: Duration) {
        let enough = self.begun() + handshakes;
        let deadline = Instant::now() + within;
        while self.begun() < enough {
            assert!(Instant::now() < deadline, "only {} handshakes of {enough} within {within:?}", self.begun());
            thread::sleep(TICK);
        }
    }
}

impl Drop for Strangers {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How many are due by now, so that a busy host makes up for nothing.
struct Pace {
    per_second: u64,
    last: Instant,
    due: f64,
}

impl Pace {
    fn new(per_second: u64) -> Self {
        Self { per_second, last: Instant::now(), due: 0.0 }
    }

    fn due(&mut self) -> u64 {
        let now = Instant::now();
        let passed = now.duration_since(std::mem::replace(&mut self.last, now)).min(Duration::from_millis(100));
        self.due += passed.as_secs_f64() * self.per_second as f64;
        let due = self.due as u64;
        self.due -= due as f64;
        due
    }
}

fn half_open(victim: SocketAddr, address: IpAddr, per_second: u64, begun: &AtomicU64, over: &AtomicBool) {
    let socket = UdpSocket::bind((address, 0)).unwrap();
    socket.set_nonblocking(true).unwrap();
    let hello = client_hello();
    let (mut random, mut pace) = (Random::new(13), Pace::new(per_second));
    let mut answer = [0; 2048];
    while !over.load(Ordering::Relaxed) {
        for _ in 0..pace.due() {
            let destination = random.number().to_be_bytes();
            let first = Initial { version: V1, destination: &destination, source: &OWN_ID, token: &[], number: 0 };
            let _ = socket.send_to(&first.seal(&[1]), victim);
        }
        while let Ok(bytes) = socket.recv(&mut answer) {
            let Some((destination, token)) = retry(&answer[..bytes]) else { continue };
            for (number, crypto) in hello.chunks(CRYPTO_BYTES).enumerate() {
                let header = Initial { version: V1, destination, source: &OWN_ID, token, number: number as u8 };
                let mut frame = vec![0x06];
                for length in [number * CRYPTO_BYTES, crypto.len()] {
                    frame.extend((length as u16 | 0x4000).to_be_bytes());
                }
                frame.extend(crypto);
                let _ = socket.send_to(&header.seal(&frame), victim);
            }
            begun.fetch_add(1, Ordering::Relaxed);
        }
        thread::sleep(TICK);
    }
}

/// The identifier that a Retry (RFC 9000, 17.2.5) asks for, and its token.
fn retry(packet: &[u8]) -> Option<(&[u8], &[u8])> {
    let is_retry = packet.first()? & 0xf0 == 0xf0 && packet.get(1..5)? == V1;
    let rest = packet.get(5..).filter(|_| is_retry)?;
    let rest = rest.get(1 + usize::from(*rest.first()?)..)?;
    let (length, rest) = rest.split_first()?;
    let (source, rest) = rest.split_at_checked(usize::from(*length))?;
    Some((source, rest.get(..rest.len().checked_sub(16)?)?))
}

/// What every one of them says, once for all.
fn client_hello() -> Vec<u8> {
    let tls = client(None);
    let mut params = vec![0x0f, OWN_ID.len() as u8];
    params.extend(OWN_ID);
    let name = ServerName::try_from("receiver.sealift.invalid").unwrap();
    let mut connection = ClientConnection::new(Arc::new(tls), Version::V1, name, params).unwrap();
    let mut hello = Vec::new();
    connection.write_hs(&mut hello);
    hello
}

fn client(identity: Option<&Identity>) -> rustls::ClientConfig {
    let provider =
        CryptoProvider { kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768], ..aws_lc_rs::default_provider() };
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let mut tls = match identity {
        None => tls.with_no_client_auth(),
        Some(identity) => {
            let certified = CertifiedKey::clone(&identity.certified_key().unwrap());
            tls.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
        }
    };
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.enable_sni = false;
    tls
}

async fn foreign(victim: SocketAddr, address: IpAddr, per_second: u64, begun: &Arc<AtomicU64>, over: &AtomicBool) {
    let identity = Identity::generate(Role::Sender).unwrap();
    let tls = QuicClientConfig::with_initial(Arc::new(client(Some(&identity))), tls::initial()).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(tls));
    let endpoint = quinn::Endpoint::client((address, 0).into()).unwrap();
    let mut pace = Pace::new(per_second);
    while !over.load(Ordering::Relaxed) {
        for _ in 0..pace.due() {
            let connecting = endpoint.connect_with(config.clone(), victim, "receiver.sealift.invalid").unwrap();
            let begun = begun.clone();
            tokio::spawn(tokio::time::timeout(PATIENCE, async move {
                if let Ok(connection) = connecting.await {
                    begun.fetch_add(1, Ordering::Relaxed);
                    connection.closed().await;
                }
            }));
        }
        tokio::time::sleep(TICK).await;
    }
}
