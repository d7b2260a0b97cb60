//! The one folder in which an agent puts anything: receipts and the audit log.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, Flock, FlockArg, RenameFlags, renameat2},
};
use sealift_protocol::{close::Code, id::TransferId, manifest::SignedReceipt};

use crate::{
    fail_point::{self, Point},
    failure::{Failure, Outcome},
    own_file::{destroy_own, fill_with_zeros, open_own, sync_folder_of},
};

/// A folder of mode 0700 that belongs to the user of this process.
#[derive(Clone, Debug)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// Opens `given`, or the place that the system (for a service), the XDG base directories or
    /// HOME suggest, and makes it if it is missing.
    pub fn open(given: Option<PathBuf>, program: &str) -> Outcome<Self> {
        let path = given.or_else(|| default_path(program)).ok_or_else(|| {
            let what = "there is no place for state: HOME is not set, or is no absolute path";
            Failure::new(Code::Preflight, what, "Use --state-dir DIR.")
        })?;
        let path = std::path::absolute(&path).map_err(|error| unusable(&path, &error))?;
        make_folder(&path).map_err(|error| unusable(&path, &error))?;
        let found = fs::symlink_metadata(&path).map_err(|error| unusable(&path, &error))?;
        let next = "Give --state-dir a folder of its own, owned by this user, mode 0700.";
        let wrong = |what: &str| {
            Err(Failure::new(Code::Preflight, format!("the state directory {} {what}", path.display()), next))
        };
        if !found.is_dir() {
            return wrong("is not a folder");
        }
        if found.uid() != nix::unistd::geteuid().as_raw() {
            return wrong("belongs to another user");
        }
        if found.mode() & 0o077 != 0 {
            return wrong("can be entered by others");
        }
        let state = Self(path);
        state.subfolder("receipts")?;
        Ok(state)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Holds the whole directory, for what is made there once: the agents that start at once take
    /// turns. Blocks.
    pub fn lock(&self) -> Outcome<Flock<File>> {
        let folder = File::open(&self.0).map_err(|error| unusable(&self.0, &error))?;
        Flock::lock(folder, FlockArg::LockExclusive).map_err(|(_, errno)| unusable(&self.0, &errno.into()))
    }

    /// A folder of its own in this one.
    pub fn subfolder(&self, name: &str) -> Outcome<PathBuf> {
        let path = self.0.join(name);
        make_folder(&path).map_err(|error| unusable(&path, &error))?;
        Ok(path)
    }

    /// Keeps a receipt, whole or not at all, and durable when this returns.
    pub fn keep_receipt(&self, transfer: TransferId, receipt: &SignedReceipt) -> Outcome<PathBuf> {
        let folder = self.subfolder("receipts")?;
        let path = folder.join(format!("{transfer}.receipt"));
        write_durably(&path, &receipt.to_bytes()).map_err(|error| unusable(&path, &error))?;
        Ok(path)
    }

    /// Drops the receipt of a load that was never shown.
    pub fn drop_receipt(&self, transfer: TransferId) -> Outcome {
        remove(&self.subfolder("receipts")?.join(format!("{transfer}.receipt")))
    }

    /// Drops what a process left that was killed while it kept the receipt.
    pub(crate) fn drop_unfinished_receipt(&self, transfer: TransferId) -> Outcome {
        remove(&unfinished(&self.0.join("receipts").join(format!("{transfer}.receipt"))))
    }

    /// The receipt of a transfer and where it is, if it is kept here and good.
    pub fn receipt(&self, transfer: TransferId) -> Option<(SignedReceipt, PathBuf)> {
        let path = self.0.join("receipts").join(format!("{transfer}.receipt"));
        let receipt = SignedReceipt::from_bytes(&fs::read(&path).ok()?).ok()?;
        let good = receipt.verify().is_ok() && receipt.receipt.grant.grant.transfer == transfer;
        good.then_some((receipt, path))
    }
}

fn remove(path: &Path) -> Outcome {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(unusable(path, &error)),
        _ => Ok(()),
    }
}

/// What is written before it gets the name of `path`.
fn unfinished(path: &Path) -> PathBuf {
    path.with_extension("partial")
}

fn unusable(path: &Path, error: &std::io::Error) -> Failure {
    let next = "Check --state-dir: owner, mode, free space, and that the file system is not read-only.";
    Failure::io(Code::Preflight, format!("the state directory cannot be used ({})", path.display()), error, next)
}

/// What is not absolute is ignored, as the XDG base directory specification wants it: it would be
/// another folder for each folder that the program is started in.
fn default_path(program: &str) -> Option<PathBuf> {
    let from = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    // systemd's StateDirectory= is already the service's own.
    from("STATE_DIRECTORY")
        .or_else(|| from("XDG_STATE_HOME").map(|base| base.join(program)))
        .or_else(|| from("HOME").map(|home| home.join(".local/state").join(program)))
}

/// Makes a folder of this user's own, and those above it that are missing; durable when this
/// returns. One that is there stays as it is.
pub(crate) fn make_folder(path: &Path) -> std::io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => sync_folder_of(path),
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            // Where nothing can be made, as in /proc, the parent is there.
            let missing = path.parent().filter(|parent| !parent.is_dir());
            missing.map_or(Err(error), make_folder)?;
            make_folder(path)
        }
        Err(error) => Err(error),
    }
}

/// Replaces what a file holds, whole or not at all; durable when this returns. What was there
/// before, and what a process left that was killed while it wrote, may be a key: it keeps a name
/// until it is overwritten, so that the next process overwrites it if this one is killed.
pub fn write_durably(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let beside = unfinished(path);
    destroy_own(&beside)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fail_point::hit(Point::RecordWritten);
    if take_place(&beside, path)? {
        sync_folder_of(path)?;
        fail_point::hit(Point::RecordReplaced);
        return destroy_own(&beside);
    }
    sync_folder_of(path)
}

/// Overwrites and removes what [`write_durably`] has written to `path`, and what it left beside it
/// when it was killed.
pub(crate) fn destroy_written(path: &Path) -> std::io::Result<()> {
    destroy_own(&unfinished(path))?;
    destroy_own(path)
}

/// Gives `path` to the file `beside`; whether what had it until now has the name `beside` in
/// exchange.
fn take_place(beside: &Path, path: &Path) -> std::io::Result<bool> {
    match renameat2(AT_FDCWD, beside, AT_FDCWD, path, RenameFlags::RENAME_EXCHANGE) {
        Ok(()) => return Ok(true),
        Err(Errno::ENOENT) => fs::rename(beside, path)?,
        // A file system without the exchange, such as NFS: what is replaced has no name for a
        // moment.
        Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => {
            let before = open_own(path, OpenOptions::new().write(true))?;
            fs::rename(beside, path)?;
            fill_with_zeros(&before)?;
        }
        Err(errno) => return Err(errno.into()),
    }
    Ok(false)
}
