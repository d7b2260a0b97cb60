//! What an agent keeps of one unfinished transfer: a folder under the state directory, held by one
//! process at a time.
//!
//! | file | what |
//! |---|---|
//! | `lock` | locked by the process that runs the transfer, which notes in it how far that is |
//! | `record` | what it needs to be resumed, keys among it; written whole or not at all |
//! | `ticket-secret` | at the receiver: the secret of an unused ticket |
//! | `ticket-sender` | at the receiver: the sender that a used ticket is bound to |
//! | `snapshot-holder` | at the sender: the socket of a process that holds the source's snapshot |
//! | others | sealed logs: useless without the record |
//!
//! The record begins with a checksum, and has mode 0600. One that is replaced is overwritten. At
//! the end the last one loses its name first, is overwritten and removed, and then the rest is. A
//! folder without a record is a clean-up that was interrupted, or a start that was: the process
//! that finds it removes it.

mod record_file;

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use sealift_host::holder;
pub use sealift_host::holder::Held as HeldSnapshot;
use sealift_protocol::{close::Code, id::TransferId};

use crate::{
    fail_point::{self, Point},
    failure::{Failure, Outcome},
    own_file::{not_ours, open_own, unusable},
    progress::HowFar,
    sealed_file,
    state::{StateDir, destroy_written, make_folder},
};

/// How long a folder is waited for: another process may be removing what was left in it.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// Looks at a record that is replaced at the same moment.
const LOOKS: usize = 20;

/// Of a ticket, until it is bound, and the sender that it is bound to: each file is written once.
pub const TICKET_SECRET: &str = "ticket-secret";
pub const TICKET_SENDER: &str = "ticket-sender";

/// Which records lie beside each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// Of transfers over a link.
    Transfers,
    /// Of archives that are being loaded.
    Loads,
}

impl Area {
    fn name(self) -> &'static str {
        match self {
            Area::Transfers => "transfers",
            Area::Loads => "loads",
        }
    }
}

/// Between two attempts.
const LOCK_WAIT: Duration = Duration::from_millis(5);

/// The folder of one transfer, locked.
pub struct TransferDir {
    state: StateDir,
    transfer: TransferId,
    path: PathBuf,
    _lock: Flock<File>,
}

impl TransferDir {
    /// Opens or makes the folder of `transfer`. Fails with `TransferBusy` while another process has
    /// it.
    pub fn open(state: &StateDir, transfer: TransferId) -> Outcome<Self> {
        Self::open_in(state, Area::Transfers, transfer)
    }

    /// As `open`, for another area.
    pub fn open_in(state: &StateDir, area: Area, transfer: TransferId) -> Outcome<Self> {
        let asked = Instant::now();
        loop {
            if let Some(dir) = Self::try_open_in(state, area, transfer)? {
                return Ok(dir);
            }
            if asked.elapsed() >= LOCK_PATIENCE {
                return Err(busy(transfer));
            }
            thread::sleep(LOCK_WAIT);
        }
    }

    /// As `open`, without waiting: `None` while another process has it.
    pub fn try_open(state: &StateDir, transfer: TransferId) -> Outcome<Option<Self>> {
        Self::try_open_in(state, Area::Transfers, transfer)
    }

