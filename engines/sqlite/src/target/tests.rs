use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::PathBuf,
};

use rusqlite::{Connection, ffi};
use sealift_engine_api::{LoadFailure, TargetLoad};
use sealift_protocol::{
    id::{PartIndex, TableIndex},
    manifest::{PlannedPart, PlannedTable},
};

use super::{
    load::{make, make_last},
    shelf::{LINES_MAX, Shelf},
    *,
};
use crate::{
    document::{Definition, FinishDocument, SchemaDocument, Table},
    make_table,
    testing::{self, Ended, Never, TRANSFER, digests},
};

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

    fn prepare(&self) -> Outcome<Box<dyn TargetLoad>> {
        prepare(&self.path("target.db"), &plan(&["a"]))
    }

    fn refused(&self) -> Failure {
        let failure = self.prepare().map(|_| ()).unwrap_err();
        assert!(!failure.hints.is_empty());
        failure
    }
}

fn prepare(target: &Path, plan: &Plan) -> Outcome<Box<dyn TargetLoad>> {
    let target = SqliteTarget::new(target, 1000)?;
    Ok(target.prepare(TRANSFER, plan, Asks::Continue, Arc::new(Never))?.load)
}

fn plan(tables: &[&str]) -> Plan {
    let mut parts = vec![PlannedPart::of_section(Section::PreData)];
    parts.extend((0..tables.len() as u32).map(|table| PlannedPart::of_table(TableIndex(table))));
    parts.push(PlannedPart::of_section(Section::PostData));
    let tables = tables.iter().map(|name| PlannedTable::named(name)).collect();
    Plan { engine: engine::rows(), tables, parts, empty: None, left_out: None, rows: None }
}

#[test]
fn the_staging_file_is_its_owners_alone_and_goes_with_the_load() {
    let folder = Folder::new();
    let load = folder.prepare().unwrap();
    assert_eq!(fs::metadata(folder.staging()).unwrap().permissions().mode() & 0o777, 0o600);
    let writers = load.writers();
    let code = |part| writers.begin(PartIndex(part), &digests()).map(|_| ()).unwrap_err().code;
    assert_eq!(code(9), Code::Internal, "a part that is not in the plan");
    load.abandon();
    assert!(!folder.staging().exists());
    assert_eq!(code(0), Code::Interrupted, "writers outlive the load");
}

/// What failed to be proven is still held, to be kept or dropped.
#[test]
fn a_load_that_is_not_whole_is_not_proven() {
    let folder = Folder::new();
    let LoadFailure { failure, staged } = folder.prepare().unwrap().prove(&digests()).err().unwrap();
    assert_eq!(failure.code, Code::Internal);
    assert!(folder.staging().exists());
    staged.abandon();
    assert!(!folder.staging().exists());
}

#[test]
fn a_load_that_has_to_end_is_not_prepared() {
    let folder = Folder::new();
    let target = SqliteTarget::new(&folder.path("target.db"), 1000).unwrap();
    let prepared = target.prepare(TRANSFER, &plan(&["a"]), Asks::Continue, Arc::new(Ended));
    assert_eq!(prepared.err().map(|failure| failure.code), Some(Code::Interrupted));
    assert!(!folder.staging().exists());
}

