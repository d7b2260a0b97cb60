//! Spools that have no room, or are not as they were left (faults S1, S4, S5, S6, S9, S12).

use std::{
    fs::OpenOptions,
    os::unix::fs::{FileExt, chown, symlink},
    path::Path,
};

use nix::sys::stat::Mode;
use sealift_agent::role::Role;
use sealift_tests::disk::SmallDisk;

use super::*;

/// Fault S12: the spool has its budget. The receiver waits meanwhile, and what was spooled is given
/// up at once.
#[test]
fn s12_a_spool_that_reaches_its_limit_stops_and_goes_on() {
    let place = place(8);
    let mut receiver = place.receiver().start();
    receiver.ticket();
    let sender = place.sender().args(&["--spool-bytes-max", "3MiB"]).start();
    assert_stopped(&place, sender, exit::INTERRUPTED, "log_full", &["--spool-bytes-max", "read again"]);
    assert!(fs::read_dir(place.spool()).unwrap().next().is_none(), "what is of no use is removed");
    assert!(receiver.is_running());
    assert_done(&place, place.sender().start(), receiver, Some("restarted"));
}

/// Fault S1: the disk is full.
#[test]
fn s1_a_full_disk_stops_and_goes_on() {
    let Some(disk) = SmallDisk::mount("size=3m") else { return };
    let place = place(8);
    symlink(disk.folder(), place.spool()).unwrap();
    let (sender, receiver) = place.start();
    assert_stopped(&place, sender, exit::INTERRUPTED, "log_full", &["no space left", "larger disk"]);
    assert_eq!(disk.names(), Vec::<String>::new());
    disk.remount("size=64m");
    assert_done(&place, place.sender().start(), receiver, Some("restarted"));
}

/// Fault S1: the disk fills up while there is no link: that is said then, and not when the link is
/// back.
#[test]
fn s1_a_limit_that_is_reached_without_a_link_is_said_at_once() {
    let mut place = gated(4);
    let again = format!("done; cat {}", place.source().display());
    place.source_url = place.source_url.replace("done", &again);
    let mut receiver = place.receiver().start();
    receiver.ticket();
    let mut sender = place.sender().args(&["--spool-bytes-max", "6MiB"]).start();
    place.wait_until_passed(&mut sender, 2 << 20);
    place.link.cut();
    sender.wait_for_event("link_down", 1, WITHIN);
    open(&place);
    assert_stopped(&place, sender, exit::INTERRUPTED, "log_full", &["--spool-bytes-max"]);
    assert!(fs::read_dir(place.spool()).unwrap().next().is_none());
}

/// Fault S8: a folder that cannot be made is told before the source is read.
#[test]
fn s8_a_folder_that_cannot_be_made_is_told_before_the_start() {
    let place = place(1);
    fs::write(place.spool(), "a file").unwrap();
    let (sender, mut receiver) = place.start();
    let ended = sender.wait(WITHIN);
    ended.assert_code(exit::PREFLIGHT).assert_one_message();
    assert!(ended.message().contains("--spool"), "{}", ended.message());
    assert!(receiver.is_running());
    fs::remove_file(place.spool()).unwrap();
    assert_done(&place, place.sender().start(), receiver, None);
}

