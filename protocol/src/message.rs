//! The control messages. Each is canonical CBOR behind a four-byte length on the one bidirectional
//! stream that the sender opens, after the [proof of the ticket](crate::ticket_proof):
//!
//! ```text
//! sender   → Proof     52 bytes, in ticket transfers: who holds the ticket's secret
//! sender   → Offer     what it wants to send, and under which grant
//! receiver → Accept    suite, sealing key, epoch, window, what it has; signed over the transcript
//! sender   → Begin     key envelope and commitment; signed over the transcript
//! receiver → Ready     now, and not before, data may flow
//! receiver → Ack       chunks of a part verified, and durable
//! sender   → Finish    manifest, signed
//! receiver → Receipt   counter-signed
//! either   → Refuse    a code and a place, at any point; nothing follows it
//! ```
//!
//! The sender ends its side of the stream after it has checked the receipt, which tells the
//! receiver that the receipt has arrived.

use minicbor::{Decode, Encode};

use crate::{
    close::Code,
    codec,
    digest::Root,
    envelope::{KeyEnvelope, SealingPublicKey},
    error::{Error, Result},
    fingerprint::Fingerprint,
    grant::SignedGrant,
    id::{ChunkCount, ChunkIndex, Epoch, PartIndex},
    key::KeyCommitment,
    limits::{CHOICES_MAX, CONTROL_BYTES_MAX, PARTS_MAX, TABLES_MAX},
    manifest::{Plan, PlannedPart, PlannedTable, SignedManifest, SignedReceipt},
    seal::{Suite, SuiteNumber},
    sealed_log::EpochRecord,
    sign::Signature,
};

/// The version that this crate speaks; the ALPN `sealift/1` says the same.
pub const VERSION: u16 = 1;

/// ALPN protocol identifier (RFC 7301).
pub const ALPN: &[u8] = b"sealift/1";

/// What the sender wants to send, and under which grant.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Offer {
    /// The protocol versions that the sender speaks.
    #[n(0)]
    #[cbor(decode_with = "codec::bounded::<_, _, CHOICES_MAX>")]
    pub versions: Vec<u16>,
    /// The suites that the sender allows, in its order of preference. A receiver skips numbers that
    /// it does not know, so that a new suite can be offered beside the present ones.
    #[n(1)]
    #[cbor(decode_with = "codec::bounded::<_, _, CHOICES_MAX>")]
    pub suites: Vec<SuiteNumber>,
    /// The grant of the ticket.
    #[n(2)]
    pub grant: SignedGrant,
    /// What is to be sent. Estimates aside, it stays the same on every connection of a transfer.
    #[n(3)]
    pub plan: Plan,
    /// Random, so that no two transcripts are equal.
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    pub nonce: [u8; 32],
    /// The source is read from its beginning as of a new moment, so the receiver is to drop what it
    /// has of this transfer: two readings are never mixed.
    #[n(5)]
    pub fresh: bool,
    /// The sender's clock, in seconds since the Unix epoch. The receiver compares it with its own,
    /// so that times in grant, receipt and both audit logs mean the same.
    #[n(6)]
    pub now_seconds: u64,
}

/// The least memory that a text takes.
const TEXT_BYTES_MIN: usize = 32;

impl Offer {
    /// A bound on the memory that an offer takes when `message_bytes` of its message have arrived:
    /// the message in a buffer that doubles, its texts, its tables and its parts. The smallest
    /// encoded table has five bytes and the smallest part three; decoded they take many times as
    /// much.
    pub const fn memory_bytes(message_bytes: usize) -> usize {
        let table_bytes = size_of::<PlannedTable>() + 2 * TEXT_BYTES_MIN;
        let tables = at_most(message_bytes / 5, TABLES_MAX);
        let parts = at_most(message_bytes / 3, PARTS_MAX);
        3 * message_bytes + tables * table_bytes + parts * size_of::<PlannedPart>()
    }
}

const fn at_most(count: usize, most: usize) -> usize {
    if count < most { count } else { most }
}

/// How much of a part the receiver has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Have {
    /// The part concerned.
    #[n(0)]
    pub part: PartIndex,
    /// Chunks verified, from the first.
    #[n(1)]
    pub verified: ChunkCount,
    /// Chunks that no crash can lose, from the first; at most as many as `verified`.
    #[n(2)]
    pub durable: ChunkCount,
    /// Whether the part's last chunk is among the verified ones.
    #[n(3)]
    pub ended: bool,
    /// The root over the first `verified` chunks, with which a sender that reads the part again
    /// compares what it reads.
    #[n(4)]
    pub root: Root,
}

