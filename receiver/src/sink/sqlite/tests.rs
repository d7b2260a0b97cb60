use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::PathBuf,
};

use rusqlite::{Connection, ffi};
use sealift_protocol::{
    id::TableIndex,
    key::DigestSecret,
    manifest::{PlannedPart, PlannedTable},
};
use sealift_sqlite::{
    document::{Definition, Table},
    make_index, make_table,
};

use super::*;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn staging(&self) -> PathBuf {
        self.path(".target.db.sealift-staging")
    }

    fn prepare(&self) -> Outcome<SqliteSink> {
        let sink = SqliteSink::new(&self.path("target.db"), 1000)?;
        sink.prepare(TRANSFER, &plan(&["a"]), false)?;
        Ok(sink)
    }

    fn refused(&self) -> Failure {
        let failure = self.prepare().map(|_| ()).unwrap_err();
        assert!(!failure.hints.is_empty());
        failure
    }
}

const TRANSFER: TransferId = TransferId([5; 16]);

fn digests() -> Digests {
    Digests::new(&DigestSecret::from_bytes([7; 32]))
}

fn plan(tables: &[&str]) -> Plan {
    let mut parts = vec![PlannedPart::of_section(Section::PreData)];
    parts.extend((0..tables.len() as u32).map(|table| PlannedPart::of_table(TableIndex(table))));
    parts.push(PlannedPart::of_section(Section::PostData));
    let tables = tables.iter().map(|name| PlannedTable::named(name)).collect();
    Plan { engine: engine::rows(), tables, parts, empty: None }
}

