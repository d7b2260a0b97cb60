//! Reading the staged database again.
//!
//! The loading connection is closed first, so that what is read comes from the file, which from
//! then on nobody writes. Each table is read as the source reads it, and counted and digested. The
//! catalogue must be, entry for entry, what the source sent, beside the ledger, which stays until
//! the load is published. Indexes are not read: they were built by SQLite from these tables, and
//! hold nothing of their own; that the source's hold the same was checked there.

use std::io::Read;

use rusqlite::{Connection, OpenFlags};
use sealift_engine_api::out_of_order;
use sealift_protocol::{
    close::Code,
    digest::MultisetDigest,
    failure::{Failure, Outcome},
    id::{PartIndex, TableIndex},
    manifest::{CatalogueCheck, Check, Evidence, Plan, Proof},
};

use super::{Turn, failure::failed, load::guard};
use crate::{
    document::{Definition, FinishDocument, LEDGER_TABLE, SchemaDocument, Table},
    fail_point::{MARKED, PROVEN, hit},
    stored::{LongRow, RowVisitor, Scan, error_of},
};

/// Page cache for reading again: each page is read once.
const CACHE_KIB: i32 = 8 << 10;

/// Rows that are read before the stop token is asked again.
const ROWS_BETWEEN_QUESTIONS: u64 = 1024;

/// What is read at once of a long row.
const READ_BYTES: usize = 256 << 10;

const STAGING: &str = "the staging file";

/// Ends the load, and says table by table what the file holds.
pub fn prove(turn: &mut Turn<'_>) -> Outcome<Evidence> {
    let engine = |error: rusqlite::Error| failed(&error, STAGING);
    let shared = turn.shared;
    let identity = shared.identity;
    let load = turn.load.take().ok_or_else(out_of_order)?;
    // From here on the file is nobody's to the engine; the mark keeps others out.
    shared.staging.mark_finished(shared.bond.transfer, identity)?;
    hit(MARKED);
    let (schema, finish) = load.close()?;
    let finish = finish.ok_or_else(out_of_order)?;
    shared.staging.sync()?;
    shared.staging.check(identity)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(shared.staging.file(), flags).map_err(engine)?;
    turn.interruptible_by(connection.get_interrupt_handle())?;
    guard(&connection, shared.row_bytes_max).map_err(engine)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB).map_err(engine)?;
    connection.pragma_update(None, "cell_size_check", true).map_err(engine)?;
    connection.execute_batch("BEGIN").map_err(engine)?;
    let definitions = check_catalogue(&connection, &schema, &finish)?;
    let mut tables = Vec::with_capacity(schema.tables.len());
    for (place, table) in schema.tables.iter().enumerate() {
        let mut digest = turn.digests.multiset();
        let scan = Scan { connection: &connection, table, range: None, encoding: schema.encoding };
        scan.read_rows(&mut ReadingAgain { turn, table, digest: &mut digest })
            .map_err(|failure| failure.at_part(first_part(&shared.plan, TableIndex(place as u32))))?;
        tables.push(digest.digest());
    }
    // Still the same file, or what was read is not what would be published.
    drop(connection);
    shared.staging.check(identity)?;
    hit(PROVEN);
    let checks = vec![Check::Catalogue(CatalogueCheck { definitions })];
    Ok(Evidence { tables, checks, ..Evidence::bare(Proof::RowsReadBack) })
}

/// The part of a table, or its first range.
fn first_part(plan: &Plan, table: TableIndex) -> PartIndex {
    let place = plan.parts.iter().position(|part| part.table == Some(table));
    PartIndex(place.unwrap_or_default() as u32)
}

/// Returns the number of definitions.
fn check_catalogue(connection: &Connection, schema: &SchemaDocument, finish: &FinishDocument) -> Outcome<u64> {
    let expected = definitions(schema, finish);
    let Some(name) = catalogue_difference(connection, &expected)? else { return Ok(expected.len() as u64) };
    let what = format!("the definition of {name} in the staged database is not what the source sent");
    Err(Failure::new(Code::TargetMismatch, what, "The load was dropped. Look for other programs that write there."))
}

/// Type, name, table and text of an entry. An index of a constraint has no text.
type Entry<'a> = (&'a str, &'a str, &'a str, Option<&'a str>);

/// What the documents say, in order.
fn definitions<'a>(schema: &'a SchemaDocument, finish: &'a FinishDocument) -> Vec<Entry<'a>> {
    let mut expected: Vec<Entry<'_>> = Vec::new();
    for table in &schema.tables {
        expected.push(("table", &table.name, &table.name, Some(&table.sql)));
        expected.extend(table.automatic_indexes.iter().map(|index| ("index", &**index, &*table.name, None)));
        expected.extend(entries("index", &table.indexes));
    }
    expected.extend(entries("table", &schema.virtual_tables));
    expected.extend(entries("view", &finish.views));
    expected.extend(entries("trigger", &finish.triggers));
    expected.sort_unstable();
    expected
}

/// The first entry, the ledger's aside, that is not in both the catalogue and the documents.
fn catalogue_difference(connection: &Connection, expected: &[Entry<'_>]) -> Outcome<Option<String>> {
    let engine = |error: rusqlite::Error| failed(&error, STAGING);
    let sql = "SELECT type, name, tbl_name, sql FROM main.sqlite_schema WHERE name <> ?1";
    let mut statement = connection.prepare(sql).map_err(engine)?;
    let rows = statement
        .query_map([LEDGER_TABLE], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .map_err(engine)?;
    let found = rows.collect::<rusqlite::Result<Vec<(String, String, String, Option<String>)>>>().map_err(engine)?;
    let mut found: Vec<Entry<'_>> =
        found.iter().map(|(kind, name, table, sql)| (&**kind, &**name, &**table, sql.as_deref())).collect();
    found.sort_unstable();
    let mut found = found.into_iter();
    let mut expected = expected.iter().copied();
    loop {
        match (expected.next(), found.next()) {
            (None, None) => return Ok(None),
            (expected, found) if expected == found => {}
            (expected, found) => return Ok(expected.or(found).map(|(_, name, ..)| name.to_owned())),
        }
    }
}

fn entries<'a>(kind: &'a str, definitions: &'a [Definition]) -> impl Iterator<Item = Entry<'a>> {
    definitions
        .iter()
        .map(move |definition| (kind, &*definition.name, definition.table(), Some(definition.sql.as_str())))
}

/// Counts and digests the rows of a table.
struct ReadingAgain<'a> {
    turn: &'a Turn<'a>,
    table: &'a Table,
    digest: &'a mut MultisetDigest,
}

impl RowVisitor for ReadingAgain<'_> {
    fn row(&mut self, pieces: &[&[u8]]) -> Outcome {
        match self.digest.rows().is_multiple_of(ROWS_BETWEEN_QUESTIONS) {
            true => self.turn.shared.check_stop()?,
            false => self.turn.shared.check_stopped()?,
        }
        self.digest.add_pieces(pieces);
        Ok(())
    }

    fn long_row(&mut self, row: &mut LongRow<'_>) -> Outcome {
        let mut hasher = self.digest.begin_row();
        let mut piece = vec![0; READ_BYTES];
        loop {
            self.turn.shared.check_stop()?;
            match row.read(&mut piece).map_err(|error| self.failure(error_of(error)))? {
                0 => break,
                read => hasher.update(&piece[..read]),
            }
        }
        self.digest.add_row(hasher);
        Ok(())
    }

    fn failure(&self, error: rusqlite::Error) -> Failure {
        failed(&error, &format!("table {}", self.table.name))
    }
}
