//! What the source is when the sender comes back: the same, another, or gone. Each of the three
//! outcomes says why.

use std::{
    fs::{self, OpenOptions},
    io::{Seek, SeekFrom, Write},
    path::Path,
};

use rusqlite::Connection;
use sealift_tests::{
    agents::{Agent, Launch},
    exit,
    finished::Finished,
    place::{Kind, Place},
};

use super::{GRID, MIB, WITHIN, assert_done, assert_resumed, rate};

/// A transfer whose sender was killed in the middle; its receiver waits.
fn without_its_sender(kind: Kind) -> (Place, Agent) {
    let place = Place::new(kind, rate(12), 1);
    let (mut sender, receiver) = place.start();
    place.wait_until_passed(&mut sender, 4 << 20);
    sender.kill9();
    let _ = sender.wait(WITHIN);
    (place, receiver)
}

fn reason(ended: &Finished) -> String {
    let events = ended.events();
    let resume = events.iter().rfind(|event| event["event"] == "resume").expect("says how it goes on");
    resume["reason"].as_str().unwrap().to_owned()
}

/// The source is not what was sent of it: the sender says so and stops, and nothing is lost. With
/// the source as it was the transfer is resumed; with `--restart` it starts over.
fn changed(kind: Kind, change: impl Fn(&Path), undo: Option<&dyn Fn(&Path)>) {
    let (place, receiver) = without_its_sender(kind);
    change(&place.source());
    let stopped = place.sender().start().wait(WITHIN);
    stopped.assert_code(exit::UNUSABLE).assert_one_message();
    assert_eq!(stopped.finished_event()["outcome"], "source_changed");
    assert_eq!(stopped.resume().as_deref(), Some("impossible"));
    assert!(!place.target().exists());
    assert_eq!(place.transfers("sender").len(), 1, "nothing is lost");
    if let Some(undo) = undo {
        undo(&place.source());
        assert_resumed(&place, place.sender().start(), receiver);
    } else {
        let sender = place.sender().arg("--restart").start();
        let (sender, receiver) = assert_done(&place, sender, receiver);
        for ended in [&sender, &receiver] {
            assert_eq!(ended.resume().as_deref(), Some("restarted"), "{:?}", ended.events());
        }
    }
}

fn overwrite(path: &Path, place: u64, byte: u8) {
    let mut file = OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(place)).unwrap();
    file.write_all(&[byte]).unwrap();
}

