pub mod kept;
mod ranges;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::BytesMut;

use self::kept::{Folder, Kept};
use super::*;
use crate::{read_values, stored::Cursors, testing::never};

impl Folder {
    fn planned(&self) -> Outcome<Planned> {
        let planned = Box::new(SqliteSource::open(&self.path())?).plan(never())?;
        planned.plan.check().unwrap();
        assert!(planned.snapshot.can_repeat());
        Ok(planned)
    }

    /// The plan, and the first reader.
    fn plan(&self) -> Outcome<(Box<dyn PartReader>, Plan)> {
        let planned = self.planned()?;
        Ok((planned.snapshot.reader()?, planned.plan))
    }

    /// The source with its transaction open, and what it has found.
    fn content(&self) -> (SqliteSource, Content) {
        let source = SqliteSource::open(&self.path()).unwrap();
        let (content, _) = source.take_snapshot().unwrap();
        (source, content)
    }

    fn refused(&self) -> Failure {
        let failure = self.plan().map(|(_, plan)| plan).unwrap_err();
        assert!(!failure.hints.is_empty());
        failure
    }
}

/// Reads one part whole.
fn kept(reader: &mut Box<dyn PartReader>, part: u32, row_bytes_max: usize) -> Outcome<Kept> {
    let mut kept = Kept::new(row_bytes_max);
    reader.read(PartIndex(part), &mut kept)?;
    Ok(kept)
}

/// The rows of a part.
fn read(reader: &mut Box<dyn PartReader>, part: u32, row_bytes_max: usize) -> Outcome<u64> {
    Ok(kept(reader, part, row_bytes_max)?.rows.len() as u64)
}

/// What is in the first three parts.
fn content(reader: &mut Box<dyn PartReader>) -> Vec<(Vec<Vec<u8>>, Vec<u8>)> {
    let parts = (0..3).map(|part| kept(reader, part, 1000).unwrap());
    parts.map(|kept| (kept.rows, kept.bytes)).collect()
}

/// Faults C1, D7: the same rows in the same order again, within the snapshot whatever is written
/// meanwhile, and to another process as long as nothing is.
#[test]
fn parts_can_be_read_again() {
    let folder = Folder::new();
    let writer = folder.database(
        "PRAGMA journal_mode=WAL; CREATE TABLE t(a TEXT PRIMARY KEY, b); CREATE INDEX i ON t(b);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 40000)
         INSERT INTO t SELECT 'canary' || (i * 7919 % 40009), i FROM n; CREATE VIEW v AS SELECT 1;",
    );
    let (mut source, plan) = folder.plan().unwrap();
    let first = content(&mut source);
    assert_eq!(first[1].0.len(), 40000);
    let (mut second, again) = folder.plan().unwrap();
    assert_eq!(plan.hash(), again.hash());
    assert!(content(&mut second) == first);
    writer.execute_batch("DELETE FROM t WHERE b % 2 = 0").unwrap();
    assert!(content(&mut source) == first);
    let (mut third, _) = folder.plan().unwrap();
    assert!(content(&mut third) != first);
}

#[test]
fn plans_tables_and_shadow_tables_with_the_engines_own_last() {
    let folder = Folder::new();
    folder.database(
        "CREATE TABLE a(x INTEGER PRIMARY KEY AUTOINCREMENT); CREATE INDEX i ON a(x); ANALYZE;
         CREATE VIRTUAL TABLE f USING fts5(x); CREATE TABLE b(x); INSERT INTO b VALUES(1),(2),(2);",
    );
    let (mut source, plan) = folder.plan().unwrap();
    let rows: Vec<&str> = plan.tables.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(rows[..2], ["a", "f_data"]);
    assert!(rows.contains(&"f_config") && rows.contains(&"b") && !rows.contains(&"f"));
    assert_eq!(rows[rows.len() - 3..], ["sqlite_stat1", "sqlite_stat4", "sqlite_sequence"]);
    assert!(plan.tables.iter().all(|table| table.internal == table.name.starts_with("sqlite_")));
    let b = rows.iter().position(|name| *name == "b").unwrap() + 1;
    assert_eq!(plan.parts[b].rows_estimate, Some(3));
    assert_eq!(read(&mut source, b as u32, 1000).unwrap(), 3);
    assert_eq!(read(&mut source, 99, 1000).unwrap_err().code, Code::Internal);
}

