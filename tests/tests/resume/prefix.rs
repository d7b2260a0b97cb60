//! A plain file as a target is its own durable prefix: what is there of it when its receiver is
//! started again is proven, whatever a crash, a disk or another program has left, and what is
//! missing is sent again (faults C2, C3, C11, S4, S5, S9).

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::{FileExt, PermissionsExt, symlink},
    path::PathBuf,
};

use sealift_agent::role::Role;
use sealift_tests::{
    agents::{Agent, Launch},
    exit,
    place::{Kind, Place},
};

use super::{MIB, WITHIN, assert_done, assert_resumed, rate};

const BYTES: usize = 12 * MIB;

/// A receiver of a file was killed when it had some megabytes. Its sender goes on trying.
fn left(seed: u64) -> (Place, Agent) {
    let place = Place::new(Kind::File(BYTES), rate(16), seed);
    let (mut sender, receiver) = place.start();
    place.wait_until_passed(&mut sender, 7 << 20);
    receiver.kill9();
    receiver.wait(WITHIN);
    (place, sender)
}

/// The staging file and the record of what is durable of it.
fn staged(place: &Place) -> [PathBuf; 2] {
    let [transfer] = &place.transfers("receiver")[..] else { panic!("not one transfer") };
    let beside = |ending: &str| place.path("target").join(format!(".to.{transfer}{ending}"));
    let staged = [beside(".sealift-staging"), beside(".prefix.sealift-staging")];
    for path in &staged {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o7777, 0o600);
    }
    assert!(fs::metadata(&staged[0]).unwrap().len() >= 4 << 20);
    staged
}

fn flip(file: &PathBuf, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

/// It ends well, and of the whole only this much is sealed by a sender that is started again.
#[track_caller]
fn assert_sends_the_rest(place: &Place, sender: Agent, sealed: std::ops::Range<u64>) {
    sender.kill9();
    let _ = sender.wait(WITHIN);
    let mut receiver = place.receiver().start();
    receiver.ticket();
    let (sender, receiver) = assert_resumed(place, place.sender().start(), receiver);
    assert_eq!(receiver.resume().as_deref(), Some("resumed"));
    let bytes = sender.number("sealed_bytes");
    assert!(sealed.contains(&bytes), "{bytes} bytes were sealed");
}

const REST: u64 = (BYTES - 4 * MIB) as u64;

/// Faults C2, C3: whichever side is killed, and both: nothing that was acknowledged is sent again.
#[test]
fn c2_c3_a_file_goes_on_behind_what_is_there() {
    let (place, sender) = left(31);
    staged(&place);
    let (sender, receiver) = assert_resumed(&place, sender, place.receiver().start());
    assert_eq!(receiver.resume().as_deref(), Some("resumed"));
    assert!(sender.number("resent_bytes") < REST, "{}", sender.number("resent_bytes"));
    let (place, sender) = left(32);
    assert_sends_the_rest(&place, sender, 1..REST);
}

/// Fault C2: a source that gives its bytes once is never asked for what it has forgotten.
#[test]
fn c2_a_program_into_a_file_goes_on() {
    let mut place = Place::new(Kind::Program(BYTES), rate(16), 33);
    place.target_url = format!("file:{}", place.target().display());
    let receiver = || -> Launch { place.receiver().arg("--danger-plaintext-file") };
    let mut first = receiver().start();
    first.ticket();
    let mut sender = place.sender().start();
    for bytes in [2 << 20, 8 << 20] {
        place.wait_until_passed(&mut sender, bytes);
        first.kill9();
        first.wait(WITHIN);
        first = receiver().start();
    }
    assert_resumed(&place, sender, first);
}

/// Fault S5: rot in the middle is found, and what is behind it is sent again, by a sender that had
/// it acknowledged, too.
#[test]
fn s5_a_file_that_rotted_is_gone_on_with_before_the_rot() {
    let (place, sender) = left(34);
    flip(&staged(&place)[0], 2 * MIB as u64 + 5);
    assert_sends_the_rest(&place, sender, REST..(BYTES - MIB) as u64);
    let (place, sender) = left(35);
    flip(&staged(&place)[0], 3 * MIB as u64);
    assert_done(&place, sender, place.receiver().start());
    // Of the record, a byte of its third entry.
    let (place, sender) = left(36);
    flip(&staged(&place)[1], 128 + 2 * 137 + 20);
    assert_sends_the_rest(&place, sender, REST..(BYTES - MIB) as u64);
}

/// Faults C11, S4: cut short, gone, or with something else in its place, which stays as it is.
#[test]
fn s4_a_file_that_is_not_as_it_was_left_is_sent_again() {
    let (place, sender) = left(37);
    let [staging, record] = staged(&place);
    OpenOptions::new().write(true).open(&staging).unwrap().set_len(3 * MIB as u64 + 7).unwrap();
    let record_bytes = fs::metadata(&record).unwrap().len();
    OpenOptions::new().write(true).open(&record).unwrap().set_len(record_bytes - 3).unwrap();
    assert_sends_the_rest(&place, sender, REST..(BYTES - 2 * MIB) as u64);
    for gone in [0, 1] {
        let (place, sender) = left(38);
        fs::remove_file(&staged(&place)[gone]).unwrap();
        assert_done(&place, sender, place.receiver().start());
    }
    let (place, sender) = left(39);
    let [staging, _] = staged(&place);
    let elsewhere = place.path("elsewhere");
    fs::rename(&staging, &elsewhere).unwrap();
    symlink(&elsewhere, &staging).unwrap();
    let before = fs::read(&elsewhere).unwrap();
    assert_done(&place, sender, place.receiver().start());
    assert!(fs::read(&elsewhere).unwrap() == before, "it leads to another file");
}

/// Fault S4: taken away while it is written, it is noticed before anything more is acknowledged,
/// and the same commands go on.
#[test]
fn s4_a_file_that_is_removed_while_it_is_written_ends_the_load() {
    let place = Place::new(Kind::File(BYTES), rate(16), 40);
    let (mut sender, receiver) = place.start();
    place.wait_until_passed(&mut sender, 5 << 20);
    fs::remove_file(&staged(&place)[0]).unwrap();
    let (sender, receiver) = (sender.wait(WITHIN), receiver.wait(WITHIN));
    for ended in [&sender, &receiver] {
        ended.assert_code(exit::UNUSABLE).assert_one_message();
    }
    assert!(receiver.message().contains("was removed or replaced"), "{}", receiver.message());
    let (sender, receiver) = place.start();
    assert_done(&place, sender, receiver);
}

/// Suspended, its bytes lie in the clear where the message says, and `abandon` removes them.
#[test]
fn a_suspended_file_says_where_it_lies_and_is_removed_by_abandon() {
    let place = Place::new(Kind::File(BYTES), rate(16), 41);
    let (mut sender, receiver) = place.start();
    place.wait_until_passed(&mut sender, 5 << 20);
    receiver.sigint();
    let receiver = receiver.wait(WITHIN);
    let [staging, _] = staged(&place);
    assert!(receiver.message().contains(&staging.display().to_string()), "{}", receiver.message());
    sender.kill9();
    let _ = sender.wait(WITHIN);
    place.run(Role::Receiver, &["abandon", "--all"]).assert_code(exit::DONE);
    assert_eq!(fs::read_dir(place.path("target")).unwrap().count(), 0);
}
