//! A database that holds about everything SQLite can hold.

use rusqlite::{Connection, params};

/// Fills a database whose encoding and page size are set already.
pub fn fill(connection: &Connection) {
    connection.execute_batch(SCHEMA).unwrap();
    connection.execute_batch(ROWS).unwrap();
    values(connection);
    wide(connection);
    connection.execute_batch(SEARCH).unwrap();
    connection.execute_batch(LATER).unwrap();
}

/// Also names as no one would choose them (fault D2), and whatever SQLite lets a table be (faults
/// D4, D12, D16).
const SCHEMA: &str = r#"
PRAGMA foreign_keys=OFF;
PRAGMA application_id=-559038737;
PRAGMA user_version=2147483647;
CREATE TABLE "quo""te; DROP TABLE x; --" ("sel""ect" TEXT, "new
line" "odd type(1, 2)", '' BLOB, "\!" ANY, "ünï 山田" "weird "" type");
CREATE TABLE ""(a);
CREATE TABLE [select](a, "group" INT, [order by] REAL);
CREATE TABLE "table
two"(a);
CREATE TABLE `back``tick`(`c``d`);
CREATE TABLE plain(a);
CREATE TABLE typed(i INTEGER, r REAL, t TEXT, n NUMERIC, b BLOB, d DECIMAL(10,5), s STRING, f "floating point");
CREATE TABLE strict_one(i INT, r REAL, t TEXT, b BLOB, a ANY) STRICT;
CREATE TABLE strict_two(k ANY PRIMARY KEY, v ANY) STRICT, WITHOUT ROWID;
CREATE TABLE keyed(a TEXT COLLATE NOCASE, b, c, PRIMARY KEY(b DESC, a)) WITHOUT ROWID;
CREATE TABLE counted(id INTEGER PRIMARY KEY AUTOINCREMENT, v);
CREATE TABLE counted_too(id INTEGER PRIMARY KEY AUTOINCREMENT);
CREATE TABLE not_alias(id INTEGER PRIMARY KEY DESC, v);
CREATE TABLE shadowed(rowid, oid TEXT, v);
CREATE TABLE all_shadowed(rowid, oid, _rowid_);
CREATE TABLE alias_named(rowid INTEGER PRIMARY KEY, v UNIQUE);
CREATE TABLE generated(a INT, v AS (a + 1) VIRTUAL, s TEXT AS (a || 'x') STORED, z, CHECK(a < 100));
CREATE TABLE empty_one(a, b);
CREATE TABLE duplicates(a, b);
CREATE TABLE checked(a CHECK(a > 10), b NOT NULL DEFAULT 'x', c UNIQUE ON CONFLICT REPLACE);
CREATE TABLE parent(id INTEGER PRIMARY KEY, child REFERENCES child(id) DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE child(id INTEGER PRIMARY KEY, parent NOT NULL REFERENCES parent(id) ON DELETE CASCADE);
CREATE TABLE defaults(a DEFAULT CURRENT_TIMESTAMP, b DEFAULT (random()), c DEFAULT x'00', d DEFAULT "text");
CREATE TABLE log(what);
CREATE TABLE altered(a);
"#;

const ROWS: &str = r#"
INSERT INTO "quo""te; DROP TABLE x; --" VALUES('\.', '\N', 'COPY', char(9, 13, 10, 92), '"');
INSERT INTO "" VALUES(1); INSERT INTO [select] VALUES(1, 2, 3); INSERT INTO "table
two" VALUES(2); INSERT INTO `back``tick` VALUES(3);
INSERT INTO typed VALUES('12', '12', 12, '12', '12', '1.50000', 'abc', 3.0), ('12x', 'x', 1.5, 'x', 1, '1e400', '007', '5.5');
INSERT INTO typed VALUES(9223372036854775807, 1, '1', 9223372036854775808, 1.0, 1e15, ' 1 ', -9.3e18);
INSERT INTO strict_one VALUES(1, 1, '1', x'31', '1'), (NULL, 1e300, '', x'', 1.0);
INSERT INTO strict_two VALUES('1', 1), (1, '1'), (x'31', 1.5), (1.5, x'');
INSERT INTO keyed VALUES('b', 1, 2), ('A', 2, 3), ('a', 1, NULL);
INSERT INTO counted(v) VALUES('a'), ('b'), ('c'); DELETE FROM counted WHERE id = 3;
INSERT INTO counted VALUES(-5, 'negative'), (9223372036854775800, 'far');
INSERT INTO not_alias VALUES(NULL, 1), (5, 2), (3, 3);
INSERT INTO shadowed(_rowid_, rowid, oid, v) VALUES(-9223372036854775808, 1, 2, 3), (9223372036854775807, 4, 5, 6);
INSERT INTO all_shadowed VALUES(1, 2, 3), (1, 2, 3);
INSERT INTO alias_named VALUES(7, 'x'), (-7, NULL), (8, NULL);
INSERT INTO generated(a, z) VALUES(1, 'z'), (NULL, x'');
INSERT INTO duplicates(rowid, a, b) VALUES(10, 1, NULL), (20, 1, NULL), (15, 1, NULL), (-3, '', x'');
INSERT INTO parent VALUES(1, 2), (2, 99); INSERT INTO child VALUES(2, 1), (3, 77);
INSERT INTO altered VALUES(1); ALTER TABLE altered ADD COLUMN b INTEGER DEFAULT '5';
ALTER TABLE altered ADD COLUMN c REAL DEFAULT 2; ALTER TABLE altered RENAME COLUMN a TO "a b";
PRAGMA ignore_check_constraints=ON; INSERT INTO checked VALUES(1, '', NULL), (2, 'y', NULL), (3, 'z', 3);
UPDATE sqlite_sequence SET seq = 4711 WHERE name = 'counted'; INSERT INTO sqlite_sequence VALUES('counted', 1), ('gone', 'x');
"#;

/// Faults D1, D3, D4: every storage class at its edges.
fn values(connection: &Connection) {
    let insert =
        |value: &dyn rusqlite::ToSql| connection.execute("INSERT INTO plain VALUES(?1)", params![value]).unwrap();
    for integer in [i64::MIN, i64::MIN + 1, -1, 0, 1, 127, 128, 32768, 1 << 24, 1 << 48, i64::MAX] {
        insert(&integer);
    }
    for real in [-0.0, 0.0, 1.0, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE, 5e-324, f64::MAX, 0.1, 1e17] {
        insert(&real);
    }
    for text in ["", "\0", "a\0b", "\u{feff}bom", "\u{fffd}", "𝄞", "12", " ", "\\.\n\\N\t\r\\"] {
        insert(&text);
    }
    insert(&rusqlite::types::Null);
    for bytes in ["", "00", "ff", "c328", "eda080", "fffe", "feff", "00d8", "d800", "4100"] {
        connection.execute_batch(&format!("INSERT INTO plain VALUES(CAST(x'{bytes}' AS TEXT)), (x'{bytes}')")).unwrap();
    }
    insert(&vec![0xabu8; 3 << 20]);
    insert(&"long ".repeat(500_000));
}

/// Fault D12: as many columns as SQLite allows, with and without a rowid beside them.
fn wide(connection: &Connection) {
    let list = |each: &dyn Fn(usize) -> String| (0..2000).map(each).collect::<Vec<_>>().join(",");
    let columns = list(&|column| format!("c{column}"));
    let values = list(&|column| if column % 3 == 0 { format!("'t{column}'") } else { column.to_string() });
    connection
        .execute_batch(&format!(
            "CREATE TABLE wide({columns}); INSERT INTO wide(rowid, {columns}) VALUES(42, {values}); INSERT INTO wide(rowid, c1999) VALUES(41, 'x');
             CREATE TABLE wide_keyed({columns}, PRIMARY KEY(c7)) WITHOUT ROWID; INSERT INTO wide_keyed VALUES({values});"
        ))
        .unwrap();
}

/// Virtual tables of every module that is moved.
const SEARCH: &str = r#"
CREATE TABLE document(id INTEGER PRIMARY KEY, body);
INSERT INTO document VALUES(1, 'the quick brown fox'), (2, 'a lazy dog');
CREATE VIRTUAL TABLE search USING fts5(body, tokenize = 'porter unicode61');
INSERT INTO search VALUES('running shoes'), ('a ''quoted'' text'); DELETE FROM search WHERE rowid = 2;
CREATE VIRTUAL TABLE search_external USING fts5(body, content='document', content_rowid='id');
INSERT INTO search_external(search_external) VALUES('rebuild');
INSERT INTO search_external(rowid, body) VALUES(9, 'not in the content table');
CREATE VIRTUAL TABLE "search ""contentless""" USING fts5(a, b, content='', columnsize=0);
INSERT INTO "search ""contentless"""(rowid, a, b) VALUES(5, 'alpha', 'beta');
CREATE VIRTUAL TABLE search3 USING fts3(body); INSERT INTO search3 VALUES('third');
CREATE VIRTUAL TABLE search4 USING fts4(body, prefix='2'); INSERT INTO search4 VALUES('fourth');
CREATE VIRTUAL TABLE terms USING fts5vocab(search, 'row');
CREATE VIRTUAL TABLE area USING rtree(id, x0, x1, +note TEXT); INSERT INTO area VALUES(1, 0.5, 1.5, 'n'), (7, -1, 3, NULL);
CREATE VIRTUAL TABLE area32 USING rtree_i32(id, x0, x1); INSERT INTO area32 VALUES(1, -5, 5);
"#;

const LATER: &str = r#"
CREATE INDEX by_a ON duplicates(a, b DESC);
CREATE INDEX "odd "" index" ON "quo""te; DROP TABLE x; --"("sel""ect" COLLATE RTRIM);
CREATE UNIQUE INDEX partial ON checked(b) WHERE a > 1;
CREATE INDEX expression ON document(length(body), lower(body) || 'x');
CREATE INDEX on_generated ON generated(v, s);
CREATE INDEX on_keyed ON keyed(c);
CREATE VIEW second AS SELECT * FROM first;
CREATE VIEW first(x) AS SELECT a FROM duplicates UNION ALL SELECT id FROM document;
CREATE VIEW broken AS SELECT absent FROM nowhere;
CREATE TRIGGER on_plain AFTER INSERT ON plain BEGIN INSERT INTO log VALUES('fired'); DELETE FROM duplicates; END;
CREATE TRIGGER before_plain BEFORE INSERT ON plain BEGIN SELECT RAISE(ABORT, 'no'); END;
CREATE TRIGGER on_view INSTEAD OF INSERT ON first BEGIN INSERT INTO log VALUES(new.x); END;
ANALYZE;
"#;
