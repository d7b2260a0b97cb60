//! What people read, pinned: every code's advice, and every page of help. `cargo insta review`
//! accepts a change.

use std::fmt::Write;

use clap::{Command, CommandFactory};
use sealift_agent::{failure::explain, refused::refused_by_peer};
use sealift_protocol::{
    close::Code,
    id::{ChunkIndex, PartIndex},
    message::Refuse,
};

#[test]
fn every_code_says_what_happened_and_what_to_do() {
    let mut text = String::new();
    for &code in Code::ALL {
        let (what, next) = explain(code);
        let retry = if code.retry_may_help() { ", retry may help" } else { "" };
        writeln!(text, "{} (0x{:03x}, exit {}{retry})", code.as_str(), code.number(), code.exit_code()).unwrap();
        writeln!(text, "  {what}\n  {next}").unwrap();
        assert!(code == Code::Done || !next.is_empty(), "{} gives no advice", code.as_str());
    }
    insta::assert_snapshot!("codes", text);
}

#[test]
fn a_refusal_by_the_other_side_names_it_and_the_place() {
    let (part, chunk) = (Some(PartIndex(3)), Some(ChunkIndex(17)));
    let refuse = Refuse { part, chunk, ..Refuse::new(Code::ChunkForged) };
    let failure = refused_by_peer("receiver", refuse, 0);
    insta::assert_snapshot!("refused_by_peer", failure.to_string());
}

/// Issue 9, D1: which clock is wrong, only a person can know.
#[test]
fn a_refusal_because_of_a_clock_shows_both() {
    for code in Code::ALL.iter().copied().filter(|code| code.is_of_clock()) {
        let refuse = Refuse { now_seconds: Some(1_800_000_000), ..Refuse::new(code) };
        let failure = refused_by_peer("receiver", refuse, 1_800_003_600);
        let clocks = "this host's clock says 2027-01-15T09:00:00Z, the receiver's 2027-01-15T08:00:00Z";
        assert!(failure.what.ends_with(clocks) && failure.hints.to_string().contains("date -u"), "{failure}");
    }
}

fn help(mut command: Command) -> String {
    command = command.term_width(100);
    command.build();
    let mut text = command.render_long_help().to_string();
    for sub in command.get_subcommands_mut().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        write!(text, "\n=== {} ===\n{}", sub.get_name().to_owned(), sub.render_long_help()).unwrap();
    }
    text
}

#[test]
fn help_of_the_sender() {
    insta::assert_snapshot!("help_sender", help(sealift_sender::cli::Cli::command()));
}

#[test]
fn help_of_the_receiver() {
    insta::assert_snapshot!("help_receiver", help(sealift_receiver::cli::Cli::command()));
}
