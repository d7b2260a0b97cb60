//! A load that resumes from what is committed: after it was suspended, after its process was killed
//! at each fail point, and not where the transfer, the plan or the file is another.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::mpsc,
    thread,
    time::Duration,
};

use rusqlite::Connection;
use sealift_engine_api::{Abandoned, LeftAt};
use sealift_protocol::{
    close::Code,
    disposition::Asks,
    id::{PartIndex, TransferId},
};
use sealift_receiver::target::staged_bytes;
use sealift_tests::disk::SmallDisk;

use crate::{
    assert_same, nasty,
    pump::{Folder, Pump, TRANSFER, digests, transfer},
};

const OTHER: TransferId = TransferId([4; 16]);

const TWO_TABLES: &str = "CREATE TABLE a(x INTEGER PRIMARY KEY AUTOINCREMENT, y); CREATE INDEX i ON a(y); \
    INSERT INTO a VALUES(5, 'five'), (6, 'six'); CREATE TABLE b(x UNIQUE); CREATE INDEX j ON b(x DESC); \
    INSERT INTO b VALUES('seven'); CREATE VIEW v AS SELECT x FROM a; \
    CREATE TRIGGER t AFTER INSERT ON a BEGIN DELETE FROM b; END;";

/// Loads what is not there yet, proves and publishes.
fn finish(folder: &Folder, transfer: TransferId) -> usize {
    let load = folder.load();
    let mut pump = Pump::start_as(folder, &load, transfer, Asks::Continue).unwrap();
    let have: BTreeSet<u32> = pump.have.iter().map(|whole| whole.part.0).collect();
    let missing = (0..pump.plan.parts.len() as u32).filter(|part| !have.contains(part));
    for part in missing {
        pump.part(PartIndex(part)).unwrap();
    }
    let loaded = load.prove(&digests()).unwrap().tables;
    assert_eq!(loaded, pump.tables_as_read());
    load.publish().unwrap();
    load.target.forget(transfer);
    have.len()
}

/// Fault C2: at each part, and after all of them; what is told of a part is what was noted of it.
#[test]
fn a_suspended_load_goes_on() {
    for encoding in ["UTF-8", "UTF-16be"] {
        let folder = Folder::new();
        let source = folder.build(&format!("PRAGMA encoding='{encoding}';"));
        nasty::fill(&source);
        source.close().unwrap();
        let mut told = Vec::new();
        for part in 0.. {
            let load = folder.load();
            let mut pump = Pump::start(&folder, &load).unwrap();
            assert_eq!(pump.have, told);
            if part == pump.plan.parts.len() {
                break;
            }
            told.push(pump.whole_part(PartIndex(part as u32)).unwrap().1);
            if part % 2 == 0 {
                // In the middle of the next part.
                let next = PartIndex(part as u32 + 1);
                if let Ok(mut loader) = load.begin(next, &digests()) {
                    pump.feed(next, &mut *loader).unwrap();
                }
            } else {
                load.suspend();
                assert_eq!(load.begin(PartIndex(0), &digests()).map(drop).unwrap_err().code, Code::Interrupted);
            }
            drop(load);
            assert_eq!(folder.names(), [".target.db.sealift-staging", "source.db"]);
        }
        assert_eq!(finish(&folder, TRANSFER), told.len());
        assert_same(&folder);
        assert_eq!(folder.names(), ["source.db", "target.db"]);
    }
}

/// Of several chunks, some of which end inside a row; with indexes that are built by sorting, and
/// not.
const LARGE_TABLE: &str =
    "CREATE TABLE a(x INTEGER PRIMARY KEY, y UNIQUE, z); CREATE INDEX i ON a(z); CREATE INDEX j ON a(length(z));
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40)
    INSERT INTO a SELECT i, 'row ' || i, hex(randomblob(30000 * (i % 7) * (i % 5))) FROM n;";

