//! What an earlier process left in the staging place, and what to make of it.
//!
//! Only what is surely a load of Sealift's is opened or removed: a file of this user's, with one
//! name, that is empty, holds a ledger or is marked as finished, and that nobody loads into now.
//! Anything else is refused and stays as it is, also what the engine cannot read: it may
//! be another program's, and the operator can still remove it.

use std::{fs, io, os::unix::fs::MetadataExt, time::Duration};

use rusqlite::{Connection, ErrorCode};
use sealift_protocol::{
    close::Code,
    failure::{Failure, Outcome},
    id::TransferId,
};

use super::{
    failure::failed,
    image::ledger::{Found, ImageLedger},
    load::{close, configure, flags},
    mark::Owner,
    staging::{Identity, Staging},
};
use crate::document::LEDGER_TABLE;

/// What lies in the staging place.
pub enum Leftover {
    Nothing,
    /// A file that was made and not loaded into.
    Empty(Identity),
    /// A load with its ledger, open and kept from others by the engine's lock.
    Load(Connection, Identity),
    /// Pages of an image, with their ledger, which keeps others out.
    Image(Box<ImageLedger>, Identity),
    /// A whole load of this transfer, its ledger dropped, and its mark claimed.
    Finished(TransferId, Identity),
}

impl Leftover {
    /// Looks, and lets SQLite roll back what was not committed.
    pub fn find(staging: &Staging, row_bytes_max: usize) -> Outcome<Self> {
        let metadata = match fs::symlink_metadata(staging.file()) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::Nothing),
            Err(error) => return Err(staging.refused("looked for", &error)),
        };
        let identity = Identity::of(&metadata);
        let own = metadata.uid() == nix::unistd::geteuid().as_raw() || staging.is_handed_over(&metadata);
        let ours = own && metadata.is_file() && metadata.nlink() == 1;
        if ours {
            // What a killed process had written may be in the page cache alone: it is durable
            // before it is reported.
            staging.sync_leftover().map_err(|error| staging.refused("synced", &error))?;
            // The engine is not let near an image before all of it is there.
            match image(staging, identity)? {
                Found::Nothing => {}
                Found::Busy => return Err(staging.busy()),
                Found::Ledger(ledger) => return Ok(Self::Image(ledger, identity)),
            }
        }
        match if ours { look(staging, identity)? } else { None } {
            Some(Self::Load(connection, identity)) => {
                configure(&connection, row_bytes_max).map_err(|error| failed(&error, "the staging file"))?;
                staging.check(identity)?;
                Ok(Self::Load(connection, identity))
            }
            Some(found) => Ok(found),
            None => {
                let what = format!("{} is in the way and is no unfinished load", staging.file().display());
                Err(Failure::new(Code::TargetFailed, what, "Look at what it is, and remove or rename it."))
            }
        }
    }

    /// Leaves it as it is, to be resumed.
    pub fn let_go(self, staging: &Staging) {
        if let Self::Load(connection, _) = self {
            let _ = close(connection);
        }
        staging.mark.release();
    }

    /// Removes it, and what may lie about without it.
    pub fn remove(self, staging: &Staging) -> Outcome {
        match self {
            Self::Nothing => staging.remove_rest()?,
            Self::Load(connection, identity) => {
                // Closed after its file is gone, it would leave a journal behind.
                let _ = close(connection);
                staging.remove(identity);
            }
            Self::Image(_, identity) | Self::Empty(identity) | Self::Finished(_, identity) => staging.remove(identity),
        }
        Ok(())
    }
}

/// The ledger of an image, if that is what the file is.
fn image(staging: &Staging, identity: Identity) -> Outcome<Found> {
    let found = ImageLedger::find(&staging.image_ledger(), identity);
    let found = found.map_err(|error| staging.refused("looked for", &error))?;
    // One that is proven and not yet published has its mark held, and its ledger closed.
    match &found {
        Found::Ledger(_) if staging.mark.claim(identity) == Owner::Busy => Ok(Found::Busy),
        _ => Ok(found),
    }
}

/// `None` for a file that is not one of ours.
fn look(staging: &Staging, identity: Identity) -> Outcome<Option<Leftover>> {
    let open = || -> rusqlite::Result<(Connection, bool, bool)> {
        let connection = Connection::open_with_flags(staging.file(), flags())?;
        connection.busy_timeout(Duration::ZERO)?;
        connection.execute_batch("BEGIN EXCLUSIVE")?;
        let sql = "SELECT EXISTS(SELECT 1 FROM sqlite_schema),
                          EXISTS(SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1)";
        let (any, ledger) = connection.query_row(sql, [LEDGER_TABLE], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if ledger {
            // Set within the transaction, so that its end lets no other connection in.
            connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        }
        connection.execute_batch("COMMIT")?;
        Ok((connection, any, ledger))
    };
    let (connection, any, ledger) = match open() {
        Ok(found) => found,
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => return Err(staging.busy()),
        Err(_) => return Ok(None),
    };
    // One that is proven and not yet published is open nowhere, and its mark is held.
    Ok(match staging.mark.claim(identity) {
        Owner::Busy => return Err(staging.busy()),
        _ if ledger => Some(Leftover::Load(connection, identity)),
        _ if !any => Some(Leftover::Empty(identity)),
        Owner::Free(transfer) => Some(Leftover::Finished(transfer, identity)),
        Owner::Nobody => None,
    })
}