    fn try_open_in(state: &StateDir, area: Area, transfer: TransferId) -> Outcome<Option<Self>> {
        let folder = state.subfolder(area.name())?;
        let path = folder.join(transfer.to_string());
        let _area = lock_area(&folder, FlockArg::LockExclusive).map_err(|error| unusable(&folder, &error))?;
        make_folder(&path).map_err(|error| unusable(&path, &error))?;
        let found = fs::symlink_metadata(&path).map_err(|error| unusable(&path, &error))?;
        if !found.is_dir() || found.uid() != nix::unistd::geteuid().as_raw() || found.mode() & 0o077 != 0 {
            return Err(not_ours(&path));
        }
        let lock = path.join("lock");
        let file = open_own(&lock, OpenOptions::new().write(true).create(true));
        match Flock::lock(file.map_err(|error| unusable(&lock, &error))?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Self { state: state.clone(), transfer, path, _lock: lock })),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(unusable(&lock, &errno.into())),
        }
    }

    /// The transfers that have a folder, running or not.
    pub fn list(state: &StateDir) -> Outcome<Vec<TransferId>> {
        Self::list_in(state, Area::Transfers)
    }

    /// As `list`, for another area.
    pub fn list_in(state: &StateDir, area: Area) -> Outcome<Vec<TransferId>> {
        let folder = state.path().join(area.name());
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unusable(&folder, &error)),
        };
        let mut found: Vec<_> =
            entries.filter_map(|entry| TransferId::from_hex(&entry.ok()?.file_name().to_string_lossy())).collect();
        found.sort();
        Ok(found)
    }

    /// The folder of `transfer`, which need not be there.
    pub fn folder(state: &StateDir, transfer: TransferId) -> PathBuf {
        state.path().join(Area::Transfers.name()).join(transfer.to_string())
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The snapshot of the transfer's source, if a process of its own holds one.
    pub fn snapshot(&self) -> Option<HeldSnapshot> {
        holder::look(&self.path)
    }

    /// Where the process that runs the transfer keeps how far it is.
    pub fn progress_file(&self) -> PathBuf {
        self.path.join("lock")
    }

    /// What was kept last, if anything was.
    pub fn record<T: for<'b> minicbor::Decode<'b, ()> + minicbor::Encode<()>>(&self) -> Outcome<Option<T>> {
        record_file::read(&self.path)
    }

    /// Looks at a transfer without holding it, so that the process that runs it is not disturbed.
    /// `None` if it has no folder.
    pub fn look<T: for<'b> minicbor::Decode<'b, ()> + minicbor::Encode<()>>(
        state: &StateDir,
        transfer: TransferId,
    ) -> Outcome<Option<Look<T>>> {
        Self::look_in(state, Area::Transfers, transfer)
    }

    /// As `look`, for another area.
    pub fn look_in<T: for<'b> minicbor::Decode<'b, ()> + minicbor::Encode<()>>(
        state: &StateDir,
        area: Area,
        transfer: TransferId,
    ) -> Outcome<Option<Look<T>>> {
        let folder = state.path().join(area.name());
        let path = folder.join(transfer.to_string());
        let Some(seen) = observe(&folder, &path)? else { return Ok(None) };
        let mut record = record_file::read(&path);
        // The process that runs it may be replacing its record: a file without a name, or of zeros,
        // is not what it has.
        for _ in 0..LOOKS {
            if record.is_ok() || !seen.running {
                break;
            }
            thread::sleep(LOCK_WAIT);
            record = record_file::read(&path);
        }
        let how_far = HowFar::read(&path.join("lock"));
        let snapshot = holder::look(&path);
        Ok(Some(Look { record: record?, running: seen.running, held_bytes: seen.held_bytes, how_far, snapshot }))
    }

    /// Whether anything is kept of `transfer`.
    pub fn exists(state: &StateDir, transfer: TransferId) -> Outcome<bool> {
        let record = state.subfolder("transfers")?.join(transfer.to_string()).join(record_file::NAME);
        record.try_exists().map_err(|error| unusable(&record, &error))
    }

    /// Keeps `record`, durable when this returns, and leaves nothing of the one before.
    pub fn keep<T: minicbor::Encode<()>>(&self, record: &T) -> Outcome {
        record_file::keep(&self.path, record)
    }

    /// Removes everything: what holds keys first.
    pub fn destroy(self) -> Outcome {
        let keys = || -> std::io::Result<Vec<String>> {
            let mut logs = Vec::new();
            record_file::destroy(&self.path)?;
            for secret in [TICKET_SECRET, TICKET_SENDER] {
                destroy_written(&self.path.join(secret))?;
            }
            holder::release(&self.path)?;
            for entry in fs::read_dir(&self.path)? {
                let entry = entry?;
                if entry.file_name() != "lock" {
                    logs.push(entry.file_name().to_string_lossy().into_owned());
                }
            }
            Ok(logs)
        };
        let logs = keys().map_err(|error| unusable(&self.path, &error))?;
        fail_point::hit(Point::RecordRemoving);
        logs.iter().try_for_each(|log| sealed_file::destroy(&self.path, log))?;
        self.state.drop_unfinished_receipt(self.transfer)?;
        let remove = || -> std::io::Result<()> {
            let _area = lock_area(self.path.parent().unwrap_or(&self.path), FlockArg::LockExclusive)?;
            fs::remove_file(self.path.join("lock"))?;
            fs::remove_dir(&self.path)
        };
        remove().or_else(|error| match error.kind() {
            // Another process looks whether there is anything to do; the next sweep removes the
            // folder.
            std::io::ErrorKind::NotFound | std::io::ErrorKind::DirectoryNotEmpty => Ok(()),
            _ => Err(unusable(&self.path, &error)),
        })
    }

    /// Finishes clean-ups that were interrupted: folders without a record that no process holds.
    /// One in which there is nothing to do is looked at and not held, so that its own process finds
    /// it free.
    pub fn sweep(state: &StateDir) -> Outcome {
        for area in [Area::Transfers, Area::Loads] {
            for transfer in Self::list_in(state, area)? {
                let folder = state.path().join(area.name());
                let path = folder.join(transfer.to_string());
                if has_record(&path) || observe(&folder, &path)?.is_none_or(|seen| seen.running) {
                    continue;
                }
                if let Some(dir) = Self::try_open_in(state, area, transfer)?
                    && !has_record(&dir.path)
                {
                    dir.destroy()?;
                }
            }
        }
        Ok(())
    }
}

