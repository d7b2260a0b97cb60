//! A database of the embedded engine as a source.
//!
//! Connections are opened read-only, and each has one read transaction to its end, all of the
//! moment of the first ([`shared`]): every part is of one moment. A database in WAL mode can be
//! written meanwhile; one with a rollback journal makes its writers wait until the transfer is
//! over. What is not carried, since it says how a file is kept and not what is in it: the free
//! pages, the reserved bytes of pages, the schema format number, and the counters in the file's
//! header.
//!
//! The file stays as it was found: nothing is written, checkpointed or removed ([`sidecars`]).
//!
//! A virtual table of full-text search or an r-tree is moved as its definition and the rows of its
//! shadow tables, in which all of it lies; it is never read through its module.

mod affinity;
mod catalogue;
mod divide;
mod failure;
mod image;
mod parts;
mod shared;
mod sidecars;
mod wal_snapshot;

pub use self::{divide::RANGE_BYTES, image::ImageSource};

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, limits::Limit};
use sealift_engine_api::{Finding, PartReader, Planned, RowSink, Snapshot, Source, StopToken};
use sealift_protocol::{
    close::Code,
    failure::{Failure, Outcome},
    id::{PartIndex, TableIndex},
    limits::PARTS_MAX,
    manifest::{Plan, PlannedTable},
};

use crate::{
    document::{DOCUMENT_BYTES_MAX, TextEncoding, is_internal},
    engine, preflight,
};

use self::{
    catalogue::{Catalogue, SourceTable},
    failure::{failed, unsuitable},
    parts::{RowsPart, planned_parts, rows_parts},
    shared::{BUSY_TIMEOUT, CACHE_KIB, SharedSnapshot, bound_cache, connect},
    sidecars::JournalMode,
};
use crate::{
    MOVE_IMAGE, Value, check_options, quote,
    stored::{LongRow, RowVisitor, Scan, error_of},
    value_bytes,
};

/// A row as it lies in its table may be longer than its encoding by the length of its header's
/// length.
const PAYLOAD_SLACK_BYTES: usize = 9;

/// Below, the engine's own limit would save nothing, and could get into its way.
const LENGTH_MAX_MIN: usize = 1 << 20;

/// A source that reads `sqlite:PATH`.
pub struct SqliteSource {
    path: PathBuf,
    journal_mode: JournalMode,
    connection: Connection,
    range_bytes: u64,
}

/// What is read by rows, as of the transaction that `plan` left open.
struct Content {
    encoding: TextEncoding,
    schema: Vec<u8>,
    tables: Vec<SourceTable>,
    parts: Vec<RowsPart>,
    finish: Vec<u8>,
}

impl SqliteSource {
    /// Opens an existing database; nothing is read of it yet but its schema.
    pub fn open(path: &Path) -> Outcome<Self> {
        Self::open_within(path, BUSY_TIMEOUT)
    }

    fn open_within(path: &Path, busy_timeout: Duration) -> Outcome<Self> {
        check_options()?;
        let shown = path.display().to_string();
        let unreadable = |error| {
            let next = "Check the path in --source, and that this user may read the file and its folder.";
            Failure::io(Code::SourceFailed, format!("the database {shown} cannot be read"), &error, next)
        };
        // Absolute, so that neither `:memory:` nor `file:...?mode=rw` can be taken for anything but
        // a file's name.
        let path = std::path::absolute(path).map_err(unreadable)?;
        if !fs::metadata(&path).map_err(unreadable)?.is_file() {
            let next = "Give --source the path of the database file itself.";
            return Err(Failure::new(Code::SourceFailed, format!("{shown} is not a file"), next));
        }
        let journal_mode = sidecars::journal_mode(&path).map_err(unreadable)?;
        if journal_mode == JournalMode::Wal {
            sidecars::check_owner(&path, &shown, nix::unistd::geteuid())?;
        }
        let connection = connect(&path, busy_timeout).map_err(|error| failed(&error, &shown))?;
        Ok(Self { path, journal_mode, connection, range_bytes: RANGE_BYTES })
    }

    /// Divides tables into ranges of so many bytes.
    pub fn with_ranges(mut self, range_bytes: u64) -> Self {
        self.range_bytes = range_bytes;
        self
    }

