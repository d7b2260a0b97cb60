//! What both agents need at most, however a database is made.

use std::time::Duration;

use sealift_tests::{
    exit,
    pair::{Pair, Transfer},
    sqlite,
};

/// What an agent may need: its --memory, and as much again for itself.
const MEMORY_BYTES_MAX: u64 = 128 << 20;

const WITHIN: Duration = Duration::from_secs(100);

/// Rows of next to nothing, millions of them.
const ROWS: u64 = 2_500_000;

#[track_caller]
fn assert_both_bounded(done: &Transfer) {
    done.assert_done();
    for (who, finished) in [("sender", &done.sender), ("receiver", &done.receiver)] {
        let peak = finished.peak_memory_bytes;
        assert!(peak > 0 && peak < MEMORY_BYTES_MAX, "{who}: {peak} bytes");
    }
}

#[track_caller]
fn assert_bounded(columns: &str, values: &str, indexes: &str) {
    let folder = tempfile::Builder::new().prefix("sealift-data-").tempdir().unwrap();
    let url = |name: &str| format!("sqlite:{}", folder.path().join(name).display());
    let rows = format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})");
    let sql = format!("CREATE TABLE t ({columns}); INSERT INTO t {rows} SELECT {values} FROM n; {indexes}");
    sqlite::create(&folder.path().join("from.db"), &sql);
    assert_both_bounded(&Pair::new(url("from.db"), url("to.db")).within(WITHIN).run());
}

/// Issue 9, B2: an image that is larger than what either may need.
#[test]
fn an_image_is_moved_in_bounded_memory() {
    let folder = tempfile::Builder::new().prefix("sealift-data-").tempdir().unwrap();
    let url = |name: &str| format!("sqlite:{}", folder.path().join(name).display());
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 16)";
    let value_bytes = MEMORY_BYTES_MAX / 10;
    let sql = format!("CREATE TABLE t (a); INSERT INTO t {rows} SELECT zeroblob({value_bytes}) FROM n;");
    sqlite::create(&folder.path().join("from.db"), &sql);
    let pair = Pair::new(url("from.db"), url("to.db")).sender_args(&["--form", "image"]);
    assert_both_bounded(&pair.within(WITHIN).run());
}

/// Of their own bytes such rows take a tenth in what sorts an index of them.
#[test]
fn an_index_of_letters_is_built_in_bounded_memory() {
    assert_bounded("a", "char(97 + i % 26)", "CREATE INDEX one ON t (a);");
}

#[test]
fn indexes_of_numbers_are_built_in_bounded_memory() {
    assert_bounded("a, b", "i * 7919 % 1000003, i", "CREATE INDEX one ON t (a); CREATE INDEX two ON t (b, a);");
}

/// What an agent needs beside a large value.
const BESIDE_BYTES: u64 = 64 << 20;

/// Larger than that, so that a copy too many is seen.
const VALUE_BYTES: u64 = 150_000_000;

/// How often an agent may have a large value in memory.
struct Copies {
    sender: u64,
    receiver: u64,
}

#[track_caller]
fn assert_copies(table: &str, values: &str, copies: Copies) {
    let folder = tempfile::Builder::new().prefix("sealift-data-").tempdir().unwrap();
    let url = |name: &str| format!("sqlite:{}", folder.path().join(name).display());
    sqlite::create(&folder.path().join("from.db"), &format!("{table}; INSERT INTO t VALUES ({values});"));
    let done = Pair::new(url("from.db"), url("to.db")).within(WITHIN).run();
    done.assert_done();
    for (who, finished, copies) in
        [("sender", &done.sender, copies.sender), ("receiver", &done.receiver, copies.receiver)]
    {
        let (peak, most) = (finished.peak_memory_bytes, BESIDE_BYTES + copies * VALUE_BYTES);
        assert!(peak > 0 && peak < most, "{who}: {peak} bytes, and {most} for {copies} copies");
    }
}

/// Issue 10, item 3: the sender reads a value from the database piece by piece; the receiver has
/// the row and the record that SQLite makes of it.
#[test]
fn a_large_value_is_not_copied_more_often_than_needed() {
    let values = format!("1, CAST(zeroblob({VALUE_BYTES}) AS TEXT), 'behind it'");
    assert_copies("CREATE TABLE t (a, b, c)", &values, Copies { sender: 0, receiver: 2 });
}

/// Issue 10, item 3: a BLOB at the end of its row is written into the database as it comes, and
/// read again piece by piece.
#[test]
fn a_large_value_at_the_end_of_its_row_is_not_assembled() {
    let table = "CREATE TABLE t (a UNIQUE, b, c BLOB); CREATE INDEX i ON t(b)";
    assert_copies(table, &format!("1, 'x', zeroblob({VALUE_BYTES})"), Copies { sender: 0, receiver: 0 });
}

