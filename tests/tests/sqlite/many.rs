//! Catalogues of many objects, which the receiver makes some at a time.

use std::fmt::Write;

use rusqlite::Connection;

use super::{
    assert_same,
    compare::strings,
    pump::{Folder, transfer},
};

/// More than the receiver has in the catalogue at a time, of each kind.
const TABLES: usize = 300;

/// Issue 9, B8: of many objects each has its entry, its root page, its rows and its triggers in
/// their order.
#[test]
fn a_catalogue_of_many_objects_arrives_exactly() {
    for (encoding, vacuum) in [("UTF-8", "NONE"), ("UTF-16le", "FULL")] {
        let folder = Folder::new();
        let source = folder
            .build(&format!("PRAGMA encoding='{encoding}'; PRAGMA auto_vacuum={vacuum}; PRAGMA foreign_keys=OFF;"));
        source.execute_batch(&format!("BEGIN; {} COMMIT; ANALYZE", objects())).unwrap();
        source.close().unwrap();
        transfer(&folder);
        assert_same(&folder);
        let (source, target) = (open(&folder.source()), open(&folder.target()));
        for query in [
            "PRAGMA integrity_check",
            "SELECT \"table\" FROM pragma_foreign_key_check ORDER BY 1",
            "SELECT tbl_name || name FROM sqlite_schema WHERE type = 'trigger' ORDER BY tbl_name, rowid",
            "SELECT tbl_name || name FROM sqlite_schema WHERE type = 'index' AND sql <> '' ORDER BY tbl_name, rowid",
            "SELECT name || seq FROM sqlite_sequence ORDER BY rowid",
        ] {
            assert_eq!(strings(&source, query), strings(&target, query), "{query}");
        }
        // Triggers fire in the same order, those of the first tables and of the last.
        for database in [&source, &target] {
            for table in [0, 1, 2, TABLES - 3, TABLES - 2, TABLES - 1] {
                database.execute_batch(&format!("INSERT INTO t{table}(b) VALUES('new')")).unwrap();
            }
            database.execute_batch("INSERT INTO v0 VALUES(1); INSERT INTO f0 VALUES('words')").unwrap();
        }
        let log = "SELECT what FROM log ORDER BY rowid";
        assert_eq!(strings(&target, log).len(), 14);
        assert_eq!(strings(&source, log), strings(&target, log));
        assert_eq!(strings(&target, "PRAGMA integrity_check"), ["ok"]);
    }
}

fn open(path: &std::path::Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch("PRAGMA foreign_keys=OFF").unwrap();
    connection
}

fn objects() -> String {
    let mut sql = "CREATE TABLE log(what);".to_owned();
    for table in 0..TABLES {
        let next = (table + 1) % TABLES;
        let columns = match table % 3 {
            0 => {
                format!("a INTEGER PRIMARY KEY AUTOINCREMENT, b UNIQUE REFERENCES t{next}(b), g AS (b || 'x') STORED)")
            }
            1 => "b TEXT PRIMARY KEY, a) WITHOUT ROWID".to_owned(),
            _ => "a, b TEXT)".to_owned(),
        };
        write!(
            sql,
            "CREATE TABLE t{table}({columns}; INSERT INTO t{table}(b) VALUES('{table}'), ('second');
             CREATE INDEX z{table} ON t{table}(b); CREATE UNIQUE INDEX a{table} ON t{table}(b, a) WHERE a > 0;"
        )
        .unwrap();
        if table % 60 == 0 {
            write!(sql, "CREATE VIRTUAL TABLE f{table} USING fts5(words); INSERT INTO f{table} VALUES('{table}');")
                .unwrap();
        }
    }
    for table in 0..TABLES {
        write!(sql, "CREATE VIEW v{table} AS SELECT b FROM t{table} JOIN log;").unwrap();
    }
    // In another order than their tables, and than their names.
    for name in ["second", "first"] {
        for table in (0..TABLES).rev() {
            write!(sql, "{}", trigger(&format!("{name}{table}"), "AFTER", &format!("t{table}"))).unwrap();
        }
    }
    sql + &trigger("of_view", "INSTEAD OF", "v0") + &trigger("of_shadow", "AFTER", "f0_docsize")
}

fn trigger(name: &str, when: &str, owner: &str) -> String {
    format!("CREATE TRIGGER {name} {when} INSERT ON {owner} BEGIN INSERT INTO log VALUES('{name}'); END;")
}
