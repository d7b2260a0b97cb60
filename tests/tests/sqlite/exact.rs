//! What the source stores arrives as it is stored, or is refused before anything is sent, by a
//! message that names the form which moves it. Where another release, collation or function wrote
//! something, the test edits the schema instead.

use std::fs;

use rusqlite::Connection;
use sealift_agent::failure::Failure;
use sealift_protocol::close::Code;

use super::{
    assert_same,
    compare::{contents, strings},
    pump::{Folder, transfer, transfer_with},
};

/// Gives entries of the catalogue other values, as another program may have written them.
fn edit(connection: &Connection, updates: &str) {
    connection.execute_batch(&format!("PRAGMA writable_schema=ON; {updates}; PRAGMA writable_schema=RESET;")).unwrap();
}

fn refused(folder: &Folder) -> Failure {
    let failure = transfer_with(folder, || ()).unwrap_err();
    assert_eq!((failure.code, failure.part), (Code::SourceUnsuitable, None), "{failure}");
    assert!(failure.hints.to_string().contains("--form image"), "{failure}");
    assert!(!folder.target().exists());
    failure
}

/// Issue 9, B2; fault E14: values of STORED generated columns that another release computed.
#[test]
fn stored_generated_values_arrive_as_they_are_stored() {
    for encoding in ["UTF-8", "UTF-16le"] {
        let folder = Folder::new();
        let source = folder.build(&format!(
            "PRAGMA encoding='{encoding}';
             CREATE TABLE lab(id INTEGER PRIMARY KEY, value REAL, code TEXT, UNIQUE(code));
             CREATE TABLE keyed(a TEXT, b INT, s ANY, v INT AS (b), PRIMARY KEY(a)) STRICT, WITHOUT ROWID;
             INSERT INTO lab(value, code) VALUES(0.30000000000000004, 'GLU 0.3'), (5.5, 'by hand'), (1, NULL);
             INSERT INTO keyed VALUES('x', 1, 2.5), ('y', 2, x'00ff'), ('z', NULL, NULL);
             CREATE INDEX by_code ON lab(code, value); CREATE INDEX by_s ON keyed(s DESC);"
        ));
        edit(
            &source,
            "UPDATE sqlite_schema SET sql = replace(sql, 'code TEXT', 'code TEXT AS (''GLU '' || value) STORED');
             UPDATE sqlite_schema SET sql = replace(sql, 's ANY', 's ANY GENERATED ALWAYS AS (b + 7) STORED')",
        );
        assert_eq!(strings(&source, "SELECT count(*) FROM pragma_table_xinfo('lab') WHERE hidden = 3"), ["Integer(1)"]);
        drop(source);
        transfer(&folder);
        assert_same(&folder);
        let target = Connection::open(folder.target()).unwrap();
        assert_eq!(strings(&target, "PRAGMA integrity_check"), ["ok"]);
        assert_eq!(strings(&target, "SELECT code FROM lab INDEXED BY by_code WHERE code > 'a'"), ["by hand"]);
        // They are generated columns again.
        target.execute_batch("INSERT INTO lab(value) VALUES(8); UPDATE keyed SET b = 9 WHERE a = 'x'").unwrap();
        assert_eq!(strings(&target, "SELECT code FROM lab WHERE value = 8"), ["GLU 8.0"]);
        assert_eq!(strings(&target, "SELECT s FROM keyed WHERE a = 'x'"), ["Integer(16)"]);
    }
}

/// Issue 9, B3: what a VIRTUAL column would be need not be computed to move its row.
#[test]
fn generated_columns_that_fail_for_a_row_are_moved() {
    let folder = Folder::new();
    let source = folder.build(
        "CREATE TABLE event(id INTEGER PRIMARY KEY, document TEXT, n INT UNIQUE);
         INSERT INTO event VALUES(1, '{\"a\": 1}', 1), (2, '{not json', -9223372036854775808);
         ALTER TABLE event ADD COLUMN a AS (json_extract(document, '$.a'));
         ALTER TABLE event ADD COLUMN \"mag nitude\" INT GENERATED ALWAYS AS (abs(n)) VIRTUAL;
         CREATE INDEX by_document ON event(document);",
    );
    source.query_row("SELECT sum(a) FROM event", [], |_| Ok(())).unwrap_err();
    let sources = strings(&source, "SELECT format('%Q %Q', document, n) FROM event");
    drop(source);
    transfer(&folder);
    let target = Connection::open(folder.target()).unwrap();
    assert_eq!(strings(&target, "SELECT format('%Q %Q', document, n) FROM event"), sources);
    assert_eq!(strings(&target, "SELECT a FROM event WHERE id = 1"), ["Integer(1)"]);
    target.query_row("SELECT sum(a) FROM event", [], |_| Ok(())).unwrap_err();
}

