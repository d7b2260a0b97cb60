//! TLS of a QUIC connection, as quinn has it, but for two things: what was agreed can be read from
//! it, and a handshake that fails says so by its alert alone, without the text that quinn would
//! send along.
//!
//! The packets that come before any key is agreed (Initial, Retry) are protected with published
//! keys (RFC 9001, 5.2 and 5.8): these are left to a session of quinn's own.

use std::{any::Any, io, sync::Arc};

use quinn_proto::{
    ConnectError, ConnectionId, Side, TransportError, TransportErrorCode,
    crypto::{
        self, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, Session, UnsupportedVersion,
        rustls::{QuicClientConfig, QuicServerConfig},
    },
    transport_parameters::TransportParameters,
};
use rustls::quic::{self, ClientConnection, Connection, KeyChange, Secrets, ServerConnection, Version};
use rustls_pki_types::{CertificateDer, ServerName};
use sealift_protocol::link_facts::{CipherSuite, KeyExchangeGroup, LinkFacts, TlsVersion, Transport};

/// The one version of QUIC that an endpoint speaks.
const VERSION: Version = Version::V1;

/// A client's TLS.
pub struct TlsClient {
    pub tls: Arc<rustls::ClientConfig>,
    pub quinn: Arc<QuicClientConfig>,
}

/// A server's TLS.
pub struct TlsServer {
    pub tls: Arc<rustls::ServerConfig>,
    pub quinn: Arc<QuicServerConfig>,
}

impl crypto::ClientConfig for TlsClient {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        parameters: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        let name = ServerName::try_from(server_name).map_err(|_| invalid_name(server_name))?.to_owned();
        let connection = ClientConnection::new(Arc::clone(&self.tls), VERSION, name, encode(parameters))
            .map_err(|_| invalid_name(server_name))?;
        let quinn = Arc::clone(&self.quinn).start_session(version, server_name, parameters)?;
        Ok(Box::new(TlsSession::new(Connection::Client(connection), quinn)))
    }
}

fn invalid_name(name: &str) -> ConnectError {
    ConnectError::InvalidServerName(name.to_owned())
}

impl crypto::ServerConfig for TlsServer {
    fn initial_keys(&self, version: u32, destination: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        self.quinn.initial_keys(version, destination)
    }

    fn retry_tag(&self, version: u32, original: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.quinn.retry_tag(version, original, packet)
    }

    fn start_session(self: Arc<Self>, version: u32, parameters: &TransportParameters) -> Box<dyn Session> {
        let quinn = Arc::clone(&self.quinn).start_session(version, parameters);
        let connection = ServerConnection::new(Arc::clone(&self.tls), VERSION, encode(parameters));
        let connection =
            connection.expect("a configuration that was made for TLS 1.3, which is all that can fail here");
        Box::new(TlsSession::new(Connection::Server(connection), quinn))
    }
}

fn encode(parameters: &TransportParameters) -> Vec<u8> {
    let mut bytes = Vec::new();
    parameters.write(&mut bytes);
    bytes
}

struct TlsSession {
    tls: Connection,
    /// For packets under published keys, and for nothing else: it never sees a handshake.
    quinn: Box<dyn Session>,
    told: bool,
    next_secrets: Option<Secrets>,
}

impl TlsSession {
    fn new(tls: Connection, quinn: Box<dyn Session>) -> Self {
        Self { tls, quinn, told: false, next_secrets: None }
    }

    fn facts(&self) -> Option<LinkFacts> {
        Some(LinkFacts {
            transport: Transport::Quic,
            tls_version: TlsVersion(self.tls.protocol_version()?.into()),
            group: KeyExchangeGroup(self.tls.negotiated_key_exchange_group()?.name().into()),
            cipher_suite: CipherSuite(self.tls.negotiated_cipher_suite()?.suite().into()),
        })
    }
}

fn boxed(keys: quic::PacketKeySet) -> KeyPair<Box<dyn PacketKey>> {
    KeyPair { local: Box::new(keys.local), remote: Box::new(keys.remote) }
}

impl Session for TlsSession {
    fn initial_keys(&self, destination: &ConnectionId, side: Side) -> Keys {
        self.quinn.initial_keys(destination, side)
    }

    /// [`LinkFacts`], once they are agreed.
    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.facts().map(|facts| -> Box<dyn Any> { Box::new(facts) })
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        let chain = self.tls.peer_certificates()?;
        let chain: Vec<CertificateDer<'static>> = chain.iter().map(|one| one.clone().into_owned()).collect();
        Some(Box::new(chain))
    }

    /// There is no 0-RTT.
    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        None
    }

    fn early_data_accepted(&self) -> Option<bool> {
        match self.tls {
            Connection::Client(_) => Some(false),
            Connection::Server(_) => None,
        }
    }

    fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        if self.tls.read_hs(bytes).is_err() {
            let code = self
                .tls
                .alert()
                .map_or(TransportErrorCode::PROTOCOL_VIOLATION, |alert| TransportErrorCode::crypto(alert.into()));
            return Err(TransportError { code, frame: None, reason: String::new() });
        }
        let is_news = !self.told && self.facts().is_some();
        self.told |= is_news;
        Ok(is_news)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        let side = match self.tls {
            Connection::Client(_) => Side::Client,
            Connection::Server(_) => Side::Server,
        };
        let Some(bytes) = self.tls.quic_transport_parameters() else { return Ok(None) };
        Ok(Some(TransportParameters::read(side, &mut io::Cursor::new(bytes))?))
    }

    fn write_handshake(&mut self, out: &mut Vec<u8>) -> Option<Keys> {
        let keys = match self.tls.write_hs(out)? {
            KeyChange::Handshake { keys } => keys,
            KeyChange::OneRtt { keys, next } => {
                self.next_secrets = Some(next);
                keys
            }
        };
        Some(Keys {
            header: KeyPair { local: Box::new(keys.local.header), remote: Box::new(keys.remote.header) },
            packet: KeyPair { local: Box::new(keys.local.packet), remote: Box::new(keys.remote.packet) },
        })
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.next_secrets.as_mut().map(|secrets| boxed(secrets.next_packet_keys()))
    }

    fn is_valid_retry(&self, original: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.quinn.is_valid_retry(original, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        let exported = self.tls.export_keying_material(output, label, Some(context));
        exported.map(drop).map_err(|_| ExportKeyingMaterialError)
    }
}
