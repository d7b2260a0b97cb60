//! The link: a connection to the other agent, whose peer has proven to hold the key in its
//! certificate.
//!
//! This folder alone knows transports. [`Connection`] and the halves of a stream are closed enums
//! with a variant for each; what a transport's streams can do is in [`transport`], and what the end
//! of a connection or stream means to an agent in [`end`]. A second transport is a folder beside
//! `quic`, and a variant in each of these enums; nothing outside changes.

pub mod connection;
pub mod dial;
pub mod end;
pub mod quic;
pub mod socket;
pub mod stream;
mod tls;
pub mod transport;

use std::{net::SocketAddr, time::Duration};

use sealift_protocol::{
    certificate::Chain, close::Code, error::Error, fingerprint::Fingerprint, id::PartIndex, link_facts::LinkFacts,
    manifest::LinkEvidence, sign::PublicKey, ticket_proof::ProvenOn, transcript::Channel,
};

pub use self::{
    connection::Connection,
    dial::Dialer,
    quic::{
        acceptor::{Acceptor, Arrived},
        endpoint::{IDLE_TIMEOUT, Listener},
    },
};
use self::{
    end::{LinkEnd, StreamKind},
    stream::{Receiving, Sending, StreamIn, StreamOut},
};
use crate::{
    failure::{Failure, Outcome},
    identity::{Identity, certified_key},
    role::Role,
};

/// For a last word to arrive: some round trips of the slowest link.
pub(crate) const FAREWELL_TIMEOUT: Duration = Duration::from_secs(4);

/// RFC 9266: the exporter that binds a channel.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// A connection whose peer has proven to hold the key in its certificate, and what binds the
/// exchange to it.
pub struct Link {
    connection: Connection,
    role: Role,
    pub peer: PublicKey,
    pub channel: Channel,
    pub facts: LinkFacts,
}

impl Link {
    /// The link of the agent with this `identity` and `role` over a connection whose handshake is
    /// complete.
    pub(crate) fn new(connection: Connection, identity: &Identity, role: Role) -> Outcome<Self> {
        let refused = |what: &str| Failure::new(Code::IdentityRefused, format!("the peer's certificate: {what}"), "");
        let chain = connection.peer_chain().ok_or_else(|| refused("none"))?;
        let leaf = chain.first().ok_or_else(|| refused("none"))?;
        let peer = certified_key(leaf).ok_or_else(|| refused("its key"))?;
        let exporter = connection
            .export(EXPORTER_LABEL)
            .ok_or_else(|| Failure::from(Error::new(Code::TranscriptMismatch, "exporter")))?;
        let facts = connection.facts().ok_or_else(|| Failure::new(Code::Internal, "no TLS on the link", ""))?;
        let own = identity.leaf().to_vec();
        let other = leaf.to_vec();
        let (sender_certificate, receiver_certificate) = match role {
            Role::Sender => (own, other),
            Role::Receiver => (other, own),
        };
        let channel = Channel { exporter, sender_certificate, receiver_certificate };
        Ok(Self { connection, role, peer, channel, facts })
    }

