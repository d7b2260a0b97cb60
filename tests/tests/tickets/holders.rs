//! More than one holder of a ticket, and a receiver that is killed while it binds one.

use std::{fs, os::unix::fs::DirBuilderExt};

use nix::sys::signal::Signal;
use sealift_agent::fail_point::Point;
use sealift_tests::{
    agents::{Launch, SENDER},
    exit,
};

use super::{Hosts, WITHIN, read_ticket};

/// Issue 9, A1, A3: a second holder of a used ticket is shown which sender it is bound to, is
/// entered once, and neither takes, nor disturbs, nor ends the transfer, which waits for nothing
/// but its source meanwhile.
#[test]
fn a_second_holder_is_refused_and_ends_nothing() {
    let hosts = Hosts::new();
    let mut receiver = hosts.listen().start();
    let ticket = receiver.ticket();
    let source = format!(
        "exec:sh -c 'until test -e {}; do sleep 0.05; done; cat {}'",
        hosts.path("go").display(),
        hosts.path("source").display()
    );
    let sender = Launch::sender(&source, &ticket).state(&hosts.path("sender")).json().start();
    receiver.wait_for_event("started", 1, WITHIN);
    let bound = hosts.fingerprint_of_sender("sender");
    for _ in 0..3 {
        let second = hosts.push("other", &ticket).start().wait(WITHIN);
        second.assert_code(exit::REFUSED).assert_one_message();
        assert_eq!(second.finished_event()["outcome"], "ticket_bound");
        assert!(second.message().contains(&bound), "{}", second.message());
        let words = ["abandon", "--ticket", ticket.to_str().unwrap()];
        let abandon = Launch::bare(SENDER, &words).arg("--state-dir").arg(hosts.path("other")).start().wait(WITHIN);
        abandon.assert_code(exit::REFUSED).assert_one_message();
        assert!(abandon.stderr().contains(&bound), "{}", abandon.stderr());
    }
    let refused = hosts.entries("receiver", "ticket.refuse");
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!((refused[0]["reason"].as_str(), refused[0]["bound"].as_str()), (Some("ticket_bound"), Some(&bound[..])));
    assert_eq!(refused[0]["sender"], hosts.fingerprint_of_sender("other").as_str());
    fs::write(hosts.path("go"), "").unwrap();
    let sender = sender.wait(WITHIN);
    sender.assert_code(exit::DONE);
    assert_eq!(sender.number("retries"), 0);
    receiver.wait(WITHIN).assert_code(exit::DONE);
    hosts.assert_loaded();
    // When it is over, the ticket is worth nothing to the one or the other.
    hosts.push("sender", &ticket).start().wait(WITHIN).assert_code(exit::REFUSED);
}

/// Issue 9, A1: killed between the durable binding and the destruction of the secret, a receiver
/// knows the one sender when it starts again, and the secret goes with the first that comes.
#[test]
fn a_receiver_that_is_killed_while_it_binds_a_ticket_has_bound_it() {
    let hosts = Hosts::new();
    let mut receiver = hosts.listen().env("SEALIFT_FAIL_POINT", Point::TicketBound.name()).start();
    let copy = hosts.path("copy");
    fs::rename(receiver.ticket(), &copy).unwrap();
    let transfer = read_ticket(&copy).grant.grant.transfer;
    let sender = hosts.push("sender", &copy).args(&["--retry-for", "0s"]).start();
    assert_eq!(receiver.wait(WITHIN).killed_by(), Some(Signal::SIGKILL as i32));
    let sender = sender.wait(WITHIN);
    assert!(matches!(sender.code(), Some(exit::INTERRUPTED | exit::PEER)), "{}", sender.message());
    assert!(hosts.has(transfer, "ticket-secret") && hosts.has(transfer, "ticket-sender"));

    let mut receiver = hosts.listen().start();
    assert!(read_ticket(&receiver.ticket()).secret.is_none(), "a ticket that is bound holds no secret");
    assert!(!hosts.has(transfer, "ticket-secret"), "the secret outlived the restart");
    let mut copied = read_ticket(&copy);
    copied.addresses = read_ticket(&receiver.ticket()).addresses;
    let copy = super::put_ticket(hosts.folder.path(), "copy", &copied);
    let second = hosts.push("other", &copy).start().wait(WITHIN);
    assert_eq!(second.assert_code(exit::REFUSED).finished_event()["outcome"], "ticket_bound");
    hosts.assert_serves(receiver, "sender");
}

/// Issue 9, A3: what an unused ticket allows: its holder can run the transfer, or end it.
#[test]
fn an_unused_ticket_that_is_abandoned_is_void() {
    let hosts = Hosts::new();
    let mut receiver = hosts.listen().start();
    let ticket = receiver.ticket();
    let words = ["abandon", "--ticket", ticket.to_str().unwrap()];
    let abandon = Launch::bare(SENDER, &words).arg("--state-dir").arg(hosts.path("sender")).start().wait(WITHIN);
    assert!(abandon.assert_code(exit::DONE).stderr().contains("abandoned on both sides"), "{}", abandon.stderr());
    let ended = receiver.wait(WITHIN);
    assert_eq!(ended.assert_code(exit::INTERRUPTED).finished_event()["outcome"], "abandoned");
    assert_eq!(fs::read_dir(hosts.path("receiver/transfers")).unwrap().count(), 0);
    assert_eq!(hosts.entries("receiver", "ticket.bind").len(), 1, "who ended it is on record");
}

/// Two agents that start at once in a state directory that nothing is in yet are one agent.
#[test]
fn agents_that_start_at_once_have_one_identity() {
    let hosts = Hosts::new();
    for round in 0..4 {
        let state = hosts.path(&format!("fresh-{round}"));
        fs::DirBuilder::new().mode(0o700).create(&state).unwrap();
        let ask = || Launch::bare(SENDER, &["identity", "--state-dir"]).arg(&state).start();
        let asked: Vec<_> = (0..6).map(|_| ask()).collect();
        let mut told: Vec<_> = asked
            .into_iter()
            .map(|agent| agent.wait(WITHIN))
            .map(|f| {
                f.assert_code(exit::DONE);
                f.stdout()
            })
            .collect();
        told.dedup();
        assert_eq!(told.len(), 1, "identities");
        assert_eq!(hosts.entries(&format!("fresh-{round}"), "identity.make").len(), 1);
    }
}
