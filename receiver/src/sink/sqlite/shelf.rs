//! Making many objects in one catalogue.
//!
//! After each CREATE, SQLite reads the whole catalogue to find the line that it has just written: n
//! objects cost n² lines. What is made is therefore taken out of the catalogue every so often,
//! within the transaction, and put back at the end in the order in which it was made. Meanwhile the
//! connection knows its tables from memory.

use rusqlite::{Connection, params, types::Value};
use sealift_sqlite::with_writable_schema;

/// Lines that may be in the catalogue: reading them costs as much as making one object.
const LINES_MAX: usize = 128;

/// The lines that are taken out.
#[derive(Default)]
pub struct Shelf {
    lines: Vec<Line>,
    /// Made since then.
    made: usize,
}

/// One of the catalogue: type, name, table, root page, definition.
type Line = (String, String, String, i64, Value);

impl Shelf {
    /// One more object is made.
    pub fn count(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.made += 1;
        if self.made < LINES_MAX { Ok(()) } else { self.take_out(connection) }
    }

    /// Whether an object of this name is taken out.
    pub fn holds(&self, name: &str) -> bool {
        self.lines.iter().any(|line| line.1 == name)
    }

    fn take_out(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.made = 0;
        let sql = "SELECT type, name, tbl_name, rootpage, sql FROM main.sqlite_schema ORDER BY rowid";
        let mut statement = connection.prepare(sql)?;
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?));
        for line in statement.query_map([], read)? {
            self.lines.push(line?);
        }
        drop(statement);
        with_writable_schema(connection, |connection| {
            connection.execute("DELETE FROM main.sqlite_schema", []).map(drop)
        })
    }

    /// Puts all of it back.
    pub fn put_back(mut self, connection: &Connection) -> rusqlite::Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        self.take_out(connection)?;
        with_writable_schema(connection, |connection| {
            let sql = "INSERT INTO main.sqlite_schema(type, name, tbl_name, rootpage, sql) VALUES(?1, ?2, ?3, ?4, ?5)";
            let mut statement = connection.prepare(sql)?;
            for (kind, name, table, root_page, sql) in &self.lines {
                statement.execute(params![kind, name, table, root_page, sql])?;
            }
            Ok(())
        })
    }
}
