//! The exact form, in one process: whatever lies in the database arrives byte for byte, and what
//! the engine can say of it is said. Issue 9, B2; the cases are those of the row form's refusals.

use std::{fs, path::Path, process::Command};

use rusqlite::Connection;
use sealift_agent::failure::{Failure, Outcome};
use sealift_engine_api::{Abandoned, LeftAt, PartReader, PartSink, Source};
use sealift_protocol::{
    chunk::{Chunk, VerifiedChunk},
    close::Code,
    digest::PartRoot,
    disposition::Asks,
    id::{PartIndex, TransferId},
    manifest::{Check, Checked, ImageChecks, Plan, Proof},
    receive::{Found, WholePart},
};
use sealift_sender::part::PartWriter;
use sealift_sqlite::ImageSource;
use sealift_tests::{
    one_load::{OneLoad, endless},
    shared,
};

use crate::{
    compare::{contents, strings},
    nasty,
    pump::{Folder, Link, ROW_BYTES_MAX, TRANSFER, digests},
};

const IMAGE: PartIndex = PartIndex(0);
const LEDGER: &str = ".target.db.sealift-staging-pages";
const STAGING: &str = ".target.db.sealift-staging";

/// Feeds the target with the chunks behind `root`, up to `chunks_max` of them, each synced; the
/// part if that was all of it.
fn feed(
    reader: &mut dyn PartReader,
    pages: &mut dyn PartSink,
    mut root: PartRoot,
    chunks_max: u64,
) -> Outcome<Option<WholePart>> {
    let mut link = Link::new();
    let held = root.chunks().0;
    let (mut fed, mut ended) = (0, false);
    let mut write = |chunk: Chunk| {
        if chunk.index.0 < held || fed == chunks_max {
            return Ok(());
        }
        let verified: VerifiedChunk = link.carry(&chunk);
        pages.write(&verified)?;
        root.add(verified.hash(), verified.plain().len() as u64);
        fed += 1;
        ended = chunk.last;
        if chunk.last { Ok(()) } else { pages.sync() }
    };
    let mut writer = PartWriter::new(IMAGE, digests().multiset(), ROW_BYTES_MAX, &mut write);
    reader.read(IMAGE, &mut writer)?;
    writer.finish()?;
    Ok(ended.then(|| WholePart::of(IMAGE, &root)))
}

/// Over what is there of the part.
fn root_of(found: &[Found]) -> PartRoot {
    match found {
        [Found::Prefix(prefix)] => digests().part_root_of(IMAGE, &prefix.hashes, prefix.plain_bytes),
        _ => digests().part_root(IMAGE),
    }
}

fn planned(folder: &Folder) -> Outcome<(Box<dyn PartReader>, Plan)> {
    let planned = Box::new(ImageSource::open(&folder.source())?).plan(endless())?;
    Ok((planned.snapshot.reader()?, planned.plan))
}

/// All of it but the end.
fn load_all(folder: &Folder, load: &OneLoad, transfer: TransferId) -> Outcome<(WholePart, Vec<Found>)> {
    let (mut reader, plan) = planned(folder)?;
    let found = load.prepare(transfer, &plan, Asks::Continue)?;
    if let Some(Found::Whole(whole)) = found.first() {
        return Ok((*whole, found));
    }
    let mut pages = load.begin(IMAGE, &digests())?;
    let whole = feed(&mut *reader, &mut *pages, root_of(&found), u64::MAX)?.expect("all of it was fed");
    pages.finish(&whole)?;
    Ok((whole, found))
}

fn end(load: &OneLoad, transfer: TransferId, whole: &WholePart) -> Outcome<ImageChecks> {
    let mut evidence = load.prove(&digests())?;
    assert_eq!((evidence.proof, evidence.tables.len()), (Proof::BytesReadBack, 0));
    assert_eq!(evidence.bytes, Some(whole.root));
    load.publish()?;
    load.target.forget(transfer);
    let Check::Image(checks) = evidence.checks.remove(0) else { panic!("an image is checked") };
    checks.check()?;
    Ok(checks)
}

/// A whole transfer; one that fails is given up.
fn transfer(folder: &Folder) -> Outcome<ImageChecks> {
    let load = folder.load();
    let outcome = load_all(folder, &load, TRANSFER).and_then(|(whole, _)| end(&load, TRANSFER, &whole));
    if outcome.is_err() {
        load.abandon();
    }
    outcome
}

