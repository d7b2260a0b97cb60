//! `status` and `abandon`, of a `listen` as of a standing receiver.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;
use sealift_tests::{
    agents::{Agent, Launch, RECEIVER, SENDER},
    exit,
    link::Direction,
};

use crate::{
    FAR_BYTES,
    place::{Place, WITHIN, events, url, wait_for_events, wait_for_progress},
    slow_down, speed_up, stop,
};

/// `listen` behind the slow link, with a state directory that outlives it, and a sender that has
/// begun.
struct Begun {
    place: Place,
    receiver: Agent,
    sender: Agent,
    ticket: PathBuf,
    transfer: String,
}

impl Begun {
    fn new(finish_within: &str) -> Self {
        let place = Place::new("", &[("drill", "discard:")]);
        slow_down(&place);
        let target = url(&place.path("target").join("ehr.db"));
        let ticket = place.path("listen.ticket");
        let mut receiver = listen(&place, &target, &ticket, finish_within);
        wait_for_events(&mut receiver, "listening", 1);
        let sender = place.push(&url(&place.database("ehr")), &ticket);
        wait_for_progress(&mut receiver, 1, FAR_BYTES);
        // The rest takes longer than anything that is tried meanwhile.
        place.link.change(Direction::ToReceiver, |faults| faults.bits_per_second = Some(64_000));
        let transfer = events(&receiver, "started")[0]["transfer"].as_str().unwrap().to_owned();
        Self { place, receiver, sender, ticket, transfer }
    }
}

fn listen(place: &Place, target: &str, ticket: &Path, finish_within: &str) -> Agent {
    let (bind, address) = (format!("127.0.0.1:{}", place.port()), place.link.address().to_string());
    let words = ["listen", "--json", "--target", target, "--bind", &bind, "--address", &address];
    let launch = Launch::bare(RECEIVER, &words).args(&[
        "--finish-within",
        finish_within,
        "--keep-for",
        "1s",
        "--purpose",
        "CHG-1",
    ]);
    launch.arg("--ticket-out").arg(ticket).arg("--state-dir").arg(place.state_dir()).start()
}

/// Who ended transfers here, in the log of this state directory: `by`, and the sender's
/// fingerprint.
fn abandoned_by(state: &Path) -> Vec<(String, Option<String>)> {
    let text = fs::read_to_string(state.join("audit.jsonl")).unwrap();
    let entries = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let word = |field: &serde_json::Value| field.as_str().map(str::to_owned);
    entries
        .filter(|entry| entry["event"] == "transfer.abandon")
        .map(|entry| (word(&entry["by"]).unwrap(), word(&entry["sender"])))
        .collect()
}

fn by_the_operator() -> (String, Option<String>) {
    ("operator".into(), None)
}

fn kill(agent: Agent) {
    agent.kill9();
    assert_eq!(agent.wait(WITHIN).killed_by(), Some(Signal::SIGKILL as i32));
}

#[test]
fn each_side_alone() {
    let Begun { place, receiver, sender, transfer, .. } = Begun::new("10m");
    // While it runs: told so, and not ended.
    for program in [RECEIVER, SENDER] {
        let status = place.status(program);
        assert_eq!((status.len(), status[0]["running"].as_bool()), (1, Some(true)), "{status:?}");
        let refused = place.run(program, &["abandon", &transfer]);
        assert!(refused.assert_code(exit::REFUSED).stderr().contains("Stop that first"), "{}", refused.stderr());
    }
    kill(sender);
    kill(receiver);
    let words = String::from_utf8(place.run(RECEIVER, &["status"]).assert_code(0).stdout()).unwrap();
    for expected in [transfer.as_str(), "ehr.db", "loading", "not running", "1 connection;", "holds", "good for"] {
        assert!(words.contains(expected), "no {expected} in: {words}");
    }
    let status = &place.status(RECEIVER)[0];
    assert_eq!((&status["purpose"], &status["transfer"]), (&"CHG-1".into(), &transfer.as_str().into()));
    assert!(status["staged_bytes"].as_u64() > Some(0), "{status}");
    let words = String::from_utf8(place.run(SENDER, &["status"]).assert_code(0).stdout()).unwrap();
    assert!(words.contains(&transfer) && words.contains("begun, not running"), "{words}");

    assert_ne!(place.files("target"), Vec::<String>::new());
    let here_alone = place.run(SENDER, &["abandon", &transfer]);
    assert!(here_alone.assert_code(0).stderr().contains("here alone"), "{}", here_alone.stderr());
    place.run(RECEIVER, &["abandon", &transfer]).assert_code(0);
    place.assert_nothing_left(&[]);
    for program in [RECEIVER, SENDER] {
        let again = place.run(program, &["abandon", &transfer]);
        again.assert_code(exit::USAGE).assert_one_message();
        assert!(again.stderr().contains("nothing is kept of the transfer"), "{}", again.stderr());
        place.run(program, &["abandon", "--all"]).assert_code(0);
        place.run(program, &["abandon", "ehr"]).assert_code(exit::USAGE);
        assert_eq!(place.run(program, &["status"]).assert_code(0).stdout(), b"nothing unfinished\n");
    }
    // Issue 9, A6: each side has it that its own operator did so.
    for state in [place.state_dir(), place.sender_state()] {
        assert_eq!(abandoned_by(&state), [by_the_operator()]);
    }
}

