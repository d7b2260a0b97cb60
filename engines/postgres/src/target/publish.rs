//! Showing a proven load under its final name.
//!
//! ```text
//! proven ──▶ publishing ──▶ ledger dropped, event triggers made ──▶ published (renamed)
//! ```
//!
//! Each step is one transaction, and can be found by the next process: the mark is in the comment
//! of the database, which has what the later steps need, and moves with it.

use sealift_protocol::{
    close::Code,
    failure::{Failure, Outcome},
    id::TransferId,
};

use super::{
    cluster::{Cluster, staging_name},
    definitions,
    ledger::{self, SCHEMA},
    mark::{Mark, Stage},
    post_data::is_of_event_trigger,
    pre_data::SCHEMA_PART,
    properties::Roles,
    session::Session,
};
use crate::{
    archive::{Archive, Section},
    client::{Address, At, Connection, End},
    document::SchemaDocument,
    fail_point::{FORGOTTEN, LEDGER_DROPPED, PUBLISHING, RENAMED, hit},
};

/// Publishes the load of this transfer, from wherever an earlier attempt stopped, or finds that it
/// is published.
pub fn publish(address: &Address, transfer: TransferId, row_bytes_max: usize) -> Outcome {
    let mut cluster = Cluster::connect(address)?;
    cluster.lock(transfer)?;
    if is_published(&mut cluster, &address.database, transfer)? {
        return Ok(());
    }
    let staging = staging_name(transfer);
    let found = cluster.find(&staging)?.ok_or_else(|| unpublishable("is gone"))?;
    if !found.is_open {
        return Err(unpublishable("was about to be dropped"));
    }
    let mark = found.mark.filter(|mark| mark.transfer == transfer && mark.target == address.database);
    let mark = mark.ok_or_else(|| unpublishable("is not marked as a load of this transfer"))?;
    match mark.stage {
        Stage::Loading => return Err(unpublishable("was not proven")),
        Stage::Proven => cluster.set_mark(&staging, &mark.at(Stage::Publishing))?,
        Stage::Publishing | Stage::Published => {}
    }
    hit(PUBLISHING);
    let roles = cluster.roles()?;
    drop_ledger(&address.with_database(&staging), row_bytes_max, &roles)?;
    hit(LEDGER_DROPPED);
    cluster.rename(&staging, &mark, &roles)?;
    hit(RENAMED);
    Ok(())
}

/// Whether the database has its final name, and the mark of this transfer.
fn is_published(cluster: &mut Cluster, name: &str, transfer: TransferId) -> Outcome<bool> {
    let found = cluster.find(name)?.and_then(|found| found.mark);
    Ok(found.is_some_and(|mark| mark.transfer == transfer && mark.stage == Stage::Published))
}

/// Takes the ledger out, so that the database holds what the source holds and nothing else. Event
/// triggers, which would fire for that, are made after it in the same transaction.
fn drop_ledger(address: &Address, row_bytes_max: usize, roles: &Roles) -> Outcome {
    const WHAT: &str = "dropping the ledger of the load";
    let connection =
        Connection::open(address, End::Target, row_bytes_max).at(End::Target, "connecting to the target")?;
    let Session { mut connection, .. } = Session::set_up(connection)?;
    if ledger::bond(&mut connection)?.is_none() {
        return Ok(());
    }
    let schema = SchemaDocument::from_bytes(&ledger::document(&mut connection, SCHEMA_PART)?)?;
    if schema.has_unlogged() && !ledger::is_intact(&mut connection)? {
        return Err(emptied());
    }
    let archive = Archive::from_bytes(&schema.archive)?;
    connection.batch(&format!("BEGIN; DROP SCHEMA {SCHEMA} CASCADE")).at(End::Target, WHAT)?;
    for entry in archive.section(Section::PostData).filter(|entry| is_of_event_trigger(entry)) {
        definitions::make(&mut connection, entry, roles).map_err(|error| definitions::failed(error, entry))?;
    }
    connection.batch("COMMIT").at(End::Target, WHAT)
}

/// Gives the published database the source's own comment, in place of the mark.
pub fn forget(address: &Address, transfer: TransferId) -> Outcome {
    let mut cluster = Cluster::connect(address)?;
    let name = &address.database;
    let mark = cluster.find(name)?.and_then(|found| found.mark);
    if let Some(Mark { database, .. }) = mark.filter(|mark| mark.transfer == transfer && mark.stage == Stage::Published)
    {
        cluster.restore_comment(name, database.comment.as_deref())?;
        hit(FORGOTTEN);
    }
    Ok(())
}

/// Drops what is left of this transfer; returns whether it is published, and stays.
pub fn abandon(address: &Address, transfer: TransferId) -> Outcome<bool> {
    let mut cluster = Cluster::connect(address)?;
    cluster.lock(transfer)?;
    if is_published(&mut cluster, &address.database, transfer)? {
        return Ok(true);
    }
    cluster.drop_staging(&staging_name(transfer))?;
    Ok(false)
}

/// After the proof there is nothing left to load them from.
fn emptied() -> Failure {
    let what = "the load cannot be published: a crash of the server has emptied its unlogged tables";
    let next = "Give it up with `sealift-receiver abandon`, and start the transfer again.";
    Failure::new(Code::TargetFailed, what, next)
}

fn unpublishable(what: &str) -> Failure {
    let next = "Another program changed the server's databases meanwhile. Start the transfer again.";
    Failure::new(Code::TargetFailed, format!("the load cannot be published: its database {what}"), next)
}
