//! Checks that a receiver makes in a target besides reading back rows or bytes: a closed list of
//! typed results, so that none can hold a value of a row.

use minicbor::{Decode, Encode};

use super::{Manifest, ReadBack};
use crate::{
    close::Code,
    codec,
    error::{Error, Result},
    limits::{IMAGE_CHECKS_BYTES_MAX, NAME_BYTES_MAX, PARTS_MAX, ROWS_CHECK_BYTES_MAX},
};

/// The result of a check that was passed. A target that fails one has no receipt.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Check {
    /// The definitions in the target are exactly those that were sent.
    #[n(0)]
    Catalogue(#[n(0)] CatalogueCheck),
    /// What the engine found in a database that was moved as its pages.
    #[n(1)]
    Image(#[n(0)] ImageChecks),
    /// How the rows that were read back were compared.
    #[n(2)]
    Rows(#[n(0)] RowsCheck),
}

/// The kinds of check that an engine can declare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum CheckKind {
    /// [`CatalogueCheck`].
    #[n(0)]
    Catalogue,
    /// [`ImageChecks`].
    #[n(1)]
    Image,
    /// [`RowsCheck`].
    #[n(2)]
    Rows,
}

impl CheckKind {
    /// The number of kinds, which bounds the list in a declaration and in a receipt.
    pub const COUNT: usize = 3;

    /// The kind of read-back that this check depends on, if any.
    pub(super) fn needs(self) -> Option<ReadBack> {
        match self {
            CheckKind::Catalogue | CheckKind::Rows => Some(ReadBack::Rows),
            CheckKind::Image => Some(ReadBack::Bytes),
        }
    }
}

impl Check {
    /// The kind that an engine declares for this check.
    pub fn kind(&self) -> CheckKind {
        match self {
            Check::Catalogue(_) => CheckKind::Catalogue,
            Check::Image(_) => CheckKind::Image,
            Check::Rows(_) => CheckKind::Rows,
        }
    }

    pub(super) fn check(&self, manifest: &Manifest) -> Result<()> {
        match self {
            Check::Catalogue(_) => Ok(()),
            Check::Image(checks) => checks.check_sent(manifest),
            Check::Rows(check) => check.check(manifest),
        }
    }
}

/// The comparison of all definitions: tables, indexes, views and the like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct CatalogueCheck {
    /// The number of definitions compared, all of them equal.
    #[n(0)]
    pub definitions: u64,
}

/// How the rows of a database were compared (`docs/postgres.md`).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RowsCheck {
    /// The number of tables that were read back as soon as their last part was committed, and whose
    /// rows were found to be unchanged when the load was proven. The others were read back then.
    #[n(0)]
    pub tables_read_early: u64,
    /// The columns that the target computes itself and that were not sent or compared, as
    /// `schema.table.column`. With their names, the check has at most [`ROWS_CHECK_BYTES_MAX`]
    /// bytes.
    #[n(1)]
    pub columns_not_compared: Vec<String>,
}

impl RowsCheck {
    /// Checks the bounds; fails with `TargetMismatch`.
    fn check(&self, manifest: &Manifest) -> Result<()> {
        let is_bounded =
            self.tables_read_early <= manifest.tables.len() as u64 && codec::encode(self).len() <= ROWS_CHECK_BYTES_MAX;
        if is_bounded { Ok(()) } else { Err(Error::new(Code::TargetMismatch, "how rows were compared")) }
    }
}

/// How much of an image the engine could check after its pages were compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Checked {
    /// All content.
    #[n(0)]
    Everything,
    /// All structure, but not the contents of indexes, which need a collation or function that the
    /// receiver lacks.
    #[n(1)]
    Structure,
    /// Some tables only: the others cannot be read without something that the receiver lacks.
    #[n(2)]
    SomeTables,
}

/// Checks of an image beyond the comparison of its pages (`docs/sqlite.md`).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ImageChecks {
    /// The size of a page: a power of two from 512 to 65,536.
    #[n(0)]
    pub page_bytes: u32,
    /// The number of pages, at least 1.
    #[n(1)]
    pub pages: u64,
    /// How much the engine could check.
    #[n(2)]
    pub checked: Checked,
    /// The number of errors that the engine found in values or in the contents of indexes. They
    /// come from the source; an image whose structure is corrupt is never loaded.
    #[n(3)]
    pub findings: u64,
    /// The ordinary tables, in the order of the catalogue, at most [`PARTS_MAX`].
    #[n(4)]
    pub tables: Vec<CountedTable>,
    /// The number of tables left out, because the list would be too long or their names are not
    /// text.
    #[n(5)]
    pub tables_left_out: u64,
}

