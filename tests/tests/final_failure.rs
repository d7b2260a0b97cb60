//! Issue 9, B6: a load that cannot succeed leaves nothing in the clear, and one that can go on says
//! where it lies.

use std::{fs, path::Path};

use rusqlite::Connection;
use sealift_tests::{disk::SmallDisk, exit, pair::Pair, sqlite::create_hospital};
use tempfile::TempDir;

const CANARY: &str = "CANARY PATIENT";

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("sealift-final-").tempdir().unwrap()
}

/// A database whose first table has the canary, and which holds what no target can take.
fn source(path: &Path, sql: &str) -> String {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch(&format!("CREATE TABLE p(name); INSERT INTO p VALUES('{CANARY}');")).unwrap();
    connection.execute_batch(sql).unwrap();
    format!("sqlite:{}", path.display())
}

fn edited(table: &str, rows: &str, sql: &str) -> String {
    format!(
        "CREATE TABLE t({table}); INSERT INTO t VALUES {rows}; PRAGMA writable_schema=ON;
         UPDATE sqlite_schema SET sql = '{sql}' WHERE name = 't';"
    )
}

/// Whatever the target's engine will refuse again and again, in rows and in definitions.
#[test]
fn what_can_never_be_loaded_is_dropped_at_once() {
    let cases = [
        ("a constraint of its own schema", edited("a", "(NULL)", "CREATE TABLE t(a NOT NULL)")),
        ("a type of its own schema", edited("a ANY", "(''x'')", "CREATE TABLE t(a INT) STRICT").replace("''", "'")),
        (
            "a generated column that fails for a row",
            edited("a", "('no json')", "CREATE TABLE t(a, b AS (json_extract(a, ''$.x'')) NOT NULL)"),
        ),
    ];
    for (what, sql) in cases {
        let folder = folder();
        let source = source(&folder.path().join("source"), &sql);
        let target = folder.path().join("target/to");
        fs::create_dir(target.parent().unwrap()).unwrap();
        let failed = Pair::new(source, format!("sqlite:{}", target.display())).run();
        failed.assert_codes(exit::UNUSABLE, exit::UNUSABLE);
        let said = failed.receiver.stderr();
        assert_eq!(failed.receiver.finished_event()["outcome"], "load_impossible", "{what}: {said}");
        assert!(said.contains("is removed"), "{what}: {said}");
        let left: Vec<_> = fs::read_dir(target.parent().unwrap()).unwrap().collect();
        assert!(left.is_empty(), "{what}: {left:?}");
        let unfinished = failed.receiver.home().join("state/transfers");
        assert_eq!(fs::read_dir(unfinished).map_or(0, Iterator::count), 0, "{what}");
    }
}

/// What can go on stays, and both the message and `status` say where.
#[test]
fn where_a_load_stays_is_said() {
    let Some(disk) = SmallDisk::mount("size=2m") else { return };
    let folder = folder();
    let path = folder.path().join("source");
    create_hospital(&path, 20_000);
    let target = format!("sqlite:{}", disk.path("to").display());
    let failed = Pair::new(format!("sqlite:{}", path.display()), target).run();
    failed.assert_codes(exit::UNUSABLE, exit::UNUSABLE);
    let (said, staged) = (failed.receiver.stderr(), disk.path(".to.sealift-staging"));
    assert!(staged.exists());
    assert!(said.contains(&format!("stays in {}", staged.display())), "{said}");
    assert!(said.contains("sealift-receiver abandon"), "{said}");
    let state = failed.receiver.home().join("state");
    let status = sealift_tests::agents::Launch::bare("sealift-receiver", &["status", "--state-dir"]).arg(&state);
    let status = status.start().wait(std::time::Duration::from_secs(20));
    let listed = String::from_utf8(fs::read(status.home().join("stdout")).unwrap()).unwrap();
    assert!(listed.contains(&staged.display().to_string()), "{listed}");
}
