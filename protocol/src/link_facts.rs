//! The facts of an authenticated link. Each end reads them from its own connection, so that receipt
//! and audit log state what was negotiated and not what was configured.

use std::fmt;

use minicbor::{Decode, Encode};

/// The facts of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LinkFacts {
    /// What carries TLS.
    #[n(0)]
    pub transport: Transport,
    /// The negotiated version.
    #[n(1)]
    pub tls_version: TlsVersion,
    /// The group of the key exchange.
    #[n(2)]
    pub group: KeyExchangeGroup,
    /// The cipher suite of TLS; that of the chunks is [`crate::seal::Suite`].
    #[n(3)]
    pub cipher_suite: CipherSuite,
}

impl LinkFacts {
    /// Whether `docs/protocol.md`, section 2, allows it: TLS 1.3, a hybrid key exchange, and one of
    /// the two cipher suites.
    pub fn is_allowed(&self) -> bool {
        self.tls_version == TlsVersion(0x0304)
            && [0x11eb, 0x11ec].contains(&self.group.0)
            && [0x1302, 0x1303].contains(&self.cipher_suite.0)
    }
}

/// What carries TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Transport {
    /// QUIC version 1, RFC 9000.
    #[n(0)]
    Quic,
}

/// A ProtocolVersion of TLS (RFC 8446, 4.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct TlsVersion(#[n(0)] pub u16);

/// A number of IANA's registry "TLS Supported Groups".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct KeyExchangeGroup(#[n(0)] pub u16);

/// A number of IANA's registry "TLS Cipher Suites".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct CipherSuite(#[n(0)] pub u16);

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quic => f.write_str("QUIC version 1"),
        }
    }
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0x0304 => f.write_str("TLS 1.3"),
            other => write!(f, "TLS 0x{other:04x}"),
        }
    }
}

impl fmt::Display for KeyExchangeGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0x11eb => f.write_str("SecP256r1MLKEM768"),
            0x11ec => f.write_str("X25519MLKEM768"),
            other => write!(f, "group 0x{other:04x}"),
        }
    }
}

impl fmt::Display for CipherSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0x1302 => f.write_str("TLS_AES_256_GCM_SHA384"),
            0x1303 => f.write_str("TLS_CHACHA20_POLY1305_SHA256"),
            other => write!(f, "cipher suite 0x{other:04x}"),
        }
    }
}

impl fmt::Display for LinkFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { transport, tls_version, group, cipher_suite } = self;
        write!(f, "{transport}, {tls_version}, {cipher_suite}, {group}")
    }
}
