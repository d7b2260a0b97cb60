//! What a spool is used for, what it says, and what becomes of it.

use sealift_agent::role::Role;
use sealift_tests::canary::Canaries;
use serde_json::Value;

use super::*;

#[test]
fn nothing_is_left_of_a_spool_that_was_not_needed() {
    let place = place(3);
    let (sender, receiver) = place.start();
    let (sender, _) = assert_done(&place, sender, receiver, None);
    let events = sender.events();
    let notice = events.iter().find(|event| event["event"] == "notice").expect("a notice");
    assert!(notice["what"].as_str().unwrap().contains("is spooled"), "{notice}");
    assert_eq!(sender.number("resent_bytes"), 0);
    assert_eq!(sender.count("spooled"), 1);
}

#[test]
fn an_empty_source_is_spooled() {
    let place = place(0);
    let mut receiver = place.receiver().start();
    receiver.ticket();
    assert_done(&place, place.sender().arg("--allow-empty").start(), receiver, None);
}

/// A program that fails at its end has ended, and has not succeeded: nothing of it is loaded.
#[test]
fn a_source_that_fails_is_not_spooled_to_its_end() {
    let mut place = place(2);
    place.source_url = format!("exec:sh -c 'cat {}; exit 3'", place.source().display());
    let (sender, receiver) = place.start();
    sender.wait(WITHIN).assert_code(exit::UNUSABLE).assert_one_message();
    receiver.wait(WITHIN).assert_code(exit::UNUSABLE);
    place.assert_clean(&[]);
}

/// Said before anything is begun, and with the reason; what was begun without is not lost by it.
#[test]
fn a_source_that_can_be_read_again_needs_no_spool() {
    for kind in [Kind::File(MIB), Kind::Sqlite(20)] {
        let place = Place::new(kind, Faults::default(), 1);
        let (sender, receiver) = place.start();
        let refused = place.sender().arg("--spool").arg(place.spool()).start().wait(WITHIN);
        refused.assert_code(exit::USAGE).assert_one_message();
        assert!(refused.message().contains("read only once"), "{}", refused.message());
        assert_done(&place, sender, receiver, None);
    }
}

#[test]
fn without_one_it_is_named() {
    let place = Place::new(Kind::Program(MIB), Faults::default(), 1);
    let (sender, receiver) = place.start();
    let (sender, _) = assert_done(&place, sender, receiver, None);
    let events = sender.events();
    let notice = events.iter().find(|event| event["event"] == "notice").expect("a notice");
    assert!(notice["what"].as_str().unwrap().contains("--spool DIR"), "{notice}");
}

/// All of it was sent without a spool: with one, nothing is read for it.
#[test]
fn a_receipt_that_is_missing_is_fetched_without_a_spool() {
    let place = Place::new(Kind::Program(MIB), Faults::default(), 1);
    let mut receiver = place.receiver().start();
    receiver.ticket();
    let sender = place.sender().env("SEALIFT_FAIL_POINT", "receipt-checked").start();
    let _ = sender.wait(WITHIN);
    let sender = place.sender().arg("--spool").arg(place.spool()).start();
    sender.wait(WITHIN).assert_code(exit::DONE);
    receiver.wait(WITHIN).assert_code(exit::DONE);
    place.assert_done();
}

/// Fault L9: what lies in the spool is sealed, and nothing that opens it lies beside it.
#[test]
fn l9_a_spool_holds_no_plaintext() {
    let mut canaries = Canaries::new("spool");
    let place = place(6);
    let line = format!("{}\n", canaries.text());
    let text = line.repeat(6 * MIB / line.len());
    fs::write(place.source(), text).unwrap();
    let mut receiver = place.receiver().start();
    receiver.ticket();
    let mut sender = place.sender().args(&["--compression", "off"]).start();
    sender.wait_for_event("spooled", 1, WITHIN);
    place.wait_until_passed(&mut sender, 1 << 20);
    kill(sender);
    let file = spool_file(&place);
    assert!(fs::metadata(&file).unwrap().len() > 6 * MIB as u64 - line.len() as u64);
    assert_eq!(canaries.found_in(&fs::read(&file).unwrap()), Vec::<String>::new());
    for entry in fs::read_dir(place.path("sender/transfers").join(&place.transfers("sender")[0])).unwrap() {
        assert_eq!(canaries.found_in(&fs::read(entry.unwrap().path()).unwrap()), Vec::<String>::new());
    }
    assert_done(&place, place.sender().args(&["--compression", "off"]).start(), receiver, Some("resumed"));
}

#[test]
fn status_tells_of_it_and_abandon_removes_it() {
    let (place, receiver) = left(6);
    let file = spool_file(&place);
    let status = place.run(Role::Sender, &["status", "--json"]);
    let status: Value = serde_json::from_slice(&status.assert_code(exit::DONE).stdout()).unwrap();
    let told = &status["transfers"][0];
    assert_eq!(told["spool"].as_str(), file.parent().unwrap().to_str());
    assert!(told["held_bytes"].as_u64().unwrap() > 6 * MIB as u64, "{told}");
    let status = place.run(Role::Sender, &["status"]);
    assert!(String::from_utf8_lossy(&status.stdout()).contains("spooled in"));
    place.run(Role::Sender, &["abandon", "--all"]).assert_code(exit::DONE);
    kill(receiver);
    place.run(Role::Receiver, &["abandon", "--all"]).assert_code(exit::DONE);
    place.assert_clean(&[]);
}

/// With its ticket: on both sides.
#[test]
fn abandoned_by_its_ticket() {
    let (place, receiver) = left(6);
    let ticket = place.ticket();
    place.run(Role::Sender, &["abandon", "--ticket", ticket.to_str().unwrap()]).assert_code(exit::DONE);
    let _ = receiver.wait(WITHIN);
    place.assert_clean(&[]);
}

/// Nobody has resumed it while it was kept: the next command removes what it left.
#[test]
fn n6_an_expired_spool_is_removed() {
    let place = place(6);
    let mut receiver = place.receiver().args(&["--finish-within", "6s", "--keep-for", "1s"]).start();
    receiver.ticket();
    let mut sender = place.sender().start();
    sender.wait_for_event("spooled", 1, WITHIN);
    kill(sender);
    receiver.wait(WITHIN).assert_code(exit::REFUSED);
    assert!(spool_file(&place).exists());
    std::thread::sleep(Duration::from_secs(2));
    place.sender().start().wait(WITHIN).assert_code(exit::REFUSED);
    assert!(std::fs::read_dir(place.spool()).unwrap().next().is_none());
}
