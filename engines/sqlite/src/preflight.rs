//! What can be found about a database that is a file.

use std::{fs, path::Path};

use sealift_engine_api::{Finding, FindingKind};
use sealift_host::units::human_bytes;

/// The closed list.
pub const FINDINGS: &[FindingKind] = &[
    FindingKind::new("file"),
    FindingKind::new("free-pages-travel"),
    FindingKind::new("free-space"),
    FindingKind::new("place"),
    FindingKind::new("wal-grows"),
    FindingKind::new("writers-wait"),
];

/// The file of a source.
pub fn file(path: &Path) -> Finding {
    let size = fs::metadata(path).map_or_else(|_| "of unknown size".to_owned(), |found| human_bytes(found.len()));
    Finding::fact("file", format!("{}, {size}", path.display()))
}

/// Of a target's disk.
pub fn free_space(bytes: Option<u64>) -> Finding {
    let what = bytes.map_or_else(|| "unknown".to_owned(), |bytes| format!("{} for this user", human_bytes(bytes)));
    Finding::fact("free-space", what)
}
