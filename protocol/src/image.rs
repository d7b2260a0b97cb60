//! The exact form of a database of the embedded engine: its pages, as one snapshot has them, in one opaque part.
//!
//! The part's bytes are the pages 1, 2, … in order, which is the file that a backup would make. Every chunk but the last
//! holds [`CHUNK_PLAIN_BYTES`], a multiple of every page size, so that the hashes of the chunks can be computed again from
//! the file alone. Nothing here opens a database.

use minicbor::{Decode, Encode};

use crate::{
    close::Code,
    codec,
    error::{Error, Result},
    limits::{CHUNK_PLAIN_BYTES, IMAGE_CHECKS_BYTES_MAX, NAME_BYTES_MAX, PARTS_MAX},
    sqlite::is_internal,
};

/// What the first page of every database begins with.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// The header at the beginning of the first page.
pub const HEADER_BYTES: usize = 100;

/// The page size stands here, in two bytes; 65,536 as 1.
const PAGE_BYTES_AT: usize = 16;

const _: () = assert!(CHUNK_PLAIN_BYTES.is_multiple_of(65_536));

/// The page size that the first bytes of an image state.
pub fn page_bytes(first: &[u8]) -> Result<u32> {
    let refused = |check| Err(Error::new(Code::PlanRefused, check));
    if first.len() < HEADER_BYTES || !first.starts_with(MAGIC) {
        return refused("header of an image");
    }
    let page_bytes = match u16::from_be_bytes([first[PAGE_BYTES_AT], first[PAGE_BYTES_AT + 1]]) {
        1 => 65_536,
        other => u32::from(other),
    };
    if page_bytes.is_power_of_two() && page_bytes >= 512 { Ok(page_bytes) } else { refused("page size of an image") }
}

/// Whether a chunk of an image may have this many bytes.
pub fn check_chunk(plain_bytes: usize, last: bool, page_bytes: u32) -> Result<()> {
    let fits = match last {
        false => plain_bytes == CHUNK_PLAIN_BYTES,
        true => (1..=CHUNK_PLAIN_BYTES).contains(&plain_bytes) && plain_bytes.is_multiple_of(page_bytes as usize),
    };
    if fits { Ok(()) } else { Err(Error::new(Code::ProtocolViolation, "length of a chunk of an image")) }
}

/// How much of an image the engine could check, once its pages had been compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Checked {
    /// `integrity_check` over everything.
    #[n(0)]
    Everything,
    /// `quick_check` over everything: the contents of indexes need a collation or function that the receiver lacks.
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
    /// What the engine found in values or in the contents of indexes; the image has it from the source. A damaged
    /// structure is never loaded.
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

    /// Whether there is no table but SQLite's own, as far as the catalogue could be read.
    pub fn holds_nothing(&self) -> bool {
        self.checked != Checked::SomeTables
            && self.tables_left_out == 0
            && self.tables.iter().all(|table| is_internal(&table.name))
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

    fn header(page_bytes: u16) -> Vec<u8> {
        let mut header = MAGIC.to_vec();
        header.extend(page_bytes.to_be_bytes());
        header.resize(HEADER_BYTES, 0);
        header
    }

    #[test]
    fn page_sizes_are_read_or_refused() {
        assert_eq!(page_bytes(&header(512)), Ok(512));
        assert_eq!(page_bytes(&header(32_768)), Ok(32_768));
        assert_eq!(page_bytes(&header(1)), Ok(65_536));
        for bad in [header(0), header(256), header(1000), header(512)[..99].to_vec(), vec![0; 4096]] {
            assert_eq!(page_bytes(&bad).map_err(|error| error.code), Err(Code::PlanRefused));
        }
    }

    #[test]
    fn all_chunks_but_the_last_are_full() {
        assert!(check_chunk(CHUNK_PLAIN_BYTES, false, 512).is_ok());
        assert!(check_chunk(CHUNK_PLAIN_BYTES, true, 65_536).is_ok());
        assert!(check_chunk(512, true, 512).is_ok());
        assert!(check_chunk(512, false, 512).is_err());
        assert!(check_chunk(2 * CHUNK_PLAIN_BYTES, false, 512).is_err());
        assert!(check_chunk(0, true, 512).is_err());
        assert!(check_chunk(512, true, 1024).is_err());
        assert!(check_chunk(CHUNK_PLAIN_BYTES + 512, true, 512).is_err());
    }

    fn checks() -> ImageChecks {
        let tables = vec![
            CountedTable { name: "patient".into(), rows: Some(3), checked: true },
            CountedTable { name: "visit".into(), rows: None, checked: false },
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
