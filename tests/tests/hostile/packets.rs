//! Packets that no QUIC library would send: what the library meant is replaced, just before it is
//! sealed.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use quinn::{
    ConnectError, ConnectionId, Side,
    crypto::{
        ClientConfig, CryptoError, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, Session,
        rustls::QuicClientConfig,
    },
};
use quinn_proto::{TransportError, transport_parameters::TransportParameters};
use rustls::{
    crypto::aws_lc_rs,
    sign::{CertifiedKey, SingleCertAndKey},
};
use sealift_agent::identity::Identity;
use sealift_protocol::{
    close::Code,
    link_facts::{CipherSuite, KeyExchangeGroup, LinkFacts, TlsVersion, Transport},
    message::{ALPN, Message, Ready},
};
use sealift_tests::tls::{Anybody, initial};

use super::{Attacker, Victim, closed_with, run};

/// Packets with less in them are left as they are: acknowledgements, and what goes over the control
/// stream.
const PAYLOAD_BYTES_MIN: usize = 100;
/// Less than the credit that a stream begins with. It gets no more, as what was meant never
/// arrives.
const STREAM_BYTES: usize = 4 << 20;

/// So many of them are within the credit of the connection of one lane.
const STREAMS: usize = 2;

/// What stands in a packet of this number instead.
type Make = fn(u64, &mut [u8]);

/// Replaces nothing until it is begun.
struct Forger {
    make: Make,
    begun: AtomicBool,
    bytes: AtomicU64,
}

struct Forging<T: ?Sized> {
    forger: Arc<Forger>,
    honest: T,
}

impl ClientConfig for Forging<Arc<QuicClientConfig>> {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        let honest = self.honest.clone().start_session(version, name, params)?;
        Ok(Box::new(Forging { forger: self.forger.clone(), honest }))
    }
}

impl Forging<Box<dyn Session>> {
    fn forging(&self, KeyPair { local, remote }: KeyPair<Box<dyn PacketKey>>) -> KeyPair<Box<dyn PacketKey>> {
        KeyPair { local: Box::new(Forging { forger: self.forger.clone(), honest: local }), remote }
    }
}

impl Session for Forging<Box<dyn Session>> {
    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        let Keys { header, packet } = self.honest.write_handshake(buf)?;
        Some(Keys { header, packet: self.forging(packet) })
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        let next = self.honest.next_1rtt_keys()?;
        Some(self.forging(next))
    }

    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        self.honest.initial_keys(dst_cid, side)
    }

    /// What a link of these agents agrees on; rustls' own session does not tell it to quinn.
    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.honest.handshake_data().map(|_| -> Box<dyn Any> {
            Box::new(LinkFacts {
                transport: Transport::Quic,
                tls_version: TlsVersion(0x0304),
                group: KeyExchangeGroup(0x11ec),
                cipher_suite: CipherSuite(0x1302),
            })
        })
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.honest.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.honest.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.honest.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.honest.is_handshaking()
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        self.honest.read_handshake(buf)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.honest.transport_parameters()
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.honest.is_valid_retry(orig_dst_cid, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.honest.export_keying_material(output, label, context)
    }
}

impl PacketKey for Forging<Box<dyn PacketKey>> {
    fn encrypt(&self, packet: u64, buf: &mut [u8], header_len: usize) {
        let payload_end = buf.len() - self.honest.tag_len();
        let payload = &mut buf[header_len..payload_end];
        if self.forger.begun.load(Ordering::Relaxed) && payload.len() >= PAYLOAD_BYTES_MIN {
            (self.forger.make)(packet, payload);
            self.forger.bytes.fetch_add(payload.len() as u64, Ordering::Relaxed);
        }
        self.honest.encrypt(packet, buf, header_len);
    }

    fn decrypt(&self, packet: u64, header: &[u8], payload: &mut BytesMut) -> Result<(), CryptoError> {
        self.honest.decrypt(packet, header, payload)
    }

    fn tag_len(&self) -> usize {
        self.honest.tag_len()
    }

