//! The staged database while it is loaded: its connection, its schema, its ledger.

use std::collections::HashSet;

use rusqlite::{Connection, OpenFlags, limits::Limit};
use sealift_protocol::{
    close::Code,
    failure::{Failure, Outcome},
    id::PartIndex,
    manifest::Plan,
    receive::WholePart,
};

use super::{
    Turn,
    failure::{definition_failed, failed},
    group::Group,
    ledger::{self, Bond, LINE_BYTES_MAX, Ledger, Line},
    shelf::{LINES_MAX, Shelf},
};
use crate::{
    Cause, Refused, begin_loading, define_virtual, distrust,
    document::{DOCUMENT_BYTES_MAX, Definition, FinishDocument, SchemaDocument, Table, is_internal},
    end_loading,
    fail_point::{PART_COMMITTED, PART_WRITTEN, hit},
    make_index, make_table, make_trigger, make_view, with_writable_schema,
};

/// Page cache of the loading connection. What does not fit is written to the staging file before
/// the commit.
const CACHE_KIB: i32 = 16 << 10;

/// What a row may be longer in the engine's record than in its encoding, and definitions besides;
/// also a line of the ledger with a document.
const LENGTH_SLACK_BYTES: usize = DOCUMENT_BYTES_MAX + LINE_BYTES_MAX;

/// The staged database, open for loading.
pub struct Load {
    pub connection: Connection,
    pub schema: SchemaDocument,
    pub finish: Option<FinishDocument>,
    bond: Bond,
    /// What the open transaction holds of earlier parts.
    group: Group,
}

impl Load {
    /// Makes the schema, in one transaction with the part's line in the ledger.
    pub fn create(turn: &Turn<'_>, schema: SchemaDocument, bytes: &[u8], whole: &WholePart) -> Outcome<Self> {
        let staging = &turn.shared.staging;
        staging.check(turn.shared.identity)?;
        let mut connection = Connection::open_with_flags(staging.file(), flags()).map_err(engine)?;
        turn.interruptible_by(connection.get_interrupt_handle())?;
        shape(&connection, &schema).map_err(engine)?;
        configure(&connection, turn.shared.row_bytes_max).map_err(engine)?;
        connection.execute_batch("BEGIN IMMEDIATE").map_err(engine)?;
        make(&mut connection, &schema)?;
        let load = Load { connection, schema, finish: None, bond: turn.shared.bond, group: Group::default() };
        load.commit(&Line { part: whole, rows: 0, document: Some(bytes) })?;
        Ok(load)
    }

    /// Resumes what an earlier process has committed. The connection is configured, and nobody
    /// else has the file.
    pub fn resume(connection: Connection, bond: Bond, ledger: Ledger) -> Self {
        let Ledger { schema, finish, .. } = ledger;
        Self { connection, schema, finish, bond, group: Group::default() }
    }

    /// Begins a transaction. There is none: what shared one is committed before.
    pub fn begin(&self) -> Outcome {
        self.connection.execute_batch("BEGIN IMMEDIATE").map_err(engine)
    }

    /// Begins a part that may share its commit with others.
    pub fn begin_shared(&mut self) -> Outcome {
        self.group.begin_part(&self.connection).map_err(engine)
    }

    /// Writes the line of such a part. Returns whether its transaction may stay open for another
    /// one.
    pub fn end_shared(&mut self, line: &Line<'_>) -> Outcome<bool> {
        ledger::note(&self.connection, &self.bond, line)?;
        let part = line.part.part;
        let bytes = line.part.plain_bytes;
        self.group.end_part(&self.connection, part, bytes).map_err(engine)?;
        hit(PART_WRITTEN);
        Ok(self.group.has_room())
    }

    /// How many parts wait for a commit.
    pub fn shared(&self) -> usize {
        self.group.parts().len()
    }

    /// Commits the parts that wait for it, and returns them. When this returns, they are on the
    /// disk.
    pub fn commit_shared(&mut self) -> Outcome<Vec<PartIndex>> {
        let committed = self.group.commit(&self.connection).map_err(engine)?;
        if !committed.is_empty() {
            hit(PART_COMMITTED);
        }
        Ok(committed)
    }

