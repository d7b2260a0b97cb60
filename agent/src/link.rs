//! A connection to the other agent.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use quinn::{Connection, ConnectionError, Endpoint, VarInt};
use rustls_pki_types::CertificateDer;
use sealift_protocol::{
    close::Code,
    error::Error,
    fingerprint::Fingerprint,
    limits::LANES_MAX,
    message::{Message, Refuse},
    sign::PublicKey,
    ticket_proof::ProvenOn,
    transcript::Channel,
};
use tokio::time::timeout;

use crate::{
    address::resolve,
    clock::now_seconds,
    control::ControlWriter,
    endpoint::RECEIVE_WINDOW_BYTES,
    failure::{Failure, GO_ON, Outcome, explain, io_reason, refused_by_peer},
    identity::{Identity, Role, certified_key},
    socket::open_towards,
    tls_session::TlsFacts,
};

/// For a last word to arrive: some round trips of the slowest link.
pub(crate) const FAREWELL_TIMEOUT: Duration = Duration::from_secs(4);

/// For the last packet to leave, on a machine that is busy.
const LEAVE_MIN: Duration = Duration::from_millis(20);
/// The packet's way, the peer's question, and the answer.
const LEAVE_ROUND_TRIPS: u32 = 3;

/// For an acknowledgement of anything: with the time between two looks, a dead direction is noticed within ten seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// One attempt of a sender to reach one address; a handshake at 800 ms and heavy loss takes some seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(6);

/// RFC 9266: the exporter that binds a channel.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// A connection whose peer has proven to hold the key in its certificate, and what binds the exchange to it.
pub struct Link {
    pub connection: Connection,
    pub peer: PublicKey,
    pub channel: Channel,
}

impl Link {
    pub(crate) fn new(connection: Connection, identity: &Identity, role: Role) -> Outcome<Self> {
        let refused = |what: &str| Failure::new(Code::IdentityRefused, format!("the peer's certificate: {what}"), "");
        let chain = connection
            .peer_identity()
            .and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok())
            .ok_or_else(|| refused("none"))?;
        let leaf = chain.first().ok_or_else(|| refused("none"))?;
        let peer = certified_key(leaf).ok_or_else(|| refused("its key"))?;
        let mut exporter = [0; 32];
        connection
            .export_keying_material(&mut exporter, EXPORTER_LABEL, &[])
            .map_err(|_| Failure::from(Error::new(Code::TranscriptMismatch, "exporter")))?;
        let (own, other) = (identity.leaf().to_vec(), leaf.to_vec());
        let (sender_certificate, receiver_certificate) = match role {
            Role::Sender => (own, other),
            Role::Receiver => (other, own),
        };
        let channel = Channel { exporter, sender_certificate, receiver_certificate };
        Ok(Self { connection, peer, channel })
    }

    /// What a ticket's proof is bound to on this connection.
    pub fn proven_on(&self, own: &Identity, role: Role, grant_hash: [u8; 32]) -> ProvenOn<'_> {
        let (own, peer) = (own.fingerprint(), self.peer_fingerprint());
        let (sender, receiver) = match role {
            Role::Sender => (own, peer),
            Role::Receiver => (peer, own),
        };
        ProvenOn { exporter: &self.channel.exporter, sender, receiver, grant_hash }
    }

    pub fn peer_fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.peer)
    }

    /// Resolves when what was sent is not acknowledged for too long, although packets may still arrive: the way there is
    /// dead. QUIC's own idle timeout starts anew with each packet that is heard, and so may never come. Cancel-safe.
    pub async fn unanswered(&self, role: Role) -> Failure {
        let counts = || {
            let stats = self.connection.stats();
            (stats.frame_rx.acks, stats.frame_tx.stream + stats.frame_tx.ping)
        };
        let (mut acks, mut asked) = counts();
        let mut since = None;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let (acks_now, asked_now) = counts();
            if acks_now != acks {
                (acks, asked, since) = (acks_now, asked_now, None);
            } else if asked_now != asked && since.get_or_insert_with(Instant::now).elapsed() >= ANSWER_TIMEOUT {
                return from_connection(role, &ConnectionError::TimedOut);
            }
        }
    }

    /// What QUIC and TLS agreed on, for the receipt.
    pub fn tls_description(&self) -> String {
        let facts = self.connection.handshake_data().and_then(|any| any.downcast::<TlsFacts>().ok());
        facts.map_or_else(|| "unknown".to_owned(), |facts| facts.to_string())
    }

    /// Lets data come: an offer was accepted, and what the peer may have in flight is bounded by that from now on.
    pub fn open_data(&self) {
        self.connection.set_receive_window(RECEIVE_WINDOW_BYTES.into());
        self.connection.set_max_concurrent_uni_streams(u32::from(LANES_MAX).into());
    }

    /// Ends the exchange with a failure: tells the peer, unless it was the one to say so, and waits until that has arrived,
    /// since a connection that is closed at once may not carry the word any more.
    pub async fn refuse(&self, mut writer: ControlWriter, failure: &Failure) {
        if !failure.told_by_peer {
            let refuse = Refuse {
                part: failure.part,
                chunk: failure.chunk,
                now_seconds: failure.code.is_of_clock().then(now_seconds),
                bound: failure.bound,
                ..Refuse::new(failure.code)
            };
            // A word of a few bytes: a peer that has no room for it by then does not want to hear it.
            if let Ok(Ok(_)) = timeout(FAREWELL_TIMEOUT, writer.send(&Message::Refuse(refuse))).await {
                writer.finish().await;
            }
        }
        self.close(failure.code);
    }

    /// Closes with a code and no text. The peer learns it even if its control stream is busy.
    pub fn close(&self, code: Code) {
        self.connection.close(VarInt::from_u32(code.number().into()), b"");
    }

    /// Closes after both have had everything, and stays for as long as a peer that missed the packet would ask again.
    /// RFC 9000, 10.2, has a closed connection linger for three times its probe timeout, most of which is there for delayed
    /// acknowledgements; nobody waits for one any more.
    pub async fn leave(&self) {
        self.leave_with(Code::Done).await;
    }

    /// The same with any code, for a peer that waits for nothing but that code.
    pub async fn leave_with(&self, code: Code) {
        let stay = LEAVE_MIN.max(LEAVE_ROUND_TRIPS * self.connection.rtt());
        self.close(code);
        tokio::time::sleep(stay.min(FAREWELL_TIMEOUT)).await;
    }
}