#[test]
fn plans_that_do_not_fit_are_refused_before_anything_is_made() {
    let folder = Folder::new();
    let mut no_ranges = plan(&["a"]);
    no_ranges.engine.capabilities.ranges = false;
    let mut out_of_order = plan(&["a", "b"]);
    out_of_order.parts.swap(1, 2);
    let mut two_schemas = plan(&["a"]);
    two_schemas.parts.insert(0, PlannedPart::of_section(Section::PreData));
    let mut another_format = plan(&["a"]);
    another_format.engine.format += 1;
    let mut bytes = Plan::opaque(engine::image(), None);
    bytes.engine.name = "opaque".into();
    for plan in [bytes, plan(&["_SEALIFT_ledger"]), no_ranges, out_of_order, two_schemas, another_format] {
        let prepared = prepare(&folder.path("target.db"), &plan);
        assert_eq!(prepared.err().map(|failure| failure.code), Some(Code::PlanRefused));
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

/// Fault S8.
#[test]
fn a_folder_that_cannot_be_used_is_reported() {
    let folder = Folder::new();
    let failure = |path: PathBuf| SqliteTarget::new(&path, 1000).map(|_| ()).unwrap_err().code;
    assert_eq!(failure(folder.path("missing/target.db")), Code::TargetFailed);
    assert_eq!(failure(PathBuf::from("/")), Code::TargetFailed);
    // Nobody, not even root, can make a file there.
    let failure = prepare(Path::new("/proc/self/target.db"), &plan(&[])).err().unwrap();
    assert_eq!(failure.code, Code::TargetFailed);
    assert!(failure.hints.to_string().contains("writable"), "{failure}");
}

/// Faults C2, S9: only what is surely an unfinished load is removed.
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
    let load = folder.prepare().unwrap();
    fs::write(folder.path("other"), "theirs").unwrap();
    fs::rename(folder.path("other"), folder.staging()).unwrap();
    load.abandon();
    assert_eq!(fs::read(folder.staging()).unwrap(), b"theirs");
}

/// Faults S1, S11, D5: what the engine says becomes a code and words of ours.
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

/// Tables with an index, a trigger and a view each, every seventh with two indexes, and a virtual
/// table.
fn documents(tables: usize) -> (SchemaDocument, FinishDocument) {
    let definition = |name: String, sql: String, table: String| Definition { name, sql, table: Some(table) };
    let with_index = |number: usize| {
        let index = |name: &str| {
            let sql = format!("CREATE INDEX {name}{number} ON t{number}(b)");
            definition(format!("{name}{number}"), sql, format!("t{number}"))
        };
        let second = number.is_multiple_of(7).then(|| index("j"));
        Table { indexes: std::iter::once(index("i")).chain(second).collect(), ..table(number) }
    };
    let view = |number: usize| Definition {
        name: format!("v{number}"),
        sql: format!("CREATE VIEW v{number} AS SELECT 1"),
        table: None,
    };
    let trigger = |number: usize| {
        let owner = if number.is_multiple_of(2) { format!("t{number}") } else { format!("v{number}") };
        let when = if number.is_multiple_of(2) { "AFTER" } else { "INSTEAD OF" };
        let sql = format!("CREATE TRIGGER g{number} {when} INSERT ON {owner} BEGIN SELECT 1; END");
        definition(format!("g{number}"), sql, owner)
    };
    let virtual_table =
        Definition { name: "f".into(), sql: "CREATE VIRTUAL TABLE f USING fts5(a)".into(), table: None };
    let schema = testing::schema((0..tables).map(with_index).collect());
    let schema = SchemaDocument { virtual_tables: vec![virtual_table], ..schema };
    let finish = FinishDocument {
        views: (0..tables).map(view).collect(),
        // In another order than their tables.
        triggers: (0..tables).rev().map(trigger).collect(),
    };
    (schema, finish)
}

fn empty() -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch("BEGIN").unwrap();
    connection
}

