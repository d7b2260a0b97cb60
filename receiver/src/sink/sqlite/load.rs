//! The staged database while it is loaded: its connection, its schema, its ledger.

use rusqlite::{Connection, OpenFlags, config::DbConfig, limits::Limit, params};
use sealift_agent::failure::{Failure, Outcome};
use sealift_protocol::{
    chunk::VerifiedChunk,
    close::Code,
    id::PartIndex,
    manifest::{PartKind, Plan},
    receive::WholePart,
    sqlite::{DOCUMENT_BYTES_MAX, Definition, FinishDocument, LEDGER_TABLE, SchemaDocument, Table, is_internal, quote},
};

use super::{
    Done, Turn,
    define::{Kind, define, define_virtual, with_writable_schema},
    failure::failed,
    out_of_order,
    prove::catalogue_difference,
};
use crate::sink::PartSink;

/// Page cache of the loading connection. What does not fit is written to the staging file before the commit.
const CACHE_KIB: i32 = 16 << 10;

/// What a row may be longer in the engine's record than in its encoding, and definitions besides.
const LENGTH_SLACK_BYTES: usize = DOCUMENT_BYTES_MAX;

/// The staged database, open for loading.
pub struct Load {
    pub connection: Connection,
    pub schema: SchemaDocument,
    pub finish: Option<FinishDocument>,
    /// For each table the indexes that wait for its rows.
    pub waiting: Vec<Vec<Definition>>,
}

impl Load {
    /// Makes the schema, in one transaction with the part's line in the ledger.
    fn create(turn: &Turn<'_>, schema: SchemaDocument, part: PartIndex, chunks: u64) -> Outcome<Self> {
        let staging = &turn.sink.staging;
        staging.check(turn.prepared.identity)?;
        let engine = |error: rusqlite::Error| failed(&error, STAGING);
        let flags =
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let mut connection = Connection::open_with_flags(staging.file(), flags).map_err(engine)?;
        turn.interruptible_by(connection.get_interrupt_handle())?;
        configure(&connection, &schema, turn.sink.row_bytes_max).map_err(engine)?;
        connection.execute_batch("BEGIN IMMEDIATE").map_err(engine)?;
        let load = make(&mut connection, &schema).map(|waiting| Load { connection, schema, finish: None, waiting })?;
        load.commit(part, chunks, 0, None)?;
        // Makes the connection read the catalogue as it now is.
        load.connection.execute_batch("PRAGMA writable_schema=RESET").map_err(engine)?;
        Ok(load)
    }

    pub fn begin(&self) -> Outcome {
        self.connection.execute_batch("BEGIN IMMEDIATE").map_err(|error| failed(&error, STAGING))
    }

    /// Writes the part's line in the ledger and commits. When this returns, the part is on the disk.
    pub fn commit(&self, part: PartIndex, chunks: u64, rows: u64, digest: Option<&[u8]>) -> Outcome {
        self.note(part, chunks, rows, digest)?;
        self.connection.execute_batch("COMMIT").map_err(|error| failed(&error, STAGING))
    }

    fn note(&self, part: PartIndex, chunks: u64, rows: u64, digest: Option<&[u8]>) -> Outcome {
        let sql = format!("INSERT INTO main.{LEDGER_TABLE}(part, chunks, rows, digest) VALUES(?1, ?2, ?3, ?4)");
        self.connection
            .execute(&sql, params![part.0, chunks.cast_signed(), rows.cast_signed(), digest])
            .map(drop)
            .map_err(|error| failed(&error, "the ledger"))
    }

