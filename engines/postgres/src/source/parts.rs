//! Tables as parts: small ones whole, large ones in ranges of their blocks.

use sealift_protocol::{
    id::TableIndex,
    limits::PARTS_MAX,
    manifest::{PlannedPart, Range},
};

use super::catalogue::{Catalogue, Places, SourceTable};
use crate::document::Rows;

/// From this version on, a scan of a range of blocks reads those alone.
const RANGES_SINCE: u32 = 140_000;

/// How large a part is to be.
#[derive(Clone, Copy)]
pub struct Sizes {
    /// A table of more than twice as many bytes is divided.
    pub range_bytes: u64,
}

impl Default for Sizes {
    /// A part is repeated whole after a lost link, and the last ones keep one reader busy each.
    fn default() -> Self {
        Self { range_bytes: 128 << 20 }
    }
}

/// What a reader reads as one part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub table: usize,
    pub range: Option<Range>,
    rows_estimate: Option<u64>,
    bytes_estimate: u64,
}

impl Part {
    pub fn planned(&self) -> PlannedPart {
        PlannedPart {
            range: self.range,
            rows_estimate: self.rows_estimate,
            bytes_estimate: Some(self.bytes_estimate),
            ..PlannedPart::of_table(TableIndex(self.table as u32))
        }
    }
}

/// The parts of all tables, in their order.
pub fn divide(catalogue: &Catalogue, sizes: Sizes, server_version: u32) -> Vec<Part> {
    let bytes_total: u64 = catalogue.tables.iter().map(|table| table.bytes).sum();
    // However large a database is, half of a plan is enough for its ranges.
    let range_bytes = sizes.range_bytes.max(bytes_total / (PARTS_MAX as u64 / 2)).max(1);
    let tables = catalogue.tables.iter().enumerate();
    tables.flat_map(|(at, table)| parts(at, table, range_bytes, server_version)).collect()
}

fn parts(at: usize, table: &SourceTable, range_bytes: u64, server_version: u32) -> Vec<Part> {
    let can_be_divided = match table.table.rows {
        Rows::Own => server_version >= RANGES_SINCE,
        // A large object is in one part, whole.
        Rows::LargeObjects => true,
        Rows::OfPartitions | Rows::Configuration => false,
    };
    let places = table.places.count();
    let is_divided = can_be_divided && table.bytes > 2 * range_bytes && places > 1;
    let count = if is_divided { table.bytes.div_ceil(range_bytes).min(places) } else { 1 };
    let edge = |number: u64| table.places.at((u128::from(places) * u128::from(number) / u128::from(count)) as u64);
    let part = |number: u64| {
        // The last range has no end: the size that was found is no bound of what the snapshot sees.
        let range = Range { from: edge(number), to: (number + 1 < count).then(|| edge(number + 1)) };
        Part {
            table: at,
            range: is_divided.then_some(range),
            rows_estimate: table.rows_estimate.map(|rows| rows / count),
            bytes_estimate: table.bytes / count,
        }
    };
    (0..count).map(part).collect()
}

impl Places {
    fn count(&self) -> u64 {
        match self {
            Places::Blocks(blocks) => *blocks,
            Places::LargeObjects(oids) => oids.len() as u64,
        }
    }

    /// Where the range begins that has the place of this number as its first; the first range has
    /// all that is before it, too.
    fn at(&self, number: u64) -> u64 {
        match self {
            Places::LargeObjects(oids) if number > 0 => oids.get(number as usize).copied().unwrap_or_default().into(),
            _ => number,
        }
    }
}
