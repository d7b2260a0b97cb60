//! What the receiver does about a target, whatever its engine is.

use std::fs;

use sealift_agent::{
    audit::entry::{Entry, Name},
    cli::TransferArgs,
};
use sealift_engine_api::{Recovery, TargetOptions, Waivers};
use sealift_protocol::id::TransferId;

/// What the target of one command may do, as its arguments say.
pub fn options(transfer: &TransferArgs, danger_plaintext_file: bool, waivers: Waivers) -> TargetOptions {
    TargetOptions {
        row_bytes_max: transfer.row_bytes_max,
        workers: transfer.workers,
        danger_plaintext_file,
        danger_show_program_output: transfer.danger_show_program_output,
        standing: false,
        waivers,
    }
}

/// The audit entries of the dangerous options that are in force, of a standing receiver's `target`.
pub fn dangers(options: &TargetOptions, target: Option<&str>) -> Vec<Entry> {
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
