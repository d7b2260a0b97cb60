//! The only place that builds QUIC configurations and endpoints: every window, stream count and
//! time is bounded.

use std::{
    net::UdpSocket,
    sync::{Arc, Weak},
    time::Duration,
};

pub use quinn::ClientConfig;
use quinn::{
    AckFrequencyConfig, EndpointConfig, MtuDiscoveryConfig, ServerConfig, TokioRuntime, TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::crypto::aws_lc_rs;
use sealift_protocol::{
    close::Code,
    limits::{CONTROL_BYTES_MAX, LANE_WINDOW_BYTES_MIN},
};
use tokio::sync::watch;

use super::{
    congestion::Congestion,
    tls_session::{TlsClient, TlsServer},
};
use crate::{
    credentials::{Credentials, Current},
    failure::{Failure, Outcome},
    identity::Identity,
    link::tls::{broken, client_tls, server_tls},
    role::Role,
    trust::Trust,
};

/// Silence after which a connection is over. Long enough for a link of 800 ms with jitter, short
/// enough that a dead link is noticed within ten seconds, and taken for that and not for a slow
/// peer.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(8);

/// Keeps a slow but living connection from looking idle: four fit the idle timeout.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// What a receiver buffers of one part's stream before its sink takes it: the bandwidth-delay
/// product of 500 Mbit/s at 80 ms.
const STREAM_RECEIVE_WINDOW_BYTES: u32 = 5 << 20;

/// What a receiver buffers of all streams. All that a sender may have in flight must fit, or parts
/// that wait for their turn would take the credit of the one that is being loaded. A quarter more,
/// since quinn gives credit back in eighths of the window, and a stream's for the control stream.
pub(super) fn receive_window(in_flight_bytes: u64) -> VarInt {
    let bytes = in_flight_bytes + in_flight_bytes / 4 + u64::from(STREAM_RECEIVE_WINDOW_BYTES);
    VarInt::from_u64(bytes).unwrap_or(VarInt::MAX)
}
const _: () = assert!(STREAM_RECEIVE_WINDOW_BYTES as u64 <= LANE_WINDOW_BYTES_MIN);
const _: () = assert!(CONTROL_BYTES_MAX <= STREAM_RECEIVE_WINDOW_BYTES as usize);

/// What a receiver buffers of a peer that has no accepted offer, which is its control stream alone:
/// a window's round trip is all that this costs an offer of a megabyte. An accepted one raises it
/// ([`crate::link::Link::open_data`]).
const OFFER_WINDOW_BYTES: u32 = 64 << 10;

/// What a sender buffers: the control stream is the only one that its receiver may use.
const ANSWER_WINDOW_BYTES: u32 = STREAM_RECEIVE_WINDOW_BYTES;

/// The round trip before anything is known of a path. RFC 9002, 6.2.2, recommends 333 ms; less
/// costs a distant peer some packets that are sent twice. A sender repeats a first packet that a
/// flood displaced after three of these. A receiver keeps a connection that it closed before its
/// peer ever answered for nine, and a flood leaves many.
const SENDER_INITIAL_RTT: Duration = Duration::from_millis(100);
const RECEIVER_INITIAL_RTT: Duration = Duration::from_millis(30);

/// What a sender keeps for retransmission.
const SEND_WINDOW_BYTES: u64 = 16 << 20;

/// Largest MTU that is probed for. Loopback and jumbo frames halve the processor time; over about
/// 6,550 the kernel refuses quinn's batches of ten segments, since they pass 65,507 bytes.
const MTU_BYTES_MAX: u16 = 6500;

/// How long the peer may keep an acknowledgement back, where 25 ms are usual. It is a part of every
/// time-out, and an end that has closed waits for three of those, in case its last packet was lost;
/// a whole transfer of little data took most of its time to close. Data in flight is acknowledged
/// as usual, at every second packet.
const ACK_DELAY_MAX: Duration = Duration::from_millis(5);

/// Socket buffers: at 212 KB, the default, bursts are lost while a processor is busy.
const SOCKET_BUFFER_BYTES: usize = 8 << 20;

/// First packets that wait to be looked at, and what they may have buffered: what a thousand
/// handshakes a second bring while the thread does something else for a quarter of a second. What
/// comes beyond is dropped before it costs a key, so that ten thousand a second (fault X19) leave
/// the processor to those that are served.
const INCOMING_MAX: usize = 512;
const INCOMING_BUFFER_BYTES: u64 = 64 << 10;
const INCOMING_BUFFER_BYTES_TOTAL: u64 = 1 << 20;

/// QUIC's Initial packets are protected with a published key (RFC 9001, 5.2); this suite only does
/// that.
fn initial_suite() -> Outcome<rustls::quic::Suite> {
    let suite = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13().and_then(|suite| suite.quic_suite());
    suite.ok_or_else(|| broken("QUIC's initial suite"))
}

/// How a receiver accepts over QUIC: senders that `trust` vouches for, and no others.
pub fn server_config(identity: &Identity, trust: impl Into<Arc<Trust>>) -> Outcome<ServerConfig> {
    let tls = server_tls(identity, trust.into())?;
    let quinn = QuicServerConfig::with_initial(Arc::clone(&tls), initial_suite()?).map_err(|_| broken("QUIC"))?;
    let mut config = ServerConfig::with_crypto(Arc::new(TlsServer { tls, quinn: Arc::new(quinn) }));
    config
        .transport_config(Arc::new(transport(Role::Receiver, Congestion::default())))
        .migration(false)
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BUFFER_BYTES)
        .incoming_buffer_size_total(INCOMING_BUFFER_BYTES_TOTAL);
    Ok(config)
}