/// What cannot be looked at is not taken for missing.
fn has_record(path: &Path) -> bool {
    let found = fs::symlink_metadata(path.join(record_file::NAME));
    !found.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

/// Locks an area while a folder in it is made and locked, looked at, or removed: then no process
/// removes what another has made and not locked yet, and none that looks is taken for the
/// one who runs a transfer.
fn lock_area(folder: &Path, how: FlockArg) -> std::io::Result<Flock<File>> {
    let mut file = File::open(folder)?;
    loop {
        match Flock::lock(file, how) {
            Ok(lock) => return Ok(lock),
            Err((unlocked, Errno::EINTR)) => file = unlocked,
            Err((_, errno)) => return Err(errno.into()),
        }
    }
}

struct Seen {
    running: bool,
    held_bytes: u64,
}

/// Looks into the folder of a transfer, if there is one.
fn observe(folder: &Path, path: &Path) -> Outcome<Option<Seen>> {
    let _area = match lock_area(folder, FlockArg::LockShared) {
        Ok(lock) => lock,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unusable(folder, &error)),
    };
    let Ok(entries) = fs::read_dir(path) else { return Ok(None) };
    let held_bytes = entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|found| found.len()).sum();
    let running = match open_own(&path.join("lock"), OpenOptions::new().read(true)) {
        // Shared, so that two who look do not take each other for the one who runs it.
        Ok(file) => Flock::lock(file, FlockArg::LockSharedNonblock).is_err(),
        Err(_) => false,
    };
    Ok(Some(Seen { running, held_bytes }))
}

/// What [`TransferDir::look`] saw.
pub struct Look<T> {
    /// `None` for a start or a clean-up that was interrupted.
    pub record: Option<T>,
    /// Another process runs it now.
    pub running: bool,
    /// All files of its folder.
    pub held_bytes: u64,
    /// As the process that ran it last noted.
    pub how_far: Option<HowFar>,
    /// Of its source, if a process of its own holds one.
    pub snapshot: Option<HeldSnapshot>,
}

fn busy(transfer: TransferId) -> Failure {
    let what = format!("another process runs the transfer {transfer} with this state directory");
    let next = "Wait for it, or stop it; both agents can then be started again. A sender and a receiver on one host need a \
                --state-dir each.";
    Failure::new(Code::TransferBusy, what, next)
}

#[cfg(test)]
mod tests;
