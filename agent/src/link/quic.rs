//! The link over QUIC (RFC 9000). Every type of quinn stays inside this folder.

pub mod acceptor;
mod congestion;
pub mod dial;
pub mod endpoint;
mod stream;
pub mod tls_session;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use quinn::{ConnectionError, VarInt};
use rustls_pki_types::CertificateDer;
use sealift_protocol::{close::Code, id::PartIndex, limits::STREAMS_MAX, link_facts::LinkFacts};

use self::endpoint::receive_window;
pub(super) use self::stream::{QuicReceive, QuicSend};
use super::end::LinkEnd;

/// For the last packet to leave, on a machine that is busy.
const LEAVE_MIN: Duration = Duration::from_millis(20);
/// The packet's way, the peer's question, and the answer.
const LEAVE_ROUND_TRIPS: u32 = 3;

/// For an acknowledgement of anything: with the time between two looks, a dead direction is noticed
/// within ten seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A connection, and at the end that opened it the endpoint that was made for it.
#[derive(Clone)]
pub struct QuicConnection {
    pub connection: quinn::Connection,
    endpoint: Option<quinn::Endpoint>,
}

impl QuicConnection {
    pub(super) fn new(connection: quinn::Connection, endpoint: Option<quinn::Endpoint>) -> Self {
        Self { connection, endpoint }
    }

    pub(super) fn peer_chain(&self) -> Option<Vec<CertificateDer<'static>>> {
        let chain = self.connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>();
        chain.ok().map(|chain| *chain)
    }

    pub(super) fn export(&self, label: &[u8]) -> Option<[u8; 32]> {
        let mut exporter = [0; 32];
        self.connection.export_keying_material(&mut exporter, label, &[]).ok().map(|()| exporter)
    }

    pub(super) fn remote_address(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    pub(super) fn facts(&self) -> Option<LinkFacts> {
        self.connection.handshake_data()?.downcast::<LinkFacts>().ok().map(|facts| *facts)
    }

    pub(super) async fn open_control(&self) -> Result<(QuicSend, QuicReceive), LinkEnd> {
        let opened = self.connection.open_bi().await.map_err(|error| end_of(&error))?;
        Ok((QuicSend(opened.0), QuicReceive(opened.1)))
    }

    pub(super) async fn accept_control(&self) -> Result<(QuicSend, QuicReceive), LinkEnd> {
        let accepted = self.connection.accept_bi().await.map_err(|error| end_of(&error))?;
        Ok((QuicSend(accepted.0), QuicReceive(accepted.1)))
    }

    pub(super) async fn open_part(&self, part: PartIndex) -> Result<QuicSend, LinkEnd> {
        let stream = self.connection.open_uni().await.map_err(|error| end_of(&error))?;
        // The control stream has 0, which comes before all parts. Fails only for a stream that has
        // ended.
        let _ = stream.set_priority(-1 - part.0 as i32);
        Ok(QuicSend(stream))
    }

    pub(super) async fn accept_part(&self) -> Result<QuicReceive, LinkEnd> {
        self.connection.accept_uni().await.map(QuicReceive).map_err(|error| end_of(&error))
    }

    pub(super) fn open_data(&self, window_bytes: u64) {
        self.connection.set_receive_window(receive_window(window_bytes));
        self.connection.set_max_concurrent_uni_streams(u32::from(STREAMS_MAX).into());
    }

    /// QUIC's own idle timeout restarts with each packet that is received, and so may never
    /// come.
    pub(super) async fn unanswered(&self) {
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
                acks = acks_now;
                asked = asked_now;
                since = None;
            } else if asked_now != asked && since.get_or_insert_with(Instant::now).elapsed() >= ANSWER_TIMEOUT {
                return;
            }
        }
    }

    pub(super) fn close(&self, code: Code) {
        self.connection.close(number(code), b"");
    }

    /// How long to stay after a close for a peer that missed it and asks again. RFC 9000, 10.2, has
    /// a closed connection linger for three times its probe timeout, most of which is there for
    /// delayed acknowledgements, and none is outstanding.
    pub(super) fn linger(&self) -> Duration {
        LEAVE_MIN.max(LEAVE_ROUND_TRIPS * self.connection.rtt())
    }

    pub(super) async fn closed(&self) -> LinkEnd {
        end_of(&self.connection.closed().await)
    }

    pub(super) async fn wait_idle(&self) {
        if let Some(endpoint) = &self.endpoint {
            endpoint.wait_idle().await;
        }
    }
}

fn number(code: Code) -> VarInt {
    VarInt::from_u32(code.number().into())
}

/// RFC 9000, 20.1: how QUIC closes for an application before the handshake is complete (10.2.3),
/// without its code.
const APPLICATION_ERROR: u64 = 0x0c;

/// Why a connection is over, in terms of no transport.
pub fn end_of(error: &ConnectionError) -> LinkEnd {
    match error {
        ConnectionError::ApplicationClosed(close) => LinkEnd::Closed(Code::from_number(close.error_code.into_inner())),
        ConnectionError::TransportError(error) => {
            alert_in(error.code.into()).map_or(LinkEnd::Violation, LinkEnd::AlertSent)
        }
        ConnectionError::ConnectionClosed(close) => match u64::from(close.error_code) {
            APPLICATION_ERROR => LinkEnd::ClosedInHandshake,
            code => alert_in(code).map_or(LinkEnd::Gone, LinkEnd::AlertReceived),
        },
        ConnectionError::VersionMismatch => LinkEnd::NoCommonTransport,
        ConnectionError::TimedOut => LinkEnd::TimedOut,
        ConnectionError::LocallyClosed => LinkEnd::ClosedHere,
        ConnectionError::Reset => LinkEnd::Gone,
        ConnectionError::CidsExhausted => LinkEnd::Violation,
    }
}

/// The TLS alert in a transport error code (RFC 9001, 4.8).
fn alert_in(code: u64) -> Option<u8> {
    if code & !0xff == 0x100 { u8::try_from(code & 0xff).ok() } else { None }
}
