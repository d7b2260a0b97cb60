use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use rusqlite::Connection;
use sealift_engine_api::{PartSink, Target, Writers};
use sealift_protocol::{
    disposition::Asks,
    id::{ChunkCount, TableIndex},
    manifest::{Plan, PlannedPart, PlannedTable, Section},
    receive::{Found, WholePart},
};

use super::{
    super::{SqliteTarget, held::SqliteLoad, ledger::Bond, shared::Shared, staged::Staged},
    *,
};
use crate::{
    Value, engine,
    testing::{self, Never, TRANSFER, digests, rows, verified},
};

/// Tables that are large enough for more than one chunk are told by their first one.
const NOT_LAST: bool = false;

fn plan(tables: u32) -> Plan {
    let mut parts = vec![PlannedPart::of_section(Section::PreData)];
    parts.extend((0..tables).map(|table| PlannedPart::of_table(TableIndex(table))));
    parts.push(PlannedPart::of_section(Section::PostData));
    let tables = (1..=tables).map(|table| PlannedTable::named(&format!("t{table}"))).collect();
    Plan { engine: engine::rows(), tables, parts, empty: None, left_out: None, rows: None }
}

fn schema(tables: u32) -> Vec<u8> {
    testing::schema((1..=tables).map(|number| testing::table(&format!("t{number}"))).collect()).to_bytes()
}

fn row(part: u32) -> Vec<u8> {
    rows(&[&[Value::Integer(part.into())]])
}

fn whole(part: u32, plain: &[u8]) -> WholePart {
    let root = digests().part_root(PartIndex(part)).root();
    WholePart { part: PartIndex(part), chunks: ChunkCount(1), plain_bytes: plain.len() as u64, root }
}

/// A target whose schema is made, and what counts its commits from there on.
fn begun(target: &Path, tables: u32) -> (SqliteLoad, Arc<AtomicUsize>) {
    let target = SqliteTarget::new(target, 1000).unwrap();
    let plan = plan(tables);
    let bond = Bond { transfer: TRANSFER, plan_hash: plan.hash() };
    let staged = Staged::stage(&target.staging, 1000, &plan, bond, Asks::Continue).unwrap();
    let load = SqliteLoad(Shared::new(&target, &plan, bond, staged, Arc::new(Never)));
    let mut out = load.0.begin(PartIndex(0), &digests()).unwrap();
    let schema = schema(tables);
    out.write(&verified(0, &schema, true)).unwrap();
    assert_eq!(out.finish(&whole(0, &schema)).unwrap(), [PartIndex(0)]);
    let commits = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&commits);
    let count = move || {
        counted.fetch_add(1, Ordering::Relaxed);
        false
    };
    load.0.state().load.as_mut().unwrap().connection.commit_hook(Some(count)).unwrap();
    (load, commits)
}

fn write_row(out: &mut dyn PartSink, part: u32) {
    out.write(&verified(part, &row(part), true)).unwrap();
}

/// Writes `part` and ends it while the next one waits for its turn, and runs `next` with that one.
fn followed<T: Send>(load: &Shared, part: u32, next: impl FnOnce(Box<dyn PartSink + '_>) -> T + Send) -> T {
    let mut out = load.begin(PartIndex(part), &digests()).unwrap();
    write_row(&mut *out, part);
    thread::scope(|scope| {
        let (go, started) = mpsc::channel();
        let following = scope.spawn(move || {
            let out = load.begin(PartIndex(part + 1), &digests()).unwrap();
            started.recv().unwrap();
            next(out)
        });
        while load.state().waiting.is_empty() {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(out.finish(&whole(part, &row(part))).unwrap(), [], "it is not committed");
        go.send(()).unwrap();
        following.join().unwrap()
    })
}

/// The tables that the next process finds whole.
fn found(target: &Path, tables: u32) -> Vec<u32> {
    let target = SqliteTarget::new(target, 1000).unwrap();
    let prepared = target.prepare(TRANSFER, &plan(tables), Asks::Continue, Arc::new(Never)).unwrap();
    let parts = prepared.found.iter().map(|found| match found {
        Found::Whole(whole) => whole.part.0,
        Found::Prefix(_) => panic!("a part is committed as one"),
    });
    parts.filter(|part| *part > 0).collect()
}

/// Rows of each table in the staging file, which no connection has open.
fn counts(target: &Path, tables: u32) -> Vec<i64> {
    let staging = Connection::open(target.with_file_name(".target.db.sealift-staging")).unwrap();
    let count = |table| staging.query_row(&format!("SELECT count(*) FROM t{table}"), [], |row| row.get(0)).unwrap();
    (1..=tables).map(count).collect()
}

/// Issue 9, B8: rows and ledger lines of both are committed at once, and no part is called finished
/// before.
#[test]
fn a_part_that_is_followed_shares_the_next_ones_commit() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target.db");
    let (load, commits) = begun(&target, 3);
    let end = |mut out: Box<dyn PartSink + '_>| {
        write_row(&mut *out, 2);
        out.finish(&whole(2, &row(2))).unwrap()
    };
    assert_eq!(followed(&load.0, 1, end), [PartIndex(1), PartIndex(2)]);
    assert_eq!(commits.load(Ordering::Relaxed), 1);
    drop(load);
    assert_eq!((found(&target, 3), counts(&target, 3)), (vec![1, 2], vec![1, 1, 0]));
}

