//! A connection to the other agent, and its control stream.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use quinn::{Connection, ConnectionError, Endpoint, ReadExactError, RecvStream, SendStream, VarInt};
use rustls_pki_types::CertificateDer;
use sealift_protocol::{
    close::Code,
    frame::control_length,
    message::{Message, Refuse},
    transcript::Channel,
};
use tokio::time::timeout;

use crate::{
    failure::{Failure, Outcome, refused_by_peer},
    identity::{Identity, PeerIdentity, Role, judge_leaf},
};

/// From a peer's first validated packet to the end of its TLS handshake (fault-matrix X15).
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// For each message of the exchange before data flows, and for the rest of a message that has begun (fault-matrix X15).
pub const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// One attempt of a sender to reach one address; a handshake at 800 ms and heavy loss takes some seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(6);

/// RFC 9266: the exporter that binds a channel.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// An authenticated connection: who is at the other end, and what binds the exchange to it.
pub struct Link {
    pub connection: Connection,
    pub peer: PeerIdentity,
    pub channel: Channel,
}

impl Link {
    fn new(connection: Connection, identity: &Identity, role: Role) -> Outcome<Self> {
        let refused = |what: &str| Failure::new(Code::IdentityRefused, format!("the peer's certificate: {what}"), "");
        let chain = connection
            .peer_identity()
            .and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok())
            .ok_or_else(|| refused("none"))?;
        let leaf = chain.first().ok_or_else(|| refused("none"))?;
        let peer = judge_leaf(leaf, role.peer()).map_err(refused)?;
        let mut exporter = [0; 32];
        connection
            .export_keying_material(&mut exporter, EXPORTER_LABEL, &[])
            .map_err(|_| Failure::from(sealift_protocol::error::Error::new(Code::TranscriptMismatch, "exporter")))?;
        let (own, other) = (identity.leaf().to_vec(), leaf.to_vec());
        let (sender_certificate, receiver_certificate) = match role {
            Role::Sender => (own, other),
            Role::Receiver => (other, own),
        };
        let channel = Channel { exporter, sender_certificate, receiver_certificate };
        Ok(Self { connection, peer, channel })
    }

    /// What TLS agreed on, for the receipt: both are the only ones that [`crate::endpoint`] allows, or their equals.
    pub fn tls_description(&self) -> String {
        "QUIC v1, TLS 1.3, 256-bit cipher, hybrid ML-KEM-768 key exchange, mutual Ed25519 certificates".to_owned()
    }

    /// Closes with a code and no text. The peer learns it even if its control stream is busy.
    pub fn close(&self, code: Code) {
        self.connection.close(VarInt::from_u32(code.number().into()), b"");
    }
}

/// Connects to the first of `addresses` that answers.
pub async fn connect(
    endpoint_for: impl Fn(SocketAddr) -> Outcome<Endpoint>,
    addresses: &[String],
    identity: &Identity,
) -> Outcome<(Endpoint, Link)> {
    let mut worst = Failure::from(sealift_protocol::error::Error::new(Code::Unreachable, "no address"));
    for name in addresses {
        let resolved = match tokio::net::lookup_host(name.as_str()).await {
            Ok(resolved) => resolved.collect::<Vec<_>>(),
            Err(error) => {
                worst = Failure::io(
                    Code::Unreachable,
                    format!("the receiver's address {name} is not known here"),
                    &error,
                    "Start the receiver with --address HOST:PORT, a name or address that this host can reach.",
                );
                continue;
            }
        };
        for address in resolved {
            let endpoint = endpoint_for(address)?;
            match connect_one(&endpoint, address, identity).await {
                Ok(link) => return Ok((endpoint, link)),
                // Somebody is there and it is not the right one: no other address will change that.
                Err(failure) if failure.code != Code::Unreachable => return Err(failure),
                Err(failure) => worst = failure,
            }
        }
    }
    Err(worst)
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
        true = nobody_listens(address) => {
            return Err(unreachable(format!("nothing is listening at {address} (UDP)")));
        }
    };
    match connected {
        Ok(Ok(connection)) => Link::new(connection, identity, Role::Sender),
        Ok(Err(ConnectionError::TimedOut)) | Err(_) => Err(unreachable(format!("no answer from {address} (UDP)"))),
        Ok(Err(error)) => Err(from_connection(Role::Sender, &error)),
    }
}

