//! The mark of a finished load. Once the ledger is out of the staging file, nothing inside tells it from somebody's
//! database; until it has its final name, a small file beside it does. So what a receiver killed in between leaves is
//! known for what it is, and is not in the way of the next run.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::staging::Identity;

/// A mark says which file it is of, in two numbers; what is longer is not one.
const MARK_BYTES_MAX: u64 = 64;

/// The mark beside one staging file.
pub struct Mark {
    path: PathBuf,
    /// Open, and locked, as long as this process works on the load.
    held: Mutex<Option<File>>,
}

/// Whose load a mark is of.
#[derive(Debug, PartialEq, Eq)]
pub enum Owner {
    /// There is no mark of this file.
    Nobody,
    /// A receiver that is gone.
    Gone,
    /// A receiver that runs.
    Alive,
}

impl Mark {
    pub fn new(path: PathBuf) -> Self {
        Self { path, held: Mutex::new(None) }
    }

    fn held(&self) -> MutexGuard<'_, Option<File>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the mark, durable but for its name: the caller syncs the folder.
    pub fn set(&self, of: Identity) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.path)?;
        file.try_lock().map_err(io::Error::from)?;
        file.write_all(of.text().as_bytes())?;
        file.sync_all()?;
        *self.held() = Some(file);
        Ok(())
    }

    pub fn owner(&self, of: Identity) -> Owner {
        let read = || -> io::Result<Owner> {
            let file = OpenOptions::new().read(true).custom_flags(nix::libc::O_NOFOLLOW).open(&self.path)?;
            let mut text = String::new();
            (&file).take(MARK_BYTES_MAX).read_to_string(&mut text)?;
            Ok(match file.try_lock() {
                _ if text != of.text() => Owner::Nobody,
                Err(TryLockError::WouldBlock) => Owner::Alive,
                _ => Owner::Gone,
            })
        };
        read().unwrap_or(Owner::Nobody)
    }

    /// Removes the mark, whoever made it.
    pub fn remove(&self) -> io::Result<()> {
        *self.held() = None;
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
