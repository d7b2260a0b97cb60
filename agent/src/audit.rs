//! The audit log: canonical JSON Lines, each with the hash of the one before. An entry is durable before what it
//! describes happens; where it cannot be written, the transfer does not happen. It tells of access and never of data.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use nix::fcntl::{Flock, FlockArg};
use sealift_protocol::{close::Code, id::TransferId};
use serde_json::{Map, Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    clock::Reading,
    failure::{Failure, Outcome},
    state::StateDir,
};

/// The hash before the first entry.
const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// A line: typed fields of a few hundred bytes; longer is damage.
const LINE_BYTES_MAX: u64 = 16 << 10;

/// A clock that is merely put right is slewed by less between two entries; one that was set moves by more.
const CLOCK_STEP_SECONDS_MIN: u64 = 10;

/// An agent's own log, held open and locked by one process at a time while it writes.
#[derive(Clone)]
pub struct AuditLog {
    path: PathBuf,
    program: &'static str,
    /// The clocks at this process's last entry.
    last: Arc<Mutex<Reading>>,
}

impl AuditLog {
    pub fn open(state: &StateDir, program: &'static str) -> Outcome<Self> {
        let last = Arc::new(Mutex::new(Reading::now()));
        let log = Self { path: state.path().join("audit.jsonl"), program, last };
        log.locked().map(|_| log)
    }

    /// Appends one entry and makes it durable. Where the clock was set since the last one, an entry before it says so, as the
    /// times of the entries cannot be compared across it.
    pub fn append(&self, event: &str, transfer: Option<TransferId>, fields: &[(&str, Value)]) -> Outcome {
        let now = Reading::now();
        let last = std::mem::replace(&mut *self.last.lock().unwrap_or_else(PoisonError::into_inner), now);
        let step = now.step_since(&last);
        if step.unsigned_abs() >= CLOCK_STEP_SECONDS_MIN {
            self.write("clock.step", transfer, &[("seconds", json!(step))])?;
        }
        self.write(event, transfer, fields)
    }

    fn write(&self, event: &str, transfer: Option<TransferId>, fields: &[(&str, Value)]) -> Outcome {
        let mut file = self.locked()?;
        let (seq, prev) = self.head(&file)?;
        let mut entry = Map::new();
        entry.insert("schema".into(), json!("sealift.audit/1"));
        entry.insert("seq".into(), json!(seq));
        entry.insert("ts".into(), json!(now_text()));
        entry.insert("program".into(), json!(self.program));
        entry.insert("event".into(), json!(event));
        if let Some(transfer) = transfer {
            entry.insert("transfer".into(), json!(transfer.to_string()));
        }
        for (name, value) in fields {
            entry.insert((*name).to_owned(), value.clone());
        }
        entry.insert("prev".into(), json!(prev));
        // serde_json's map is sorted by key, which with no spaces is the canonical form.
        let line = Value::Object(entry).to_string() + "\n";
        file.write_all(line.as_bytes()).map_err(|error| self.unwritable(&error))?;
        file.sync_data().map_err(|error| self.unwritable(&error))
    }

    fn locked(&self) -> Outcome<Flock<File>> {
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC)
            .open(&self.path)
            .map_err(|error| self.unwritable(&error))?;
        let found = file.metadata().map_err(|error| self.unwritable(&error))?;
        let ours = found.is_file() && found.uid() == nix::unistd::geteuid().as_raw() && found.nlink() == 1;
        if !ours {
            return Err(self.wrong("is not a plain file of this user"));
        }
        Flock::lock(file, FlockArg::LockExclusive).map_err(|_| self.wrong("cannot be locked"))
    }

    /// Sequence number and previous hash for the next entry, from the last line alone.
    fn head(&self, file: &File) -> Outcome<(u64, String)> {
        let bytes = file.metadata().map_err(|error| self.unwritable(&error))?.len();
        let mut tail = vec![0; bytes.min(LINE_BYTES_MAX) as usize];
        let from = bytes - tail.len() as u64;
        file.read_exact_at(&mut tail, from).map_err(|error| self.unwritable(&error))?;
        if tail.is_empty() {
            return Ok((0, GENESIS.to_owned()));
        }
        if tail.pop() != Some(b'\n') {
            return Err(self.wrong("ends in half a line: it was damaged"));
        }
        let line = tail.rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
        let entry: Value = serde_json::from_slice(line).map_err(|_| self.wrong("ends in a line that is no entry"))?;
        let seq = entry["seq"].as_u64().ok_or_else(|| self.wrong("ends in a line that is no entry"))?;
        Ok((seq + 1, blake3::hash(line).to_string()))
    }

    fn wrong(&self, what: &str) -> Failure {
        let next = "Nothing is moved without a record of it. Look at the file, keep it, and use another --state-dir.";
        Failure::new(Code::AuditUnwritable, format!("the audit log {} {what}", self.path.display()), next)
    }

    fn unwritable(&self, error: &std::io::Error) -> Failure {
        let next = "Nothing is moved without a record of it. Check --state-dir: space, owner, mode.";
        Failure::io(Code::AuditUnwritable, format!("the audit log {}", self.path.display()), error, next)
    }
}

/// Now, in UTC, to the millisecond.
pub fn now_text() -> String {
    let now = OffsetDateTime::now_utc();
    let whole = now.replace_nanosecond(now.millisecond() as u32 * 1_000_000).unwrap_or(now);
    whole.format(&Rfc3339).unwrap_or_default()
}
