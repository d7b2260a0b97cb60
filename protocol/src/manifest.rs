//! What is to be sent (plan), what was sent (manifest, signed by the sender), and what was verified and loaded
//! ([`receipt`], which carries the manifest and is counter-signed by the receiver).

mod receipt;

use minicbor::{Decode, Encode};

pub use self::receipt::{LoadedPart, Proof, Receipt, SignedReceipt};
use crate::{
    close::Code,
    codec,
    digest::Root,
    error::{Error, Result},
    id::{ChunkCount, TransferId},
    limits::{NAME_BYTES_MAX, PARTS_MAX, PLAN_BYTES_MAX},
    sign::{PublicKey, Purpose, Signature, Signer},
    sqlite::is_internal,
};

/// What a part's bytes are, which also says when it may be loaded: all of one kind before the next, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum PartKind {
    /// Bytes of a dump, a file or a program, which only the loader understands.
    #[n(0)]
    Opaque,
    /// Definitions that must exist before rows do.
    #[n(1)]
    Schema,
    /// Rows of one table.
    #[n(2)]
    Rows,
    /// Definitions that come after the rows: indexes, triggers, views.
    #[n(3)]
    Finish,
}

impl PartKind {
    /// How many kinds there are.
    pub(crate) const COUNT: usize = Self::Finish as usize + 1;
}

/// How the parts' bytes are to be understood. A source and a target must agree on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Engine {
    #[n(0)]
    Opaque,
    #[n(1)]
    Sqlite,
    /// The pages of a database, [`crate::image`].
    #[n(2)]
    SqliteImage,
}

impl Engine {
    /// The word for logs and `--json`.
    pub fn word(self) -> &'static str {
        match self {
            Engine::Opaque => "opaque",
            Engine::Sqlite => "sqlite",
            Engine::SqliteImage => "sqlite-image",
        }
    }
}

/// One part of the plan.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PlannedPart {
    #[n(0)]
    pub kind: PartKind,
    /// A table's name, or what the part is called; empty for an opaque dump.
    #[n(1)]
    pub name: String,
    /// How many rows, if the source can tell beforehand: for progress alone.
    #[n(2)]
    pub rows_estimate: Option<u64>,
    /// How many bytes, likewise.
    #[n(3)]
    pub bytes_estimate: Option<u64>,
}

/// What a transfer consists of. Part `n` of the transfer is `parts[n]`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Plan {
    #[n(0)]
    pub engine: Engine,
    #[n(1)]
    #[cbor(decode_with = "codec::bounded::<_, _, PARTS_MAX>")]
    pub parts: Vec<PlannedPart>,
    /// Whether there may be nothing to move: a receiver shows no load of nothing without it.
    #[n(2)]
    pub empty: Option<Empty>,
}

/// What the person who started the sender said about a source with nothing in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Empty {
    #[n(0)]
    Allowed,
}

impl Plan {
    /// The rules every plan keeps: bounded, not empty, kinds in loading order, an opaque dump alone.
    pub fn check(&self) -> Result<()> {
        let refused = |check| Err(Error::new(Code::PlanRefused, check));
        if self.parts.is_empty() || self.parts.len() > PARTS_MAX {
            return refused("number of parts");
        }
        if self.parts.iter().any(|part| part.name.len() > NAME_BYTES_MAX) {
            return refused("length of a part's name");
        }
        if codec::encode(self).len() > PLAN_BYTES_MAX {
            return refused("length of the plan");
        }
        if !self.parts.is_sorted_by_key(|part| part.kind) {
            return refused("order of parts");
        }
        let kinds_fit = match self.engine {
            Engine::Opaque | Engine::SqliteImage => self.parts.len() == 1 && self.parts[0].kind == PartKind::Opaque,
            Engine::Sqlite => {
                let count = |kind| self.parts.iter().filter(|part| part.kind == kind).count();
                count(PartKind::Opaque) == 0 && count(PartKind::Schema) == 1 && count(PartKind::Finish) == 1
            }
        };
        if kinds_fit { Ok(()) } else { refused("kinds of parts") }
    }

