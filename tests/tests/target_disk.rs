//! Targets whose disk is full or cannot be written.

use std::{path::Path, time::Duration};

use sealift_tests::{disk::SmallDisk, exit, pair::Pair, sqlite::create_hospital};
use tempfile::TempDir;

fn source(folder: &Path, rows: u32) -> String {
    let path = folder.join("source.db");
    create_hospital(&path, rows);
    format!("sqlite:{}", path.display())
}

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("sealift-data-").tempdir().unwrap()
}

/// fault-matrix S11: the disk fills up in the middle of the load. Nothing of it is visible, what is committed waits for
/// the transfer to go on, and with room a new transfer takes its place.
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
    assert_eq!(disk.names(), Vec::<String>::new());
}

/// fault-matrix S8: a target that cannot be written is told before anything is sent.
#[test]
fn s8_a_read_only_disk_is_told_before_anything_is_sent() {
    let Some(disk) = SmallDisk::mount("size=2m,ro") else { return };
    let folder = folder();
    let source = source(folder.path(), 100);
    let target = format!("sqlite:{}", disk.path("target.db").display());
    let refused = Pair::new(&source, &target).run();
    refused.assert_codes(exit::UNUSABLE, exit::UNUSABLE).receiver.assert_one_message();
    assert_eq!(refused.sender.number("chunks"), 0);
}
