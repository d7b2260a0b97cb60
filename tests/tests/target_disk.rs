//! Targets whose disk is full or cannot be written.

use std::{fs, os::unix::fs::symlink, path::Path, time::Duration};

use sealift_tests::{
    agents::Launch,
    disk::SmallDisk,
    exit,
    link::Faults,
    pair::Pair,
    place::{Kind, Place},
    sqlite::create_hospital,
};
use tempfile::TempDir;

/// For a transfer of a few megabytes, on a machine that is busy with something else.
const WITHIN: Duration = Duration::from_secs(100);

fn source(folder: &Path, rows: u32) -> String {
    let path = folder.join("source.db");
    create_hospital(&path, rows);
    format!("sqlite:{}", path.display())
}

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("sealift-data-").tempdir().unwrap()
}

/// Fault S11: the disk fills up in the middle of the load. Nothing of it is visible, what is
/// committed waits for the transfer to go on, and with room a new transfer takes its place.
#[test]
fn s11_a_full_disk_ends_the_load_and_shows_nothing() {
    let Some(disk) = SmallDisk::mount("size=2m") else { return };
    let folder = folder();
    let source = source(folder.path(), 20_000);
    let target = format!("sqlite:{}", disk.path("target.db").display());
    let run = || Pair::new(&source, &target).within(Duration::from_secs(120)).run();
    run().assert_codes(exit::UNUSABLE, exit::UNUSABLE).receiver.assert_one_message();
    assert_eq!(disk.names(), [".target.db.sealift-staging"]);
    disk.remount("size=64m");
    run().assert_done();
    assert_eq!(disk.names(), ["target.db"]);

    let Some(disk) = SmallDisk::mount("size=1m") else { return };
    let target = format!("file:{}", disk.path("dump").display());
    let full = Pair::new(source.replace("sqlite:", "file:"), target).receiver_args(&["--danger-plaintext-file"]).run();
    full.assert_codes(exit::UNUSABLE, exit::UNUSABLE).receiver.assert_one_message();
    assert!(disk.names().iter().all(|name| name.ends_with(".sealift-staging")), "{:?}", disk.names());
}

/// Fault S11: with room, the same commands resume the same transfer where the disk was full.
fn goes_on_with_room(kind: Kind, size: &str) {
    let Some(disk) = SmallDisk::mount(&format!("size={size}")) else { return };
    let place = Place::new(kind, Faults::default(), 11);
    fs::remove_dir(place.path("target")).unwrap();
    symlink(disk.folder(), place.path("target")).unwrap();
    let (sender, receiver) = place.start();
    let (sender, receiver) = (sender.wait(WITHIN), receiver.wait(WITHIN));
    sender.assert_code(exit::UNUSABLE).assert_one_message();
    receiver.assert_code(exit::UNUSABLE).assert_one_message();
    assert!(!place.target().exists());
    let unfinished = place.transfers("receiver");
    assert_eq!((unfinished.len(), place.transfers("sender")), (1, unfinished.clone()));
    disk.remount("size=256m");
    let (sender, receiver) = place.start();
    let (sender, receiver) = (sender.wait(WITHIN), receiver.wait(WITHIN));
    sender.assert_code(exit::DONE);
    receiver.assert_code(exit::DONE);
    assert_eq!(sender.resume().as_deref(), Some("resumed"), "{:?}", sender.events());
    assert_eq!(sender.finished_event()["transfer"], unfinished[0]);
    place.assert_done();
}

#[test]
fn s11_goes_on_with_room_sqlite() {
    goes_on_with_room(Kind::Sqlite(40_000), "6m");
}

#[test]
fn s11_goes_on_with_room_file() {
    goes_on_with_room(Kind::File(16 << 20), "6m");
}

/// Fault S8: a target that cannot be written is told before anything is sent.
#[test]
fn s8_a_read_only_disk_is_told_before_anything_is_sent() {
    let Some(disk) = SmallDisk::mount("size=2m,ro") else { return };
    let target = format!("sqlite:{}", disk.path("target.db").display());
    let mut receiver = Launch::receiver(&target).bind_loopback().start();
    assert_eq!(receiver.ticket_if_it_lives(), None);
    receiver.wait(WITHIN).assert_code(exit::UNUSABLE).assert_one_message();
}
