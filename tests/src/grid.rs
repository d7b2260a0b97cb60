//! An engine of the tests, which the product does not know: whatever is written for engines in
//! general has to work for it as it does for those of the product.
//!
//! It has what SQLite and dumps do not: tables in ranges, parts that are written side by side, and
//! failures on demand. A source is a file that says what there is (`tables=2 ranges=3 rows=500
//! bytes=100 widest=0`); its rows follow from that. A target is a folder with one file for each
//! part, written under a staging name. While a file `fail` with the number of a part is beside the
//! target or the source, that part fails.

mod drill;
mod source;
mod target;

use std::{fs, path::Path, sync::Arc};

use bytes::BytesMut;
use sealift_engine_api::{
    Endpoint, EngineSpec, Engines, FailPoint, FindingKind, Form, Place, Scheme, Severity, Source, SourceOptions,
    Target, TargetOptions, Waiver,
};
use sealift_host::fail_point::hit;
use sealift_protocol::{
    disposition::sender::Replay,
    failure::{Failure, Outcome},
    id::PartIndex,
    manifest::{Capabilities, Engine, ReadBack, Section},
    row::{Cell, put_cell, put_length},
};

pub use self::{source::GridSource, target::GridTarget};

/// What the programs of the tests have: the engines of the product, and this one.
pub const ENGINES: Engines = Engines { specs: &[&SPEC, &sealift_opaque::SPEC, &SQLITE], instead: &[] };

/// SQLite as the product has it, but for the size of ranges: small tables are divided.
const SQLITE: EngineSpec = EngineSpec {
    name: sealift_sqlite::SPEC.name,
    schemes: &[Scheme {
        name: "sqlite",
        usage: "sqlite:PATH",
        is_source: true,
        parse: |rest| sealift_sqlite::parse_with_ranges(rest, SMALL_RANGE_BYTES),
    }],
    drill: sealift_sqlite::SPEC.drill,
    helpers: sealift_sqlite::SPEC.helpers,
    fail_points: sealift_sqlite::SPEC.fail_points,
    findings: sealift_sqlite::SPEC.findings,
};

/// A few chunks at most.
const SMALL_RANGE_BYTES: u64 = 512 << 10;

pub const SPEC: EngineSpec = EngineSpec {
    name: "grid",
    schemes: &[Scheme { name: "grid", usage: "grid:PATH", is_source: true, parse: GridUrl::parse }],
    drill: drill::drill,
    helpers: &[],
    fail_points: &[PART_WRITTEN, PART_COMMITTED, PROVEN, RENAMED],
    findings: &[
        FindingKind::new("grid-fact"),
        FindingKind::new("grid-note"),
        FindingKind::new("grid-warning"),
        FindingKind::waivable("grid-error", Waiver::ByName),
    ],
};

const PART_WRITTEN: FailPoint = FailPoint { name: "grid-part-written", what: "a part is written and not committed" };
const PART_COMMITTED: FailPoint =
    FailPoint { name: "grid-part-committed", what: "a part is committed and not acknowledged" };
const PROVEN: FailPoint = FailPoint { name: "grid-proven", what: "everything was read again, there is no receipt" };
const RENAMED: FailPoint = FailPoint { name: "grid-renamed", what: "the load has its final name" };

/// The programs that have it.
pub const SENDER: &str = "grid-sender";
pub const RECEIVER: &str = "grid-receiver";

/// Whether a target holds, row by row and in the order of the plan, what a source has, and nothing
/// else.
pub fn holds(target: &Path, source: &Path) -> bool {
    let Some(content) = fs::read_to_string(source).ok().and_then(|text| Content::parse(&text)) else { return false };
    let parts = content.parts();
    // Of each part a file with its content, and one that says so.
    fs::read_dir(target).into_iter().flatten().count() == 2 * parts.len()
        && parts
            .iter()
            .enumerate()
            .all(|(part, bytes)| fs::read(target.join(format!("part-{part}"))).is_ok_and(|found| found == *bytes))
}

fn framed(row: &[u8]) -> Vec<u8> {
    let mut framed = BytesMut::new();
    put_length(&mut framed, row.len());
    framed.extend_from_slice(row);
    framed.to_vec()
}

/// What both ends declare.
pub fn engine() -> Engine {
    let sections = vec![Section::PreData, Section::Data, Section::PostData];
    let capabilities = Capabilities { sections, ranges: true, read_back: ReadBack::Rows, checks: Vec::new() };
    Engine { name: "grid".into(), format: 1, capabilities }
}

