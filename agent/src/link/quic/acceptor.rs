//! Lets senders in: validates addresses by Retry and runs handshakes side by side, so that one that
//! stalls does not delay others. [`crate::admission`] decides how many there may be.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Weak},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use quinn::{ConnectionError, Incoming, ZeroRttAccepted};
use sealift_protocol::close::Code;
use tokio::{sync::watch, task::yield_now, time::timeout};

use super::{
    QuicConnection, end_of,
    endpoint::{Accepting, Listener, tracked},
};
use crate::{
    admission::{Stage, host},
    credentials::Current,
    door::{Door, Slot},
    failure::{Failure, Outcome},
    identity::Identity,
    link::{self, Link},
    role::Role,
};

/// Peers with a validated address whose handshake has not begun. They wait only where the processor
/// is too slow for all of them, and then a long queue would make all wait for so long that none is
/// served in time.
const WAITING_MAX: usize = 32;

/// How many first packets are looked at for each handshake that begins while both wait. One costs a
/// hundredth of the other, so that a flood that is faster than this processor has at most half of
/// it, and those whose address is validated have the rest.
const SORTED_FOR_A_HANDSHAKE: usize = 100;

type Handshake = Pin<Box<dyn Future<Output = Option<Arrived>>>>;

/// A connection whose handshake is complete, and the place that it has here.
pub struct Arrived {
    pub link: Link,
    pub slot: Slot,
}

/// The receiver's front door at one address.
pub struct Acceptor<'a> {
    listener: &'a Listener,
    accepting: Accepting,
    credentials: watch::Receiver<Current>,
    door: Door,
    waiting: VecDeque<Incoming>,
    /// First packets that were looked at since a handshake began.
    sorted: usize,
    handshakes: FuturesUnordered<Handshake>,
}

impl<'a> Acceptor<'a> {
    /// Accepts what comes to `listener`, within the bounds of `door`.
    pub fn new(listener: &'a Listener, door: &Door) -> Outcome<Self> {
        let (accepting, credentials) = listener.accepting()?;
        let waiting = VecDeque::new();
        let handshakes = FuturesUnordered::new();
        Ok(Self { listener, accepting, credentials, door: door.clone(), waiting, sorted: 0, handshakes })
    }

    /// The next connection whose handshake succeeded in its time. Those that fail are counted, and
    /// nothing else: they have no identity yet. Cancel-safe.
    pub async fn next(&mut self) -> Outcome<Arrived> {
        loop {
            let is_due = self.sorted >= SORTED_FOR_A_HANDSHAKE && !self.waiting.is_empty();
            tokio::select! {
                biased;
                Some(done) = self.handshakes.next() => if let Some(arrived) = done {
                    return Ok(arrived);
                },
                () = yield_now(), if is_due => self.begin_next()?,
                incoming = self.listener.endpoint.accept(), if !is_due => match incoming {
                    Some(incoming) => self.sort(incoming),
                    None => return Err(Failure::new(Code::Interrupted, "the endpoint was closed", "")),
                },
                // The thread is that of everything else, too.
                () = yield_now(), if !self.waiting.is_empty() => self.begin_next()?,
            }
        }
    }

    /// Asks for a proof of the address. Who has given it waits for a handshake; of too many, the
    /// oldest of the address that has most of them is dropped, and tries again if it is honest.
    fn sort(&mut self, incoming: Incoming) {
        self.sorted = self.sorted.saturating_add(1);
        if !incoming.remote_address_validated() && !is_link_local(incoming.remote_address()) {
            // Fails only for an address that is validated already.
            let _ = incoming.retry();
            return;
        }
        self.waiting.push_back(incoming);
        if self.waiting.len() > WAITING_MAX
            && let Some(dropped) = self.most_crowded().and_then(|at| self.waiting.remove(at))
        {
            dropped.ignore();
        }
    }

    fn most_crowded(&self) -> Option<usize> {
        let addresses: Vec<_> = self.waiting.iter().map(|incoming| host(incoming.remote_address().ip())).collect();
        let count = |address| addresses.iter().filter(|other| **other == address).count();
        // Of equal ones the last that is looked at is taken, which is the oldest.
        (0..addresses.len()).rev().max_by_key(|&at| count(addresses[at]))
    }

    fn begin_next(&mut self) -> Outcome {
        self.sorted = 0;
        // If nothing is left to renew them, those that are here stay in use.
        if self.credentials.has_changed().unwrap_or(false) {
            (self.accepting, self.credentials) = self.listener.accepting()?;
        }
        let Some(incoming) = self.waiting.pop_front() else { return Ok(()) };
        let Some(slot) = self.door.arrive(incoming.remote_address().ip()) else {
            incoming.ignore();
            return Ok(());
        };
        let (config, left) = tracked(&self.accepting.config);
        // A server's connection is there at once, as RFC 9001, 5.7, lets it send at once, which
        // this one does not. It is what an eviction closes.
        match incoming.accept_with(config).map(quinn::Connecting::into_0rtt) {
            Ok(Ok((connection, complete))) => {
                let connection = QuicConnection::new(connection, None);
                slot.hold(Some(link::Connection::Quic(connection.clone())), left);
                let identity = Arc::clone(&self.accepting.identity);
                self.handshakes.push(Box::pin(handshake(connection, complete, slot, identity)));
            }
            Ok(Err(_)) => refuse(&slot, left, Code::ProtocolViolation),
            // A peer that has waited for longer than a connection may be silent is not at fault.
            Err(error) => refuse(&slot, left, end_of(&error).failure(Role::Receiver).code),
        }
        Ok(())
    }
}

/// The connection never came about.
fn refuse(slot: &Slot, left: Weak<()>, code: Code) {
    slot.hold(None, left);
    slot.refuse(code);
}

/// quinn's tokens leave out the zone of an address (quinn-proto 0.11, `token.rs`), so that none for
/// a link-local one is ever valid. No router passes such an address on: only a host on the same
/// link can pretend to have it.
fn is_link_local(address: SocketAddr) -> bool {
    matches!(address, SocketAddr::V6(v6) if v6.ip().is_unicast_link_local())
}

/// Completes a handshake within its time, or counts why it failed. Not cancel-safe: dropped, the
/// connection is closed.
async fn handshake(
    connection: QuicConnection,
    complete: ZeroRttAccepted,
    slot: Slot,
    identity: Arc<Identity>,
) -> Option<Arrived> {
    let refused = match timeout(Stage::Handshake.limits().time, complete).await {
        Ok(_) => match connection.connection.close_reason() {
            // It was evicted, and counted then.
            Some(ConnectionError::LocallyClosed) => return None,
            Some(error) => end_of(&error).failure(Role::Receiver),
            None => match Link::new(link::Connection::Quic(connection), &identity, Role::Receiver) {
                Ok(link) => {
                    slot.advance(Stage::Unproven, link.peer.0);
                    return Some(Arrived { link, slot });
                }
                Err(failure) => failure,
            },
        },
        Err(_) => Failure::new(Code::TooSlow, "handshake", ""),
    };
    slot.refuse(refused.code);
    None
}