/// Issue 9, B3: where a row cannot be written without computing it, that is found before anything
/// is sent.
#[test]
fn generated_columns_that_fail_and_are_needed_are_refused() {
    let folder = Folder::new();
    folder.build(
        "CREATE TABLE event(document TEXT); INSERT INTO event VALUES('{\"a\": 1}'), ('{not json');
         ALTER TABLE event ADD COLUMN a AS (json_extract(document, '$.a'));
         CREATE INDEX by_a ON event(a) WHERE json_valid(document);",
    );
    assert_eq!(refused(&folder).what, "a generated column of table event cannot be computed for a row");
}

/// Issue 9, B3: a VIRTUAL column on which an index or a constraint depends is computed, and its
/// indexes are whole.
#[test]
fn virtual_columns_in_indexes_are_computed() {
    let folder = Folder::new();
    folder.build(
        "CREATE TABLE t(a INT, v AS (a * 2) VIRTUAL UNIQUE, w AS (v + 1) NOT NULL, s AS (w * 10) STORED);
         INSERT INTO t(a) VALUES(1), (2), (3); CREATE INDEX by_w ON t(w) WHERE v > 2; CREATE INDEX by_s ON t(s);",
    );
    transfer(&folder);
    assert_same(&folder);
    let target = Connection::open(folder.target()).unwrap();
    assert_eq!(strings(&target, "PRAGMA integrity_check"), ["ok"]);
    assert_eq!(strings(&target, "SELECT s FROM t WHERE v = 4"), ["Integer(50)"]);
}

/// Issue 9, B3: entries that SQLite itself would spell otherwise.
#[test]
fn every_spelling_of_the_catalogue_arrives() {
    let folder = Folder::new();
    let source = folder.build(
        "CREATE TABLE visit(id INTEGER PRIMARY KEY, mrn TEXT UNIQUE, other, CHECK(mrn <> ''));
         CREATE TABLE plain(a); CREATE UNIQUE INDEX one_mrn ON visit(mrn); CREATE INDEX by_other ON visit(other);
         CREATE VIEW names AS SELECT mrn FROM visit; INSERT INTO visit VALUES(1, 'x', 2), (2, 'y', 2);
         CREATE TRIGGER t AFTER INSERT ON visit BEGIN INSERT INTO plain VALUES(new.id); END;
         CREATE VIRTUAL TABLE f USING fts5(body); INSERT INTO f VALUES('alpha beta');",
    );
    edit(
        &source,
        "UPDATE sqlite_schema SET tbl_name = 'VISIT' WHERE name = 'one_mrn';
         UPDATE sqlite_schema SET sql = 'create  /* by hand */ unique index One_MRN ON Visit (mrn) -- end' WHERE name = 'one_mrn';
         UPDATE sqlite_schema SET name = 'By_Other' WHERE name = 'by_other';
         UPDATE sqlite_schema SET sql = 'create table  \"plain\"(a)' WHERE name = 'plain';
         UPDATE sqlite_schema SET sql = 'CREATE VIEW  \n [names]  AS SELECT mrn FROM visit  ;' WHERE name = 'names';
         UPDATE sqlite_schema SET sql = replace(sql, 'CREATE TRIGGER t', 'CREATE  TRIGGER IF NOT EXISTS ''t'''), tbl_name = 'Visit' WHERE name = 't';
         UPDATE sqlite_schema SET sql = 'create virtual table f using fts5 (body)' WHERE name = 'f'",
    );
    assert_eq!(strings(&source, "PRAGMA integrity_check"), ["ok"]);
    drop(source);
    transfer(&folder);
    assert_same(&folder);
    let target = Connection::open(folder.target()).unwrap();
    assert_eq!(strings(&target, "PRAGMA integrity_check"), ["ok"]);
    assert!(target.execute_batch("INSERT INTO visit VALUES(3, 'x', 3)").is_err());
    target.execute_batch("INSERT INTO visit VALUES(3, 'z', 3)").unwrap();
    assert_eq!(strings(&target, "SELECT a FROM plain"), ["Integer(3)"]);
    assert_eq!(strings(&target, "SELECT rowid FROM f WHERE f MATCH 'beta'"), ["Integer(1)"]);
}