    /// What a ticket's proof is bound to on this connection.
    pub fn proven_on(&self, own: &Identity, grant_hash: [u8; 32]) -> ProvenOn<'_> {
        let own = own.fingerprint();
        let peer = self.peer_fingerprint();
        let (sender, receiver) = match self.role {
            Role::Sender => (own, peer),
            Role::Receiver => (peer, own),
        };
        ProvenOn { exporter: &self.channel.exporter, sender, receiver, grant_hash }
    }

    /// Which end of the link this is.
    pub fn role(&self) -> Role {
        self.role
    }

    pub fn peer_fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.peer)
    }

    pub fn remote_address(&self) -> SocketAddr {
        match &self.connection {
            Connection::Quic(quic) => quic.remote_address(),
        }
    }

    /// The connection itself, for tests that attack at the level of packets.
    pub fn quic(&self) -> &quinn::Connection {
        match &self.connection {
            Connection::Quic(quic) => &quic.connection,
        }
    }

    /// What a receipt says of it.
    pub fn evidence(&self) -> LinkEvidence {
        LinkEvidence {
            facts: self.facts,
            sender: Chain::self_signed(&self.channel.sender_certificate),
            receiver: Chain::self_signed(&self.channel.receiver_certificate),
        }
    }

    /// Opens the control stream (the sender does). Waits while the peer allows none. Cancel-safe.
    pub async fn open_control(&self) -> Outcome<(StreamOut, StreamIn)> {
        let opened = match &self.connection {
            Connection::Quic(quic) => {
                quic.open_control().await.map(|(out, answers)| (Sending::Quic(out), Receiving::Quic(answers)))
            }
        };
        let (out, answers) = opened.map_err(|end| end.failure(self.role))?;
        Ok((self.sending(out, StreamKind::Control), self.receiving(answers, StreamKind::Control)))
    }

    /// Waits for the control stream (the receiver does). Cancel-safe.
    pub async fn accept_control(&self) -> Outcome<(StreamOut, StreamIn)> {
        let accepted = match &self.connection {
            Connection::Quic(quic) => {
                quic.accept_control().await.map(|(out, requests)| (Sending::Quic(out), Receiving::Quic(requests)))
            }
        };
        let (out, requests) = accepted.map_err(|end| end.failure(self.role))?;
        Ok((self.sending(out, StreamKind::Control), self.receiving(requests, StreamKind::Control)))
    }

    /// Opens a stream for a part (the sender does). Waits while the peer allows no more of them.
    /// What is ready of an earlier part goes out before that of a later one: parts of which each
    /// had a share of the link would become whole late, and a process that dies would lose most of
    /// them. Cancel-safe.
    pub async fn open_part(&self, part: PartIndex) -> Outcome<StreamOut> {
        let opened = match &self.connection {
            Connection::Quic(quic) => quic.open_part(part).await.map(Sending::Quic),
        };
        Ok(self.sending(opened.map_err(|end| end.failure(self.role))?, StreamKind::Part))
    }

    /// Waits for the next stream of a part (the receiver does). Cancel-safe.
    pub async fn accept_part(&self) -> Outcome<StreamIn> {
        let accepted = match &self.connection {
            Connection::Quic(quic) => quic.accept_part().await.map(Receiving::Quic),
        };
        Ok(self.receiving(accepted.map_err(|end| end.failure(self.role))?, StreamKind::Part))
    }

    fn sending(&self, stream: Sending, kind: StreamKind) -> StreamOut {
        StreamOut { stream, role: self.role, kind }
    }

    fn receiving(&self, stream: Receiving, kind: StreamKind) -> StreamIn {
        StreamIn { stream, role: self.role, kind }
    }

    /// Lets data come: an offer was accepted, and from now on the peer may have so many bytes in
    /// flight.
    pub fn open_data(&self, window_bytes: u64) {
        match &self.connection {
            Connection::Quic(quic) => quic.open_data(window_bytes),
        }
    }

    /// Resolves when what was sent is not acknowledged for too long, although packets may still
    /// arrive: this direction of the link is dead. Cancel-safe.
    pub async fn unanswered(&self) -> Failure {
        match &self.connection {
            Connection::Quic(quic) => quic.unanswered().await,
        }
        LinkEnd::TimedOut.failure(self.role)
    }

    /// As [`Connection::close`].
    pub fn close(&self, code: Code) {
        self.connection.close(code);
    }

    /// Closes after both have had everything, and stays for as long as a peer that missed the close
    /// would ask again.
    pub async fn leave(&self) {
        self.leave_with(Code::Done).await;
    }

    /// The same with any code, for a peer that waits for nothing but that code.
    pub async fn leave_with(&self, code: Code) {
        let stay = match &self.connection {
            Connection::Quic(quic) => quic.linger(),
        };
        self.close(code);
        tokio::time::sleep(stay.min(FAREWELL_TIMEOUT)).await;
    }

    /// Waits for the end of the connection. Cancel-safe.
    pub async fn closed(&self) -> LinkEnd {
        match &self.connection {
            Connection::Quic(quic) => quic.closed().await,
        }
    }

    /// Waits, at the end that opened the connection, until nothing of it has to leave any more.
    /// Cancel-safe.
    pub async fn wait_idle(&self) {
        match &self.connection {
            Connection::Quic(quic) => quic.wait_idle().await,
        }
    }
}
