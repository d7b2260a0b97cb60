//! The files that SQLite keeps beside a database, and the source's journal mode.
//!
//! A reader of a database in WAL mode makes `-wal` and `-shm` where they are missing, and they
//! stay. Made by another user than the database's owner, they would keep the application from
//! writing: so it is looked for them before SQLite opens anything.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::unistd::Uid;
use sealift_engine_api::Finding;
use sealift_protocol::{
    close::Code,
    failure::{Failure, Outcome},
};

use super::failure::unsuitable;

/// Of the file's header: its first words, then the versions for writing and reading, 2 in WAL mode
/// ("Database File Format", 1.3).
const HEADER_BYTES: usize = 20;
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
const WAL_VERSION: u8 = 2;

/// How a database is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalMode {
    Rollback,
    Wal,
}

impl JournalMode {
    /// What moving the database means for those who use it meanwhile.
    pub fn finding(self) -> Finding {
        match self {
            JournalMode::Rollback => {
                let what = "the source has a rollback journal: programs can read it while it is read here, but a program that writes \
                 to it waits until the transfer is over, or fails with \"database is locked\". In WAL mode they could write.";
                Finding::note("writers-wait", what)
            }
            JournalMode::Wal => {
                let what = "the source is in WAL mode: programs can write to it meanwhile, but its -wal file grows with all that they \
                 write until the transfer is over, since SQLite cannot checkpoint past an open snapshot.";
                Finding::note("wal-grows", what)
            }
        }
    }
}

/// Reads the header of a file that this process has not opened otherwise: closing it would end
/// SQLite's locks.
pub fn journal_mode(path: &Path) -> io::Result<JournalMode> {
    let mut header = [0; HEADER_BYTES];
    match File::open(path)?.read_exact(&mut header) {
        Ok(()) if header.starts_with(MAGIC) && header[19] == WAL_VERSION => Ok(JournalMode::Wal),
        Ok(()) => Ok(JournalMode::Rollback),
        // What is too short is no database; the engine says so.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(JournalMode::Rollback),
        Err(error) => Err(error),
    }
}

/// Fails where `user`, reading a database in WAL mode, would leave files of its own beside
/// another's database.
pub fn check_owner(path: &Path, shown: &str, user: Uid) -> Outcome {
    let unreadable = |error| {
        let next = "Check the path in --source, and that this user may read the file and its folder.";
        Failure::io(Code::SourceFailed, format!("{shown} cannot be looked at"), &error, next)
    };
    // SQLite follows links, and keeps the files beside the database itself.
    let path = fs::canonicalize(path).map_err(unreadable)?;
    let owner = fs::metadata(&path).map_err(unreadable)?.uid();
    // Those that root makes, SQLite gives to the owner of the database.
    if user.is_root() || user.as_raw() == owner {
        return Ok(());
    }
    let missing: Vec<&str> = ["-wal", "-shm"].into_iter().filter(|end| !beside(&path, end).exists()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let what = format!(
        "{shown} is in WAL mode and belongs to user {owner}: reading it as user {user} would leave {} of another owner \
         beside it, and its application could not write any more",
        missing.join(" and ")
    );
    let next = "Run the sender as the owner of the database or as root; or start it while the application has the database \
                open, which keeps both files there; or have the owner run PRAGMA journal_mode=DELETE on it first.";
    Err(unsuitable(what, next))
}

/// Whether there is a log with something in it.
pub fn has_log(path: &Path) -> bool {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    fs::metadata(beside(&path, "-wal")).is_ok_and(|found| found.len() > 0)
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(end);
    path.into()
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    /// Issue 9, B4; fault E9.
    #[test]
    fn files_of_another_user_are_not_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ehr.db");
        let application = Connection::open(&path).unwrap();
        application.execute_batch("CREATE TABLE t(a)").unwrap();
        assert_eq!(journal_mode(&path).unwrap(), JournalMode::Rollback);
        application.execute_batch("PRAGMA journal_mode=WAL; INSERT INTO t VALUES(1)").unwrap();
        assert_eq!(journal_mode(&path).unwrap(), JournalMode::Wal);
        let owner = Uid::from_raw(fs::metadata(&path).unwrap().uid());
        let other = Uid::from_raw(owner.as_raw() + 1);
        let check = |user| check_owner(&path, "ehr.db", user);
        // The application has both files there.
        assert_eq!(check(other), Ok(()));
        drop(application);
        assert_eq!((check(owner), check(Uid::from_raw(0))), (Ok(()), Ok(())));
        let failure = check(other).unwrap_err();
        assert_eq!(failure.code, Code::SourceUnsuitable);
        assert!(failure.what.contains("-wal and -shm") && !failure.hints.is_empty(), "{failure}");
        fs::write(folder.path().join("ehr.db-wal"), "").unwrap();
        assert!(check(other).unwrap_err().what.contains("would leave -shm"));
        // Reached by a link, the files would still be made beside the database.
        let elsewhere = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(&path, elsewhere.path().join("link")).unwrap();
        assert!(check_owner(&elsewhere.path().join("link"), "link", other).is_err());
    }
}
