//! What can be found about a source or a target that is bytes.

use std::path::Path;

use sealift_engine_api::{Finding, FindingKind};
use sealift_host::units::human_bytes;
use sealift_protocol::printable::printable;

/// The closed list.
pub const FINDINGS: &[FindingKind] = &[
    FindingKind::new("file"),
    FindingKind::new("free-space"),
    FindingKind::new("hidden-exit-codes"),
    FindingKind::new("place"),
    FindingKind::new("program"),
    FindingKind::new("read-once"),
];

/// A file as a source.
pub fn file(name: &str, bytes: u64) -> Finding {
    Finding::fact("file", format!("{name}, {}", human_bytes(bytes)))
}

/// A source of which nothing is known before it is read.
pub fn read_once() -> Finding {
    Finding::fact("read-once", "what it gives is known when it is read, and that can be done once")
}

/// The program of a command. Its arguments may be secret.
pub fn program(path: &Path) -> Finding {
    let what = format!("{} is there and can be run; whether it can do its work shows when it runs", path.display());
    Finding::fact("program", printable(&what))
}

/// Of a target's disk.
pub fn free_space(bytes: Option<u64>) -> Finding {
    let what = bytes.map_or_else(|| "unknown".to_owned(), |bytes| format!("{} for this user", human_bytes(bytes)));
    Finding::fact("free-space", what)
}
