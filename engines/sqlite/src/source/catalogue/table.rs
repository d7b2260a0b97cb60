//! One table as it is read, and whether its rows and indexes can be moved exactly.

use std::collections::HashMap;

use rusqlite::{Connection, ErrorCode, Statement};
use sealift_protocol::failure::{Failure, Outcome};

use crate::{
    MOVE_IMAGE,
    document::{Definition, RowidName, Table},
    has_computed_index, has_foreign_entries, quote,
    source::{
        affinity::Affinity,
        failure::{failed, unsuitable},
    },
};

/// A table as it is read.
pub struct SourceTable {
    pub table: Table,
    /// A name for its rowid, whether or not it is carried.
    pub rowid_name: Option<RowidName>,
    /// One for each value of a row.
    pub affinities: Vec<Affinity>,
    /// What its indexes hold, or their order, depends on what the engine computes.
    pub has_computed_indexes: bool,
    /// Identifiers of its VIRTUAL generated columns.
    pub virtual_columns: Vec<String>,
}

impl SourceTable {
    /// A value was met that would change on its way into the target.
    pub fn unstable(&self, value: usize) -> Failure {
        let table = &self.table;
        let column = &table.columns[value - usize::from(table.rowid.is_some())];
        let what =
            format!("column {column} of table {} holds a value that its declared type would convert", table.name);
        let next = "SQLite would store another value in the target. On the source, set the column to itself \
                    (UPDATE table SET column = column), look at the result, and start again.";
        unsuitable(what, format!("{next} {MOVE_IMAGE}"))
    }

    /// That the indexes hold what this engine makes of the rows, so that those which are built in
    /// the target hold the same. Another release, another collation of the same name, or a function
    /// that the application has replaced makes others.
    pub fn check_indexes(&self, connection: &Connection) -> Outcome {
        if !self.has_computed_indexes {
            return Ok(());
        }
        let name = &self.table.name;
        let sql = "SELECT NOT EXISTS(SELECT 1 FROM pragma_integrity_check(?1, 'main') WHERE integrity_check <> 'ok')";
        let engine = |error: rusqlite::Error| failed(&error, &format!("table {name}"));
        let mut agree = connection.query_row(sql, [name], |row| row.get::<_, bool>(0)).map_err(engine)?;
        for index in &self.table.indexes {
            agree = agree && !has_foreign_entries(connection, name, index).map_err(engine)?;
        }
        if agree {
            return self.check_virtual_columns(connection);
        }
        let what = format!("the indexes of table {name} do not hold what this release of SQLite makes of its rows");
        let next = "Another release wrote them, or the application has replaced a function or a collation of SQLite's; or the \
                    database is damaged (PRAGMA integrity_check, in the application, tells).";
        Err(unsuitable(what, format!("{next} {MOVE_IMAGE}")))
    }

    /// That the VIRTUAL columns can be computed for every row: where an index may depend on them,
    /// writing a row does so.
    fn check_virtual_columns(&self, connection: &Connection) -> Outcome {
        let name = &self.table.name;
        // As many at once as a statement surely takes.
        for columns in self.virtual_columns.chunks(100) {
            let counts: Vec<String> = columns.iter().map(|column| format!("count({column})")).collect();
            let sql = format!("SELECT {} FROM main.{} NOT INDEXED", counts.join(","), quote(name));
            match connection.query_row(&sql, [], |_| Ok(())) {
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::Unknown) => {
                    let what = format!("a generated column of table {name} cannot be computed for a row");
                    return Err(unsuitable(what, format!("Correct the row. {MOVE_IMAGE}")));
                }
                counted => counted.map_err(|error| failed(&error, &format!("table {name}")))?,
            }
        }
        Ok(())
    }
}

/// WITHOUT ROWID and STRICT of each table by its name in small letters.
pub struct Shapes(HashMap<String, (bool, bool)>);

/// A line of `PRAGMA table_xinfo`.
pub struct Column {
    name: String,
    declared: String,
    key_place: u32,
    hidden: u32,
}

/// The columns of a table. Prepared once: that takes longer than to ask.
pub const COLUMNS: &str = "SELECT name, type, pk, hidden FROM pragma_table_xinfo(?1, 'main') ORDER BY cid";

