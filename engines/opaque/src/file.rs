//! A plain file as a target, for those who typed the danger.
//!
//! The load goes into a staging file beside it that is named after the transfer, so that no other
//! transfer's is ever taken for it, and which gets the target's name once the receipt is signed.
//! Every byte is written once: the staging file is its own durable prefix, of which [`prefix`]
//! keeps the record. A chunk is acknowledged when both are synced, and so the sender is not asked
//! for it again, whichever side is killed.

mod load;
mod prefix;

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use sealift_engine_api::{Abandoned, Finding, LeftAt, PreparedLoad, Readiness, StopToken};
use sealift_host::place::TargetPlace;
use sealift_protocol::{
    close::Code,
    disposition::Asks,
    error::Error,
    failure::{Failure, Outcome},
    id::TransferId,
    manifest::Plan,
};

use self::{
    load::FileLoad,
    prefix::{Bond, Prefix, Proven, is_own_file},
};
use crate::preflight;

#[derive(Clone)]
pub struct FileTarget {
    place: Arc<TargetPlace>,
}

/// The staging file and the record of what is durable of it, open.
struct Staging {
    file: File,
    prefix: Prefix,
    proven: Proven,
    /// Something was written behind what is proven.
    is_written: bool,
}

impl FileTarget {
    pub fn new(path: &Path) -> Outcome<Self> {
        Ok(Self { place: Arc::new(TargetPlace::new(path)?) })
    }

    fn beside(&self, transfer: TransferId, ending: &str) -> PathBuf {
        let mut name = OsString::from(".");
        name.push(self.place.path.file_name().unwrap_or_default());
        name.push(format!(".{transfer}{ending}"));
        self.place.folder.join(name)
    }

    fn staging(&self, transfer: TransferId) -> PathBuf {
        self.beside(transfer, ".sealift-staging")
    }

    fn record(&self, transfer: TransferId) -> PathBuf {
        self.beside(transfer, ".prefix.sealift-staging")
    }

    /// Whether a load could begin and be shown, and what the target will be.
    pub fn check(&self, readiness: Readiness) -> Outcome<Vec<Finding>> {
        let described = match readiness {
            Readiness::Place => None,
            Readiness::Name | Readiness::Staging => Some(self.place.describe()?),
        };
        // Those of every transfer have names of the same length; this is the longest.
        self.place.try_out(&self.record(TransferId([0; 16])), readiness, |_| Ok(()))?;
        let mut found = vec![preflight::free_space(self.place.room_bytes())];
        found.extend(described.map(|described| Finding::note("place", described)));
        Ok(found)
    }

    /// Opens what an earlier process left of this very transfer and proves how much of it holds, or
    /// starts over.
    pub fn prepare(
        &self,
        transfer: TransferId,
        plan: &Plan,
        asks: Asks,
        stop: Arc<dyn StopToken>,
    ) -> Outcome<PreparedLoad> {
        self.place.made_beforehand()?;
        let bond = Bond { transfer, plan_hash: plan.hash() };
        let earlier = match asks {
            Asks::Continue => self.find(bond, &*stop),
            Asks::StartOver => Ok(None),
        };
        let staging = match earlier.map_err(|error| self.unusable(&error))? {
            Some(staging) => staging,
            None => self.make(bond).map_err(|error| self.unusable(&error))?,
        };
        let found = staging.proven.found().into_iter().collect();
        let load = Box::new(FileLoad::new(self.clone(), transfer, staging, stop));
        Ok(PreparedLoad { found, rows: 0, load })
    }

    fn find(&self, bond: Bond, stop: &dyn StopToken) -> io::Result<Option<Staging>> {
        let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
        let opened = OpenOptions::new().read(true).write(true).custom_flags(flags).open(self.staging(bond.transfer));
        // What is not a file of ours is replaced by one; nothing that it leads to is touched.
        let Ok(mut file) = opened else { return Ok(None) };
        if !is_own_file(&file)? {
            return Ok(None);
        }
        let go_on = || stop.check().is_ok();
        let found = Prefix::find(&self.record(bond.transfer), bond, &mut file, go_on)?;
        Ok(found.map(|(prefix, proven)| Staging { file, prefix, proven, is_written: false }))
    }

    fn make(&self, bond: Bond) -> io::Result<Staging> {
        let staging = self.staging(bond.transfer);
        let record = self.record(bond.transfer);
        for path in [&staging, &record] {
            remove(path)?;
        }
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(staging)?;
        let prefix = Prefix::create(&record, bond)?;
        self.place.sync_folder()?;
        Ok(Staging { file, prefix, proven: Proven::default(), is_written: false })
    }

    /// What is written goes into the file that will get the target's name (fault S4).
    fn check_in_place(&self, transfer: TransferId, file: &File) -> Outcome {
        let own = file.metadata().map_err(|error| self.place.cannot_write(&error))?;
        let staging = self.staging(transfer);
        let is_there = fs::symlink_metadata(&staging)
            .is_ok_and(|found| (found.dev(), found.ino(), found.nlink()) == (own.dev(), own.ino(), 1));
        if is_there {
            return Ok(());
        }
        let what = format!("the staging file {} was removed or replaced while it was written", staging.display());
        let next = "Find out by whom. Then give the same commands again: what is missing is sent again.";
        Err(Failure::new(Code::TargetFailed, what, next))
    }

    fn unusable(&self, error: &io::Error) -> Failure {
        match error.kind() {
            ErrorKind::Interrupted => Failure::new(Code::Interrupted, "the load was stopped", ""),
            ErrorKind::WouldBlock => Error::new(Code::TransferBusy, "staging file").into(),
            _ => self.place.cannot_write(error),
        }
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

    /// The load is published for good: its record has done its service.
    pub fn forget(&self, transfer: TransferId) {
        let _ = remove(&self.record(transfer));
    }

    pub fn abandon(&self, transfer: TransferId, left_at: LeftAt) -> Outcome<Abandoned> {
        let removed = fs::remove_file(self.staging(transfer));
        remove(&self.record(transfer)).map_err(|error| self.place.cannot_write(&error))?;
        let may_be_published = left_at == LeftAt::ReceiptSigned && self.place.path.exists();
        match removed {
            Ok(()) => Ok(Abandoned::Dropped),
            Err(error) if error.kind() == ErrorKind::NotFound && may_be_published => Ok(Abandoned::Published),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Abandoned::Dropped),
            Err(error) => Err(self.place.cannot_write(&error)),
        }
    }

    /// The file that holds what is written so far, if anything is.
    pub fn staged(&self, transfer: TransferId) -> Option<PathBuf> {
        Some(self.staging(transfer)).filter(|staging| fs::symlink_metadata(staging).is_ok_and(|found| found.len() > 0))
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
