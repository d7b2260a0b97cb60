//! What is to be sent (plan), what was sent (manifest, signed by the sender), and what was verified and loaded (receipt,
//! which carries the manifest and is counter-signed by the receiver).

use minicbor::{Decode, Encode};

use crate::{
    close::Code,
    codec,
    digest::Root,
    error::{Error, Result},
    fingerprint::Fingerprint,
    grant::SignedGrant,
    id::{ChunkCount, TransferId},
    image::ImageChecks,
    limits::{CONTROL_BYTES_MAX, NAME_BYTES_MAX, PARTS_MAX, PLAN_BYTES_MAX},
    seal::Suite,
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

/// How the receiver knows that what it loaded is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Proof {
    /// Every table was read again from the target, counted and digested.
    #[n(0)]
    ReadAgain,
    /// The loader took every verified byte and ended with exit code 0.
    #[n(1)]
    LoaderExit,
    /// Every verified byte was written and synced to a file, or to a pipe.
    #[n(2)]
    Written,
    /// Everything was verified and nothing loaded, as asked.
    #[n(3)]
    Discarded,
    /// Every page was read again from the target and compared, and the engine checked the database.
    #[n(4)]
    PagesReadAgain,
}

impl Proof {
    /// The word for `--json`.
    pub fn word(self) -> &'static str {
        match self {
            Proof::ReadAgain => "read_again",
            Proof::LoaderExit => "loader_exit",
            Proof::Written => "written",
            Proof::Discarded => "discarded",
            Proof::PagesReadAgain => "pages_read_again",
        }
    }
}

/// One part as it was found in the target.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LoadedPart {
    #[n(0)]
    pub rows: u64,
    /// Recomputed from the target where it can be read again: the digest of a table, or the root of an image.
    #[n(1)]
    pub digest: Option<Root>,
    /// What else was found in an image.
    #[n(2)]
    pub image: Option<ImageChecks>,
}

impl LoadedPart {
    /// A part that is not read again.
    pub fn bare() -> Self {
        Self { rows: 0, digest: None, image: None }
    }

    /// A table as it was read again.
    pub fn table(rows: u64, digest: Root) -> Self {
        Self { rows, digest: Some(digest), image: None }
    }
}

/// What the receiver says it verified and loaded.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Receipt {
    #[n(0)]
    pub manifest: SignedManifest,
    #[n(1)]
    pub plan: Plan,
    #[n(2)]
    #[cbor(decode_with = "codec::bounded::<_, _, PARTS_MAX>")]
    pub loaded: Vec<LoadedPart>,
    #[n(3)]
    pub proof: Proof,
    #[n(4)]
    pub grant: SignedGrant,
    #[n(5)]
    pub sender_key: PublicKey,
    #[n(6)]
    pub receiver_key: PublicKey,
    #[n(7)]
    pub suite: Suite,
    /// What the connection's TLS had agreed on, for people.
    #[n(8)]
    pub tls: String,
    /// Milliseconds since the Unix epoch by the receiver's clock.
    #[n(9)]
    pub started_ms: u64,
    #[n(10)]
    pub finished_ms: u64,
    /// Version of the receiver.
    #[n(11)]
    pub software: String,
}

/// A receipt with the receiver's signature over its canonical bytes, which include the sender's signed manifest.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SignedReceipt {
    #[n(0)]
    pub receipt: Receipt,
    #[n(1)]
    pub signature: Signature,
}

impl Receipt {
    pub fn sign(self, signer: &dyn Signer) -> SignedReceipt {
        let signature = signer.sign(Purpose::Receipt, &codec::encode(&self));
        SignedReceipt { receipt: self, signature }
    }

    /// That the grant is for these two agents, and one of them signed it: the receiver that of a ticket, the sender that of
    /// an archive.
    fn check_grant(&self) -> Result<()> {
        self.grant.verify(&[self.receiver_key, self.sender_key])?;
        let grant = &self.grant.grant;
        let foreign = |check| Err(Error::new(Code::GrantForeign, check));
        if grant.receiver != Fingerprint::of(&self.receiver_key) {
            return foreign("receiver of the grant");
        }
        match grant.sender {
            Some(sender) if sender != Fingerprint::of(&self.sender_key) => foreign("sender of the grant"),
            _ => Ok(()),
        }
    }

    /// That what was loaded is what was sent: the same parts, and for each part with rows the same count and digest. A
    /// database is always read again, or was read and discarded as asked.
    pub fn check_loaded(&self) -> Result<()> {
        let sent = &self.manifest.manifest.parts;
        if self.loaded.len() != sent.len() || self.plan.parts.len() != sent.len() {
            return Err(Error::new(Code::TargetMismatch, "number of parts"));
        }
        if self.plan.engine == Engine::Sqlite && !matches!(self.proof, Proof::ReadAgain | Proof::Discarded) {
            return Err(Error::new(Code::TargetMismatch, "a database that was not read again"));
        }
        if self.plan.engine == Engine::SqliteImage && !matches!(self.proof, Proof::PagesReadAgain | Proof::Discarded) {
            return Err(Error::new(Code::TargetMismatch, "an image that was not read again"));
        }
        if self.proof == Proof::PagesReadAgain {
            return self.check_image();
        }
        if self.loaded.iter().any(|loaded| loaded.image.is_some()) {
            return Err(Error::new(Code::TargetMismatch, "checks of what is no image"));
        }
        if self.plan.engine == Engine::Sqlite {
            for (index, (sent, loaded)) in sent.iter().zip(&self.loaded).enumerate() {
                if sent.rows != loaded.rows || sent.digest != loaded.digest {
                    let mismatch = Error::new(Code::TargetMismatch, "rows or digest of a table");
                    return Err(mismatch.at_part(crate::id::PartIndex(index as u32)));
                }
            }
        }
        Ok(())
    }

    /// That the pages which were read again are those that were sent.
    fn check_image(&self) -> Result<()> {
        let refused = |check| Err(Error::new(Code::TargetMismatch, check));
        let ([sent], [loaded]) = (self.manifest.manifest.parts.as_slice(), self.loaded.as_slice()) else {
            return refused("parts of an image");
        };
        let (Engine::SqliteImage, Some(checks)) = (self.plan.engine, &loaded.image) else {
            return refused("checks of an image");
        };
        checks.check()?;
        let bytes = checks.pages.checked_mul(checks.page_bytes.into());
        if loaded.digest != Some(sent.root) || loaded.rows != 0 || bytes != Some(sent.plain_bytes) {
            return refused("pages of an image");
        }
        Ok(())
    }
}

impl SignedReceipt {
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        codec::decode(bytes, CONTROL_BYTES_MAX, "receipt")
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Everything that can be checked with nothing but the receipt: both signatures, and that manifest, plan, grant and
    /// what was loaded belong together.
    pub fn verify(&self) -> Result<()> {
        let receipt = &self.receipt;
        let signed = codec::encode(receipt);
        receipt.receiver_key.verify(Purpose::Receipt, &signed, &self.signature, Code::TranscriptMismatch)?;
        receipt.manifest.verify(&receipt.sender_key)?;
        let manifest = &receipt.manifest.manifest;
        let belongs = manifest.transfer == receipt.grant.grant.transfer
            && manifest.grant_hash == receipt.grant.hash()
            && manifest.plan_hash == receipt.plan.hash();
        if !belongs {
            return Err(Error::new(Code::ManifestMismatch, "transfer, grant or plan"));
        }
        receipt.check_grant()?;
        receipt.check_loaded()
    }
}
