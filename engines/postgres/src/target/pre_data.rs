//! Making the staging database, with everything that the rows need.
//!
//! The database counts from the moment at which the ledger has the line of the schema part. One
//! without it is dropped and made again from nothing.

use sealift_protocol::{
    close::Code,
    failure::{Failure, Outcome},
    id::PartIndex,
    manifest::Plan,
    receive::WholePart,
};

use super::{
    definitions, extensions, generated, ledger,
    mark::{Mark, Stage},
    privileges,
    session::Session,
    shared::SharedLoad,
};
use crate::{
    archive::{Archive, Entry, Section},
    client::{At, End},
    document::SchemaDocument,
    fail_point::{SCHEMA_MADE, STAGED, hit},
    target::properties::Roles,
};

/// Definitions of one transaction: each takes locks, of which a server has some 6,400 by default.
const DEFINITIONS_AT_ONCE: usize = 500;

/// The part that is the schema.
pub const SCHEMA_PART: PartIndex = PartIndex(0);

/// Makes the staging database as the schema part says.
pub fn make(shared: &SharedLoad, bytes: &[u8], whole: &WholePart) -> Outcome {
    let schema = SchemaDocument::from_bytes(bytes)?;
    check_plan(&shared.plan, &schema)?;
    let archive = Archive::from_bytes(&schema.archive)?;
    definitions::check(&archive)?;
    let mark = Mark {
        transfer: shared.bond.transfer,
        stage: Stage::Loading,
        target: shared.address.database.clone(),
        database: schema.database.clone(),
    };
    let roles = shared.with_cluster(|cluster| {
        let roles = cluster.roles()?;
        privileges::check(cluster.connection(), &archive, &schema.database, &roles)?;
        cluster.drop_staging(&shared.staging)?;
        cluster.create(&shared.staging, &mark)?;
        Ok(roles)
    })?;
    hit(STAGED);
    let mut session = shared.session()?;
    ledger::create(&mut session.connection, &shared.bond)?;
    let entries: Vec<&Entry> = archive.section(Section::PreData).filter(|entry| definitions::is_made(entry)).collect();
    for entries in entries.chunks(DEFINITIONS_AT_ONCE) {
        shared.check_stop()?;
        make_some(&mut session, entries, &roles)?;
    }
    let Session { connection, .. } = &mut session;
    extensions::check_configuration(connection, &schema.tables)?;
    generated::check(connection, &schema)?;
    const WHAT: &str = "the ledger of the load";
    ledger::begin(connection, whole.part).at(End::Target, WHAT)?;
    ledger::complete(connection, whole, 0, Some(bytes)).at(End::Target, WHAT)?;
    connection.batch("COMMIT").at(End::Target, WHAT)?;
    hit(SCHEMA_MADE);
    shared.set_schema(schema);
    // A setting of an archive ends with its session.
    drop(session);
    Ok(())
}

fn make_some(session: &mut Session, entries: &[&Entry], roles: &Roles) -> Outcome {
    const WHAT: &str = "making the schema";
    let Session { connection, .. } = session;
    connection.batch("BEGIN").at(End::Target, WHAT)?;
    for entry in entries {
        definitions::make(connection, entry, roles).map_err(|error| definitions::failed(error, entry))?;
    }
    connection.batch("COMMIT").at(End::Target, WHAT)
}

/// That the tables of the plan are those of the schema.
pub fn check_plan(plan: &Plan, schema: &SchemaDocument) -> Outcome {
    let planned = plan.tables.iter().map(|table| (table.schema.as_deref(), &table.name));
    if planned.eq(schema.tables.iter().map(|table| (Some(&*table.schema), &table.name))) {
        return Ok(());
    }
    Err(Failure::new(Code::PlanRefused, "the tables of the plan are not those of the schema", "Report this."))
}