/// Issue 9, B3: under defensive mode SQLite takes such a trigger, as sqlite-utils makes them, for
/// damage.
#[test]
fn a_trigger_on_a_shadow_table_is_moved() {
    let folder = Folder::new();
    folder.build(
        "CREATE TABLE log(x); CREATE VIRTUAL TABLE f USING fts5(body); INSERT INTO f VALUES('a');
         CREATE TRIGGER g AFTER INSERT ON f_data BEGIN INSERT INTO log VALUES(1); END;",
    );
    transfer(&folder);
    assert_same(&folder);
}

/// Issue 9, B2; fault E15: what SQLite reads over is not left behind.
#[test]
fn entries_that_nothing_claims_are_refused() {
    for edited in [
        "UPDATE sqlite_schema SET tbl_name = 'nothing' WHERE name = 'i'",
        "UPDATE sqlite_schema SET tbl_name = 'nothing' WHERE name LIKE 'sqlite_autoindex%'",
        "UPDATE sqlite_schema SET tbl_name = 'nothing' WHERE name = 't'",
        "UPDATE sqlite_schema SET tbl_name = 'nothing' WHERE name = 'v'",
        "UPDATE sqlite_schema SET tbl_name = 'nothing' WHERE name = 'x'",
        "UPDATE sqlite_schema SET type = 'something' WHERE name = 'i'",
        "UPDATE sqlite_schema SET type = 'trigger' WHERE name = 'i'",
        "UPDATE sqlite_schema SET type = 'view' WHERE name = 'x'",
        "UPDATE sqlite_schema SET name = 'another' WHERE name = 'i'",
        "UPDATE sqlite_schema SET name = 'another' WHERE name = 'v'",
        "INSERT INTO sqlite_schema VALUES('index', 'i2', 't', 4, 'CREATE INDEX IF NOT EXISTS i ON t(a)')",
    ] {
        let folder = Folder::new();
        let source = folder.build(
            "CREATE TABLE t(a UNIQUE, b); CREATE INDEX i ON t(b); CREATE VIEW v AS SELECT 1;
             CREATE TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; END; INSERT INTO t VALUES(1, 2);",
        );
        edit(&source, edited);
        drop(source);
        let failure = transfer_with(&folder, || ()).unwrap_err();
        // Some of it SQLite itself takes for damage.
        let refused = matches!(failure.code, Code::SourceUnsuitable | Code::SourceFailed);
        assert!(refused && failure.part.is_none() && !folder.target().exists(), "{edited}: {failure}");
    }
}

/// Issue 9, B2; fault E14: indexes that hold, or are ordered by, what another engine computes.
#[test]
fn indexes_that_another_engine_built_are_refused() {
    for (index, edited) in [
        ("ON t(a || 'x')", "ON t(a || 'y')"),
        ("ON t(b) WHERE length(a) > 1", "ON t(b) WHERE length(a) > 0"),
        // Entries of rows that the condition does not select, which SQLite's own check does not
        // look for.
        ("ON t(b) WHERE length(a) > 0", "ON t(b) WHERE length(a) > 1"),
        ("ON t(a)", "ON t(a COLLATE NOCASE)"),
        ("ON t(b, a)", "ON t(b, a COLLATE RTRIM)"),
        ("ON t(b)", "ON t(v)"),
    ] {
        let folder = Folder::new();
        let source = folder.build(&format!(
            "CREATE TABLE t(a, b, v AS (a || b)); CREATE INDEX i {index};
             INSERT INTO t VALUES('a', 1), ('B', 1), ('b  ', 2), ('b' || char(9), 2), ('C', 3), ('dd', 4);"
        ));
        drop(source);
        let folder_is_moved = Folder::new();
        fs::copy(folder.source(), folder_is_moved.source()).unwrap();
        transfer(&folder_is_moved);
        assert_same(&folder_is_moved);
        let quoted = edited.replace('\'', "''");
        let source = Connection::open(folder.source()).unwrap();
        edit(&source, &format!("UPDATE sqlite_schema SET sql = 'CREATE INDEX i {quoted}' WHERE name = 'i'"));
        drop(source);
        let failure = refused(&folder);
        assert!(failure.what.contains("the indexes of table t"), "{failure}");
    }
    // The order of a table without rowids is its primary key's.
    let folder = Folder::new();
    let source = folder.build(
        "CREATE TABLE t(a, b, PRIMARY KEY(a)) WITHOUT ROWID; INSERT INTO t VALUES('a', 1), ('B', 1), ('C', 3), ('dd', 4);",
    );
    edit(&source, "UPDATE sqlite_schema SET sql = replace(sql, 'KEY(a)', 'KEY(a COLLATE NOCASE)')");
    drop(source);
    refused(&folder);
}