#[test]
fn what_is_no_database_is_refused() {
    let folder = Folder::new();
    let open = |path: &Path| SqliteSource::open(path).map(|_| ()).unwrap_err();
    assert_eq!(open(&folder.path()).code, Code::SourceFailed);
    assert_eq!(open(folder.path().parent().unwrap()).code, Code::SourceFailed);
    assert_eq!(open(Path::new(":memory:")).code, Code::SourceFailed);
    assert_eq!(open(Path::new("file:nothing?mode=memory")).code, Code::SourceFailed);
    fs::write(folder.path(), "PGDMP ".repeat(1000)).unwrap();
    let failure = folder.refused();
    assert_eq!(failure.code, Code::SourceFailed);
    assert!(failure.what.contains("not an SQLite database"), "{failure}");
}

#[test]
fn damage_is_told_with_the_table_and_no_content() {
    let folder = Folder::new();
    folder
        .database(
            "CREATE TABLE t(x); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 20000)
         INSERT INTO t SELECT 'canary' || i FROM n;",
        )
        .close()
        .unwrap_or_else(|_| panic!("still in use"));
    let mut bytes = fs::read(folder.path()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8192].fill(0xff);
    fs::write(folder.path(), bytes).unwrap();
    let (mut source, _) = folder.plan().unwrap();
    let failure = read(&mut source, 1, 1000).unwrap_err();
    assert_eq!((failure.code, failure.part), (Code::SourceFailed, Some(PartIndex(1))));
    assert_eq!(failure.what, "the source is damaged at table t");
}

/// Fault D7: what is written after the plan is not in the transfer, also in WAL mode.
#[test]
fn reads_one_moment() {
    for mode in ["WAL", "DELETE"] {
        let folder = Folder::new();
        let writer =
            folder.database(&format!("PRAGMA journal_mode={mode}; CREATE TABLE t(x); INSERT INTO t VALUES(1);"));
        writer.busy_timeout(Duration::ZERO).unwrap();
        let (mut source, _) = folder.plan().unwrap();
        let written = writer.execute_batch("INSERT INTO t VALUES(2); CREATE TABLE late(x);");
        assert_eq!(written.is_ok(), mode == "WAL");
        assert_eq!(read(&mut source, 1, 1000).unwrap(), 1);
    }
}

#[test]
fn other_virtual_tables_are_refused_in_the_plan() {
    let folder = Folder::new();
    folder.database("CREATE VIRTUAL TABLE \"odd name\" USING dbstat;");
    let failure = folder.refused();
    assert_eq!(failure.code, Code::SourceUnsuitable);
    assert_eq!(failure.what, "table odd name is a virtual table of the module dbstat");
}

#[test]
fn unknown_modules_are_refused_in_the_plan() {
    let folder = Folder::new();
    folder.database(
        "PRAGMA writable_schema=ON;
         INSERT INTO sqlite_schema VALUES('table','v','v',0,'CREATE VIRTUAL TABLE v /* USING fts5 */ USING spy(fts5)');",
    );
    assert_eq!(folder.refused().what, "table v is a virtual table of the module spy");
}

#[test]
fn a_ledger_is_not_moved() {
    let folder = Folder::new();
    folder.database("CREATE TABLE _Sealift_Ledger(x);");
    assert_eq!(folder.refused().code, Code::SourceUnsuitable);
}

