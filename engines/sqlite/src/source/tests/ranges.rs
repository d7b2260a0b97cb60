//! Large tables in ranges: issue 10, item 2. The ranges are small here, and so are the tables.

use super::*;
use std::os::unix::fs::FileExt;

use sealift_protocol::id::TableIndex;

use crate::source::divide::Divider;

const SMALL: u64 = 64 << 10;

fn planned(folder: &Folder, range_bytes: u64) -> (Box<dyn PartReader>, Plan) {
    let source = SqliteSource::open(&folder.path()).unwrap().with_ranges(range_bytes);
    let planned = Box::new(source).plan(never()).unwrap();
    planned.plan.check().unwrap();
    (planned.snapshot.reader().unwrap(), planned.plan)
}

/// The rows of each part of a table.
fn rows_of(reader: &mut Box<dyn PartReader>, plan: &Plan, table: &str) -> Vec<Vec<Vec<u8>>> {
    let parts = (0..plan.parts.len() as u32).map(PartIndex);
    let parts: Vec<_> =
        parts.filter(|part| plan.table_of(*part).is_some_and(|planned| planned.name == table)).collect();
    parts.into_iter().map(|part| kept(reader, part.0, 16 << 20).unwrap().rows).collect()
}

fn bytes(rows: &[Vec<u8>]) -> u64 {
    rows.iter().map(|row| row.len() as u64).sum()
}

/// So many ranges that hold every row once, in the order of the table.
fn divided(folder: &Folder, range_bytes: u64, table: &str) -> Vec<Vec<Vec<u8>>> {
    let (mut reader, plan) = planned(folder, range_bytes);
    let ranges = rows_of(&mut reader, &plan, table);
    let (mut reader, plan) = planned(folder, RANGE_BYTES);
    let whole = rows_of(&mut reader, &plan, table);
    assert_eq!(whole.len(), 1);
    assert!(ranges.concat() == whole[0], "{table}");
    ranges
}

const NUMBERS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT";

#[test]
fn a_large_table_is_divided_into_ranges_of_like_size() {
    let folder = Folder::new();
    folder.database(&format!(
        "CREATE TABLE t(a INTEGER PRIMARY KEY, b); {NUMBERS} 20000) INSERT INTO t SELECT i, zeroblob(50 + i % 100) FROM n;
         CREATE TABLE small(a); INSERT INTO small VALUES(1);"
    ));
    let ranges = divided(&folder, SMALL, "t");
    let sizes: Vec<u64> = ranges.iter().map(|rows| bytes(rows)).collect();
    assert!(sizes.len() > 20 && sizes.iter().all(|size| (SMALL / 2..2 * SMALL).contains(size)), "{sizes:?}");
    assert_eq!(divided(&folder, SMALL, "small").len(), 1);
    let (_, plan) = planned(&folder, SMALL);
    let rows = plan.parts.iter().filter(|part| part.table == Some(TableIndex(0))).map(|part| part.rows_estimate);
    assert_eq!(rows.map(Option::unwrap).sum::<u64>(), 20000);
}

/// What is on overflow pages counts, even where one leaf has all rows.
#[test]
fn large_values_count() {
    let folder = Folder::new();
    folder.database(&format!("CREATE TABLE t(a); {NUMBERS} 30) INSERT INTO t SELECT zeroblob(40000) FROM n;"));
    let ranges = divided(&folder, 2 * SMALL, "t");
    assert!(ranges.len() > 5 && ranges.iter().all(|rows| (2..=8).contains(&rows.len())));
}

/// Negative rowids, gaps, and both ends of what a rowid may be.
#[test]
fn every_rowid_is_in_one_range() {
    let folder = Folder::new();
    folder.database(&format!(
        "CREATE TABLE t(a); INSERT INTO t(rowid, a) VALUES(-9223372036854775808, 'first'), (9223372036854775807, 'last');
         {NUMBERS} 3000) INSERT OR IGNORE INTO t(rowid, a) SELECT (i * 7919 % 3001 - 1500) * 3000000000000000, zeroblob(200) FROM n;
         CREATE TABLE ends(a INTEGER PRIMARY KEY, b); {NUMBERS} 500)
         INSERT INTO ends SELECT 9223372036854775807 - i, zeroblob(1000) FROM n;
         INSERT INTO ends VALUES(9223372036854775807, zeroblob(1000));"
    ));
    assert!(divided(&folder, SMALL, "t").len() > 5);
    assert!(divided(&folder, SMALL, "ends").len() > 5);
}

/// By whatever name the rowid can be reached; stored text is read in pairs, by several statements.
#[test]
fn names_encodings_and_wide_tables_make_no_difference() {
    for encoding in ["UTF-8", "UTF-16le"] {
        let folder = Folder::new();
        let columns: Vec<String> = (0..1100).map(|column| format!("c{column}")).collect();
        folder.database(&format!(
            "PRAGMA encoding='{encoding}'; CREATE TABLE t(rowid, _rowid_); {NUMBERS} 2000) INSERT INTO t SELECT i, hex(zeroblob(100)) FROM n;
             CREATE TABLE wide({}); {NUMBERS} 200) INSERT INTO wide(c0, c1099) SELECT 'first' || i, 'last' || i FROM n;",
            columns.join(",")
        ));
        assert!(divided(&folder, SMALL, "t").len() > 3);
        assert!(divided(&folder, SMALL, "wide").len() > 2);
    }
}