/// Issue 10, item 2; faults C6, C2: a part is durable when it is committed and not before, however
/// much of it was written.
#[test]
fn a_part_that_was_not_finished_is_written_again_from_its_beginning() {
    let folder = Folder::new();
    folder.build(LARGE_TABLE);
    let table = PartIndex(1);
    for stop_after in [0, 1, 4, 7] {
        let load = folder.load();
        let mut pump = Pump::start(&folder, &load).unwrap();
        assert!(pump.have.iter().all(|whole| whole.part == PartIndex(0)), "after {stop_after}");
        if pump.have.is_empty() {
            pump.part(PartIndex(0)).unwrap();
        }
        let (chunks, _) = crate::chunks(&mut pump, table).unwrap();
        assert!(chunks.len() > stop_after);
        let mut loader = load.begin(table, &digests()).unwrap();
        chunks.iter().take(stop_after).for_each(|chunk| loader.write(chunk).unwrap());
        assert_eq!(loader.sync().unwrap_err().code, Code::Internal);
        drop(loader);
        load.suspend();
    }
    assert_eq!(finish(&folder, TRANSFER), 1);
    assert_same(&folder);
}

/// Suspended from another thread, a writer and a waiter end, the open part is undone, and what was
/// committed stays.
#[test]
fn suspending_ends_writers_and_keeps_what_is_committed() {
    let folder = Folder::new();
    folder.build("CREATE TABLE a(rowid, oid, _rowid_); INSERT INTO a VALUES(1, 2, 3); CREATE TABLE b(x);");
    let load = folder.load();
    let mut pump = Pump::start(&folder, &load).unwrap();
    pump.part(PartIndex(0)).unwrap();
    let (chunks, _) = crate::chunks(&mut pump, PartIndex(1)).unwrap();
    thread::scope(|scope| {
        let (writes, writing) = mpsc::channel();
        let (load, chunks) = (&load, &chunks);
        let writer = scope.spawn(move || {
            let mut loader = load.begin(PartIndex(1), &digests()).unwrap();
            writes.send(()).unwrap();
            std::iter::repeat_with(|| loader.write(&chunks[0])).find_map(Result::err).unwrap().code
        });
        writing.recv().unwrap();
        let waiter = scope.spawn(|| load.begin(PartIndex(2), &digests()).map(drop).unwrap_err().code);
        thread::sleep(Duration::from_millis(20));
        load.suspend();
        assert_eq!((writer.join().unwrap(), waiter.join().unwrap()), (Code::Interrupted, Code::Interrupted));
    });
    assert_eq!(folder.names(), [".target.db.sealift-staging", "source.db"]);
    assert_eq!(finish(&folder, TRANSFER), 1);
    assert_same(&folder);
}

/// Fault C13: ended for good by a process that has done nothing else: what this transfer left goes,
/// what another one left stays, and so does what has its final name.
#[test]
fn only_what_a_transfer_left_itself_is_dropped() {
    let folder = Folder::new();
    folder.build(TWO_TABLES);
    let leave = || {
        let load = folder.load();
        Pump::start(&folder, &load).unwrap().part(PartIndex(0)).unwrap();
        load.suspend();
    };
    leave();
    assert_eq!(folder.load().target.abandon(OTHER, LeftAt::Loading), Ok(Abandoned::Dropped));
    assert_eq!(folder.names(), [".target.db.sealift-staging", "source.db"]);
    assert!(staged_bytes(&*folder.load().target, TRANSFER) > 0);
    for _ in 0..2 {
        assert_eq!(folder.load().target.abandon(TRANSFER, LeftAt::Loading), Ok(Abandoned::Dropped));
        assert_eq!(folder.names(), ["source.db"]);
    }
    let load = folder.load();
    let mut pump = Pump::start(&folder, &load).unwrap();
    for part in 0..pump.plan.parts.len() as u32 {
        pump.part(PartIndex(part)).unwrap();
    }
    load.prove(&digests()).unwrap();
    load.publish().unwrap();
    drop(load);
    assert_eq!(folder.load().target.abandon(OTHER, LeftAt::ReceiptSigned), Ok(Abandoned::Dropped));
    assert_eq!(folder.load().target.abandon(TRANSFER, LeftAt::ReceiptSigned), Ok(Abandoned::Published));
    assert_eq!(folder.names(), ["source.db", "target.db"]);
    assert_same(&folder);
}