/// The type of a column that holds numbers as text was edited in the schema.
#[test]
fn values_that_would_be_converted_stop_the_reading() {
    for encoding in ["UTF-8", "UTF-16le", "UTF-16be"] {
        let folder = Folder::new();
        folder.database(&format!(
            "PRAGMA encoding='{encoding}'; CREATE TABLE t(a TEXT, b TEXT); INSERT INTO t VALUES('1', 'x'), ('2', '007');
             PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql='CREATE TABLE t(a TEXT, b INT)' WHERE name='t';"
        ));
        let (mut source, _) = folder.plan().unwrap();
        let failure = read(&mut source, 1, 1000).unwrap_err();
        assert_eq!(failure.code, Code::SourceUnsuitable);
        assert_eq!(failure.what, "column b of table t holds a value that its declared type would convert");
    }
}

#[test]
fn a_rowid_is_carried_where_no_column_is_it() {
    let carried = |definition: &str| {
        let folder = Folder::new();
        folder.database(&format!("CREATE TABLE t({definition};"));
        folder.content().1.tables[0].table.rowid.map(RowidName::name)
    };
    use crate::document::RowidName;
    assert_eq!(carried("a)"), Some("rowid"));
    assert_eq!(carried("RowID, oid)"), Some("_rowid_"));
    assert_eq!(carried("rowid, _rowid_, oid)"), None);
    assert_eq!(carried("a INTEGER PRIMARY KEY)"), None);
    assert_eq!(carried("a integer, b, PRIMARY KEY(a DESC))"), None);
    assert_eq!(carried("a INTEGER PRIMARY KEY DESC)"), Some("rowid"));
    assert_eq!(carried("a INT PRIMARY KEY)"), Some("rowid"));
    assert_eq!(carried("a INTEGER, b INTEGER, PRIMARY KEY(a, b))"), Some("rowid"));
    assert_eq!(carried("a INTEGER PRIMARY KEY) WITHOUT ROWID"), None);
}

#[test]
fn the_row_limit_is_kept() {
    let folder = Folder::new();
    folder.database("CREATE TABLE t(x); INSERT INTO t VALUES(zeroblob(5000));");
    let (mut source, _) = folder.plan().unwrap();
    assert_eq!(read(&mut source, 1, 4000).unwrap_err().code, Code::SourceUnsuitable);
    // The rowid; format and length; the value.
    let exactly = 3 + 3 + 5000;
    assert_eq!(read(&mut source, 1, exactly).unwrap(), 1);
    assert!(read(&mut source, 1, exactly - 1).is_err());
}

/// Fault D1: neither one long value, nor several short ones.
#[test]
fn a_row_that_is_too_long_is_not_encoded() {
    let folder = Folder::new();
    folder.database(
        "CREATE TABLE t(x); INSERT INTO t VALUES(zeroblob(5000000));
         CREATE TABLE u(a, b, c, d); INSERT INTO u VALUES(zeroblob(900), zeroblob(900), zeroblob(900), 1);",
    );
    let (mut source, _) = folder.plan().unwrap();
    for part in [1, 2] {
        assert_eq!(read(&mut source, part, 2000).unwrap_err(), row_too_long(2000).at_part(PartIndex(part)));
    }
    let (source, content) = folder.content();
    let (table, encoding) = (&content.tables[1], content.encoding);
    let mut select = source.connection.prepare("SELECT a, b, c, d FROM u").unwrap();
    let mut out = Kept::new(2000);
    let mut emitting = Emitting { table, encoding, out: &mut out, row_bytes: 0 };
    let mut copied = BytesMut::new();
    let mut cursors = Cursors::begin(std::slice::from_mut(&mut select), None, encoding, &emitting).unwrap();
    assert!(cursors.next(&mut copied, &mut emitting).is_err());
    assert_eq!(copied.len(), 2 * 903);
}