    pub fn roll_back(&self) {
        if !self.connection.is_autocommit() {
            // If it fails, the transaction ends with the connection or at the next opening of the file.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }

    /// Builds the indexes that waited for rows of this table.
    pub fn build_indexes(&mut self, table: usize) -> Outcome {
        for definition in std::mem::take(&mut self.waiting[table]) {
            define(&mut self.connection, Kind::Index, &definition, &self.schema.tables[table].name)?;
        }
        Ok(())
    }

    fn complete(&mut self, document: FinishDocument, part: PartIndex, chunks: u64) -> Outcome {
        self.begin()?;
        // The line in the ledger is the last row written; what could be triggered comes after it.
        self.note(part, chunks, 0, None)?;
        for view in &document.views {
            define(&mut self.connection, Kind::View, view, &view.name)?;
        }
        for trigger in &document.triggers {
            define(&mut self.connection, Kind::Trigger, trigger, &trigger.name)?;
        }
        self.connection.execute_batch("COMMIT").map_err(|error| failed(&error, STAGING))?;
        self.finish = Some(document);
        Ok(())
    }
}

const STAGING: &str = "the staging file";

fn configure(connection: &Connection, schema: &SchemaDocument, row_bytes_max: usize) -> rusqlite::Result<()> {
    // These three before anything else: they hold for a file of which nothing was read or written.
    connection.pragma_update(None, "encoding", schema.encoding.name())?;
    connection.pragma_update(None, "page_size", schema.page_bytes)?;
    connection.pragma_update(None, "auto_vacuum", schema.auto_vacuum)?;
    // Never released: nobody else can even look into the file before it is proven.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "journal_mode", "TRUNCATE")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    // The rows are as the source has them, and so is what they violate.
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.pragma_update(None, "ignore_check_constraints", true)?;
    guard(connection, row_bytes_max)
}

/// What both connections to a staged database keep to.
pub fn guard(connection: &Connection, row_bytes_max: usize) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
    // A name that is no column is then an error and never a string.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    connection.set_limit(Limit::SQLITE_LIMIT_WORKER_THREADS, 0)?;
    let length = i32::try_from(row_bytes_max.saturating_add(LENGTH_SLACK_BYTES)).unwrap_or(i32::MAX);
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, length)?;
    connection.set_limit(Limit::SQLITE_LIMIT_SQL_LENGTH, DOCUMENT_BYTES_MAX as i32).map(drop)
}

/// Makes everything but rows, views and triggers; returns for each table the indexes that may wait for its rows.
fn make(connection: &mut Connection, schema: &SchemaDocument) -> Outcome<Vec<Vec<Definition>>> {
    let engine = |error: rusqlite::Error| failed(&error, STAGING);
    connection.pragma_update(None, "application_id", schema.application_id).map_err(engine)?;
    connection.pragma_update(None, "user_version", schema.user_version).map_err(engine)?;
    let ledger = format!("CREATE TABLE {LEDGER_TABLE}(part INTEGER PRIMARY KEY, chunks INT, rows INT, digest BLOB)");
    connection.execute_batch(&ledger).map_err(engine)?;
    let (internal, ordinary): (Vec<&Table>, Vec<&Table>) =
        schema.tables.iter().partition(|table| is_internal(&table.name));
    for table in ordinary {
        let definition = Definition { name: table.name.clone(), sql: table.sql.clone() };
        define(connection, Kind::Table, &definition, &table.name)?;
    }
    for table in internal {
        // `SchemaDocument` has judged that the text is SQLite's own. AUTOINCREMENT may have made its table already.
        let exists = "SELECT EXISTS(SELECT 1 FROM sqlite_schema WHERE name = ?1)";
        if !connection.query_row(exists, [&table.name], |row| row.get(0)).map_err(engine)? {
            with_writable_schema(connection, |connection| connection.execute_batch(&table.sql)).map_err(engine)?;
        }
    }
    for definition in &schema.virtual_tables {
        define_virtual(connection, definition)?;
    }
    for table in &schema.tables {
        // Made while the table is empty, an index that cannot be made fails before a row is sent.
        for index in &table.indexes {
            define(connection, Kind::Index, index, &table.name)?;
        }
    }
    if let Some(name) = catalogue_difference(connection, schema, None)? {
        let what = format!("SQLite spells the definition of {name} otherwise than the source does");
        let next = "The source's schema was edited by hand. Make the object anew on the source and start again.";
        return Err(Failure::new(Code::TargetFailed, what, next));
    }
    schema.tables.iter().map(|table| drop_waiting(connection, table)).collect()
}

