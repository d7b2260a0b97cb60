//! A journal, a staging file or a spool without room, and the same commands with more of it (faults
//! S1, S12); a record that rotted (fault S5).

use std::fs;

use sealift_agent::role::Role;
use sealift_tests::{
    agents::Launch,
    exit,
    grid::Content,
    link::Faults,
    place::{Kind, Place},
    shared::installed,
};

use super::{MIB, WITHIN, assert_done};

/// Both end and can be resumed; with room, they are.
fn goes_on_with_room(kind: Kind, journal_bytes_max: &str) {
    let place = Place::new(kind, Faults::default(), 7);
    let mut receiver = place.receiver().args(&["--journal-bytes-max", journal_bytes_max]).start();
    receiver.ticket();
    let sender = place.sender().start();
    for ended in [sender.wait(WITHIN), receiver.wait(WITHIN)] {
        ended.assert_code(exit::INTERRUPTED).assert_one_message();
        assert_eq!(ended.finished_event()["outcome"], "log_full");
    }
    assert!(!place.target().exists());
    let (sender, receiver) = place.start();
    assert_done(&place, sender, receiver);
}

cases! {
    /// The last chunk is small, and would still have its place behind one that has none.
    s1_a_journal_that_fills_up_has_no_holes: goes_on_with_room(Kind::Loader(4 * MIB + 1000), "3500kB");
    /// Between Begin and data: the receiver has noted by what it knows the sender, who has to keep
    /// it, too.
    s1_a_journal_without_room_for_the_keys_loader: goes_on_with_room(Kind::Loader(MIB), "1kB");
}

/// Fault S12: the limit that the system sets on the size of files is an error of a write, and not
/// the signal that would end the process. Both end in order, and without the limit they go on.
fn goes_on_without_the_limit(place: &Place, side: Role, code: i32, outcome: &str, word: &str) {
    if !installed("prlimit") {
        return;
    }
    let limited = |launch: Launch, of: Role| if of == side { launch.file_bytes_max(2_000_000) } else { launch };
    let mut receiver = limited(place.receiver(), Role::Receiver).start();
    receiver.ticket();
    let sender = limited(place.sender(), Role::Sender).start();
    let (sender, mut receiver) = (sender.wait(WITHIN), Some(receiver));
    sender.assert_code(code).assert_one_message();
    assert_eq!(sender.finished_event()["outcome"], outcome, "{}", sender.message());
    if side == Role::Receiver {
        let ended = receiver.take().unwrap().wait(WITHIN);
        ended.assert_code(code).assert_one_message();
        assert_eq!(ended.finished_event()["outcome"], outcome);
        assert!(ended.message().contains(word), "{}", ended.message());
    }
    assert!(!place.target().exists());
    let receiver = receiver.unwrap_or_else(|| place.receiver().start());
    assert_done(place, place.sender().start(), receiver);
}

#[test]
fn s12_a_limit_on_the_size_of_the_journal() {
    let mut place = Place::new(Kind::Loader(6 * MIB), Faults::default(), 9);
    // The loader has a file of its own.
    place.target_url = place.target_url.replace("cat >", "ulimit -f unlimited; cat >");
    goes_on_without_the_limit(&place, Role::Receiver, exit::INTERRUPTED, "log_full", "too large");
}

#[test]
fn s12_a_limit_on_the_size_of_the_staging_file_sqlite() {
    let place = Place::new(Kind::Sqlite(20_000), Faults::default(), 10);
    let refused = "the disk refused the staging file";
    goes_on_without_the_limit(&place, Role::Receiver, exit::UNUSABLE, "target_failed", refused);
}

/// Of one part of several that are written side by side.
#[test]
fn s12_a_limit_on_the_size_of_a_part_grid() {
    let content = Content { tables: 2, ranges: 2, rows: 3000, bytes: 1000, widest: 0, finding: None };
    let place = Place::new(Kind::Grid(content), Faults::default(), 12);
    goes_on_without_the_limit(&place, Role::Receiver, exit::UNUSABLE, "target_failed", "the grid cannot be written");
}

#[test]
fn s12_a_limit_on_the_size_of_the_spool() {
    let place = Place::new(Kind::Spool(6 * MIB), Faults::default(), 11);
    goes_on_without_the_limit(&place, Role::Sender, exit::INTERRUPTED, "log_full", "too large");
}

/// What a ticket was issued for is not changed by another start of its receiver.
#[test]
fn a_receiver_goes_on_for_the_same_purpose_alone() {
    let place = Place::new(Kind::File(MIB), Faults::default(), 9);
    let mut receiver = place.receiver().args(&["--purpose", "CHG-1"]).start();
    receiver.ticket();
    receiver.kill9();
    receiver.wait(WITHIN);
    let other = place.receiver().args(&["--purpose", "CHG-2"]).start().wait(WITHIN);
    other.assert_code(exit::USAGE).assert_one_message();
    let mut receiver = place.receiver().start();
    receiver.ticket();
    assert_done(&place, place.sender().start(), receiver);
    let told = fs::read_to_string(place.path("receiver").join("audit.jsonl")).unwrap();
    let begun = told.lines().find(|line| line.contains("transfer.begin")).unwrap();
    let target = format!("\"into\":\"file:{}\"", place.target().display());
    assert!(begun.contains("CHG-1") && begun.contains(&target) && begun.contains("\"uid\":"), "{begun}");
}

/// Fault S5: a transfer whose record is damaged hides no other, stops no other, and can be ended.
#[test]
fn s5_a_damaged_record_is_in_nobodys_way() {
    let place = Place::new(Kind::File(MIB), Faults::default(), 8);
    let mut receiver = place.receiver().start();
    receiver.ticket();
    receiver.kill9();
    receiver.wait(WITHIN);
    let state = place.path("receiver");
    let damaged = state.join("transfers").join(&place.transfers("receiver")[0]);
    fs::write(damaged.join("record"), [0x5a; 300]).unwrap();
    let status = place.run(Role::Receiver, &["status"]);
    status.assert_code(exit::DONE);
    assert!(String::from_utf8_lossy(&status.stdout()).contains("cannot be read"), "{}", status.message());
    fs::remove_file(place.ticket()).unwrap();
    let (sender, receiver) = place.start();
    for ended in [sender.wait(WITHIN), receiver.wait(WITHIN)] {
        ended.assert_code(exit::DONE);
    }
    assert!(damaged.exists(), "it is for a person to end");
    place.run(Role::Receiver, &["abandon", "--all"]).assert_code(exit::DONE);
    place.assert_done();
}
