//! Small SQLite databases, and what is in them as text that can be compared.

use std::{fmt::Write, path::Path};

use rusqlite::{Connection, OpenFlags, types::ValueRef};

pub fn create(path: &Path, sql: &str) {
    let database = Connection::open(path).unwrap();
    database.execute_batch(sql).unwrap();
}

/// A table `visit` of so many rows, each some 200 bytes that hardly compress, and two tables beside
/// it.
pub fn create_hospital(path: &Path, rows: u32) {
    create(
        path,
        "create table patient (id integer primary key, name text not null, born text);
         create table visit (id integer primary key, patient int references patient, note text, scan blob);
         create table \"odd 'name\" (\"a b\" real, \"\"\"q\"\"\");
         create index visit_patient on visit (patient);
         create view recent as select * from visit where id > 10;",
    );
    let mut database = Connection::open(path).unwrap();
    let rows_sql = "with recursive n(i) as (values (1) union all select i + 1 from n where i < ?1)";
    let transaction = database.transaction().unwrap();
    let insert = |sql: &str, count: u32| transaction.execute(&format!("{sql} {rows_sql} {}", select(sql)), [count]);
    insert("insert into patient", rows / 10 + 10).unwrap();
    insert("insert into visit", rows).unwrap();
    insert("insert into \"odd 'name\"", 3).unwrap();
    transaction.commit().unwrap();
}

/// So many tables of one row.
pub fn create_small_tables(path: &Path, tables: u32) {
    let mut database = Connection::open(path).unwrap();
    let transaction = database.transaction().unwrap();
    for table in 0..tables {
        let sql =
            format!("create table t{table} (a integer primary key, b text); insert into t{table} values (1, 'x');");
        transaction.execute_batch(&sql).unwrap();
    }
    transaction.commit().unwrap();
}

/// Many tables, most of them of one row: one in ten has an index and some rows, and the one in the
/// middle is of more than a chunk.
pub fn create_tables(path: &Path, tables: u32) {
    let mut database = Connection::open(path).unwrap();
    let transaction = database.transaction().unwrap();
    for table in 0..tables {
        let rows = match table {
            _ if table == tables / 2 => 20_000,
            _ if table % 10 == 3 => 30,
            _ => 1,
        };
        let index = if table % 10 == 3 { format!("create index i{table} on t{table} (b);") } else { String::new() };
        let key = if table % 10 == 7 { "integer primary key autoincrement" } else { "integer primary key" };
        let sql = format!(
            "create table t{table} (a {key}, b text); {index}
             with recursive n(i) as (values (1) union all select i + 1 from n where i < {rows})
             insert into t{table} select i, 'row ' || i || ' of ' || {table} || hex(randomblob(20)) from n;"
        );
        transaction.execute_batch(&sql).unwrap();
    }
    transaction.commit().unwrap();
}

fn select(insert: &str) -> &'static str {
    match insert.rsplit(' ').next() {
        Some("patient") => "select i, 'Ñame ' || i, date('1930-01-01', i || ' days') from n",
        Some("visit") => "select i, 1 + i % 10, hex(randomblob(40)), randomblob(100) from n",
        _ => "select i / 3.0, null from n",
    }
}

/// Every object's definition and every row with its storage classes, in a fixed order.
pub fn content(path: &Path) -> String {
    let database = open_read_only(path);
    let mut out = String::new();
    let mut schema = database
        .prepare("select type, name, tbl_name, coalesce(sql, '') from sqlite_schema order by type, name")
        .unwrap();
    let mut tables = Vec::new();
    let mut objects = schema.query([]).unwrap();
    while let Some(object) = objects.next().unwrap() {
        let texts: Vec<String> = (0..4).map(|column| object.get(column).unwrap()).collect();
        writeln!(out, "{}", texts.join("|")).unwrap();
        if texts[0] == "table" {
            tables.push(texts[1].clone());
        }
    }
    for table in tables {
        writeln!(out, "== {table}").unwrap();
        out.push_str(&rows(&database, &table));
    }
    out
}

fn rows(database: &Connection, table: &str) -> String {
    let quoted = table.replace('"', "\"\"");
    let mut select = database.prepare(&format!("select * from \"{quoted}\"")).unwrap();
    let columns = select.column_count();
    let mut rows = select.query([]).unwrap();
    let mut lines = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        let values = (0..columns).map(|column| value_text(row.get_ref(column).unwrap()));
        lines.push(values.collect::<Vec<_>>().join("|"));
    }
    lines.sort_unstable();
    lines.join("\n") + "\n"
}

fn value_text(value: ValueRef<'_>) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    match value {
        ValueRef::Null => "null".into(),
        ValueRef::Integer(integer) => format!("i{integer}"),
        ValueRef::Real(real) => format!("r{:016x}", real.to_bits()),
        ValueRef::Text(text) => format!("t{}", hex(text)),
        ValueRef::Blob(blob) => format!("b{}", hex(blob)),
    }
}

/// Rows of all tables together.
pub fn row_count(path: &Path) -> u64 {
    let database = open_read_only(path);
    let mut tables = database.prepare("select name from sqlite_schema where type = 'table'").unwrap();
    let count = |name: String| {
        let select = format!("select count(*) from \"{}\"", name.replace('"', "\"\""));
        database.query_row(&select, [], |row| row.get::<_, i64>(0)).unwrap() as u64
    };
    tables.query_map([], |row| row.get::<_, String>(0)).unwrap().map(|name| count(name.unwrap())).sum()
}

/// What SQLite itself says of the file: "ok".
pub fn integrity(path: &Path) -> String {
    open_read_only(path).query_row("pragma integrity_check", [], |row| row.get(0)).unwrap()
}

fn open_read_only(path: &Path) -> Connection {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
}
