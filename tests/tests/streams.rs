//! What the programs print, and where they find their surroundings (issue 9, C8; fault E5).

use std::{
    fs::File,
    process::{Command, Stdio},
    time::Duration,
};

use sealift_tests::{
    agents::{Launch, OPERATOR, RECEIVER, SENDER},
    exit,
    launch::program,
    pair::Pair,
};

const WITHIN: Duration = Duration::from_secs(60);

/// Commands whose output is what was asked for.
const PRINTING: &[(&str, &[&str])] = &[
    (SENDER, &["status"]),
    (SENDER, &["status", "--json"]),
    (SENDER, &["man"]),
    (SENDER, &["man", "push"]),
    (SENDER, &["completions", "bash"]),
    (SENDER, &["--help"]),
    (SENDER, &["push", "--help"]),
    (RECEIVER, &["status"]),
    (RECEIVER, &["status", "--json"]),
    (RECEIVER, &["man"]),
    (RECEIVER, &["completions", "zsh"]),
    (RECEIVER, &["--version"]),
    (OPERATOR, &["man"]),
    (OPERATOR, &["completions", "fish"]),
    (OPERATOR, &["--help"]),
];

fn printing(name: &str, words: &[&str], home: &std::path::Path) -> Command {
    let mut command = Command::new(program(name));
    command.args(words).env("HOME", home).env_remove("XDG_STATE_HOME");
    command
}

/// Issue 9, C8: a disk that is full is no success, and it is said.
#[test]
fn what_cannot_be_printed_is_a_failure() {
    let home = tempfile::tempdir().unwrap();
    for (name, words) in PRINTING {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let ended = printing(name, words, home.path()).stdout(full).output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(exit::OTHER), "{name} {words:?}: {said}");
        assert!(said.contains("error: standard output cannot be written: no space left"), "{name} {words:?}: {said}");
    }
}

/// A reader that has read enough is no failure.
#[test]
fn a_reader_that_ends_early_is_no_failure() {
    let home = tempfile::tempdir().unwrap();
    for (name, words) in PRINTING {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ended = printing(name, words, home.path()).stdout(writer).output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!((ended.status.code(), said.as_str()), (Some(exit::DONE), ""), "{name} {words:?}");
    }
}

#[track_caller]
fn assert_ours(said: &str) {
    let is_ours = |line: &&str| {
        ["sender: ", "receiver: ", "sealift: ", "receipt: ", "  "].iter().any(|start| line.starts_with(start))
    };
    let foreign: Vec<_> = said.lines().filter(|line| !is_ours(line)).collect();
    assert!(!said.is_empty() && foreign.is_empty(), "{foreign:#?}");
}

/// Issue 9, C8: mistakes in arguments are told as any other failure.
#[test]
fn mistakes_in_arguments_are_told_in_our_words() {
    let mistakes: &[(&str, &[&str], &str)] = &[
        (SENDER, &["push"], "--ticket <FILE>"),
        (SENDER, &["pusch"], "Hint: a similar subcommand exists: 'push'."),
        (SENDER, &["push", "--source", "-", "--ticket", "x", "--memory", "much"], "--memory"),
        (RECEIVER, &["listen", "--target", "discard:", "--ticket-out", "x", "--bind", "nowhere"], "[IPv6]:PORT"),
        (RECEIVER, &["abandon", "--all", "x"], "cannot be used with"),
        (OPERATOR, &["receipt", "verify"], "<FILE>"),
    ];
    for (name, words, named) in mistakes {
        let ended = Command::new(program(name)).args(*words).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(exit::USAGE), "{said}");
        assert_ours(&said);
        assert!(said.contains(named) && said.contains("See --help."), "no {named} in: {said}");
    }
}

/// Issue 9, C8: what libraries log is on lines of ours, and only where they are asked for.
#[test]
fn every_line_on_standard_error_is_ours() {
    for (level, has_log) in [("trace", true), ("warn", false)] {
        let arguments = ["--log-level", level];
        let pair = Pair::new("exec:echo row", "discard:").for_people();
        let done = pair.sender_args(&arguments).receiver_args(&arguments).run();
        done.assert_done();
        for ended in [&done.sender, &done.receiver] {
            let said = ended.stderr();
            assert_ours(&said);
            assert_eq!(said.contains("quinn"), has_log, "{level}");
        }
    }
}

/// Issue 9, C8: a relative folder would be another one for each working folder, with keys in it.
#[test]
fn a_relative_state_home_is_ignored() {
    for (variable, value) in [("XDG_STATE_HOME", "state"), ("STATE_DIRECTORY", "state"), ("XDG_STATE_HOME", "")] {
        let launch = Launch::bare(SENDER, &["status"]).env(variable, value);
        let home = launch.home().to_owned();
        let ended = launch.env("HOME", &home).start().wait(WITHIN);
        ended.assert_code(exit::DONE).assert_tidy();
        assert!(ended.home().join(".local/state/sealift-sender/receipts").is_dir(), "{variable}");
    }
    let nowhere = Launch::bare(SENDER, &["status"]).env("HOME", "home").env("XDG_STATE_HOME", "state").start();
    let ended = nowhere.wait(WITHIN);
    ended.assert_code(exit::PREFLIGHT).assert_one_message().assert_tidy();
    assert!(ended.stderr().contains("--state-dir DIR"), "{}", ended.stderr());
}

/// Issue 9, C8: as under a service manager that passes nothing on.
#[test]
fn programs_are_found_without_a_path() {
    let bare = || vec!["env".into(), "-i".into()];
    let pair = Pair::new("exec:echo row", "exec:cat");
    let done = pair.start_with(|sender| sender.wrapped_in(bare()), |receiver| receiver.wrapped_in(bare())).wait(WITHIN);
    done.assert_done();
}
