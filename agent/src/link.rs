//! A connection to the other agent, and its control stream.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use quinn::{Chunk, Connection, ConnectionError, Endpoint, ReadError, ReadExactError, RecvStream, SendStream, VarInt};
use rustls_pki_types::CertificateDer;
use sealift_protocol::{
    close::Code,
    error::Error,
    fingerprint::Fingerprint,
    frame::control_length,
    limits::{CONTROL_BYTES_MAX, LANES_MAX, OFFER_BYTES_MAX},
    message::{Message, Offer, Refuse},
    sign::PublicKey,
    ticket_proof::{ProvenOn, TICKET_PROOF_BYTES, TicketProof},
    transcript::Channel,
};
use tokio::time::{timeout, timeout_at};

use crate::{
    address::resolve,
    clock::now_seconds,
    door::Slot,
    endpoint::RECEIVE_WINDOW_BYTES,
    failure::{Failure, GO_ON, Outcome, explain, io_reason, refused_by_peer},
    identity::{Identity, Role, certified_key},
    socket::open_towards,
    tls_session::TlsFacts,
};

/// For each whole message of the exchange before data flows, and for one that has begun later (fault-matrix X15); besides, as
/// long as its bytes take at the least rate, counted as they come and not as they are announced.
pub const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// The slowest link that is served, 64 kbit/s, less what its overhead takes.
const BYTES_PER_SECOND_MIN: u64 = 4 << 10;

/// For a last word to arrive: some round trips of the slowest link.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(4);

/// For the last packet to leave, on a machine that is busy.
const LEAVE_MIN: Duration = Duration::from_millis(20);
/// The packet's way, the peer's question, and the answer.
const LEAVE_ROUND_TRIPS: u32 = 3;

fn patience(bytes: usize) -> Duration {
    MESSAGE_TIMEOUT + Duration::from_secs(bytes as u64 / BYTES_PER_SECOND_MIN)
}

/// The one clock of a message. It does not start again inside it, and a peer gains time by what it sends alone.
#[derive(Clone, Copy)]
struct Clock {
    since: Instant,
    /// Of what the message answers: a slow link takes as long to deliver that.
    asked_bytes: usize,
}

impl Clock {
    fn start(asked_bytes: usize) -> Self {
        Self { since: Instant::now(), asked_bytes }
    }

    /// When the next byte has to be here, after so many.
    fn due(&self, received_bytes: usize) -> Instant {
        self.since + patience(self.asked_bytes + received_bytes)
    }
}

/// The most that is taken from a stream at once.
const PIECE_BYTES: usize = 64 << 10;

/// For an acknowledgement of anything: with the time between two looks, a dead direction is noticed within ten seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// One attempt of a sender to reach one address; a handshake at 800 ms and heavy loss takes some seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(6);

/// RFC 9266: the exporter that binds a channel.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// From the end of the handshake to the last byte of a ticket's proof, which is short.
pub const PROOF_TIMEOUT: Duration = Duration::from_secs(5);

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

/// Reasons that are told when several addresses were tried.
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

/// Of a control message's length.
const PREFIX_BYTES: usize = 4;

/// Sends control messages.
pub struct ControlWriter {
    stream: SendStream,
    role: Role,
}

/// Receives control messages.
pub struct ControlReader {
    stream: RecvStream,
    role: Role,
}

/// Opens the control stream (the sender does), with the proof of the ticket before anything else.
pub async fn open_control(link: &Link, proof: &TicketProof) -> Outcome<(ControlWriter, ControlReader)> {
    let role = Role::Sender;
    let (mut send, receive) = link.connection.open_bi().await.map_err(|error| from_connection(role, &error))?;
    let written = timeout(MESSAGE_TIMEOUT, send.write_all(&proof.to_bytes())).await;
    written.map_err(|_| too_slow(role))?.map_err(|error| broken_write(role, error))?;
    Ok((ControlWriter { stream: send, role }, ControlReader { stream: receive, role }))
}

/// Waits for the control stream and the proof of a ticket on it (the receiver does), both within [`PROOF_TIMEOUT`].
pub async fn accept_control(link: &Link) -> Outcome<(ControlWriter, ControlReader, TicketProof)> {
    let role = Role::Receiver;
    let accepting = async {
        let (send, mut receive) = link.connection.accept_bi().await.map_err(|error| from_connection(role, &error))?;
        let mut bytes = [0; TICKET_PROOF_BYTES];
        let read = receive.read_exact(&mut bytes).await;
        read.map_err(|error| broken_read(role, error))?;
        Ok((send, receive, TicketProof::from_bytes(&bytes)?))
    };
    let accepted: Outcome<_> = timeout(PROOF_TIMEOUT, accepting).await.map_err(|_| too_slow(role))?;
    let (send, receive, proof) = accepted?;
    Ok((ControlWriter { stream: send, role }, ControlReader { stream: receive, role }, proof))
}

fn too_slow(role: Role) -> Failure {
    let what = format!("the {} took too long to hear or to answer", role.peer());
    Failure::new(Code::TooSlow, what, "Try again; if it repeats, look at the link's delay and loss.")
}

