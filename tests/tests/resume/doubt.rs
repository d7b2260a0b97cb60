//! What may happen to a receiver while its loader is ending (fault E1): nothing of it makes a load
//! happen twice, and nothing but the loader's exit makes it done.

use std::{fs, thread, time::Duration};

use nix::sys::signal::Signal;
use sealift_agent::role::Role;
use sealift_tests::{agents::Agent, exit, finished::Finished, place::Place};

use super::{
    WITHIN, assert_done,
    ending::{slow_to_end, wait_until_all_is_read},
};

/// It says that nobody knows whether the loader committed, and says nothing else about the target.
#[track_caller]
pub fn assert_in_doubt(ended: &Finished) {
    ended.assert_code(exit::INTERRUPTED).assert_one_message();
    let event = ended.finished_event();
    assert_eq!((&event["outcome"], &event["resume"]), (&"in_doubt".into(), &"in_doubt".into()), "{event}");
    assert_no_claim(ended);
    assert!(ended.message().contains("is not known"), "{}", ended.message());
}

#[track_caller]
fn assert_no_claim(ended: &Finished) {
    let said = ended.message() + &ended.stderr();
    assert!(!said.contains("othing is visible"), "{said}");
}

fn abandon(place: &Place) -> Finished {
    place.run(Role::Sender, &["abandon".as_ref(), "--ticket".as_ref(), place.ticket().as_os_str()])
}

fn resolve(place: &Place, statement: &str) -> Finished {
    let [transfer] = &place.transfers("receiver")[..] else { panic!("not one transfer") };
    place.run(Role::Receiver, &["resolve", transfer, statement])
}

fn start(ends: &str) -> (Place, Agent, Agent) {
    let place = slow_to_end(ends);
    let mut receiver = place.receiver().start();
    receiver.ticket();
    let sender = place.sender().args(&["--retry-for", "2s"]).start();
    wait_until_all_is_read(&place, &mut receiver);
    (place, sender, receiver)
}

/// Hangs the first time, and ends at once after that.
const SLOW_ONCE: &str = "test -e FOLDER/once || { touch FOLDER/once; sleep 60; }";

/// A receiver that was asked twice, and a sender that has given up: the load is in doubt.
fn left_in_doubt() -> Place {
    let (place, sender, mut receiver) = start(SLOW_ONCE);
    receiver.sigint();
    receiver.wait_for_event("awaiting_loader", 1, WITHIN);
    thread::sleep(Duration::from_millis(300));
    receiver.sigint();
    let receiver = receiver.wait(WITHIN);
    assert!(receiver.assert_code(exit::USER_INTERRUPT).stderr().contains("stops at once"), "{}", receiver.stderr());
    assert_no_claim(&receiver);
    let sender = sender.wait(WITHIN);
    assert!(sender.assert_code(exit::INTERRUPTED).message().contains("may have loaded it"), "{}", sender.message());
    assert_no_claim(&sender);
    assert!(!place.target().exists(), "its loader ends with it");
    place
}

/// Issue 9, B1; fault E1, case 01: a receiver that is asked to stop while its loader is ending
/// waits for it, and the sender gets its receipt.
#[test]
fn e1_a_signal_while_the_loader_is_ending_waits_for_it() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let (place, sender, mut receiver) = start("sleep 3");
        receiver.signal(signal);
        receiver.wait_for_event("awaiting_loader", 1, WITHIN);
        assert_done(&place, sender, receiver);
    }
}

/// Issue 9, B1; fault E1: of a script nobody knows which of its commands has failed. One that ends
/// badly when it has read everything may have loaded it: nothing is loaded again.
#[test]
fn e1_a_script_that_fails_when_it_had_everything_is_in_doubt() {
    let (place, sender, receiver) = start("mv FOLDER/loading FOLDER/target/to; exit 3");
    for ended in [sender.wait(WITHIN), receiver.wait(WITHIN), place.receiver().start().wait(WITHIN)] {
        assert_in_doubt(&ended);
    }
    place.assert_same();
}

/// Issue 9, B1; fault E1: a second signal ends the process at once and leaves the load in doubt.
/// From then on nothing feeds another loader or forgets the transfer until the operator has stated
/// what the target holds; then the same commands load it, once.
#[test]
fn e1_in_doubt_until_the_operator_states_that_nothing_was_loaded() {
    let place = left_in_doubt();
    let status = place.run(Role::Receiver, &["status"]);
    let status = String::from_utf8(status.stdout()).unwrap();
    assert!(status.contains("in doubt (see `resolve`)"), "{status}");
    for _ in 0..2 {
        let again = place.receiver().start().wait(WITHIN);
        assert_in_doubt(&again);
        assert!(again.message().contains("sealift-receiver resolve"), "{}", again.message());
    }
    let refused = place.run(Role::Receiver, &["abandon", "--all"]);
    assert!(refused.assert_code(exit::INTERRUPTED).stderr().contains("is in doubt"), "{}", refused.stderr());
    assert!(!place.target().exists(), "nothing was fed again");
    let words = place.run(Role::Receiver, &["resolve", &place.transfers("receiver")[0]]);
    words.assert_code(exit::USAGE);

    resolve(&place, "--not-loaded").assert_code(exit::DONE);
    resolve(&place, "--not-loaded").assert_code(exit::USAGE);
    let audit = fs::read_to_string(place.path("receiver").join("audit.jsonl")).unwrap();
    let stated = audit.lines().find(|line| line.contains("transfer.resolve")).expect("the statement is logged");
    assert!(stated.contains("\"statement\":\"not_loaded\"") && stated.contains("\"uid\":"), "{stated}");
    let (sender, receiver) = place.start();
    assert_done(&place, sender, receiver);
}

