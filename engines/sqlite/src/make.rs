//! Making the objects of a schema, each with the very entry that the source's catalogue has of it.
//!
//! The engine enters a definition in its own spelling: another case of `CREATE TABLE`, other blanks
//! before the name, or a name that differs in its case from that in the text, as another program
//! may have written them, would be lost. So what the engine has entered is compared with what the
//! source has. If it is the same object, the entry is given the source's spelling; if it is
//! another, or there are more or fewer, the definition is refused.

use rusqlite::Connection;

use crate::define::{Cause, Kind, Refused, define, with_writable_schema};
use crate::document::{Definition, SEQUENCE_TABLE, Table};

/// An entry as the source has it.
struct CatalogueEntry<'a> {
    kind: Kind,
    name: &'a str,
    table: &'a str,
    sql: Option<&'a str>,
}

/// An entry that the engine made.
struct Made {
    rowid: i64,
    kind: String,
    name: String,
    table: String,
    sql: Option<String>,
}

/// Makes a table, with the indexes that its constraints make.
pub fn make_table(connection: &mut Connection, table: &Table) -> Result<(), Refused> {
    let own = CatalogueEntry { kind: Kind::Table, name: &table.name, table: &table.name, sql: Some(&table.sql) };
    let automatic = |name| CatalogueEntry { kind: Kind::Index, name, table: &table.name, sql: None };
    let indexes = table.automatic_indexes.iter().map(|name| automatic(name));
    make(connection, &table.name, &std::iter::once(own).chain(indexes).collect::<Vec<_>>())
}

/// Makes an index of the table of that name.
pub fn make_index(connection: &mut Connection, index: &Definition, table: &str) -> Result<(), Refused> {
    make(connection, table, &[entry(Kind::Index, index)])
}

pub fn make_view(connection: &mut Connection, view: &Definition) -> Result<(), Refused> {
    make(connection, &view.name, &[entry(Kind::View, view)])
}

pub fn make_trigger(connection: &mut Connection, trigger: &Definition) -> Result<(), Refused> {
    make(connection, trigger.table(), &[entry(Kind::Trigger, trigger)])
}

fn entry(kind: Kind, definition: &Definition) -> CatalogueEntry<'_> {
    CatalogueEntry { kind, name: &definition.name, table: definition.table(), sql: Some(&definition.sql) }
}

/// Runs the definition of the first of the entries, and sees to it that these are what comes of it.
fn make(connection: &mut Connection, owner: &str, entries: &[CatalogueEntry<'_>]) -> Result<(), Refused> {
    let Some(own) = entries.first() else { return Ok(()) };
    let mut make = || -> Result<(), Cause> {
        let before = last_rowid(connection)?;
        define(connection, own.kind, own.name, own.sql.unwrap_or_default(), owner)?;
        check_made(connection, before, entries)
    };
    make().map_err(|cause| Refused::new(own.name, cause))
}

fn last_rowid(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT coalesce(max(rowid), 0) FROM main.sqlite_schema", [], |row| row.get(0))
}

/// Gives the entries behind the one at `before` the spelling of the source, if they are the same.
fn check_made(connection: &Connection, before: i64, entries: &[CatalogueEntry<'_>]) -> Result<(), Cause> {
    let made = made_since(connection, before)?;
    if made.len() != entries.len() {
        return Err(Cause::MakesOther);
    }
    for entry in entries {
        let is_same = |made: &&Made| {
            made.kind == entry.kind.word()
                && made.name.eq_ignore_ascii_case(entry.name)
                && made.table.eq_ignore_ascii_case(entry.table)
                && made.sql.is_some() == entry.sql.is_some()
        };
        let made = made.iter().find(is_same).ok_or(Cause::MakesOther)?;
        if made.name != entry.name || made.table != entry.table || made.sql.as_deref() != entry.sql {
            let sql = "UPDATE main.sqlite_schema SET name = ?1, tbl_name = ?2, sql = ?3 WHERE rowid = ?4";
            with_writable_schema(connection, |connection| {
                connection.execute(sql, (entry.name, entry.table, entry.sql, made.rowid)).map(drop)
            })?;
        }
    }
    Ok(())
}

fn made_since(connection: &Connection, before: i64) -> rusqlite::Result<Vec<Made>> {
    let sql = "SELECT rowid, type, name, tbl_name, sql FROM main.sqlite_schema WHERE rowid > ?1 AND name <> ?2";
    let mut statement = connection.prepare(sql)?;
    // AUTOINCREMENT makes the table that it counts in.
    let made = statement.query_map((before, SEQUENCE_TABLE), |row| {
        Ok(Made { rowid: row.get(0)?, kind: row.get(1)?, name: row.get(2)?, table: row.get(3)?, sql: row.get(4)? })
    })?;
    made.collect()
}