/// It must succeed, and leave nothing but the target, which is the source.
fn transferred(folder: &Folder) -> ImageChecks {
    let checks = transfer(folder).unwrap();
    assert!(fs::read(folder.source()).unwrap() == fs::read(folder.target()).unwrap(), "the bytes differ");
    assert_eq!(folder.names(), ["source.db", "target.db"]);
    checks
}

fn refused(folder: &Folder) -> Failure {
    let failure = transfer(folder).unwrap_err();
    assert_eq!(folder.names(), ["source.db"]);
    failure
}

const ROWS: &str = "CREATE TABLE a(x INTEGER PRIMARY KEY, y, z); CREATE INDEX i ON a(z);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40)
    INSERT INTO a SELECT i, 'row ' || i, hex(randomblob(30000 * (i % 7) * (i % 5))) FROM n;
    DELETE FROM a WHERE x % 3 = 0;";

/// The same beside others.
const MORE_ROWS: &str = "CREATE TABLE more(x INTEGER PRIMARY KEY, y);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
    INSERT INTO more SELECT i, randomblob(700) FROM n; DELETE FROM more WHERE x % 3 = 0;";

/// Pages of every size, encodings, vacuum modes and free pages; nothing is rewritten on the way.
#[test]
fn an_image_is_the_file() {
    let shapes = [
        (512, "UTF-8", "NONE"),
        (1024, "UTF-16le", "FULL"),
        (2048, "UTF-16be", "INCREMENTAL"),
        (8192, "UTF-8", "FULL"),
        (32_768, "UTF-8", "NONE"),
        (65_536, "UTF-16le", "INCREMENTAL"),
    ];
    for (page_bytes, encoding, vacuum) in shapes {
        let folder = Folder::new();
        let setup =
            format!("PRAGMA encoding='{encoding}'; PRAGMA page_size={page_bytes}; PRAGMA auto_vacuum={vacuum};");
        let source = folder.build(&setup);
        nasty::fill(&source);
        source.execute_batch("PRAGMA application_id=77; PRAGMA user_version=9;").unwrap();
        source.execute_batch(MORE_ROWS).unwrap();
        source.close().unwrap();
        let checks = transferred(&folder);
        assert_eq!((checks.page_bytes, checks.checked, checks.tables_left_out), (page_bytes, Checked::Everything, 0));
        assert_eq!(checks.pages * u64::from(page_bytes), fs::metadata(folder.target()).unwrap().len());
        // Counted as SQLite counts.
        let target = Connection::open(folder.target()).unwrap();
        for table in &checks.tables {
            let sql = format!("SELECT count(*) FROM \"{}\"", table.name.replace('"', "\"\""));
            let rows: i64 = target.query_row(&sql, [], |row| row.get(0)).unwrap();
            assert_eq!((table.rows, table.checked), (Some(rows.unsigned_abs()), true), "{}", table.name);
        }
        assert_eq!(contents(&folder.source()), contents(&folder.target()));
    }
}

/// Case 25: the journal mode is in the header and stays; nothing lies beside the target, and it can
/// be used at once.
#[test]
fn a_wal_database_stays_one() {
    let folder = Folder::new();
    let source = folder.build(&format!("PRAGMA journal_mode=WAL; {ROWS}"));
    // Some of it in the log alone.
    source.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); CREATE TABLE late(x); INSERT INTO late VALUES(1);").unwrap();
    let checks = transfer(&folder).unwrap();
    assert_eq!(checks.tables.last().unwrap().name, "late");
    assert!(!folder.names().iter().any(|name| name.starts_with("target.db-") || name.starts_with('.')));
    source.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    assert!(fs::read(folder.source()).unwrap() == fs::read(folder.target()).unwrap());
    let target = Connection::open(folder.target()).unwrap();
    assert_eq!(strings(&target, "PRAGMA journal_mode"), ["wal"]);
    target.execute_batch("INSERT INTO late VALUES(2)").unwrap();
}