/// Faults C2, S6: another transfer, another plan and a fresh start drop what is there; a transfer
/// that is under way keeps it.
#[test]
fn only_the_same_transfer_goes_on() {
    let folder = Folder::new();
    let source = folder.build(TWO_TABLES);
    let leave = || {
        let load = folder.load();
        let mut pump = Pump::start(&folder, &load).unwrap();
        pump.part(PartIndex(0)).unwrap();
        pump.part(PartIndex(1)).unwrap();
        let second = folder.load().prepare(OTHER, &pump.plan, Asks::StartOver).unwrap_err();
        assert!(second.what.contains("another receiver"), "{second}");
    };
    let had = |transfer, asks| {
        let load = folder.load();
        let have = Pump::start_as(&folder, &load, transfer, asks).unwrap().have.len();
        load.abandon();
        assert_eq!(folder.names(), ["source.db"]);
        have
    };
    leave();
    assert_eq!(had(TRANSFER, Asks::Continue), 2);
    leave();
    assert_eq!(had(OTHER, Asks::Continue), 0);
    leave();
    assert_eq!(had(TRANSFER, Asks::StartOver), 0);
    leave();
    source.execute_batch("CREATE TABLE c(x)").unwrap();
    assert_eq!(had(TRANSFER, Asks::Continue), 0);
    leave();
    fs::write(folder.target(), "theirs").unwrap();
    let refused = Pump::start(&folder, &folder.load()).map(drop).unwrap_err();
    assert_eq!(refused.code, Code::TargetNotEmpty);
    fs::remove_file(folder.target()).unwrap();
    assert_eq!(finish(&folder, TRANSFER), 2);
    assert_same(&folder);
}

/// Faults C10, S5: what a bad disk or a program made of the staging file is neither built upon nor
/// removed.
#[test]
fn a_damaged_staging_file_is_refused_and_kept() {
    let refused = |damage: &dyn Fn(&Path)| {
        let folder = Folder::new();
        folder.build(TWO_TABLES);
        let load = folder.load();
        let mut pump = Pump::start(&folder, &load).unwrap();
        pump.rest(0).unwrap();
        drop(load);
        damage(&folder.staging());
        let bytes = fs::read(folder.staging()).unwrap();
        let failure = Pump::start(&folder, &folder.load()).map(drop).unwrap_err();
        assert_eq!(failure.code, Code::TargetFailed);
        assert!(failure.hints.to_string().contains("remove"), "{failure}");
        assert_eq!(folder.load().target.publish(TRANSFER).unwrap_err().code, Code::TargetFailed);
        assert!(fs::read(folder.staging()).unwrap() == bytes);
        // As it says.
        fs::remove_file(folder.staging()).unwrap();
        transfer(&folder);
        assert_same(&folder);
    };
    let with = |sql: &'static str| move |path: &Path| Connection::open(path).unwrap().execute_batch(sql).unwrap();
    refused(&|path| fs::write(path, "no database").unwrap());
    refused(&|path| {
        let mut bytes = fs::read(path).unwrap();
        bytes[100..200].fill(0xff);
        fs::write(path, bytes).unwrap();
    });
    refused(&with("DELETE FROM _sealift_ledger WHERE part = 0"));
    refused(&with("DELETE FROM _sealift_ledger WHERE part = 1"));
    refused(&with("UPDATE _sealift_ledger SET part = 77 WHERE part = 1"));
    refused(&with("UPDATE _sealift_ledger SET part = -1 WHERE part = 1"));
    refused(&with("UPDATE _sealift_ledger SET root = 'text' WHERE part = 1"));
    refused(&with("UPDATE _sealift_ledger SET root = x'00' WHERE part = 1"));
    refused(&with("UPDATE _sealift_ledger SET document = x'00' WHERE document IS NOT NULL"));
    refused(&with("UPDATE _sealift_ledger SET document = NULL"));
    refused(&with("UPDATE _sealift_ledger SET transfer = x'04040404040404040404040404040404' WHERE part = 2"));
}

