//! An attacker in the middle, who can rewrite the ticket on its way, and has two real agents: a
//! receiver for the honest sender and a sender for the honest receiver. What the one loads the
//! other sends.

use std::{fs, path::PathBuf, process::Command};

use sealift_tests::{
    agents::{Agent, Launch, RECEIVER},
    exit,
};

use super::{Hosts, WITHIN, put_ticket, read_ticket};

struct Middle {
    hosts: Hosts,
    receiver: Agent,
    his_receiver: Agent,
    his_sender: Agent,
    rewritten: PathBuf,
}

impl Middle {
    fn start(honest: impl FnOnce(Launch, &Hosts) -> Launch) -> Self {
        let hosts = Hosts::new();
        let mut receiver = honest(hosts.listen(), &hosts).start();
        let ticket = receiver.ticket();
        let pipe = hosts.path("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let into = format!("exec:sh -c 'cat > {}'", pipe.display());
        let mut his_receiver = Launch::receiver(&into).bind_loopback().args(&["--grace", "0s"]).json().start();
        // His own ticket: address, fingerprint, sealing key, secret and grant are all his; what a
        // person looks at is not.
        let his = read_ticket(&his_receiver.ticket());
        assert_ne!(his.receiver, read_ticket(&ticket).receiver);
        let rewritten = put_ticket(hosts.folder.path(), "rewritten", &his);
        let source = format!("exec:cat {}", pipe.display());
        let his_sender = Launch::sender(&source, &ticket).args(&["--retry-for", "0s"]).json().start();
        Self { hosts, receiver, his_receiver, his_sender, rewritten }
    }
}

/// Issue 9, A1: without a pin the transfer runs through him, and both ends look well: the audit log
/// says that nothing but the ticket vouched for the receiver.
#[test]
fn without_a_pin_a_rewritten_ticket_leads_through_the_middle_and_is_recorded_as_unpinned() {
    let middle = Middle::start(|listen, _| listen);
    let sender = middle.hosts.push("sender", &middle.rewritten).start().wait(WITHIN);
    sender.assert_code(exit::DONE);
    middle.his_sender.wait(WITHIN).assert_code(exit::DONE);
    middle.receiver.wait(WITHIN).assert_code(exit::DONE);
    middle.hosts.assert_loaded();
    let begun = middle.hosts.entries("sender", "transfer.begin");
    assert_eq!(begun[0]["receiver_trust"], "ticket", "{begun:?}");
    let right = middle.hosts.ask(RECEIVER, &["identity"], "receiver");
    assert_ne!(begun[0]["receiver"], right.as_str(), "the log has the key of him who was in the middle");
}

/// Issue 9, A1: the sender's pin stops him before anything is sent.
#[test]
fn the_senders_pin_stops_the_middle_before_anything_is_sent() {
    let mut middle = Middle::start(|listen, _| listen);
    let right = middle.hosts.ask(RECEIVER, &["identity"], "receiver");
    for pin in [&right[..], &right.replace('-', "").to_uppercase()] {
        let sender = middle.hosts.push("sender", &middle.rewritten).args(&["--to", pin]).start().wait(WITHIN);
        sender.assert_code(exit::PEER).assert_one_message();
        assert_eq!(sender.finished_event()["outcome"], "identity_refused");
        assert!(sender.message().contains("Nothing was sent"), "{}", sender.message());
    }
    assert!(middle.his_receiver.is_running(), "nobody came to him");
    assert!(!String::from_utf8_lossy(&middle.his_receiver.stdout()).contains("\"started\""));
    middle.hosts.assert_nothing_loaded();
    // Not even a record of it is kept.
    assert_eq!(fs::read_dir(middle.hosts.path("sender/transfers")).map_or(0, Iterator::count), 0);
    // With the honest ticket the same pin lets it through, where he has not used it up.
    drop(middle.his_sender);
}

/// Issue 9, A1: the receiver's pin stops him, and the honest sender is still served.
#[test]
fn the_receivers_pin_stops_the_middle() {
    let middle = Middle::start(|listen, hosts| listen.args(&["--from", &hosts.fingerprint_of_sender("sender")]));
    let his_sender = middle.his_sender.wait(WITHIN);
    his_sender.assert_code(exit::PEER).assert_one_message();
    assert_eq!(his_sender.finished_event()["outcome"], "identity_refused");
    assert!(his_sender.message().contains("the ticket stays good for the right sender"), "{}", his_sender.message());
    let refused = middle.hosts.entries("receiver", "ticket.refuse");
    assert_eq!((refused.len(), refused[0]["reason"].as_str()), (1, Some("identity_refused")), "{refused:?}");
    middle.hosts.assert_nothing_loaded();
    middle.hosts.assert_serves(middle.receiver, "sender");
    let begun = middle.hosts.entries("sender", "transfer.begin");
    assert_eq!(begun[0]["receiver_trust"], "ticket", "{begun:?}");
}
