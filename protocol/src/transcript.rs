//! The transcript of an exchange, as a running hash (`docs/protocol.md`, section 5.1). It covers
//! the TLS exporter, both certificates and every message of the exchange so far, so that a message
//! spliced into another connection, transfer or role is never accepted.

use crate::{grant::SignedGrant, sealed_log::LogHeader};

/// What binds the exchange to its TLS connection. The agents read it from the connection; the
/// simulator makes it up.
#[derive(Clone)]
pub struct Channel {
    /// RFC 9266 channel binding: exporter label `EXPORTER-Channel-Binding`, empty context.
    pub exporter: [u8; 32],
    /// DER of the sender's own certificate.
    pub sender_certificate: Vec<u8>,
    /// DER of the receiver's own certificate.
    pub receiver_certificate: Vec<u8>,
}

/// BLAKE3 in key-derivation mode over length-prefixed items.
#[derive(Clone)]
pub struct Transcript(blake3::Hasher);

/// The transcript at one point, 32 bytes.
pub type TranscriptHash = [u8; 32];

impl Transcript {
    /// The transcript before Offer: exporter, both certificates, hash of the grant.
    pub fn new(channel: &Channel, grant: &SignedGrant) -> Self {
        let mut transcript = Self(blake3::Hasher::new_derive_key("sealift/1 2026-11 transcript"));
        transcript.absorb(&channel.exporter);
        transcript.absorb(&channel.sender_certificate);
        transcript.absorb(&channel.receiver_certificate);
        transcript.absorb(&grant.hash());
        transcript
    }

    /// The transcript of an archive, which starts with the header of the log, whose salt is random,
    /// in place of a connection.
    pub fn of_archive(header: &LogHeader) -> Self {
        let mut transcript = Self(blake3::Hasher::new_derive_key("sealift/1 2026-11 archive transcript"));
        transcript.absorb(&header.to_bytes());
        transcript
    }

    /// Adds one item: its length as 8 bytes big-endian, then its bytes.
    pub fn absorb(&mut self, item: &[u8]) {
        self.0.update(&(item.len() as u64).to_be_bytes());
        self.0.update(item);
    }

    /// The hash of all items so far; more may follow.
    pub fn hash(&self) -> TranscriptHash {
        *self.0.finalize().as_bytes()
    }
}
