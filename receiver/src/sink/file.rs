//! A plain file as a target, for those who typed the danger.
//!
//! The load goes into a staging file beside it that is named after the transfer, so that no other transfer's is ever taken for
//! it, and which gets the target's name once the receipt is signed. What was proven stays there until then, whoever stops.

use std::{
    ffi::OsString,
    fs::{self, File, Metadata, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use sealift_agent::{
    failure::{Failure, Outcome},
    output::rename_new,
};
use sealift_protocol::{close::Code, id::TransferId};

pub struct FileTarget {
    path: PathBuf,
    transfer: OnceLock<TransferId>,
    /// From here on the staging file is kept, or has the target's name.
    proven: AtomicBool,
}

impl FileTarget {
    pub fn new(path: &Path) -> Outcome<Self> {
        match path.file_name() {
            Some(_) => Ok(Self { path: path.to_owned(), transfer: OnceLock::new(), proven: AtomicBool::new(false) }),
            None => Err(Failure::usage(format!("the target {} names no file", path.display()), "")),
        }
    }

    fn staging(&self, transfer: TransferId) -> PathBuf {
        let mut name = OsString::from(".");
        name.push(self.path.file_name().unwrap_or_default());
        name.push(format!(".{transfer}.sealift-staging"));
        self.path.with_file_name(name)
    }

    pub fn prepare(&self, transfer: TransferId) -> Outcome {
        let _ = self.transfer.set(transfer);
        match fs::symlink_metadata(&self.path) {
            Ok(found) if found.is_file() && found.len() == 0 => {}
            Ok(_) => return Err(self.exists()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(self.cannot_write(&error)),
        }
        // What an earlier process left of this transfer is not gone on with: its chunks are in the journal.
        let staging = self.staging(transfer);
        let _ = fs::remove_file(&staging);
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staging);
        made.map(drop).map_err(|error| self.cannot_write(&error))
    }

    /// The staging file, to be written from its beginning, and what it is called in an error.
    pub fn open(&self) -> Outcome<(File, String)> {
        let transfer = self.transfer.get().ok_or_else(|| Failure::new(Code::Internal, "no staging file", ""))?;
        let out = OpenOptions::new().write(true).open(self.staging(*transfer));
        let out = out.map_err(|error| self.cannot_write(&error))?;
        Ok((out, format!("the target {}", self.path.display())))
    }

    pub fn prove(&self) {
        self.proven.store(true, Ordering::SeqCst);
    }

    /// Gives the staging file the target's name. Called again after a crash, finds it there.
    pub fn publish(&self, transfer: TransferId) -> Outcome {
        let staging = self.staging(transfer);
        // Nothing but a plain file is taken for the load, or for the empty file that it may replace.
        let named = fs::symlink_metadata(&self.path).ok().filter(Metadata::is_file);
        let shown = named.map(|found| found.len());
        // The target that is there was made by the rename; one of no bytes need not have been.
        let was_renamed = fs::symlink_metadata(&staging).is_err() && shown.is_some_and(|bytes| bytes > 0);
        if !was_renamed {
            // An empty file under the final name is the one thing that may be replaced.
            if shown == Some(0) && staging.exists() {
                let _ = fs::remove_file(&self.path);
            }
            rename_new(&staging, &self.path).map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => self.exists(),
                _ => self.cannot_write(&error),
            })?;
        }
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| self.cannot_write(&error))
    }

    pub fn abandon_earlier(&self, transfer: TransferId, proven: bool) -> Outcome<bool> {
        match fs::remove_file(self.staging(transfer)) {
            Ok(()) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(proven && self.path.exists()),
            Err(error) => Err(self.cannot_write(&error)),
        }
    }

    pub fn staged_bytes(&self, transfer: TransferId) -> u64 {
        fs::symlink_metadata(self.staging(transfer)).map_or(0, |found| found.len())
    }

    /// Nothing of it is durable before its end; then all of it is.
    pub fn suspend(&self) {
        if !self.proven.load(Ordering::SeqCst) {
            self.abandon();
        }
    }

    /// Once it is shown, there is no staging file of this transfer's any more.
    pub fn abandon(&self) {
        if let Some(transfer) = self.transfer.get() {
            let _ = fs::remove_file(self.staging(*transfer));
        }
    }

    fn exists(&self) -> Failure {
        let next = "Choose another name, or remove it yourself: nothing is ever overwritten.";
        Failure::new(Code::TargetNotEmpty, format!("the target {} exists", self.path.display()), next)
    }

    fn cannot_write(&self, error: &io::Error) -> Failure {
        super::opaque::cannot_write(&format!("the target {}", self.path.display()), error)
    }
}