/// As SQLite's own shell makes a backup, but for what that counts up in the header.
#[test]
fn an_image_is_what_a_backup_would_be() {
    if !shared::installed("sqlite3") {
        return;
    }
    let folder = Folder::new();
    folder.build(ROWS).close().unwrap();
    transferred(&folder);
    let backup = folder.0.path().join("backup.db");
    shared::run(Command::new("sqlite3").arg(folder.source()).arg(format!(".backup {}", backup.display())));
    // The change counter, the schema cookie, and where and by which release it was last changed.
    let bare = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        for range in [24..28, 40..44, 92..100] {
            bytes[range].fill(0);
        }
        bytes
    };
    assert!(bare(&backup) == bare(&folder.target()));
}

fn with_collation(folder: &Folder) -> Connection {
    let connection = Connection::open(folder.source()).unwrap();
    connection.create_collation("BACKWARDS", |one, two| two.cmp(one)).unwrap();
    connection
}

/// Custom collations: the structure is checked, the order of their indexes is for the
/// application.
#[test]
fn what_needs_a_collation_is_moved_and_said() {
    let folder = Folder::new();
    let source = with_collation(&folder);
    let sql = "CREATE TABLE p(id INTEGER PRIMARY KEY, name TEXT COLLATE BACKWARDS); CREATE INDEX i ON p(name);
        CREATE TABLE w(k TEXT COLLATE BACKWARDS PRIMARY KEY, v) WITHOUT ROWID; INSERT INTO w VALUES('a', 1), ('b', 2);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) INSERT INTO p SELECT i, 'n' || i FROM n;";
    source.execute_batch(sql).unwrap();
    source.close().unwrap();
    let checks = transferred(&folder);
    assert_eq!((checks.checked, checks.findings), (Checked::Structure, 0));
    assert_eq!(checks.tables.iter().map(|table| table.rows).collect::<Vec<_>>(), [Some(500), Some(2)]);
}

/// Cases 10, 21 and 27, and a definition that this release cannot parse.
#[test]
fn whatever_the_catalogue_says_is_moved() {
    let folder = Folder::new();
    let source = folder.build(
        "CREATE TABLE visit(id INTEGER PRIMARY KEY, mrn TEXT); CREATE UNIQUE INDEX one_mrn ON visit(mrn);
         INSERT INTO visit VALUES(1, 'x');
         CREATE TABLE log(x); CREATE VIRTUAL TABLE f USING fts5(body); INSERT INTO f VALUES('a');
         CREATE VIRTUAL TABLE r USING rtree(id, a, b);
         CREATE TRIGGER g AFTER INSERT ON f_data BEGIN INSERT INTO log VALUES(1); END;
         PRAGMA writable_schema=ON; UPDATE sqlite_schema SET tbl_name='Visit' WHERE name='one_mrn';
         INSERT INTO sqlite_schema VALUES('table','v','v',0,'CREATE VIRTUAL TABLE v USING vec0(a)');",
    );
    source.close().unwrap();
    let checks = transferred(&folder);
    assert_eq!((checks.checked, checks.findings), (Checked::Everything, 0));
    let target = Connection::open(folder.target()).unwrap();
    target.execute("INSERT INTO visit VALUES(2, 'x')", []).unwrap_err();
    drop(target);

    let folder = Folder::new();
    let source =
        folder.build(&format!("CREATE TABLE n(a); INSERT INTO n VALUES(1); {ROWS} PRAGMA writable_schema=ON;"));
    let sql = "UPDATE sqlite_schema SET sql='CREATE TABLE n(a FUTURE SYNTAX HERE(' WHERE name='n'";
    source.execute(sql, []).unwrap();
    source.close().unwrap();
    let checks = transferred(&folder);
    assert_eq!(checks.checked, Checked::SomeTables);
    let found: Vec<_> = checks.tables.iter().map(|table| (table.name.as_str(), table.rows, table.checked)).collect();
    assert_eq!(found, [("n", None, false), ("a", Some(27), true)]);
}

/// Case 02, and any expression that another release computes otherwise: the stored value and the
/// entry of the index stay.
#[test]
fn values_and_indexes_of_another_release_are_moved_and_counted() {
    let folder = Folder::new();
    let source = folder.build(
        "CREATE TABLE lab(id INTEGER PRIMARY KEY, value REAL, code TEXT AS ('GLU ' || value) STORED, note TEXT);
         INSERT INTO lab(value, note) VALUES(0.5, '7'), (5.4, 'x'); CREATE INDEX i ON lab(upper(note));
         PRAGMA writable_schema=ON;
         UPDATE sqlite_schema SET sql=replace(sql, 'GLU', 'ALT') WHERE name='lab';
         UPDATE sqlite_schema SET sql=replace(sql, 'upper', 'lower') WHERE name='i';",
    );
    source.close().unwrap();
    let checks = transferred(&folder);
    assert_eq!(checks.checked, Checked::Everything);
    assert!(checks.findings > 0, "an entry of the index is not what it would be now");
    let target = Connection::open(folder.target()).unwrap();
    assert_eq!(strings(&target, "SELECT code FROM lab"), ["GLU 0.5", "GLU 5.4"]);
}