/// A closed UDP port on a host that is up answers with ICMP, which only a connected socket is told. Asking beside the
/// attempt turns a wait of seconds into a clear word; no answer proves nothing.
async fn nobody_listens(address: SocketAddr) -> bool {
    let probe = || -> std::io::Result<tokio::net::UdpSocket> {
        let any: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
        let socket = UdpSocket::bind(any)?;
        socket.connect(address)?;
        socket.set_nonblocking(true)?;
        tokio::net::UdpSocket::from_std(socket)
    };
    let Ok(socket) = probe() else { return false };
    let refused = |result: std::io::Result<usize>| {
        result.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    };
    if refused(socket.send(&[0]).await) {
        return true;
    }
    let mut answer = [0; 1];
    timeout(Duration::from_millis(100), socket.recv(&mut answer)).await.is_ok_and(refused)
}

/// Accepts the next connection whose handshake succeeds within its time and whose address is validated by Retry.
/// Those that fail are dropped and told in the log alone: they are nobody yet. Cancel-safe.
pub async fn accept(endpoint: &Endpoint, identity: &Identity) -> Outcome<Link> {
    loop {
        let Some(incoming) = endpoint.accept().await else {
            return Err(Failure::new(Code::Interrupted, "the endpoint was closed", ""));
        };
        if !incoming.remote_address_validated() {
            // Fails only for an address that is validated already.
            let _ = incoming.retry();
            continue;
        }
        let address = incoming.remote_address();
        let Ok(connecting) = incoming.accept() else { continue };
        match timeout(HANDSHAKE_TIMEOUT, connecting).await {
            Ok(Ok(connection)) => match Link::new(connection, identity, Role::Receiver) {
                Ok(link) => return Ok(link),
                Err(failure) => tracing::warn!(%address, code = failure.code.word(), "connection refused"),
            },
            Ok(Err(error)) => {
                let failure = from_connection(Role::Receiver, &error);
                tracing::warn!(%address, code = failure.code.word(), "connection refused");
            }
            Err(_) => tracing::warn!(%address, code = Code::TooSlow.word(), "connection refused"),
        }
    }
}

/// What the end of a connection means to the agent of this `role`.
pub fn from_connection(role: Role, error: &ConnectionError) -> Failure {
    let peer = role.peer();
    let plain = |code: Code, what: String, next: &str| Failure::new(code, what, next);
    match error {
        ConnectionError::ApplicationClosed(close) => match Code::from_number(close.error_code.into_inner()) {
            Some(Code::Done) | None => plain(Code::Interrupted, format!("the {peer} went away"), "Start again."),
            Some(code) => refused_by_peer(peer.name(), code, None, None),
        },
        ConnectionError::TransportError(error) if u64::from(error.code) & !0xff == 0x100 => plain(
            Code::IdentityRefused,
            format!("the {peer} is not the one that the ticket is for, or refuses this {role}'s certificate"),
            "Use the ticket that the receiver printed last; if it is right, somebody else is answering at its address.",
        ),
        ConnectionError::ConnectionClosed(close) if u64::from(close.error_code) & !0xff == 0x100 => plain(
            Code::IdentityRefused,
            format!("the {peer} refuses this {role}'s certificate, or speaks another version of the protocol"),
            "Use the ticket that the receiver printed last, and the same version of Sealift on both hosts.",
        ),
        ConnectionError::VersionMismatch => {
            plain(Code::VersionUnsupported, format!("the {peer} speaks another version of QUIC"), "")
        }
        ConnectionError::TimedOut => {
            plain(Code::Interrupted, format!("the link to the {peer} is down"), "Start again when it is up.")
        }
        ConnectionError::LocallyClosed => plain(Code::Interrupted, "the connection was closed here".into(), ""),
        ConnectionError::Reset | ConnectionError::ConnectionClosed(_) => {
            plain(Code::Interrupted, format!("the {peer} went away"), "Start again.")
        }
        ConnectionError::TransportError(_) | ConnectionError::CidsExhausted => {
            plain(Code::ProtocolViolation, format!("the {peer} broke the rules of QUIC"), "")
        }
    }
}

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

