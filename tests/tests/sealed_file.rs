//! A sealed log in a real file: who may open it, what a full or failing disk does to it, and how it
//! ends. Where a call of the system must fail or a process must die, a process of its own runs
//! under `strace` or a limit.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use sealift_agent::{
    failure::{Failure, Outcome},
    random::SystemRandom,
    sealed_file::{Opened, Repaired, SealedFile, destroy},
};
use sealift_protocol::{
    close::Code,
    envelope::{ENVELOPE_SUITE, KeyEnvelope},
    id::{Epoch, TransferId},
    limits::LOG_HEADER_BYTES,
    seal::Suite,
    sealed_log::{EpochRecord, KeyFingerprint, LogHeader, LogId, LogKind, LogWriter, Record},
};
use sealift_tests::{
    disk::SmallDisk,
    shared::{installed, skip},
};
use tempfile::TempDir;

const NAME: &str = "journal";
const REMOVED: &str = "journal.removed";
const BUDGET: u64 = 1 << 20;
const ID: LogId = LogId { kind: LogKind::Journal, transfer: TransferId([7; 16]), key: KeyFingerprint([9; 32]) };

/// A byte that stands in envelopes and nowhere else.
const ENVELOPE: u8 = 0xee;

fn folder() -> TempDir {
    let private = fs::Permissions::from_mode(0o700);
    tempfile::Builder::new().prefix("sealift-log-").permissions(private).tempdir().unwrap()
}

fn create(folder: &Path) -> Outcome<SealedFile> {
    SealedFile::create(folder, NAME, LogHeader::new(ID, &mut SystemRandom::default()), BUDGET)
}

fn open(folder: &Path) -> Outcome<Option<Opened>> {
    SealedFile::open(folder, NAME, &ID, BUDGET, |_| Ok(()))
}

fn statement(bytes: usize) -> Record {
    Record::Statement(vec![0xa5; bytes].into())
}

fn epoch(epoch: u32) -> Record {
    let envelope =
        KeyEnvelope { suite: ENVELOPE_SUITE, encapsulated: vec![ENVELOPE; 1120], sealed: vec![ENVELOPE; 80] };
    let (info, commitment) = ([ENVELOPE; 32], [ENVELOPE; 32]);
    let suite = Suite::Aes256Gcm;
    Record::Epoch(Box::new(EpochRecord { epoch: Epoch(epoch), suite, envelope, info, commitment }))
}

/// The records of a log, without the marks.
fn content(log: &SealedFile) -> Vec<Record> {
    log.replay().unwrap().map(Result::unwrap).filter(|record| *record != Record::Mark).collect()
}

fn code<T>(outcome: Outcome<T>) -> Option<Code> {
    outcome.err().map(|failure: Failure| {
        assert!(!failure.what.is_empty() && !failure.hints.is_empty(), "{failure}");
        failure.code
    })
}

#[test]
fn a_log_is_read_again_as_it_was_written() {
    let folder = folder();
    assert!(open(folder.path()).unwrap().is_none());
    let mut log = create(folder.path()).unwrap();
    let (first, second) = ([epoch(1), statement(1000)], [statement(10)]);
    log.append(&first).unwrap();
    log.sync().unwrap();
    let mut early = log.replay().unwrap();
    log.append(&second).unwrap();
    assert_eq!(early.next().unwrap().unwrap(), first[0]);
    assert_eq!(early.count(), 2, "a replay ends where the log ended when it was begun");
    log.sync().unwrap();
    let bytes = log.bytes();
    log.sync().unwrap();
    assert_eq!(log.bytes(), bytes, "nothing new needs no mark");
    drop(log);
    let mut seen = 0;
    let count = |_: &Record| {
        seen += 1;
        Ok(())
    };
    let opened = SealedFile::open(folder.path(), NAME, &ID, BUDGET, count).unwrap().unwrap();
    assert_eq!((opened.repaired, opened.log.bytes(), seen), (None, bytes, 5));
    assert_eq!(content(&opened.log), [&first[..], &second].concat());
    drop(opened);
    assert_eq!(code(create(folder.path())), Some(Code::Preflight), "a log is not made over another");
    let foreign = LogId { transfer: TransferId([8; 16]), ..ID };
    let foreign = SealedFile::open(folder.path(), NAME, &foreign, BUDGET, |_| Ok(()));
    assert_eq!(code(foreign), Some(Code::LogForeign), "fault S6");
}

