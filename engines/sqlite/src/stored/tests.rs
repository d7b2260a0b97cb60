use std::io::Read;

use sealift_protocol::close::Code;

use super::*;
use crate::{document::RowidName, read_values};

/// Keeps rows, and how they were read.
#[derive(Default)]
struct Kept {
    rows: Vec<Vec<u8>>,
    long: Vec<usize>,
}

impl RowVisitor for Kept {
    fn row(&mut self, pieces: &[&[u8]]) -> Outcome {
        self.rows.push(pieces.concat());
        Ok(())
    }

    fn long_row(&mut self, row: &mut LongRow<'_>) -> Outcome {
        let mut kept = Vec::new();
        row.read_to_end(&mut kept).unwrap();
        assert_eq!(kept.len(), row.row_bytes());
        self.long.push(self.rows.len());
        self.rows.push(kept);
        Ok(())
    }

    fn failure(&self, error: rusqlite::Error) -> Failure {
        Failure::new(Code::SourceFailed, format!("{error:?}"), "")
    }
}

fn table(rowid: Option<RowidName>, columns: &[&str]) -> Table {
    Table {
        name: "t \"1".into(),
        sql: String::new(),
        rowid,
        columns: columns.iter().map(|&column| column.to_owned()).collect(),
        indexes: Vec::new(),
        automatic_indexes: Vec::new(),
    }
}

/// The rows of a database that `sql` makes, and the places of those that were read in pieces. They
/// are the same rows however they are read.
fn read(sql: &str, table: &Table, range: Option<RowidRange>) -> (Vec<Vec<u8>>, Vec<usize>) {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch(sql).unwrap();
    let encoding: String = connection.pragma_query_value(None, "encoding", |row| row.get(0)).unwrap();
    let encoding = TextEncoding::from_name(&encoding).unwrap();
    let mut whole = Kept::default();
    let mut pieces = Kept::default();
    let scan = Scan { connection: &connection, table, range, encoding };
    scan.read_rows(&mut pieces).unwrap();
    assert_eq!(connection.limit(Limit::SQLITE_LIMIT_LENGTH).unwrap(), 1_000_000_000);
    let selects = table.selects(range, encoding);
    let mut statements: Vec<_> = selects.iter().map(|select| connection.prepare(select).unwrap()).collect();
    let mut cursors = Cursors::begin(&mut statements, range, encoding, &whole).unwrap();
    while cursors.next(&mut BytesMut::new(), &mut whole).unwrap() {}
    assert!(whole.rows == pieces.rows, "{sql}");
    (pieces.rows, pieces.long)
}

/// Even, so that it is a text in UTF-16, too.
const LONG: usize = LONG_VALUE_BYTES + 2;

/// Issue 10, item 3: a row with a long value is read in pieces wherever it stands, and the rows
/// around it as they are.
#[test]
fn rows_with_long_values_are_read_in_pieces() {
    let long = format!("zeroblob({LONG})");
    for encoding in ["UTF-8", "UTF-16le"] {
        let create = format!("PRAGMA encoding='{encoding}'; CREATE TABLE \"t \"\"1\"(a, \"b \"\"\")");
        let insert = |rowid: i64, a: &str, b: &str| {
            format!("; INSERT INTO \"t \"\"1\"(rowid, a, \"b \"\"\") VALUES({rowid}, {a}, {b})")
        };
        let text = format!("CAST(randomblob({LONG}) AS TEXT)");
        let sql = [
            create,
            insert(i64::MIN, &long, "1"),
            insert(-1, "NULL", "'short'"),
            insert(0, "x'00ff'", &format!("randomblob({LONG})")),
            insert(7, &text, &long),
            insert(8, "1.5", "CAST(x'' AS TEXT)"),
            insert(i64::MAX, "2", &text),
        ]
        .concat();
        let table = table(Some(RowidName::Rowid), &["a", "b \""]);
        let (rows, long) = read(&sql, &table, None);
        assert_eq!((rows.len(), long), (6, vec![0, 2, 3, 5]), "{encoding}");
        let mut values = Vec::new();
        read_values(&rows[3], 3, &mut values).unwrap();
        assert!(matches!(values[..], [Value::Integer(7), Value::Text(_), Value::Blob(_)]), "{encoding}");
        let range = |first, last| Some(RowidRange { rowid: RowidName::Oid, first, last });
        for (first, last, expected) in
            [(i64::MIN, -2, vec![0]), (-1, 0, vec![1]), (1, 6, vec![]), (7, i64::MAX, vec![0, 2])]
        {
            assert_eq!(read(&sql, &table, range(first, last)).1, expected, "{encoding}: {first} to {last}");
        }
    }
}

/// SQLite opens a value in pieces neither in a table WITHOUT ROWID, nor beside generated columns,
/// nor where columns have taken all names of the rowid.
#[test]
fn other_tables_are_read_whole() {
    for (columns, names) in [
        ("a PRIMARY KEY, b) WITHOUT ROWID", &["a", "b"][..]),
        ("a, b, c AS (1))", &["a", "b"]),
        ("a, b, rowid AS (length(a)), _rowid_ AS (2))", &["a", "b"]),
        ("oid, rowid, _rowid_)", &["oid", "rowid", "_rowid_"]),
    ] {
        let values = (1..names.len()).map(|_| format!("zeroblob({LONG})")).collect::<Vec<_>>().join(",");
        let sql = format!("CREATE TABLE \"t \"\"1\"({columns}; INSERT INTO \"t \"\"1\" VALUES(1, {values});");
        let (rows, long) = read(&sql, &table(None, names), None);
        assert_eq!((rows.len(), long.len()), (1, 0), "{columns}");
    }
}

/// Fault D12: of more columns than one statement has result columns, the long one may be of any.
#[test]
fn a_wide_row_has_its_long_value_anywhere() {
    let names: Vec<String> = (0..2000).map(|column| format!("c{column}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let table = table(Some(RowidName::Rowid), &names);
    let long = format!("zeroblob({LONG})");
    let insert =
        |first: &str, last: &str| format!("INSERT INTO \"t \"\"1\"(c0, c999, c1999) VALUES({first}, 'x', {last});");
    let rows = [("1", "1"), ("2", &*long), ("3", "3"), (&*long, "4"), (&*long, &*long)];
    let rows = rows.map(|(first, last)| insert(first, last)).concat();
    let (rows, long) = read(&format!("CREATE TABLE \"t \"\"1\"({});{rows}", names.join(",")), &table, None);
    assert_eq!((rows.len(), long), (5, vec![1, 3, 4]));
}
