//! What a staged database says of itself: whose load it is, and what is committed. A part's line is
//! written in the transaction of its rows, so that each is there exactly when the other is. The
//! lines of schema and finish carry their documents: a catalogue does not tell which rowids are
//! carried, nor which indexes still have to be made.

use rusqlite::{Connection, Error, ErrorCode, Row, params};
use sealift_protocol::{
    close::Code,
    digest::Root,
    failure::{Failure, Outcome},
    id::{ChunkCount, PartIndex, TransferId},
    limits::PARTS_MAX,
    receive::WholePart,
};

use super::failure::failed;
use crate::document::{FinishDocument, LEDGER_TABLE, SchemaDocument};

/// What a line holds beside a document.
pub const LINE_BYTES_MAX: usize = 1 << 10;

const LEDGER: &str = "the ledger";

/// The transfer that a load belongs to, and the plan that its parts are numbered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bond {
    pub transfer: TransferId,
    pub plan_hash: [u8; 32],
}

/// What is committed of one part.
pub struct Line<'a> {
    pub part: &'a WholePart,
    /// For people alone, who are told how far a load is: what it proves is counted from the table.
    pub rows: u64,
    /// The bytes of a schema or finish part.
    pub document: Option<&'a [u8]>,
}

/// Every line, read again. Without the schema part there is no ledger.
pub struct Ledger {
    pub parts: Vec<WholePart>,
    /// Of all parts.
    pub rows: u64,
    pub schema: SchemaDocument,
    pub finish: Option<FinishDocument>,
}

impl Ledger {
    /// Whether no part is missing.
    pub fn is_whole(&self) -> bool {
        // The finish is the last part, and is committed after all others. Lines are unique and in
        // order: none is missing if the last has the last place. A table has a part at least.
        let parts = self.parts.len();
        let ends = self.parts.last().is_some_and(|last| last.part.0 as usize == parts - 1);
        ends && parts >= self.schema.tables.len() + 2 && self.finish.is_some()
    }
}

pub fn create(connection: &Connection) -> Outcome {
    let sql = format!(
        "CREATE TABLE main.{LEDGER_TABLE}(part INTEGER PRIMARY KEY, transfer BLOB, plan_hash BLOB, chunks INT, \
         plain_bytes INT, root BLOB, document BLOB, rows INT)"
    );
    connection.execute_batch(&sql).map_err(|error| failed(&error, LEDGER))
}

/// Writes a part's line in the transaction that is open.
pub fn note(connection: &Connection, bond: &Bond, line: &Line<'_>) -> Outcome {
    let sql = format!("INSERT INTO main.{LEDGER_TABLE} VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)");
    let part = line.part;
    let values = params![
        part.part.0,
        bond.transfer.0,
        bond.plan_hash,
        part.chunks.0.cast_signed(),
        part.plain_bytes.cast_signed(),
        part.root.0,
        line.document,
        line.rows.cast_signed(),
    ];
    connection.execute(&sql, values).map(drop).map_err(|error| failed(&error, LEDGER))
}

/// Whose load it is. `None` for one of nobody's: without a line, or with a ledger of another
/// version.
pub fn bond(connection: &Connection) -> Outcome<Option<Bond>> {
    let sql = format!("SELECT DISTINCT transfer, plan_hash FROM main.{LEDGER_TABLE} LIMIT 2");
    let read = || -> rusqlite::Result<Vec<Bond>> {
        let mut statement = connection.prepare(&sql)?;
        let lines =
            statement.query_map([], |row| Ok(Bond { transfer: TransferId(row.get(0)?), plan_hash: row.get(1)? }))?;
        lines.collect()
    };
    match read() {
        Ok(bonds) if bonds.len() > 1 => Err(corrupt()),
        Ok(bonds) => Ok(bonds.first().copied()),
        // No such column.
        Err(Error::SqlInputError { .. }) => Ok(None),
        Err(error) => Err(unreadable(error)),
    }
}

/// Reads all lines of a ledger that has any.
pub fn read(connection: &Connection) -> Outcome<Ledger> {
    let sql = format!("SELECT part, chunks, plain_bytes, root, document, rows FROM main.{LEDGER_TABLE} ORDER BY part");
    let mut statement = connection.prepare(&sql).map_err(unreadable)?;
    let mut rows = statement.query([]).map_err(unreadable)?;
    let (mut parts, mut schema, mut finish, mut all_rows) = (Vec::new(), None, None, 0u64);
    while let Some(row) = rows.next().map_err(unreadable)? {
        let (whole, document) = line(row).map_err(unreadable)?;
        all_rows = all_rows.saturating_add(row.get::<_, i64>(5).map_err(unreadable)?.cast_unsigned());
        match (&schema, document) {
            (None, Some(bytes)) if whole.part.0 == 0 => {
                schema = Some(SchemaDocument::from_bytes(&bytes).map_err(|_| corrupt())?);
            }
            (Some(_), Some(bytes)) if finish.is_none() => {
                finish = Some(FinishDocument::from_bytes(&bytes).map_err(|_| corrupt())?);
            }
            // What follows the finish, or comes before the schema, cannot have been committed.
            (Some(_), None) if finish.is_none() => {}
            _ => return Err(corrupt()),
        }
        parts.push(whole);
        if parts.len() > PARTS_MAX {
            return Err(corrupt());
        }
    }
    let schema = schema.ok_or_else(corrupt)?;
    let ledger = Ledger { parts, rows: all_rows, schema, finish };
    // The finish comes last of all.
    if ledger.finish.is_some() && !ledger.is_whole() { Err(corrupt()) } else { Ok(ledger) }
}

fn line(row: &Row<'_>) -> rusqlite::Result<(WholePart, Option<Vec<u8>>)> {
    let number = |index| row.get::<_, i64>(index).map(i64::cast_unsigned);
    let whole = WholePart {
        part: PartIndex(row.get(0)?),
        chunks: ChunkCount(number(1)?),
        plain_bytes: number(2)?,
        root: Root(row.get(3)?),
    };
    Ok((whole, row.get(4)?))
}

/// Takes the ledger out, so that the file holds what the source holds and nothing else.
pub fn drop_table(connection: &Connection) -> Outcome {
    connection.execute_batch(&format!("DROP TABLE main.{LEDGER_TABLE}")).map_err(|error| failed(&error, LEDGER))
}

fn unreadable(error: Error) -> Failure {
    match error.sqlite_error_code() {
        // Without a code: a value of a type that was never written.
        None | Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt | ErrorCode::TooBig) => corrupt(),
        Some(_) => failed(&error, LEDGER),
    }
}

/// A corrupt ledger is neither dropped nor built upon: the operator loses nothing by looking at it,
/// and learns that a disk or a program is at fault.
pub fn corrupt() -> Failure {
    let what = "the ledger in the staging file says what cannot be: another program or a bad disk changed it";
    Failure::new(Code::TargetFailed, what, "Check the disk, remove the staging file, and start again.")
}