fn flip(file: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

/// Fault S5: found before anything of it is sent, and left as it is: what becomes of it is for a
/// person to say.
fn rot(at: impl Fn(u64) -> u64) {
    let (place, receiver) = left(6);
    let file = spool_file(&place);
    flip(&file, at(fs::metadata(&file).unwrap().len()));
    let words = ["from byte", "--restart"];
    assert_stopped(&place, place.sender().start(), exit::MISMATCH, "log_damaged", &words[..]);
    assert!(file.exists());
    assert_done(&place, place.sender().arg("--restart").start(), receiver, Some("restarted"));
}

#[test]
fn s5_rot_in_the_first_chunk() {
    rot(|_| 5000);
}

#[test]
fn s5_rot_in_the_middle() {
    rot(|bytes| bytes / 2);
}

/// Fault S5: while it is sent. The receiver is told, and keeps nothing; what is left of the source
/// is for a person to look at.
#[test]
fn s5_rot_that_is_found_while_it_is_sent() {
    let (place, sender, receiver) = spooled(10);
    let file = spool_file(&place);
    flip(&file, fs::metadata(&file).unwrap().len() - 2 * MIB as u64);
    let (sender, receiver) = (sender.wait(WITHIN), receiver.wait(WITHIN));
    for ended in [&sender, &receiver] {
        ended.assert_code(exit::MISMATCH).assert_one_message();
        assert_eq!(ended.finished_event()["outcome"], "log_damaged");
    }
    place.assert_no_transfer("receiver");
    assert!(file.exists());
    place.run(Role::Sender, &["abandon", "--all"]).assert_code(exit::DONE);
    place.assert_clean(&[]);
}

/// Faults S9, S4: refused, and left alone; with the spool as it was, the transfer goes on.
#[test]
fn s9_what_is_no_spool_of_ours_is_refused() {
    let (place, receiver) = left(8);
    let file = spool_file(&place);
    let (folder, aside) = (file.parent().unwrap().to_path_buf(), place.path("aside"));
    let refused = |what: &str| {
        assert_stopped(&place, place.sender().start(), exit::PREFLIGHT, "preflight", &[what]);
    };
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();

    mode(&file, 0o644);
    refused("mode 0600");
    mode(&file, 0o600);
    mode(&folder, 0o750);
    refused("entered by others");
    mode(&folder, 0o700);
    if nix::unistd::geteuid().is_root() {
        chown(&file, Some(65534), None).unwrap();
        refused("another user");
        chown(&file, Some(0), None).unwrap();
    }
    fs::hard_link(&file, &aside).unwrap();
    refused("hard link");
    fs::remove_file(&file).unwrap();
    refused("is not in");
    symlink(&aside, &file).unwrap();
    refused("symbolic link");
    fs::remove_file(&file).unwrap();
    nix::unistd::mkfifo(&file, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    refused("not a plain file");
    fs::remove_file(&file).unwrap();
    fs::rename(&aside, &file).unwrap();
    // The folder, too, is not looked for behind a link, nor missed in silence.
    fs::rename(&folder, &aside).unwrap();
    refused("Bring back its disk");
    symlink(&aside, &folder).unwrap();
    refused("cannot be opened");
    fs::remove_file(&folder).unwrap();
    fs::rename(&aside, &folder).unwrap();
    assert_done(&place, place.sender().start(), receiver, Some("resumed"));
}

/// Fault S6: the spool of another transfer is refused, and not destroyed either: it may be all that
/// is left of that one.
#[test]
fn s6_the_spool_of_another_transfer_is_refused() {
    let ((place, receiver), (other, other_receiver)) = (left(8), left(8));
    let (file, foreign) = (spool_file(&place), spool_file(&other));
    let swap = || {
        let aside = place.path("aside");
        fs::rename(&file, &aside).unwrap();
        fs::rename(&foreign, &file).unwrap();
        fs::rename(&aside, &foreign).unwrap();
    };
    swap();
    for arguments in [&[][..], &["--restart"]] {
        let sender = place.sender().args(arguments).start();
        assert_stopped(&place, sender, exit::MISMATCH, "log_foreign", &["Put back"]);
    }
    place.run(Role::Sender, &["abandon", "--all"]).assert_code(exit::MISMATCH);
    swap();
    assert_done(&other, other.sender().start(), other_receiver, Some("resumed"));
    assert_done(&place, place.sender().start(), receiver, Some("resumed"));
}

/// Fault C11: a crash tore the end off. The source had not ended then, as far as can be known.
#[test]
fn c11_a_torn_spool_is_read_anew() {
    let (place, receiver) = left(6);
    let file = OpenOptions::new().write(true).open(spool_file(&place)).unwrap();
    file.set_len(file.metadata().unwrap().len() - MIB as u64).unwrap();
    assert_done(&place, place.sender().start(), receiver, Some("restarted"));
    let audit = fs::read_to_string(place.path("sender/audit.jsonl")).unwrap();
    assert!(audit.contains("spool.repaired"), "{audit}");
}
