//! Which grants a standing receiver has had the one transfer of. A file each, named like the transfer and holding when the
//! grant ends; after that the grant itself says no.

use std::{fs, io::ErrorKind, path::PathBuf, time::Duration};

use sealift_agent::{
    failure::{Failure, Outcome},
    standing::TICKET_VALID_FOR_MAX,
    state::{StateDir, write_durably},
};
use sealift_protocol::{close::Code, grant::Grant, id::TransferId, limits::CLOCK_SKEW_SECONDS_MAX};
use time::OffsetDateTime;

/// How long a file is kept after the grant's end: a clock may be set back by as much.
const KEPT_AFTER_SECONDS: u64 = 10 * CLOCK_SKEW_SECONDS_MAX;

pub struct UsedGrants {
    folder: PathBuf,
}

impl UsedGrants {
    pub fn open(state: &StateDir) -> Outcome<Self> {
        Ok(Self { folder: state.subfolder("used-grants")? })
    }

    /// Durable when this returns.
    pub fn note(&self, grant: &Grant) -> Outcome {
        self.write(grant.transfer, grant.not_after_seconds)
    }

    /// As `note`, for a grant of which nothing is known but whose it is.
    pub fn note_unseen(&self, transfer: TransferId) -> Outcome {
        self.write(transfer, now_seconds() + TICKET_VALID_FOR_MAX.as_secs())
    }

    fn write(&self, transfer: TransferId, not_after_seconds: u64) -> Outcome {
        let path = self.folder.join(transfer.to_string());
        write_durably(&path, not_after_seconds.to_string().as_bytes()).map_err(|error| self.unusable(&error))
    }

    pub fn holds(&self, transfer: TransferId) -> Outcome<bool> {
        self.folder.join(transfer.to_string()).try_exists().map_err(|error| self.unusable(&error))
    }

    /// Forgets those whose grant has ended.
    pub fn forget_expired(&self) -> Outcome {
        for entry in fs::read_dir(&self.folder).map_err(|error| self.unusable(&error))?.flatten() {
            let not_after = fs::read_to_string(entry.path()).ok().and_then(|text| text.parse::<u64>().ok());
            if not_after.is_some_and(|not_after| not_after.saturating_add(KEPT_AFTER_SECONDS) < now_seconds()) {
                match fs::remove_file(entry.path()) {
                    Err(error) if error.kind() != ErrorKind::NotFound => return Err(self.unusable(&error)),
                    // Gone now, whoever removed it.
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn unusable(&self, error: &std::io::Error) -> Failure {
        let next = "Check the state directory: owner, mode, free space, and that the file system is not read-only.";
        Failure::io(Code::Preflight, format!("{} cannot be used", self.folder.display()), error, next)
    }
}

fn now_seconds() -> u64 {
    Duration::try_from(OffsetDateTime::now_utc() - OffsetDateTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_used_grant_is_known_until_it_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(Some(folder.path().join("state")), "test").unwrap();
        let used = UsedGrants::open(&state).unwrap();
        let (ended, good) = (TransferId([1; 16]), TransferId([2; 16]));
        used.write(ended, now_seconds() - KEPT_AFTER_SECONDS - 1).unwrap();
        used.note_unseen(good).unwrap();
        assert!(used.holds(ended).unwrap() && used.holds(good).unwrap());
        used.forget_expired().unwrap();
        assert!(!used.holds(ended).unwrap() && UsedGrants::open(&state).unwrap().holds(good).unwrap());
    }
}
