//! The receiver's evidence: how it knows that the load is there, what it read back from the target,
//! and what else it checked.

use minicbor::{Decode, Encode};

use super::{Check, CheckKind, ImageChecks, Manifest, Plan, PlannedPart, ReadBack};
use crate::{
    close::Code,
    codec,
    digest::{Root, RowsDigest},
    error::{Error, Result},
    id::PartIndex,
    limits::TABLES_MAX,
};

/// How the receiver knows that what it loaded is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Proof {
    /// Every table was read back from the target, counted and digested.
    #[n(0)]
    RowsReadBack,
    /// The loader took every verified byte and ended with exit code 0.
    #[n(1)]
    LoaderExit,
    /// Every verified byte was written and synced to a file, or to a pipe.
    #[n(2)]
    Written,
    /// Everything was verified and nothing loaded, as asked.
    #[n(3)]
    Discarded,
    /// Every byte was read back from the target and hashed again.
    #[n(4)]
    BytesReadBack,
}

impl Proof {
    /// The name in `--json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Proof::RowsReadBack => "rows_read_back",
            Proof::LoaderExit => "loader_exit",
            Proof::Written => "written",
            Proof::Discarded => "discarded",
            Proof::BytesReadBack => "bytes_read_back",
        }
    }

    /// A target that can be read back is read back. Otherwise the proof is the loader's exit or the
    /// write, and the receipt says so.
    fn fits(self, read_back: ReadBack) -> bool {
        match self {
            Proof::Discarded => true,
            Proof::RowsReadBack => read_back == ReadBack::Rows,
            Proof::BytesReadBack => read_back == ReadBack::Bytes,
            Proof::LoaderExit | Proof::Written => read_back == ReadBack::None,
        }
    }
}

/// The evidence for a whole load.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Evidence {
    /// How the receiver knows that the load is there.
    #[n(0)]
    pub proof: Proof,
    /// The digest of each table of the plan, as read back from the target; in a drill, as it
    /// arrived.
    #[n(1)]
    #[cbor(decode_with = "codec::bounded::<_, _, TABLES_MAX>")]
    pub tables: Vec<RowsDigest>,
    /// With [`Proof::BytesReadBack`]: the root of the one part, recomputed from the bytes read
    /// back.
    #[n(2)]
    pub bytes: Option<Root>,
    /// The checks that the engine declares, in the order of their kinds; none in a drill.
    #[n(3)]
    #[cbor(decode_with = "codec::bounded::<_, _, { CheckKind::COUNT }>")]
    pub checks: Vec<Check>,
}

impl Evidence {
    /// Evidence of a target that is not read back and has no tables.
    pub fn bare(proof: Proof) -> Self {
        Self { proof, tables: Vec::new(), bytes: None, checks: Vec::new() }
    }

    /// The checks of an image, if the database was moved as its pages.
    pub fn image(&self) -> Option<&ImageChecks> {
        self.checks.iter().find_map(|check| match check {
            Check::Image(checks) => Some(checks),
            Check::Catalogue(_) | Check::Rows(_) => None,
        })
    }

    /// Checks that the engine can give this proof and these checks, and that what was found is what
    /// was sent. Fails with `TargetMismatch`, naming the first part of a table that differs.
    pub fn check(&self, plan: &Plan, manifest: &Manifest) -> Result<()> {
        let refused = |check| Err(Error::new(Code::TargetMismatch, check));
        let capabilities = &plan.engine.capabilities;
        if !self.proof.fits(capabilities.read_back) {
            return refused("a proof that the engine cannot give");
        }
        let expected: &[CheckKind] = if self.proof == Proof::Discarded { &[] } else { &capabilities.checks };
        if !self.checks.iter().map(Check::kind).eq(expected.iter().copied()) {
            return refused("checks that are not those of the engine");
        }
        self.check_tables(plan, manifest)?;
        let sent = manifest.parts.first().filter(|_| self.proof == Proof::BytesReadBack);
        if self.bytes != sent.map(|part| part.root) {
            return refused("bytes that were read back");
        }
        self.checks.iter().try_for_each(|check| check.check(manifest))
    }

    fn check_tables(&self, plan: &Plan, manifest: &Manifest) -> Result<()> {
        if self.tables.len() != manifest.tables.len() {
            return Err(Error::new(Code::TargetMismatch, "number of tables"));
        }
        let differs = self.tables.iter().zip(&manifest.tables).position(|(found, sent)| found != sent);
        let Some(table) = differs else { return Ok(()) };
        let error = Error::new(Code::TargetMismatch, "rows or digest of a table");
        let of_table =
            |table: usize| move |part: &PlannedPart| part.table.is_some_and(|index| index.0 as usize == table);
        match plan.parts.iter().position(of_table(table)) {
            Some(part) => Err(error.at_part(PartIndex(part as u32))),
            None => Err(error),
        }
    }
}