    /// What moving the database means for those who use it meanwhile.
    fn finding(&self) -> Finding {
        self.journal_mode.finding()
    }

    /// That no page of the open transaction lies beyond the end of the file, where SQLite reads
    /// zeros: of a file that was not copied whole, rows would be missing. What is in a log may not
    /// be in the file yet.
    fn check_whole(&self) -> Outcome {
        let shown = self.path.display().to_string();
        let number = |pragma: &str| self.connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
        let pages = number("page_count").and_then(|pages| Ok(pages.saturating_mul(number("page_size")?)));
        let expected = pages.map_err(|error| failed(&error, &shown))?.unsigned_abs();
        let found = fs::metadata(&self.path).map(|found| found.len()).unwrap_or(u64::MAX);
        if found >= expected || sidecars::has_log(&self.path) {
            return Ok(());
        }
        let what = format!("{shown} has {found} bytes, and by its own header {expected}: it is not whole");
        Err(Failure::new(Code::SourceFailed, what, "Copy it again, or restore it from a backup, and start again."))
    }

    fn take_snapshot(&self) -> Outcome<(Content, Plan)> {
        let shown = self.path.display().to_string();
        // A deferred transaction takes its snapshot at the first read, which the catalogue is.
        let begin = || bound_cache(&self.connection, CACHE_KIB).and_then(|()| self.connection.execute_batch("BEGIN"));
        begin().map_err(|error| failed(&error, &shown))?;
        self.check_whole()?;
        let catalogue = Catalogue::read(&self.connection, &shown)?;
        for table in &catalogue.tables {
            table.check_indexes(&self.connection)?;
        }
        let parts = rows_parts(&self.connection, &catalogue.tables, self.range_bytes);
        let parts = parts.map_err(|error| failed(&error, &shown))?;
        let planned = planned_parts(&parts);
        let (encoding, schema, finish) =
            (catalogue.schema.encoding, catalogue.schema.to_bytes(), catalogue.finish.to_bytes());
        if planned.len() > PARTS_MAX || schema.len().max(finish.len()) > DOCUMENT_BYTES_MAX {
            let what = format!("the schema of {shown} is too large: {} tables", catalogue.tables.len());
            return Err(unsuitable(what, MOVE_IMAGE));
        }
        let tables = catalogue.tables.iter().map(|table| planned_table(&table.table.name)).collect();
        let content = Content { encoding, schema, tables: catalogue.tables, parts, finish };
        Ok((content, Plan { engine: engine::rows(), tables, parts: planned, empty: None, left_out: None, rows: None }))
    }
}

fn planned_table(name: &str) -> PlannedTable {
    PlannedTable { internal: is_internal(name), ..PlannedTable::named(name) }
}

impl Source for SqliteSource {
    /// Nothing is read but the file's header.
    fn check(&self, _stop: Arc<dyn StopToken>) -> Outcome<Vec<Finding>> {
        self.check_whole()?;
        Ok(vec![self.finding(), preflight::file(&self.path)])
    }

    fn plan(self: Box<Self>, _stop: Arc<dyn StopToken>) -> Outcome<Planned> {
        let (content, plan) = self.take_snapshot()?;
        let findings = vec![self.finding()];
        let shared = SharedSnapshot::of(self.path, self.connection)?;
        let snapshot = RowsSnapshot { content: Arc::new(content), shared };
        Ok(Planned { plan, findings, snapshot: Arc::new(snapshot) })
    }
}

struct RowsSnapshot {
    content: Arc<Content>,
    shared: SharedSnapshot,
}

impl Snapshot for RowsSnapshot {
    fn readers_max(&self) -> usize {
        SharedSnapshot::readers_max()
    }

    fn can_repeat(&self) -> bool {
        // Tables are scanned in the order of their keys, so that the same content gives the same
        // bytes.
        true
    }

    fn reader(&self) -> Outcome<Box<dyn PartReader>> {
        let connection = self.shared.connection()?;
        Ok(Box::new(RowsReader { content: Arc::clone(&self.content), connection, shown: self.shared.shown() }))
    }
}

struct RowsReader {
    content: Arc<Content>,
    connection: Connection,
    shown: String,
}

