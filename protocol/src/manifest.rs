//! What is to be sent ([`Plan`]), what was sent ([`Manifest`], signed by the sender), and what was
//! verified and loaded ([`Receipt`], which carries the manifest and is counter-signed by the
//! receiver).

mod checks;
mod engine;
mod evidence;
mod plan;
mod receipt;

use minicbor::{Decode, Encode};

pub use self::{
    checks::{CatalogueCheck, Check, CheckKind, Checked, CountedTable, ImageChecks, RowsCheck},
    engine::{Capabilities, Engine, ReadBack},
    evidence::{Evidence, Proof},
    plan::{Empty, Filtered, Plan, PlannedPart, PlannedTable, Range, RowsMoved, Section},
    receipt::{Authority, LinkEvidence, Receipt, SignedReceipt},
};
use crate::{
    audit_head::AuditHead,
    close::Code,
    codec,
    digest::{Root, RowsDigest},
    error::{Error, Result},
    id::{ChunkCount, PartIndex, TransferId},
    limits::{CHUNK_INDEX_MAX, CHUNK_PLAIN_BYTES_MAX, NAME_BYTES_MAX, PARTS_MAX, TABLES_MAX},
    sign::{PublicKey, Purpose, Signature, Signer},
};

/// One part as it was sent.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SentPart {
    /// The number of its chunks, at least 1.
    #[n(0)]
    pub chunks: ChunkCount,
    /// The bytes of its plaintext.
    #[n(1)]
    pub plain_bytes: u64,
    /// The root over the hashes of its chunks.
    #[n(2)]
    pub root: Root,
    /// The digest of its rows if it is a range of a table. The digests of whole tables are in
    /// [`Manifest::tables`].
    #[n(3)]
    pub rows: Option<RowsDigest>,
}

/// What was sent, as the sender states it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Manifest {
    /// The transfer that was sent.
    #[n(0)]
    pub transfer: TransferId,
    /// [`crate::grant::SignedGrant::hash`] of the grant it was sent under.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub grant_hash: [u8; 32],
    /// [`Plan::hash`] of the plan it was sent by.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub plan_hash: [u8; 32],
    /// The digest of each table of the plan, as its rows were sent.
    #[n(3)]
    #[cbor(decode_with = "codec::bounded::<_, _, TABLES_MAX>")]
    pub tables: Vec<RowsDigest>,
    /// Each part, in the order of the plan.
    #[n(4)]
    #[cbor(decode_with = "codec::bounded::<_, _, PARTS_MAX>")]
    pub parts: Vec<SentPart>,
    /// The root over the roots of the parts.
    #[n(5)]
    pub root: Root,
    /// Where the data came from.
    #[n(6)]
    pub origin: Origin,
    /// The head of the sender's audit log when it signed.
    #[n(7)]
    pub audit_head: Option<AuditHead>,
}

/// Why the sender trusted the receiver's key when the transfer began, as the sender states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum ReceiverTrust {
    /// The operator named the key.
    #[n(0)]
    Pinned,
    /// Only the ticket named the key, or the key file that the archive was sealed to.
    #[n(1)]
    Ticket,
}

impl ReceiverTrust {
    /// The name in logs and `--json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pinned => "pinned",
            Self::Ticket => "ticket",
        }
    }
}

/// Where the data came from, and why the sender trusted the receiver. Nothing but the sender's
/// signature supports it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Origin {
    /// Why the sender trusted the receiver's key.
    #[n(0)]
    pub receiver_trust: ReceiverTrust,
    /// The name of the source host, at most [`NAME_BYTES_MAX`] bytes.
    #[n(1)]
    pub host: String,
    /// The source without what may be secret (of a command, the program alone), at most
    /// [`NAME_BYTES_MAX`] bytes.
    #[n(2)]
    pub source: String,
}