/// Rows that break a constraint came from the source.
#[test]
fn rows_that_break_a_constraint_are_moved_and_counted() {
    let folder = Folder::new();
    let source = folder.build(
        "CREATE TABLE t(a, b CHECK(b > 0)); INSERT INTO t VALUES(NULL, 1), (2, 2);
         PRAGMA ignore_check_constraints=ON; INSERT INTO t VALUES(3, -1);
         PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql='CREATE TABLE t(a NOT NULL, b CHECK(b > 0))';",
    );
    source.close().unwrap();
    let checks = transferred(&folder);
    assert_eq!((checks.checked, checks.findings), (Checked::Everything, 1));
}

/// A damaged structure arrives exactly as well, and is not called done.
#[test]
fn a_damaged_source_is_refused() {
    for from in [0.3, 0.6] {
        let folder = Folder::new();
        folder.build(ROWS).close().unwrap();
        let mut bytes = fs::read(folder.source()).unwrap();
        let at = (bytes.len() as f64 * from) as usize;
        bytes[at..at + 8192].fill(0xff);
        fs::write(folder.source(), &bytes).unwrap();
        let failure = refused(&folder);
        assert_eq!(failure.code, Code::LoadImpossible, "{failure}");
        assert!(failure.what.contains("the source is damaged"), "{failure}");
    }
    // An index that lacks an entry.
    let folder = Folder::new();
    let source = folder.build("CREATE TABLE t(a, b); CREATE INDEX i ON t(a); INSERT INTO t VALUES(1, 1), (2, 2);");
    let sql = "SELECT (rootpage - 1) * 4096 FROM sqlite_schema WHERE name = 'i'";
    let page: i64 = source.query_row(sql, [], |row| row.get(0)).unwrap();
    source.close().unwrap();
    let mut bytes = fs::read(folder.source()).unwrap();
    // The count of the cells of its one page.
    let count = &mut bytes[page as usize + 4];
    assert_eq!(*count, 2);
    *count = 1;
    fs::write(folder.source(), &bytes).unwrap();
    assert_eq!(refused(&folder).code, Code::LoadImpossible);
}

/// What a peer may send is bounded and is a database.
#[test]
fn what_is_no_image_is_refused() {
    let plan = Plan::opaque(sealift_sqlite::engine::image(), None);
    let mut header = b"SQLite format 3\0".to_vec();
    header.extend([0x10, 0]);
    header.resize(4096, 0);
    let write = |plain: &[u8], last: bool| {
        let folder = Folder::new();
        let load = folder.load();
        load.prepare(TRANSFER, &plan, Asks::Continue)?;
        let mut pages = load.begin(IMAGE, &digests())?;
        let chunk = Link::new().carry(&Chunk::new(IMAGE, sealift_protocol::id::ChunkIndex(0), last, plain.to_vec()));
        let written = pages.write(&chunk);
        drop(pages);
        drop(load);
        assert_eq!(folder.names(), Vec::<String>::new());
        written
    };
    assert!(write(&header, true).is_ok());
    assert_eq!(write(&header, false).unwrap_err().code, Code::ProtocolViolation);
    assert_eq!(write(&header[..2048], true).unwrap_err().code, Code::ProtocolViolation);
    assert_eq!(write(&[7; 4096], true).unwrap_err().code, Code::PlanRefused);
    assert_eq!(write(&[], true).unwrap_err().code, Code::PlanRefused);
}

