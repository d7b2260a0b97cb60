//! A plain file as a target, for those who typed the danger.
//!
//! The load goes into a staging file beside it that is named after the transfer, so that no other transfer's is ever taken for
//! it, and which gets the target's name once the receipt is signed. What was proven stays there until then, whoever stops.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use sealift_agent::failure::{Failure, Outcome};
use sealift_protocol::{close::Code, id::TransferId};

use super::place::{Readiness, TargetPlace};

pub struct FileTarget {
    place: TargetPlace,
    transfer: OnceLock<TransferId>,
    /// From here on the staging file is kept, or has the target's name.
    proven: AtomicBool,
}

impl FileTarget {
    pub fn new(path: &Path) -> Outcome<Self> {
        let place = TargetPlace::new(path)?;
        Ok(Self { place, transfer: OnceLock::new(), proven: AtomicBool::new(false) })
    }

    fn staging(&self, transfer: TransferId) -> PathBuf {
        let mut name = OsString::from(".");
        name.push(self.place.path.file_name().unwrap_or_default());
        name.push(format!(".{transfer}.sealift-staging"));
        self.place.folder.join(name)
    }

    /// Whether a load could begin and be shown, and what the target will be.
    pub fn check(&self, readiness: Readiness) -> Outcome<Option<String>> {
        let described = match readiness {
            Readiness::Place => None,
            Readiness::Name | Readiness::Staging => Some(self.place.describe()?),
        };
        // Every transfer's staging file has a name of the same length.
        self.place.try_out(&self.staging(TransferId([0; 16])), readiness, |_| Ok(()))?;
        Ok(described)
    }

    pub fn prepare(&self, transfer: TransferId) -> Outcome {
        let _ = self.transfer.set(transfer);
        self.place.made_beforehand()?;
        // What an earlier process left of this transfer is not gone on with: its chunks are in the journal.
        let staging = self.staging(transfer);
        let _ = fs::remove_file(&staging);
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staging);
        made.map(drop).map_err(|error| self.place.cannot_write(&error))
    }

    /// The staging file, to be written from its beginning, and what it is called in an error.
    pub fn open(&self) -> Outcome<(File, String)> {
        let transfer = self.transfer.get().ok_or_else(|| Failure::new(Code::Internal, "no staging file", ""))?;
        let out = OpenOptions::new().write(true).open(self.staging(*transfer));
        let out = out.map_err(|error| self.place.cannot_write(&error))?;
        Ok((out, format!("the target {}", self.place.path.display())))
    }

    pub fn prove(&self) {
        self.proven.store(true, Ordering::SeqCst);
    }

    /// Gives the staging file the target's name. Called again after a crash, finds it there.
    pub fn publish(&self, transfer: TransferId) -> Outcome {
        let staging = self.staging(transfer);
        // The target that is there was made by the rename; one of no bytes need not have been.
        // Nothing but a plain file is taken for the load.
        let has_bytes = |path: &Path| fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.len() > 0);
        let was_renamed = fs::symlink_metadata(&staging).is_err() && has_bytes(&self.place.path);
        if !was_renamed {
            self.place.show(&staging)?;
        }
        self.place.sync_folder().map_err(|error| self.place.cannot_write(&error))
    }

    pub fn abandon_earlier(&self, transfer: TransferId, proven: bool) -> Outcome<bool> {
        match fs::remove_file(self.staging(transfer)) {
            Ok(()) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(proven && self.place.path.exists()),
            Err(error) => Err(self.place.cannot_write(&error)),
        }
    }

    /// The file that holds what is written so far, if there is one.
    pub fn staged(&self, transfer: TransferId) -> Option<PathBuf> {
        Some(self.staging(transfer)).filter(|staging| fs::symlink_metadata(staging).is_ok())
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
}
