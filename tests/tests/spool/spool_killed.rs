//! Agents that are killed and links that are cut while there is a spool (faults C1, C2, C3, N5,
//! N13).

use std::{fs::File, thread};

use sealift_tests::{
    exit,
    link::Faults,
    place::{Kind, Place},
};

use super::*;

/// At the receiver: half of it is the window.
const MEMORY: &[&str] = &["--memory", "18MiB"];
const WINDOW_BYTES: u64 = 9 << 20;

/// What packets and frames add to a megabyte.
const OVERHEAD_BYTES: u64 = 80_000;

/// Fault C1: the source has ended and is gone. What the receiver has is not sent again.
#[test]
fn c1_sender_killed_after_the_source_had_ended() {
    let faults = Faults { bits_per_second: Some(40_000_000), ..Faults::default() };
    let place = Place::new(Kind::Spool(32 * MIB), faults, 1);
    let mut receiver = place.receiver().args(MEMORY).start();
    receiver.ticket();
    let mut sender = place.sender().start();
    sender.wait_for_event("spooled", 1, WITHIN);
    place.wait_until_passed(&mut sender, 18 << 20);
    kill(sender);
    hide(&place);
    let sender = place.sender().start().wait(WITHIN);
    sender.assert_code(exit::DONE);
    assert_eq!(sender.count("spooled"), 0);
    unhide(&place);
    receiver.wait(WITHIN).assert_code(exit::DONE);
    place.assert_done();
    assert_eq!(sender.resume().as_deref(), Some("resumed"));
    assert!(reason(&sender).contains("spooled"), "{}", reason(&sender));
    let sent = sender.number("sealed_bytes");
    let most = (32 - 18) * (MIB as u64 + OVERHEAD_BYTES) + WINDOW_BYTES;
    assert!(sent <= most, "{sent} bytes were sent after the kill");
    assert_eq!(sender.number("plain_bytes"), 32 * MIB as u64);
}

/// Fault C1: again and again, until it is done.
#[test]
fn c1_sender_killed_many_times() {
    let (place, mut sender, receiver) = spooled(10);
    for mebibytes in [3, 5, 7, 9] {
        place.wait_until_passed(&mut sender, mebibytes << 20);
        kill(sender);
        sender = place.sender().start();
    }
    let (_, receiver) = assert_done(&place, sender, receiver, Some("resumed"));
    assert_eq!(receiver.resume().as_deref(), Some("resumed"));
}

/// Fault C1: what had not been read is nowhere, and what was spooled is of no use.
#[test]
fn c1_sender_killed_before_the_source_had_ended() {
    let place = gated(6);
    let (mut sender, receiver) = place.start();
    place.wait_until_passed(&mut sender, 3 << 20);
    kill(sender);
    open(&place);
    let (sender, receiver) = assert_done(&place, place.sender().start(), receiver, Some("restarted"));
    assert_eq!(receiver.resume().as_deref(), Some("restarted"));
    assert!(reason(&sender).contains("before all of its source was spooled"), "{}", reason(&sender));
}

/// Fault N5: the source is read on while there is no link, and what was acknowledged is not sent
/// again.
#[test]
fn n5_link_cut_while_the_source_is_read() {
    let place = gated(10);
    let mut receiver = place.receiver().args(MEMORY).start();
    receiver.ticket();
    let mut sender = place.sender().start();
    place.wait_until_passed(&mut sender, 3 << 20);
    place.link.cut();
    sender.wait_for_event("link_down", 1, WITHIN);
    open(&place);
    sender.wait_for_event("spooled", 1, WITHIN);
    place.link.heal();
    let (sender, _) = assert_done(&place, sender, receiver, Some("resumed"));
    assert!(sender.number("resent_bytes") <= WINDOW_BYTES, "{}", sender.number("resent_bytes"));
}

/// Fault N5: after the source has ended, twice.
#[test]
fn n5_link_cut_after_the_source_had_ended() {
    let (place, mut sender, receiver) = spooled(10);
    for mebibytes in [4, 7] {
        place.wait_until_passed(&mut sender, mebibytes << 20);
        place.link.cut();
        thread::sleep(OUTAGE);
        place.link.heal();
    }
    assert_done(&place, sender, receiver, Some("resumed"));
}