fn execute(path: &Path, sql: &str) {
    Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

/// The rows of a grid, each by so many bytes.
fn longer(path: &Path, by: i64) {
    let text = fs::read_to_string(path).unwrap();
    let (before, after) = if by > 0 { ("bytes=1000", "bytes=1001") } else { ("bytes=1001", "bytes=1000") };
    fs::write(path, text.replace(before, after)).unwrap();
}

#[test]
fn a_changed_file_stops_and_goes_on_as_it_was() {
    let original = std::cell::Cell::new(0);
    let change = |path: &Path| {
        original.set(fs::read(path).unwrap()[1000]);
        overwrite(path, 1000, !original.get());
    };
    changed(Kind::File(10 * MIB), change, Some(&|path: &Path| overwrite(path, 1000, original.get())));
}

cases! {
    a_changed_file_is_sent_anew_if_asked: changed(Kind::Loader(10 * MIB), |path| overwrite(path, 1000, 0), None);
}

/// Cut off within what was sent: the last chunk is not where it was.
#[test]
fn a_file_that_became_shorter_is_sent_anew_if_asked() {
    let cut = |path: &Path| OpenOptions::new().write(true).open(path).unwrap().set_len(1 << 20).unwrap();
    changed(Kind::File(10 * MIB), cut, None);
}

#[test]
fn a_changed_row_stops_and_goes_on_as_it_was_sqlite() {
    let change = |path: &Path| execute(path, "update patient set name = name || '!' where id = 5");
    let undo = |path: &Path| execute(path, "update patient set name = substr(name, 1, length(name) - 1) where id = 5");
    changed(Kind::Sqlite(40_000), change, Some(&undo));
}

cases! {
    a_changed_range_is_sent_anew_if_asked_grid: changed(GRID, |path| longer(path, 1), None);
    a_changed_range_stops_and_goes_on_as_it_was_grid:
        changed(GRID, |path| longer(path, 1), Some(&|path| longer(path, -1)));
    a_changed_row_is_sent_anew_if_asked_sqlite:
        changed(Kind::Sqlite(40_000), |path| execute(path, "update patient set born = null where id = 7"), None);
    /// Fault D8.
    a_changed_schema_is_sent_anew_if_asked_sqlite:
        changed(Kind::Sqlite(40_000), |path| execute(path, "create table another (x)"), None);
    /// An image is of its pages: that the header counts a change up is enough.
    a_changed_page_is_sent_anew_if_asked_image:
        changed(Kind::Image(40_000), |path| execute(path, "pragma user_version = 8"), None);
}

/// Another source is another transfer: said before anything is asked of the receiver.
#[test]
fn another_source_is_refused() {
    let (mut place, receiver) = without_its_sender(Kind::File(10 * MIB));
    let other = place.path("other");
    fs::copy(place.source(), &other).unwrap();
    let first = std::mem::replace(&mut place.source_url, format!("file:{}", other.display()));
    place.sender().start().wait(WITHIN).assert_code(exit::USAGE).assert_one_message();
    place.source_url = first;
    assert_resumed(&place, place.sender().start(), receiver);
}

/// A pipe cannot be read again. Its sender says so before it starts; killed and started again, it
/// sends everything again.
#[test]
fn a_pipe_whose_sender_was_killed_is_sent_anew() {
    let (place, receiver) = without_its_sender(Kind::Program(10 * MIB));
    let (sender, receiver) = assert_done(&place, place.sender().start(), receiver);
    for ended in [&sender, &receiver] {
        assert_eq!(ended.resume().as_deref(), Some("restarted"), "{:?}", ended.events());
    }
    assert!(reason(&sender).contains("read only once"), "{}", reason(&sender));
}

#[test]
fn a_pipe_is_told_of_before_the_start() {
    let place = Place::new(Kind::Program(MIB), rate(100), 1);
    let (sender, receiver) = place.start();
    let (sender, _) = assert_done(&place, sender, receiver);
    let events = sender.events();
    let at = |name: &str| events.iter().position(|event| event["event"] == name);
    assert!(at("notice").expect("a notice") < at("started").unwrap());
    assert_eq!(sender.resume(), None);
}

/// Standard input is gone when the receiver has lost what it had of it: impossible, with the
/// reason.
#[test]
fn standard_input_and_a_receiver_that_lost_all_is_impossible() {
    let mut place = Place::new(Kind::Program(10 * MIB), rate(12), 1);
    place.source_url = "-".into();
    let sender = after_losing_all(&place, place.sender().stdin(fs::File::open(place.source()).unwrap()));
    let receiver = place.receiver().args(NO_JOURNAL).start();
    let sender = sender.wait(WITHIN);
    sender.assert_code(exit::INTERRUPTED).assert_one_message();
    assert_eq!(sender.resume().as_deref(), Some("impossible"));
    assert!(!reason(&sender).is_empty());
    assert!(!place.target().exists());
    // The same command again without the data does not pass an empty dump for it.
    let nothing = place.sender().start().wait(WITHIN);
    nothing.assert_code(exit::INTERRUPTED).assert_one_message();
    assert!(nothing.message().contains("it is empty"), "{}", nothing.message());
    assert!(!place.target().exists());
    // With the data again it sends everything.
    let sender = place.sender().stdin(fs::File::open(place.source()).unwrap()).start();
    let (sender, _) = assert_done(&place, sender, receiver);
    assert_eq!(sender.resume().as_deref(), Some("restarted"));
}

/// A receiver that keeps nothing of what its loader has.
const NO_JOURNAL: &[&str] = &["--journal-bytes-max", "0"];

/// The sender that was left when such a receiver was killed with some of its data.
fn after_losing_all(place: &Place, sender: Launch) -> Agent {
    let mut receiver = place.receiver().args(NO_JOURNAL).start();
    receiver.ticket();
    let mut sender = sender.start();
    place.wait_until_passed(&mut sender, 4 << 20);
    receiver.kill9();
    let _ = receiver.wait(WITHIN);
    sender
}

/// A program is run again by itself, in a like case: nobody has to bring the data again.
#[test]
fn a_program_and_a_receiver_that_lost_all_is_restarted() {
    let place = Place::new(Kind::Program(10 * MIB), rate(12), 1);
    let sender = after_losing_all(&place, place.sender());
    let receiver = place.receiver().args(NO_JOURNAL).start();
    let (sender, _) = assert_done(&place, sender, receiver);
    assert_eq!(sender.resume().as_deref(), Some("restarted"));
}

/// A file is sent again by a sender that lived on, and by one that was killed too: both sides say
/// that it starts over.
#[test]
fn a_file_and_a_receiver_that_lost_all_is_restarted() {
    for sender_dies in [false, true] {
        let place = Place::new(Kind::Loader(10 * MIB), rate(12), 1);
        let mut sender = after_losing_all(&place, place.sender());
        if sender_dies {
            sender.kill9();
            let _ = sender.wait(WITHIN);
            sender = place.sender().start();
        }
        let receiver = place.receiver().args(NO_JOURNAL).start();
        let (sender, receiver) = assert_done(&place, sender, receiver);
        for ended in [&sender, &receiver] {
            assert_eq!(ended.resume().as_deref(), Some("restarted"), "{:?}", ended.events());
        }
    }
}