#[test]
fn the_staging_file_is_its_owners_alone_and_goes_with_the_sink() {
    let folder = Folder::new();
    let sink = folder.prepare().unwrap();
    assert_eq!(fs::metadata(folder.staging()).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(sink.prepare(TRANSFER, &plan(&[]), false).unwrap_err().code, Code::Internal);
    assert_eq!(sink.publish(TRANSFER).unwrap_err().code, Code::Internal);
    assert_eq!(sink.prove(&digests()).unwrap_err().code, Code::Internal);
    assert_eq!(sink.begin(PartIndex(9), &digests()).map(|_| ()).unwrap_err().code, Code::Internal);
    sink.abandon();
    sink.abandon();
    assert!(!folder.staging().exists());
    assert_eq!(sink.begin(PartIndex(0), &digests()).map(|_| ()).unwrap_err().code, Code::Interrupted);
}

#[test]
fn plans_that_do_not_fit_are_refused_before_anything_is_made() {
    let folder = Folder::new();
    let mut ranges = plan(&["a"]);
    ranges.engine.capabilities.ranges = true;
    let mut two_schemas = plan(&["a"]);
    two_schemas.parts.insert(0, PlannedPart::of_section(Section::PreData));
    let mut another_format = plan(&["a"]);
    another_format.engine.format += 1;
    let bytes = Plan::opaque(sealift_opaque::engine(), None);
    for plan in [bytes, plan(&["_SEALIFT_ledger"]), ranges, two_schemas, another_format] {
        let sink = SqliteSink::new(&folder.path("target.db"), 1000).unwrap();
        assert_eq!(sink.prepare(TRANSFER, &plan, false).unwrap_err().code, Code::PlanRefused);
    }
    assert_eq!(fs::read_dir(folder.0.path()).unwrap().count(), 0);
}

#[test]
fn a_target_that_holds_anything_is_left_alone() {
    for name in ["target.db", "target.db-wal", "target.db-journal", "target.db-shm"] {
        let folder = Folder::new();
        fs::write(folder.path(name), "x").unwrap();
        assert_eq!(folder.refused().code, Code::TargetNotEmpty, "{name}");
        assert_eq!(fs::read(folder.path(name)).unwrap(), b"x");
    }
    let folder = Folder::new();
    fs::create_dir(folder.path("target.db")).unwrap();
    assert_eq!(folder.refused().code, Code::TargetNotEmpty);
    let folder = Folder::new();
    symlink(folder.path("nowhere"), folder.path("target.db")).unwrap();
    assert_eq!(folder.refused().code, Code::TargetNotEmpty);
}

/// fault-matrix S8.
#[test]
fn a_folder_that_cannot_be_used_is_told() {
    let folder = Folder::new();
    let failure = |path: PathBuf| SqliteSink::new(&path, 1000).map(|_| ()).unwrap_err().code;
    assert_eq!(failure(folder.path("missing/target.db")), Code::TargetFailed);
    assert_eq!(failure(PathBuf::from("/")), Code::TargetFailed);
    // Nobody, not even root, can make a file there.
    let sink = SqliteSink::new(std::path::Path::new("/proc/self/target.db"), 1000).unwrap();
    let failure = sink.prepare(TRANSFER, &plan(&[]), false).unwrap_err();
    assert_eq!(failure.code, Code::TargetFailed);
    assert!(failure.hints.to_string().contains("writable"), "{failure}");
}

/// fault-matrix C2, S9: only what is surely an unfinished load is removed.
#[test]
fn leftovers_are_replaced_and_other_files_are_not() {
    let ledger = format!("CREATE TABLE {LEDGER_TABLE}(x); CREATE TABLE t(x);");
    let replaced = |make: &dyn Fn(&Folder)| {
        let folder = Folder::new();
        make(&folder);
        fs::write(folder.path(".target.db.sealift-staging-journal"), "").unwrap();
        folder.prepare().unwrap();
        assert_eq!(fs::read_dir(folder.0.path()).unwrap().count(), 0);
    };
    replaced(&|_| ());
    replaced(&|folder| fs::write(folder.staging(), "").unwrap());
    replaced(&|folder| Connection::open(folder.staging()).unwrap().execute_batch(&ledger).unwrap());
    let plain = |folder: &Folder| {
        Connection::open(folder.staging()).unwrap().execute_batch("CREATE TABLE t(x)").unwrap();
        let found = fs::metadata(folder.staging()).unwrap();
        format!("{TRANSFER} {}\n", found.ino())
    };
    let mark = ".target.db.sealift-staging-finished";
    replaced(&|folder| fs::write(folder.path(mark), plain(folder)).unwrap());
    let kept = |make: &dyn Fn(&Folder)| {
        let folder = Folder::new();
        make(&folder);
        assert_eq!(folder.refused().code, Code::TargetFailed);
        assert!(fs::symlink_metadata(folder.staging()).is_ok());
    };
    kept(&|folder| fs::write(folder.staging(), "somebody's notes").unwrap());
    kept(&|folder| Connection::open(folder.staging()).unwrap().execute_batch("CREATE TABLE t(x)").unwrap());
    // The mark of another file, and one whose maker still lives.
    kept(&|folder| fs::write(folder.path(mark), plain(folder).replace(' ', " 1")).unwrap());
    let alive = std::cell::RefCell::new(None);
    kept(&|folder| {
        fs::write(folder.path(mark), plain(folder)).unwrap();
        let file = fs::File::open(folder.path(mark)).unwrap();
        file.try_lock().unwrap();
        *alive.borrow_mut() = Some(file);
    });
    // No marks at all.
    for text in ["", "0 0\n", &format!("{TRANSFER} x\n"), &"9".repeat(99)] {
        kept(&|folder| {
            plain(folder);
            fs::write(folder.path(mark), text).unwrap();
        });
    }
    kept(&|folder| fs::create_dir(folder.staging()).unwrap());
    kept(&|folder| {
        Connection::open(folder.path("other.db")).unwrap().execute_batch(&ledger).unwrap();
        symlink(folder.path("other.db"), folder.staging()).unwrap();
    });
    kept(&|folder| {
        Connection::open(folder.path("other.db")).unwrap().execute_batch(&ledger).unwrap();
        fs::hard_link(folder.path("other.db"), folder.staging()).unwrap();
    });
}

/// What was put in the place of the staging file is neither published nor removed.
#[test]
fn a_replaced_staging_file_is_not_touched() {
    let folder = Folder::new();
    let sink = folder.prepare().unwrap();
    fs::write(folder.path("other"), "theirs").unwrap();
    fs::rename(folder.path("other"), folder.staging()).unwrap();
    sink.abandon();
    assert_eq!(fs::read(folder.staging()).unwrap(), b"theirs");
}

/// fault-matrix S1, S11, D5: what the engine says becomes a code and words of ours.
#[test]
fn errors_of_the_engine_have_codes_and_no_texts() {
    let failure = |number| {
        let message = Some("canary".to_owned());
        failure::failed(&rusqlite::Error::SqliteFailure(ffi::Error::new(number), message), "table t")
    };
    for (number, code) in [
        (ffi::SQLITE_FULL, Code::TargetFull),
        (ffi::SQLITE_CONSTRAINT_UNIQUE, Code::LoadImpossible),
        (ffi::SQLITE_IOERR_WRITE, Code::TargetFailed),
        (ffi::SQLITE_CORRUPT, Code::LoadImpossible),
        (ffi::SQLITE_INTERRUPT, Code::Interrupted),
        (ffi::SQLITE_ERROR, Code::TargetFailed),
    ] {
        let failure = failure(number);
        assert_eq!(failure.code, code);
        // What interrupted it says what to do.
        let is_helpful = !failure.hints.is_empty() || code == Code::Interrupted;
        assert!(!failure.to_string().contains("canary") && is_helpful, "{failure}");
    }
    assert!(failure(ffi::SQLITE_CONSTRAINT_UNIQUE).what.ends_with("table t: UNIQUE"));
}

/// A table with the index of a constraint.
fn table(number: usize) -> Table {
    let name = format!("t{number}");
    let sql = format!("CREATE TABLE {name}(a UNIQUE, b)");
    let automatic_indexes = vec![format!("sqlite_autoindex_{name}_1")];
    Table { name, sql, rowid: None, columns: vec!["a".into(), "b".into()], indexes: Vec::new(), automatic_indexes }
}

/// B8: what the engine does to make a schema grows with the objects in it, and not with their
/// square.
#[test]
fn making_many_tables_takes_steps_in_proportion() {
    let steps = |tables: usize| {
        let steps = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let counted = Arc::clone(&steps);
        let mut connection = Connection::open_in_memory().unwrap();
        let count = move || {
            counted.fetch_add(1, Ordering::Relaxed);
            false
        };
        connection.progress_handler(1, Some(count)).unwrap();
        connection.execute_batch("BEGIN").unwrap();
        let mut shelf = shelf::Shelf::default();
        for number in 0..tables {
            make_table(&mut connection, &table(number)).unwrap();
            shelf.count(&connection).unwrap();
        }
        for number in 0..tables {
            let (name, owner) = (format!("i{number}"), format!("t{number}"));
            let sql = format!("CREATE INDEX {name} ON {owner}(b)");
            make_index(&mut connection, &Definition { name, sql, table: Some(owner.clone()) }, &owner).unwrap();
            shelf.count(&connection).unwrap();
        }
        shelf.put_back(&connection).unwrap();
        connection.execute_batch("COMMIT; PRAGMA writable_schema=RESET").unwrap();
        // Everything is there, in the order in which it was made, and the engine finds nothing
        // wrong with it.
        let text = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
        assert_eq!(text("PRAGMA integrity_check"), "ok");
        assert_eq!(text("SELECT count(*) || '' FROM sqlite_schema"), (3 * tables).to_string());
        assert_eq!(text("SELECT name FROM sqlite_schema ORDER BY rowid LIMIT 1 OFFSET 2"), "t1");
        steps.load(Ordering::Relaxed)
    };
    let (few, many) = (steps(200), steps(800));
    assert!(many < few * 5, "{few} steps for 200 tables, {many} for 800");
}