/// How a sender connects over QUIC: to receivers that `trust` vouches for, and no others.
pub fn client_config(identity: &Identity, trust: impl Into<Arc<Trust>>) -> Outcome<ClientConfig> {
    let tls = client_tls(identity, trust.into())?;
    let quinn = QuicClientConfig::with_initial(Arc::clone(&tls), initial_suite()?).map_err(|_| broken("QUIC"))?;
    let mut config = ClientConfig::new(Arc::new(TlsClient { tls, quinn: Arc::new(quinn) }));
    config.transport_config(Arc::new(transport(Role::Sender, Congestion::default())));
    Ok(config)
}

/// Where a receiver listens.
pub struct Listener {
    pub(super) endpoint: quinn::Endpoint,
    credentials: watch::Receiver<Current>,
}

/// How a connection is accepted.
pub(super) struct Accepting {
    pub config: ServerConfig,
    pub identity: Arc<Identity>,
}

impl Accepting {
    fn with(current: &Current) -> Outcome<Self> {
        let config = server_config(&current.identity, Arc::clone(&current.trust))?;
        Ok(Self { config, identity: Arc::clone(&current.identity) })
    }
}

impl Listener {
    /// Listens at `socket`. Each connection is accepted by what `credentials` has when it comes.
    pub fn start(socket: UdpSocket, credentials: &Credentials) -> Outcome<Self> {
        let mut credentials = credentials.watch();
        let accepting = Accepting::with(&credentials.borrow_and_update())?;
        Ok(Self { endpoint: bind(socket, Some(accepting.config))?, credentials })
    }

    /// How the next connection is accepted, and where that is renewed.
    pub(super) fn accepting(&self) -> Outcome<(Accepting, watch::Receiver<Current>)> {
        let mut credentials = self.credentials.clone();
        let accepting = Accepting::with(&credentials.borrow_and_update())?;
        Ok((accepting, credentials))
    }

    /// Accepts nothing new from now on. Connections that stand are not touched.
    pub fn refuse_new(&self) {
        self.endpoint.set_server_config(None);
    }

    /// Waits until nothing of any connection has to leave any more. Cancel-safe.
    pub async fn wait_idle(&self) {
        self.endpoint.wait_idle().await;
    }
}

/// `config` for one connection, and what shows that nothing is left of that: it is gone then.
pub(super) fn tracked(config: &ServerConfig) -> (Arc<ServerConfig>, Weak<()>) {
    let kept = Arc::new(());
    let left = Arc::downgrade(&kept);
    let mut config = config.clone();
    config.transport_config(Arc::new(transport(Role::Receiver, Congestion { kept: Some(kept) })));
    (Arc::new(config), left)
}

fn transport(role: Role, congestion: Congestion) -> TransportConfig {
    let (bidirectional, receive_window_bytes, initial_rtt) = match role {
        Role::Receiver => (1u32, OFFER_WINDOW_BYTES, RECEIVER_INITIAL_RTT),
        Role::Sender => (0, ANSWER_WINDOW_BYTES, SENDER_INITIAL_RTT),
    };
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MTU_BYTES_MAX);
    let mut acknowledgements = AckFrequencyConfig::default();
    acknowledgements.max_ack_delay(Some(ACK_DELAY_MAX));
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(bidirectional.into())
        // A receiver allows some once an offer was accepted.
        .max_concurrent_uni_streams(0u32.into())
        .stream_receive_window(STREAM_RECEIVE_WINDOW_BYTES.into())
        .receive_window(receive_window_bytes.into())
        .initial_rtt(initial_rtt)
        // A receiver sends acknowledgements, one packet at a time. Room for ten, in each connection
        // that a stranger opens, is a quarter of what that takes.
        .enable_segmentation_offload(role == Role::Sender)
        .send_window(SEND_WINDOW_BYTES)
        .max_idle_timeout(Some(VarInt::from_u32(IDLE_TIMEOUT.as_millis() as u32).into()))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .datagram_receive_buffer_size(None)
        .congestion_controller_factory(Arc::new(congestion))
        .ack_frequency_config(Some(acknowledgements))
        .mtu_discovery_config(Some(mtu));
    transport
}

/// QUIC's version 1 (RFC 9000). By itself quinn still speaks the drafts before it.
const QUIC_VERSION: u32 = 1;

/// Opens the one UDP socket of an agent.
pub fn bind(socket: UdpSocket, server: Option<ServerConfig>) -> Outcome<quinn::Endpoint> {
    enlarge_buffers(&socket);
    let mut config = EndpointConfig::default();
    config.supported_versions(vec![QUIC_VERSION]);
    // The peer probes no further than what this end says it takes, whatever its own bound.
    config.max_udp_payload_size(MTU_BYTES_MAX).map_err(|_| broken("QUIC's largest datagram"))?;
    quinn::Endpoint::new(config, server, socket, Arc::new(TokioRuntime))
        .map_err(|error| Failure::io(Code::Preflight, "the UDP socket cannot be used", &error, ""))
}

/// Best effort: the system's maximum may be lower, which costs speed and nothing else.
fn enlarge_buffers(socket: &UdpSocket) {
    use nix::sys::socket::{setsockopt, sockopt};
    let _ = setsockopt(socket, sockopt::RcvBuf, &SOCKET_BUFFER_BYTES);
    let _ = setsockopt(socket, sockopt::SndBuf, &SOCKET_BUFFER_BYTES);
}
