//! What a person is told, by whole agents (issue 9, D1).

use std::{collections::BTreeSet, fs, process, thread, time::Duration};

use clap::{Command, CommandFactory};
use sealift_agent::misplaced::hint;
use sealift_tests::{
    agents::{Launch, OPERATOR, RECEIVER, SENDER},
    exit,
    finished::Finished,
    link::Faults,
    pair::Pair,
    place::{Kind, Place},
    shared::{run, workspace_root},
};
use serde_json::Value;

const WITHIN: Duration = Duration::from_secs(60);

fn says(program: &str, arguments: &[&str]) -> String {
    let ended = Launch::bare(program, arguments).start().wait(WITHIN);
    ended.assert_code(exit::USAGE).assert_tidy();
    ended.stderr()
}

#[test]
fn the_wrong_program_names_the_right_one() {
    for (program, arguments, right) in [
        (SENDER, &["listen", "--target", "discard:"][..], "sealift-receiver listen --help"),
        (SENDER, &["load", "x"], "sealift-receiver load --help"),
        (RECEIVER, &["push", "--source", "-"], "sealift-sender push --help"),
        (OPERATOR, &["push"], "sealift-sender push --help"),
        (OPERATOR, &["status"], "sealift-sender status, or sealift-receiver status"),
        (SENDER, &["push", "--target", "discard:"], "an option of sealift-receiver"),
        (RECEIVER, &["listen", "--source=-"], "an option of sealift-sender"),
        (RECEIVER, &["receipt", "verify", "x"], "sealift receipt --help"),
    ] {
        let stderr = says(program, arguments);
        assert!(stderr.contains(right), "{program} {arguments:?}: {stderr}");
    }
    // With --json the one event says it, too.
    let ended = Launch::bare(SENDER, &["listen", "--json"]).start().wait(WITHIN);
    let next = ended.finished_event()["hint"].as_str().unwrap().to_owned();
    assert!(next.contains("sealift-receiver listen"), "{next}");
}

/// Issue 9, D1: whatever command and option of a transfer one agent has and the other has not.
#[test]
fn whatever_the_other_agent_alone_has_is_named() {
    let commands = [(SENDER, sealift_sender::cli::Cli::command()), (RECEIVER, sealift_receiver::cli::Cli::command())];
    let own = |command: &Command| -> BTreeSet<String> {
        let visible = command.get_subcommands().filter(|command| !command.is_hide_set());
        visible.map(|command| command.get_name().to_owned()).collect()
    };
    let options = |command: &Command, name: &str| -> BTreeSet<String> {
        let transfer = command.find_subcommand(name).unwrap();
        transfer.get_arguments().filter_map(|option| Some(format!("--{}", option.get_long()?))).collect()
    };
    for ((given, run), (home, other)) in
        [(("push", &commands[0]), ("listen", &commands[1])), (("listen", &commands[1]), ("push", &commands[0]))]
    {
        for command in own(&other.1).difference(&own(&run.1)) {
            let hint = hint(run.0, command).unwrap_or_else(|| panic!("{} {command}", run.0));
            assert!(hint.contains(&format!("{} {command} --help", other.0)), "{hint}");
        }
        for command in
            own(&other.1).intersection(&own(&run.1)).filter(|name| !["man", "completions"].contains(&name.as_str()))
        {
            assert!(hint("sealift", command).is_some(), "sealift {command}");
        }
        for option in options(&other.1, home).difference(&options(&run.1, given)) {
            let hint = hint(run.0, option).unwrap_or_else(|| panic!("{} {given} {option}", run.0));
            assert!(hint.contains(other.0), "{hint}");
        }
    }
}

#[test]
fn a_database_url_names_the_way_and_not_the_password() {
    let arguments = |url| ["listen", "--target", url, "--ticket-out", "x"];
    for (url, way) in [
        ("postgres://u:hunter2@h/ehr", ".pgpass"),
        ("postgresql://h/ehr?password=hunter2", ".pgpass"),
        ("mysql://u:hunter2@h/ehr", "docs/operations.md"),
    ] {
        let stderr = says(RECEIVER, &arguments(url));
        assert!(stderr.contains(way), "{stderr}");
        assert!(!stderr.contains("hunter2"), "{stderr}");
    }
}

