//! Issue 9, B5; fault E10: nothing moved is not "done and verified", unless the operator said that
//! there may be nothing.

use std::{fs, path::Path, process::Command, time::Duration};

use rusqlite::Connection;
use sealift_tests::{
    agents::{Launch, RECEIVER, SENDER},
    exit,
    launch::program,
    pair::Pair,
};
use tempfile::TempDir;

const WITHIN: Duration = Duration::from_secs(60);

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("sealift-empty-").tempdir().unwrap()
}

fn database(path: &Path, sql: &str) -> String {
    Connection::open(path).unwrap().execute_batch(sql).unwrap();
    format!("sqlite:{}", path.display())
}

/// A dump without a byte, from a program that ended well: also one whose failure a pipe hid. The
/// loader is never told that its input is whole.
#[test]
fn an_empty_dump_is_refused_unless_it_is_allowed() {
    let folder = folder();
    let loaded = folder.path().join("loaded");
    let target = format!("exec:sh -c 'cat >{0}.part && mv {0}.part {0}'", loaded.display());
    for source in ["exec:true", "exec:sh -c 'no-such-dump 2>/dev/null | cat'"] {
        let refused = Pair::new(source, &target).run();
        refused.assert_codes(exit::UNUSABLE, exit::UNUSABLE);
        for side in [&refused.sender, &refused.receiver] {
            side.assert_one_message();
            assert_eq!(side.finished_event()["outcome"], "source_empty");
            assert!(side.stderr().contains("--allow-empty"), "{}", side.stderr());
        }
        assert!(!loaded.exists());
    }
    // So does a compressor behind it, whose stream of nothing has some bytes.
    let masked = Pair::new("exec:sh -c 'no-such-dump 2>/dev/null | gzip'", &target).run();
    masked.assert_codes(exit::UNUSABLE, exit::UNUSABLE);
    assert_eq!(masked.sender.finished_event()["outcome"], "source_empty");
    let events = String::from_utf8_lossy(&masked.sender.stdout()).into_owned();
    assert!(events.contains("only the exit code of the last program counts"), "{events}");
    assert!(!loaded.exists());
    let allowed = Pair::new("exec:true", &target).sender_args(&["--allow-empty"]).run();
    allowed.assert_done();
    assert_eq!(fs::read(&loaded).unwrap(), b"");
    let audit = fs::read_to_string(allowed.sender.home().join("state/audit.jsonl")).unwrap();
    assert!(audit.contains("source.empty_allowed"), "{audit}");
}

/// Written to a standard output that is closed, everything would be gone; and the receipt would say
/// that it was written.
#[test]
fn standard_output_that_keeps_nothing_is_no_target() {
    for redirected in [">&-", ">/dev/null"] {
        let state = folder();
        let shell =
            format!("exec \"$0\" listen --target - --ticket-out \"$1/ticket\" --state-dir \"$1/state\" {redirected}");
        let receiver =
            Command::new("sh").arg("-c").arg(shell).arg(program(RECEIVER)).arg(state.path()).output().unwrap();
        let said = String::from_utf8_lossy(&receiver.stderr);
        assert_eq!(receiver.status.code(), Some(exit::USAGE), "{said}");
        assert!(said.contains("all of the data would be lost") && said.contains("discard:"), "{said}");
        assert!(!state.path().join("ticket").exists());
    }
    // Nor does a ticket or an archive go there.
    for (agent, command) in
        [(RECEIVER, "listen --target discard: --ticket-out -"), (SENDER, "seal --source - --to x --out -")]
    {
        let shell = format!("exec \"$0\" {command} --state-dir \"$1\" >&-");
        let state = folder();
        let ended = Command::new("sh").arg("-c").arg(shell).arg(program(agent)).arg(state.path()).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(exit::USAGE), "{said}");
        assert!(said.contains("is standard output, and that is closed"), "{said}");
    }
}