impl ControlWriter {
    /// Returns the bytes written. A peer that takes none of them for too long is not waited for: it could keep a transfer, or
    /// the word that it is over, for ever. Not cancel-safe: part of the message may have been written.
    pub async fn send(&mut self, message: &Message) -> Outcome<usize> {
        let frame = message.to_frame()?;
        let written = timeout(patience(frame.len()), self.stream.write_all(&frame)).await;
        written.map_err(|_| too_slow(self.role))?.map_err(|error| broken_write(self.role, error))?;
        Ok(frame.len())
    }

    /// Ends this side of the stream and waits until the peer has all of it, or has gone, but not for long.
    pub async fn finish(mut self) {
        let _ = self.stream.finish();
        let _ = timeout(FAREWELL_TIMEOUT, self.stream.stopped()).await;
    }
}

impl ControlReader {
    /// The first message of an exchange, which may be a refusal: a sender that cannot even begin says so. Its clock began
    /// at `since`, with the connection; what it takes of memory comes out of what all offers may take together.
    pub async fn first(&mut self, since: Instant, slot: &Slot) -> Outcome<Message> {
        let clock = Clock { since, asked_bytes: 0 };
        let hold = |bytes| slot.hold_bytes(Offer::memory_bytes(bytes));
        self.message(Some(clock), OFFER_BYTES_MAX, hold).await?.ok_or_else(|| self.ended())
    }

    /// The answer to a message of `asked_bytes`, which must be whole within the time of the exchange.
    pub async fn expect(&mut self, asked_bytes: usize) -> Outcome<Message> {
        self.not_refused(Some(Clock::start(asked_bytes))).await?.ok_or_else(|| self.ended())
    }

    /// The next message, or `None` at the clean end of the stream. A refusal by the peer is an error. Not cancel-safe.
    pub async fn next(&mut self) -> Outcome<Option<Message>> {
        self.not_refused(None).await
    }

    async fn not_refused(&mut self, clock: Option<Clock>) -> Outcome<Option<Message>> {
        match self.message(clock, CONTROL_BYTES_MAX, |_| Ok(())).await? {
            Some(Message::Refuse(refuse)) => Err(self.refused(refuse)),
            message => Ok(message),
        }
    }

    /// What a refusal by the peer means here.
    pub fn refused(&self, refuse: Refuse) -> Failure {
        refused_by_peer(self.role.peer().name(), refuse, now_seconds())
    }

    /// Without a clock, it starts with the first byte. `hold` is told of each piece before it is kept.
    async fn message(
        &mut self,
        mut clock: Option<Clock>,
        bytes_max: usize,
        hold: impl Fn(usize) -> Outcome,
    ) -> Outcome<Option<Message>> {
        let mut prefix = Vec::with_capacity(PREFIX_BYTES);
        while prefix.len() < PREFIX_BYTES {
            let Some(piece) = self.piece(PREFIX_BYTES - prefix.len(), clock, prefix.len()).await? else {
                return if prefix.is_empty() { Ok(None) } else { Err(self.ended()) };
            };
            prefix.extend_from_slice(&piece.bytes);
            clock = clock.or_else(|| Some(Clock::start(0)));
        }
        let body_bytes = control_length([prefix[0], prefix[1], prefix[2], prefix[3]])?;
        if body_bytes > bytes_max {
            return Err(Error::new(Code::LimitExceeded, "length of the first message").into());
        }
        // Grows with what comes: an announcement takes nothing.
        let mut body = Vec::new();
        while body.len() < body_bytes {
            let wanted = PIECE_BYTES.min(body_bytes - body.len());
            let piece = self.piece(wanted, clock, body.len()).await?.ok_or_else(|| self.ended())?;
            hold(body.len() + piece.bytes.len())?;
            body.extend_from_slice(&piece.bytes);
        }
        Ok(Some(Message::from_bytes(&body)?))
    }

    /// What is there of the stream, `wanted` bytes at most; `None` at its end. `received` bytes of the message came before.
    async fn piece(&mut self, wanted: usize, clock: Option<Clock>, received: usize) -> Outcome<Option<Chunk>> {
        let reading = self.stream.read_chunk(wanted, true);
        let read = match clock {
            Some(clock) => {
                let due = clock.due(received);
                timeout_at(due.into(), reading).await.map_err(|_| too_slow(self.role))?
            }
            None => reading.await,
        };
        match read {
            Ok(chunk) => Ok(chunk),
            Err(ReadError::ConnectionLost(lost)) => Err(from_connection(self.role, &lost)),
            Err(_) => Err(self.ended()),
        }
    }

    fn ended(&self) -> Failure {
        ended(self.role)
    }
}

fn ended(role: Role) -> Failure {
    Failure::new(Code::Interrupted, format!("the {} ended the exchange", role.peer()), "")
}

fn broken_read(role: Role, error: ReadExactError) -> Failure {
    match error {
        ReadExactError::ReadError(quinn::ReadError::ConnectionLost(lost)) => from_connection(role, &lost),
        _ => ended(role),
    }
}

fn broken_write(role: Role, error: quinn::WriteError) -> Failure {
    match error {
        quinn::WriteError::ConnectionLost(lost) => from_connection(role, &lost),
        _ => Failure::new(Code::ProtocolViolation, "the control stream was closed", ""),
    }
}
