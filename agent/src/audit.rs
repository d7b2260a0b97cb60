//! The audit log: canonical JSON Lines, each with the hash of the one before. An entry is durable
//! before what it describes happens; where it cannot be written, the transfer does not happen. It
//! records access and never data.

pub mod entry;

use std::{
    fs::{File, OpenOptions},
    io::{BufReader, Write},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use nix::{
    fcntl::{Flock, FlockArg},
    unistd::{AccessFlags, access},
};
use sealift_protocol::{audit_head::AuditHead, close::Code, id::TransferId, limits::NAME_BYTES_MAX};
use serde::Serialize;
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use self::entry::{AuditRepair, Entry};
use crate::{
    audit_chain::{self, ChainFault, LINE_BYTES_MAX, Predecessor, SCHEMA},
    clock::Reading,
    failure::{Failure, Outcome},
    state::StateDir,
};

/// JSON escapes a control character, of one byte, to six.
const ESCAPED_BYTES_MAX: usize = 6;

// Everything that a grant may say fits.
const _: () = assert!(5 * ESCAPED_BYTES_MAX * NAME_BYTES_MAX + (2 << 10) <= LINE_BYTES_MAX);

const LOOK_AT_IT: &str =
    "Nothing is moved without a record of it. Look at the file, keep it, and use another --state-dir.";

/// A clock that is merely put right is slewed by less between two entries; one that was set moves
/// by more.
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
    predecessor: Predecessor,
    behind: CutOff,
}

/// One line: the fields that every entry has, and its own.
#[derive(Serialize)]
struct AuditLine<'a> {
    schema: &'static str,
    seq: u64,
    ts: String,
    program: &'static str,
    uid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    transfer: Option<String>,
    prev: &'a str,
    #[serde(flatten)]
    entry: &'a Entry,
}

impl AuditLine<'_> {
    /// serde_json's map is sorted by key, which with no spaces is the canonical form.
    fn canonical(&self) -> String {
        serde_json::to_value(self).expect("texts, numbers and maps with texts for keys").to_string()
    }
}

/// What an append that was cut off had written of its line.
enum CutOff {
    Nothing,
    /// All of the entry, and not its newline.
    Entry,
    Torn(u64),
}

impl AuditLog {
    /// Opens the log of an agent that is about to move something. Where not even a file can be made
    /// beside it, it is not the log that is wrong, and nothing has begun.
    pub fn open(state: &StateDir, program: &'static str) -> Outcome<Self> {
        access(state.path(), AccessFlags::W_OK | AccessFlags::X_OK).map_err(|errno| {
            let what = format!("the state directory {} cannot be written to", state.path().display());
            let next = "Check --state-dir: owner, mode, and that the file system is not read-only.";
            Failure::io(Code::Preflight, what, &errno.into(), next)
        })?;
        let last = Arc::new(Mutex::new(Reading::now()));
        let log = Self { path: state.path().join("audit.jsonl"), program, last };
        let file = log.locked()?;
        log.check_chain(&file)?;
        log.whole_end(&file)?;
        Ok(log)
    }

    /// What an agent adds to a log that was changed proves nothing.
    fn check_chain(&self, file: &File) -> Outcome {
        match audit_chain::check(BufReader::new(file), |_| {}) {
            Ok(_) => Ok(()),
            Err(ChainFault::Unreadable(error)) => Err(self.unwritable(&error)),
            Err(broken) => {
                let what = format!("the audit log {} does not hold, {broken}", self.path.display());
                Err(Failure::new(Code::Preflight, what, LOOK_AT_IT))
            }
        }
    }

    /// Appends one entry and makes it durable. Where the clock was set since the last one, an entry
    /// before it says so, as the times of the entries cannot be compared across it.
    pub fn append(&self, transfer: Option<TransferId>, entry: &Entry) -> Outcome {
        let now = Reading::now();
        let last = std::mem::replace(&mut *self.last.lock().unwrap_or_else(PoisonError::into_inner), now);
        let step = now.step_since(&last);
        if step.unsigned_abs() >= CLOCK_STEP_SECONDS_MIN {
            self.write(transfer, &Entry::ClockStep { seconds: step })?;
        }
        self.write(transfer, entry)
    }

    /// The last entry, for what this agent signs next.
    pub fn head(&self) -> Outcome<Option<AuditHead>> {
        let file = self.locked()?;
        self.whole_end(&file).map(|end| end.predecessor.head())
    }

    fn write(&self, transfer: Option<TransferId>, entry: &Entry) -> Outcome {
        let file = self.locked()?;
        let end = self.whole_end(&file)?;
        self.put(&file, &end, transfer, entry)
    }