/// Fault C11: half a record at the end is cut off and said so, once; the log goes on behind the
/// last whole one.
#[test]
fn c11_a_torn_tail_is_cut_and_told() {
    let folder = folder();
    let mut log = create(folder.path()).unwrap();
    log.append(&[statement(100)]).unwrap();
    log.sync().unwrap();
    let kept_bytes = log.bytes();
    log.append(&[statement(200)]).unwrap();
    drop(log);
    let path = folder.path().join(NAME);
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_len(kept_bytes + 150).unwrap();
    let Opened { mut log, repaired } = open(folder.path()).unwrap().unwrap();
    assert_eq!(repaired, Some(Repaired { kept_bytes, cut_bytes: 150 }));
    assert_eq!(fs::metadata(&path).unwrap().len(), kept_bytes);
    log.append(&[statement(300)]).unwrap();
    log.sync().unwrap();
    drop(log);
    let Opened { log, repaired } = open(folder.path()).unwrap().unwrap();
    assert_eq!((content(&log), repaired), (vec![statement(100), statement(300)], None));
}

/// Fault S5: rot is no torn tail; nothing is cut.
#[test]
fn s5_rot_is_refused_and_left_as_it_is() {
    let folder = folder();
    let mut log = create(folder.path()).unwrap();
    log.append(&[statement(100)]).unwrap();
    log.sync().unwrap();
    drop(log);
    let path = folder.path().join(NAME);
    let mut bytes = fs::read(&path).unwrap();
    bytes[LOG_HEADER_BYTES + 50] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(code(open(folder.path())), Some(Code::LogDamaged));
    assert_eq!(fs::read(&path).unwrap(), bytes);
    destroy(folder.path(), NAME).unwrap();
    assert!(!path.exists());
}

/// Fault S1: over its budget a log takes nothing, keeps what it has, and can still be synced.
#[test]
fn s1_a_budget_is_kept() {
    let folder = folder();
    let mut log = create(folder.path()).unwrap();
    let room = BUDGET - LOG_HEADER_BYTES as u64 - 2 * LogWriter::MARK_BYTES;
    assert_eq!(code(log.append(&[statement(1), statement(room as usize)])), Some(Code::LogFull));
    assert_eq!(log.bytes(), LOG_HEADER_BYTES as u64);
    log.append(&[statement(room as usize)]).unwrap();
    assert_eq!(code(log.append(&[Record::Mark])), Some(Code::LogFull));
    log.sync().unwrap();
    assert_eq!(log.bytes(), BUDGET);
    assert_eq!(fs::metadata(folder.path().join(NAME)).unwrap().len(), BUDGET);
    assert_eq!(content(&log).len(), 1);
}

/// Fault S1: a full disk; what was synced is there when there is room again.
#[test]
fn s1_a_full_disk_loses_nothing() {
    let Some(disk) = SmallDisk::mount("size=128k,mode=0700") else { return };
    let folder = disk.path("");
    let mut log = create(&folder).unwrap();
    log.append(&[statement(50_000)]).unwrap();
    log.sync().unwrap();
    assert_eq!(code(log.append(&[statement(100_000)])), Some(Code::LogFull));
    assert_eq!(code(log.append(&[statement(1)])), Some(Code::LogFull), "a log that failed is not written again");
    assert_eq!(code(log.sync()), Some(Code::LogFull));
    drop(log);
    disk.remount("size=1m");
    let Opened { mut log, repaired } = open(&folder).unwrap().unwrap();
    assert!(repaired.is_some());
    log.append(&[statement(100_000)]).unwrap();
    log.sync().unwrap();
    assert_eq!(content(&log), [statement(50_000), statement(100_000)]);
}

/// Fault S4: a file that is removed or replaced while it is used is noticed at the next sync.
#[test]
fn s4_a_log_that_is_taken_away_is_noticed() {
    for replaced in [false, true] {
        let folder = folder();
        let path = folder.path().join(NAME);
        let mut log = create(folder.path()).unwrap();
        log.append(&[epoch(1)]).unwrap();
        log.sync().unwrap();
        fs::remove_file(&path).unwrap();
        if replaced {
            fs::write(&path, "another").unwrap();
        }
        assert_eq!(code(log.sync()), Some(Code::LogDamaged));
        assert_eq!(code(log.append(&[statement(1)])), Some(Code::LogDamaged));
        assert_eq!(code(log.destroy()), replaced.then_some(Code::LogDamaged));
        assert_eq!(path.exists(), replaced, "what stands in its place is not ours to remove");
    }
}

