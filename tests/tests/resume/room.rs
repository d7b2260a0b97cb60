//! A journal without room, and the same commands with more of it (fault matrix S1).

use sealift_tests::{
    exit,
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