#[test]
fn other_tables_are_not_divided() {
    let folder = Folder::new();
    folder.database(&format!(
        "CREATE TABLE keyed(a INTEGER PRIMARY KEY, b) WITHOUT ROWID; {NUMBERS} 2000) INSERT INTO keyed SELECT i, zeroblob(200) FROM n;
         CREATE TABLE hidden(rowid, oid, _rowid_); {NUMBERS} 2000) INSERT INTO hidden SELECT 1, zeroblob(200), i FROM n;
         CREATE TABLE emptied(a); {NUMBERS} 2000) INSERT INTO emptied SELECT zeroblob(200) FROM n; DELETE FROM emptied;
         CREATE TABLE thinned(a); {NUMBERS} 2000) INSERT INTO thinned SELECT zeroblob(200) FROM n;
         DELETE FROM thinned WHERE rowid % 100 > 0; CREATE TABLE none(a);
         CREATE TABLE counted(a INTEGER PRIMARY KEY AUTOINCREMENT); CREATE INDEX i ON thinned(a); ANALYZE;"
    ));
    let (_, plan) = planned(&folder, SMALL);
    assert_eq!(plan.parts.len(), plan.tables.len() + 2);
    assert!(plan.parts.iter().all(|part| part.range.is_none()));
}

/// The content of a virtual table lies in ordinary tables.
#[test]
fn shadow_tables_are_divided() {
    let folder = Folder::new();
    folder.database(&format!(
        "CREATE VIRTUAL TABLE f USING fts5(words); {NUMBERS} 3000) INSERT INTO f SELECT 'word' || i || ' ' || hex(randomblob(60)) FROM n;"
    ));
    assert!(divided(&folder, SMALL, "f_content").len() > 3);
    divided(&folder, SMALL, "f_data");
}

/// The same boundaries again, for any process, as long as the database is the same: a checkpoint
/// changes nothing of it.
#[test]
fn boundaries_are_the_same_again() {
    let folder = Folder::new();
    let writer = folder.database(&format!(
        "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; CREATE TABLE t(a);
         {NUMBERS} 9000) INSERT INTO t(rowid, a) SELECT i * 37, zeroblob(i % 300) FROM n; DELETE FROM t WHERE rowid % 5 = 0;"
    ));
    let (mut reader, plan) = planned(&folder, SMALL);
    let first = rows_of(&mut reader, &plan, "t");
    drop(reader);
    writer.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let (mut reader, again) = planned(&folder, SMALL);
    assert_eq!((plan.hash(), first.len() > 10), (again.hash(), true));
    assert!(first == rows_of(&mut reader, &again, "t"));
}

/// A tree that leads back into itself, or to pages that are none, gives no boundaries, and ends.
#[test]
fn a_damaged_tree_divides_nothing_badly() {
    let folder = Folder::new();
    folder
        .database(&format!("CREATE TABLE t(a); {NUMBERS} 9000) INSERT INTO t SELECT zeroblob(300) FROM n;"))
        .close()
        .unwrap();
    let good = fs::read(folder.path()).unwrap();
    let root = 4096;
    assert_eq!(good[root], 5, "an interior page of a table");
    let boundaries = || {
        let connection = rusqlite::Connection::open(folder.path()).unwrap();
        let mut divider = Divider::new(&connection, SMALL, 1000).unwrap().unwrap();
        divider.boundaries("t")
    };
    assert!(boundaries().unwrap().len() > 10);
    // Whatever one byte of the root says, cell pointers and the cells themselves included.
    let file = fs::OpenOptions::new().write(true).open(folder.path()).unwrap();
    for at in (root..root + 12 + 80).chain(root + 4096 - 80..root + 4096) {
        for value in [0, 2, 0xff] {
            file.write_all_at(&[value], at as u64).unwrap();
            if let Ok(boundaries) = boundaries() {
                assert!(boundaries.is_sorted_by(|one, next| one < next), "byte {at} is {value}");
            }
        }
        file.write_all_at(&good[at..=at], at as u64).unwrap();
    }
}

/// However many tables there are, the plan has no more parts than it may.
#[test]
fn a_divider_gives_no_more_boundaries_than_it_may() {
    let folder = Folder::new();
    let table =
        |name| format!("CREATE TABLE {name}(a); {NUMBERS} 2000) INSERT INTO {name} SELECT zeroblob(300) FROM n;");
    let connection = folder.database(&["t", "u", "v"].map(table).concat());
    let mut divider = Divider::new(&connection, 1, 20).unwrap().unwrap();
    let given = ["t", "u", "v"].map(|table| divider.boundaries(table).unwrap().len());
    assert!(given[0] > 2 && given.iter().sum::<usize>() <= 20, "{given:?}");
    assert!(Divider::new(&connection, 1, 0).unwrap().is_none());
}