/// Issue 9, B1: an operator who states that the load is there ends the transfer on both sides, and
/// no receipt comes of it.
#[test]
fn e1_what_the_operator_states_to_be_loaded_is_no_receipt() {
    let place = left_in_doubt();
    let stated = resolve(&place, "--loaded");
    assert!(stated.assert_code(exit::DONE).stderr().contains("There is no receipt"), "{}", stated.stderr());
    let (sender, receiver) = place.start();
    for ended in [sender.wait(WITHIN), receiver.wait(WITHIN)] {
        let event = ended.assert_code(exit::OTHER).finished_event();
        assert_eq!(
            (&event["outcome"], &event["receipt"]),
            (&"stated_loaded".into(), &serde_json::Value::Null),
            "{event}"
        );
        assert_no_claim(&ended);
    }
    assert!(!place.target().exists(), "nothing was loaded again");
    place.assert_clean(&[]);
    assert!(!place.has_receipt("sender") && !place.has_receipt("receiver"));
}

/// Faults E1, E11: a ticket that expires while the loader is ending. Its exit still counts, and in
/// doubt it is not dropped.
#[test]
fn e1_a_ticket_that_expires_while_the_loader_is_ending() {
    let place = slow_to_end("sleep 8");
    let mut receiver = place.receiver().args(&["--finish-within", "6s"]).start();
    receiver.ticket();
    let sender = place.sender().start();
    wait_until_all_is_read(&place, &mut receiver);
    receiver.wait_for_event("awaiting_loader", 1, WITHIN);
    let sender = sender.wait(WITHIN);
    assert!(sender.assert_code(exit::REFUSED).message().contains("may have loaded it"), "{}", sender.message());
    receiver.wait(WITHIN).assert_code(exit::DONE);
    place.assert_same();

    let place = slow_to_end("sleep 60");
    let mut receiver = place.receiver().args(&["--finish-within", "6s"]).start();
    receiver.ticket();
    let sender = place.sender().start();
    wait_until_all_is_read(&place, &mut receiver);
    receiver.kill9();
    let (_, _) = (receiver.wait(WITHIN), sender.wait(WITHIN));
    assert_in_doubt(&place.receiver().start().wait(WITHIN));
    assert_eq!(place.transfers("receiver").len(), 1, "expiry does not end it");
}

/// Issue 9, B1; fault E1: a sender that abandons the transfer while the loader is ending is told
/// what its exit says.
#[test]
fn e1_abandoned_by_the_sender_while_the_loader_is_ending() {
    let (place, sender, receiver) = start("sleep 3");
    sender.kill9();
    let _ = sender.wait(WITHIN);
    let told = abandon(&place);
    assert!(told.assert_code(exit::DONE).stderr().contains("had finished it"), "{}", told.stderr());
    receiver.wait(WITHIN).assert_code(exit::DONE);
    place.assert_same();

    let (place, sender, receiver) = start("sleep 3; exit 3");
    sender.kill9();
    let _ = sender.wait(WITHIN);
    let told = abandon(&place);
    assert!(!told.stderr().contains("nothing of it is left"), "{}", told.stderr());
    assert_in_doubt(&receiver.wait(WITHIN));
    assert_eq!(place.transfers("receiver").len(), 1, "it stays until its operator has looked");
}

/// Issue 9, B1, the sibling: whenever a sender abandons a transfer whose receiver is failing, it is
/// never told that the load is there.
#[test]
fn a_failing_receiver_is_not_taken_for_one_that_has_finished() {
    const RACES: u64 = 12;
    thread::scope(|scope| {
        for race in 0..RACES {
            scope.spawn(move || {
                let (place, sender, receiver) = start("sleep 0.5; exit 3");
                thread::sleep(Duration::from_millis(80 * race));
                let told = abandon(&place);
                assert!(!told.stderr().contains("had finished it"), "{}", told.stderr());
                assert!(!place.target().exists());
                let (_, receiver) = (sender.wait(WITHIN), receiver.wait(WITHIN));
                assert_ne!(receiver.code(), Some(exit::DONE));
            });
        }
    });
}
