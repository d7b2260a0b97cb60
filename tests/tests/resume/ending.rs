//! Interrupted when everything was sent: only the receipt is missing (fault N12).

use std::{fs, thread, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sealift_agent::role::Role;
use sealift_tests::{
    agents::Agent,
    exit,
    link::Faults,
    memory::children,
    place::{Kind, Place},
};

use super::{MIB, OUTAGE, WITHIN, assert_done, assert_resumed};

/// A transfer whose loader has read everything and takes a while to end.
fn until_all_is_read(seconds: u32) -> (Place, Agent, Agent) {
    let place = slow_to_end(&format!("sleep {seconds}"));
    let (sender, mut receiver) = place.start();
    wait_until_all_is_read(&place, &mut receiver);
    (place, sender, receiver)
}

/// A transfer into a loader that runs `ends` once it has read everything, before it commits.
/// `FOLDER` is the place's own.
pub fn slow_to_end(ends: &str) -> Place {
    let mut place = Place::new(Kind::Loader(MIB), Faults::default(), 1);
    let (loading, read, target) = (place.path("loading"), place.path("read"), place.target());
    let ends = ends.replace("FOLDER", &place.path("").display().to_string());
    place.target_url = format!(
        "exec:sh -c 'cat >{0}; touch {1}; {ends}; mv {0} {2}'",
        loading.display(),
        read.display(),
        target.display()
    );
    place
}

/// The loader has seen the end of its input, and does not end yet.
pub fn wait_until_all_is_read(place: &Place, receiver: &mut Agent) {
    let read = place.path("read");
    receiver.wait_for("the loader has all", WITHIN, |_| read.exists());
}

#[test]
fn n12_link_lost_before_the_receipt() {
    let (place, sender, receiver) = until_all_is_read(5);
    place.link.cut();
    thread::sleep(OUTAGE);
    place.link.heal();
    let (sender, _) = assert_resumed(&place, sender, receiver);
    assert_eq!(sender.number("resent_bytes"), 0);
}

/// The sender is killed as well. Started again it does not even look at its source.
#[test]
fn n12_c1_sender_killed_before_the_receipt() {
    let (place, sender, receiver) = until_all_is_read(3);
    sender.kill9();
    let elsewhere = place.path("elsewhere");
    fs::rename(place.source(), &elsewhere).unwrap();
    let sender = place.sender().start().wait(WITHIN);
    sender.assert_code(exit::DONE);
    receiver.wait(WITHIN).assert_code(exit::DONE);
    fs::rename(elsewhere, place.source()).unwrap();
    assert_eq!(sender.resume().as_deref(), Some("resumed"));
    assert_eq!(sender.number("sealed_bytes"), 0);
    place.assert_done();
}

/// Fault C3: killed when it had everything, a loader may have committed. It is not fed again: a
/// person looks.
#[test]
fn c3_loader_killed_when_it_had_everything() {
    let (place, sender, receiver) = until_all_is_read(30);
    for pid in children(receiver.pid()) {
        let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
    }
    let (sender, receiver) = (sender.wait(WITHIN), receiver.wait(WITHIN));
    let again = place.receiver().start().wait(WITHIN);
    for ended in [&receiver, &again] {
        assert!(ended.message().contains("sealift-receiver resolve"), "{}", ended.message());
    }
    for ended in [sender, receiver, again] {
        super::doubt::assert_in_doubt(&ended);
    }
    assert!(!place.target().exists());
}

/// Fault C13: killed with the receipt, before it had cleaned up, a sender that continues with
/// another ticket clears that up, too.
#[test]
fn c13_what_a_finished_transfer_left_goes_with_the_next() {
    let place = Place::new(Kind::Loader(MIB), Faults::default(), 5);
    let mut receiver = place.receiver().start();
    receiver.ticket();
    let sender = place.sender().env("SEALIFT_FAIL_POINT", "receipt-delivered").start().wait(WITHIN);
    assert_eq!(sender.killed_by(), Some(9), "{}", sender.message());
    receiver.wait(WITHIN).assert_code(exit::DONE);
    assert_eq!(place.transfers("sender").len(), 1);
    let status = place.run(Role::Sender, &["status"]);
    let said = String::from_utf8(status.stdout()).unwrap();
    assert!(said.contains("done, the receipt is here"), "{said}{}", status.stderr());
    fs::remove_file(place.ticket()).unwrap();
    fs::remove_file(place.target()).unwrap();
    let (sender, receiver) = place.start();
    assert_done(&place, sender, receiver);
}

/// A loader that ends well before it has had everything may have committed what it had: nothing is
/// fed to another, and nobody is told that all of it, or nothing, is in the target. Issue 9, B1;
/// fault E1.
#[test]
fn a_loader_that_ended_early_is_not_fed_again() {
    let mut place = Place::new(Kind::Loader(4 * MIB), Faults::default(), 6);
    place.target_url = "exec:head -c 100000".into();
    let (sender, receiver) = place.start();
    let (sender, receiver) = (sender.wait(WITHIN), receiver.wait(WITHIN));
    let again = place.receiver().start().wait(WITHIN);
    for ended in [&receiver, &again] {
        assert!(ended.message().contains("may leave a part"), "{}", ended.message());
    }
    for ended in [sender, receiver, again] {
        super::doubt::assert_in_doubt(&ended);
    }
    // No receiver is there to say so again.
    let alone = place.sender().args(&["--retry-for", "0s"]).start().wait(WITHIN);
    alone.assert_code(exit::INTERRUPTED);
    assert!(!alone.message().contains("Nothing is visible"), "{}", alone.message());
}

/// A receiver with which everything is loaded waits for the sender to fetch the receipt, and then
/// ends well without it.
#[test]
fn a_sender_that_never_comes_for_the_receipt_changes_nothing() {
    let (place, sender, mut receiver) = until_all_is_read(2);
    sender.kill9();
    let target = place.target();
    receiver.wait_for("the target", WITHIN, |_| target.exists());
    thread::sleep(Duration::from_secs(1));
    receiver.sigint();
    receiver.wait(WITHIN).assert_code(exit::DONE);
    place.assert_same();
    place.assert_no_transfer("receiver");
    assert_eq!(place.transfers("sender").len(), 1, "the sender cannot know");
}
