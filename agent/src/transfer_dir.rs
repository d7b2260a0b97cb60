//! What an agent keeps of one unfinished transfer: a folder under the state directory, held by one process at a time.
//!
//! | file | what |
//! |---|---|
//! | `lock` | locked by the process that runs the transfer |
//! | `record` | what it needs to go on, keys among it, after a checksum; written whole or not at all, mode 0600 |
//! | others | sealed logs: useless without the record |
//!
//! A record that is replaced is overwritten. At the end the last one loses its name first, is overwritten and removed, and then the rest is. A folder without a record is
//! a clean-up that was interrupted, or a start that was: whoever finds it removes it.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::fcntl::{Flock, FlockArg};
use sealift_protocol::{close::Code, codec, id::TransferId, limits::CONTROL_BYTES_MAX};
use zeroize::Zeroizing;

use crate::{
    fail_point::{self, Point},
    failure::{Failure, Outcome},
    own_file::{not_ours, open_own, read_own, unusable},
    sealed_file,
    state::{StateDir, make_folder, write_durably},
};

/// A record holds a plan and a manifest or a receipt, each of which is a control message, and some keys.
const RECORD_BYTES_MAX: usize = 2 * CONTROL_BYTES_MAX;

const CHECKSUM_BYTES: usize = 32;

/// What a disk spoiled would go on with another key or from another place.
const CHECKSUM_CONTEXT: &str = "sealift/1 2026-11 record checksum";

/// A record that is being written, or was when its process was killed.
const UNFINISHED_RECORD: &str = "record.partial";

/// A record that is being overwritten: what still has its own name is whole.
const REMOVED_RECORD: &str = "record.removed";

/// Attempts to lock a folder that somebody else removes at the same moment.
const LOCK_ATTEMPTS: usize = 10;

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

/// Between two of them, while somebody holds it.
const LOCK_WAIT: Duration = Duration::from_millis(5);

/// The folder of one transfer, locked.
pub struct TransferDir {
    state: StateDir,
    transfer: TransferId,
    path: PathBuf,
    _lock: Flock<File>,
}

impl TransferDir {
    /// Opens or makes the folder of `transfer`. Fails with `TransferBusy` while another process has it.
    pub fn open(state: &StateDir, transfer: TransferId) -> Outcome<Self> {
        Self::open_in(state, Area::Transfers, transfer)
    }

    /// As `open`, for another area.
    pub fn open_in(state: &StateDir, area: Area, transfer: TransferId) -> Outcome<Self> {
        let path = state.subfolder(area.name())?.join(transfer.to_string());
        for _ in 0..LOCK_ATTEMPTS {
            make_folder(&path).map_err(|error| unusable(&path, &error))?;
            let found = fs::symlink_metadata(&path).map_err(|error| unusable(&path, &error))?;
            if !found.is_dir() || found.uid() != nix::unistd::geteuid().as_raw() || found.mode() & 0o077 != 0 {
                return Err(not_ours(&path));
            }
            let Ok(file) = open_own(&path.join("lock"), OpenOptions::new().write(true).create(true)) else { continue };
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                // Whoever had it before may have removed it in the meantime.
                Ok(lock) if lock.metadata().is_ok_and(|held| held.nlink() == 1) => {
                    return Ok(Self { state: state.clone(), transfer, path, _lock: lock });
                }
                Ok(_) => {}
                // Whoever only looks lets go at once.
                Err(_) => std::thread::sleep(LOCK_WAIT),
            }
        }
        Err(busy(transfer))
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

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was kept last, if anything was.
    pub fn record<T: for<'b> minicbor::Decode<'b, ()> + minicbor::Encode<()>>(&self) -> Outcome<Option<T>> {
        read_record(&self.path)
    }