#[track_caller]
fn assert_said(ended: &Finished, expected: &str) {
    let what = ended.finished_event()["what"].as_str().unwrap().to_owned();
    assert!(what.contains(expected), "{what}");
}

/// What cannot be about a row may be shown; whatever comes after the first byte of data may not.
#[test]
fn what_a_program_says_before_any_data_is_shown() {
    let complains = "exec:sh -c 'printf \"no \\033[2Jrole canary\\n\" >&2; exit 2'";
    let failed = Pair::new(complains, "discard:").run();
    failed.assert_codes(exit::UNUSABLE, exit::UNUSABLE);
    assert_said(&failed.sender, "before any data had passed. It printed: no \\u{1b}[2Jrole canary");

    // The loader may fail before or after the data is in its pipe: it has read none of it.
    let failed = Pair::new("exec:echo row", complains).run();
    failed.assert_codes(exit::UNUSABLE, exit::UNUSABLE);
    assert_said(&failed.receiver, "before any data had passed. It printed: no \\u{1b}[2Jrole canary");
    let slow = "exec:sh -c 'sleep 1; echo canary >&2; exit 2'";
    let failed = Pair::new("exec:head -c 1000000 /dev/zero", slow).run();
    assert_said(&failed.receiver, "It printed: canary");

    for (source, target) in [
        ("exec:sh -c 'echo row; echo canary >&2; exit 2'", "discard:"),
        ("exec:echo row", "exec:sh -c 'head -c 1; echo canary >&2; exit 2'"),
        ("exec:head -c 1000000 /dev/zero", "exec:sh -c 'head -c 1; echo canary >&2; exit 2'"),
    ] {
        let failed = Pair::new(source, target).run();
        for ended in [&failed.sender, &failed.receiver] {
            let told = format!("{}{}", ended.stderr(), String::from_utf8_lossy(&ended.stdout()));
            assert!(!told.contains("canary"), "{told}");
        }
    }
}

#[test]
fn an_expired_ticket_shows_both_times() {
    let mut receiver = Launch::receiver("discard:").bind_loopback().args(&["--valid-for", "1s"]).json().start();
    let ticket = receiver.ticket();
    thread::sleep(Duration::from_secs(2));
    let sender = Launch::sender("exec:echo row", ticket).json().start().wait(WITHIN);
    sender.assert_code(exit::REFUSED);
    for ended in [&sender, &receiver.wait(WITHIN)] {
        assert_said(ended, "the ticket has expired: it was good until 20");
        assert_said(ended, ", and this host's clock says 20");
    }
}

fn status(program: &str, place: &Place, side: &str) -> Value {
    let state = place.path(side).display().to_string();
    let ended = Launch::bare(program, &["status", "--json", "--state-dir", &state]).start().wait(WITHIN);
    let status: Value = serde_json::from_slice(&ended.assert_code(exit::DONE).stdout()).unwrap();
    status["transfers"][0].clone()
}

