//! Showing a load under its final name, from wherever an earlier attempt stopped.
//!
//! | what is there | what was done | what is left |
//! |---|---|---|
//! | staging file with its ledger | at most the mark was set | mark, drop the ledger, rename |
//! | staging file without it, and its mark | the ledger was dropped | rename |
//! | staging file of an image, whole | at most the mark was set | mark, rename, remove the ledger |
//! | both names, one file, its mark | the target was linked | remove the staging name |
//! | target alone, and its mark | all of it | nothing |
//!
//! The mark stays: without it nothing would tell this target from somebody's, should the caller be
//! killed before it has noted that the load is published. `forget` removes it.

use rusqlite::Connection;
use sealift_protocol::{
    close::Code,
    failure::{Failure, Outcome},
    id::TransferId,
};

use super::{
    failure::failed,
    ledger::{self, Ledger},
    leftover::Leftover,
    load::close,
    staging::{Identity, Staging},
};
use crate::fail_point::{LEDGER_DROPPED, LEDGER_DROPPING, hit};

/// Publishes this transfer's load: the file that was proven, where this very process knows it, or
/// the one that says of itself that it is whole.
pub fn publish(staging: &Staging, transfer: TransferId, proven: Option<Identity>, row_bytes_max: usize) -> Outcome {
    if staging.is_renamed(transfer)? {
        return Ok(());
    }
    staging.check_target()?;
    proven.map_or(Ok(()), |proven| staging.check(proven))?;
    let identity = match Leftover::find(staging, row_bytes_max)? {
        Leftover::Load(connection, identity) => {
            let ledger = whole_ledger(&connection, transfer)?;
            staging.mark_finished(transfer, identity)?;
            drop_ledger(connection, ledger.schema.wal)?;
            identity
        }
        Leftover::Image(ledger, identity) => {
            if ledger.bond().transfer != transfer {
                return Err(unpublishable("is a load of another transfer"));
            }
            if !ledger.is_whole() {
                return Err(unpublishable("is not whole"));
            }
            staging.mark_finished(transfer, identity)?;
            identity
        }
        Leftover::Finished(owner, identity) if owner == transfer => identity,
        Leftover::Finished(..) => return Err(unpublishable("is a load of another transfer")),
        Leftover::Empty(_) => return Err(unpublishable("is empty")),
        Leftover::Nothing => return Err(unpublishable("is gone")),
    };
    hit(LEDGER_DROPPED);
    staging.check_closed()?;
    staging.sync()?;
    staging.rename(proven.unwrap_or(identity))
}

fn whole_ledger(connection: &Connection, transfer: TransferId) -> Outcome<Ledger> {
    match ledger::bond(connection)? {
        Some(bond) if bond.transfer == transfer => {}
        _ => return Err(unpublishable("is a load of another transfer")),
    }
    let ledger = ledger::read(connection)?;
    if ledger.is_whole() { Ok(ledger) } else { Err(unpublishable("is not whole")) }
}

/// The journal mode that the source has comes first: without the ledger nothing says which that is.
fn drop_ledger(connection: Connection, wal: bool) -> Outcome {
    let engine = |error: rusqlite::Error| failed(&error, "the staging file");
    if wal {
        connection.pragma_update(None, "journal_mode", "WAL").map_err(engine)?;
    }
    connection.execute_batch("BEGIN IMMEDIATE").map_err(engine)?;
    ledger::drop_table(&connection)?;
    hit(LEDGER_DROPPING);
    connection.execute_batch("COMMIT").map_err(engine)?;
    if wal {
        // Closing the last connection moves what is in the log into the database, and removes it.
        return connection.close().map_err(|(_, error)| engine(error));
    }
    close(connection)
}

fn unpublishable(what: &str) -> Failure {
    let next = "Another program changed the target's folder meanwhile. Start the transfer again.";
    Failure::new(Code::TargetFailed, format!("the load cannot be published: the staging file {what}"), next)
}
