//! Small files that hold keys or decide about a transfer: plain files of this user alone, with one
//! name, not followed through any link.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use nix::libc::{O_CLOEXEC, O_NOFOLLOW, O_NONBLOCK};
use sealift_protocol::close::Code;
use zeroize::Zeroizing;

use crate::failure::{Failure, Outcome};

/// Opens without following a link, and without waiting for the other end of a FIFO.
pub(crate) fn open_own(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    options.mode(0o600).custom_flags(O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK).open(path)
}

/// What is in the file, if it is there; no more than one byte over `bytes_max`.
pub fn read_own(path: &Path, bytes_max: usize) -> Outcome<Option<Zeroizing<Vec<u8>>>> {
    let mut file = match open_own(path, OpenOptions::new().read(true)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(_) => return Err(not_ours(path)),
    };
    let found = file.metadata().map_err(|error| unusable(path, &error))?;
    let ours = found.is_file() && found.uid() == nix::unistd::geteuid().as_raw() && found.nlink() == 1;
    if !ours || found.mode() & 0o077 != 0 {
        return Err(not_ours(path));
    }
    let mut bytes = Zeroizing::new(Vec::new());
    let read = (&mut file).take(bytes_max as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| unusable(path, &error))?;
    Ok(Some(bytes))
}

/// Overwrites a file that holds a secret, if it is there, and removes it; durable when this
/// returns. Another process may do the same at the same moment, and remove the folder then.
/// Copy-on-write file systems, snapshots and solid-state disks may keep what was there before.
pub fn destroy_own(path: &Path) -> io::Result<()> {
    let destroy = || -> io::Result<()> {
        if erase_own(path)? {
            fs::remove_file(path)?;
            sync_folder_of(path)?;
        }
        Ok(())
    };
    match destroy() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        destroyed => destroyed,
    }
}

/// Overwrites a file with zeros, durable when this returns; whether it is there.
pub(crate) fn erase_own(path: &Path) -> io::Result<bool> {
    let file = match open_own(path, OpenOptions::new().write(true)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    fill_with_zeros(&file)?;
    Ok(true)
}

pub(crate) fn fill_with_zeros(mut file: &File) -> io::Result<()> {
    file.write_all(&vec![0; file.metadata()?.len() as usize])?;
    file.sync_all()
}

pub(crate) fn not_ours(path: &Path) -> Failure {
    let next = "Look at who put it there. It has to be a plain file or folder of this user, open to nobody else.";
    Failure::new(Code::Preflight, format!("{} is not what Sealift made", path.display()), next)
}

pub fn unusable(path: &Path, error: &io::Error) -> Failure {
    let next = "Check --state-dir: owner, mode, free space, and that the file system is not read-only.";
    Failure::io(Code::Preflight, format!("{} cannot be used", path.display()), error, next)
}

/// Makes the name of a file or folder durable.
pub(crate) fn sync_folder_of(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Issue 9, C6; fault E8: an agent that starts finishes what another has left, also while that
    /// one does so itself.
    #[test]
    fn two_may_destroy_a_secret_at_once() {
        let folder = tempfile::tempdir().unwrap();
        for round in 0..60 {
            let own = folder.path().join(round.to_string());
            fs::create_dir(&own).unwrap();
            let path = own.join("secret");
            fs::write(&path, "secret").unwrap();
            thread::scope(|scope| {
                let destroying: Vec<_> = (0..3).map(|_| scope.spawn(|| destroy_own(&path))).collect();
                for destroyed in destroying {
                    destroyed.join().unwrap().unwrap();
                }
            });
            assert!(!path.exists());
            fs::remove_dir(own).unwrap();
        }
    }
}
