//! A journal that is not as it was left when its receiver is started again (faults C11, S4, S5, S6,
//! S9).

use std::{
    fs::{self, OpenOptions, Permissions},
    os::unix::fs::{FileExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use nix::sys::stat::Mode;
use sealift_agent::role::Role;
use sealift_tests::{
    agents::Agent,
    exit,
    place::{Kind, Place},
    shared::installed,
    trace::killed_at,
};

use serde_json::Value;

use super::{MIB, WITHIN, assert_done, assert_resumed, rate};

/// A receiver with a loader was killed when it had some megabytes. Its sender goes on trying.
fn left(seed: u64) -> (Place, Agent) {
    let place = Place::new(Kind::Loader(12 * MIB), rate(16), seed);
    let (mut sender, receiver) = place.start();
    place.wait_until_passed(&mut sender, 5 << 20);
    receiver.kill9();
    receiver.wait(WITHIN);
    (place, sender)
}

fn journal(place: &Place) -> PathBuf {
    let [transfer] = &place.transfers("receiver")[..] else { panic!("not one transfer") };
    let file = place.path("receiver/transfers").join(transfer).join("journal");
    let found = fs::metadata(&file).unwrap();
    assert!(found.len() > 1 << 20, "{} bytes are no journal of megabytes", found.len());
    assert_eq!(found.permissions().mode() & 0o7777, 0o600);
    file
}

fn audit(place: &Place) -> String {
    fs::read_to_string(place.path("receiver/audit.jsonl")).unwrap()
}

/// The receiver's own command ends so, in one message that holds this word. The log says it too,
/// nothing is loaded, and the transfer is kept.
#[track_caller]
fn assert_refused(place: &Place, code: i32, outcome: &str, word: &str) {
    let ended = place.receiver().start().wait(WITHIN);
    ended.assert_code(code).assert_one_message();
    assert_eq!(ended.finished_event()["outcome"], outcome);
    assert!(ended.message().contains(word), "{}", ended.message());
    assert!(audit(place).lines().last().unwrap().contains(outcome), "{}", audit(place));
    assert!(!place.target().exists(), "something was loaded");
    assert_eq!(place.transfers("receiver").len(), 1, "nothing is lost");
}

fn flip(file: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

/// Fault C11: a crash tore the last record.
#[test]
fn c11_a_torn_journal_is_repaired_and_goes_on() {
    let (place, sender) = left(1);
    let file = OpenOptions::new().write(true).open(journal(&place)).unwrap();
    let left = file.metadata().unwrap().len() - 7;
    file.set_len(left).unwrap();
    let (sender, _) = assert_resumed(&place, sender, place.receiver().start());
    let audit = audit(&place);
    let entries = audit.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let repaired: Vec<_> = entries.filter(|entry| entry["event"] == "journal.repaired").collect();
    let [repaired] = &repaired[..] else { panic!("{audit}") };
    let [kept, cut] = ["kept_bytes", "cut_bytes"].map(|name| repaired[name].as_u64().unwrap());
    assert!(kept + cut == left && cut <= 2 * MIB as u64, "{repaired}");
    let (resent, all) = (sender.number("resent_bytes"), sender.number("sealed_bytes"));
    assert!(resent + kept <= all, "what is whole was sent again: {resent} of {all}");
}

/// Fault S5: rot in the middle is found before any of it is loaded, and the journal is left as it
/// is.
#[test]
fn s5_a_journal_that_rotted_is_refused() {
    let (place, sender) = left(2);
    let file = journal(&place);
    let at = fs::metadata(&file).unwrap().len() / 2;
    flip(&file, at);
    let rotten = fs::read(&file).unwrap();
    assert_refused(&place, exit::MISMATCH, "log_damaged", "from byte");
    assert!(fs::read(&file).unwrap() == rotten, "it was changed");
    flip(&file, at);
    assert_resumed(&place, sender, place.receiver().start());
}

/// Fault S6: the journal of another transfer is refused, and not touched: it may be all that is
/// left of that one.
#[test]
fn s6_the_journal_of_another_transfer_is_refused() {
    let ((place, sender), (other, other_sender)) = (left(3), left(4));
    let (file, foreign) = (journal(&place), journal(&other));
    let swap = || {
        let aside = place.path("aside");
        fs::rename(&file, &aside).unwrap();
        fs::rename(&foreign, &file).unwrap();
        fs::rename(&aside, &foreign).unwrap();
    };
    swap();
    assert_refused(&place, exit::MISMATCH, "log_foreign", "Put back");
    assert_refused(&other, exit::MISMATCH, "log_foreign", "Put back");
    swap();
    assert_resumed(&place, sender, place.receiver().start());
    assert_resumed(&other, other_sender, other.receiver().start());
}

/// Faults S9, S4: refused and left alone; with the journal as it was, the transfer goes on.
#[test]
fn s9_what_is_no_journal_of_ours_is_refused() {
    let (place, sender) = left(5);
    let (file, aside) = (journal(&place), place.path("aside"));
    let whole = fs::read(&file).unwrap();
    let refused = |word: &str| assert_refused(&place, exit::PREFLIGHT, "preflight", word);

    fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
    refused("mode 0600");
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    fs::hard_link(&file, &aside).unwrap();
    refused("hard link");
    fs::remove_file(&file).unwrap();
    symlink(&aside, &file).unwrap();
    refused("symbolic link");
    assert!(fs::symlink_metadata(&file).unwrap().is_symlink(), "it was replaced");
    fs::remove_file(&file).unwrap();
    nix::unistd::mkfifo(&file, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    refused("not a plain file");
    fs::remove_file(&file).unwrap();
    assert_refused(&place, exit::MISMATCH, "log_damaged", "is not in");
    assert!(!file.exists(), "one was made in its place");
    fs::rename(&aside, &file).unwrap();
    assert!(fs::read(&file).unwrap() == whole, "it was changed");
    assert_resumed(&place, sender, place.receiver().start());
}

/// Fault S4: without its journal a receiver stops, whatever its sender would do; what was in it is
/// sent again only when a person has ended the transfer.
#[test]
fn s4_a_journal_that_is_gone_is_missed_until_a_person_says_so() {
    let (place, sender) = left(6);
    fs::remove_file(journal(&place)).unwrap();
    assert_refused(&place, exit::MISMATCH, "log_damaged", "sealift-receiver abandon");
    sender.sigint();
    sender.wait(WITHIN).assert_code(exit::USER_INTERRUPT);
    // Nor does a sender that drops what is there come to a receiver that does not know what that
    // is.
    let sender = place.sender().args(&["--restart", "--retry-for", "1s"]).start();
    assert_refused(&place, exit::MISMATCH, "log_damaged", "is not in");
    sender.wait(WITHIN).assert_one_message();
    for side in [Role::Receiver, Role::Sender] {
        place.run(side, &["abandon", "--all"]).assert_code(exit::DONE);
    }
    fs::remove_file(place.ticket()).unwrap();
    let (sender, receiver) = place.start();
    let (sender, _) = assert_done(&place, sender, receiver);
    assert_eq!(sender.resume(), None, "it is another transfer");
}

/// Fault S4: killed while it drops its journal for a sender that starts over, a receiver does not
/// miss it. The journal's name is gone by then, and the next one has none yet.
#[test]
fn s4_a_journal_that_was_being_replaced_is_not_missed() {
    if !installed("strace") {
        return;
    }
    let place = Place::new(Kind::Program(8 * MIB), rate(16), 7);
    let (mut sender, receiver) = place.start();
    place.wait_until_passed(&mut sender, 3 << 20);
    receiver.kill9();
    sender.kill9();
    let _ = (receiver.wait(WITHIN), sender.wait(WITHIN));
    let file = journal(&place);
    // The first is that of the journal that is dropped.
    let words = killed_at("renameat", 2, file.parent().unwrap());
    let receiver = place.receiver().wrapped_in(words).start();
    let sender = place.sender().start();
    assert_eq!(receiver.wait(WITHIN).killed_by(), Some(9));
    assert!(!file.exists() && file.with_extension("partial").exists(), "killed elsewhere");
    assert_done(&place, sender, place.receiver().start());
}