/// Issue 9, B8: what the engine does to make a schema grows with the objects in it, and not with
/// their square.
#[test]
fn making_many_objects_takes_steps_in_proportion() {
    let steps = |tables: usize| {
        let steps = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let counted = Arc::clone(&steps);
        let mut connection = empty();
        let count = move || {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            false
        };
        connection.progress_handler(1, Some(count)).unwrap();
        let (schema, finish) = documents(tables);
        make(&mut connection, &schema).unwrap();
        make_last(&mut connection, &schema, &finish).unwrap();
        connection.execute_batch("COMMIT").unwrap();
        let steps = steps.load(std::sync::atomic::Ordering::Relaxed);
        // Everything is there, and the engine finds nothing wrong with it. What can be made of one
        // table is in the order in which it was made.
        let text = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
        connection.execute_batch("PRAGMA writable_schema=RESET").unwrap();
        assert_eq!(
            text("SELECT count(*) || '' FROM sqlite_schema WHERE type <> 'trigger'"),
            (4 * tables + tables.div_ceil(7) + 2).to_string()
        );
        let triggers = text(
            "SELECT group_concat(name) FROM (SELECT name FROM sqlite_schema WHERE type = 'trigger' ORDER BY rowid)",
        );
        assert_eq!(triggers, (0..tables).rev().map(|number| format!("g{number}")).collect::<Vec<_>>().join(","));
        assert_eq!(text("SELECT name FROM sqlite_schema ORDER BY rowid LIMIT 1 OFFSET 5"), "t1");
        assert_eq!(text("SELECT group_concat(quick_check) FROM pragma_quick_check('t7')"), "ok");
        steps
    };
    let (few, many) = (steps(200), steps(800));
    assert!(many < few * 5, "{few} steps for 200 tables, {many} for 800");
}

/// Issue 9, B8: for each CREATE the engine goes through all tables that its connection knows, which
/// no step tells of.
#[test]
fn a_connection_that_makes_many_objects_knows_few() {
    let mut connection = empty();
    let known = |connection: &Connection| {
        let sql = "SELECT count(*) FROM pragma_table_list WHERE schema = 'main' AND name <> 'sqlite_schema'";
        connection.query_row(sql, [], |row| row.get::<_, i64>(0).map(|known| known as usize)).unwrap()
    };
    let mut shelf = Shelf::default();
    let tables = 4 * LINES_MAX + 7;
    for number in 0..tables {
        let counts =
            Table { sql: format!("CREATE TABLE t{number}(a INTEGER PRIMARY KEY AUTOINCREMENT, b)"), ..table(number) };
        make_table(&mut connection, &Table { automatic_indexes: Vec::new(), ..counts }).unwrap();
        shelf.end_table(&connection).unwrap();
        assert!(known(&connection) <= LINES_MAX + 1, "after {number} tables");
    }
    shelf.leave(&connection, ["T3", "t500", "t3", "sqlite_sequence", "none"].into_iter()).unwrap();
    assert_eq!(known(&connection), 3, "those two, and what AUTOINCREMENT counts in");
    shelf.put_back(&connection).unwrap();
    assert_eq!(known(&connection), tables + 1);
    connection.execute_batch("COMMIT").unwrap();
    let once = "SELECT count(*) = 1 FROM sqlite_schema WHERE name = 'sqlite_sequence'";
    assert!(connection.query_row(once, [], |row| row.get::<_, bool>(0)).unwrap());
    connection.execute_batch("INSERT INTO t0(b) VALUES(1); INSERT INTO t500(b) VALUES(1)").unwrap();
    let check: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
}

/// The engine itself would only see it in what its connection knows.
#[test]
fn no_two_objects_have_one_name() {
    type Change = fn(&mut SchemaDocument, &mut FinishDocument);
    let changes: [(&str, Change); 7] = [
        ("T1", |schema, _| schema.tables[299].name = "T1".into()),
        ("I1", |schema, _| schema.tables[299].name = "I1".into()),
        ("i1", |schema, _| schema.tables[299].indexes[0].name = "i1".into()),
        ("t1", |schema, _| schema.tables[299].indexes[0].name = "t1".into()),
        ("t1", |schema, _| schema.virtual_tables[0].name = "t1".into()),
        ("t1", |_, finish| finish.views[299].name = "t1".into()),
        ("G299", |_, finish| finish.triggers[299].name = "G299".into()),
    ];
    for (name, change) in changes {
        let (mut schema, mut finish) = documents(300);
        change(&mut schema, &mut finish);
        let mut connection = empty();
        let made = make(&mut connection, &schema).and_then(|()| make_last(&mut connection, &schema, &finish));
        let failure = made.unwrap_err();
        assert_eq!(failure.code, Code::LoadImpossible);
        assert!(failure.what.contains(&format!("makes something else of the definition of {name} ")), "{failure}");
    }
}
