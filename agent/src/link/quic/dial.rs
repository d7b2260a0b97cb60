//! Connecting to one address over QUIC.

use std::{io, net::SocketAddr, time::Duration};

use quinn::{ClientConfig, ConnectionError};
use sealift_protocol::close::Code;
use tokio::time::timeout;

use super::{QuicConnection, end_of, endpoint::bind};
use crate::{
    failure::{Failure, Outcome, io_reason},
    link::socket::open_towards,
    role::Role,
};

/// One attempt of a sender to reach one address; a handshake at 800 ms and heavy loss takes some
/// seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(6);

/// How long a host is given to answer that a port is closed.
const CLOSED_PORT_TIMEOUT: Duration = Duration::from_millis(100);

/// Connects to `address` from a socket of its own. Cancel-safe: a dropped attempt closes its
/// socket.
pub(in crate::link) async fn dial(config: &ClientConfig, address: SocketAddr) -> Outcome<QuicConnection> {
    let unreachable = |what: String| {
        let next = "Check that the receiver is running and waiting (a ticket works once), that UDP to this port passes \
                    every firewall, and that the address is right; --address on the receiver sets it.";
        Failure::new(Code::Unreachable, what, next)
    };
    let socket = open_towards(address).map_err(|error| {
        let next = "If this host has no IPv6, have the ticket made with an IPv4 address: --address on the receiver.";
        Failure::io(Code::Preflight, format!("no UDP socket can be opened towards {address}"), &error, next)
    })?;
    let endpoint = bind(socket, None)?;
    // The name is never sent and never checked: the identity in the certificate is.
    let connecting = endpoint
        .connect_with(config.clone(), address, "receiver.sealift.invalid")
        .map_err(|_| unreachable(format!("no way to {address} from here")))?;
    let connected = tokio::select! {
        biased;
        connected = timeout(CONNECT_TIMEOUT, connecting) => connected,
        Some(why) = refusal_at(address) => return Err(unreachable(why)),
    };
    match connected {
        Ok(Ok(connection)) => Ok(QuicConnection::new(connection, Some(endpoint))),
        Ok(Err(ConnectionError::TimedOut)) | Err(_) => Err(unreachable(format!("no answer from {address} (UDP)"))),
        Ok(Err(error)) => Err(end_of(&error).failure(Role::Sender)),
    }
}

/// Why nothing can answer there, if that is known at once: there is no route, or the host says that
/// the port is closed, by ICMP, which only a connected socket gets. Asking beside the attempt turns
/// a wait of seconds into a clear message; `None` proves nothing. Cancel-safe.
async fn refusal_at(address: SocketAddr) -> Option<String> {
    let socket = open_towards(address).ok()?;
    if let Err(error) = socket.connect(address) {
        return Some(format!("there is no way to {address} from here: {}", io_reason(&error)));
    }
    socket.set_nonblocking(true).ok()?;
    let socket = tokio::net::UdpSocket::from_std(socket).ok()?;
    let is_refused =
        |result: io::Result<usize>| result.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    let mut is_closed = is_refused(socket.send(&[0]).await);
    if !is_closed {
        let mut answer = [0; 1];
        let received = timeout(CLOSED_PORT_TIMEOUT, socket.recv(&mut answer)).await;
        is_closed = received.is_ok_and(is_refused);
    }
    is_closed.then(|| format!("nothing is listening at {address} (UDP)"))
}
