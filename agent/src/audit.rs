//! The audit log: canonical JSON Lines, each with the hash of the one before. An entry is durable before what it
//! describes happens; where it cannot be written, the transfer does not happen. It tells of access and never of data.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use nix::{
    fcntl::{Flock, FlockArg},
    unistd::{AccessFlags, access},
};
use sealift_protocol::{close::Code, id::TransferId, limits::NAME_BYTES_MAX};
use serde_json::{Map, Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    clock::Reading,
    failure::{Failure, Outcome},
    state::StateDir,
};

/// The hash before the first entry.
const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// A line: the texts of a grant, which are at most five, and typed fields of a few hundred bytes. Longer is damage.
const LINE_BYTES_MAX: usize = 32 << 10;

/// JSON escapes a control character, of one byte, to six.
const ESCAPED_BYTES_MAX: usize = 6;

// Whatever a grant may say can be told of it.
const _: () = assert!(5 * ESCAPED_BYTES_MAX * NAME_BYTES_MAX + (2 << 10) <= LINE_BYTES_MAX);

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

/// Where the log's whole lines end, and what the next one follows.
struct End {
    bytes: u64,
    seq: u64,
    prev: String,
    /// Behind them: what an append that was cut off had written of its line.
    torn_bytes: u64,
}

impl AuditLog {
    /// Opens the log of whoever is about to move something. Where not even a file can be made beside it, it is not the log that
    /// is wrong, and nothing has begun.
    pub fn open(state: &StateDir, program: &'static str) -> Outcome<Self> {
        access(state.path(), AccessFlags::W_OK | AccessFlags::X_OK).map_err(|errno| {
            let what = format!("the state directory {} cannot be written to", state.path().display());
            let next = "Check --state-dir: owner, mode, and that the file system is not read-only.";
            Failure::io(Code::Preflight, what, &errno.into(), next)
        })?;
        let last = Arc::new(Mutex::new(Reading::now()));
        let log = Self { path: state.path().join("audit.jsonl"), program, last };
        log.whole_end(&*log.locked()?)?;
        Ok(log)
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
        let file = self.locked()?;
        let end = self.whole_end(&file)?;
        self.put(&file, &end, event, transfer, fields)
    }

    /// Where the next entry goes. What is there of a line that was never whole is cut off first, and said so: whatever it was
    /// to announce did not happen, since its append had not returned.
    fn whole_end(&self, file: &File) -> Outcome<End> {
        let end = self.end(file)?;
        if end.torn_bytes == 0 {
            return Ok(end);
        }
        file.set_len(end.bytes).map_err(|error| self.unwritable(&error))?;
        self.put(file, &end, "audit.repaired", None, &[("cut_bytes", json!(end.torn_bytes))])?;
        self.end(file)
    }

    fn put(
        &self,
        mut file: &File,
        end: &End,
        event: &str,
        transfer: Option<TransferId>,
        fields: &[(&str, Value)],
    ) -> Outcome {
        let mut entry = Map::new();
        entry.insert("schema".into(), json!("sealift.audit/1"));
        entry.insert("seq".into(), json!(end.seq));
        entry.insert("ts".into(), json!(now_text()));
        entry.insert("program".into(), json!(self.program));
        entry.insert("uid".into(), json!(nix::unistd::geteuid().as_raw()));
        entry.insert("event".into(), json!(event));
        if let Some(transfer) = transfer {
            entry.insert("transfer".into(), json!(transfer.to_string()));
        }
        for (name, value) in fields {
            entry.insert((*name).to_owned(), value.clone());
        }
        entry.insert("prev".into(), json!(end.prev));
        // serde_json's map is sorted by key, which with no spaces is the canonical form.
        let line = Value::Object(entry).to_string() + "\n";
        if line.len() > LINE_BYTES_MAX {
            // Written, it would be damage to whoever reads it.
            let what = format!("an entry of {} bytes is too long for the audit log", line.len());
            let next = "Nothing is moved without a record of it. Please report it with the output of --version.";
            return Err(Failure::new(Code::AuditUnwritable, what, next));
        }
        let written = file.write_all(line.as_bytes()).and_then(|()| file.sync_data());
        // The name of a file that was made just now is the folder's to keep.
        let written = written.and_then(|()| if end.bytes == 0 { self.sync_folder() } else { Ok(()) });
        written.map_err(|error| {
            // Half a line, or one that may be lost again, is nothing that the next start has to find.
            let _ = file.set_len(end.bytes).and_then(|()| file.sync_data());
            self.unwritable(&error)
        })
    }

    fn sync_folder(&self) -> std::io::Result<()> {
        self.path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
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

    /// Looks at the last lines alone.
    fn end(&self, file: &File) -> Outcome<End> {
        let bytes = file.metadata().map_err(|error| self.unwritable(&error))?.len();
        // The last whole line, and what may be torn behind it.
        let mut tail = vec![0; bytes.min(2 * LINE_BYTES_MAX as u64) as usize];
        let from = bytes - tail.len() as u64;
        file.read_exact_at(&mut tail, from).map_err(|error| self.unwritable(&error))?;
        let whole = tail.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
        let torn_bytes = (tail.len() - whole) as u64;
        if torn_bytes > LINE_BYTES_MAX as u64 {
            return Err(self.wrong("ends in what is no entry: it was damaged"));
        }
        let bytes = bytes - torn_bytes;
        let Some((_, lines)) = tail[..whole].split_last() else {
            return Ok(End { bytes, seq: 0, prev: GENESIS.to_owned(), torn_bytes });
        };
        let line = lines.rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
        let entry: Value = serde_json::from_slice(line).map_err(|_| self.wrong("ends in a line that is no entry"))?;
        let seq = entry["seq"].as_u64().ok_or_else(|| self.wrong("ends in a line that is no entry"))?;
        Ok(End { bytes, seq: seq + 1, prev: blake3::hash(line).to_string(), torn_bytes })
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
