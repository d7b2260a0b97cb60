//! What a staged database says of itself, in a schema of its own: whose load it is, and what is
//! committed.
//!
//! A part's line is inserted at the beginning of the transaction that writes its rows and completed
//! at the end: both are there or neither, and another attempt at the part waits for the outcome of
//! this one. So it is with each definition that is made after the rows.

use std::collections::{BTreeMap, BTreeSet};

use sealift_protocol::{
    close::Code,
    digest::Root,
    failure::{Failure, Outcome},
    id::{ChunkCount, PartIndex, TransferId},
    limits::PARTS_MAX,
    receive::WholePart,
};

use crate::client::{At, Connection, End, Result, Row};

/// The schema. A source that has one of this name is refused.
pub const SCHEMA: &str = "sealift";

const WHAT: &str = "the ledger of the load";

/// The unlogged table is emptied by crash recovery, as every unlogged table of the load is.
const CREATE: &str = "
    CREATE SCHEMA sealift;
    REVOKE ALL ON SCHEMA sealift FROM PUBLIC;
    CREATE TABLE sealift.bond (transfer bytea NOT NULL, plan_hash bytea NOT NULL);
    CREATE TABLE sealift.part (
        part int4 PRIMARY KEY, chunks int8, plain_bytes int8, root bytea, rows int8, document bytea,
        transaction int8);
    CREATE TABLE sealift.done (what text PRIMARY KEY);
    CREATE UNLOGGED TABLE sealift.unlogged (is_intact bool NOT NULL);
    INSERT INTO sealift.unlogged VALUES (true);";

/// The transfer that a load belongs to, and the plan that its parts are numbered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bond {
    pub transfer: TransferId,
    pub plan_hash: [u8; 32],
}

/// One part that is committed.
pub struct Line {
    pub whole: WholePart,
    pub rows: u64,
    /// The bytes of a schema or finish part.
    pub document: Option<Vec<u8>>,
}

/// Makes the schema and its tables, in a database that has nothing else.
pub fn create(connection: &mut Connection, bond: &Bond) -> Outcome {
    connection.batch(&format!("BEGIN;{CREATE}")).at(End::Target, WHAT)?;
    let values = "INSERT INTO sealift.bond VALUES ($1, $2)";
    connection.execute(values, &[&&bond.transfer.0[..], &&bond.plan_hash[..]]).at(End::Target, WHAT)?;
    connection.batch("COMMIT").at(End::Target, WHAT)
}

/// Whose load it is; `None` if the database has no ledger.
pub fn bond(connection: &mut Connection) -> Outcome<Option<Bond>> {
    let rows = match connection.query("SELECT transfer, plan_hash FROM sealift.bond", &[]) {
        Ok(rows) => rows,
        // No such schema or table.
        Err(error) if matches!(error.sqlstate(), Some("3F000" | "42P01")) => return Ok(None),
        Err(error) => return Err(error.at(End::Target, WHAT)),
    };
    let [row] = &rows[..] else { return Err(corrupt()) };
    let transfer = TransferId(bytes(row, 0)?.try_into().map_err(|_| corrupt())?);
    let plan_hash = bytes(row, 1)?.try_into().map_err(|_| corrupt())?;
    Ok(Some(Bond { transfer, plan_hash }))
}

/// Every line, in the order of the parts.
pub fn lines(connection: &mut Connection) -> Outcome<Vec<Line>> {
    let sql = "SELECT part, chunks, plain_bytes, root, coalesce(rows, 0), document FROM sealift.part ORDER BY part";
    let rows = connection.query(sql, &[]).at(End::Target, WHAT)?;
    if rows.len() > PARTS_MAX {
        return Err(corrupt());
    }
    rows.iter().map(line).collect()
}

fn line(row: &Row) -> Outcome<Line> {
    let number = |place| row.try_get::<_, i64>(place).map(i64::cast_unsigned).map_err(|_| corrupt());
    let part = row.try_get::<_, i32>(0).map_err(|_| corrupt())?;
    let whole = WholePart {
        part: PartIndex(u32::try_from(part).map_err(|_| corrupt())?),
        chunks: ChunkCount(number(1)?),
        plain_bytes: number(2)?,
        root: Root(bytes(row, 3)?.try_into().map_err(|_| corrupt())?),
    };
    Ok(Line { whole, rows: number(4)?, document: row.try_get(5).map_err(|_| corrupt())? })
}

fn bytes(row: &Row, place: usize) -> Outcome<&[u8]> {
    row.try_get(place).map_err(|_| corrupt())
}

