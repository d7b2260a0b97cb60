//! Targets whose disk is full or cannot be written.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use sealift_tests::{exit, pair::Pair, shared::skip, sqlite::create_hospital};
use tempfile::TempDir;

/// A file system of its own in memory, unmounted when dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None`, with a word, where mounting is not permitted.
    fn mount(options: &str) -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("sealift-disk-").tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "sealift-test"]).arg(folder.path());
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        if !mounted {
            skip("this user may not mount a file system", false);
            return None;
        }
        Some(Self(folder))
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let status = Command::new("mount").args(["-o", &options]).arg(self.0.path()).status().unwrap();
        assert!(status.success());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

fn source(folder: &Path, rows: u32) -> String {
    let path = folder.join("source.db");
    create_hospital(&path, rows);
    format!("sqlite:{}", path.display())
}

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("sealift-data-").tempdir().unwrap()
}

/// fault-matrix S11: the disk fills up in the middle of the load. Nothing of it stays, and with room a new run works.
#[test]
fn s11_a_full_disk_ends_the_load_and_leaves_nothing() {
    let Some(disk) = SmallDisk::mount("size=2m") else { return };
    let folder = folder();
    let source = source(folder.path(), 20_000);
    let target = format!("sqlite:{}", disk.path("target.db").display());
    let run = || Pair::new(&source, &target).within(Duration::from_secs(120)).run();
    run().assert_codes(exit::UNUSABLE, exit::UNUSABLE).receiver.assert_one_message();
    assert_eq!(disk.names(), Vec::<String>::new());
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
