//! Archives into loaders, and what nobody but the operator can know about them.

use std::fs;

use sealift_tests::{
    agents::{Launch, RECEIVER},
    bytes, exit,
};

use super::{Hosts, WITHIN, refused};

/// A loader starts afresh; and where nobody can know whether it committed, nothing is loaded twice.
#[test]
fn a_killed_load_into_a_loader_begins_anew() {
    let hosts = Hosts::new();
    bytes::write_file(&hosts.path("dump"), bytes::noise(2, 12 << 20));
    let from = hosts.seal(&format!("file:{}", hosts.path("dump").display()));
    let target = format!("exec:dd status=none of={}", hosts.path("loaded").display());
    for point in ["chunk-taken:4", "receipt-kept"] {
        let killed = hosts.loading("archive", &target, &from).env("SEALIFT_FAIL_POINT", point).start().wait(WITHIN);
        assert_eq!(killed.killed_by(), Some(9), "{point}");
    }
    let again = hosts.load("archive", &target, &from);
    again.assert_code(exit::DONE);
    assert_eq!(bytes::digest_file(&hosts.path("loaded")), bytes::digest_file(&hosts.path("dump")));
    hosts.assert_nothing_is_kept();

    fs::remove_file(hosts.path("archive")).unwrap();
    let from = hosts.seal(&format!("file:{}", hosts.path("dump").display()));
    let killed = hosts.loading("archive", &target, &from).env("SEALIFT_FAIL_POINT", "load-ending").start().wait(WITHIN);
    assert_eq!(killed.killed_by(), Some(9));
    let unknown = hosts.load("archive", &target, &from);
    refused(&unknown, exit::INTERRUPTED, "in_doubt", "is not known");
    assert_eq!(unknown.finished_event()["resume"], "in_doubt");
    let transfer = unknown.finished_event()["transfer"].as_str().unwrap().to_owned();
    // Forgotten, it could be loaded a second time.
    let kept = Launch::bare(RECEIVER, &["abandon", &transfer]).arg("--state-dir").arg(hosts.state("receiver"));
    let kept = kept.start().wait(WITHIN);
    assert!(kept.assert_code(exit::INTERRUPTED).stderr().contains("resolve"), "{}", kept.stderr());
    hosts.receiver(&["resolve", &transfer, "--loaded"]);
    let stated = hosts.load("archive", &target, &from);
    refused(&stated, exit::OTHER, "stated_loaded", "statement");
    hosts.receiver(&["resolve", &transfer, "--not-loaded"]);
    hosts.load("archive", &target, &from).assert_code(exit::DONE);
}

/// Issue 9, A7: what the operator states to be loaded is a use of the archive, like any other: in
/// the store of uses and in the log, and not only in what is kept of the load.
#[test]
fn an_archive_that_is_stated_to_be_loaded_is_not_loaded_again() {
    let hosts = Hosts::new();
    bytes::write_file(&hosts.path("dump"), bytes::noise(3, 1 << 20));
    let from = hosts.seal(&format!("file:{}", hosts.path("dump").display()));
    let target = format!("exec:dd status=none of={}", hosts.path("loaded").display());
    let killed = hosts.loading("archive", &target, &from).env("SEALIFT_FAIL_POINT", "load-ending").start().wait(WITHIN);
    assert_eq!(killed.killed_by(), Some(9));
    let transfer = hosts.load("archive", &target, &from).finished_event()["transfer"].as_str().unwrap().to_owned();
    hosts.receiver(&["resolve", &transfer, "--loaded"]);
    let log = fs::read_to_string(hosts.state("receiver").join("audit.jsonl")).unwrap();
    assert!(log.lines().any(|line| line.contains("archive.use") && line.contains(&transfer)), "{log}");
    // Nothing is left of the load but its use.
    hosts.receiver(&["abandon", &transfer]);
    hosts.assert_nothing_is_kept();
    let again = hosts.load("archive", &target, &from);
    refused(&again, exit::REFUSED, "grant_used", "was loaded already");
}
