//! Which archives were loaded here: a grant is good for one load (fault G3). One file for each,
//! named after the transfer, kept until its grant has ended. Receipts are for people, who move them
//! away; this is not. A drill that discarded everything is no load.

use std::{fs, io::ErrorKind, path::PathBuf};

use sealift_agent::{
    audit::{AuditLog, entry::Entry},
    failure::{Failure, Outcome},
    own_file::unusable,
    state::{StateDir, write_durably},
};
use sealift_protocol::{close::Code, id::TransferId};

const FOLDER: &str = "archives-loaded";

/// A clock that is set back by less than this lets no archive in again. Beyond it, the grant has
/// ended for any clock.
const KEPT_LONGER_SECONDS: u64 = 86_400;

fn path_of(state: &StateDir, transfer: TransferId) -> PathBuf {
    state.path().join(FOLDER).join(transfer.to_string())
}

/// Fails if the archive of `transfer` was loaded.
pub fn check(state: &StateDir, transfer: TransferId) -> Outcome {
    let path = path_of(state, transfer);
    match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(unusable(&path, &error)),
        Ok(_) => {
            let what = "this archive was loaded already; the audit log says when";
            let next = match state.receipt(transfer) {
                Some((_, receipt)) => format!("Its receipt is {}. ", receipt.display()),
                None => String::new(),
            };
            let next = format!("{next}To load the source once more, have it sealed once more.");
            Err(Failure::new(Code::GrantUsed, what, next))
        }
    }
}

/// The archive is about to be shown, or its operator states that it is loaded; its grant ends at
/// `until_seconds`. Durable when this returns.
pub fn note(state: &StateDir, audit: &AuditLog, transfer: TransferId, until_seconds: u64) -> Outcome {
    audit.append(Some(transfer), &Entry::ArchiveUse { until: until_seconds })?;
    state.subfolder(FOLDER)?;
    let path = path_of(state, transfer);
    write_durably(&path, until_seconds.to_string().as_bytes()).map_err(|error| unusable(&path, &error))
}

/// It was not shown after all.
pub fn forget(state: &StateDir, transfer: TransferId) -> Outcome {
    remove(path_of(state, transfer))
}

/// Removes what belongs to grants that have ended: those archives are refused for that. What cannot
/// be read stays.
pub fn sweep(state: &StateDir, now_seconds: u64) -> Outcome {
    let folder = state.path().join(FOLDER);
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|error| unusable(&folder, &error))?,
    };
    for entry in entries {
        let path = entry.map_err(|error| unusable(&folder, &error))?.path();
        let until_seconds = fs::read_to_string(&path).ok().and_then(|text| text.parse::<u64>().ok());
        if until_seconds.is_some_and(|until| until.saturating_add(KEPT_LONGER_SECONDS) < now_seconds) {
            remove(path)?;
        }
    }
    Ok(())
}

fn remove(path: PathBuf) -> Outcome {
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(unusable(&path, &error)),
        _ => Ok(()),
    }
}