/// A part that is given up takes nothing of those before it along, and is written once when it
/// comes again.
#[test]
fn a_part_that_is_given_up_leaves_those_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target.db");
    let (load, commits) = begun(&target, 2);
    followed(&load.0, 1, |mut out| write_row(&mut *out, 2));
    assert_eq!(commits.load(Ordering::Relaxed), 0);
    let mut out = load.0.begin(PartIndex(2), &digests()).unwrap();
    write_row(&mut *out, 2);
    assert_eq!(out.finish(&whole(2, &row(2))).unwrap(), [PartIndex(1), PartIndex(2)]);
    assert_eq!(commits.load(Ordering::Relaxed), 1);
    drop(load);
    assert_eq!((found(&target, 2), counts(&target, 2)), (vec![1, 2], vec![1, 1]));
}

/// A load that stops has of the shared transaction nothing, as if it had been killed.
#[test]
fn a_load_that_stops_undoes_what_was_not_committed() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target.db");
    let (load, commits) = begun(&target, 2);
    followed(&load.0, 1, |mut out| write_row(&mut *out, 2));
    drop(load);
    assert_eq!(commits.load(Ordering::Relaxed), 0);
    assert_eq!((found(&target, 2), counts(&target, 2)), (vec![], vec![0, 0]));
}

/// A large part is committed by itself: those before it are committed when it begins, whether or
/// not it ends.
#[test]
fn a_large_part_finds_those_before_it_committed() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target.db");
    let (load, commits) = begun(&target, 2);
    followed(&load.0, 1, |mut out| out.write(&verified(2, &row(2), NOT_LAST)).unwrap());
    assert_eq!(commits.load(Ordering::Relaxed), 1);
    assert_eq!(load.0.state().finished, [PartIndex(1)]);
    drop(load);
    assert_eq!((found(&target, 2), counts(&target, 2)), (vec![1], vec![1, 0]));
}

/// An error may undo all of the open transaction: then no part goes on in it, nor in one of its
/// own.
#[test]
fn a_transaction_that_is_gone_takes_no_part() {
    let connection = Connection::open_in_memory().unwrap();
    let mut group = Group::default();
    group.begin_part(&connection).unwrap();
    group.end_part(&connection, PartIndex(1), 1).unwrap();
    connection.execute_batch("ROLLBACK").unwrap();
    assert!(group.begin_part(&connection).is_err());
    assert!(group.commit(&connection).is_err());
}

/// What a crash may cost stays within bounds.
#[test]
fn a_group_has_room_for_so_much() {
    let connection = Connection::open_in_memory().unwrap();
    let with = |parts: usize, bytes: u64| {
        let mut group = Group::default();
        for part in 0..parts {
            group.begin_part(&connection).unwrap();
            group.end_part(&connection, PartIndex(part as u32), bytes).unwrap();
        }
        let has_room = group.has_room();
        assert_eq!(group.commit(&connection).unwrap().len(), parts);
        has_room
    };
    assert_eq!([with(PARTS_MAX - 1, 1), with(PARTS_MAX, 1)], [true, false]);
    assert_eq!([with(3, BYTES_MAX / 4), with(4, BYTES_MAX / 4)], [true, false]);
}

/// Issue 9, B8: side by side, each waiting for its turn while another writes. Counted are commits
/// and steps of the engine, not times: on a machine that is busy a writer may be late.
#[test]
fn many_small_tables_take_few_commits_and_steps_in_proportion() {
    let (few, many) = (counted(250), counted(1000));
    assert!(many.commits < 1000 / 5, "{} commits of 1,000 tables", many.commits);
    assert!(many.steps < few.steps * 5, "{} steps for 250 tables, {} for 1,000", few.steps, many.steps);
}

/// What rows of many tables took.
struct Counted {
    commits: usize,
    steps: usize,
}

fn counted(tables: u32) -> Counted {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target.db");
    let (load, commits) = begun(&target, tables);
    let steps = Arc::<AtomicUsize>::default();
    let passed = Arc::clone(&steps);
    let count = move || {
        passed.fetch_add(1, Ordering::Relaxed);
        false
    };
    load.0.state().load.as_mut().unwrap().connection.progress_handler(1, Some(count)).unwrap();
    write_side_by_side(&load.0, tables);
    let counted = Counted { commits: commits.load(Ordering::Relaxed), steps: steps.load(Ordering::Relaxed) };
    drop(load);
    assert_eq!(found(&target, tables).len(), tables as usize);
    assert!(counts(&target, tables).iter().all(|rows| *rows == 1));
    counted
}

/// Each table has a thread of its own, which waits for its turn before the one before it ends.
fn write_side_by_side(load: &Shared, tables: u32) {
    let (finished, all_finished) = mpsc::channel();
    thread::scope(|scope| {
        let start = |part| {
            let (begun, is_begun) = mpsc::channel();
            let (go, started) = mpsc::channel();
            let finished = finished.clone();
            scope.spawn(move || {
                let mut out = load.begin(PartIndex(part), &digests()).unwrap();
                begun.send(()).unwrap();
                started.recv().unwrap();
                write_row(&mut *out, part);
                let together = out.finish(&whole(part, &row(part))).unwrap();
                together.into_iter().for_each(|part| finished.send(part).unwrap());
            });
            (is_begun, go)
        };
        let mut next = Some(start(1));
        for part in 1..=tables {
            let (is_begun, go) = next.take().unwrap();
            is_begun.recv().unwrap();
            next = (part < tables).then(|| start(part + 1));
            go.send(()).unwrap();
        }
    });
    drop(finished);
    let mut parts: Vec<u32> = all_finished.into_iter().map(|part: PartIndex| part.0).collect();
    parts.sort_unstable();
    assert_eq!(parts, (1..=tables).collect::<Vec<_>>());
}
