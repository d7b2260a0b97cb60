//! Making many objects in one catalogue.
//!
//! Two things that SQLite does for each CREATE grow with what is there, so that n objects cost n²:
//! it reads the whole catalogue to find the line that it has just written, and it goes through all
//! tables that the connection knows, to clear what it keeps of their foreign keys. So the lines are
//! taken out of the catalogue every so often, within the transaction, and the connection forgets
//! the objects that nothing made later refers to. At the end all lines are put back, in the order
//! in which they were made.

use std::collections::HashMap;

use rusqlite::{Connection, params, types::Value};

use crate::{document::SEQUENCE_TABLE, with_writable_schema};

/// Lines that may be in the catalogue: reading them costs about as much as making one object.
pub const LINES_MAX: usize = 128;

/// The lines that are taken out.
#[derive(Default)]
pub struct Shelf {
    lines: Vec<ShelfLine>,
    /// Places of the lines of each table and view, by its name in small letters.
    places: HashMap<String, Vec<usize>>,
    /// The first lines of the catalogue that are copies of those here.
    copies: usize,
    /// Objects made since lines were last taken out.
    made: usize,
    /// The connection knows objects whose lines are taken out.
    knows_more: bool,
}

/// A line of the catalogue.
struct ShelfLine {
    kind: String,
    name: String,
    table: String,
    root_page: i64,
    sql: Value,
}

impl ShelfLine {
    /// Whether it is that of a table or view, or of an index that comes with a table.
    fn is_of_owner(&self) -> bool {
        matches!((&*self.kind, &self.sql), ("table" | "view", _) | ("index", Value::Null))
    }
}

impl Shelf {
    /// One more object is made.
    pub fn count(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.made += 1;
        if self.made < LINES_MAX { Ok(()) } else { self.take_out(connection) }
    }

    /// Whether there is a table of this name, as it is spelled, among what is taken out.
    pub fn holds(&self, table: &str) -> bool {
        let places = self.places.get(&table.to_ascii_lowercase());
        places.is_some_and(|places| places.iter().any(|&place| self.lines[place].name == table))
    }

    /// One more table is made, with its indexes. What is made next refers to none of them, so the
    /// connection forgets those that are taken out.
    pub fn end_table(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.made += 1;
        if self.made < LINES_MAX && !self.knows_more {
            return Ok(());
        }
        // Also what was made since: an index is not left without its table.
        self.take_out(connection)?;
        self.forget(connection)
    }

    fn forget(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.knows_more = false;
        read_again(connection)
    }

    /// Takes everything out but these tables and views, and makes the connection know no others.
    pub fn leave<'a>(
        &mut self,
        connection: &Connection,
        owners: impl Iterator<Item = &'a str>,
    ) -> rusqlite::Result<()> {
        self.take_out(connection)?;
        let mut names: Vec<String> = owners.map(str::to_ascii_lowercase).collect();
        names.sort_unstable();
        names.dedup();
        names.iter().filter(|name| *name != SEQUENCE_TABLE).try_for_each(|name| self.copy(connection, name))?;
        self.forget(connection)
    }

    fn take_out(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.take_out_all(connection)?;
        // Each AUTOINCREMENT looks for it, and makes it where it is not.
        self.copy(connection, SEQUENCE_TABLE)
    }

    fn take_out_all(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let sql = "SELECT type, name, tbl_name, rootpage, sql FROM main.sqlite_schema WHERE rowid > ?1 ORDER BY rowid";
        let mut statement = connection.prepare(sql)?;
        let lines = statement.query_map([self.copies as i64], |row| {
            Ok(ShelfLine {
                kind: row.get(0)?,
                name: row.get(1)?,
                table: row.get(2)?,
                root_page: row.get(3)?,
                sql: row.get(4)?,
            })
        })?;
        for line in lines {
            let line = line?;
            self.places.entry(line.table.to_ascii_lowercase()).or_default().push(self.lines.len());
            self.lines.push(line);
        }
        drop(statement);
        with_writable_schema(connection, |connection| {
            connection.execute("DELETE FROM main.sqlite_schema", []).map(drop)
        })?;
        self.copies = 0;
        self.made = 0;
        self.knows_more = true;
        Ok(())
    }

    /// Copies a table or view into the catalogue, in which there are copies alone.
    fn copy(&mut self, connection: &Connection, owner: &str) -> rusqlite::Result<()> {
        let places = self.places.get(owner).into_iter().flatten();
        let lines: Vec<&ShelfLine> =
            places.map(|&place| &self.lines[place]).filter(|line| line.is_of_owner()).collect();
        self.copies += lines.len();
        insert(connection, &lines)
    }

    /// Puts everything back, and makes the connection read it.
    pub fn put_back(mut self, connection: &Connection) -> rusqlite::Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        self.take_out_all(connection)?;
        insert(connection, &self.lines.iter().collect::<Vec<_>>())?;
        read_again(connection)
    }
}

fn insert(connection: &Connection, lines: &[&ShelfLine]) -> rusqlite::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    with_writable_schema(connection, |connection| {
        let sql = "INSERT INTO main.sqlite_schema(type, name, tbl_name, rootpage, sql) VALUES(?1, ?2, ?3, ?4, ?5)";
        let mut statement = connection.prepare(sql)?;
        for ShelfLine { kind, name, table, root_page, sql } in lines {
            statement.execute(params![kind, name, table, root_page, sql])?;
        }
        Ok(())
    })
}

/// Makes the connection read the catalogue as it now is before its next statement.
fn read_again(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("PRAGMA writable_schema=RESET")
}