    /// Writes the part's line in the ledger and commits. When this returns, the part is on the
    /// disk.
    pub fn commit(&self, line: &Line<'_>) -> Outcome {
        ledger::note(&self.connection, &self.bond, line)?;
        self.end_part()
    }

    fn end_part(&self) -> Outcome {
        hit(PART_WRITTEN);
        self.connection.execute_batch("COMMIT").map_err(engine)?;
        hit(PART_COMMITTED);
        Ok(())
    }

    /// Undoes the part that was being written.
    pub fn undo_part(&mut self) {
        // If it fails, the transaction ends with the connection or at the next opening of the file.
        let _ = self.group.undo_part(&self.connection);
    }

    pub fn complete(&mut self, document: FinishDocument, bytes: &[u8], whole: &WholePart) -> Outcome {
        self.begin()?;
        // The line in the ledger is the last row written; what could be triggered comes after it.
        let line = Line { part: whole, rows: 0, document: Some(bytes) };
        ledger::note(&self.connection, &self.bond, &line)?;
        end_loading(&self.connection, &ordinary(&self.schema)).map_err(definition_failed)?;
        make_last(&mut self.connection, &self.schema, &document)?;
        self.end_part()?;
        self.finish = Some(document);
        Ok(())
    }

    /// Ends the load, with everything committed in the one file.
    pub fn close(mut self) -> Outcome<(SchemaDocument, Option<FinishDocument>)> {
        // As above.
        let _ = self.group.roll_back(&self.connection);
        close(self.connection)?;
        Ok((self.schema, self.finish))
    }
}

const STAGING: &str = "the staging file";

fn engine(error: rusqlite::Error) -> Failure {
    failed(&error, STAGING)
}

/// How the file is opened for writing.
pub fn flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW
}

/// Closes a connection that [`configure`] has seen to; its journal goes with it.
pub fn close(connection: Connection) -> Outcome {
    connection.pragma_update(None, "locking_mode", "NORMAL").map_err(engine)?;
    connection.pragma_update(None, "journal_mode", "DELETE").map_err(engine)?;
    connection.close().map_err(|(_, error)| engine(error))
}

/// Before anything else: these hold for a file of which nothing was read or written.
fn shape(connection: &Connection, schema: &SchemaDocument) -> rusqlite::Result<()> {
    connection.pragma_update(None, "encoding", schema.encoding.name())?;
    connection.pragma_update(None, "page_size", schema.page_bytes)?;
    connection.pragma_update(None, "auto_vacuum", schema.auto_vacuum)
}

/// What a connection that writes keeps to.
pub fn configure(connection: &Connection, row_bytes_max: usize) -> rusqlite::Result<()> {
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

/// What every connection to a staged database keeps to.
pub fn guard(connection: &Connection, row_bytes_max: usize) -> rusqlite::Result<()> {
    distrust(connection)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "mmap_size", 0)?;
    let length = i32::try_from(row_bytes_max.saturating_add(LENGTH_SLACK_BYTES)).unwrap_or(i32::MAX);
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, length)?;
    connection.set_limit(Limit::SQLITE_LIMIT_SQL_LENGTH, DOCUMENT_BYTES_MAX as i32).map(drop)
}

