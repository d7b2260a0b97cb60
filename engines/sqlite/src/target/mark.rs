//! The mark of a finished load. Once the ledger is out of the staging file, nothing inside tells it
//! from somebody's database, nor what became of it once it has its final name; a small file beside
//! it does. So what a receiver killed in between leaves is known for what it is, and the next one
//! can finish it. It goes when nobody will ask any more.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use nix::unistd::geteuid;
use sealift_protocol::id::TransferId;

use super::staging::Identity;

/// A mark is a transfer of 32 digits and a number of at most 20; what is longer is not one.
const MARK_BYTES_MAX: u64 = 64;

/// The mark beside one staging file.
pub struct Mark {
    path: PathBuf,
    /// Open, and locked, as long as this process works on the load.
    held: Mutex<Option<File>>,
}

/// Whose load a file is, by its mark.
#[derive(Debug, PartialEq, Eq)]
pub enum Owner {
    /// There is no mark of this file.
    Nobody,
    /// The load of this transfer, and no other process works on it.
    Free(TransferId),
    /// Another receiver works on it.
    Busy,
}

impl Mark {
    pub fn new(path: PathBuf) -> Self {
        Self { path, held: Mutex::new(None) }
    }

    fn held(&self) -> MutexGuard<'_, Option<File>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the mark, in the place of any other, and durable but for its name: the caller syncs
    /// the folder.
    pub fn set(&self, transfer: TransferId, of: Identity) -> io::Result<()> {
        self.remove()?;
        let mut file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&self.path)?;
        file.try_lock().map_err(io::Error::from)?;
        // The inode without its device, which may have another number after the next boot; the mark
        // lies beside it.
        file.write_all(format!("{transfer} {}\n", of.inode()).as_bytes())?;
        file.sync_all()?;
        *self.held() = Some(file);
        Ok(())
    }

    /// Whose load the file is. One that nobody works on is then this process's.
    pub fn claim(&self, of: Identity) -> Owner {
        self.read(Some(of.inode())).unwrap_or(Owner::Nobody)
    }

    /// Whose load the mark is of, whatever became of the file.
    pub fn owner(&self) -> Owner {
        self.read(None).unwrap_or(Owner::Nobody)
    }

    fn read(&self, inode: Option<u64>) -> io::Result<Owner> {
        let mut held = self.held();
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
            .open(&self.path)?;
        // Another user's says nothing.
        if file.metadata()?.uid() != geteuid().as_raw() {
            return Ok(Owner::Nobody);
        }
        let mut text = String::new();
        (&file).take(MARK_BYTES_MAX).read_to_string(&mut text)?;
        let Some((transfer, found)) = parse(&text) else { return Ok(Owner::Nobody) };
        if inode.is_some_and(|inode| inode != found) {
            return Ok(Owner::Nobody);
        }
        if held.is_none() {
            match file.try_lock() {
                Ok(()) => *held = Some(file),
                Err(TryLockError::WouldBlock) => return Ok(Owner::Busy),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(Owner::Free(transfer))
    }

    /// Lets another process have what the mark is of.
    pub fn release(&self) {
        *self.held() = None;
    }

    /// Removes the mark, whichever process made it.
    pub fn remove(&self) -> io::Result<()> {
        self.release();
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn parse(text: &str) -> Option<(TransferId, u64)> {
    let (transfer, inode) = text.strip_suffix('\n')?.split_once(' ')?;
    Some((TransferId::from_hex(transfer)?, inode.parse().ok()?))
}
