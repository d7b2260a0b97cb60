//! What was verified and loaded, and what has to hold of that whoever signed it. A receipt contradicts itself, or it does
//! not: which keys are to be believed is for the reader to know.

use minicbor::{Decode, Encode};

use super::{Engine, PartKind, Plan, SentPart, SignedManifest};
use crate::{
    close::Code,
    codec,
    digest::Root,
    error::{Error, Result},
    fingerprint::Fingerprint,
    grant::SignedGrant,
    id::PartIndex,
    image::ImageChecks,
    limits::{
        CHUNK_INDEX_MAX, CHUNK_PLAIN_BYTES_MAX, CLOCK_SKEW_SECONDS_MAX, CONTROL_BYTES_MAX, FACT_BYTES_MAX,
        NAME_BYTES_MAX, PARTS_MAX,
    },
    seal::Suite,
    sign::{PublicKey, Purpose, Signature, Signer},
};

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
    /// Milliseconds since the Unix epoch by the receiver's clock: when the transfer began under this grant.
    #[n(9)]
    pub started_ms: u64,
    #[n(10)]
    pub finished_ms: u64,
    /// Version of the receiver.
    #[n(11)]
    pub software: String,
    /// Name of the target host.
    #[n(12)]
    pub target_host: String,
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

    /// Everything that has to hold whatever the keys are: the plan keeps its rules, texts are bounded, times are ordered and
    /// within the grant, the engine can give this proof, and what was loaded is what was sent.
    pub fn check(&self) -> Result<()> {
        self.plan.check()?;
        self.check_texts()?;
        self.check_times()?;
        self.check_proof()?;
        self.check_loaded()
    }

    fn check_texts(&self) -> Result<()> {
        self.manifest.manifest.origin.check()?;
        let facts = [&self.tls, &self.software];
        let bounded = self.target_host.len() <= NAME_BYTES_MAX && facts.iter().all(|text| text.len() <= FACT_BYTES_MAX);
        if bounded { Ok(()) } else { Err(Error::new(Code::LimitExceeded, "a text of the receipt")) }
    }

    /// A loader that has everything is waited for past the end of the grant, since its exit alone says whether it committed
    /// ([`crate::disposition`]); every other load ends within it.
    fn check_times(&self) -> Result<()> {
        let grant = &self.grant.grant;
        let started_seconds = self.started_ms / 1000;
        if self.started_ms > self.finished_ms {
            return Err(Error::new(Code::ManifestMismatch, "finished before it started"));
        }
        if started_seconds.saturating_add(CLOCK_SKEW_SECONDS_MAX) < grant.not_before_seconds {
            return Err(Error::new(Code::GrantNotYetValid, "started before the grant"));
        }
        let last_seconds = match self.proof {
            Proof::LoaderExit => started_seconds,
            _ => self.finished_ms / 1000,
        };
        match last_seconds < grant.finish_before_seconds {
            true => Ok(()),
            false => Err(Error::new(Code::GrantExpired, "finished after the grant")),
        }
    }

    /// A database is always read again, and opaque bytes never are.
    fn check_proof(&self) -> Result<()> {
        let possible = match self.plan.engine {
            Engine::Opaque => matches!(self.proof, Proof::LoaderExit | Proof::Written | Proof::Discarded),
            Engine::SqliteImage => matches!(self.proof, Proof::PagesReadAgain | Proof::Discarded),
            Engine::Sqlite => matches!(self.proof, Proof::ReadAgain | Proof::Discarded),
        };
        if possible { Ok(()) } else { Err(Error::new(Code::TargetMismatch, "a proof that the engine cannot give")) }
    }

    /// That what was loaded is what was sent, whatever the proof: the same parts, and for each the same count and digest.
    pub fn check_loaded(&self) -> Result<()> {
        let sent = &self.manifest.manifest.parts;
        if self.loaded.len() != sent.len() || self.plan.parts.len() != sent.len() {
            return Err(Error::new(Code::TargetMismatch, "number of parts"));
        }
        let parts = self.plan.parts.iter().zip(sent).zip(&self.loaded);
        for (((planned, sent), loaded), index) in parts.zip(0..) {
            let at_part = |error: Error| error.at_part(PartIndex(index));
            sent.check(planned.kind).map_err(at_part)?;
            if self.proof == Proof::PagesReadAgain {
                loaded.check_image(sent)?;
                continue;
            }
            if loaded.image.is_some() {
                return Err(at_part(Error::new(Code::TargetMismatch, "checks of what is no image")));
            }
            if sent.rows != loaded.rows || sent.digest != loaded.digest {
                return Err(at_part(Error::new(Code::TargetMismatch, "rows or digest of a part")));
            }
        }
        Ok(())
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
}

impl LoadedPart {
    /// That the pages which were read again are those that were sent.
    fn check_image(&self, sent: &SentPart) -> Result<()> {
        let refused = |check| Err(Error::new(Code::TargetMismatch, check));
        let Some(checks) = &self.image else { return refused("checks of an image") };
        checks.check()?;
        let bytes = checks.pages.checked_mul(checks.page_bytes.into());
        match self.digest == Some(sent.root) && self.rows == 0 && bytes == Some(sent.plain_bytes) {
            true => Ok(()),
            false => refused("pages of an image"),
        }
    }
}

impl SentPart {
    /// Counts that can be: a digest where there are rows and nowhere else, no rows where there can be none, a row in at
    /// least one byte, and no more bytes than the chunks hold.
    pub fn check(&self, kind: PartKind) -> Result<()> {
        let wrong = |check| Err(Error::new(Code::ManifestMismatch, check));
        let has_rows = kind == PartKind::Rows;
        if self.digest.is_some() != has_rows || (!has_rows && self.rows != 0) {
            return wrong("rows or digest that the part cannot have");
        }
        if !(1..=CHUNK_INDEX_MAX + 1).contains(&self.chunks.0) {
            return wrong("number of chunks");
        }
        if self.plain_bytes > self.chunks.0.saturating_mul(CHUNK_PLAIN_BYTES_MAX as u64) {
            return wrong("more bytes than the chunks hold");
        }
        if self.rows > self.plain_bytes { wrong("more rows than bytes") } else { Ok(()) }
    }
}

impl SignedReceipt {
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        codec::decode(bytes, CONTROL_BYTES_MAX, "receipt")
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// What audit logs call this receipt by: the BLAKE3 hash of its file.
    pub fn hash(&self) -> [u8; 32] {
        *blake3::hash(&self.to_bytes()).as_bytes()
    }

    /// Everything that can be checked with nothing but the receipt: all signatures, that manifest, plan and grant belong
    /// together, and that it does not contradict itself.
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
        receipt.check()
    }
}