/// Connects to the first of `addresses` at which the right peer answers. One that cannot be used does not keep the others
/// from being tried.
pub async fn connect(
    endpoint_for: impl Fn(SocketAddr) -> Outcome<Endpoint>,
    addresses: &[String],
    identity: &Identity,
) -> Outcome<(Endpoint, Link)> {
    let mut failures = Vec::new();
    for name in addresses {
        let resolved = match resolve(name).await {
            Ok(resolved) => resolved,
            Err(failure) => {
                failures.push(failure);
                continue;
            }
        };
        for address in resolved {
            let attempt = async {
                let endpoint = endpoint_for(address)?;
                let link = connect_one(&endpoint, address, identity).await?;
                Ok((endpoint, link))
            };
            match attempt.await {
                Ok(connected) => return Ok(connected),
                Err(failure) => failures.push(failure),
            }
        }
    }
    Err(most_telling(failures))
}

/// Reasons that are reported when several addresses were tried.
const REASONS_MAX: usize = 4;

/// Where somebody else answers, that says more than silence, and silence more than what this host lacks for an address.
fn most_telling(mut failures: Vec<Failure>) -> Failure {
    let silent = |failure: &Failure| matches!(failure.code, Code::Unreachable | Code::Preflight);
    if let Some(at) = failures.iter().position(|failure| !silent(failure)) {
        return failures.swap_remove(at);
    }
    match failures.len() {
        0 => Failure::from(Error::new(Code::Unreachable, "no address")),
        1 => failures.swap_remove(0),
        count => {
            let mut whats: Vec<_> = failures.iter().take(REASONS_MAX).map(|failure| failure.what.clone()).collect();
            if count > REASONS_MAX {
                whats.push(format!("{} more", count - REASONS_MAX));
            }
            let is_reached = |failure: &&Failure| failure.code == Code::Unreachable;
            let of = failures.iter().rfind(is_reached).unwrap_or(&failures[0]);
            Failure::new(of.code, format!("the receiver was not reached: {}", whats.join("; ")), of.next.clone())
        }
    }
}

async fn connect_one(endpoint: &Endpoint, address: SocketAddr, identity: &Identity) -> Outcome<Link> {
    let unreachable = |what: String| {
        let next = "Check that the receiver is running and waiting (a ticket works once), that UDP to this port passes \
                    every firewall, and that the address is right; --address on the receiver sets it.";
        Failure::new(Code::Unreachable, what, next)
    };
    // The name is never sent and never checked: the identity in the certificate is.
    let connecting = endpoint
        .connect(address, "receiver.sealift.invalid")
        .map_err(|_| unreachable(format!("no way to {address} from here")))?;
    let connected = tokio::select! {
        biased;
        connected = timeout(CONNECT_TIMEOUT, connecting) => connected,
        Some(why) = nobody_listens(address) => return Err(unreachable(why)),
    };
    match connected {
        Ok(Ok(connection)) => Link::new(connection, identity, Role::Sender),
        Ok(Err(ConnectionError::TimedOut)) | Err(_) => Err(unreachable(format!("no answer from {address} (UDP)"))),
        Ok(Err(error)) => Err(from_connection(Role::Sender, &error)),
    }
}