/// Drops again the indexes that are faster built by sorting, once the rows are there.
fn drop_waiting(connection: &Connection, table: &Table) -> Outcome<Vec<Definition>> {
    let mut waiting = Vec::new();
    for definition in &table.indexes {
        let engine = |error: rusqlite::Error| failed(&error, &definition.name);
        if may_wait(connection, definition, table).map_err(engine)? {
            connection.execute_batch(&format!("DROP INDEX main.{}", quote(&definition.name))).map_err(engine)?;
            waiting.push(definition.clone());
        }
    }
    Ok(waiting)
}

/// Sorting holds the index's entries in memory. They are bounded by the rows' bytes only if each is made of columns that
/// rows carry, each at most once: not of expressions or generated columns, which may be of any length.
fn may_wait(connection: &Connection, index: &Definition, table: &Table) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare("SELECT cid, name FROM pragma_index_xinfo(?1, 'main')")?;
    let mut rows = statement.query([&index.name])?;
    let mut seen: Vec<String> = Vec::new();
    while let Some(row) = rows.next()? {
        let (column, name): (i32, Option<String>) = (row.get(0)?, row.get(1)?);
        match name {
            // The rowid.
            _ if column == -1 => {}
            Some(name) if column >= 0 && table.columns.contains(&name) && !seen.contains(&name) => seen.push(name),
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// Gathers a schema or finish part.
pub struct DocumentLoad<'a> {
    turn: Turn<'a>,
    part: PartIndex,
    kind: PartKind,
    bytes: Vec<u8>,
    chunks: u64,
    ended: bool,
}

impl<'a> DocumentLoad<'a> {
    pub fn new(turn: Turn<'a>, part: PartIndex, kind: PartKind) -> Self {
        Self { turn, part, kind, bytes: Vec::new(), chunks: 0, ended: false }
    }
}

impl PartSink for DocumentLoad<'_> {
    fn write(&mut self, chunk: &VerifiedChunk) -> Outcome {
        self.turn.sink.check_stop()?;
        if self.bytes.len() + chunk.plain().len() > DOCUMENT_BYTES_MAX {
            let what = format!("the schema of the source is over {DOCUMENT_BYTES_MAX} bytes");
            return Err(Failure::new(Code::LimitExceeded, what, "Split the database.").at_part(self.part));
        }
        self.bytes.extend_from_slice(chunk.plain());
        (self.chunks, self.ended) = (self.chunks + 1, chunk.is_last());
        Ok(())
    }

    fn finish(self: Box<Self>, _whole: &WholePart) -> Outcome {
        let Self { mut turn, part, kind, bytes, chunks, ended } = *self;
        let load = |turn: &mut Turn<'_>| {
            check_ended(ended)?;
            turn.sink.check_stop()?;
            if kind == PartKind::Finish {
                return turn.load()?.complete(FinishDocument::from_bytes(&bytes)?, part, chunks);
            }
            let schema = SchemaDocument::from_bytes(&bytes)?;
            check_plan(&turn.prepared.plan, &schema)?;
            turn.load = Some(Load::create(turn, schema, part, chunks)?);
            Ok(())
        };
        load(&mut turn).map_err(|failure| failure.at_part(part))?;
        turn.done = Done::Part(part);
        Ok(())
    }
}

/// A part is only whole with the chunk that says it is the last.
pub fn check_ended(ended: bool) -> Outcome {
    if ended { Ok(()) } else { Err(out_of_order()) }
}

fn check_plan(plan: &Plan, schema: &SchemaDocument) -> Outcome {
    let planned = plan.parts.iter().filter(|part| part.kind == PartKind::Rows).map(|part| &part.name);
    if planned.eq(schema.tables.iter().map(|table| &table.name)) {
        return Ok(());
    }
    Err(Failure::new(Code::PlanRefused, "the tables of the plan are not those of the schema", "Report this."))
}

/// A part that is committed already: it is taken again and changes nothing.
pub struct Repeated;

impl PartSink for Repeated {
    fn write(&mut self, _: &VerifiedChunk) -> Outcome {
        Ok(())
    }

    fn finish(self: Box<Self>, _whole: &WholePart) -> Outcome {
        Ok(())
    }
}