/// Begins the transaction of a part. Returns whether the part is committed already; then there is
/// no transaction. Waits for another attempt at it whose outcome is not known yet.
pub fn begin(connection: &mut Connection, part: PartIndex) -> Result<bool> {
    connection.batch("BEGIN ISOLATION LEVEL READ COMMITTED")?;
    let sql = "INSERT INTO sealift.part (part) VALUES ($1) ON CONFLICT DO NOTHING";
    if connection.execute(sql, &[&part.0.cast_signed()])? == 1 {
        return Ok(false);
    }
    connection.batch("ROLLBACK")?;
    Ok(true)
}

/// Completes the line of a part in its transaction, which stays open. Returns the transaction.
pub fn complete(connection: &mut Connection, whole: &WholePart, rows: u64, document: Option<&[u8]>) -> Result<i64> {
    let sql = "UPDATE sealift.part SET chunks = $2, plain_bytes = $3, root = $4, rows = $5, document = $6, \
               transaction = pg_catalog.txid_current() WHERE part = $1 RETURNING transaction";
    let changed = connection.query_one(
        sql,
        &[
            &whole.part.0.cast_signed(),
            &whole.chunks.0.cast_signed(),
            &whole.plain_bytes.cast_signed(),
            &&whole.root.0[..],
            &rows.cast_signed(),
            &document,
        ],
    )?;
    Ok(changed.try_get(0)?)
}

/// How many rows each transaction has written, by the part that it was of. The number is the one
/// that is stored with a row (`xmin`): without its epoch.
pub fn written(connection: &mut Connection) -> Outcome<BTreeMap<PartIndex, (u32, u64)>> {
    let sql = "SELECT part, transaction, rows FROM sealift.part WHERE rows > 0";
    let rows = connection.query(sql, &[]).at(End::Target, WHAT)?;
    let written = |row: &Row| {
        let part: i32 = row.try_get(0).map_err(|_| corrupt())?;
        let transaction: i64 = row.try_get(1).map_err(|_| corrupt())?;
        let rows: i64 = row.try_get(2).map_err(|_| corrupt())?;
        Ok((PartIndex(part.cast_unsigned()), (transaction as u32, rows.cast_unsigned())))
    };
    rows.iter().map(written).collect()
}

/// Whether the line of a part is there.
pub fn is_committed(connection: &mut Connection, part: PartIndex) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT FROM sealift.part WHERE part = $1)";
    Ok(connection.query_one(sql, &[&part.0.cast_signed()])?.try_get(0)?)
}

/// The document that a part has brought.
pub fn document(connection: &mut Connection, part: PartIndex) -> Outcome<Vec<u8>> {
    let sql = "SELECT document FROM sealift.part WHERE part = $1";
    let row = connection.query_opt(sql, &[&part.0.cast_signed()]).at(End::Target, WHAT)?.ok_or_else(corrupt)?;
    row.try_get(0).map_err(|_| corrupt())
}

/// What is made already of what comes after the rows.
pub fn done(connection: &mut Connection) -> Outcome<BTreeSet<String>> {
    let rows = connection.query("SELECT what FROM sealift.done", &[]).at(End::Target, WHAT)?;
    rows.iter().map(|row| row.try_get(0).map_err(|_| corrupt())).collect()
}

/// Notes one more of them, in the transaction that makes it. Waits for another attempt.
pub fn note_done(connection: &mut Connection, what: &str) -> Result {
    connection.execute("INSERT INTO sealift.done VALUES ($1)", &[&what]).map(drop)
}

/// Whether unlogged tables are as they were written: the server has not crashed meanwhile.
pub fn is_intact(connection: &mut Connection) -> Outcome<bool> {
    let row = connection.query_one("SELECT EXISTS (SELECT FROM sealift.unlogged)", &[]);
    row.and_then(|row| Ok(row.try_get(0)?)).at(End::Target, WHAT)
}

/// The unlogged tables are empty again: so are their parts.
pub fn forget_parts(connection: &mut Connection, parts: &[PartIndex]) -> Outcome {
    let parts: Vec<i32> = parts.iter().map(|part| part.0.cast_signed()).collect();
    connection.batch("BEGIN").at(End::Target, WHAT)?;
    connection.execute("DELETE FROM sealift.part WHERE part = ANY ($1)", &[&parts]).at(End::Target, WHAT)?;
    connection.batch("INSERT INTO sealift.unlogged VALUES (true); COMMIT").at(End::Target, WHAT)
}

/// A corrupt ledger is neither dropped nor built upon.
pub fn corrupt() -> Failure {
    let what = "the ledger in the staging database says what cannot be: another program or a bad disk changed it";
    Failure::new(Code::TargetFailed, what, "Look at the schema sealift there; `abandon` drops the staging database.")
}