/// A row that was changed in a load that goes on is found as in any other.
#[test]
fn what_was_changed_between_is_found() {
    let folder = Folder::new();
    folder.build("CREATE TABLE a(x); INSERT INTO a VALUES('same');");
    let load = folder.load();
    Pump::start(&folder, &load).unwrap().rest(0).unwrap();
    drop(load);
    Connection::open(folder.staging()).unwrap().execute_batch("UPDATE a SET x = 'other'").unwrap();
    let load = folder.load();
    let mut pump = Pump::start(&folder, &load).unwrap();
    assert_eq!(pump.have.len(), 3);
    let loaded = load.prove(&digests()).unwrap().tables;
    assert_ne!(loaded[0], pump.part_as_read(PartIndex(1)));
    load.abandon();
    assert_eq!(folder.names(), ["source.db"]);
}

/// What `publish` cannot finish it does not touch.
#[test]
fn only_a_whole_load_of_this_transfer_is_published() {
    let folder = Folder::new();
    folder.build(TWO_TABLES);
    let refused = |transfer| folder.load().target.publish(transfer).unwrap_err().code;
    assert_eq!(refused(TRANSFER), Code::TargetFailed);
    fs::write(folder.target(), "theirs").unwrap();
    assert_eq!(refused(TRANSFER), Code::TargetNotEmpty);
    fs::remove_file(folder.target()).unwrap();
    let parts = {
        let load = folder.load();
        let mut pump = Pump::start(&folder, &load).unwrap();
        pump.part(PartIndex(0)).unwrap();
        assert_eq!(refused(TRANSFER), Code::TargetFailed);
        pump.plan.parts.len() as u32
    };
    assert_eq!(refused(TRANSFER), Code::TargetFailed);
    {
        let load = folder.load();
        let mut pump = Pump::start(&folder, &load).unwrap();
        for part in 1..parts {
            pump.part(PartIndex(part)).unwrap();
        }
    }
    assert_eq!(refused(OTHER), Code::TargetFailed);
    folder.load().target.publish(TRANSFER).unwrap();
    assert_same(&folder);
    // Again, by processes that know nothing of each other; nobody else's target is taken for it.
    folder.load().target.publish(TRANSFER).unwrap();
    assert_eq!(refused(OTHER), Code::TargetNotEmpty);
    folder.load().target.forget(OTHER);
    assert_eq!(folder.names().len(), 3);
    folder.load().target.forget(TRANSFER);
    assert_eq!(folder.names(), ["source.db", "target.db"]);
    assert_eq!(refused(TRANSFER), Code::TargetNotEmpty);
    assert_same(&folder);
}

const PLACE: &str = "SEALIFT_TEST_PLACE";

/// What a receiver does, with its two notes as files: that there is a receipt, and that the load is
/// published. Run by the test below in a process of its own, which dies somewhere in it.
#[test]
#[ignore = "a part of another test"]
fn victim() {
    let Some(place) = std::env::var_os(PLACE).map(PathBuf::from) else { return };
    let folder = Folder::at(&place);
    let (receipt, published) = (place.join("receipt"), place.join("published"));
    if !receipt.exists() {
        let load = folder.load();
        let mut pump = Pump::start(&folder, &load).unwrap();
        let have = pump.have.len() as u32;
        // One part is left open, as by a lost link, and given up.
        if have == 1 {
            drop(load.begin(PartIndex(1), &digests()).unwrap());
        }
        pump.rest(have).unwrap();
        load.prove(&digests()).unwrap();
        fs::write(&receipt, "").unwrap();
        if !place.join("elsewhere").exists() {
            load.publish().unwrap();
        }
    }
    if !published.exists() {
        folder.load().target.publish(TRANSFER).unwrap();
        fs::write(&published, "").unwrap();
    }
    folder.load().target.forget(TRANSFER);
}

fn run_victim(place: &Path, fail_point: Option<String>) -> ExitStatus {
    let mut victim = Command::new(std::env::current_exe().unwrap());
    victim.args(["--exact", "resume::victim", "--ignored"]).env(PLACE, place).env_remove("SEALIFT_FAIL_POINT");
    if let Some(fail_point) = fail_point {
        victim.env("SEALIFT_FAIL_POINT", fail_point);
    }
    let output = victim.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() || output.status.signal().is_some(), "{text}");
    output.status
}

