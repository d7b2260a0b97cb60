//! The staging file: beside the target, readable by its owner alone, and there under the target's name only at the end.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, Metadata, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags};
use sealift_agent::failure::{Failure, Outcome};
use sealift_protocol::{close::Code, sqlite::LEDGER_TABLE};

use super::mark::{Mark, Owner};

/// What SQLite puts beside a database.
const SIBLINGS: [&str; 3] = ["-journal", "-wal", "-shm"];

/// What the mark of a finished load is called, after the staging file.
const MARK: &str = "-finished";

/// The target's path, and that of the file which becomes it.
pub struct Staging {
    folder: PathBuf,
    target: PathBuf,
    file: PathBuf,
    mark: Mark,
}

/// Which file on which device.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Identity(u64, u64);

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self(metadata.dev(), metadata.ino())
    }

    pub fn text(self) -> String {
        format!("{} {}\n", self.0, self.1)
    }
}

impl Staging {
    pub fn new(target: &Path) -> Outcome<Self> {
        let next = "Give --target the path of a file in a folder that exists.";
        let named = target.file_name().map(OsStr::to_owned);
        let Some(name) = named else {
            return Err(Failure::new(Code::TargetFailed, format!("{} names no file", target.display()), next));
        };
        // Canonical, so that what happens to links or the working folder later does not lead elsewhere.
        let folder = std::path::absolute(target)
            .and_then(|target| fs::canonicalize(target.parent().unwrap_or(Path::new("/"))))
            .map_err(|error| {
                let what = format!("the folder of the target {} cannot be used", target.display());
                Failure::io(Code::TargetFailed, what, &error, next)
            })?;
        let mut staged = OsString::from(".");
        staged.push(&name);
        staged.push(".sealift-staging");
        let file = folder.join(staged);
        Ok(Self { target: folder.join(name), mark: Mark::new(beside(&file, MARK)), file, folder })
    }

    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Makes the file, empty, having judged that nothing is in its way.
    pub fn create(&self) -> Outcome<Identity> {
        self.check_target()?;
        self.remove_leftover()?;
        let create = || {
            // Mode 0600 from the first moment; O_EXCL does not follow a link that somebody put there.
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.file)?;
            let metadata = file.metadata()?;
            sync_folder(&self.folder)?;
            Ok(Identity::of(&metadata))
        };
        create().map_err(|error: io::Error| self.refused("made", &error))
    }

    /// The target may be missing, or a file of no bytes. Anything else is somebody's.
    pub fn check_target(&self) -> Outcome {
        let shown = self.target.display();
        let in_the_way =
            |what| Err(Failure::new(Code::TargetNotEmpty, what, "Choose another target, or remove it yourself."));
        match fs::symlink_metadata(&self.target) {
            Ok(metadata) if metadata.is_file() && metadata.len() == 0 => {}
            Ok(_) => return in_the_way(format!("{shown} exists and is not an empty file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(self.refused("looked for", &error)),
        }
        for sibling in SIBLINGS {
            if fs::symlink_metadata(beside(&self.target, sibling)).is_ok() {
                return in_the_way(format!("{shown}{sibling} exists: a database of this name is or was in use"));
            }
        }
        Ok(())
    }

    /// Removes what a killed receiver left: a file of this user's that is empty, holds a ledger or is marked as finished,
    /// and that nobody loads into now. Anything else is not touched.
    fn remove_leftover(&self) -> Outcome {
        let metadata = match fs::symlink_metadata(&self.file) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.remove_siblings_of_none(),
            Err(error) => return Err(self.refused("looked for", &error)),
        };
        let ours = metadata.is_file() && metadata.uid() == nix::unistd::geteuid().as_raw() && metadata.nlink() == 1;
        if !ours || !self.is_unfinished_load(Identity::of(&metadata))? {
            let what = format!("{} is in the way and is no unfinished load", self.file.display());
            return Err(Failure::new(Code::TargetFailed, what, "Look at what it is, and remove or rename it."));
        }
        self.remove(Identity::of(&metadata));
        Ok(())
    }

    /// A journal without its database would be applied to the new one.
    fn remove_siblings_of_none(&self) -> Outcome {
        for sibling in SIBLINGS {
            match fs::remove_file(beside(&self.file, sibling)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(self.refused("cleaned up", &error)),
                _ => {}
            }
        }
        self.mark.remove().map_err(|error| self.refused("cleaned up", &error))
    }

    fn is_unfinished_load(&self, found: Identity) -> Outcome<bool> {
        let busy = || {
            let what = format!("another receiver is loading into {}", self.target.display());
            Failure::new(Code::TargetFailed, what, "Wait for it, stop it, or choose another target.")
        };
        let flags =
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let look = || -> rusqlite::Result<bool> {
            let connection = Connection::open_with_flags(&self.file, flags)?;
            connection.busy_timeout(Duration::ZERO)?;
            connection.execute_batch("BEGIN EXCLUSIVE")?;
            let sql = "SELECT NOT EXISTS(SELECT 1 FROM sqlite_schema)
                       OR EXISTS(SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1)";
            connection.query_row(sql, [LEDGER_TABLE], |row| row.get(0))
        };
        match look() {
            Ok(true) => Ok(true),
            Ok(false) => match self.mark.owner(found) {
                Owner::Nobody => Ok(false),
                Owner::Gone => Ok(true),
                Owner::Alive => Err(busy()),
            },
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => Err(busy()),
            Err(_) => Ok(false),
        }
    }

    /// That the file is still the one which was made. Whoever may write to the folder could have put another there.
    pub fn check(&self, identity: Identity) -> Outcome {
        match fs::symlink_metadata(&self.file) {
            Ok(metadata) if metadata.is_file() && Identity::of(&metadata) == identity => Ok(()),
            _ => {
                let what = format!("somebody removed or replaced {}", self.file.display());
                Err(Failure::new(
                    Code::TargetFailed,
                    what,
                    "Keep other programs out of the target's folder and start again.",
                ))
            }
        }
    }

    /// Says, durably, that the file is a load of ours although it will hold no ledger any more.
    pub fn mark_finished(&self, identity: Identity) -> Outcome {
        let marked = self.mark.set(identity).and_then(|()| sync_folder(&self.folder));
        marked.map_err(|error| self.refused("marked as finished", &error))
    }

    /// Makes the file and its name durable. No connection may be open: closing any file of a database ends its locks.
    pub fn sync(&self) -> Outcome {
        let sync = || {
            File::open(&self.file)?.sync_all()?;
            sync_folder(&self.folder)
        };
        sync().map_err(|error: io::Error| self.refused("synced", &error))
    }

    /// Gives the file the target's name, if that is still free.
    pub fn publish(&self, identity: Identity) -> Outcome {
        self.check(identity)?;
        self.check_target()?;
        let rename = || {
            // A file of no bytes may be replaced. Otherwise a link, since it cannot replace anything, where rename could.
            if fs::symlink_metadata(&self.target).is_ok() {
                fs::rename(&self.file, &self.target)?;
            } else {
                match fs::hard_link(&self.file, &self.target) {
                    Ok(()) => fs::remove_file(&self.file)?,
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
                    // A file system without links.
                    Err(_) => fs::rename(&self.file, &self.target)?,
                }
            }
            // What is left of it says nothing of a file that has its name.
            let _ = self.mark.remove();
            sync_folder(&self.folder)
        };
        rename().map_err(|error: io::Error| self.refused("given its final name", &error))
    }

    /// Removes the file, if it is still the one that was made, and what SQLite put beside it.
    pub fn remove(&self, identity: Identity) {
        if self.check(identity).is_ok() {
            for sibling in SIBLINGS {
                let _ = fs::remove_file(beside(&self.file, sibling));
            }
            let _ = fs::remove_file(&self.file);
            let _ = self.mark.remove();
            let _ = sync_folder(&self.folder);
        }
    }

    fn refused(&self, what: &str, error: &io::Error) -> Failure {
        let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
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

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