/// What is empty before it is read is refused before anything is sent: the ticket stays good.
#[test]
fn an_empty_file_and_a_database_without_a_table_are_refused_before_anything_is_sent() {
    let folder = folder();
    fs::write(folder.path().join("empty"), "").unwrap();
    let target = folder.path().join("target.db");
    let mut receiver = Launch::receiver(&format!("sqlite:{}", target.display())).bind_loopback().start();
    let ticket = receiver.ticket();
    let refused_with = |source: &str, words: &[&str]| {
        let ended = Launch::sender(source, &ticket).args(words).json().start().wait(WITHIN);
        ended.assert_code(exit::UNUSABLE).assert_one_message();
        assert_eq!(ended.finished_event()["outcome"], "source_empty", "{source}");
    };
    let refused = |source: &str| refused_with(source, &[]);
    refused(&format!("file:{}", folder.path().join("empty").display()));
    // A mistyped path that SQLite made; what a dropped table left; a view of nothing.
    let mistyped = format!("sqlite:{}", folder.path().join("empty").display());
    let dropped = database(
        &folder.path().join("dropped"),
        "CREATE TABLE a(x INTEGER PRIMARY KEY AUTOINCREMENT); DROP TABLE a; CREATE VIEW v AS SELECT 1",
    );
    for source in [&mistyped, &dropped] {
        refused(source);
        refused_with(source, &["--form", "image"]);
    }
    assert!(!target.exists());
    // A table without a row is something.
    let source = database(&folder.path().join("bare"), "CREATE TABLE a(x)");
    Launch::sender(&source, &ticket).start().wait(WITHIN).assert_code(exit::DONE);
    receiver.wait(WITHIN).assert_code(exit::DONE);
    let allowed = database(&folder.path().join("allowed"), "PRAGMA user_version = 3");
    let other = format!("sqlite:{}", folder.path().join("other.db").display());
    Pair::new(allowed, other).sender_args(&["--allow-empty"]).run().assert_done();
}

/// An archive of nothing is not made either, and one that was made on purpose says so to the
/// operator who loads it.
#[test]
fn nothing_is_not_sealed_unless_it_is_allowed() {
    let folder = folder();
    let (key, archive) = (folder.path().join("RECEIVER.pub"), folder.path().join("archive"));
    let state = folder.path().join("state");
    let receiver = |words: &[&str]| Launch::bare(RECEIVER, words).arg("--state-dir").arg(&state);
    receiver(&["key"]).arg("--out").arg(&key).start().wait(WITHIN).assert_code(exit::DONE);
    let seal = |words: &[&str]| {
        let launch = Launch::bare(SENDER, &["seal", "--json", "--source", "exec:true"]).args(words);
        launch.arg("--to").arg(&key).arg("--out").arg(&archive).start().wait(WITHIN)
    };
    assert_eq!(seal(&[]).assert_code(exit::UNUSABLE).finished_event()["outcome"], "source_empty");
    assert!(!archive.exists());
    let sealed = seal(&["--allow-empty"]);
    let from = sealed.assert_code(exit::DONE).finished_event()["fingerprint"].as_str().unwrap().to_owned();
    let load = receiver(&["load", "--target", "discard:", "--from", &from]).arg(&archive).start().wait(WITHIN);
    load.assert_code(exit::DONE);
}

/// What no shell will see is not handed to a program as if one would.
#[test]
fn a_command_for_a_shell_is_pointed_out() {
    let folder = folder();
    let ticket = folder.path().join("ticket");
    let wrong = Launch::sender("exec:pg_dump ehr | gzip", ticket).start().wait(WITHIN);
    wrong.assert_code(exit::USAGE).assert_one_message();
    assert!(wrong.stderr().contains("exec:sh -c"), "{}", wrong.stderr());
    let wrong = Launch::receiver("exec:cat >/dev/null").bind_loopback().start().wait(WITHIN);
    wrong.assert_code(exit::USAGE).assert_one_message();
}