/// Issue 10, item 3: SQLite reads from a table WITHOUT ROWID whole values alone.
#[test]
fn a_large_value_of_a_table_without_rowid_is_in_memory_once() {
    let values = format!("1, zeroblob({VALUE_BYTES})");
    assert_copies("CREATE TABLE t (a PRIMARY KEY, b) WITHOUT ROWID", &values, Copies { sender: 1, receiver: 2 });
}

/// Issue 10, item 3: what counts is the row.
#[test]
fn a_row_of_large_values_is_not_copied_more_often_than_needed() {
    let values = format!("zeroblob({VALUE_BYTES} / 2), 1, zeroblob({VALUE_BYTES} / 2)");
    assert_copies("CREATE TABLE t (a, b, c)", &values, Copies { sender: 0, receiver: 2 });
}

/// Issue 10, item 3: an index of a value is made of a copy of it.
#[test]
fn a_large_value_that_is_indexed_is_copied_once_more() {
    let values = format!("1, zeroblob({VALUE_BYTES})");
    assert_copies("CREATE TABLE t (a, b UNIQUE)", &values, Copies { sender: 0, receiver: 3 });
}

/// Issue 10, item 3: sixteen tables of large values, over as many lanes as the memory is enough
/// for, of which it is all that is there beside the copies of one value.
#[track_caller]
fn assert_many_large_values(to: &str, memory: &str, value_bytes: u64, copies: Copies) {
    let folder = tempfile::Builder::new().prefix("sealift-data-").tempdir().unwrap();
    let sql = |table: u32| format!("CREATE TABLE t{table} (a); INSERT INTO t{table} VALUES (zeroblob({value_bytes}));");
    let from = folder.path().join("from.db");
    sqlite::create(&from, &(0..16).map(sql).collect::<String>());
    let to = if to == "discard:" { to.to_owned() } else { format!("{to}{}", folder.path().join("to.db").display()) };
    let arguments = ["--memory", memory, "--row-bytes-max", "1GiB", "--compression", "off"];
    // A gigabyte takes some ten seconds.
    let within = WITHIN + Duration::from_secs(16 * value_bytes / 10_000_000);
    let pair = Pair::new(format!("sqlite:{}", from.display()), to).within(within);
    let done = pair.sender_args(&arguments).receiver_args(&arguments[..4]).run();
    done.assert_done();
    let memory_bytes = sealift_agent::units::parse_bytes(memory).unwrap();
    for (who, finished, copies) in
        [("sender", &done.sender, copies.sender), ("receiver", &done.receiver, copies.receiver)]
    {
        let (peak, most) = (finished.peak_memory_bytes, BESIDE_BYTES + memory_bytes + copies * value_bytes);
        assert!(peak > 0 && peak < most, "{who}: {peak} bytes, and {most} for {copies} copies");
    }
}

#[test]
fn large_values_in_all_tables_take_what_one_does() {
    assert_many_large_values("sqlite:", "17MiB", 40_000_000, Copies { sender: 0, receiver: 0 });
}

#[test]
fn large_values_over_sixteen_lanes_take_what_one_does() {
    assert_many_large_values("discard:", "256MiB", 40_000_000, Copies { sender: 0, receiver: 0 });
}

/// The same with values of 1 GB less what SQLite's limit of 1 GB leaves for the rest of the row,
/// over one lane and over sixteen.
#[test]
#[ignore = "takes minutes and 32 GB of disk"]
fn values_of_a_gigabyte_take_what_one_does() {
    assert_many_large_values("sqlite:", "17MiB", 999_999_000, Copies { sender: 0, receiver: 0 });
    assert_many_large_values("discard:", "256MiB", 999_999_000, Copies { sender: 0, receiver: 0 });
}

/// Fault D1: refused before any side holds it.
#[test]
fn a_row_over_the_limit_takes_no_memory() {
    let folder = tempfile::Builder::new().prefix("sealift-data-").tempdir().unwrap();
    let from = folder.path().join("from.db");
    sqlite::create(&from, "CREATE TABLE t (a, b); INSERT INTO t VALUES (1, zeroblob(300000000));");
    let pair = Pair::new(format!("sqlite:{}", from.display()), "discard:").within(WITHIN);
    let done = pair.sender_args(&["--row-bytes-max", "1MiB"]).run();
    done.assert_codes(exit::UNUSABLE, exit::UNUSABLE);
    for way in ["--row-bytes-max", "--form image"] {
        assert!(done.sender.message().contains(way), "{}", done.sender.message());
    }
    let peak = done.sender.peak_memory_bytes;
    assert!(peak > 0 && peak < MEMORY_BYTES_MAX, "{peak} bytes");
}
