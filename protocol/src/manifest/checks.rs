//! What a receiver checks in a target besides the rows or bytes that it reads back: a closed list
//! of typed results, so that none can hold a value of a row.

use minicbor::{Decode, Encode};

use super::{Manifest, ReadBack};
use crate::{
    close::Code,
    codec,
    error::{Error, Result},
    limits::{IMAGE_CHECKS_BYTES_MAX, NAME_BYTES_MAX, PARTS_MAX},
};

/// The result of a check that was passed. A target that fails one has no receipt.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Check {
    /// Every definition in the target is the one that was sent, and there is no other.
    #[n(0)]
    Catalogue(#[n(0)] CatalogueCheck),
    /// What the engine found in a database that was moved as its pages.
    #[n(1)]
    Image(#[n(0)] ImageChecks),
}

/// Which check it is: what an engine declares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum CheckKind {
    #[n(0)]
    Catalogue,
    #[n(1)]
    Image,
}

impl CheckKind {
    pub const COUNT: usize = 2;

    /// What a target has to give for this check to be possible, if it does not go without.
    pub(super) fn needs(self) -> Option<ReadBack> {
        match self {
            CheckKind::Catalogue => Some(ReadBack::Rows),
            CheckKind::Image => Some(ReadBack::Bytes),
        }
    }
}

impl Check {
    pub fn kind(&self) -> CheckKind {
        match self {
            Check::Catalogue(_) => CheckKind::Catalogue,
            Check::Image(_) => CheckKind::Image,
        }
    }

    pub(super) fn check(&self, manifest: &Manifest) -> Result<()> {
        match self {
            Check::Catalogue(_) => Ok(()),
            Check::Image(checks) => checks.check_sent(manifest),
        }
    }
}

/// The definitions of tables, indexes, views and the like, compared one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct CatalogueCheck {
    #[n(0)]
    pub definitions: u64,
}

/// How much of an image the engine could check, once its pages had been compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Checked {
    /// A check of all content.
    #[n(0)]
    Everything,
    /// A check of all structure: the contents of indexes need a collation or function that the
    /// receiver lacks.
    #[n(1)]
    Structure,
    /// Single tables, since some need what the receiver lacks even for that.
    #[n(2)]
    SomeTables,
}

/// What the receiver found in an image beyond that its pages are those that were sent.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ImageChecks {
    #[n(0)]
    pub page_bytes: u32,
    #[n(1)]
    pub pages: u64,
    #[n(2)]
    pub checked: Checked,
    /// What the engine found in values or in the contents of indexes; the image has it from the
    /// source. A damaged structure is never loaded.
    #[n(3)]
    pub findings: u64,
    /// Ordinary tables, in the order of the catalogue.
    #[n(4)]
    pub tables: Vec<CountedTable>,
    /// Tables that are not listed, since the list would be too long or their names are not text.
    #[n(5)]
    pub tables_left_out: u64,
}

/// One ordinary table of an image.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct CountedTable {
    #[n(0)]
    pub name: String,
    /// Missing where the receiver could not read it.
    #[n(1)]
    pub rows: Option<u64>,
    /// Whether the engine's check covered it.
    #[n(2)]
    pub checked: bool,
    /// Whether the engine keeps it for itself.
    #[n(3)]
    pub internal: bool,
}

impl ImageChecks {
    /// The bounds that every receipt keeps.
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

    /// The same, and that the pages are the bytes that were sent.
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

    /// Whether there is no table but the engine's own, as far as the catalogue could be read.
    pub fn holds_nothing(&self) -> bool {
        self.checked != Checked::SomeTables
            && self.tables_left_out == 0
            && self.tables.iter().all(|table| table.internal)
    }

    /// The rows of all tables that were counted.
    pub fn rows(&self) -> u64 {
        self.tables.iter().filter_map(|table| table.rows).fold(0, u64::saturating_add)
    }

    /// Tables that could not be counted or checked, listed or not.
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