/// Issue 9, B2: names that are too long, and a catalogue that has a table of Sealift's own.
#[test]
fn what_no_row_form_can_name_is_moved_as_an_image() {
    for (table, says) in
        [("n".repeat(1025), "has a name of 1025 bytes"), ("_Sealift_Ledger".into(), "of Sealift's own")]
    {
        let folder = Folder::new();
        folder.build(&format!("CREATE TABLE {table}(a)"));
        let failure = refused(&folder);
        assert!(failure.what.contains(says), "{failure}");
    }
}

/// Issue 9, B2: what only an application has added to SQLite can compute or compare.
#[test]
fn functions_and_collations_of_an_application_are_named() {
    for (table, edited, name) in [
        ("CREATE TABLE t(a, b AS (lower(a)))", "CREATE TABLE t(a, b AS (patient_key(a)))", "t"),
        ("CREATE TABLE t(a CHECK(lower(a)))", "CREATE TABLE t(a CHECK(patient_key(a)))", "t"),
        ("CREATE TABLE t(a); CREATE INDEX i ON t(lower(a))", "CREATE INDEX i ON t(patient_key(a))", "i"),
        ("CREATE TABLE t(a); CREATE INDEX i ON t(a)", "CREATE INDEX i ON t(a COLLATE german)", "i"),
        ("CREATE TABLE t(a)", "CREATE TABLE t(a COLLATE german)", "t"),
    ] {
        let folder = Folder::new();
        let source = folder.build(table);
        edit(&source, &format!("UPDATE sqlite_schema SET sql = '{edited}' WHERE name = '{name}'"));
        drop(source);
        let failure = refused(&folder);
        assert!(failure.what.contains(&format!("the definition of {name} needs a function")), "{failure}");
    }
    // In a view or a trigger, it is for the application.
    let folder = Folder::new();
    folder.build(
        "CREATE TABLE t(a); INSERT INTO t VALUES(1); CREATE VIEW v AS SELECT patient_key(a) FROM t;
         CREATE TRIGGER x AFTER INSERT ON t BEGIN SELECT patient_key(new.a); END;",
    );
    transfer(&folder);
    assert_same(&folder);
}

/// Issue 9, B4; fault E9: nothing is checkpointed, written or removed in the source, whichever
/// process was the last to use it.
#[test]
fn the_source_is_left_as_it_was_found() {
    let made = Folder::new();
    let source = made.build("PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES(1), (2);");
    let folder = Folder::new();
    let log = |folder: &Folder| folder.0.path().join("source.db-wal");
    // As a killed application leaves it: what was written last is in the log alone.
    fs::copy(made.source(), folder.source()).unwrap();
    fs::copy(log(&made), log(&folder)).unwrap();
    drop(source);
    let before = (fs::read(folder.source()).unwrap(), fs::read(log(&folder)).unwrap());
    assert!(!before.1.is_empty());
    let (sent, _) = transfer_with(&folder, || ()).unwrap();
    assert_eq!(sent[0].rows, 2);
    assert_eq!((fs::read(folder.source()).unwrap(), fs::read(log(&folder)).unwrap()), before);
    assert_eq!(contents(&folder.source()), contents(&folder.target()));
}
