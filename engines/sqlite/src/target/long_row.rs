//! A row whose last value is a long BLOB: the row is inserted with room for the BLOB as soon as the
//! values before it have come, and the BLOB is written into it as it comes, so that no copy of it
//! is made.
//!
//! SQLite writes into a BLOB that has its place, and not into a text, nor into a column of a table
//! WITHOUT ROWID, with generated columns, or of an index. Any other long row is assembled.

use rusqlite::Connection;
use sealift_protocol::{
    error::Result,
    row::{LongCell, read_head},
};

use super::{indexes::Waiting, long_blob::LongBlob};
use crate::{
    Value,
    document::{Table, TextEncoding},
    value::FORMAT_BLOB,
};

/// The values before a long BLOB, and where its bytes begin in the row.
pub struct Head<'a> {
    pub values: Vec<Value<'a>>,
    pub blob_at: usize,
    pub blob_bytes: usize,
}

impl<'a> Head<'a> {
    /// What has come of a row of so many values and bytes, if its last value is a BLOB whose bytes
    /// have begun.
    pub fn read(head: &'a [u8], values: usize, row_bytes: usize) -> Result<Option<Self>> {
        let mut before = Vec::with_capacity(values);
        let last = read_head(head, values, |cell| {
            before.push(Value::from_cell(cell)?);
            Ok(())
        })?;
        let Some(LongCell { format: FORMAT_BLOB, at, bytes }) = last else { return Ok(None) };
        let ends_with_row = at + bytes == row_bytes;
        Ok(ends_with_row.then_some(Self { values: before, blob_at: at, blob_bytes: bytes }))
    }
}

/// Whether the last value of a row of `table` can be written in pieces now.
pub fn takes_pieces(
    connection: &Connection,
    table: &Table,
    encoding: TextEncoding,
    waiting: &Waiting,
) -> rusqlite::Result<bool> {
    let Some(column) = table.columns.last() else { return Ok(false) };
    if encoding != TextEncoding::Utf8 || waiting.sorts(table.values() - 1) {
        return Ok(false);
    }
    // Of the indexes that are there, one that was created may be partial, or of an expression.
    let sql = "SELECT (SELECT wr = 0 FROM pragma_table_list WHERE schema = 'main' AND name = ?1)
        AND NOT EXISTS(SELECT 1 FROM pragma_table_xinfo(?1, 'main') WHERE hidden <> 0)
        AND NOT EXISTS(SELECT 1 FROM pragma_index_list(?1, 'main') AS i, pragma_index_xinfo(i.name, 'main') AS c
            WHERE i.origin = 'c' OR c.name = ?2 COLLATE NOCASE)";
    let takes: Option<bool> = connection.query_row(sql, [&table.name, column], |row| row.get(0))?;
    Ok(takes.unwrap_or(false))
}

/// Opens the BLOB of the row that was inserted last.
pub fn open_inserted(connection: &Connection, table: &Table) -> rusqlite::Result<LongBlob> {
    let column = table.columns.last().map_or("", String::as_str);
    LongBlob::open(connection, &table.name, column, connection.last_insert_rowid())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Definition;

    fn table(columns: &[&str], indexes: Vec<Definition>) -> Table {
        Table {
            name: "t".into(),
            sql: String::new(),
            rowid: None,
            columns: columns.iter().map(|&column| column.to_owned()).collect(),
            indexes,
            automatic_indexes: Vec::new(),
        }
    }

    /// What SQLite would refuse to open, or would enter into an index as it is not, is assembled.
    #[test]
    fn a_blob_takes_pieces_where_nothing_else_is_made_of_it() {
        let takes = |definition: &str, columns: &[&str], encoding| {
            let connection = Connection::open_in_memory().unwrap();
            connection.execute_batch(definition).unwrap();
            let table = table(columns, Vec::new());
            takes_pieces(&connection, &table, encoding, &Waiting::none(&table)).unwrap()
        };
        let utf8 = |definition| takes(definition, &["a", "b"], TextEncoding::Utf8);
        assert!(utf8("CREATE TABLE t(a UNIQUE, b)"));
        assert!(utf8("CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB NOT NULL) STRICT"));
        assert!(!takes("CREATE TABLE t(a, b)", &["a", "b"], TextEncoding::Utf16le));
        assert!(!takes("CREATE TABLE t(a, b)", &[], TextEncoding::Utf8));
        for definition in [
            "CREATE TABLE t(a PRIMARY KEY, b) WITHOUT ROWID",
            "CREATE TABLE t(a, b, c AS (length(b)))",
            "CREATE TABLE t(a, B UNIQUE)",
            "CREATE TABLE t(a, b); CREATE INDEX i ON t(b)",
            "CREATE TABLE t(a, b); CREATE INDEX i ON t(a) WHERE b IS NOT x'00'",
            "CREATE TABLE t(a, b); CREATE INDEX i ON t(length(b))",
            "CREATE TABLE another(a, b)",
        ] {
            assert!(!utf8(definition), "{definition}");
        }
    }

    /// An index that waits for the rows is sorted with each value whole.
    #[test]
    fn a_blob_that_is_sorted_later_takes_no_pieces() {
        for (columns, expected) in [("(a)", true), ("(a, b)", false)] {
            let connection = Connection::open_in_memory().unwrap();
            let sql = format!("CREATE INDEX i ON t{columns}");
            connection.execute_batch(&format!("CREATE TABLE t(a, b); {sql}")).unwrap();
            let table = table(&["a", "b"], vec![Definition { name: "i".into(), sql, table: Some("t".into()) }]);
            let waiting = Waiting::begin(&connection, &table).unwrap();
            assert_eq!(takes_pieces(&connection, &table, TextEncoding::Utf8, &waiting).unwrap(), expected);
        }
    }
}