/// Makes everything but rows, views and triggers, ready for the rows.
pub fn make(connection: &mut Connection, schema: &SchemaDocument) -> Outcome {
    check_names(names(schema))?;
    connection.pragma_update(None, "application_id", schema.application_id).map_err(engine)?;
    connection.pragma_update(None, "user_version", schema.user_version).map_err(engine)?;
    if schema.default_cache_size > 0 {
        connection.pragma_update(None, "default_cache_size", schema.default_cache_size).map_err(engine)?;
        // It is for those who open the target, not for this connection.
        connection.pragma_update(None, "cache_size", -CACHE_KIB).map_err(engine)?;
    }
    ledger::create(connection)?;
    let ordinary = ordinary(schema);
    let mut shelf = Shelf::default();
    for table in &ordinary {
        make_table(connection, table).map_err(definition_failed)?;
        make_indexes(connection, table, &mut shelf)?;
        shelf.end_table(connection).map_err(engine)?;
    }
    for table in schema.tables.iter().filter(|table| is_internal(&table.name)) {
        // `SchemaDocument` has checked that the text is SQLite's own. AUTOINCREMENT may have made
        // its table already.
        let exists = "SELECT EXISTS(SELECT 1 FROM sqlite_schema WHERE name = ?1)";
        let made = shelf.holds(&table.name);
        if !made && !connection.query_row(exists, [&table.name], |row| row.get(0)).map_err(engine)? {
            with_writable_schema(connection, |connection| connection.execute_batch(&table.sql)).map_err(engine)?;
        }
        make_indexes(connection, table, &mut shelf)?;
    }
    for table in &schema.virtual_tables {
        let defined = define_virtual(connection, table);
        defined.map_err(|cause| definition_failed(Refused::new(&table.name, cause)))?;
        shelf.count(connection).map_err(engine)?;
    }
    shelf.put_back(connection).map_err(engine)?;
    begin_loading(connection, &ordinary).map_err(definition_failed)
}

/// Made while the table is empty, an index that cannot be made fails before a row is sent.
fn make_indexes(connection: &mut Connection, table: &Table, shelf: &mut Shelf) -> Outcome {
    for index in &table.indexes {
        make_index(connection, index, &table.name).map_err(definition_failed)?;
        shelf.count(connection).map_err(engine)?;
    }
    Ok(())
}

/// Makes views and triggers. A view refers to nothing before it is used; a trigger to its table or
/// view.
pub fn make_last(connection: &mut Connection, schema: &SchemaDocument, document: &FinishDocument) -> Outcome {
    check_names(names(schema).chain(document.views.iter().map(|view| &*view.name)))?;
    check_names(document.triggers.iter().map(|trigger| &*trigger.name))?;
    let mut shelf = Shelf::default();
    for views in document.views.chunks(LINES_MAX) {
        shelf.leave(connection, std::iter::empty()).map_err(engine)?;
        views.iter().try_for_each(|view| make_view(connection, view)).map_err(definition_failed)?;
    }
    for triggers in document.triggers.chunks(LINES_MAX) {
        shelf.leave(connection, triggers.iter().map(Definition::table)).map_err(engine)?;
        triggers.iter().try_for_each(|trigger| make_trigger(connection, trigger)).map_err(definition_failed)?;
    }
    shelf.put_back(connection).map_err(engine)
}

/// The names of tables and indexes, which share one space with views.
fn names(schema: &SchemaDocument) -> impl Iterator<Item = &str> {
    let virtual_tables = schema.virtual_tables.iter().map(|table| &*table.name);
    schema.tables.iter().flat_map(names_of_table).chain(virtual_tables)
}

fn names_of_table(table: &Table) -> impl Iterator<Item = &str> {
    let automatic = table.automatic_indexes.iter().map(String::as_str);
    std::iter::once(&*table.name).chain(automatic).chain(table.indexes.iter().map(|index| &*index.name))
}

/// That no two objects have one name, in whatever case. The engine would not see it, since it knows
/// only some of them at a time.
fn check_names<'a>(names: impl Iterator<Item = &'a str>) -> Outcome {
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(name.to_ascii_lowercase()) {
            return Err(definition_failed(Refused::new(name, Cause::MakesOther)));
        }
    }
    Ok(())
}

/// The tables that are not SQLite's own.
fn ordinary(schema: &SchemaDocument) -> Vec<&Table> {
    schema.tables.iter().filter(|table| !is_internal(&table.name)).collect()
}

pub fn check_plan(plan: &Plan, schema: &SchemaDocument) -> Outcome {
    let planned = plan.tables.iter().map(|table| (&table.name, table.internal));
    if planned.eq(schema.tables.iter().map(|table| (&table.name, is_internal(&table.name)))) {
        return Ok(());
    }
    Err(Failure::new(Code::PlanRefused, "the tables of the plan are not those of the schema", "Report this."))
}