/// The terms on which the receiver accepts an Offer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AcceptBody {
    /// The chosen version, one of those offered.
    #[n(0)]
    pub version: u16,
    /// The chosen suite, one of those offered.
    #[n(1)]
    pub suite: Suite,
    /// The key to seal the envelope to: made for this transfer, the same on all its connections,
    /// and known to the sender by its fingerprint in the ticket.
    #[n(2)]
    pub sealing_key: SealingPublicKey,
    /// The epoch of this connection: one more than the last of this transfer, from 1.
    #[n(3)]
    pub epoch: Epoch,
    /// The number of parts that may be sent at once, 1 to [`crate::limits::LANES_MAX`].
    #[n(4)]
    pub lanes: u16,
    /// Bytes of one part that may be sent and not yet acknowledged as verified. A chunk counts as
    /// its plaintext or its frame, whichever is longer.
    #[n(5)]
    pub lane_window_bytes: u64,
    /// The parts of which the receiver has anything, in the order of the plan; empty on a first
    /// connection.
    #[n(6)]
    #[cbor(decode_with = "codec::bounded::<_, _, PARTS_MAX>")]
    pub have: Vec<Have>,
    /// Random, so that no two transcripts are equal.
    #[n(7)]
    #[cbor(with = "minicbor::bytes")]
    pub nonce: [u8; 32],
}

/// The receiver's answer to an Offer that passed every check.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Accept {
    /// What is signed, with the transcript.
    #[n(0)]
    pub body: AcceptBody,
    /// The receiver's, with [`crate::sign::Purpose::Accept`], over the transcript after the body.
    #[n(1)]
    pub signature: Signature,
}

/// The keys of the connection.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct BeginBody {
    /// The epoch of Accept.
    #[n(0)]
    pub epoch: Epoch,
    /// Epoch secret and digest secret, sealed to the key of Accept.
    #[n(1)]
    pub envelope: KeyEnvelope,
    /// The commitment to the epoch secret.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub commitment: KeyCommitment,
    /// The epoch record of the sender's spool, if it sends from one that an earlier connection
    /// began.
    #[n(3)]
    pub spool: Option<Box<EpochRecord>>,
}

/// The sender's answer to Accept.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Begin {
    /// What is signed, with the transcript.
    #[n(0)]
    pub body: BeginBody,
    /// The sender's, with [`crate::sign::Purpose::Begin`], over the transcript after the body.
    #[n(1)]
    pub signature: Signature,
}

/// The receiver has opened the envelope: data may flow.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Ready {
    /// The receiver's transcript after the body of Begin.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub transcript: [u8; 32],
}

/// The receiver's progress with a part. Counts never fall on one connection, and `durable` never
/// exceeds `verified`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Ack {
    /// The part concerned.
    #[n(0)]
    pub part: PartIndex,
    /// Chunks verified, from the first.
    #[n(1)]
    pub verified: ChunkCount,
    /// Chunks that no crash can lose, from the first.
    #[n(2)]
    pub durable: ChunkCount,
}

/// Why a side ends the connection. Nothing follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Refuse {
    /// The code, which is never [`Code::Done`].
    #[n(0)]
    pub code: Code,
    /// The part concerned, if one is.
    #[n(1)]
    pub part: Option<PartIndex>,
    /// The chunk concerned, if one is.
    #[n(2)]
    pub chunk: Option<ChunkIndex>,
    /// The clock of the refusing side, in seconds since the Unix epoch, if a clock decided; the
    /// other side shows both clocks.
    #[n(3)]
    pub now_seconds: Option<u64>,
    /// With `TicketBound`: the fingerprint of the sender that the ticket is bound to.
    #[n(4)]
    pub bound: Option<Fingerprint>,
}

impl Refuse {
    /// A refusal without a place.
    pub fn new(code: Code) -> Self {
        Self { code, part: None, chunk: None, now_seconds: None, bound: None }
    }
}

impl From<Error> for Refuse {
    fn from(error: Error) -> Self {
        Self { part: error.part, chunk: error.chunk, ..Self::new(error.code) }
    }
}

/// Any control message.
#[expect(clippy::large_enum_variant, reason = "one at a time: it is decoded, and taken apart at once")]
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Message {
    /// Sender to receiver, after the proof of the ticket.
    #[n(1)]
    Offer(#[n(0)] Offer),
    /// Receiver to sender, in answer to Offer.
    #[n(2)]
    Accept(#[n(0)] Accept),
    /// Sender to receiver, in answer to Accept.
    #[n(3)]
    Begin(#[n(0)] Begin),
    /// Receiver to sender, in answer to Begin.
    #[n(4)]
    Ready(#[n(0)] Ready),
    /// Receiver to sender, any number after Ready.
    #[n(5)]
    Ack(#[n(0)] Ack),
    /// Sender to receiver, once every chunk is acknowledged as verified.
    #[n(6)]
    Finish(#[n(0)] SignedManifest),
    /// Receiver to sender, once the load is proven and published.
    #[n(7)]
    Receipt(#[n(0)] Box<SignedReceipt>),
    /// Either side, at any point.
    #[n(8)]
    Refuse(#[n(0)] Refuse),
}

impl Message {
    /// Decodes a message without its length prefix: `LimitExceeded` over [`CONTROL_BYTES_MAX`] or a
    /// list's bound, else `ProtocolViolation`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        codec::decode(bytes, CONTROL_BYTES_MAX, "control message")
    }

    /// The message with its length prefix, as it is sent. Fails with `LimitExceeded` if it is too
    /// long.
    pub fn to_frame(&self) -> Result<Vec<u8>> {
        let body = codec::encode(self);
        if body.len() > CONTROL_BYTES_MAX {
            return Err(Error::new(Code::LimitExceeded, "control message is too long to send"));
        }
        Ok([&(body.len() as u32).to_be_bytes()[..], &body].concat())
    }
}
