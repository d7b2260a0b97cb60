//! A journal without room, and the same commands with more of it (fault matrix S1); a record that rotted (S5).

use std::{fs, path::Path};

use sealift_tests::{
    agents::{Launch, RECEIVER},
    exit,
    finished::Finished,
    link::Faults,
    place::{Kind, Place},
};

use super::{MIB, WITHIN, assert_done};

/// Both end and can go on; with room, they do.
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

/// The last chunk is small, and would still have its place behind one that has none.
#[test]
fn s1_a_journal_that_fills_up_has_no_holes() {
    goes_on_with_room(Kind::Loader(4 * MIB + 1000), "3500kB");
}

/// Between Begin and data: the receiver has noted by what it knows the sender, who has to keep it, too.
#[test]
fn s1_a_journal_without_room_for_the_keys_loader() {
    goes_on_with_room(Kind::Loader(MIB), "1kB");
}

fn command(word: &str, state: &Path, more: &[&str]) -> Finished {
    let launch = Launch::bare(RECEIVER, &[word.as_ref(), "--state-dir".as_ref(), state.as_os_str()]);
    launch.args(more).start().wait(WITHIN)
}

/// S5: a transfer whose record is damaged hides no other, stops no other, and can be ended.
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
    let status = command("status", &state, &[]);
    status.assert_code(exit::DONE);
    assert!(String::from_utf8_lossy(&status.stdout()).contains("cannot be read"), "{}", status.message());
    fs::remove_file(place.ticket()).unwrap();
    let (sender, receiver) = place.start();
    for ended in [sender.wait(WITHIN), receiver.wait(WITHIN)] {
        ended.assert_code(exit::DONE);
    }
    assert!(damaged.exists(), "it is for a person to end");
    command("abandon", &state, &["--all"]).assert_code(exit::DONE);
    place.assert_done();
}