/// Fault S9: nothing that another user could have put there, or can write to, is opened, made or
/// destroyed.
#[test]
fn s9_a_file_or_folder_of_somebody_else_is_refused() {
    let beside = folder();
    let real = beside.path().join("real");
    type Change<'a> = &'a dyn Fn(&Path);
    let changes: [(&str, Change<'_>); 6] = [
        ("symbolic link", &|path| {
            fs::rename(path, &real).unwrap();
            symlink(&real, path).unwrap();
        }),
        ("hard link", &|path| fs::hard_link(path, beside.path().join("other name")).unwrap()),
        ("FIFO", &|path| {
            fs::remove_file(path).unwrap();
            nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR).unwrap();
        }),
        ("folder", &|path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
        ("mode", &|path| fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap()),
        ("open to all", &|path| {
            fs::set_permissions(path.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
        }),
    ];
    for (name, change) in changes {
        let folder = folder();
        create(folder.path()).unwrap();
        change(&folder.path().join(NAME));
        assert_eq!(code(open(folder.path())), Some(Code::Preflight), "{name}");
        assert_eq!(code(create(folder.path())), Some(Code::Preflight), "{name}");
        assert_eq!(code(destroy(folder.path(), NAME)), Some(Code::Preflight), "{name}");
        assert!(folder.path().join(NAME).symlink_metadata().is_ok(), "{name}");
    }
    assert!(fs::metadata(&real).unwrap().len() > 0);
    let (folder, link) = (folder(), beside.path().join("folder"));
    symlink(folder.path(), &link).unwrap();
    assert_eq!(code(create(&link)), Some(Code::Preflight));
}

/// Fault S9.
#[test]
fn s9_another_owner_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        return skip("only root may give a file away", false);
    }
    let folder = folder();
    create(folder.path()).unwrap();
    chown(folder.path().join(NAME), Some(65_534), None).unwrap();
    assert_eq!(code(open(folder.path())), Some(Code::Preflight));
    chown(folder.path(), Some(65_534), None).unwrap();
    assert_eq!(code(open(folder.path())), Some(Code::Preflight));
}

/// Fault S10: a lock goes by the opened file, so that another process sees what another opening
/// sees.
#[test]
fn s10_a_log_has_one_owner_at_a_time() {
    let folder = folder();
    let log = create(folder.path()).unwrap();
    assert_eq!(code(open(folder.path())), Some(Code::TransferBusy));
    assert_eq!(code(destroy(folder.path(), NAME)), Some(Code::TransferBusy));
    let replay = log.replay().unwrap();
    drop(log);
    assert_eq!(code(open(folder.path())), Some(Code::TransferBusy), "while it is replayed it is in use");
    drop(replay);
    assert!(open(folder.path()).unwrap().is_some());
}

/// Runs [`child`] with a task behind `words`, and returns what it said, if it lived to say it.
fn run(words: &[OsString], task: &str, folder: &Path) -> Vec<String> {
    let me = [std::env::current_exe().unwrap().into(), "--exact".into(), "child".into()];
    let words: Vec<OsString> = words.iter().cloned().chain(me).collect();
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).args(["--ignored", "--nocapture", "--test-threads=1"]);
    let output = command.env("SEALED_FILE_TASK", task).env("SEALED_FILE_FOLDER", folder).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.split_once("outcome: ")).map(|(_, word)| word.to_owned()).collect()
}

fn strace(call: &str, fault: &str) -> Vec<OsString> {
    let words = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e"].map(OsString::from);
    words.into_iter().chain([format!("inject={call}:{fault}").into(), "--".into()]).collect()
}

#[test]
#[ignore = "the others run it, as a process of its own"]
fn child() {
    let Some(folder) = std::env::var_os("SEALED_FILE_FOLDER").map(PathBuf::from) else { return };
    let say = |outcome: Outcome| println!("\noutcome: {}", code(outcome).unwrap_or(Code::Done).as_str());
    match std::env::var("SEALED_FILE_TASK").unwrap().as_str() {
        "create" => say(create(&folder).map(|_| ())),
        "write" => {
            let mut log = open(&folder).unwrap().unwrap().log;
            say(log.append(&[statement(100_000)]));
            say(log.sync());
            say(log.append(&[statement(1)]));
            say(log.sync());
        }
        "destroy" => say(destroy(&folder, NAME)),
        task => panic!("{task}"),
    }
}

