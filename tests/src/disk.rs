//! A small disk, that fills up and can be made read-only; and one whose blocks can be looked at.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::shared::{find, run, skip};

/// A file system of its own in memory, unmounted when dropped.
pub struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None`, with a word, where mounting is not permitted.
    pub fn mount(options: &str) -> Option<Self> {
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

    pub fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let status = Command::new("mount").args(["-o", &options]).arg(self.0.path()).status().unwrap();
        assert!(status.success());
    }

    pub fn folder(&self) -> &Path {
        self.0.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

/// A file system of the kind that most hosts have, in a file: unmounted when dropped.
pub struct RawDisk {
    folder: TempDir,
    mounted: bool,
}

/// Room for some state directories and the journal of the file system.
const RAW_BYTES: u64 = 64 << 20;

impl RawDisk {
    /// `None`, with a word, where mounting is not permitted.
    pub fn mount() -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("sealift-disk-").tempdir().unwrap();
        let mut disk = Self { folder, mounted: false };
        File::create(disk.image()).unwrap().set_len(RAW_BYTES).unwrap();
        fs::create_dir(disk.folder()).unwrap();
        let Some(mke2fs) = find("mke2fs") else {
            skip("mke2fs is not installed", false);
            return None;
        };
        run(Command::new(mke2fs).args(["-q", "-t", "ext4"]).arg(disk.image()));
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop"]).arg(disk.image()).arg(disk.folder());
        if !mount.output().is_ok_and(|output| output.status.success()) {
            skip("this user may not mount a file system", false);
            return None;
        }
        disk.mounted = true;
        Some(disk)
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    pub fn folder(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    /// Every block, whether or not a file has it, once all is written.
    pub fn unmount(mut self) -> Vec<u8> {
        run(Command::new("umount").arg(self.folder()));
        self.mounted = false;
        fs::read(self.image()).unwrap()
    }
}

impl Drop for RawDisk {
    fn drop(&mut self) {
        if self.mounted {
            let _ = Command::new("umount").arg("--lazy").arg(self.folder()).status();
        }
    }
}