/// Fault C2: whether or not the receiver keeps a journal: what it lost is in the spool, while it is
/// filled and after.
fn receiver_killed(place: Place, with: &[&str], resume: &str) {
    let mut receiver = place.receiver().args(with).start();
    receiver.ticket();
    let mut sender = place.sender().start();
    place.wait_until_passed(&mut sender, 3 << 20);
    kill(receiver);
    let mut receiver = place.receiver().args(with).start();
    place.wait_until_passed(&mut sender, 5 << 20);
    if place.path("gate").exists() {
        open(&place);
    } else {
        kill(receiver);
        receiver = place.receiver().args(with).start();
    }
    let (_, receiver) = assert_done(&place, sender, receiver, Some(resume));
    assert_eq!(receiver.resume().as_deref(), Some(resume));
}

const NO_JOURNAL: &[&str] = &["--journal-bytes-max", "0"];

#[test]
fn c2_receiver_killed_with_a_journal() {
    receiver_killed(place(10), &[], "resumed");
}

#[test]
fn c2_receiver_killed_with_a_journal_while_the_source_is_read() {
    receiver_killed(gated(10), &[], "resumed");
}

#[test]
fn c2_receiver_killed_without_a_journal() {
    receiver_killed(place(10), NO_JOURNAL, "restarted");
}

#[test]
fn c2_receiver_killed_without_a_journal_while_the_source_is_read() {
    receiver_killed(gated(10), NO_JOURNAL, "restarted");
}

/// Fault C3: the journal holds chunks of two epochs beside each other.
#[test]
fn c3_both_killed() {
    let (place, mut sender, mut receiver) = spooled(10);
    for mebibytes in [4, 7] {
        place.wait_until_passed(&mut sender, mebibytes << 20);
        kill(sender);
        kill(receiver);
        receiver = place.receiver().start();
        sender = place.sender().start();
    }
    assert_done(&place, sender, receiver, Some("resumed"));
}

/// Fault C1: standard input need not come again once it has ended.
#[test]
fn c1_standard_input_is_not_needed_again() {
    let mut place = place(8);
    place.source_url = "-".into();
    let mut receiver = place.receiver().start();
    receiver.ticket();
    let mut sender = place.sender().stdin(File::open(place.source()).unwrap()).start();
    sender.wait_for_event("spooled", 1, WITHIN);
    place.wait_until_passed(&mut sender, 2 << 20);
    kill(sender);
    assert_done(&place, place.sender().start(), receiver, Some("resumed"));
}

/// Fault C1: if it had not ended, it has to come again: an empty one is not taken for all of it.
#[test]
fn c1_standard_input_that_does_not_come_again_is_not_taken_for_empty() {
    let mut place = place(4);
    place.source_url = "-".into();
    let mut receiver = place.receiver().start();
    receiver.ticket();
    let endless = std::io::Read::chain(File::open(place.source()).unwrap(), Endless);
    let mut sender = place.sender().stdin(endless).start();
    place.wait_until_passed(&mut sender, 2 << 20);
    kill(sender);
    let words = ["from its beginning", "all of the input"];
    let ended = assert_stopped(&place, place.sender().start(), exit::INTERRUPTED, "resume_impossible", &words);
    assert_eq!(ended.resume().as_deref(), Some("impossible"));
    let sender = place.sender().stdin(File::open(place.source()).unwrap()).start();
    assert_done(&place, sender, receiver, Some("restarted"));
}

/// An input that says no more and does not end.
struct Endless;

impl std::io::Read for Endless {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        loop {
            thread::park();
        }
    }
}

/// Faults N13, S10: another sender with the same ticket and the same folder for its spool, and a
/// state directory of its own.
#[test]
fn n13_a_rival_does_not_touch_the_spool() {
    let (place, receiver) = left(8);
    let bytes = fs::read(spool_file(&place)).unwrap();
    let rival = place.sender().state(&place.path("rival")).args(&["--retry-for", "1s"]);
    fs::create_dir(place.path("rival")).unwrap();
    fs::set_permissions(place.path("rival"), fs::Permissions::from_mode(0o700)).unwrap();
    rival.start().wait(WITHIN).assert_code(exit::REFUSED);
    assert!(fs::read(spool_file(&place)).unwrap() == bytes);
    assert_done(&place, place.sender().start(), receiver, Some("resumed"));
}

/// Fault S10: the same command twice.
#[test]
fn s10_a_second_process_is_refused() {
    let (place, sender, receiver) = spooled(8);
    let second = place.sender().start().wait(WITHIN);
    second.assert_code(exit::REFUSED).assert_one_message();
    assert_eq!(second.finished_event()["outcome"], "transfer_busy");
    assert_done(&place, sender, receiver, None);
}
