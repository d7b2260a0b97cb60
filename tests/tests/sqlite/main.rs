//! An SQLite database moved into another, whole and without a network. Names of rows of the fault
//! matrix stand with the tests that prove them.

mod compare;
mod exact;
mod image;
mod long;
mod many;
mod nasty;
mod pump;
mod ranges;
mod resume;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rusqlite::Connection;
use sealift_agent::failure::Outcome;
use sealift_engine_api::PartSink;
use sealift_protocol::{
    chunk::{Chunk, VerifiedChunk},
    close::Code,
    id::{ChunkIndex, PartIndex},
    receive::WholePart,
};
use sealift_sqlite::document::{Definition, SchemaDocument};

use self::{
    compare::{contents, strings},
    pump::{Folder, Pump, TRANSFER, digests, transfer, transfer_with},
};

fn assert_same(folder: &Folder) {
    let (source, target) = (contents(&folder.source()), contents(&folder.target()));
    for (source, target) in source.iter().zip(&target) {
        assert_eq!(source, target);
    }
    assert_eq!(source.len(), target.len());
}

/// Faults D1, D2, D3, D4, D12, D16: about everything SQLite can hold arrives as it was, in every
/// encoding.
#[test]
fn everything_arrives_exactly() {
    for (encoding, page_bytes, vacuum, mode) in
        [("UTF-8", 4096, "NONE", "WAL"), ("UTF-16le", 512, "FULL", "DELETE"), ("UTF-16be", 65536, "INCREMENTAL", "WAL")]
    {
        let folder = Folder::new();
        let setup =
            format!("PRAGMA encoding='{encoding}'; PRAGMA page_size={page_bytes}; PRAGMA auto_vacuum={vacuum};");
        let source = folder.build(&setup);
        source.execute_batch(&format!("PRAGMA journal_mode={mode}; PRAGMA default_cache_size={page_bytes};")).unwrap();
        nasty::fill(&source);
        source.close().unwrap();
        transfer(&folder);
        assert_same(&folder);
        folder.tidy();
        assert_eq!(folder.names(), ["source.db", "target.db"]);
        let mode = fs::metadata(folder.target()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        works(&folder);
    }
}

/// The target is not only equal: searches find, triggers fire, checks say of both the same.
fn works(folder: &Folder) {
    let source = Connection::open(folder.source()).unwrap();
    let target = Connection::open(folder.target()).unwrap();
    for query in [
        "PRAGMA integrity_check",
        "PRAGMA foreign_key_check",
        "SELECT rowid FROM search WHERE search MATCH 'run'",
        "SELECT rowid FROM search_external WHERE search_external MATCH 'fox'",
        "SELECT rowid FROM \"search \"\"contentless\"\"\" WHERE \"search \"\"contentless\"\"\" MATCH 'alpha'",
        "SELECT body FROM search3 WHERE body MATCH 'third'",
        "SELECT body FROM search4 WHERE body MATCH 'fo*'",
        "SELECT term FROM terms",
        "SELECT id FROM area WHERE x0 < 0",
        "SELECT x0 FROM area32",
        "SELECT x FROM second",
        "SELECT seq FROM sqlite_sequence ORDER BY rowid",
        "SELECT count(*) FROM log",
    ] {
        let found = strings(&target, query);
        assert!(!found.is_empty() || query.contains("check"), "{query}");
        assert_eq!(strings(&source, query), found, "{query}");
    }
    target.execute_batch("INSERT INTO first VALUES('trigger')").unwrap();
    assert_eq!(strings(&target, "SELECT what FROM log"), ["trigger"]);
    assert!(target.execute_batch("INSERT INTO plain VALUES(1)").is_err());
    target.execute_batch("INSERT INTO search VALUES('more'); DROP TABLE search4;").unwrap();
}

#[test]
fn an_empty_database_and_an_empty_target_file_are_fine() {
    let folder = Folder::new();
    folder.build("PRAGMA user_version=3; CREATE TABLE a(x INTEGER PRIMARY KEY AUTOINCREMENT); DROP TABLE a;");
    fs::write(folder.target(), "").unwrap();
    transfer(&folder);
    assert_same(&folder);
}

/// Fault D1: one value of 100 MB.
#[test]
fn a_large_value_arrives() {
    let folder = Folder::new();
    folder.build("CREATE TABLE t(a, b); INSERT INTO t VALUES(1, zeroblob(100000000)), (2, 'after');");
    transfer(&folder);
    assert_same(&folder);
}

/// Over the bytes that are sorted in memory, indexes grow with the rows.
#[test]
fn a_table_too_large_to_sort_keeps_its_indexes() {
    let folder = Folder::new();
    folder.build(
        "CREATE TABLE t(a, b); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1200)
         INSERT INTO t SELECT i * 7919 % 1201, zeroblob(65536) FROM n; CREATE UNIQUE INDEX u ON t(a);",
    );
    transfer(&folder);
    let target = Connection::open(folder.target()).unwrap();
    assert_eq!(strings(&target, "PRAGMA integrity_check"), ["ok"]);
    assert_eq!(strings(&target, "SELECT count(*) FROM t INDEXED BY u WHERE a > 0"), ["Integer(1200)"]);
}

/// Faults D6, D11: what is changed in the target after it was loaded is found by reading it again.
#[test]
fn a_changed_target_gives_other_digests() {
    for (find, put) in [("canary seven", "canary eight"), ("canary seven", "Canary seven")] {
        let folder = Folder::new();
        folder.build(
            "CREATE TABLE a(x); CREATE TABLE b(x); INSERT INTO a VALUES('same'); INSERT INTO b VALUES('canary seven');",
        );
        let (sent, loaded) = transfer_with(&folder, || {
            let mut bytes = fs::read(folder.staging()).unwrap();
            let at = bytes.windows(find.len()).position(|window| window == find.as_bytes()).unwrap();
            bytes[at..at + put.len()].copy_from_slice(put.as_bytes());
            fs::write(folder.staging(), bytes).unwrap();
        })
        .unwrap();
        assert_eq!(sent[0], loaded[0]);
        assert_eq!(sent[1].rows, loaded[1].rows);
        assert_ne!(sent[1].sum, loaded[1].sum);
        assert_eq!(folder.names(), ["source.db"]);
    }
}

#[test]
fn a_changed_catalogue_or_another_file_is_found() {
    // Longer than a page: the end of the view's text is on a page that the engine does not write
    // again.
    let build =
        format!("CREATE TABLE a(x); INSERT INTO a VALUES(1); CREATE VIEW v AS /*{}*/ SELECT 1;", "-".repeat(9000));
    let folder = Folder::new();
    folder.build(&build);
    let failure = transfer_with(&folder, || {
        let bytes = fs::read(folder.staging()).unwrap();
        // The ledger has the text too, before the catalogue does.
        let at = bytes.windows(8).rposition(|window| window == b"SELECT 1").unwrap();
        let mut changed = bytes;
        changed[at + 7] = b'2';
        fs::write(folder.staging(), changed).unwrap();
    });
    assert_eq!(failure.unwrap_err().code, Code::TargetMismatch);
    let folder = Folder::new();
    folder.build(&build);
    let failure = transfer_with(&folder, || {
        fs::copy(folder.staging(), folder.0.path().join("copy")).unwrap();
        fs::rename(folder.0.path().join("copy"), folder.staging()).unwrap();
    });
    assert_eq!(failure.unwrap_err().code, Code::TargetFailed);
}

/// Fault D5: the table and the kind of constraint are told, and no value; nothing is left.
#[test]
fn a_constraint_violation_is_told_without_a_value() {
    let folder = Folder::new();
    folder.build(
        "CREATE TABLE t(a, b); INSERT INTO t VALUES('canary', NULL), ('canary', 2); PRAGMA writable_schema=ON;
         UPDATE sqlite_schema SET sql='CREATE TABLE t(a, b NOT NULL)' WHERE name='t';",
    );
    let failure = transfer_with(&folder, || ()).unwrap_err();
    assert_eq!((failure.code, failure.part), (Code::LoadImpossible, Some(PartIndex(1))));
    assert_eq!(failure.what, "a row does not keep a constraint of table t: NOT NULL");
    assert_eq!(folder.names(), ["source.db"]);
}

/// A catalogue that was edited to do more than define: SQLite itself does not read two statements,
/// and the rest is refused before anything is sent.
#[test]
fn a_hostile_catalogue_does_nothing() {
    for (sql, code) in [
        ("CREATE TABLE t(a); ATTACH ''attached'' AS x", Code::SourceFailed),
        ("CREATE TABLE t(a CHECK(load_extension(''x'')))", Code::SourceUnsuitable),
    ] {
        let folder = Folder::new();
        folder.build(&format!("CREATE TABLE t(a); PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql='{sql}';"));
        let failure = transfer_with(&folder, || ()).unwrap_err();
        assert_eq!((failure.code, failure.part), (code, None), "{sql}: {failure}");
        assert_eq!(folder.names(), ["source.db"]);
    }
}

/// The same from a sender that made its schema part up.
#[test]
fn a_hostile_schema_part_does_nothing() {
    let folder = Folder::new();
    folder.build("CREATE TABLE t(a);");
    let attached = folder.0.path().join("attached");
    let good = |document: &mut SchemaDocument| document.user_version = 1;
    let second = |document: &mut SchemaDocument| document.tables[0].sql.push_str("; DROP TABLE _sealift_ledger");
    let missing = |document: &mut SchemaDocument| document.tables.clear();
    let module = |document: &mut SchemaDocument| {
        let sql = "CREATE VIRTUAL TABLE v USING dbstat".to_owned();
        document.virtual_tables.push(Definition { name: "v".into(), sql, table: None });
    };
    let attach = |document: &mut SchemaDocument| {
        let sql = format!("ATTACH '{}' AS x", attached.display());
        document.tables[0].indexes.push(Definition { name: "i".into(), sql, table: Some("t".into()) });
    };
    type Change<'a> = &'a dyn Fn(&mut SchemaDocument);
    for (change, code) in [
        (&good as Change<'_>, None),
        (&second, Some(Code::LoadImpossible)),
        (&missing, Some(Code::PlanRefused)),
        (&module, Some(Code::LoadImpossible)),
        (&attach, Some(Code::LoadImpossible)),
    ] {
        let load = folder.load();
        let mut pump = Pump::start(&folder, &load).unwrap();
        let (sent, whole) = chunks(&mut pump, PartIndex(0)).unwrap();
        let mut document = SchemaDocument::from_bytes(sent[0].plain()).unwrap();
        change(&mut document);
        let chunk = Chunk::new(PartIndex(0), ChunkIndex(0), true, document.to_bytes());
        let mut loader = load.begin(PartIndex(0), &digests()).unwrap();
        loader.write(&pump.link.carry(&chunk)).unwrap();
        assert_eq!(loader.finish(&whole).err().map(|failure| failure.code), code);
        load.abandon();
    }
    assert_eq!(folder.names(), ["source.db"]);
}

/// Fault D7: rows written while the transfer runs are not in it.
#[test]
fn a_source_that_is_written_meanwhile_gives_one_moment() {
    let folder = Folder::new();
    let writer =
        folder.build("PRAGMA journal_mode=WAL; CREATE TABLE a(x); CREATE TABLE b(x); INSERT INTO a VALUES(1);");
    let load = folder.load();
    let mut pump = Pump::start(&folder, &load).unwrap();
    writer.execute_batch("INSERT INTO a VALUES(2); INSERT INTO b SELECT x FROM a; DROP TABLE a;").unwrap();
    let rows: Vec<u64> = pump.rest(0).unwrap().iter().map(|table| table.rows).collect();
    assert_eq!(rows, [1, 0]);
}

/// What is not finished leaves nothing of the part; the part can then be written again, and a third
/// time for nothing.
#[test]
fn a_part_is_loaded_whole_or_not_at_all() {
    let folder = Folder::new();
    folder.build("CREATE TABLE a(x); INSERT INTO a VALUES(1), (2); CREATE TABLE b(x); INSERT INTO b VALUES(3);");
    let load = folder.load();
    let mut pump = Pump::start(&folder, &load).unwrap();
    let part = pump.place("a");
    // Dropped: the schema itself, and then rows.
    let mut loader = load.begin(PartIndex(0), &digests()).unwrap();
    pump.feed(PartIndex(0), &mut *loader).unwrap();
    drop(loader);
    pump.part(PartIndex(0)).unwrap();
    let mut loader = load.begin(part, &digests()).unwrap();
    let (_, whole) = pump.feed(part, &mut *loader).unwrap();
    drop(loader);
    // Finished without its last chunk.
    let loader = load.begin(part, &digests()).unwrap();
    assert_eq!(loader.finish(&whole).unwrap_err().code, Code::Internal);
    let sent = pump.rest(1).unwrap();
    assert_eq!(pump.part(part).unwrap(), sent[0]);
    assert_eq!(load.prove(&digests()).unwrap().tables, sent);
    load.publish().unwrap();
    assert_same(&folder);
}

/// One writes, the other waits; whatever order they come in, schema goes first and the finish last.
#[test]
fn parts_wait_for_each_other() {
    let folder = Folder::new();
    folder.build("CREATE TABLE a(x INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO a VALUES(5); CREATE TABLE b(x); INSERT INTO b VALUES(3);");
    let load = folder.load();
    let mut pump = Pump::start(&folder, &load).unwrap();
    let parts = pump.plan.parts.len() as u32;
    let (began, order) = mpsc::channel();
    thread::scope(|scope| {
        // Backwards, each from a thread of its own, with chunks made beforehand.
        for part in (0..parts).rev() {
            let ((chunks, whole), began, load) = (chunks(&mut pump, PartIndex(part)).unwrap(), began.clone(), &load);
            scope.spawn(move || {
                let mut loader = load.begin(PartIndex(part), &digests()).unwrap();
                began.send(part).unwrap();
                chunks.iter().for_each(|chunk| loader.write(chunk).unwrap());
                thread::sleep(Duration::from_millis(5));
                loader.finish(&whole).unwrap();
            });
        }
    });
    drop(began);
    let order: Vec<u32> = order.iter().collect();
    assert_eq!((order[0], order[parts as usize - 2], order[parts as usize - 1]), (0, parts - 2, parts - 1));
    load.prove(&digests()).unwrap();
    load.publish().unwrap();
    assert_same(&folder);
}

fn chunks(pump: &mut Pump<'_>, part: PartIndex) -> Outcome<(Vec<VerifiedChunk>, WholePart)> {
    struct Keep(Vec<VerifiedChunk>);
    impl PartSink for Keep {
        fn write(&mut self, chunk: &VerifiedChunk) -> Outcome {
            self.0.push(chunk.clone());
            Ok(())
        }
        fn finish(self: Box<Self>, _whole: &WholePart) -> Outcome<Vec<PartIndex>> {
            Ok(Vec::new())
        }
    }
    let mut keep = Keep(Vec::new());
    let (_, whole) = pump.feed(part, &mut keep)?;
    Ok((keep.0, whole))
}

/// Given up from another thread: who waits and who writes both end, and nothing is left.
#[test]
fn abandon_ends_writers_and_waiters() {
    let folder = Folder::new();
    // Without a rowid that is carried, the same rows can be written again and again.
    folder.build("CREATE TABLE a(rowid, oid, _rowid_); INSERT INTO a VALUES(1, 2, 3); CREATE TABLE b(x);");
    let load = folder.load();
    let mut pump = Pump::start(&folder, &load).unwrap();
    pump.part(PartIndex(0)).unwrap();
    let (chunks, _) = chunks(&mut pump, PartIndex(1)).unwrap();
    thread::scope(|scope| {
        let (writes, writing) = mpsc::channel();
        let (load, chunks) = (&load, &chunks);
        let writer = scope.spawn(move || {
            let mut loader = load.begin(PartIndex(1), &digests()).unwrap();
            writes.send(()).unwrap();
            loop {
                if let Err(failure) = loader.write(&chunks[0]) {
                    return failure.code;
                }
            }
        });
        writing.recv().unwrap();
        let waiter = scope.spawn(|| load.begin(PartIndex(2), &digests()).map(|_| ()).unwrap_err().code);
        thread::sleep(Duration::from_millis(20));
        load.abandon();
        assert_eq!((writer.join().unwrap(), waiter.join().unwrap()), (Code::Interrupted, Code::Interrupted));
    });
    assert_eq!(folder.names(), ["source.db"]);
}

/// A long statement in the engine itself is interrupted too: here the building of an index with a
/// costly condition.
#[test]
fn abandon_interrupts_the_engine() {
    let folder = Folder::new();
    folder.build(
        "CREATE TABLE t(a); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 150)
         INSERT INTO t SELECT replace(hex(zeroblob(100)), '0', 'a') FROM n;
         CREATE INDEX slow ON t(a) WHERE 0; PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql =
         'CREATE INDEX slow ON t(a) WHERE length(replace(replace(a, ''a'', a), ''a'', a)) = 0' WHERE name = 'slow';",
    );
    let load = folder.load();
    let mut pump = Pump::start(&folder, &load).unwrap();
    pump.part(PartIndex(0)).unwrap();
    let mut loader = load.begin(PartIndex(1), &digests()).unwrap();
    let (_, whole) = pump.feed(PartIndex(1), &mut *loader).unwrap();
    let given_up = thread::scope(|scope| {
        let given_up = scope.spawn(|| {
            thread::sleep(Duration::from_millis(100));
            load.abandon();
            Instant::now()
        });
        assert_eq!(loader.finish(&whole).unwrap_err().code, Code::Interrupted);
        given_up.join().unwrap()
    });
    assert!(given_up.elapsed() < Duration::from_secs(5));
    assert_eq!(folder.names(), ["source.db"]);
}

/// What was published is not taken back.
#[test]
fn dropping_and_abandoning_respect_what_is_published() {
    let folder = Folder::new();
    folder.build("CREATE TABLE a(x);");
    let load = folder.load();
    let mut pump = Pump::start(&folder, &load).unwrap();
    pump.rest(0).unwrap();
    load.prove(&digests()).unwrap();
    // Another program made a file of that name meanwhile.
    fs::write(folder.target(), "theirs").unwrap();
    assert_eq!(load.publish().unwrap_err().code, Code::TargetNotEmpty);
    load.suspend();
    fs::remove_file(folder.target()).unwrap();
    let load = folder.load();
    Pump::start(&folder, &load).unwrap();
    load.prove(&digests()).unwrap();
    load.publish().unwrap();
    load.target.forget(TRANSFER);
    load.abandon();
    drop(load);
    assert_eq!(folder.names(), ["source.db", "target.db"]);
    fs::remove_file(folder.target()).unwrap();
    // Without a part, there is nothing to keep.
    let load = folder.load();
    Pump::start(&folder, &load).unwrap();
    assert!(folder.staging().exists());
    drop(load);
    assert_eq!(folder.names(), ["source.db"]);
}