/// Why nobody can answer there, if that is known at once: there is no way to it, or its host says that the port is closed,
/// by ICMP, which only a connected socket is told. Asking beside the attempt turns a wait of seconds into a clear word;
/// `None` proves nothing.
async fn nobody_listens(address: SocketAddr) -> Option<String> {
    let socket = open_towards(address).ok()?;
    if let Err(error) = socket.connect(address) {
        return Some(format!("there is no way to {address} from here: {}", io_reason(&error)));
    }
    socket.set_nonblocking(true).ok()?;
    let socket = tokio::net::UdpSocket::from_std(socket).ok()?;
    let closed = || Some(format!("nothing is listening at {address} (UDP)"));
    let refused = |result: std::io::Result<usize>| {
        result.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    };
    if refused(socket.send(&[0]).await) {
        return closed();
    }
    let mut answer = [0; 1];
    let heard = timeout(Duration::from_millis(100), socket.recv(&mut answer)).await;
    if heard.is_ok_and(refused) { closed() } else { None }
}

/// The TLS alert no_application_protocol (RFC 7301, 3.2), as QUIC carries it (RFC 9001, 4.8): no version of ours is common.
const NO_COMMON_PROTOCOL: u64 = 0x100 + 120;

/// RFC 9000, 20.1.
const APPLICATION_ERROR: u64 = 0x0c;

/// What the end of a connection means to the agent of this `role`.
pub fn from_connection(role: Role, error: &ConnectionError) -> Failure {
    let peer = role.peer();
    let plain = |code: Code, what: String, next: &str| Failure::new(code, what, next);
    match error {
        ConnectionError::ApplicationClosed(close) => match Code::from_number(close.error_code.into_inner()) {
            Some(Code::Done) | None => plain(Code::Interrupted, format!("the {peer} went away"), GO_ON),
            Some(code) => refused_by_peer(peer.name(), Refuse::new(code), now_seconds()),
        },
        ConnectionError::TransportError(error) if u64::from(error.code) == NO_COMMON_PROTOCOL => other_version(),
        ConnectionError::ConnectionClosed(close) if u64::from(close.error_code) == NO_COMMON_PROTOCOL => {
            other_version()
        }
        ConnectionError::TransportError(error) if is_without_common_ground(u64::from(error.code)) => {
            no_common_tls(peer)
        }
        ConnectionError::ConnectionClosed(close) if is_without_common_ground(u64::from(close.error_code)) => {
            no_common_tls(peer)
        }
        ConnectionError::TransportError(error) if u64::from(error.code) & !0xff == 0x100 => plain(
            Code::IdentityRefused,
            format!("the {peer} is not the one that the ticket is for, or refuses this {role}'s certificate"),
            "Use the ticket that the receiver printed last; if it is right, somebody else is answering at its address.",
        ),
        ConnectionError::ConnectionClosed(close) if u64::from(close.error_code) & !0xff == 0x100 => plain(
            Code::IdentityRefused,
            format!("the {peer} refuses this {role}'s certificate"),
            "Use the ticket that the receiver printed last, and compare the clocks of the two hosts.",
        ),
        ConnectionError::VersionMismatch => {
            plain(Code::VersionUnsupported, format!("the {peer} speaks another version of QUIC"), "")
        }
        // How QUIC closes for an application before the handshake is complete (RFC 9000, 10.2.3): without its code.
        ConnectionError::ConnectionClosed(close) if u64::from(close.error_code) == APPLICATION_ERROR => {
            refused_by_peer(peer.name(), Refuse::new(Code::Interrupted), now_seconds())
        }
        ConnectionError::TimedOut => plain(Code::Interrupted, format!("the link to the {peer} is down"), GO_ON),
        ConnectionError::LocallyClosed => plain(Code::Interrupted, "the connection was closed here".into(), ""),
        ConnectionError::Reset | ConnectionError::ConnectionClosed(_) => {
            plain(Code::Interrupted, format!("the {peer} went away"), GO_ON)
        }
        ConnectionError::TransportError(_) | ConnectionError::CidsExhausted => {
            plain(Code::ProtocolViolation, format!("the {peer} broke the rules of QUIC"), "")
        }
    }
}

/// Alerts that are about TLS itself, not about a certificate: handshake_failure, protocol_version, insufficient_security,
/// missing_extension (RFC 8446, 6.2).
fn is_without_common_ground(transport_code: u64) -> bool {
    [40, 70, 71, 109].iter().any(|alert| transport_code == 0x100 + alert)
}

fn no_common_tls(peer: Role) -> Failure {
    let what = format!("the {peer} and this side share no version, cipher suite or key exchange of TLS");
    Failure::new(Code::SuiteUnsupported, what, "Install the same version of Sealift on both hosts.")
}

fn other_version() -> Failure {
    let (what, next) = explain(Code::VersionUnsupported);
    Failure::new(Code::VersionUnsupported, what, next)
}
