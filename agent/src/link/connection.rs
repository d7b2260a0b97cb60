//! A connection of any of the transports, whose peer has not proven anything yet.

use rustls_pki_types::CertificateDer;
use sealift_protocol::{close::Code, link_facts::LinkFacts};

use super::quic;

/// A connection over one of the transports.
#[derive(Clone)]
pub enum Connection {
    Quic(quic::QuicConnection),
}

impl Connection {
    /// Closes with a code and no text. The peer learns it even if its control stream is busy.
    pub fn close(&self, code: Code) {
        match self {
            Self::Quic(quic) => quic.close(code),
        }
    }

    /// The peer's certificates, its own first.
    pub(super) fn peer_chain(&self) -> Option<Vec<CertificateDer<'static>>> {
        match self {
            Self::Quic(quic) => quic.peer_chain(),
        }
    }

    /// What the transport and TLS agreed on.
    pub(super) fn facts(&self) -> Option<LinkFacts> {
        match self {
            Self::Quic(quic) => quic.facts(),
        }
    }

    /// Keying material of the TLS session (RFC 8446, 7.5).
    pub(super) fn export(&self, label: &[u8]) -> Option<[u8; 32]> {
        match self {
            Self::Quic(quic) => quic.export(label),
        }
    }
}
