//! What the receiver does about a target, whatever its engine is.

use std::fs;

use sealift_agent::audit::entry::{Entry, Name};
use sealift_engine_api::{Recovery, TargetOptions};
use sealift_protocol::id::TransferId;

/// The audit entries of the dangerous options that are in force, of a standing receiver's `target`.
pub fn dangers(options: TargetOptions, target: Option<&str>) -> Vec<Entry> {
    let mut entries = Vec::new();
    if options.danger_plaintext_file {
        entries.push(Entry::DangerPlaintextFile { target: target.map(Name::new) });
    }
    if options.danger_show_program_output {
        entries.push(Entry::DangerShowProgramOutput { target: target.map(Name::new) });
    }
    entries
}

/// What a file that is staged for this transfer takes on the disk.
pub fn staged_bytes(target: &dyn Recovery, transfer: TransferId) -> u64 {
    target.staged(transfer).and_then(|path| fs::symlink_metadata(path).ok()).map_or(0, |found| found.len())
}
