//! The folder of a sealed log, held open: what is done to its files is done below this folder,
//! whatever its path comes to mean. A folder or file that another user could have put there or can
//! write to is refused (fault S9).

use std::{
    fs::{File, Metadata},
    io,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, Flock, FlockArg, OFlag, open, openat, renameat},
    sys::stat::{Mode, fstatat},
    unistd::{UnlinkatFlags, fsync, geteuid, unlinkat},
};
use sealift_protocol::close::Code;

use crate::failure::{Failure, Outcome};

pub(super) struct Folder {
    handle: OwnedFd,
    path: PathBuf,
}

/// Never through a link, never into a child, never waiting for the other end of a FIFO.
const SAFE: OFlag = OFlag::O_NOFOLLOW.union(OFlag::O_CLOEXEC).union(OFlag::O_NONBLOCK);

impl Folder {
    pub(super) fn open(path: &Path) -> Outcome<Self> {
        let wrong = |what: &str| {
            let next = "Sealed logs lie in a folder of this user's own, mode 0700, not behind a link.";
            Failure::new(Code::Preflight, format!("the folder {} {what}", path.display()), next)
        };
        let handle = open(path, SAFE | OFlag::O_DIRECTORY | OFlag::O_RDONLY, Mode::empty())
            .map_err(|errno| wrong(&format!("cannot be opened: {}", reason(errno))))?;
        let folder = File::from(handle);
        let found = folder.metadata().map_err(|error| failed(path, &error))?;
        if found.uid() != geteuid().as_raw() {
            return Err(wrong("belongs to another user"));
        }
        if found.mode() & 0o077 != 0 {
            return Err(wrong("can be entered by others"));
        }
        Ok(Self { handle: folder.into(), path: path.to_path_buf() })
    }

    /// # Panics
    /// If `name` is not a plain name: a bug in the caller.
    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        assert!(!name.is_empty() && !name.contains('/') && name != "." && name != "..");
        self.path.join(name)
    }

    /// Makes a new file and locks it.
    pub(super) fn create(&self, name: &str) -> Outcome<Flock<File>> {
        let flags = SAFE | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_RDWR;
        let file = openat(&self.handle, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(|errno| failed(&self.path_of(name), &errno.into()))?;
        self.checked(name, file.into())
    }

    /// Opens and locks a file that is there, or says that there is none.
    pub(super) fn open_file(&self, name: &str) -> Outcome<Option<Flock<File>>> {
        match openat(&self.handle, name, SAFE | OFlag::O_RDWR, Mode::empty()) {
            Ok(file) => self.checked(name, file.into()).map(Some),
            Err(Errno::ENOENT) => Ok(None),
            Err(Errno::ELOOP) => Err(self.refused(name, "is a symbolic link")),
            Err(Errno::EISDIR) => Err(self.refused(name, "is a folder")),
            Err(errno) => Err(failed(&self.path_of(name), &errno.into())),
        }
    }

    fn checked(&self, name: &str, file: File) -> Outcome<Flock<File>> {
        let file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            Errno::EWOULDBLOCK => Failure::new(
                Code::TransferBusy,
                format!("{} is in use by another process", self.path_of(name).display()),
                "Wait for it, or stop it.",
            ),
            errno => failed(&self.path_of(name), &errno.into()),
        })?;
        // Looked at after it was locked: who held the lock before may have removed the file.
        let found = file.metadata().map_err(|error| failed(&self.path_of(name), &error))?;
        match objection(&found) {
            Some(what) => Err(self.refused(name, what)),
            None => Ok(file),
        }
    }

    fn refused(&self, name: &str, what: &str) -> Failure {
        let next = "It was not made by this program. Find out where it comes from, and remove it.";
        Failure::new(Code::Preflight, format!("{} {what}", self.path_of(name).display()), next)
    }

    /// Whether `name` still stands for `file`.
    pub(super) fn names(&self, name: &str, file: &File) -> io::Result<bool> {
        let ours = file.metadata()?;
        match fstatat(&self.handle, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) => Ok((found.st_dev, found.st_ino) == (ours.dev(), ours.ino())),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    pub(super) fn has(&self, name: &str) -> io::Result<bool> {
        match fstatat(&self.handle, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&self.handle, from, &self.handle, to)?)
    }

    /// Removes a file, or finds it gone.
    pub(super) fn unlink(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.handle, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(fsync(&self.handle)?)
    }
}

/// Why an agent does not use a file that it found under the name of its own.
fn objection(found: &Metadata) -> Option<&'static str> {
    if !found.is_file() {
        Some("is not a plain file")
    } else if found.uid() != geteuid().as_raw() {
        Some("belongs to another user")
    } else if found.mode() & 0o7777 != 0o600 {
        Some("does not have mode 0600")
    } else if found.nlink() == 0 {
        Some("was removed while it was opened")
    } else if found.nlink() > 1 {
        Some("has another name: it is a hard link")
    } else {
        None
    }
}

fn reason(errno: Errno) -> String {
    crate::failure::io_reason(&errno.into())
}

/// An operation on a log that the system refused.
pub(super) fn failed(path: &Path, error: &io::Error) -> Failure {
    let full = matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG));
    let code = if full { Code::LogFull } else { Code::LogFailed };
    let (what, hints) = crate::failure::explain(code);
    Failure::io(code, format!("{what} ({})", path.display()), error, hints)
}