/// What a source holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Content {
    pub tables: u32,
    /// Of each table.
    pub ranges: u64,
    /// In each range.
    pub rows: u64,
    /// Of the value in each row.
    pub bytes: usize,
    /// Of the value in the first row of all, if it is longer.
    pub widest: usize,
    /// What is found when it is planned: nothing, a warning or an error.
    pub finding: Option<Severity>,
}

impl Content {
    fn parse(text: &str) -> Option<Self> {
        let mut content = Self::default();
        for (name, value) in text.split_whitespace().filter_map(|word| word.split_once('=')) {
            if name == "finding" {
                let named = [Severity::Note, Severity::Warning, Severity::Error];
                content.finding = named.into_iter().find(|severity| severity.as_str() == value);
                continue;
            }
            let number: u32 = value.parse().ok()?;
            match name {
                "tables" => content.tables = number,
                "ranges" => content.ranges = number.into(),
                "rows" => content.rows = number.into(),
                "bytes" => content.bytes = number as usize,
                "widest" => content.widest = number as usize,
                _ => return None,
            }
        }
        Some(content)
    }

    /// As the source's file has it.
    pub fn text(self) -> String {
        let Self { tables, ranges, rows, bytes, widest, finding } = self;
        let finding = finding.map_or("none", Severity::as_str);
        format!("tables={tables} ranges={ranges} rows={rows} bytes={bytes} widest={widest} finding={finding}\n")
    }

    /// The bytes of each part, in the order of the plan.
    pub fn parts(self) -> Vec<Vec<u8>> {
        let ranges = (0..self.tables).flat_map(|table| (0..self.ranges).map(move |at| (table, at)));
        let rows = ranges.map(|(table, at)| {
            let numbers = at * self.rows..(at + 1) * self.rows;
            numbers.flat_map(|number| framed(&self.row(table, number))).collect()
        });
        let text = || self.text().into_bytes();
        [text()].into_iter().chain(rows).chain([text()]).collect()
    }

    /// One row, encoded: its number, and bytes that follow from where it is.
    pub fn row(self, table: u32, number: u64) -> BytesMut {
        let is_first = (table, number) == (0, 0);
        let length = if is_first { self.bytes.max(self.widest) } else { self.bytes };
        let mut value = vec![0; length];
        let mut hasher = blake3::Hasher::new_derive_key("sealift tests 2026-11 grid");
        hasher.update(&table.to_be_bytes());
        hasher.update(&number.to_be_bytes());
        hasher.finalize_xof().fill(&mut value);
        let mut row = BytesMut::with_capacity(length + 32);
        put_cell(&mut row, Cell { format: 1, bytes: &number.to_be_bytes() });
        put_cell(&mut row, Cell { format: 2, bytes: &value });
        row
    }
}

/// Cells of a row.
const COLUMNS: usize = 2;

/// Fails if that was asked for, with a file beside `path`.
fn check_failure(path: &Path, part: PartIndex, failure: fn() -> Failure) -> Outcome {
    if is_asked(path, "fail", part) { Err(failure().at_part(part)) } else { Ok(()) }
}

/// Whether the file beside the source or the target names this part.
fn is_asked(path: &Path, what: &str, part: PartIndex) -> bool {
    fs::read_to_string(path.with_file_name(what)).is_ok_and(|asked| asked.trim() == part.0.to_string())
}

#[derive(Debug)]
struct GridUrl(sealift_host::path::FilePath);

impl GridUrl {
    fn parse(rest: &str) -> Outcome<Arc<dyn Endpoint>> {
        Ok(Arc::new(Self(sealift_host::path::FilePath::parse("grid", rest)?)))
    }
}

impl Endpoint for GridUrl {
    fn url(&self) -> String {
        self.0.url()
    }

    fn place(&self) -> Place {
        Place::File(self.0.resolved())
    }

    fn engine(&self, _form: Form) -> Engine {
        engine()
    }

    fn replay(&self) -> Replay {
        Replay::Always
    }

    fn open_source(&self, _options: SourceOptions) -> Outcome<Box<dyn Source>> {
        Ok(Box::new(GridSource::open(&self.0.given)?))
    }

    fn check_target(&self, options: &TargetOptions) -> Outcome {
        if options.standing { self.0.check_absolute() } else { Ok(()) }
    }

    fn open_target(&self, options: &TargetOptions, _engines: Engines) -> Outcome<Arc<dyn Target>> {
        self.check_target(options)?;
        Ok(Arc::new(GridTarget::new(self.0.resolved(), options.row_bytes_max as usize)))
    }
}