/// With its ticket, the sender ends both sides, whether the receiver still believes in the
/// connection or waits. Issue 9, A6: the receiver's log says which sender did.
#[test]
fn by_the_sender_on_both_sides() {
    for waits in [false, true] {
        let Begun { place, mut receiver, sender, ticket, .. } = Begun::new("10m");
        kill(sender);
        if waits {
            wait_for_events(&mut receiver, "link_down", 1);
        }
        speed_up(&place);
        let told = place.run(SENDER, &["abandon", "--ticket", ticket.to_str().unwrap()]);
        assert!(told.assert_code(0).stderr().contains("abandoned on both sides"), "{}", told.stderr());
        let ended = receiver.wait(WITHIN);
        assert_eq!(ended.assert_code(exit::INTERRUPTED).finished_event()["outcome"], "abandoned");
        place.assert_nothing_left(&[]);
        let identity = place.run(SENDER, &["identity"]).assert_code(0).stdout();
        let fingerprint = String::from_utf8(identity).unwrap().trim().to_owned();
        assert_eq!(abandoned_by(&place.state_dir()), [("sender".into(), Some(fingerprint))]);
        assert_eq!(abandoned_by(&place.sender_state()), [by_the_operator()]);
    }
}

/// Issue 9, D1: what is done is called done, with its receipt, and not forgotten or unknown.
#[test]
fn what_is_done_is_not_abandoned() {
    let place = Place::new("", &[("drill", "discard:")]);
    let receiver = place.serve();
    let (dump, ticket) = (format!("file:{}", place.dump("dump").display()), place.ticket("drill"));
    let done = place.push(&dump, &ticket).wait(WITHIN);
    let transfer = done.assert_code(exit::DONE).finished_event()["transfer"].as_str().unwrap().to_owned();
    stop(receiver);
    let told = place.run(SENDER, &["abandon", "--ticket", ticket.to_str().unwrap()]);
    assert!(told.assert_code(exit::DONE).stderr().contains(&format!("{transfer}.receipt")), "{}", told.stderr());
    for program in [SENDER, RECEIVER] {
        let told = place.run(program, &["abandon", &transfer]);
        told.assert_code(exit::USAGE).assert_one_message();
        assert!(told.message().contains("is done") && told.message().contains(".receipt"), "{}", told.message());
    }
}

#[test]
fn by_the_sender_when_nobody_answers() {
    let Begun { place, receiver, sender, ticket, transfer } = Begun::new("10m");
    kill(sender);
    kill(receiver);
    let told = place.run(SENDER, &["abandon", "--ticket", ticket.to_str().unwrap()]);
    told.assert_code(exit::PEER).assert_one_message();
    assert!(told.stderr().contains(&format!("sealift-receiver abandon {transfer}")), "{}", told.stderr());
    assert_eq!(place.status(SENDER).len(), 0);
    assert_eq!(place.status(RECEIVER).len(), 1);
    place.run(RECEIVER, &["abandon", "--all"]).assert_code(0);
    place.assert_nothing_left(&[]);
}

/// At a standing receiver: one that runs, one that was suspended, and one that has not begun.
#[test]
fn by_the_sender_at_a_service() {
    let place = Place::new("grace = \"2s\"", &[("ehr", "sqlite:{}/ehr.db")]);
    let source = url(&place.database("ehr"));
    let mut receiver = place.serve();
    for (round, put_down) in [(1, false), (2, true)] {
        slow_down(&place);
        let ticket = place.ticket("ehr");
        let sender = place.push(&source, &ticket);
        wait_for_events(&mut receiver, "started", round);
        let of_this = |event: &serde_json::Value, started: &serde_json::Value| {
            event["transfer"] == started["transfer"] && event["plain_bytes"].as_u64() > Some(FAR_BYTES)
        };
        receiver.wait_for("progress", WITHIN, |receiver| {
            let started = events(receiver, "started").pop().unwrap();
            events(receiver, "progress").iter().any(|event| of_this(event, &started))
        });
        kill(sender);
        if put_down {
            wait_for_events(&mut receiver, "ended", round);
            assert_eq!(place.status(RECEIVER)[0]["running"], false);
        }
        speed_up(&place);
        let told = place.run(SENDER, &["abandon", "--ticket", ticket.to_str().unwrap()]);
        assert!(told.assert_code(0).stderr().contains("abandoned on both sides"), "{}", told.stderr());
        place.assert_nothing_left(&[]);
        let used = place.push(&source, &ticket).wait(WITHIN);
        assert_eq!(used.assert_code(exit::REFUSED).finished_event()["outcome"], "ticket_unknown");
        wait_for_events(&mut receiver, "ended", round);
    }
    let unused = place.ticket("ehr");
    place.run(SENDER, &["abandon", "--ticket", unused.to_str().unwrap()]).assert_code(0);
    let refused = place.push(&source, &unused).wait(WITHIN);
    assert_eq!(refused.assert_code(exit::REFUSED).finished_event()["outcome"], "ticket_unknown");
    stop(receiver);
}

/// A transfer that nobody has resumed while it was kept is dropped by the process that starts next,
/// staging included.
#[test]
fn an_expired_one_leaves_no_staging() {
    let Begun { place, receiver, sender, .. } = Begun::new("8s");
    kill(sender);
    kill(receiver);
    assert_ne!(place.files("target"), Vec::<String>::new());
    thread::sleep(Duration::from_secs(10));
    let status = place.run(RECEIVER, &["status"]);
    assert!(String::from_utf8(status.stdout()).unwrap().contains("ticket expired"));
    let receiver = place.serve();
    assert_eq!(place.files("receiver/transfers"), Vec::<String>::new());
    assert_eq!(place.files("target"), Vec::<String>::new());
    stop(receiver);
    let audit = fs::read_to_string(place.state_dir().join("audit.jsonl")).unwrap();
    assert_eq!(audit.matches("\"transfer.expire\"").count(), 1);
}