/// Faults C2, C6: resumed behind what is durable, over and over; what lies beyond that is
/// written again.
#[test]
fn an_image_goes_on_where_it_stopped() {
    let folder = Folder::new();
    folder.build(ROWS).close().unwrap();
    let mut held = 0;
    for stop_after in [1, 2, 1] {
        let load = folder.load();
        let (mut reader, plan) = planned(&folder).unwrap();
        let found = load.prepare(TRANSFER, &plan, Asks::Continue).unwrap();
        let chunks = match found.as_slice() {
            [] => 0,
            [Found::Prefix(prefix)] => prefix.chunks.0,
            other => panic!("{other:?}"),
        };
        assert_eq!(chunks, held);
        // One that was begun and not used takes nothing away.
        drop(load.begin(IMAGE, &digests()).unwrap());
        let mut pages = load.begin(IMAGE, &digests()).unwrap();
        assert!(feed(&mut *reader, &mut *pages, root_of(&found), stop_after).unwrap().is_none());
        held += stop_after;
        drop(pages);
        drop(load);
        assert_eq!(folder.names(), [STAGING, LEDGER, "source.db"]);
        // As if more had been on its way.
        let staging = fs::OpenOptions::new().append(true).open(folder.staging()).unwrap();
        std::io::Write::write_all(&mut &staging, &[9; 10_000]).unwrap();
    }
    let load = folder.load();
    let (whole, _) = load_all(&folder, &load, TRANSFER).unwrap();
    drop(load);
    // Whole, and not proven.
    let load = folder.load();
    let (again, found) = load_all(&folder, &load, TRANSFER).unwrap();
    assert_eq!((again, found), (whole, vec![Found::Whole(whole)]));
    end(&load, TRANSFER, &whole).unwrap();
    assert!(fs::read(folder.source()).unwrap() == fs::read(folder.target()).unwrap());
    assert_eq!(folder.names(), ["source.db", "target.db"]);
}

/// Fault S10: one receiver at a time, in either form; and what another transfer left, in the other
/// form, makes room.
#[test]
fn forms_make_room_for_each_other_and_keep_each_other_out() {
    let folder = Folder::new();
    folder.build(ROWS).close().unwrap();
    let other = TransferId([4; 16]);
    let image = folder.load();
    let (mut reader, plan) = planned(&folder).unwrap();
    image.prepare(other, &plan, Asks::Continue).unwrap();
    let mut pages = image.begin(IMAGE, &digests()).unwrap();
    feed(&mut *reader, &mut *pages, root_of(&[]), 2).unwrap();
    drop(pages);
    let rows = folder.load();
    let busy = crate::pump::Pump::start(&folder, &rows).map(drop).unwrap_err();
    assert!(busy.what.contains("another receiver"), "{busy}");
    drop((image, rows));
    assert_eq!(folder.names(), [STAGING, LEDGER, "source.db"]);
    // The row form drops it, and the other way round.
    let rows = folder.load();
    let mut pump = crate::pump::Pump::start(&folder, &rows).unwrap();
    pump.part(PartIndex(0)).unwrap();
    drop(pump);
    drop(rows);
    assert_eq!(folder.names(), [STAGING, "source.db"]);
    let image = folder.load();
    image.prepare(other, &plan, Asks::Continue).unwrap();
    image.abandon();
    assert_eq!(folder.names(), ["source.db"]);
    // What an earlier process left is dropped by its own transfer alone.
    let image = folder.load();
    image.prepare(other, &plan, Asks::Continue).unwrap();
    let mut pages = image.begin(IMAGE, &digests()).unwrap();
    feed(&mut *reader, &mut *pages, root_of(&[]), 2).unwrap();
    drop(pages);
    drop(image);
    assert_eq!(folder.load().target.abandon(TRANSFER, LeftAt::Loading), Ok(Abandoned::Dropped));
    assert_eq!(folder.names(), [STAGING, LEDGER, "source.db"]);
    assert_eq!(folder.load().target.abandon(other, LeftAt::Loading), Ok(Abandoned::Dropped));
    assert_eq!(folder.names(), ["source.db"]);
}

/// A page that changed in the staging file is not what was sent.
#[test]
fn a_page_that_changes_in_the_staging_file_is_noticed() {
    let folder = Folder::new();
    folder.build(ROWS).close().unwrap();
    let load = folder.load();
    let (whole, _) = load_all(&folder, &load, TRANSFER).unwrap();
    let staging = fs::OpenOptions::new().write(true).open(folder.staging()).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&staging, &[9], whole.plain_bytes - 100).unwrap();
    assert_eq!(load.prove(&digests()).unwrap_err().code, Code::TargetMismatch);
    load.abandon();
    assert_eq!(folder.names(), ["source.db"]);
}
