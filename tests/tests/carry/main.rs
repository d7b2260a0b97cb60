//! The offline leg: what `seal` writes, only one receiver's `load` can open, and it takes nothing
//! less than all of it.

mod loader;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use sealift_protocol::{
    archive::Statement,
    envelope::SealingPublicKey,
    id::TransferId,
    sealed_log::{KeyFingerprint, LogHeader, LogId, LogKind, LogReader, LogWriter, ReadStep, Record},
};
use sealift_tests::{
    agents::{Launch, OPERATOR, RECEIVER, SENDER},
    bytes,
    disk::SmallDisk,
    exit,
    finished::Finished,
    place::assert_named_in_readme,
    random::Random,
    sqlite,
    wire::Seeded,
};
use tempfile::TempDir;

const WITHIN: Duration = Duration::from_secs(60);

/// Some megabytes, in six parts.
const ROWS: u32 = 10_000;

/// Where a receiver's fail points kill a load, from the beginning to the end.
const LOAD_POINTS: &[&str] = &[
    "epoch-kept",
    "chunk-taken:3",
    "part-finished",
    "part-finished:2",
    "load-ending",
    "receipt-signed",
    "receipt-kept",
    "published",
    "forgotten",
    "record-removing",
];

/// A source host and a target host, of which nothing but files goes from one to the other.
struct Hosts {
    folder: TempDir,
}

impl Hosts {
    fn new() -> Self {
        let hosts = Self { folder: tempfile::Builder::new().prefix("sealift-carry-").tempdir().unwrap() };
        hosts.key("receiver", "RECEIVER.pub").assert_code(exit::DONE);
        hosts
    }