/// Fault S3: a sync that failed once is a failure for good, though the disk says yes the next time.
#[test]
fn s3_a_failed_sync_is_never_taken_for_a_success() {
    if !installed("strace") {
        return;
    }
    for call in ["fdatasync", "pwrite64"] {
        let folder = folder();
        create(folder.path()).unwrap();
        let said = run(&strace(call, "error=EIO:when=1"), "write", folder.path());
        let first = if call == "fdatasync" { "done" } else { "log_failed" };
        assert_eq!(said, [first, "log_failed", "log_failed", "log_failed"], "{call}");
        assert!(open(folder.path()).unwrap().is_some(), "it is checked again at the next start");
    }
}

/// Fault S12: a limit on the size of files, which the process must survive.
#[test]
fn s12_a_file_size_limit_is_a_full_disk() {
    let folder = folder();
    create(folder.path()).unwrap();
    let shell = ["sh", "-c", "ulimit -f 16; trap '' XFSZ; exec \"$@\"", "sh"].map(OsString::from);
    assert_eq!(run(&shell, "write", folder.path()), ["log_full", "log_full", "log_full", "log_full"]);
    let opened = open(folder.path()).unwrap().unwrap();
    assert_eq!((content(&opened.log), opened.repaired.is_some()), (vec![], true));
}

/// Every call by which a file is made, changed or removed.
const STEPS: [&str; 8] = ["openat", "pwrite64", "fsync", "fdatasync", "ftruncate", "renameat", "renameat2", "unlinkat"];

/// Kills `task` at each of its steps in turn, in a folder that `prepare` made; `check` looks at
/// what is left.
fn killed_at_each_step(task: &str, prepare: impl Fn(&Path), check: impl Fn(&str, &Path)) -> usize {
    let mut kills = 0;
    for call in STEPS {
        for count in 1.. {
            let folder = folder();
            prepare(folder.path());
            // The test's own process opens files, too: only calls below the folder count.
            let mut words = strace(call, &format!("signal=KILL:when={count}"));
            for path in ["", NAME, REMOVED, "journal.partial"] {
                words.splice(1..1, ["-P".into(), folder.path().join(path).into()]);
            }
            let said = run(&words, task, folder.path());
            if !said.is_empty() {
                assert_eq!(said, ["done"]);
                break;
            }
            kills += 1;
            check(call, folder.path());
        }
    }
    kills
}

/// Fault C12: killed while a log is made, it is there or not, and can be opened or made.
#[test]
fn c12_a_log_is_made_whole_or_not_at_all() {
    if !installed("strace") {
        return;
    }
    let kills = killed_at_each_step(
        "create",
        |_| (),
        |call, folder| {
            match open(folder).unwrap() {
                Some(opened) => assert_eq!(opened.repaired, None, "{call}"),
                None => drop(create(folder).unwrap()),
            }
            destroy(folder, NAME).unwrap();
            assert_eq!(fs::read_dir(folder).unwrap().count(), 0, "{call}");
        },
    );
    assert!(kills >= 6, "{kills}");
}

/// Fault C13: killed while a log is destroyed, the envelopes are gone first, and the next run
/// finishes.
#[test]
fn c13_destroying_may_be_interrupted_anywhere() {
    if !installed("strace") {
        return;
    }
    let prepare = |folder: &Path| {
        let mut log = create(folder).unwrap();
        log.append(&[epoch(1), statement(1000), epoch(2), statement(1000)]).unwrap();
        log.sync().unwrap();
    };
    let kills = killed_at_each_step("destroy", prepare, |call, folder| {
        let left = fs::read(folder.join(REMOVED)).unwrap_or_default();
        if call == "ftruncate" {
            assert!(left.len() > 2000 && !left.windows(8).any(|bytes| bytes == [ENVELOPE; 8]), "{call}");
        }
        // What has its own name is whole: nobody takes a log that is half destroyed for one that
        // rotted.
        if let Some(opened) = open(folder).unwrap() {
            assert_eq!((opened.repaired, left.len()), (None, 0), "{call}");
        }
        for _ in 0..2 {
            destroy(folder, NAME).unwrap();
            assert_eq!(fs::read_dir(folder).unwrap().count(), 0, "{call}");
        }
    });
    assert!(kills >= 7, "{kills}");
}