    /// Looks at a transfer without holding it, so that whoever runs it is not disturbed. `None` if it has no folder.
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
        let path = state.path().join(area.name()).join(transfer.to_string());
        let Ok(entries) = fs::read_dir(&path) else { return Ok(None) };
        let held_bytes = entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|found| found.len()).sum();
        let running = match open_own(&path.join("lock"), OpenOptions::new().read(true)) {
            // Shared, so that two who look do not take each other for the one who runs it.
            Ok(file) => Flock::lock(file, FlockArg::LockSharedNonblock).is_err(),
            Err(_) => false,
        };
        Ok(Some(Look { record: read_record(&path)?, running, held_bytes }))
    }

    /// Whether anything is kept of `transfer`.
    pub fn exists(state: &StateDir, transfer: TransferId) -> Outcome<bool> {
        let record = state.subfolder("transfers")?.join(transfer.to_string()).join("record");
        record.try_exists().map_err(|error| unusable(&record, &error))
    }

    /// Keeps `record`, durable when this returns, and leaves nothing of the one before.
    pub fn keep<T: minicbor::Encode<()>>(&self, record: &T) -> Outcome {
        let path = self.path.join("record");
        let body = Zeroizing::new(codec::encode(record));
        let checksum = checksum(&body);
        let mut bytes = Zeroizing::new(Vec::with_capacity(checksum.len() + body.len()));
        bytes.extend_from_slice(&checksum);
        bytes.extend_from_slice(&body);
        let replace = || {
            overwrite(&self.path.join(UNFINISHED_RECORD))?;
            let before = open_to_overwrite(&path)?;
            write_durably(&path, &bytes)?;
            before.map_or(Ok(()), |file| fill_with_zeros(&file))
        };
        replace().map_err(|error| unusable(&path, &error))
    }

    /// Removes everything: what holds keys first.
    pub fn destroy(self) -> Outcome {
        let keys = || -> std::io::Result<Vec<String>> {
            let mut logs = Vec::new();
            let folder = File::open(&self.path)?;
            match fs::rename(self.path.join("record"), self.path.join(REMOVED_RECORD)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => folder.sync_all()?,
            }
            for name in [REMOVED_RECORD, UNFINISHED_RECORD] {
                overwrite(&self.path.join(name))?;
            }
            folder.sync_all()?;
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
            fs::remove_file(self.path.join("lock"))?;
            fs::remove_dir(&self.path)
        };
        remove().or_else(|error| match error.kind() {
            // Somebody looks whether there is anything to do; the next sweep removes the folder.
            std::io::ErrorKind::NotFound | std::io::ErrorKind::DirectoryNotEmpty => Ok(()),
            _ => Err(unusable(&self.path, &error)),
        })
    }

    /// Finishes clean-ups that were interrupted: folders without a record that nobody holds.
    pub fn sweep(state: &StateDir) -> Outcome {
        for area in [Area::Transfers, Area::Loads] {
            for transfer in Self::list_in(state, area)? {
                let Ok(dir) = Self::open_in(state, area, transfer) else { continue };
                match fs::symlink_metadata(dir.path.join("record")) {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => dir.destroy()?,
                    // What cannot be looked at is not taken for missing.
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// What [`TransferDir::look`] saw.
pub struct Look<T> {
    /// `None` for a start or a clean-up that was interrupted.
    pub record: Option<T>,
    /// Another process runs it now.
    pub running: bool,
    /// All files of its folder.
    pub held_bytes: u64,
}

fn read_record<T: for<'b> minicbor::Decode<'b, ()> + minicbor::Encode<()>>(folder: &Path) -> Outcome<Option<T>> {
    let path = folder.join("record");
    let Some(bytes) = read_own(&path, RECORD_BYTES_MAX)? else { return Ok(None) };
    let damaged = || {
        let next = "It is of no use any more. Remove its folder and start the transfer again, with a new ticket.";
        Failure::new(Code::Preflight, format!("{} is damaged", path.display()), next)
    };
    let (found, body) = bytes.split_first_chunk::<CHECKSUM_BYTES>().ok_or_else(damaged)?;
    match *found == checksum(body) {
        true => codec::decode(body, RECORD_BYTES_MAX, "record").map(Some).map_err(|_| damaged()),
        false => Err(damaged()),
    }
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    blake3::derive_key(CHECKSUM_CONTEXT, body)
}

/// Overwrites a record with zeros, if there is one, and removes it.
fn overwrite(path: &Path) -> std::io::Result<()> {
    let Some(file) = open_to_overwrite(path)? else { return Ok(()) };
    fill_with_zeros(&file)?;
    fail_point::hit(Point::RecordOverwritten);
    fs::remove_file(path)
}

fn open_to_overwrite(path: &Path) -> std::io::Result<Option<File>> {
    match open_own(path, OpenOptions::new().write(true)) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn fill_with_zeros(mut file: &File) -> std::io::Result<()> {
    file.write_all(&vec![0; file.metadata()?.len() as usize])?;
    file.sync_all()
}

fn busy(transfer: TransferId) -> Failure {
    let what = format!("another process runs the transfer {transfer} with this state directory");
    Failure::new(Code::TransferBusy, what, "Wait for it, or stop it; both agents can then be started again.")
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read,
        os::unix::fs::{PermissionsExt, symlink},
    };

    use super::*;

    const TRANSFER: TransferId = TransferId([7; 16]);

    fn state() -> (tempfile::TempDir, StateDir) {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(Some(folder.path().join("state")), "test").unwrap();
        (folder, state)
    }

    /// fault-matrix S10: one process at a time.
    #[test]
    fn a_second_holder_is_refused() {
        let (_folder, state) = state();
        let held = TransferDir::open(&state, TRANSFER).unwrap();
        assert_eq!(TransferDir::open(&state, TRANSFER).err().unwrap().code, Code::TransferBusy);
        drop(held);
        TransferDir::open(&state, TRANSFER).unwrap();
    }

    #[test]
    fn a_record_is_kept_and_destroyed() {
        let (_folder, state) = state();
        let dir = TransferDir::open(&state, TRANSFER).unwrap();
        assert_eq!(dir.record::<String>().unwrap(), None);
        dir.keep(&"kept".to_owned()).unwrap();
        assert_eq!(dir.record::<String>().unwrap().as_deref(), Some("kept"));
        assert_eq!(TransferDir::list(&state).unwrap(), [TRANSFER]);
        dir.destroy().unwrap();
        assert_eq!(TransferDir::list(&state).unwrap(), []);
    }

    /// What was replaced may lie on the disk for long, and it held keys.
    #[test]
    fn a_record_that_is_replaced_is_overwritten() {
        let (_folder, state) = state();
        let dir = TransferDir::open(&state, TRANSFER).unwrap();
        dir.keep(&"before".to_owned()).unwrap();
        fs::rename(dir.path().join("record"), dir.path().join("record.partial")).unwrap();
        let mut left = File::open(dir.path().join("record.partial")).unwrap();
        dir.keep(&"replaced".to_owned()).unwrap();
        let mut replaced = File::open(dir.path().join("record")).unwrap();
        dir.keep(&"kept".to_owned()).unwrap();
        assert_eq!(dir.record::<String>().unwrap().as_deref(), Some("kept"));
        for file in [&mut left, &mut replaced] {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            assert!(!bytes.is_empty() && bytes.iter().all(|byte| *byte == 0));
        }
    }

    /// fault-matrix S5, for a record: no bit of it may change unseen.
    #[test]
    fn a_spoiled_record_is_found() {
        let (_folder, state) = state();
        let dir = TransferDir::open(&state, TRANSFER).unwrap();
        dir.keep(&"kept".to_owned()).unwrap();
        let path = dir.path().join("record");
        let good = fs::read(&path).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bytes).unwrap();
            assert_eq!(dir.record::<String>().unwrap_err().code, Code::Preflight);
        }
        for bytes in 0..good.len() {
            fs::write(&path, &good[..bytes]).unwrap();
            assert_eq!(dir.record::<String>().unwrap_err().code, Code::Preflight);
        }
    }

    /// fault-matrix C13: whatever a clean-up left is removed by the next start, and nothing that has a record is.
    #[test]
    fn an_interrupted_clean_up_is_finished() {
        let (_folder, state) = state();
        let dir = TransferDir::open(&state, TRANSFER).unwrap();
        dir.keep(&"kept".to_owned()).unwrap();
        fs::write(dir.path().join("journal"), b"sealed").unwrap();
        fs::set_permissions(dir.path().join("journal"), fs::Permissions::from_mode(0o600)).unwrap();
        let path = dir.path().to_owned();
        drop(dir);
        TransferDir::sweep(&state).unwrap();
        assert!(path.join("journal").exists());
        let receipt = state.path().join("receipts").join(format!("{TRANSFER}.partial"));
        fs::write(&receipt, b"half").unwrap();
        fs::remove_file(path.join("record")).unwrap();
        TransferDir::sweep(&state).unwrap();
        assert!(!path.exists() && !receipt.exists());
    }

    /// fault-matrix S9: a record that is a link, a FIFO, or open to others is refused.
    #[test]
    fn a_record_that_is_not_ours_is_refused() {
        let (folder, state) = state();
        let dir = TransferDir::open(&state, TRANSFER).unwrap();
        let record = dir.path().join("record");
        let elsewhere = folder.path().join("elsewhere");
        fs::write(&elsewhere, codec::encode(&"kept".to_owned())).unwrap();
        let refused = || {
            let code = dir.record::<String>().unwrap_err().code;
            fs::remove_file(&record).unwrap();
            assert_eq!(code, Code::Preflight);
        };
        symlink(&elsewhere, &record).unwrap();
        refused();
        fs::hard_link(&elsewhere, &record).unwrap();
        refused();
        nix::unistd::mkfifo(&record, nix::sys::stat::Mode::S_IRWXU).unwrap();
        refused();
        fs::write(&record, codec::encode(&"kept".to_owned())).unwrap();
        fs::set_permissions(&record, fs::Permissions::from_mode(0o644)).unwrap();
        refused();
    }
}
