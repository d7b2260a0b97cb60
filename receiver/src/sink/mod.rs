//! Where a transfer's data goes.

mod discard;
pub mod file;
pub mod opaque;
pub mod sqlite;
#[cfg(test)]
mod testing;

use std::{fs, path::Path, sync::Arc};

use sealift_agent::audit::entry::{Entry, Name};
use sealift_engine_api::{Endpoint, Place, Sink, TargetOptions};
use sealift_opaque::program;
use sealift_protocol::{close::Code, failure::Outcome, id::TransferId};

use self::{discard::DiscardSink, opaque::OpaqueSink, sqlite::SqliteSink};
use crate::guard;

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

/// The sink of a target.
pub fn open(endpoint: &dyn Endpoint, options: TargetOptions) -> Outcome<Arc<dyn Sink>> {
    endpoint.check_target(&options)?;
    let row_bytes_max = options.row_bytes_max as usize;
    Ok(match endpoint.place() {
        Place::StandardStream => Arc::new(OpaqueSink::standard()?),
        Place::Nowhere => Arc::new(DiscardSink::new(row_bytes_max)),
        // What has no form but its bytes is a file of them.
        Place::File(path) if endpoint.forms().is_empty() => Arc::new(OpaqueSink::file(&path)?),
        Place::File(path) => Arc::new(SqliteSink::new(&path, row_bytes_max)?),
        Place::Named(words) => {
            program::find(&words[0], Code::TargetFailed)?;
            guard::check()?;
            Arc::new(OpaqueSink::exec(words, options.danger_show_program_output))
        }
    })
}

/// The sink of a target in which an earlier transfer may have left something. `None` where nothing
/// can be left.
pub fn open_leftover(endpoint: &dyn Endpoint, options: TargetOptions) -> Outcome<Option<Arc<dyn Sink>>> {
    match endpoint.place() {
        Place::StandardStream => Ok(None),
        Place::File(path) if !path.parent().unwrap_or(Path::new("/")).is_dir() => Ok(None),
        // Nothing of a command is started for this, so that it need not be there any more.
        Place::Named(words) => Ok(Some(Arc::new(OpaqueSink::exec(words, false)))),
        Place::File(_) | Place::Nowhere => open(endpoint, options).map(Some),
    }
}

/// What a file that is staged for this transfer takes on the disk.
pub fn staged_bytes(sink: &dyn Sink, transfer: TransferId) -> u64 {
    sink.staged(transfer).and_then(|path| fs::symlink_metadata(path).ok()).map_or(0, |found| found.len())
}