impl RowsReader {
    fn limit_length(&self, bytes_max: i32) -> Outcome {
        let limited = self.connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, bytes_max);
        limited.map(drop).map_err(|error| failed(&error, &self.shown))
    }
}

impl PartReader for RowsReader {
    fn read(&mut self, part: PartIndex, out: &mut dyn RowSink) -> Outcome {
        let missing = || Failure::new(Code::Internal, "a part was asked for that is not in the plan", "");
        let content = &self.content;
        let place = part.0 as usize;
        if place == 0 {
            return out.bytes(&content.schema);
        }
        if place == content.parts.len() + 1 {
            return out.bytes(&content.finish);
        }
        let RowsPart { table, rowids, .. } = content.parts.get(place - 1).ok_or_else(missing)?;
        let table = &content.tables[*table];
        // What the engine holds of a row, too.
        let length_max = out.row_bytes_max().saturating_add(PAYLOAD_SLACK_BYTES).max(LENGTH_MAX_MIN);
        self.limit_length(i32::try_from(length_max).unwrap_or(i32::MAX))?;
        let encoding = content.encoding;
        let scan = Scan { connection: &self.connection, table: &table.table, range: *rowids, encoding };
        let read = scan.read_rows(&mut Emitting { table, encoding, out, row_bytes: 0 });
        self.limit_length(i32::MAX)?;
        read.map_err(|failure| failure.at_part(part))
    }

    /// SQLite counts the entries of the smallest b-tree of a table, without a cursor over its rows.
    fn count_rows(&mut self, table: TableIndex) -> Outcome<Option<u64>> {
        let missing = || Failure::new(Code::Internal, "a table was asked for that is not in the plan", "");
        let name = &self.content.tables.get(table.0 as usize).ok_or_else(missing)?.table.name;
        let sql = format!("SELECT count(*) FROM main.{}", quote(name));
        let counted = self.connection.query_row(&sql, [], |row| row.get::<_, i64>(0));
        counted.map(|rows| Some(rows.unsigned_abs())).map_err(|error| failed(&error, &format!("table {name}")))
    }
}

/// An image has no rows, and so no limit of theirs.
fn row_too_long(row_bytes_max: usize) -> Failure {
    let mut failure = sealift_engine_api::row_too_long(row_bytes_max);
    failure.hints.push(MOVE_IMAGE);
    failure
}

/// Refuses a row that is too long before it is encoded any further, and a value that the target
/// would store as another one.
struct Emitting<'a> {
    table: &'a SourceTable,
    encoding: TextEncoding,
    out: &'a mut dyn RowSink,
    /// Of the row whose values are checked, so far.
    row_bytes: usize,
}

impl RowVisitor for Emitting<'_> {
    fn check(&mut self, place: usize, value: Value<'_>) -> Outcome {
        if place == 0 {
            self.row_bytes = 0;
        }
        self.row_bytes += value_bytes(value);
        if self.row_bytes > self.out.row_bytes_max() {
            return Err(row_too_long(self.out.row_bytes_max()));
        }
        match self.table.affinities.get(place) {
            Some(affinity) if affinity.changes(value, self.encoding) => Err(self.table.unstable(place)),
            _ => Ok(()),
        }
    }

    fn checks_whole(&self, place: usize) -> bool {
        self.table.affinities.get(place).is_some_and(|affinity| affinity.may_change_text())
    }

    fn row(&mut self, pieces: &[&[u8]]) -> Outcome {
        self.out.row(pieces)
    }

    fn long_row(&mut self, row: &mut LongRow<'_>) -> Outcome {
        let row_bytes = row.row_bytes();
        if row_bytes > self.out.row_bytes_max() {
            return Err(row_too_long(self.out.row_bytes_max()));
        }
        let table = &self.table.table;
        self.out.long_row(row_bytes, row, &|error| failed(&error_of(error), &format!("table {}", table.name)))
    }

    fn failure(&self, error: rusqlite::Error) -> Failure {
        match error.sqlite_error_code() {
            Some(ErrorCode::TooBig) => row_too_long(self.out.row_bytes_max()),
            _ => failed(&error, &format!("table {}", self.table.table.name)),
        }
    }
}

#[cfg(test)]
mod tests;