    fn confidentiality_limit(&self) -> u64 {
        self.honest.confidentiality_limit()
    }

    fn integrity_limit(&self) -> u64 {
        self.honest.integrity_limit()
    }
}

/// The settings of a sender with this identity.
fn config(identity: &Identity, forger: &Arc<Forger>) -> quinn::ClientConfig {
    let certified = CertifiedKey::clone(&identity.certified_key().unwrap());
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let honest = Arc::new(QuicClientConfig::with_initial(Arc::new(tls), initial()).unwrap());
    quinn::ClientConfig::new(Arc::new(Forging { forger: forger.clone(), honest }))
}

/// Sends packets, all of them forged, for as long as there is credit, and then a message that ends
/// the transfer, if it is not ended already. Gives the code of the end, if it is one of ours, and
/// the bytes that were forged.
fn attack(victim: &mut Victim, make: Make) -> (Option<Code>, u64) {
    let ticket = victim.ticket();
    let forger = Arc::new(Forger { make, begun: AtomicBool::new(false), bytes: AtomicU64::new(0) });
    let forged = || forger.bytes.load(Ordering::Relaxed);
    let code = run(async {
        let forge = |identity: &Identity, settings: &mut _| *settings = config(identity, &forger);
        let attacker = Attacker::connect_with(ticket, forge).await;
        let (_session, mut writer, _control) = attacker.ready().await;
        let connection = attacker.link.quic();
        forger.begun.store(true, Ordering::Relaxed);
        let mut held = Vec::new();
        for _ in 0..STREAMS {
            let Ok(mut stream) = connection.open_uni().await else { break };
            let _ = stream.write_all(&vec![0; STREAM_BYTES]).await;
            held.push(stream);
            // Written is not sent.
            while forged() < (held.len() * STREAM_BYTES) as u64 * 9 / 10 && connection.close_reason().is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        forger.begun.store(false, Ordering::Relaxed);
        let _ = writer.send(&Message::Ready(Ready { transcript: [0; 32] })).await;
        closed_with(connection).await
    });
    (code, forged())
}

/// Fault X16: most of a million questions whether the path is good. They are answered as far as
/// there is room, and take none.
#[test]
fn x16_path_challenges_take_no_memory() {
    let mut victim = Victim::start();
    let (code, bytes) = attack(&mut victim, |_, payload| {
        payload.fill(0);
        payload.chunks_exact_mut(CHALLENGE_BYTES).for_each(|challenge| challenge[0] = 0x1a);
    });
    assert_eq!(code, Some(Code::ProtocolViolation));
    let challenges = bytes / CHALLENGE_BYTES as u64;
    assert!(challenges > 800_000, "only {challenges} were sent");
    victim.end().assert_code(Code::ProtocolViolation.exit_code().into()).assert_one_message();
}

/// Type and data (RFC 9000, 19.17).
const CHALLENGE_BYTES: usize = 9;

/// Fault X16: every other byte of a stream, and never the first. Each would have to be kept; the
/// connection is dropped.
#[test]
fn x16_a_stream_full_of_gaps_ends_the_connection() {
    let mut victim = Victim::start();
    let (code, bytes) = attack(&mut victim, |packet, payload| {
        payload.fill(0);
        let first = packet as usize * (payload.len() / LONE_BYTES);
        for (frame, at) in payload.chunks_exact_mut(LONE_BYTES).zip(first..) {
            frame.copy_from_slice(&lone_byte((16 + 2 * at) % STREAM_BYTES));
        }
    });
    assert_eq!(code, None, "the rules of QUIC are broken, not ours");
    assert!(bytes > 0);
    victim.end().assert_code(Code::ProtocolViolation.exit_code().into()).assert_one_message();
}

const LONE_BYTES: usize = 8;

/// One byte of the first stream that a sender opens, at this offset (RFC 9000, 19.8).
fn lone_byte(offset: usize) -> [u8; LONE_BYTES] {
    let [a, b, c, d] = (offset as u32 | 0x8000_0000).to_be_bytes();
    [0x0e, 2, a, b, c, d, 1, 0]
}