/// Opens the control stream (the sender does).
pub async fn open_control(link: &Link) -> Outcome<(ControlWriter, ControlReader)> {
    let role = Role::Sender;
    let (send, receive) = link.connection.open_bi().await.map_err(|error| from_connection(role, &error))?;
    Ok((ControlWriter { stream: send, role }, ControlReader { stream: receive, role }))
}

/// Waits for the control stream (the receiver does).
pub async fn accept_control(link: &Link) -> Outcome<(ControlWriter, ControlReader)> {
    let role = Role::Receiver;
    let accepted = timeout(MESSAGE_TIMEOUT, link.connection.accept_bi()).await.map_err(|_| too_slow(role))?;
    let (send, receive) = accepted.map_err(|error| from_connection(role, &error))?;
    Ok((ControlWriter { stream: send, role }, ControlReader { stream: receive, role }))
}

fn too_slow(role: Role) -> Failure {
    let what = format!("the {} took too long before any data flowed", role.peer());
    Failure::new(Code::TooSlow, what, "Try again; if it repeats, look at the link's delay and loss.")
}

impl ControlWriter {
    /// Not cancel-safe: part of the message may have been written.
    pub async fn send(&mut self, message: &Message) -> Outcome {
        let frame = message.to_frame()?;
        self.stream.write_all(&frame).await.map_err(|error| match error {
            quinn::WriteError::ConnectionLost(lost) => from_connection(self.role, &lost),
            _ => Failure::new(Code::ProtocolViolation, "the control stream was closed", ""),
        })
    }

    /// Tells the peer why it is over, as far as it still listens, and waits a moment for it to be heard.
    pub async fn refuse(mut self, refuse: Refuse) {
        if self.send(&Message::Refuse(refuse)).await.is_ok() {
            self.finish().await;
        }
    }

    /// Ends this side of the stream and waits until the peer has all of it, or has gone.
    pub async fn finish(mut self) {
        let _ = self.stream.finish();
        let _ = timeout(MESSAGE_TIMEOUT, self.stream.stopped()).await;
    }
}

impl ControlReader {
    /// The next message within the time of the exchange.
    pub async fn expect(&mut self) -> Outcome<Message> {
        let next = timeout(MESSAGE_TIMEOUT, self.next()).await.map_err(|_| too_slow(self.role))?;
        next?.ok_or_else(|| self.ended())
    }

    /// The next message, or `None` at the clean end of the stream. A refusal by the peer is an error. Not cancel-safe.
    pub async fn next(&mut self) -> Outcome<Option<Message>> {
        let mut prefix = [0; 4];
        match self.stream.read_exact(&mut prefix).await {
            Ok(()) => {}
            Err(ReadExactError::FinishedEarly(0)) => return Ok(None),
            Err(error) => return Err(self.broken(error)),
        }
        let mut body = vec![0; control_length(prefix)?];
        let read = timeout(MESSAGE_TIMEOUT, self.stream.read_exact(&mut body)).await;
        read.map_err(|_| too_slow(self.role))?.map_err(|error| self.broken(error))?;
        match Message::from_bytes(&body)? {
            Message::Refuse(Refuse { code, part, chunk }) => {
                Err(refused_by_peer(self.role.peer().name(), code, part, chunk))
            }
            message => Ok(Some(message)),
        }
    }

    fn ended(&self) -> Failure {
        Failure::new(Code::Interrupted, format!("the {} ended the exchange", self.role.peer()), "")
    }

    fn broken(&self, error: ReadExactError) -> Failure {
        match error {
            ReadExactError::ReadError(quinn::ReadError::ConnectionLost(lost)) => from_connection(self.role, &lost),
            _ => self.ended(),
        }
    }
}
