//! Many agents at once with one state directory (fault E8): all work, and none removes what another
//! has made.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use sealift_tests::{
    agents::{Agent, Launch, RECEIVER, SENDER},
    exit,
    port::free_udp_port,
};
use serde_json::Value;
use tempfile::TempDir;

const WITHIN: Duration = Duration::from_secs(120);

const SENDERS: usize = 12;
const ROUNDS: usize = 4;

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("sealift-data-").tempdir().unwrap()
}

/// Tickets of a standing receiver that does not run: who uses one finds nobody, and has begun
/// nothing.
fn tickets(folder: &Path) -> Vec<PathBuf> {
    let config = folder.join("receiver.toml");
    let (state, port) = (folder.join("standing"), free_udp_port());
    let text = format!(
        "state_dir = \"{}\"\nlisten = [\"127.0.0.1:{port}\"]\n[targets.drill]\nurl = \"discard:\"\n",
        state.display()
    );
    fs::write(&config, text).unwrap();
    let issue = |number: usize| {
        let ticket = folder.join(format!("ticket-{number}"));
        let launch = Launch::bare(RECEIVER, &["ticket", "--target", "drill", "--config"]).arg(&config);
        (launch.arg("--ticket-out").arg(&ticket).start(), ticket)
    };
    // At once: the first makes the authority, the others wait for it.
    let issued: Vec<_> = (0..SENDERS).map(issue).collect();
    let whole = issued.into_iter().map(|(agent, ticket)| {
        agent.wait(WITHIN).assert_code(exit::DONE);
        ticket
    });
    whole.collect()
}

/// The entries of an audit log, each of which follows the one before it.
fn chain(log: &Path) -> Vec<Value> {
    let text = fs::read_to_string(log).unwrap();
    let entries: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut prev = "0".repeat(64);
    for (seq, (entry, line)) in entries.iter().zip(text.lines()).enumerate() {
        assert_eq!((entry["seq"].as_u64(), entry["prev"].as_str()), (Some(seq as u64), Some(prev.as_str())), "{line}");
        prev = blake3::hash(line.as_bytes()).to_string();
    }
    entries
}

/// Issue 9, C6; fault E8: senders that begin and end, beside such as clean up, and such as only
/// look.
#[test]
fn senders_that_start_at_once_do_not_disturb_each_other() {
    let folder = folder();
    let tickets = tickets(folder.path());
    let state = folder.path().join("state");
    for _ in 0..ROUNDS {
        let mut running: Vec<(Agent, i32)> = Vec::new();
        for ticket in &tickets {
            let push = |ticket: &Path| Launch::sender("exec:echo row", ticket).state(&state).start();
            let status = Launch::bare(SENDER, &["status", "--state-dir"]).arg(&state).start();
            running.push((push(ticket), exit::PEER));
            running.push((push(&folder.path().join("no-ticket")), exit::USAGE));
            running.push((status, exit::DONE));
        }
        for (agent, code) in running {
            agent.wait(WITHIN).assert_code(code);
        }
    }
    assert_eq!(fs::read_dir(state.join("transfers")).unwrap().count(), 0);
    let entries = chain(&state.join("audit.jsonl"));
    let of = |event: &str| entries.iter().filter(|entry| entry["event"] == event).count();
    assert_eq!((of("transfer.begin"), of("transfer.end")), (SENDERS * ROUNDS, SENDERS * ROUNDS));
}

/// Issue 9, C6; fault E8: whole transfers, whose senders share a state directory, as their
/// receivers do.
#[test]
fn transfers_that_run_at_once_share_a_state_directory() {
    let folder = folder();
    let state = |side: &str| folder.path().join(side);
    let listen = |_| Launch::receiver("discard:").bind_loopback().state(&state("receiver")).start();
    let mut receivers: Vec<Agent> = (0..SENDERS / 2).map(listen).collect();
    let tickets: Vec<PathBuf> = receivers.iter_mut().map(Agent::ticket).collect();
    let push = |ticket: &PathBuf| Launch::sender("exec:echo row", ticket).state(&state("sender")).start();
    let senders: Vec<Agent> = tickets.iter().map(push).collect();
    for agent in senders.into_iter().chain(receivers) {
        agent.wait(WITHIN).assert_code(exit::DONE);
    }
    for side in ["sender", "receiver"] {
        assert_eq!(fs::read_dir(state(side).join("transfers")).unwrap().count(), 0, "{side}");
        assert_eq!(fs::read_dir(state(side).join("receipts")).unwrap().count(), SENDERS / 2, "{side}");
        let entries = chain(&state(side).join("audit.jsonl"));
        let ended: BTreeSet<_> = entries
            .iter()
            .filter(|entry| entry["event"] == "transfer.end")
            .collect::<Vec<_>>()
            .into_iter()
            .filter_map(|entry| entry["transfer"].as_str())
            .collect();
        assert_eq!(ended.len(), SENDERS / 2, "{side}");
    }
}
