//! One moment of a database, seen by several connections.
//!
//! The first connection has its read transaction open from the plan on, and with it its locks.
//! While it has, a database with a rollback journal cannot be written, so that every later
//! transaction sees the same. In WAL mode it can: there a later transaction is opened at the
//! snapshot of the first, which SQLite refuses once the log does not hold it any more.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, config::DbConfig, limits::Limit};
use sealift_protocol::{
    close::Code,
    failure::{Failure, Outcome},
};

use super::{failure::failed, wal_snapshot::WalSnapshot};

/// How long a program that writes to the source may hold it locked before the transfer gives up.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// The same for a connection that there may as well not be.
const FURTHER_BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// Page cache of the first connection, which reads the catalogue. A table is scanned once, so that
/// more would only be memory.
pub const CACHE_KIB: i32 = 8 << 10;

/// That of each further one, which only scans.
const FURTHER_CACHE_KIB: i32 = 2 << 10;

/// One target writes what they read, and each has a thread and a cache.
const READERS_MAX: usize = 4;

pub struct SharedSnapshot {
    path: PathBuf,
    /// The one that took the snapshot, until a reader has it.
    first: Mutex<Option<Connection>>,
    /// What its transaction sees. `None` if that is the database file alone.
    wal: Option<WalSnapshot>,
}

impl SharedSnapshot {
    /// What the open transaction of `first` sees.
    pub fn of(path: PathBuf, first: Connection) -> Outcome<Self> {
        let wal = WalSnapshot::of(&first).map_err(|error| failed(&error, &path.display().to_string()))?;
        Ok(Self { path, first: Mutex::new(Some(first)), wal })
    }

    /// The path, for people.
    pub fn shown(&self) -> String {
        self.path.display().to_string()
    }

    /// More than there are processors would only wait for each other.
    pub fn readers_max() -> usize {
        std::thread::available_parallelism().map_or(1, usize::from).min(READERS_MAX)
    }

    /// A connection with an open transaction that sees the snapshot. Any but the first may fail.
    pub fn connection(&self) -> Outcome<Connection> {
        if let Some(first) = self.first.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Ok(first);
        }
        let failed = |error| failed(&error, &self.shown());
        let connection = connect(&self.path, FURTHER_BUSY_TIMEOUT).map_err(failed)?;
        bound_cache(&connection, FURTHER_CACHE_KIB).map_err(failed)?;
        if self.begin_at_snapshot(&connection).map_err(failed)? {
            Ok(connection)
        } else {
            Err(Failure::new(Code::SourceFailed, "the snapshot cannot be shared any more", ""))
        }
    }

    /// Whether the transaction that this begins sees the snapshot.
    fn begin_at_snapshot(&self, connection: &Connection) -> rusqlite::Result<bool> {
        // Until it has read anything, a connection does not know the database's journal mode.
        read_header(connection)?;
        connection.execute_batch("BEGIN")?;
        if let Some(wal) = &self.wal {
            wal.open_in(connection)?;
            read_header(connection)?;
            return Ok(true);
        }
        read_header(connection)?;
        // The first one's locks keep the file as it is; this one must see nothing besides.
        Ok(WalSnapshot::of(connection)?.is_none())
    }
}

fn read_header(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "schema_version", |row| row.get(0))
}

/// Opens a database to be read and not written.
pub fn connect(path: &Path, busy_timeout: Duration) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    configure(&connection, busy_timeout)?;
    Ok(connection)
}

fn configure(connection: &Connection, busy_timeout: Duration) -> rusqlite::Result<()> {
    connection.busy_timeout(busy_timeout)?;
    // Not SQLITE_DBCONFIG_DEFENSIVE: under it SQLite takes a trigger on a shadow table, which is
    // valid, for damage; and what it forbids is to write, which this connection cannot.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    // What the application has left in the log is for it to checkpoint.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // A name that is no column is then an error and never a string.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
    connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    connection.set_limit(Limit::SQLITE_LIMIT_WORKER_THREADS, 0)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.pragma_update(None, "query_only", true)?;
    // Rows are moved as they are, also those that break a CHECK.
    connection.pragma_update(None, "ignore_check_constraints", true)?;
    connection.pragma_update(None, "cell_size_check", true)
}

/// Apart from the rest, since the engine reads the catalogue for it.
pub fn bound_cache(connection: &Connection, kib: i32) -> rusqlite::Result<()> {
    connection.pragma_update(None, "cache_size", -kib)
}