    /// Where the next entry goes. What is there of a line that was never whole is cut off first,
    /// and said so: what it was to announce did not happen, since its append had not returned. An
    /// entry that lacks its newline alone gets it: nothing that can be read is removed.
    fn whole_end(&self, mut file: &File) -> Outcome<End> {
        let end = self.end(file)?;
        let (end, repair) = match end.behind {
            CutOff::Nothing => return Ok(end),
            CutOff::Entry => {
                let completed = file.write_all(b"\n").and_then(|()| file.sync_data());
                completed.map_err(|error| self.unwritable(&error))?;
                (self.end(file)?, AuditRepair::AddedBytes(1))
            }
            CutOff::Torn(bytes) => {
                file.set_len(end.bytes).map_err(|error| self.unwritable(&error))?;
                (end, AuditRepair::CutBytes(bytes))
            }
        };
        self.put(file, &end, None, &Entry::AuditRepaired(repair))?;
        self.end(file)
    }

    fn put(&self, mut file: &File, end: &End, transfer: Option<TransferId>, entry: &Entry) -> Outcome {
        let line = AuditLine {
            schema: SCHEMA,
            seq: end.predecessor.seq,
            ts: now_text(),
            program: self.program,
            uid: nix::unistd::geteuid().as_raw(),
            transfer: transfer.map(|transfer| transfer.to_string()),
            prev: &end.predecessor.prev,
            entry,
        };
        let line = line.canonical() + "\n";
        if line.len() > LINE_BYTES_MAX {
            // Written, it would be damage to a reader.
            let what = format!("an entry of {} bytes is too long for the audit log", line.len());
            let next = "Nothing is moved without a record of it. Please report it with the output of --version.";
            return Err(Failure::new(Code::AuditUnwritable, what, next));
        }
        let written = file.write_all(line.as_bytes()).and_then(|()| file.sync_data());
        // The name of a file that was made just now is the folder's to keep.
        let written = written.and_then(|()| if end.bytes == 0 { self.sync_folder() } else { Ok(()) });
        written.map_err(|error| {
            // Half a line, or one that may be lost again, is nothing that the next start has to
            // find.
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
        let (lines, torn) = tail.split_at(whole);
        if torn.len() > LINE_BYTES_MAX {
            return Err(self.wrong("ends in what is no entry: it was damaged"));
        }
        let predecessor = match lines.split_last() {
            None => Predecessor::first(),
            Some((_, lines)) => {
                let line = lines.rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
                let no_entry = || self.wrong("ends in a line that is no entry");
                let entry: Value = serde_json::from_slice(line).map_err(|_| no_entry())?;
                let seq = entry["seq"].as_u64().ok_or_else(no_entry)?;
                Predecessor { seq, prev: String::new() }.next(line)
            }
        };
        let behind = match torn {
            [] => CutOff::Nothing,
            torn if predecessor.entry(torn).is_ok() => CutOff::Entry,
            torn => CutOff::Torn(torn.len() as u64),
        };
        Ok(End { bytes: bytes - torn.len() as u64, predecessor, behind })
    }

    fn wrong(&self, what: &str) -> Failure {
        let what = format!("the audit log {} {what}", self.path.display());
        Failure::new(Code::AuditUnwritable, what, LOOK_AT_IT)
    }

    fn unwritable(&self, error: &std::io::Error) -> Failure {
        let next = "Nothing is moved without a record of it. Check --state-dir: space, owner, mode.";
        Failure::io(Code::AuditUnwritable, format!("the audit log {}", self.path.display()), error, next)
    }
}

/// Now, in UTC, to the millisecond.
pub fn now_text() -> String {
    text_of(OffsetDateTime::now_utc())
}

/// Of one length, so that lines sort and compare as text: RFC 3339 would leave zeros at the end
/// away.
fn text_of(time: OffsetDateTime) -> String {
    let seconds = time.replace_nanosecond(0).unwrap_or(time).format(&Rfc3339).unwrap_or_default();
    format!("{}.{:03}Z", seconds.trim_end_matches('Z'), time.millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Issue 9, D3: a time is as `docs/audit.md` and `docs/events.md` have it, whatever its digits.
    #[test]
    fn times_have_milliseconds() {
        for (nanoseconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (930_000_000, "1970-01-01T00:00:00.930Z"),
            (7_999_999, "1970-01-01T00:00:00.007Z"),
        ] {
            assert_eq!(text_of(OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).unwrap()), text);
        }
    }
}
