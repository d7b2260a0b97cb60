//! Tickets of a standing receiver: what an unused one allows, another one for a transfer that was
//! suspended, and none for one that is over.

use std::{fs, path::PathBuf};

use sealift_tests::{
    agents::{Agent, Launch, RECEIVER, SENDER},
    exit,
    finished::Finished,
    port::free_udp_port,
};
use serde_json::Value;

use super::{Hosts, WITHIN, read_ticket};

struct Standing {
    hosts: Hosts,
}

impl Standing {
    fn new() -> Self {
        let hosts = Hosts::new();
        let (address, state) = (format!("127.0.0.1:{}", free_udp_port()), hosts.path("receiver"));
        let (part, whole) = (hosts.path("target/part"), hosts.path("target/to"));
        let config = format!(
            "listen = [\"{address}\"]\naddresses = [\"{address}\"]\nstate_dir = \"{}\"\ngrace = \"1s\"\n\
             [targets.ehr]\nurl = \"exec:sh -c 'cat > {1} && mv {1} {2}'\"\n",
            state.display(),
            part.display(),
            whole.display()
        );
        fs::write(hosts.path("receiver.toml"), config).unwrap();
        Self { hosts }
    }

    fn serve(&self) -> Agent {
        let launch = Launch::bare(RECEIVER, &["serve", "--json", "--config"]).arg(self.hosts.path("receiver.toml"));
        let mut receiver = launch.start();
        receiver.wait_for_event("listening", 1, WITHIN);
        receiver
    }

    fn ticket(&self, name: &str, more: &[&str]) -> (Finished, PathBuf) {
        let ticket = self.hosts.path(name);
        let launch = Launch::bare(RECEIVER, &["ticket", "--target", "ehr", "--config"]);
        let launch = launch.arg(self.hosts.path("receiver.toml")).arg("--ticket-out").arg(&ticket).args(more);
        (launch.start().wait(WITHIN), ticket)
    }

    fn status(&self) -> Vec<Value> {
        let told = self.hosts.ask(RECEIVER, &["status", "--json"], "receiver");
        serde_json::from_str::<Value>(&told).unwrap()["transfers"].as_array().unwrap().clone()
    }
}

/// Issue 9, A3: unused tickets are listed with what they allow, and an operator who abandons one
/// voids it.
#[test]
fn unused_tickets_are_listed_and_can_be_voided() {
    let standing = Standing::new();
    let receiver = standing.serve();
    let (made, ticket) = standing.ticket("a.ticket", &["--purpose", "CHG-1", "--valid-for", "10m"]);
    made.assert_code(exit::DONE);
    let transfer = read_ticket(&ticket).grant.grant.transfer.to_string();
    let status = standing.status();
    assert_eq!(status.len(), 1);
    for (field, value) in
        [("stage", "ticket_unused"), ("target_name", "ehr"), ("purpose", "CHG-1"), ("transfer", &transfer)]
    {
        assert_eq!(status[0][field], value, "{status:?}");
    }
    assert!((1..=600).contains(&status[0]["valid_seconds"].as_u64().unwrap()), "{status:?}");
    let words = standing.hosts.ask(RECEIVER, &["status"], "receiver");
    assert!(words.contains("ticket unused") && words.contains("good for"), "{words}");
    standing.hosts.ask(RECEIVER, &["abandon", &transfer], "receiver");
    let void = standing.hosts.push("sender", &ticket).start().wait(WITHIN);
    assert_eq!(void.assert_code(exit::REFUSED).finished_event()["outcome"], "ticket_unknown");
    assert_eq!(standing.status().len(), 0);
    super::stop(receiver);
}

/// Issue 9, A5: what `finish before` has suspended goes on under another ticket for the same
/// transfer, for the sender that had begun and for no other; there is none for a transfer that is
/// not there.
#[test]
fn a_suspended_transfer_goes_on_with_another_ticket() {
    let standing = Standing::new();
    let hosts = &standing.hosts;
    let mut receiver = standing.serve();
    let (made, first) = standing.ticket("first.ticket", &["--valid-for", "5s", "--finish-within", "5s"]);
    made.assert_code(exit::DONE);
    let transfer = read_ticket(&first).grant.grant.transfer.to_string();
    let source = format!(
        "exec:sh -c 'until test -e {}; do sleep 0.05; done; cat {}'",
        hosts.path("go").display(),
        hosts.path("source").display()
    );
    let push = |state: &str, ticket: &PathBuf| Launch::sender(&source, ticket).state(&hosts.path(state)).json();
    let sender = push("sender", &first).start();
    receiver.wait_for_event("started", 1, WITHIN);
    let sender = sender.wait(WITHIN);
    sender.assert_code(exit::REFUSED).assert_one_message();
    assert_eq!(sender.finished_event()["outcome"], "grant_expired");
    receiver.wait_for_event("ended", 1, WITHIN);
    assert_eq!(standing.status()[0]["transfer"], transfer.as_str());
    assert!(!hosts.path("target/to").exists());
    // The first ticket is of no use to any sender any more.
    for state in ["sender", "other"] {
        push(state, &first).start().wait(WITHIN).assert_code(exit::REFUSED);
    }
    let (none, _) = standing.ticket("none.ticket", &["--transfer", &"9".repeat(transfer.len())]);
    none.assert_code(exit::USAGE).assert_one_message();
    let (made, second) = standing.ticket("second.ticket", &["--transfer", &transfer]);
    made.assert_code(exit::DONE);
    let ticket = read_ticket(&second);
    assert_eq!((ticket.grant.grant.transfer.to_string(), ticket.secret.is_none()), (transfer.clone(), true));
    let other = push("other", &second).start().wait(WITHIN);
    assert_eq!(other.assert_code(exit::REFUSED).finished_event()["outcome"], "ticket_bound");
    fs::write(hosts.path("go"), "").unwrap();
    push("sender", &second).start().wait(WITHIN).assert_code(exit::DONE);
    hosts.assert_loaded();
    receiver.wait_for_event("ended", 2, WITHIN);
    let (over, _) = standing.ticket("over.ticket", &["--transfer", &transfer]);
    over.assert_code(exit::USAGE).assert_one_message();
    let used = Launch::bare(SENDER, &["push", "--source", &source, "--ticket"]).arg(&second);
    used.arg("--state-dir").arg(hosts.path("other")).start().wait(WITHIN).assert_code(exit::REFUSED);
    super::stop(receiver);
}
