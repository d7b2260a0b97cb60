//! The staging file: beside the target, readable by its owner alone, and there under the target's
//! name only at the end.

use std::{
    ffi::OsString,
    fs::{self, File, Metadata, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags};
use sealift_engine_api::Readiness;
use sealift_host::place::TargetPlace;
use sealift_protocol::{
    close::Code,
    failure::{Failure, Outcome},
    id::TransferId,
};

use super::mark::{Mark, Owner};
use crate::fail_point::{FORGETTING, FORGOTTEN, REMOVING, RENAMED, STAGED, hit};

/// What SQLite puts beside a database.
const SIBLINGS: [&str; 3] = ["-journal", "-wal", "-shm"];

/// What says of an image how much of it is durable.
const IMAGE_LEDGER: &str = "-pages";

/// What the mark of a finished load is called, after the staging file.
const MARK: &str = "-finished";

/// As long as the mark's, the longest name beside a target.
const PROBE: &str = "-checking";

/// SQLite's own limit of a path (`MAX_PATHNAME` of its Unix files); a longer one cannot be opened.
const PATH_BYTES_MAX: usize = 512;

/// The target's place, and the path of the file which becomes it.
pub struct Staging {
    pub place: TargetPlace,
    file: PathBuf,
    pub mark: Mark,
}

/// Which file on which device.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Identity(u64, u64);

impl Identity {
    pub fn of(metadata: &Metadata) -> Self {
        Self(metadata.dev(), metadata.ino())
    }

    pub fn inode(self) -> u64 {
        self.1
    }
}

impl Staging {
    pub fn new(target: &Path) -> Outcome<Self> {
        let place = TargetPlace::new(target)?;
        let mut staged = OsString::from(".");
        staged.push(place.path.file_name().unwrap_or_default());
        staged.push(".sealift-staging");
        let file = place.folder.join(staged);
        Ok(Self { mark: Mark::new(beside(&file, MARK)), file, place })
    }

    /// Whether files can be made in the place, and the engine can lock and write them.
    pub fn try_out(&self, readiness: Readiness) -> Outcome {
        let path_bytes = self.file.as_os_str().len();
        if path_bytes > PATH_BYTES_MAX {
            let what =
                format!("the path of the target is too long for SQLite: its staging file has {path_bytes} bytes");
            let next = format!("SQLite opens paths of up to {PATH_BYTES_MAX} bytes. Choose a shorter one.");
            return Err(Failure::new(Code::TargetFailed, what, next));
        }
        self.place.try_out(&beside(&self.file, PROBE), readiness, |probe| {
            try_locks(probe).map_err(|_| {
                let what = format!("SQLite cannot use a file in {}", self.place.folder.display());
                let next = "It has to lock the file. Network file systems without locks cannot hold a database: choose \
                            another folder.";
                Failure::new(Code::TargetFailed, what, next)
            })
        })
    }

    /// Whether this process, or an earlier one of its user, has given the staging file the owner of
    /// a target that was made beforehand: the last step before it gets its name.
    pub fn is_handed_over(&self, staged: &Metadata) -> bool {
        let due = fs::symlink_metadata(&self.place.path).is_ok_and(|target| target.uid() == staged.uid());
        due && self.mark.claim(Identity::of(staged)) != Owner::Nobody
    }

    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Where the ledger of an image is kept: in the file itself there is no place for it.
    pub fn image_ledger(&self) -> PathBuf {
        beside(&self.file, IMAGE_LEDGER)
    }

    /// Makes the file, empty, where nothing is.
    pub fn create(&self) -> Outcome<Identity> {
        let create = || {
            // Mode 0600 from the first moment; O_EXCL does not follow a link.
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.file)?;
            let metadata = file.metadata()?;
            self.place.sync_folder()?;
            Ok(Identity::of(&metadata))
        };
        let identity = create().map_err(|error: io::Error| self.refused("made", &error))?;
        hit(STAGED);
        Ok(identity)
    }

    /// The target may be missing, or a file of no bytes. Anything else is somebody's.
    pub fn check_target(&self) -> Outcome {
        self.place.made_beforehand()?;
        let shown = self.place.path.display();
        for sibling in SIBLINGS {
            if fs::symlink_metadata(beside(&self.place.path, sibling)).is_ok() {
                let what = format!("{shown}{sibling} exists: a database of this name is or was in use");
                return Err(Failure::new(Code::TargetNotEmpty, what, "Choose another target, or remove it yourself."));
            }
        }
        Ok(())
    }

    /// A journal without its database would be applied to the next one.
    pub fn remove_siblings(&self) -> Outcome {
        let remove = |path: PathBuf| match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        let mut siblings = SIBLINGS.iter().chain([&IMAGE_LEDGER]);
        let removed = siblings.try_for_each(|sibling| remove(beside(&self.file, sibling)));
        removed.map_err(|error| self.refused("cleaned up", &error))
    }

    /// What lies about without the file.
    pub fn remove_rest(&self) -> Outcome {
        self.remove_siblings()?;
        self.mark.remove().map_err(|error| self.refused("cleaned up", &error))
    }

    /// That the file is still the one which was made. Another user who may
    /// write to the folder could have put another there.
    pub fn check(&self, identity: Identity) -> Outcome {
        match fs::symlink_metadata(&self.file) {
            Ok(metadata) if metadata.is_file() && Identity::of(&metadata) == identity => Ok(()),
            _ => {
                let what = format!("another program removed or replaced {}", self.file.display());
                Err(Failure::new(
                    Code::TargetFailed,
                    what,
                    "Keep other programs out of the target's folder and start again.",
                ))
            }
        }
    }

    /// Says, durably, whose load the file is although it will hold no ledger any more.
    pub fn mark_finished(&self, transfer: TransferId, identity: Identity) -> Outcome {
        let marked = self.mark.set(transfer, identity).and_then(|()| self.place.sync_folder());
        marked.map_err(|error| self.refused("marked as finished", &error))
    }

    /// Makes durable what an earlier process wrote. No connection may be open.
    pub fn sync_leftover(&self) -> io::Result<()> {
        File::open(&self.file)?.sync_all()?;
        for sibling in ["-journal", "-wal"] {
            match File::open(beside(&self.file, sibling)) {
                Ok(journal) => journal.sync_all()?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// That everything is in the file itself: without its log, it would get its final name
    /// incomplete.
    pub fn check_closed(&self) -> Outcome {
        match fs::symlink_metadata(beside(&self.file, "-wal")) {
            Ok(log) if log.len() > 0 => Err(self.refused("closed", &io::ErrorKind::ResourceBusy.into())),
            _ => Ok(()),
        }
    }

    /// Makes the file and its name durable. No connection may be open: closing any file of a
    /// database ends its locks.
    pub fn sync(&self) -> Outcome {
        let sync = || {
            File::open(&self.file)?.sync_all()?;
            self.place.sync_folder()
        };
        sync().map_err(|error: io::Error| self.refused("synced", &error))
    }

    /// Gives the file the target's name, if that is still free.
    pub fn rename(&self, identity: Identity) -> Outcome {
        self.check(identity)?;
        self.check_target()?;
        self.place.show(&self.file)?;
        self.place.sync_folder().map_err(|error| self.refused("given its final name", &error))?;
        hit(RENAMED);
        self.remove_siblings()
    }

    /// Ends what `rename` began, if the target is the load that the mark tells of: whether it is.
    pub fn is_renamed(&self, transfer: TransferId) -> Outcome<bool> {
        let found = fs::symlink_metadata(&self.place.path).ok().filter(Metadata::is_file);
        let Some(target) = found else { return Ok(false) };
        match self.mark.claim(Identity::of(&target)) {
            Owner::Free(owner) if owner == transfer => {}
            Owner::Busy => return Err(self.busy()),
            _ => return Ok(false),
        }
        self.place.sync_folder().map_err(|error| self.refused("given its final name", &error))?;
        self.remove_siblings()?;
        Ok(true)
    }

    /// Removes the mark of a load that has its final name.
    pub fn forget(&self, transfer: TransferId) {
        if fs::symlink_metadata(&self.file).is_err() && self.mark.owner() == Owner::Free(transfer) {
            hit(FORGETTING);
            let _ = self.mark.remove();
            let _ = self.place.sync_folder();
            hit(FORGOTTEN);
        }
    }

    /// Removes the file, if it is still the one that was made, and what SQLite put beside it.
    pub fn remove(&self, identity: Identity) {
        if self.check(identity).is_ok() {
            // The file first: without the journal that undoes its last part, it would pass for a
            // load that can be resumed.
            let _ = fs::remove_file(&self.file);
            let _ = self.place.sync_folder();
            hit(REMOVING);
            let _ = self.remove_rest();
            let _ = self.place.sync_folder();
        }
    }

    /// Another receiver has the file.
    pub fn busy(&self) -> Failure {
        let what = format!("another receiver is loading into {}", self.place.path.display());
        Failure::new(Code::TargetFailed, what, "Wait for it, stop it, or choose another target.")
    }

    pub fn refused(&self, what: &str, error: &io::Error) -> Failure {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        let full = matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge);
        let code = if full { Code::TargetFull } else { Code::TargetFailed };
        let next =
            "Check the target's folder: that it is on a writable disk with room, and that this user may write to it.";
        Failure::io(code, format!("the staging file {} cannot be {what}", self.file.display()), error, next)
    }
}

fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// The engine opens the file and takes its strongest lock.
fn try_locks(probe: &Path) -> rusqlite::Result<()> {
    File::options().write(true).truncate(true).open(probe).map_err(|_| rusqlite::Error::InvalidQuery)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(probe, flags)?;
    // No journal of its own: that would have a name which is longer than any that a load needs.
    connection.execute_batch("PRAGMA journal_mode=MEMORY; BEGIN EXCLUSIVE; CREATE TABLE probe(a); COMMIT")
}