    fn with_database(rows: u32) -> Self {
        let hosts = Self::new();
        sqlite::create_hospital(&hosts.path("from.db"), rows);
        hosts
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn url(&self, name: &str) -> String {
        format!("sqlite:{}", self.path(name).display())
    }

    fn state(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.state"))
    }

    fn key(&self, receiver: &str, out: &str) -> Finished {
        let words = ["key".into(), "--out".into(), self.path(out)];
        Launch::bare(RECEIVER, &words).arg("--state-dir").arg(self.state(receiver)).start().wait(WITHIN)
    }

    /// Another command of the receiver, which must end well.
    fn receiver(&self, words: &[&str]) -> Finished {
        let done = Launch::bare(RECEIVER, words).arg("--state-dir").arg(self.state("receiver")).start().wait(WITHIN);
        done.assert_code(exit::DONE);
        done
    }

    fn sealing(&self, source: &str, out: &Path) -> Launch {
        let launch = Launch::bare(SENDER, &["seal", "--json", "--source", source]);
        let launch = launch.arg("--to").arg(self.path("RECEIVER.pub")).arg("--out").arg(out);
        launch.arg("--state-dir").arg(self.state("sender"))
    }

    /// Seals `source` into the file `archive`; the sender's fingerprint.
    fn seal(&self, source: &str) -> String {
        let sealed = self.sealing(source, &self.path("archive")).start().wait(WITHIN);
        sealed.assert_code(exit::DONE).assert_tidy();
        sealed.finished_event()["fingerprint"].as_str().unwrap().to_owned()
    }

    fn loading(&self, archive: &str, target: &str, from: &str) -> Launch {
        let launch = Launch::bare(RECEIVER, &["load", "--json", "--target", target, "--from", from]);
        launch.arg(self.path(archive)).arg("--state-dir").arg(self.state("receiver"))
    }

    fn load(&self, archive: &str, target: &str, from: &str) -> Finished {
        self.loading(archive, target, from).start().wait(WITHIN)
    }

    fn same(&self, target: &str) -> bool {
        sqlite::content(&self.path("from.db")) == sqlite::content(&self.path(target))
    }

    /// Neither host keeps anything of a load that is over, or was refused.
    #[track_caller]
    fn assert_nothing_is_kept(&self) {
        let loads = fs::read_dir(self.state("receiver").join("loads")).into_iter().flatten().count();
        assert_eq!(loads, 0, "unfinished loads are kept");
        let left: Vec<_> = fs::read_dir(self.folder.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
        let staged = left.iter().filter(|name| name.to_string_lossy().starts_with('.')).count();
        assert_eq!(staged, 0, "{left:?}");
    }
}

fn refused(load: &Finished, code: i32, word: &str, says: &str) {
    load.assert_code(code).assert_one_message();
    assert_eq!(load.finished_event()["outcome"], word, "{}", load.message());
    assert!(load.message().contains(says), "{}", load.message());
}

#[test]
fn a_database_is_carried_and_proven() {
    let hosts = Hosts::with_database(ROWS);
    let from = hosts.seal(&hosts.url("from.db"));
    let archive = fs::metadata(hosts.path("archive")).unwrap();
    assert_eq!(archive.permissions().mode() & 0o777, 0o600);
    hosts.load("archive", "discard:", &from).assert_code(exit::DONE);
    let spoken = from.to_uppercase().replace('-', " ");
    let load = hosts.load("archive", &hosts.url("to.db"), &spoken);
    load.assert_code(exit::DONE).assert_tidy();
    assert!(hosts.same("to.db"));
    let event = load.finished_event();
    let verify = Launch::bare(OPERATOR, &["receipt", "verify", event["receipt"].as_str().unwrap(), "--audit"]);
    verify.arg(hosts.state("receiver").join("audit.jsonl")).start().wait(WITHIN).assert_code(exit::DONE);
    hosts.assert_nothing_is_kept();
    fs::remove_dir_all(hosts.state("receiver").join("receipts")).unwrap(); // Issue 9, A7; fault G3: people move them away.
    refused(&hosts.load("archive", &hosts.url("again.db"), &from), exit::REFUSED, "grant_used", "loaded already");
    assert!(!hosts.path("again.db").exists());
    hosts.assert_nothing_is_kept();
}

/// Issue 9, B7, C4: SQLite would apply an archive of such a name to the database, or remove it.
#[test]
fn an_archive_gets_no_name_of_a_side_file() {
    let hosts = Hosts::with_database(ROWS);
    for name in ["from.db-wal", "from.db-shm", "from.db-journal"] {
        let sealed = hosts.sealing("exec:echo row", &hosts.path(name)).start().wait(WITHIN);
        sealed.assert_code(exit::USAGE);
        assert!(sealed.message().contains("has the name of a side file of"), "{}", sealed.message());
        assert!(!hosts.path(name).exists());
    }
    hosts.assert_nothing_is_kept();
}

#[test]
fn a_dump_goes_through_pipes_into_a_loader() {
    let hosts = Hosts::new();
    bytes::write_file(&hosts.path("dump"), bytes::noise(1, 20 << 20));
    let out = hosts.path("archive");
    let sealing =
        Launch::bare(SENDER, &["seal", "--source", "-", "--out", "-"]).arg("--to").arg(hosts.path("RECEIVER.pub"));
    let sealing = sealing.arg("--state-dir").arg(hosts.state("sender")).stdin(bytes::noise(1, 20 << 20)).stdout_pipe();
    let sealed = sealing.start().wait(WITHIN);
    sealed.assert_code(exit::DONE);
    fs::write(&out, sealed.stdout()).unwrap();
    let stderr = sealed.stderr();
    let from = stderr.trim().lines().last().unwrap().trim();
    let target = format!("exec:dd status=none of={}", hosts.path("loaded").display());
    hosts.load("archive", &target, from).assert_code(exit::DONE);
    assert_eq!(bytes::digest_file(&hosts.path("loaded")), bytes::digest_file(&hosts.path("dump")));
    hosts.assert_nothing_is_kept();
}

/// The key is made once, and only its owner may read it.
#[test]
fn a_receiver_has_one_key() {
    let hosts = Hosts::new();
    hosts.key("receiver", "again.pub").assert_code(exit::DONE);
    assert_eq!(fs::read(hosts.path("again.pub")).unwrap(), fs::read(hosts.path("RECEIVER.pub")).unwrap());
    hosts.key("receiver", "again.pub").assert_code(exit::DONE);
    hosts.key("other", "again.pub").assert_code(exit::USAGE).assert_one_message();
    let key = hosts.state("receiver").join("receiver.key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    hosts.key("receiver", "third.pub").assert_code(exit::PREFLIGHT).assert_one_message();
}

#[test]
fn what_is_not_for_this_receiver_is_refused() {
    let hosts = Hosts::with_database(100);
    let from = hosts.seal(&hosts.url("from.db"));
    let other = from.replace(&from[..1], if from.starts_with('0') { "1" } else { "0" });
    let target = hosts.url("to.db");
    refused(&hosts.load("archive", &target, &other), exit::PEER, "identity_refused", "another sender");
    Launch::bare(RECEIVER, &["load", "--from", "0f3a"]).start().wait(WITHIN).assert_code(exit::USAGE);
    hosts.key("other", "other.pub").assert_code(exit::DONE);
    let elsewhere = Launch::bare(RECEIVER, &["load", "--json", "--target", &target, "--from", &from])
        .arg(hosts.path("archive"))
        .arg("--state-dir");
    let by_other = elsewhere.arg(hosts.state("other")).start().wait(WITHIN);
    refused(&by_other, exit::MISMATCH, "log_foreign", "another receiver");
    let nobody = Launch::bare(RECEIVER, &["load", "--json", "--target", &target, "--from", &from])
        .arg(hosts.path("archive"))
        .arg("--state-dir");
    refused(&nobody.arg(hosts.state("nobody")).start().wait(WITHIN), exit::PREFLIGHT, "preflight", "has no key");
    fs::write(hosts.path("to.db"), "something").unwrap();
    refused(&hosts.load("archive", &target, &from), exit::UNUSABLE, "target_not_empty", "");
    fs::remove_file(hosts.path("to.db")).unwrap();
    refused(&hosts.load("archive", "exec:cat", &from), exit::REFUSED, "plan_refused", "");
    assert_eq!(hosts.load("missing", &target, &from).code(), Some(exit::UNUSABLE));
    hosts.assert_nothing_is_kept();
    hosts.load("archive", &target, &from).assert_code(exit::DONE);
}

/// Faults S5, X5: a byte that was changed, wherever it is, and an end that is missing, wherever it
/// was cut.
#[test]
fn what_was_damaged_or_cut_is_refused() {
    let hosts = Hosts::with_database(6_000);
    let from = hosts.seal(&hosts.url("from.db"));
    let whole = fs::read(hosts.path("archive")).unwrap();
    let mut random = Random::of_this_run("damaged archives");
    let try_one = |what: &str, bytes: &[u8], words: &[&str]| {
        fs::write(hosts.path("damaged"), bytes).unwrap();
        let load = hosts.load("damaged", &hosts.url("to.db"), &from);
        load.assert_code(exit::MISMATCH).assert_one_message();
        let word = load.finished_event()["outcome"].as_str().unwrap().to_owned();
        assert!(words.contains(&word.as_str()), "{what}: {word}: {}", load.message());
        assert!(!hosts.path("to.db").exists(), "{what}");
        hosts.assert_nothing_is_kept();
    };
    let places = [0, 4, 30, 60, 80, 104, 110, 140, 400, whole.len() - 1, whole.len() - 200];
    let anywhere: Vec<_> = (0..8).map(|_| random.below(whole.len())).collect();
    for place in places.into_iter().chain(anywhere) {
        let mut damaged = whole.clone();
        damaged[place] ^= 1 << random.below(8);
        try_one(&format!("byte {place}"), &damaged, &["log_damaged", "part_truncated"]);
    }
    for cut in [0, 50, 104, 2000, whole.len() / 2, whole.len() - 65, whole.len() - 1, random.below(whole.len())] {
        let words: &[&str] = if cut < 104 { &["log_damaged"] } else { &["part_truncated"] };
        try_one(&format!("cut at {cut}"), &whole[..cut], words);
    }
    try_one("more behind the end", &[&whole[..], b"more"].concat(), &["part_truncated", "log_damaged"]);
    fs::write(hosts.path("damaged"), &whole).unwrap();
    hosts.load("damaged", &hosts.url("to.db"), &from).assert_code(exit::DONE);
}

/// An archive that was written again by another program, with good checks and in another order: the
/// seals and signatures stand against that.
#[test]
fn what_was_put_together_differently_is_refused() {
    let hosts = Hosts::with_database(12_000);
    let from = hosts.seal(&hosts.url("from.db"));
    let (header, records) = records(&fs::read(hosts.path("archive")).unwrap());
    let is_chunk = |record: &Record| matches!(record, Record::Chunk { .. });
    let first = records.iter().position(is_chunk).unwrap();
    let rows =
        records.iter().position(|record| matches!(record, Record::Chunk { header, .. } if !header.last)).unwrap();
    let last = records.iter().rposition(is_chunk).unwrap();
    let changed = |change: &dyn Fn(&mut Vec<Record>)| {
        let mut records = records.clone();
        change(&mut records);
        records
    };
    let spliced = LogHeader::new(header.id, &mut Seeded::new("another salt", 0));
    let cases: Vec<(&str, &str, LogHeader, Vec<Record>)> = vec![
        ("two chunks swapped", "chunk_order", header, changed(&|records| records.swap(rows, rows + 1))),
        ("a chunk left out", "chunk_order", header, changed(&|records| drop(records.remove(rows)))),
        ("a chunk twice", "chunk_order", header, changed(&|records| records.insert(rows, records[rows].clone()))),
        ("a last chunk left out", "part_truncated", header, changed(&|records| drop(records.remove(last)))),
        ("a chunk changed", "chunk_forged", header, changed(&|records| flip(&mut records[rows]))),
        ("no manifest", "part_truncated", header, changed(&|records| records.retain(|record| !is_manifest(record)))),
        ("a manifest changed", "manifest_mismatch", header, changed(&|records| forge_manifest(records))),
        ("the opening of another log", "protocol_violation", spliced, records.clone()),
        ("no opening", "protocol_violation", header, changed(&|records| drop(records.drain(..first)))),
        ("a second epoch", "protocol_violation", header, changed(&|records| records.insert(first, records[1].clone()))),
        (
            "a record behind the manifest",
            "protocol_violation",
            header,
            changed(&|records| records.push(records[0].clone())),
        ),
    ];
    for (what, word, header, records) in cases {
        write_log(&hosts.path("forged"), header, &records);
        let load = hosts.load("forged", &hosts.url("to.db"), &from);
        assert_eq!(load.finished_event()["outcome"], word, "{what}: {}", load.message());
        load.assert_one_message();
        assert!(!hosts.path("to.db").exists(), "{what}");
        hosts.assert_nothing_is_kept();
    }
    for (kind, says) in [(LogKind::Journal, "journal"), (LogKind::Spool, "spool")] {
        let other = LogHeader::new(LogId { kind, ..header.id }, &mut Seeded::new("salt", 0));
        write_log(&hosts.path("forged"), other, &records);
        refused(&hosts.load("forged", &hosts.url("to.db"), &from), exit::MISMATCH, "log_foreign", says);
    }
    write_log(&hosts.path("forged"), header, &records);
    hosts.load("forged", &hosts.url("to.db"), &from).assert_code(exit::DONE);
    let nobody = KeyFingerprint::of(&SealingPublicKey(vec![1; 1216]));
    assert_ne!(LogId { kind: LogKind::Archive, transfer: TransferId([0; 16]), key: nobody }, header.id);
}

fn records(bytes: &[u8]) -> (LogHeader, Vec<Record>) {
    let mut reader = LogReader::open(bytes).unwrap_or_else(|_| panic!("no log"));
    let mut records = Vec::new();
    while let Ok(ReadStep::Record(record)) = reader.step() {
        if record != Record::Mark {
            records.push(record);
        }
    }
    (*reader.header(), records)
}

fn write_log(path: &Path, header: LogHeader, records: &[Record]) {
    let mut writer = LogWriter::new(header);
    let mut bytes = header.to_bytes().to_vec();
    records.iter().for_each(|record| bytes.extend(writer.encode(record).unwrap().pieces().concat()));
    fs::write(path, bytes).unwrap();
}

fn flip(record: &mut Record) {
    let Record::Chunk { sealed, .. } = record else { panic!("no chunk") };
    let mut bytes = sealed.to_vec();
    bytes[5] ^= 1;
    *sealed = bytes.into();
}

fn statement(record: &Record) -> Option<Statement> {
    let Record::Statement(bytes) = record else { return None };
    Statement::from_bytes(bytes).ok()
}

fn is_manifest(record: &Record) -> bool {
    matches!(statement(record), Some(Statement::Finish(_)))
}

fn forge_manifest(records: &mut [Record]) {
    let record = records.iter_mut().rev().find(|record| is_manifest(record)).unwrap();
    let Some(Statement::Finish(mut manifest)) = statement(record) else { panic!("no manifest") };
    manifest.manifest.parts[0].plain_bytes += 1;
    *record = Statement::Finish(manifest).to_record();
}

/// Faults C2, C14: killed at every step of the load and started again.
#[test]
fn a_killed_load_is_done_again_once() {
    let hosts = Hosts::with_database(ROWS);
    for point in LOAD_POINTS {
        let from = hosts.seal(&hosts.url("from.db"));
        let target = hosts.url("to.db");
        let killed = hosts.loading("archive", &target, &from).env("SEALIFT_FAIL_POINT", point).start().wait(WITHIN);
        assert_eq!(killed.killed_by(), Some(9), "{point}: {}", killed.message());
        let again = hosts.load("archive", &target, &from);
        match *point {
            // All of it was over but the clean-up.
            "record-removing" => refused(&again, exit::REFUSED, "grant_used", "loaded already"),
            _ => drop(again.assert_code(exit::DONE)),
        }
        if point.starts_with("part-finished") {
            assert_eq!(again.finished_event()["resume"], "resumed", "{point}");
        }
        assert!(hosts.same("to.db"), "{point}");
        hosts.assert_nothing_is_kept();
        fs::remove_file(hosts.path("to.db")).unwrap();
        fs::remove_file(hosts.path("archive")).unwrap();
    }
}

/// `status` tells of a load that was interrupted, and `abandon` ends it, staging included; then it
/// can be done elsewhere.
#[test]
fn an_interrupted_load_is_told_of_and_can_be_abandoned() {
    let hosts = Hosts::with_database(ROWS);
    let from = hosts.seal(&hosts.url("from.db"));
    let load = hosts.loading("archive", &hosts.url("to.db"), &from).env("SEALIFT_FAIL_POINT", "part-finished:2");
    assert_eq!(load.start().wait(WITHIN).killed_by(), Some(9));
    let told = String::from_utf8(hosts.receiver(&["status", "--json"]).stdout()).unwrap();
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["transfers"][0]["stage"], &told["transfers"][0]["running"]), (&"loading".into(), &false.into()));
    assert!(told["transfers"][0]["staged_bytes"].as_u64().unwrap() > 0, "{told}");
    // Issue 9, D3: each of the files and folders is named.
    assert_named_in_readme(&hosts.state("receiver"));
    hosts.receiver(&["abandon", "--all"]);
    hosts.assert_nothing_is_kept();
    hosts.load("archive", &hosts.url("other.db"), &from).assert_code(exit::DONE);
    assert_named_in_readme(&hosts.state("receiver"));
    assert!(hosts.same("other.db") && !hosts.path("to.db").exists());
}

/// An interrupted load that is then wanted elsewhere leaves nothing where it began; one that fails
/// may be tried again.
#[test]
fn an_interrupted_load_may_go_elsewhere() {
    let hosts = Hosts::with_database(ROWS);
    let from = hosts.seal(&hosts.url("from.db"));
    let first = hosts.loading("archive", &hosts.url("first.db"), &from);
    let killed = first.env("SEALIFT_FAIL_POINT", "part-finished:2").start().wait(WITHIN);
    assert_eq!(killed.killed_by(), Some(9));
    let failing = hosts.load("archive", "exec:false", &from);
    assert_eq!(failing.code(), Some(exit::REFUSED), "{}", failing.message());
    hosts.load("archive", &hosts.url("second.db"), &from).assert_code(exit::DONE);
    assert!(hosts.same("second.db") && !hosts.path("first.db").exists());
    hosts.assert_nothing_is_kept();
}

/// No archive is left by a source that fails, a sender that is stopped, or a disk that is full.
#[test]
fn what_was_not_sealed_whole_is_not_there() {
    let hosts = Hosts::new();
    let out = hosts.path("archive");
    let failed = hosts.sealing("exec:sh -c 'head -c 9000000 /dev/zero; exit 3'", &out).start().wait(WITHIN);
    refused(&failed, exit::UNUSABLE, "source_failed", "");
    hosts.assert_nothing_is_kept();

    let endless = hosts.sealing("exec:cat /dev/urandom", &out).start();
    wait_for_file(&hosts.path(".archive.sealift-partial"), 1 << 20);
    refused(&hosts.sealing("exec:true", &out).start().wait(WITHIN), exit::UNUSABLE, "target_failed", "another process");
    endless.sigint();
    refused(&endless.wait(WITHIN), exit::USER_INTERRUPT, "user_interrupt", "No archive");
    hosts.assert_nothing_is_kept();

    let endless = hosts.sealing("exec:cat /dev/urandom", &out).start();
    wait_for_file(&hosts.path(".archive.sealift-partial"), 1 << 20);
    endless.kill9();
    drop(endless.wait(WITHIN));
    assert!(!out.exists());
    let from = hosts.seal("exec:echo whole");
    hosts.load("archive", "discard:", &from).assert_code(exit::DONE);
    hosts.assert_nothing_is_kept();
    refused(&hosts.sealing("exec:echo", &out).start().wait(WITHIN), exit::UNUSABLE, "target_not_empty", "exists");

    let Some(disk) = SmallDisk::mount("size=2m") else { return };
    let full = hosts.sealing("exec:head -c 9000000 /dev/urandom", &disk.path("archive")).start().wait(WITHIN);
    refused(&full, exit::UNUSABLE, "target_full", "Make room");
    assert_eq!(disk.names(), Vec::<String>::new());
}

fn wait_for_file(path: &Path, bytes: u64) {
    for _ in 0..1000 {
        if fs::metadata(path).is_ok_and(|found| found.len() >= bytes) {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("{} does not grow", path.display());
}

/// The sender itself keeps nothing by which the archive could be opened, and neither host ever
/// holds a row in the clear.
#[test]
fn no_key_is_left_at_the_sender() {
    let hosts = Hosts::with_database(100);
    hosts.seal(&hosts.url("from.db"));
    let left: Vec<_> = fs::read_dir(hosts.state("sender")).unwrap().flatten().map(|entry| entry.file_name()).collect();
    let mut left: Vec<_> = left.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    left.sort();
    assert_eq!(left, ["audit.jsonl", "identity", "receipts"]);
}

/// Memory is bounded whatever the archive's size.
#[test]
fn memory_stays_bounded() {
    let hosts = Hosts::new();
    let sealing =
        hosts.sealing("exec:head -c 400000000 /dev/zero", &hosts.path("archive")).arg("--compression").arg("off");
    let sealed = sealing.start().wait(WITHIN * 3);
    sealed.assert_code(exit::DONE);
    let from = sealed.finished_event()["fingerprint"].as_str().unwrap().to_owned();
    let loaded = hosts.loading("archive", "discard:", &from).start().wait(WITHIN * 3);
    loaded.assert_code(exit::DONE);
    for agent in [sealed, loaded] {
        assert!(agent.peak_memory_bytes < 120 << 20, "{} bytes", agent.peak_memory_bytes);
    }
}