/// Faults C2, C5, C13, C14: killed at each point of a load, each time it is passed, and then at the
/// same point once more; the next process finishes, and nothing is left beside the target.
#[test]
#[cfg_attr(not(debug_assertions), ignore = "fail points are not in this build")]
fn a_load_survives_a_kill_at_every_fail_point() {
    // Parts come one after the other here, and share no commit: `fail_points` kills where they do.
    let is_passed = |name: &&str| name.starts_with("sqlite-") && *name != "sqlite-part-shared";
    for point in sealift_sqlite::SPEC.fail_points.iter().map(|point| point.name).filter(is_passed) {
        let mut kills = 0;
        for (time, elsewhere) in (1..).flat_map(|time| [(time, false), (time, true)]) {
            let folder = Folder::new();
            folder.build(TWO_TABLES);
            let place = folder.0.path();
            if point == "sqlite-removing" {
                // Comes to it by dropping another transfer's load.
                Pump::start_as(&folder, &folder.load(), OTHER, Asks::Continue).unwrap().part(PartIndex(0)).unwrap();
            }
            if elsewhere {
                fs::write(place.join("elsewhere"), "").unwrap();
            }
            let killed = run_victim(place, Some(format!("{point}:{time}"))).signal() == Some(9);
            if !killed {
                break;
            }
            kills += 1;
            run_victim(place, Some(point.to_owned()));
            assert!(run_victim(place, None).success(), "{point} {time}");
            assert_same(&folder);
            for note in ["receipt", "published", "elsewhere"] {
                let _ = fs::remove_file(place.join(note));
            }
            assert_eq!(folder.names(), ["source.db", "target.db"], "{point} {time}");
        }
        println!("{point}: {kills} kills");
        assert!(kills > 0, "{point} is never passed");
    }
}

/// Faults C2, C10: killed with more of a part written than the page cache holds, so that a journal
/// is left which undoes it.
#[test]
#[cfg_attr(not(debug_assertions), ignore = "fail points are not in this build")]
fn what_a_killed_writer_wrote_is_undone() {
    let folder = Folder::new();
    folder.build(
        "CREATE TABLE a(x); INSERT INTO a VALUES(1); CREATE TABLE b(x, y); CREATE INDEX i ON b(x, y);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 500)
         INSERT INTO b SELECT i * 7919 % 1201, zeroblob(65536) FROM n;",
    );
    let journal = folder.0.path().join(".target.db.sealift-staging-journal");
    let killed = run_victim(folder.0.path(), Some("sqlite-part-written:3".to_owned()));
    assert_eq!(killed.signal(), Some(9));
    assert!(fs::metadata(&journal).unwrap().len() > 0);
    assert!(fs::metadata(folder.staging()).unwrap().len() > 1 << 20);
    assert_eq!(finish(&folder, TRANSFER), 2);
    assert_same(&folder);
    assert_eq!(folder.names(), ["source.db", "target.db"]);
}

/// Fault S11: the disk fills up inside a part, which is undone. With room, the load goes on from
/// the part before.
#[test]
fn a_load_that_filled_the_disk_goes_on_with_room() {
    let Some(disk) = SmallDisk::mount("size=64m") else { return };
    let folder = Folder::at(disk.folder());
    folder
        .build(
            "CREATE TABLE a(x); INSERT INTO a VALUES(zeroblob(1000000)); CREATE TABLE b(x);
             INSERT INTO b VALUES(zeroblob(4000000)), (zeroblob(4000000));",
        )
        .close()
        .unwrap();
    // The source, and five megabytes.
    disk.remount("size=14m");
    let load = folder.load();
    let mut pump = Pump::start(&folder, &load).unwrap();
    pump.part(PartIndex(0)).unwrap();
    pump.part(PartIndex(1)).unwrap();
    for _ in 0..2 {
        let failure = pump.part(PartIndex(2)).unwrap_err();
        assert_eq!((failure.code, failure.part), (Code::TargetFull, Some(PartIndex(2))));
    }
    drop(load);
    disk.remount("size=64m");
    assert_eq!(finish(&folder, TRANSFER), 2);
    assert_same(&folder);
    assert_eq!(folder.names(), ["source.db", "target.db"]);
}