/// `status` says how far a transfer is, also once its process has gone; and both sides count the
/// same after a resume.
#[test]
fn both_sides_know_how_far_it_is_and_agree_after_a_resume() {
    const ROWS: u32 = 60_000;
    let faults = Faults { bits_per_second: Some(16_000_000), ..Faults::default() };
    let place = Place::new(Kind::Sqlite(ROWS), faults, 3);
    let mut receiver = place.receiver().start();
    receiver.ticket();
    let mut sender = place.sender().start();
    sender.wait_for_event("progress", 4, WITHIN);
    sender.kill9();
    let killed = sender.wait(WITHIN);
    let left = status(SENDER, &place, "sender");
    assert!(left["plain_bytes"].as_u64() > Some(0) && left["plain_bytes_estimate"].as_u64() > Some(0), "{left}");
    receiver.kill9();
    receiver.wait(WITHIN);
    let left = status(RECEIVER, &place, "receiver");
    assert!(left["plain_bytes"].as_u64() > Some(0), "{left}");

    let mut receiver = place.receiver().start();
    receiver.ticket();
    let sender = place.sender().start();
    let (sender, receiver) = (sender.wait(WITHIN), receiver.wait(WITHIN));
    place.assert_done();
    for counted in ["rows", "plain_bytes", "parts", "chunks"] {
        assert_eq!(sender.number(counted), receiver.number(counted), "{counted}");
    }
    let events = killed.events();
    let progress: Vec<_> = events.iter().filter(|event| event["event"] == "progress").collect();
    assert!(progress.iter().all(|event| event["percent"].as_u64() <= Some(99)), "{progress:?}");
    assert!(progress.iter().any(|event| event["table"].is_string()), "{progress:?}");
    // What an earlier run brought counts from the first moment on.
    let events = receiver.events();
    let first = events.iter().find(|event| event["event"] == "progress").unwrap();
    assert!(first["plain_bytes"].as_u64() > Some(0) && first["rows"].as_u64() > Some(0), "{first}");
    let rows = |ended: &Finished| {
        let events = ended.events();
        let told =
            events.iter().filter(|event| event["event"] == "progress").filter_map(|event| event["rows"].as_u64());
        told.max().unwrap()
    };
    assert!(rows(&receiver) <= receiver.number("rows"), "a row is counted twice");
}

/// Words of a dialect, for which the field has others: see `docs/glossary.md`.
const NOT_USED: &[&str] = &[
    "affair",
    "anew",
    "anybody",
    "by voice",
    "go on with",
    "goes on with",
    "gone on with",
    "hand on",
    "handed on",
    "hands on",
    "heard",
    "hears",
    "judge",
    "judged",
    "judgement",
    "judges",
    "judging",
    "put down",
    "puts down",
    "senseless",
    "somebody",
    "spelt",
    "take up",
    "taken up",
    "takes up",
    "undecided",
    "whoever",
];

/// The one file that has them: this one.
const THIS_FILE: &str = "tests/tests/words.rs";

/// The text in a line of Rust: its comment, and its string literals.
fn text_of(line: &str) -> String {
    let (code, comment) = line.split_once("//").unwrap_or((line, ""));
    code.split('"').skip(1).step_by(2).chain([comment]).collect::<Vec<_>>().join(" ")
}

fn unused_words_in(text: &str) -> Vec<&'static str> {
    let letters = |other: char| if other.is_alphanumeric() || "_'`".contains(other) { other } else { ' ' };
    let bare: String = text.to_lowercase().chars().map(letters).collect();
    let spaced = format!(" {} ", bare.split_whitespace().collect::<Vec<_>>().join(" "));
    NOT_USED.iter().filter(|word| spaced.contains(&format!(" {word} "))).copied().collect()
}

/// Issue 10, item 9: comments, messages and documents keep to the words of the field.
#[test]
fn the_words_are_those_of_the_field() {
    assert_eq!(unused_words_in("Whoever judges, takes up `anew`"), ["judges", "takes up", "whoever"]);
    assert_eq!(unused_words_in(&text_of("let anew = judge(); // By voice.")), ["by voice"]);
    let mut git = process::Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(workspace_root());
    let listed = run(&mut git);
    let mut wrong = Vec::new();
    for path in listed.lines() {
        let is_rust = path.ends_with(".rs");
        if path == THIS_FILE || !is_rust && !path.ends_with(".md") {
            continue;
        }
        let Ok(text) = fs::read_to_string(workspace_root().join(path)) else { continue };
        for (line, number) in text.lines().zip(1..) {
            let found = match is_rust {
                true => unused_words_in(&text_of(line)),
                false => unused_words_in(line),
            };
            wrong.extend(found.iter().map(|word| format!("{path}:{number}: {word}")));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}