impl Column {
    /// By the prepared statement [`COLUMNS`].
    pub fn all(statement: &mut Statement<'_>, table: &str) -> rusqlite::Result<Vec<Self>> {
        let columns = statement.query_map([table], |row| {
            Ok(Self { name: row.get(0)?, declared: row.get(1)?, key_place: row.get(2)?, hidden: row.get(3)? })
        })?;
        columns.collect()
    }
}

/// `hidden` of a VIRTUAL generated column, which nothing stores.
const HIDDEN_VIRTUAL: u32 = 2;

impl Shapes {
    pub fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let mut statement =
            connection.prepare("SELECT name, wr, strict FROM pragma_table_list WHERE schema = 'main'")?;
        let shapes = statement.query_map([], |row| {
            let name: String = row.get(0)?;
            Ok((name.to_ascii_lowercase(), (row.get(1)?, row.get(2)?)))
        })?;
        shapes.collect::<rusqlite::Result<_>>().map(Self)
    }

    pub fn table(
        &self,
        connection: &Connection,
        definition: Definition,
        columns: Vec<Column>,
        indexes: Vec<Definition>,
        automatic_indexes: Vec<String>,
    ) -> Outcome<SourceTable> {
        let Definition { name, sql, .. } = definition;
        let engine = |error: rusqlite::Error| failed(&error, &format!("table {name}"));
        let &(without_rowid, strict) = self
            .0
            .get(&name.to_ascii_lowercase())
            .ok_or_else(|| unsuitable(format!("table {name} cannot be found by its name"), MOVE_IMAGE))?;
        let rowid_name = RowidName::ALL
            .into_iter()
            .find(|rowid| !columns.iter().any(|column| column.name.eq_ignore_ascii_case(rowid.name())))
            .filter(|_| !without_rowid);
        // Most databases of very many tables have hardly an index, and each question takes a while.
        let has_indexes = without_rowid || !indexes.is_empty() || !automatic_indexes.is_empty();
        let has_key_index = has_indexes && has_key_index(connection, &name).map_err(engine)?;
        let has_alias = is_integer_key(&columns) && !has_key_index;
        let rowid = rowid_name.filter(|_| !has_alias);
        let stored = || columns.iter().filter(|column| column.hidden != HIDDEN_VIRTUAL);
        let affinities = rowid
            .iter()
            .map(|_| Affinity::None)
            .chain(stored().map(|column| Affinity::of(&column.declared, strict)))
            .collect();
        let virtual_columns = columns.iter().filter(|column| column.hidden == HIDDEN_VIRTUAL);
        let virtual_columns = virtual_columns.map(|column| quote(&column.name)).collect();
        let columns = stored().map(|column| column.name.clone()).collect();
        let has_computed_indexes = has_indexes
            && has_computed_index(connection, &name)
                .and_then(|computed| Ok(computed || has_collated_index(connection, &name)?))
                .map_err(engine)?;
        let table = Table { name, sql, rowid, columns, indexes, automatic_indexes };
        Ok(SourceTable { table, rowid_name, affinities, has_computed_indexes, virtual_columns })
    }
}

/// Whether an index compares by a collation that an application can replace: any but BINARY.
fn has_collated_index(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS(SELECT 1 FROM pragma_index_list(?1, 'main') AS i, pragma_index_xinfo(i.name, 'main') AS x
        WHERE x.key AND x.coll <> 'BINARY' COLLATE NOCASE)";
    connection.query_row(sql, [table], |row| row.get(0))
}

/// Whether the primary key is one column of type INTEGER: another name of the rowid, unless the key
/// has an index (as for `INTEGER PRIMARY KEY DESC`).
fn is_integer_key(columns: &[Column]) -> bool {
    let mut key = columns.iter().filter(|column| column.key_place > 0);
    let (Some(column), None) = (key.next(), key.next()) else { return false };
    column.declared.eq_ignore_ascii_case("INTEGER")
}

fn has_key_index(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS(SELECT 1 FROM pragma_index_list(?1, 'main') WHERE origin = 'pk')";
    connection.query_row(sql, [table], |row| row.get(0))
}
