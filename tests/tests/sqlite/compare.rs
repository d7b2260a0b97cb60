//! What a database holds, told by SQLite itself and independently of the code under test.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, types::ValueRef};

/// Columns that are looked at by one statement: each takes three result columns.
const COLUMNS: usize = 600;

/// Every pragma that is carried, every line of the catalogue, every value with its storage class
/// and rowid.
pub fn contents(path: &Path) -> Vec<String> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut lines = Vec::new();
    for pragma in
        ["encoding", "page_size", "auto_vacuum", "application_id", "user_version", "journal_mode", "default_cache_size"]
    {
        lines.push(format!("{pragma}: {}", strings(&connection, &format!("PRAGMA {pragma}")).join(",")));
    }
    lines.extend(strings(
        &connection,
        "SELECT format('%s %Q %Q %Q', type, name, tbl_name, sql) FROM sqlite_schema ORDER BY 1",
    ));
    let tables = strings(&connection, "SELECT name FROM sqlite_schema WHERE type='table' AND rootpage > 0 ORDER BY 1");
    for table in tables {
        rows(&connection, &table, &mut lines);
    }
    lines
}

pub fn strings(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement
        .query_map([], |row| {
            Ok(match row.get_ref(0)? {
                ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
                other => format!("{other:?}"),
            })
        })
        .unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

fn rows(connection: &Connection, table: &str, lines: &mut Vec<String>) {
    let name = table.replace('"', "\"\"");
    let mut statement = connection.prepare("SELECT name FROM pragma_table_xinfo(?1) ORDER BY cid").unwrap();
    let columns: Vec<String> =
        statement.query_map([table], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    let rowid = ["rowid", "oid", "_rowid_"].into_iter().find(|rowid| {
        let shadowed = columns.iter().any(|column| column.eq_ignore_ascii_case(rowid));
        !shadowed && connection.prepare(&format!("SELECT {rowid} FROM \"{name}\"")).is_ok()
    });
    let columns: Vec<String> = columns.iter().map(|column| format!("\"{}\"", column.replace('"', "\"\""))).collect();
    for block in columns.chunks(COLUMNS) {
        let cells: Vec<String> =
            block.iter().map(|column| format!("{column}, CAST({column} AS BLOB), typeof({column})")).collect();
        let sql = format!("SELECT {}, {} FROM \"{name}\" NOT INDEXED", rowid.unwrap_or("0"), cells.join(","));
        let mut statement = connection.prepare(&sql).unwrap();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let mut line = format!("{table:?} {:?}", row.get_ref(0).unwrap());
            for column in 0..block.len() {
                line.push_str(&value(row, 1 + 3 * column));
            }
            lines.push(line);
        }
    }
}

fn value(row: &rusqlite::Row<'_>, at: usize) -> String {
    let class: String = row.get(at + 2).unwrap();
    match row.get_ref(at).unwrap() {
        ValueRef::Real(real) => format!(" {class}:{:016x}", real.to_bits()),
        ValueRef::Integer(integer) => format!(" {class}:{integer}"),
        ValueRef::Null => format!(" {class}"),
        // Text as its stored bytes: in UTF-16 the engine would convert it.
        _ => match row.get_ref(at + 1).unwrap() {
            ValueRef::Blob(bytes) if bytes.len() > 1000 => format!(" {class}:{} bytes {:x?}", bytes.len(), sum(bytes)),
            ValueRef::Blob(bytes) => format!(" {class}:{bytes:02x?}"),
            other => panic!("{other:?}"),
        },
    }
}

/// FNV over words, for values too long to be shown.
fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(0, |sum: u64, word| {
        let mut padded = [0; 8];
        padded[..word.len()].copy_from_slice(word);
        (sum ^ u64::from_le_bytes(padded)).wrapping_mul(0x100_0000_01b3)
    })
}
