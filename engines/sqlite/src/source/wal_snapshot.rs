//! What a read transaction sees of a database in WAL mode, for another connection to see the same
//! (`sqlite3_snapshot` of SQLite's C interface, which rusqlite does not have).
//!
//! One of the modules of this crate with unsafe code.
#![allow(unsafe_code)]

use std::ptr;

use rusqlite::{Connection, Error, Result, ffi};

/// A snapshot. It says which one, and holds no lock.
pub struct WalSnapshot(*mut ffi::sqlite3_snapshot);

// SAFETY: a snapshot is a record of its own on the heap. It belongs to no connection, and SQLite
// only reads it until it is freed.
unsafe impl Send for WalSnapshot {}
// SAFETY: as above; nothing changes it.
unsafe impl Sync for WalSnapshot {}

impl WalSnapshot {
    /// What the open read transaction of `connection` sees; `None` if it sees the database file
    /// alone: it has no log, or an empty one.
    pub fn of(connection: &Connection) -> Result<Option<Self>> {
        let mut snapshot = ptr::null_mut();
        // SAFETY: the handle is that of an open connection; the name ends with 0.
        let code = unsafe { ffi::sqlite3_snapshot_get(connection.handle(), c"main".as_ptr(), &raw mut snapshot) };
        match code {
            ffi::SQLITE_OK => Ok(Some(Self(snapshot))),
            ffi::SQLITE_ERROR => Ok(None),
            other => Err(Error::SqliteFailure(ffi::Error::new(other), None)),
        }
    }

    /// Has the open transaction of `connection`, which has read nothing yet, see this snapshot.
    /// Fails if the log does not hold it any more.
    pub fn open_in(&self, connection: &Connection) -> Result<()> {
        // SAFETY: the handle is that of an open connection; the name ends with 0; the snapshot is
        // freed by `drop` and nowhere else.
        let code = unsafe { ffi::sqlite3_snapshot_open(connection.handle(), c"main".as_ptr(), self.0) };
        match code {
            ffi::SQLITE_OK => Ok(()),
            other => Err(Error::SqliteFailure(ffi::Error::new(other), None)),
        }
    }
}

impl Drop for WalSnapshot {
    fn drop(&mut self) {
        // SAFETY: it came from `sqlite3_snapshot_get`, and is freed once.
        unsafe { ffi::sqlite3_snapshot_free(self.0) }
    }
}