impl Origin {
    /// Fails with `LimitExceeded` if a text is longer than [`NAME_BYTES_MAX`].
    pub fn check(&self) -> Result<()> {
        match self.host.len() <= NAME_BYTES_MAX && self.source.len() <= NAME_BYTES_MAX {
            true => Ok(()),
            false => Err(Error::new(Code::LimitExceeded, "name of the source or its host")),
        }
    }

    /// An origin without host and source, for tests and tools.
    pub fn unknown() -> Self {
        Self { receiver_trust: ReceiverTrust::Ticket, host: String::new(), source: String::new() }
    }
}

/// A manifest with the sender's signature over its canonical bytes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SignedManifest {
    /// What the sender sent.
    #[n(0)]
    pub manifest: Manifest,
    /// The sender's signature, with [`Purpose::Manifest`].
    #[n(1)]
    pub signature: Signature,
}

impl Manifest {
    /// Signs the canonical encoding.
    pub fn sign(self, signer: &dyn Signer) -> SignedManifest {
        let signature = signer.sign(Purpose::Manifest, &codec::encode(&self));
        SignedManifest { manifest: self, signature }
    }

    /// Checks that it fits this plan: the numbers of parts and tables, possible counts, and digests
    /// of ranges that add up to that of their table. Fails with `ManifestMismatch`.
    pub fn check(&self, plan: &Plan) -> Result<()> {
        let wrong = |check| Err(Error::new(Code::ManifestMismatch, check));
        if self.parts.len() != plan.parts.len() || self.tables.len() != plan.tables.len() {
            return wrong("number of parts or tables");
        }
        let mut ranges: Vec<Option<RowsDigest>> = vec![None; self.tables.len()];
        let mut bytes = vec![0u64; self.tables.len()];
        for ((sent, planned), index) in self.parts.iter().zip(&plan.parts).zip(0..) {
            let at_part = |error: Error| error.at_part(PartIndex(index));
            sent.check(planned).map_err(at_part)?;
            let Some(table) = planned.table.map(|table| table.0 as usize) else { continue };
            bytes[table] = bytes[table].saturating_add(sent.plain_bytes);
            if let Some(rows) = sent.rows {
                let merged = ranges[table].unwrap_or_default().merge(rows);
                let too_many = || at_part(Error::new(Code::ManifestMismatch, "more rows than can be counted"));
                ranges[table] = Some(merged.ok_or_else(too_many)?);
            }
        }
        for ((sent, ranges), bytes) in self.tables.iter().zip(ranges).zip(bytes) {
            if ranges.is_some_and(|sum| sum != *sent) {
                return wrong("ranges that do not add up to their table");
            }
            if sent.rows > bytes {
                return wrong("more rows than bytes");
            }
        }
        self.origin.check()
    }
}

impl SentPart {
    /// A row takes at least one byte, and the bytes fit into the chunks.
    fn check(&self, planned: &PlannedPart) -> Result<()> {
        let wrong = |check| Err(Error::new(Code::ManifestMismatch, check));
        if self.rows.is_some() != planned.range.is_some() {
            return wrong("digest of what is no range, or none of a range");
        }
        if !(1..=CHUNK_INDEX_MAX + 1).contains(&self.chunks.0) {
            return wrong("number of chunks");
        }
        if self.plain_bytes > self.chunks.0.saturating_mul(CHUNK_PLAIN_BYTES_MAX as u64) {
            return wrong("more bytes than the chunks hold");
        }
        match self.rows.is_some_and(|digest| digest.rows > self.plain_bytes) {
            true => wrong("more rows than bytes"),
            false => Ok(()),
        }
    }
}

impl SignedManifest {
    /// Verifies the signature with the sender's key; fails with `ManifestMismatch`.
    pub fn verify(&self, sender: &PublicKey) -> Result<()> {
        sender.verify(Purpose::Manifest, &codec::encode(&self.manifest), &self.signature, Code::ManifestMismatch)
    }
}
