//! Where a load begins: from nothing, or where an earlier one stopped.

use sealift_protocol::{
    disposition::Asks,
    failure::{Failure, Outcome},
    id::PartIndex,
    manifest::{Plan, Section},
};

use super::{
    cluster::{Cluster, staging_name},
    ledger::{self, Line},
    post_data,
    pre_data::{SCHEMA_PART, check_plan},
    session::Session,
    shared::SharedLoad,
};
use crate::{
    client::{At, End},
    document::{FinishDocument, Persistence, SchemaDocument},
    target::mark::Stage,
};

/// Opens what an earlier process left of this load, or drops it. Returns what is committed.
pub fn stage(shared: &SharedLoad, asks: Asks) -> Outcome<Vec<Line>> {
    shared.with_cluster(|cluster| drop_others(cluster, shared))?;
    let found = shared.with_cluster(|cluster| cluster.find(&shared.staging))?;
    let Some(found) = found else { return Ok(Vec::new()) };
    let is_loaded_into = found.is_open && found.mark.is_some_and(|mark| mark.stage <= Stage::Proven);
    if asks == Asks::Continue && is_loaded_into {
        // The sessions of a process that died may not have noticed.
        shared.with_cluster(|cluster| cluster.end_sessions(&shared.staging))?;
        if let Some(lines) = resume(shared)? {
            return Ok(lines);
        }
    }
    shared.with_cluster(|cluster| cluster.drop_staging(&shared.staging))?;
    Ok(Vec::new())
}

/// Drops what other transfers have left on their way into this target, and refuses to start beside
/// one that is under way.
fn drop_others(cluster: &mut Cluster, shared: &SharedLoad) -> Outcome {
    for found in cluster.loads_into(&shared.address.database)? {
        let Some(mark) = found.mark.filter(|mark| mark.transfer != shared.bond.transfer) else { continue };
        if !cluster.try_lock(mark.transfer)? {
            let what = format!("another process loads into the database {}", mark.target);
            let code = sealift_protocol::close::Code::TargetBusy;
            return Err(Failure::new(code, what, "Let it end, or end it."));
        }
        let dropped = cluster.drop_staging(&staging_name(mark.transfer));
        cluster.unlock(mark.transfer)?;
        dropped?;
    }
    Ok(())
}

/// Goes on from what is committed, if anything is.
fn resume(shared: &SharedLoad) -> Outcome<Option<Vec<Line>>> {
    let mut session = shared.session()?;
    if ledger::bond(&mut session.connection)? != Some(shared.bond) {
        return Ok(None);
    }
    let mut lines = ledger::lines(&mut session.connection)?;
    let Some(schema) = lines.first().filter(|line| line.whole.part == SCHEMA_PART) else { return Ok(None) };
    let schema = SchemaDocument::from_bytes(schema.document.as_deref().unwrap_or_default())?;
    check_plan(&shared.plan, &schema)?;
    if !ledger::is_intact(&mut session.connection)? {
        let emptied = emptied_parts(&shared.plan, &schema);
        // Triggers and keys would apply to rows that are loaded again.
        if !emptied.is_empty() && post_data::has_begun(&mut session)? {
            return Ok(None);
        }
        empty_unlogged(&mut session, &schema)?;
        ledger::forget_parts(&mut session.connection, &emptied)?;
        lines.retain(|line| !emptied.contains(&line.whole.part));
    }
    for line in &mut lines {
        if shared.plan.section(line.whole.part) == Some(Section::PostData) {
            let bytes = line.document.take().unwrap_or_default();
            shared.set_finish(FinishDocument::from_bytes(&bytes)?);
        }
        line.document = None;
        shared.note_committed(line.whole.part);
    }
    shared.set_schema(schema);
    shared.give_back(session);
    Ok(Some(lines))
}

/// The parts of unlogged tables, which the server has emptied after a crash.
fn emptied_parts(plan: &Plan, schema: &SchemaDocument) -> Vec<PartIndex> {
    let is_unlogged =
        |table: usize| schema.tables.get(table).is_some_and(|table| table.persistence == Persistence::Unlogged);
    let of_unlogged =
        plan.parts.iter().zip(0..).filter(|(part, _)| part.table.is_some_and(|table| is_unlogged(table.0 as usize)));
    of_unlogged.map(|(_, index)| PartIndex(index)).collect()
}

/// Rows that were written after the crash are in them, too.
fn empty_unlogged(session: &mut Session, schema: &SchemaDocument) -> Outcome {
    for table in schema.tables.iter().filter(|table| table.persistence == Persistence::Unlogged) {
        let name = crate::sql::quote_qualified(&table.schema, &table.name);
        let emptied = session.connection.batch(&format!("DELETE FROM ONLY {name}"));
        emptied.at(End::Target, &format!("emptying table {}.{}", table.schema, table.name))?;
    }
    Ok(())
}