/// One ordinary table of an image.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct CountedTable {
    /// The table's name, at most [`NAME_BYTES_MAX`] bytes.
    #[n(0)]
    pub name: String,
    /// The number of rows, or `None` if the receiver could not read the table.
    #[n(1)]
    pub rows: Option<u64>,
    /// Whether the engine's check covered it.
    #[n(2)]
    pub checked: bool,
    /// Whether it is a table of the engine's own.
    #[n(3)]
    pub internal: bool,
}

impl ImageChecks {
    /// Checks the bounds and the consistency of the fields; fails with `TargetMismatch`.
    pub fn check(&self) -> Result<()> {
        let refused = |check| Err(Error::new(Code::TargetMismatch, check));
        if !self.page_bytes.is_power_of_two() || !(512..=65_536).contains(&self.page_bytes) || self.pages == 0 {
            return refused("pages of an image");
        }
        if self.tables.len() > PARTS_MAX || self.tables.iter().any(|table| table.name.len() > NAME_BYTES_MAX) {
            return refused("tables of an image");
        }
        if self.checked != Checked::SomeTables && self.tables.iter().any(|table| !table.checked) {
            return refused("checks of an image");
        }
        if codec::encode(self).len() > IMAGE_CHECKS_BYTES_MAX {
            return refused("length of an image's checks");
        }
        Ok(())
    }

    /// As `check`, and that the pages have as many bytes as were sent.
    fn check_sent(&self, manifest: &Manifest) -> Result<()> {
        self.check()?;
        let bytes = self.pages.checked_mul(self.page_bytes.into());
        let sent = manifest.parts.first().map(|part| part.plain_bytes);
        if bytes.is_some() && bytes == sent {
            Ok(())
        } else {
            Err(Error::new(Code::TargetMismatch, "pages of an image"))
        }
    }

    /// Whether the catalogue was read completely and has no table but the engine's own.
    pub fn holds_nothing(&self) -> bool {
        self.checked != Checked::SomeTables
            && self.tables_left_out == 0
            && self.tables.iter().all(|table| table.internal)
    }

    /// The number of rows of all tables that were counted.
    pub fn rows(&self) -> u64 {
        self.tables.iter().filter_map(|table| table.rows).fold(0, u64::saturating_add)
    }

    /// The number of tables that could not be counted or checked, listed or not.
    pub fn tables_unread(&self) -> u64 {
        let unread = self.tables.iter().filter(|table| table.rows.is_none() || !table.checked).count();
        (unread as u64).saturating_add(self.tables_left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks() -> ImageChecks {
        let tables = vec![
            CountedTable { name: "patient".into(), rows: Some(3), checked: true, internal: false },
            CountedTable { name: "visit".into(), rows: None, checked: false, internal: false },
        ];
        ImageChecks {
            page_bytes: 4096,
            pages: 7,
            checked: Checked::SomeTables,
            findings: 1,
            tables,
            tables_left_out: 1,
        }
    }

    #[test]
    fn checks_survive_and_bad_ones_are_refused() {
        let encoded = codec::encode(&checks());
        assert_eq!(codec::decode::<ImageChecks>(&encoded, IMAGE_CHECKS_BYTES_MAX, "checks"), Ok(checks()));
        assert!(checks().check().is_ok());
        assert_eq!((checks().rows(), checks().tables_unread()), (3, 2));
        let refused = |change: fn(&mut ImageChecks)| {
            let mut checks = checks();
            change(&mut checks);
            assert_eq!(checks.check().map_err(|error| error.code), Err(Code::TargetMismatch));
        };
        refused(|checks| checks.pages = 0);
        refused(|checks| checks.page_bytes = 1000);
        refused(|checks| checks.page_bytes = 1 << 17);
        refused(|checks| checks.checked = Checked::Everything);
        refused(|checks| checks.tables[0].name = "x".repeat(NAME_BYTES_MAX + 1));
        refused(|checks| checks.tables = vec![checks.tables[0].clone(); PARTS_MAX + 1]);
        refused(|checks| {
            checks.tables[0].name = "x".repeat(NAME_BYTES_MAX);
            checks.tables = vec![checks.tables[0].clone(); 1100];
        });
    }
}
