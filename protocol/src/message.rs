//! The control messages. Each is canonical CBOR behind a four-byte length on the one bidirectional
//! stream that the sender opens, after the [proof of the ticket](crate::ticket_proof):
//!
//! ```text
//! sender   → Proof     52 bytes, in ticket transfers: who holds the ticket's secret
//! sender   → Offer     what it wants to send, and under which grant
//! receiver → Accept    suite, sealing key, epoch, window, what it already has; signed over the transcript
//! sender   → Begin     key envelope and commitment; signed over the transcript
//! receiver → Ready     now, and not before, data may flow
//! receiver → Ack       chunks of a part verified, and durable
//! sender   → Finish    manifest, signed
//! receiver → Receipt   counter-signed
//! either   → Refuse    a code and a place, at any point; nothing follows it
//! ```
//!
//! The sender ends its side of the stream after it has checked the receipt: that is how the
//! receiver knows.

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

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Offer {
    #[n(0)]
    #[cbor(decode_with = "codec::bounded::<_, _, CHOICES_MAX>")]
    pub versions: Vec<u16>,
    /// In the order that the sender prefers. One that is not known here is skipped: so a new one
    /// can be offered beside those of before.
    #[n(1)]
    #[cbor(decode_with = "codec::bounded::<_, _, CHOICES_MAX>")]
    pub suites: Vec<SuiteNumber>,
    #[n(2)]
    pub grant: SignedGrant,
    #[n(3)]
    pub plan: Plan,
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    pub nonce: [u8; 32],
    /// The source is read from its beginning, and as of a new moment: what the receiver has of this
    /// transfer is to be dropped. Never a mix of two.
    #[n(5)]
    pub fresh: bool,
    /// By the sender's clock, since 1970. Times in grant, receipt and both audit logs are to mean
    /// the same.
    #[n(6)]
    pub now_seconds: u64,
}

/// What the allocator adds to a short text.
const TEXT_BYTES_MIN: usize = 32;

impl Offer {
    /// A bound on the memory that an offer takes, of which so many bytes of a message have come:
    /// the message in a buffer that doubles, its texts, its tables and its parts. The least table
    /// has five bytes and the least part three, and both become many times as many.
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
    #[n(0)]
    pub part: PartIndex,
    #[n(1)]
    pub verified: ChunkCount,
    #[n(2)]
    pub durable: ChunkCount,
    /// With its last chunk.
    #[n(3)]
    pub ended: bool,
    /// Root over the first `verified` chunks: by it a sender that reads the part again knows that
    /// it is the same.
    #[n(4)]
    pub root: Root,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AcceptBody {
    #[n(0)]
    pub version: u16,
    #[n(1)]
    pub suite: Suite,
    #[n(2)]
    pub sealing_key: SealingPublicKey,
    /// The epoch of this connection: one more than the last that this transfer had.
    #[n(3)]
    pub epoch: Epoch,
    /// Parts that may be in flight at once.
    #[n(4)]
    pub lanes: u16,
    /// Bytes of one part that may be unacknowledged; a chunk counts as its plaintext or its frame,
    /// whichever is more.
    #[n(5)]
    pub lane_window_bytes: u64,
    /// Parts of which anything is there already, in order; empty on a first connection.
    #[n(6)]
    #[cbor(decode_with = "codec::bounded::<_, _, PARTS_MAX>")]
    pub have: Vec<Have>,
    #[n(7)]
    #[cbor(with = "minicbor::bytes")]
    pub nonce: [u8; 32],
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Accept {
    #[n(0)]
    pub body: AcceptBody,
    #[n(1)]
    pub signature: Signature,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct BeginBody {
    #[n(0)]
    pub epoch: Epoch,
    #[n(1)]
    pub envelope: KeyEnvelope,
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub commitment: KeyCommitment,
    /// Of an earlier connection of this transfer, whose frames the sender goes on sending as they
    /// lie in its spool.
    #[n(3)]
    pub spool: Option<Box<EpochRecord>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Begin {
    #[n(0)]
    pub body: BeginBody,
    #[n(1)]
    pub signature: Signature,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Ready {
    /// The transcript up to and with Begin, as the receiver has it.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub transcript: [u8; 32],
}

/// How far a part has come. Counts never fall, and `durable` never exceeds `verified`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Ack {
    #[n(0)]
    pub part: PartIndex,
    #[n(1)]
    pub verified: ChunkCount,
    #[n(2)]
    pub durable: ChunkCount,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Refuse {
    #[n(0)]
    pub code: Code,
    #[n(1)]
    pub part: Option<PartIndex>,
    #[n(2)]
    pub chunk: Option<ChunkIndex>,
    /// The clock of the refusing side, since 1970, where that decided: the other side shows both.
    #[n(3)]
    pub now_seconds: Option<u64>,
    /// With `TicketBound`: the sender that the ticket is bound to.
    #[n(4)]
    pub bound: Option<Fingerprint>,
}

impl Refuse {
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
    #[n(1)]
    Offer(#[n(0)] Offer),
    #[n(2)]
    Accept(#[n(0)] Accept),
    #[n(3)]
    Begin(#[n(0)] Begin),
    #[n(4)]
    Ready(#[n(0)] Ready),
    #[n(5)]
    Ack(#[n(0)] Ack),
    #[n(6)]
    Finish(#[n(0)] SignedManifest),
    #[n(7)]
    Receipt(#[n(0)] Box<SignedReceipt>),
    #[n(8)]
    Refuse(#[n(0)] Refuse),
}

impl Message {
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        codec::decode(bytes, CONTROL_BYTES_MAX, "control message")
    }

    /// The message with its length in front, as it goes on the wire.
    pub fn to_frame(&self) -> Result<Vec<u8>> {
        let body = codec::encode(self);
        if body.len() > CONTROL_BYTES_MAX {
            return Err(Error::new(Code::LimitExceeded, "control message is too long to send"));
        }
        Ok([&(body.len() as u32).to_be_bytes()[..], &body].concat())
    }
}
