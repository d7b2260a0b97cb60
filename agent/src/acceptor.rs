//! Lets senders in: validates addresses by Retry and runs handshakes side by side, so that one that stalls keeps nobody
//! else waiting.

use std::{net::SocketAddr, pin::Pin, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use quinn::{Connecting, Endpoint, Incoming};
use sealift_protocol::close::Code;
use tokio::time::timeout;

use crate::{
    failure::{Failure, Outcome},
    identity::{Identity, Role},
    link::{Link, from_connection},
};

/// From a peer's first validated packet to the end of its TLS handshake (fault-matrix X15).
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Handshakes at once. Each costs some milliseconds of processor time and some ten kilobytes; one sender needs one.
const HANDSHAKES_MAX: usize = 16;

type Handshake<'a> = Pin<Box<dyn Future<Output = Option<Link>> + 'a>>;

/// The receiver's front door.
pub struct Acceptor<'a> {
    endpoint: &'a Endpoint,
    identity: &'a Identity,
    handshakes: FuturesUnordered<Handshake<'a>>,
}

impl<'a> Acceptor<'a> {
    pub fn new(endpoint: &'a Endpoint, identity: &'a Identity) -> Self {
        Self { endpoint, identity, handshakes: FuturesUnordered::new() }
    }

    /// The next connection whose handshake succeeded in its time. Those that fail are told in the log alone: they are
    /// nobody yet. Cancel-safe.
    pub async fn next(&mut self) -> Outcome<Link> {
        loop {
            tokio::select! {
                incoming = self.endpoint.accept(), if self.handshakes.len() < HANDSHAKES_MAX => match incoming {
                    Some(incoming) => self.begin(incoming),
                    None => return Err(Failure::new(Code::Interrupted, "the endpoint was closed", "")),
                },
                Some(done) = self.handshakes.next() => if let Some(link) = done {
                    return Ok(link);
                },
            }
        }
    }

    fn begin(&self, incoming: Incoming) {
        if !incoming.remote_address_validated() && !is_link_local(incoming.remote_address()) {
            // Fails only for an address that is validated already.
            let _ = incoming.retry();
            return;
        }
        let (address, identity) = (incoming.remote_address(), self.identity);
        if let Ok(connecting) = incoming.accept() {
            self.handshakes.push(Box::pin(handshake(connecting, address, identity)));
        }
    }
}

/// quinn's tokens leave out the zone of an address (quinn-proto 0.11, `token.rs`), so that none for a link-local one is ever
/// valid. No router passes such an address on: only a host on the same link can pretend to have it.
fn is_link_local(address: SocketAddr) -> bool {
    matches!(address, SocketAddr::V6(v6) if v6.ip().is_unicast_link_local())
}

async fn handshake(connecting: Connecting, address: SocketAddr, identity: &Identity) -> Option<Link> {
    let judged = match timeout(HANDSHAKE_TIMEOUT, connecting).await {
        Ok(Ok(connection)) => Link::new(connection, identity, Role::Receiver),
        Ok(Err(error)) => Err(from_connection(Role::Receiver, &error)),
        Err(_) => Err(Failure::new(Code::TooSlow, "handshake", "")),
    };
    judged.inspect_err(|failure| tracing::warn!(%address, code = failure.code.word(), "connection refused")).ok()
}