    /// Whether nothing is moved: not a byte of a dump, or a database without a table of its own.
    pub fn moves_nothing(&self, plain_bytes: u64) -> bool {
        match self.engine {
            Engine::Opaque => plain_bytes == 0,
            Engine::Sqlite => !self.parts.iter().any(|part| part.kind == PartKind::Rows && !is_internal(&part.name)),
            // Only who opens it can tell.
            Engine::SqliteImage => plain_bytes == 0,
        }
    }

    /// What a resumed transfer and the manifest call this plan by. Estimates do not count.
    pub fn hash(&self) -> [u8; 32] {
        let mut bare = self.clone();
        for part in &mut bare.parts {
            (part.rows_estimate, part.bytes_estimate) = (None, None);
        }
        blake3::derive_key("sealift/1 2026-11 plan hash", &codec::encode(&bare))
    }
}

/// One part as it was sent.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SentPart {
    #[n(0)]
    pub chunks: ChunkCount,
    #[n(1)]
    pub plain_bytes: u64,
    /// Root over its chunks' hashes.
    #[n(2)]
    pub root: Root,
    /// 0 where the part has no rows.
    #[n(3)]
    pub rows: u64,
    /// Multiset digest of its rows.
    #[n(4)]
    pub digest: Option<Root>,
}

/// What the sender says it sent.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Manifest {
    #[n(0)]
    pub transfer: TransferId,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub grant_hash: [u8; 32],
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub plan_hash: [u8; 32],
    #[n(3)]
    #[cbor(decode_with = "codec::bounded::<_, _, PARTS_MAX>")]
    pub parts: Vec<SentPart>,
    /// Root over the parts' roots.
    #[n(4)]
    pub root: Root,
    #[n(5)]
    pub origin: Origin,
}

/// What stood behind the receiver's key when the transfer began, as the sender says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum ReceiverTrust {
    /// The operator named the key.
    #[n(0)]
    Pinned,
    /// The ticket did, or the key file that an archive was sealed to, and nothing else.
    #[n(1)]
    Ticket,
}

impl ReceiverTrust {
    /// The word for logs and `--json`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pinned => "pinned",
            Self::Ticket => "ticket",
        }
    }
}

/// Where the data came from, and what the sender knew of the receiver. The sender's word: nobody else can check it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Origin {
    #[n(0)]
    pub receiver_trust: ReceiverTrust,
    /// Name of the source host.
    #[n(1)]
    pub host: String,
    /// The source without what may be secret: of a command its program alone.
    #[n(2)]
    pub source: String,
}

impl Origin {
    pub fn check(&self) -> Result<()> {
        match self.host.len() <= NAME_BYTES_MAX && self.source.len() <= NAME_BYTES_MAX {
            true => Ok(()),
            false => Err(Error::new(Code::LimitExceeded, "name of the source or its host")),
        }
    }

    /// Of a transfer of which nothing is known, for tests and tools.
    pub fn unknown() -> Self {
        Self { receiver_trust: ReceiverTrust::Ticket, host: String::new(), source: String::new() }
    }
}

/// A manifest with the sender's signature over its canonical bytes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SignedManifest {
    #[n(0)]
    pub manifest: Manifest,
    #[n(1)]
    pub signature: Signature,
}

impl Manifest {
    pub fn sign(self, signer: &dyn Signer) -> SignedManifest {
        let signature = signer.sign(Purpose::Manifest, &codec::encode(&self));
        SignedManifest { manifest: self, signature }
    }
}

impl SignedManifest {
    pub fn verify(&self, sender: &PublicKey) -> Result<()> {
        sender.verify(Purpose::Manifest, &codec::encode(&self.manifest), &self.signature, Code::ManifestMismatch)
    }
}
