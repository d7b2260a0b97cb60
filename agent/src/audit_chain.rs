//! The chain of an audit log, read from its first line to its last in bounded memory
//! (docs/audit.md).

use std::{
    fmt,
    io::{self, BufRead, Read},
};

use sealift_protocol::audit_head::AuditHead;
use serde_json::Value;

use crate::{failure::io_reason, telemetry::printable};

/// The hash before the first entry.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// A line: the texts of a grant, which are at most five, and typed fields of a few hundred bytes.
/// Longer is damage.
pub const LINE_BYTES_MAX: usize = 32 << 10;

/// What stands in each entry.
pub const SCHEMA: &str = "sealift.audit/1";

/// What the next entry follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Predecessor {
    pub seq: u64,
    pub prev: String,
}

impl Predecessor {
    pub fn first() -> Self {
        Self { seq: 0, prev: GENESIS.to_owned() }
    }

    /// The entry in `line`, which has no newline, if it is the one that follows.
    pub fn entry(&self, line: &[u8]) -> Result<Value, &'static str> {
        let entry: Value = serde_json::from_slice(line).map_err(|_| "no entry")?;
        // serde_json's map is sorted by key: any other spelling of the same object is not what an
        // agent wrote.
        if entry["schema"] != SCHEMA || entry.to_string().as_bytes() != line {
            return Err("no entry");
        }
        if entry["seq"] != self.seq {
            return Err("not the entry that comes next");
        }
        if entry["prev"] != self.prev.as_str() {
            return Err("does not follow the line before, which was changed, or is missing");
        }
        Ok(entry)
    }

    /// The entry that this follows; none before the first.
    pub fn head(&self) -> Option<AuditHead> {
        let hash = blake3::Hash::from_hex(&self.prev).ok()?;
        Some(AuditHead { sequence: self.seq.checked_sub(1)?, hash: *hash.as_bytes() })
    }

    /// What follows `line`.
    pub fn next(&self, line: &[u8]) -> Self {
        Self { seq: self.seq + 1, prev: blake3::hash(line).to_string() }
    }
}

/// Whether a checked entry is the one that `head` names.
pub fn is_entry(entry: &Value, head: &AuditHead) -> bool {
    // The check has seen to it that this is how the entry is spelled in the log.
    entry["seq"] == head.sequence && *blake3::hash(entry.to_string().as_bytes()).as_bytes() == head.hash
}

/// Why a log does not hold.
#[derive(Debug)]
pub enum ChainFault {
    Unreadable(io::Error),
    /// Lines are counted from 1.
    Line(u64, &'static str),
}

impl fmt::Display for ChainFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => write!(f, "it cannot be read: {}", io_reason(error)),
            Self::Line(line, what) => write!(f, "line {line}: {}", printable(what)),
        }
    }
}

/// Checks every whole line of `log`, and hands each entry to `visit`. What is behind the last
/// newline was never whole, or lacks its newline alone: it is left out. Returns what the next entry
/// follows.
pub fn check(mut log: impl BufRead, mut visit: impl FnMut(&Value)) -> Result<Predecessor, ChainFault> {
    let mut predecessor = Predecessor::first();
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = log.by_ref().take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line);
        read.map_err(ChainFault::Unreadable)?;
        let number = predecessor.seq + 1;
        match line.pop() {
            Some(b'\n') => {}
            Some(_) if line.len() + 1 == LINE_BYTES_MAX => {
                return Err(ChainFault::Line(number, "too long for an entry"));
            }
            _ => return Ok(predecessor),
        }
        let entry = predecessor.entry(&line).map_err(|what| ChainFault::Line(number, what))?;
        visit(&entry);
        predecessor = predecessor.next(&line);
    }
}
