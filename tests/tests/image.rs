//! A database moved as its pages by the two agents: `--form image`. Issue 9, B2.

use std::{fs, path::PathBuf};

use rusqlite::Connection;
use sealift_tests::{
    agents::{Launch, OPERATOR, RECEIVER, SENDER},
    exit,
    pair::{Pair, Transfer},
};
use serde_json::Value;
use tempfile::TempDir;

const WITHIN: std::time::Duration = std::time::Duration::from_secs(60);

struct Folder(TempDir);

impl Folder {
    /// With a source that this SQL makes.
    fn with(sql: &str) -> Self {
        let folder = Self(tempfile::Builder::new().prefix("sealift-image-").tempdir().unwrap());
        let source = Connection::open(folder.path("source.db")).unwrap();
        source.create_collation("BACKWARDS", |one, two| two.cmp(one)).unwrap();
        source.execute_batch(sql).unwrap();
        source.close().unwrap();
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn url(&self, name: &str) -> String {
        format!("sqlite:{}", self.path(name).display())
    }

    fn image(&self) -> Transfer {
        Pair::new(self.url("source.db"), self.url("target.db")).sender_args(&["--form", "image"]).run()
    }

    #[track_caller]
    fn assert_same(&self) {
        assert!(fs::read(self.path("source.db")).unwrap() == fs::read(self.path("target.db")).unwrap());
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// Cases 02, 10, 21, 25 and 27, and a collation of an application's.
const CASES: &[(&str, &str)] = &[
    (
        "02: a stored value that another release computed",
        "CREATE TABLE lab(id INTEGER PRIMARY KEY, value REAL, code TEXT AS ('GLU ' || value) STORED);
         INSERT INTO lab(value) VALUES(0.1+0.2), (100/3.0); PRAGMA writable_schema=ON;
         UPDATE sqlite_schema SET sql=replace(sql, 'GLU', 'ALT');",
    ),
    (
        "10: an index whose table is named in another letter case",
        "CREATE TABLE visit(id INTEGER PRIMARY KEY, mrn TEXT); CREATE UNIQUE INDEX one_mrn ON visit(mrn);
         INSERT INTO visit VALUES(1, 'x'); PRAGMA writable_schema=ON;
         UPDATE sqlite_schema SET tbl_name='Visit' WHERE name='one_mrn';",
    ),
    (
        "21: a trigger on a shadow table",
        "CREATE TABLE log(x); CREATE VIRTUAL TABLE f USING fts5(body); INSERT INTO f VALUES('a');
         CREATE TRIGGER g AFTER INSERT ON f_data BEGIN INSERT INTO log VALUES(1); END;",
    ),
    ("25: WAL mode", "PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES(1);"),
    (
        "27: a virtual table of an unknown module",
        "CREATE TABLE g_node(nodeno INTEGER PRIMARY KEY, data); INSERT INTO g_node VALUES(1, x'00');
         PRAGMA writable_schema=ON;
         INSERT INTO sqlite_schema VALUES('table','g','g',0,'CREATE VIRTUAL TABLE g USING vec0(a)');",
    ),
    (
        "a collation of the application's own",
        "CREATE TABLE p(id INTEGER PRIMARY KEY, name TEXT COLLATE BACKWARDS); CREATE INDEX i ON p(name);
         INSERT INTO p(name) VALUES('a'), ('b'), ('c');",
    ),
];

#[test]
fn what_the_row_form_cannot_move_an_image_does() {
    for (case, sql) in CASES {
        let folder = Folder::with(sql);
        let transfer = folder.image();
        transfer.assert_done();
        folder.assert_same();
        let beside = folder.names().into_iter().filter(|name| !name.starts_with("source.db"));
        assert_eq!(beside.collect::<Vec<_>>(), ["target.db"], "{case}");
        for ended in [&transfer.sender, &transfer.receiver] {
            let finished = ended.finished_event();
            assert_eq!(finished["proof"], "bytes_read_back", "{case}");
            assert_eq!(finished["image"]["tables_unread"], 0, "{case}: {finished}");
        }
    }
}

/// What the row form refuses is moved by the same command with `--form image`.
#[test]
fn a_refusal_of_the_row_form_ends_well_as_an_image() {
    for (case, sql) in CASES.iter().filter(|(case, _)| case.starts_with("27") || case.starts_with("a coll")) {
        let folder = Folder::with(sql);
        let rows = Pair::new(folder.url("source.db"), folder.url("target.db")).sender_args(&["--retry-for", "0s"]);
        let rows = rows.start();
        rows.sender.wait(WITHIN).assert_code(exit::UNUSABLE);
        drop(rows.receiver);
        assert!(!folder.path("target.db").exists(), "{case}");
        let _ = fs::remove_file(folder.path(".target.db.sealift-staging"));
        folder.image().assert_done();
        folder.assert_same();
    }
}

/// What travels besides is said before it does; log, events and receipt name the form.
#[test]
fn the_form_is_said() {
    let folder = Folder::with("CREATE TABLE patient(a); INSERT INTO patient VALUES(1), (2);");
    let transfer = folder.image();
    transfer.assert_done();
    let events = transfer.sender.events();
    let planned = events.iter().find(|event| event["event"] == "planned").unwrap();
    assert_eq!(planned["engine"], "sqlite-image");
    let findings: Vec<&str> = events.iter().filter_map(|event| event["name"].as_str()).collect();
    assert!(findings.contains(&"free-pages-travel"), "{findings:?}");
    let started = transfer.receiver.events().into_iter().find(|event| event["event"] == "started").unwrap();
    assert_eq!(started["engine"], "sqlite-image");
    let log = |ended: &sealift_tests::finished::Finished, name: &str| {
        fs::read_to_string(ended.state_dir().join(name)).unwrap_or_else(|_| panic!("no {name}"))
    };
    assert!(log(&transfer.sender, "audit.jsonl").contains("\"engine\":\"sqlite-image\""));
    assert!(log(&transfer.receiver, "audit.jsonl").contains("\"engine\":\"sqlite-image\""));
    let receipt = transfer.receiver.receipts().remove(0);
    let words = ["receipt".into(), "verify".into(), receipt];
    let told = Launch::bare(OPERATOR, &words).start().wait(WITHIN);
    let text = String::from_utf8(told.stdout()).unwrap();
    for line in ["every byte was read back", "integrity_check found nothing", "patient"] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

/// Issue 9, B4: what moving the database means for those who write to it is said before anything is
/// read, in either form and over either way.
#[test]
fn what_writers_have_to_expect_is_said_before_it_starts() {
    for (mode, says) in [("DELETE", "has a rollback journal"), ("WAL", "its -wal file grows")] {
        let folder = Folder::with(&format!("PRAGMA journal_mode={mode}; CREATE TABLE t(a); INSERT INTO t VALUES(1);"));
        let source = folder.url("source.db");
        let key = folder.path("RECEIVER.pub");
        let of_key =
            Launch::bare(RECEIVER, &["key", "--out"]).arg(&key).arg("--state-dir").arg(folder.path("receiver"));
        of_key.start().wait(WITHIN).assert_code(exit::DONE);
        for form in ["rows", "image"] {
            let pushed = Pair::new(&source, "discard:").sender_args(&["--form", form]).run();
            pushed.assert_done();
            let seal = Launch::bare(SENDER, &["seal", "--json", "--source", &source, "--form", form, "--to"]).arg(&key);
            let seal = seal.arg("--out").arg(folder.path(form)).arg("--state-dir").arg(folder.path("sender"));
            let sealed = seal.start().wait(WITHIN);
            sealed.assert_code(exit::DONE);
            for sender in [&pushed.sender, &sealed] {
                let events = sender.events();
                let said =
                    |event: &Value| event["event"] == "finding" && event["what"].as_str().unwrap().contains(says);
                let findings =
                    events.iter().take_while(|event| event["event"] != "planned").filter(|event| said(event));
                assert_eq!(findings.count(), 1, "{mode}, {form}: {events:?}");
            }
        }
    }
}

/// Only an SQLite database has pages, and only such a target takes them; a drill takes anything.
#[test]
fn other_sources_and_targets_are_refused() {
    let folder = Folder::with("CREATE TABLE t(a); INSERT INTO t VALUES(1);");
    let words = ["push".into(), "--source".into(), "file:/dev/null".into(), "--form".into(), "image".into()];
    let words: Vec<std::ffi::OsString> = words.into_iter().chain(["--ticket".into(), "none".into()]).collect();
    let refused = Launch::bare(SENDER, &words).start().wait(WITHIN);
    refused.assert_code(exit::USAGE).assert_one_message();
    assert!(refused.message().contains("--form image"), "{}", refused.message());

    let file = format!("file:{}", folder.path("target").display());
    let into_file = Pair::new(folder.url("source.db"), file)
        .sender_args(&["--form", "image"])
        .receiver_args(&["--danger-plaintext-file"])
        .run();
    into_file.assert_codes(exit::REFUSED, exit::REFUSED);
    assert_eq!(folder.names(), ["source.db"]);

    let drill = Pair::new(folder.url("source.db"), "discard:").sender_args(&["--form", "image"]).run();
    drill.assert_done();
    assert_eq!(drill.receiver.finished_event()["proof"], "discarded");
}

/// The structure of the source is broken: said by both, and nothing is left.
#[test]
fn a_damaged_source_is_not_called_done() {
    let folder = Folder::with(
        "CREATE TABLE t(a); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 20000)
         INSERT INTO t SELECT 'row ' || i FROM n;",
    );
    let mut bytes = fs::read(folder.path("source.db")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8192].fill(0xff);
    fs::write(folder.path("source.db"), bytes).unwrap();
    let transfer = folder.image();
    transfer.assert_codes(exit::UNUSABLE, exit::UNUSABLE);
    assert!(transfer.receiver.message().contains("the source is damaged"), "{}", transfer.receiver.message());
    assert_eq!(folder.names(), ["source.db"]);
}

/// By way of an archive.
#[test]
fn an_image_is_sealed_and_loaded() {
    let folder = Folder::with(CASES[4].1);
    let run = |program: &str, words: &[&str]| {
        let state = folder.path(&format!("{program}.state"));
        let ended = Launch::bare(program, words).arg("--state-dir").arg(state).start().wait(WITHIN);
        ended.assert_code(exit::DONE);
        ended
    };
    let paths = ["RECEIVER.pub", "db.sealift"].map(|name| folder.path(name).display().to_string());
    let [key, archive] = paths.each_ref().map(String::as_str);
    run(RECEIVER, &["key", "--out", key]);
    let source = folder.url("source.db");
    let sealed =
        run(SENDER, &["seal", "--json", "--source", &source, "--form", "image", "--to", key, "--out", archive]);
    let from = sealed.finished_event()["fingerprint"].as_str().unwrap().to_owned();
    let loaded = run(RECEIVER, &["load", "--json", "--target", &folder.url("target.db"), "--from", &from, archive]);
    assert_eq!(loaded.finished_event()["image"]["checked"], "everything");
    folder.assert_same();
}
