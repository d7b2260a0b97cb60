//! How a file gets a name that is still free.

use std::{fs, io, path::Path};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, RenameFlags, renameat2},
};

/// Gives `from` the name `to`, which nothing may have. Some file systems cannot promise that: one
/// that has links makes a second name, which fails as well where there is something; in others it
/// is looked first.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => link_or_rename(from, to),
        renamed => Ok(renamed?),
    }
}

fn link_or_rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Ok(()) => fs::remove_file(from),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        Err(_) => rename_if_free(from, to),
    }
}

fn rename_if_free(from: &Path, to: &Path) -> io::Result<()> {
    match fs::symlink_metadata(to) {
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::rename(from, to),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fault E6: whatever the file system can do, nothing is overwritten.
    #[test]
    fn a_name_that_is_taken_stays_whose_it_is() {
        for rename in [rename_new, link_or_rename, rename_if_free] {
            let folder = tempfile::tempdir().unwrap();
            let from = folder.path().join("from");
            let to = folder.path().join("to");
            fs::write(&from, "new").unwrap();
            rename(&from, &to).unwrap();
            assert_eq!((from.exists(), fs::read_to_string(&to).unwrap().as_str()), (false, "new"));
            fs::write(&from, "other").unwrap();
            assert_eq!(rename(&from, &to).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            assert_eq!((from.exists(), fs::read_to_string(&to).unwrap().as_str()), (true, "new"));
        }
    }
}