/// Fault D1: text that is not valid in its encoding is carried as it lies there.
#[test]
fn invalid_text_is_carried_as_bytes() {
    for (encoding, bytes) in [("UTF-8", "ff0041"), ("UTF-16le", "00d84100"), ("UTF-16be", "fffe00d8")] {
        let folder = Folder::new();
        folder.database(&format!(
            "PRAGMA encoding='{encoding}'; CREATE TABLE t(a INTEGER PRIMARY KEY, b, c);
             INSERT INTO t VALUES(1, CAST(x'{bytes}' AS TEXT), x'{bytes}');"
        ));
        let (mut source, _) = folder.plan().unwrap();
        let rows = kept(&mut source, 1, 1000).unwrap().rows;
        let mut values = Vec::new();
        read_values(&rows[0], 3, &mut values).unwrap();
        let expected: Vec<u8> =
            (0..bytes.len()).step_by(2).map(|at| u8::from_str_radix(&bytes[at..at + 2], 16).unwrap()).collect();
        assert_eq!(values, [Value::Integer(1), Value::Text(&expected), Value::Blob(&expected)], "{encoding}");
    }
}

#[test]
fn a_writer_that_does_not_let_go_is_reported() {
    let folder = Folder::new();
    let writer = folder.database("CREATE TABLE t(x); BEGIN EXCLUSIVE;");
    let source = SqliteSource::open_within(&folder.path(), Duration::from_millis(50));
    let failure = source.and_then(|source| Box::new(source).plan(never())).map(drop).unwrap_err();
    assert!(failure.what.contains("keeps") && failure.what.ends_with("locked"), "{failure}");
    drop(writer);
}

/// Issue 9, B8: what the engine does to plan and read many tables grows with their number, and not
/// with its square.
#[test]
fn many_tables_take_steps_in_proportion() {
    let steps = |tables: u32| {
        let folder = Folder::new();
        let create = |table| {
            format!(
                "CREATE TABLE t{table}(a UNIQUE, b); CREATE INDEX i{table} ON t{table}(b); INSERT INTO t{table} VALUES(1, 2);"
            )
        };
        folder.database(&format!("BEGIN; {} COMMIT", (0..tables).map(create).collect::<String>()));
        let mut source = SqliteSource::open(&folder.path()).unwrap();
        let steps = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&steps);
        let count = move || {
            counted.fetch_add(1, Ordering::Relaxed);
            false
        };
        source.connection.progress_handler(1, Some(count)).unwrap();
        let mut reader = Box::new(source).plan(never()).unwrap().snapshot.reader().unwrap();
        for part in 1..=tables {
            assert_eq!(read(&mut reader, part, 1000), Ok(1));
        }
        steps.load(Ordering::Relaxed)
    };
    let (few, many) = (steps(100), steps(400));
    assert!(many < few * 5, "{few} steps for 100 tables, {many} for 400");
}

/// Issue 10, item 2: what is written meanwhile is seen by none of several readers, or there is no
/// second one.
#[test]
fn readers_share_one_moment() {
    for (mode, is_logged) in [("WAL", false), ("WAL", true), ("DELETE", false)] {
        let folder = Folder::new();
        let tables = "CREATE TABLE t(x); INSERT INTO t VALUES(1);";
        let writer = folder.database(&format!("PRAGMA journal_mode={mode}; {tables}"));
        writer.busy_timeout(Duration::ZERO).unwrap();
        if !is_logged {
            // What an application leaves that has closed its database.
            writer.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        }
        let planned = folder.planned().unwrap();
        let mut first = planned.snapshot.reader().unwrap();
        let mut second = planned.snapshot.reader().unwrap();
        let written = writer.execute_batch("INSERT INTO t VALUES(2); PRAGMA wal_checkpoint(PASSIVE);");
        assert_eq!(written.is_ok(), mode == "WAL");
        // One that is opened after a write sees the moment of the first, or does not open.
        if let Ok(mut third) = planned.snapshot.reader() {
            assert_eq!(read(&mut third, 1, 1000).unwrap(), 1, "{mode}, {is_logged}");
        } else {
            assert_eq!((mode, is_logged), ("WAL", false));
        }
        let second_again = (read(&mut second, 1, 1000).unwrap(), read(&mut second, 1, 1000).unwrap());
        assert_eq!((read(&mut first, 1, 1000).unwrap(), second_again), (1, (1, 1)), "{mode}, {is_logged}");
    }
}
