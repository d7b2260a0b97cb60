//! Reading the staged database again: the rows of every table as the source read them, sequences,
//! and the list of what is in it.

use sealift_engine_api::{Finding, out_of_order};
use sealift_protocol::{
    close::Code,
    digest::Digests,
    failure::{Failure, Outcome},
    manifest::{CatalogueCheck, Check, Evidence, Proof, RowsCheck},
};

use super::{
    definitions, extensions, generated, large_objects, ledger,
    mark::{Mark, Stage},
    objects, properties, read_back,
    shared::SharedLoad,
};
use crate::{
    archive::Archive,
    client::{At, Connection, End},
    document::Sequence,
    fail_point::{PROVEN, hit},
    sql::quote_qualified,
};

/// Says table by table what the database holds, and marks it as proven.
pub fn prove(shared: &SharedLoad, digests: &Digests) -> Outcome<Evidence> {
    if !shared.is_whole() {
        return Err(out_of_order());
    }
    let (schema, finish) = (shared.schema()?, shared.finish()?);
    let mut session = shared.session()?;
    let (tables, tables_read_early) = read_back::read_all(shared, &schema, digests)?;
    check_sequences(&mut session.connection, &finish.sequences)?;
    let roles = shared.with_cluster(|cluster| cluster.roles())?;
    let columns_not_compared = generated::not_compared(&mut session.connection, &schema)?;
    let definitions = objects::check(&mut session.connection, &finish.objects, schema.server_version, &roles)?;
    large_objects::check(&mut session.connection, &finish.large_objects, &roles)?;
    // What was emptied while it was read differs, and what was emptied before would be resumed.
    if schema.has_unlogged() && !ledger::is_intact(&mut session.connection)? {
        let what = "the target's server has crashed, and emptied the unlogged tables of the load";
        return Err(Failure::new(Code::TargetFailed, what, "Start again: they are loaded again."));
    }
    let mark = Mark {
        transfer: shared.bond.transfer,
        stage: Stage::Proven,
        target: shared.address.database.clone(),
        database: schema.database.clone(),
    };
    shared.with_cluster(|cluster| cluster.set_mark(&shared.staging, &mark))?;
    hit(PROVEN);
    let rows = RowsCheck { tables_read_early, columns_not_compared };
    let checks = vec![Check::Catalogue(CatalogueCheck { definitions }), Check::Rows(rows)];
    Ok(Evidence { tables, checks, ..Evidence::bare(Proof::RowsReadBack) })
}

/// What was left out or changed, as far as it follows from what was sent and the server's roles.
pub fn findings(shared: &SharedLoad) -> Outcome<Vec<Finding>> {
    let schema = shared.schema()?;
    let archive = Archive::from_bytes(&schema.archive)?;
    let roles = shared.with_cluster(|cluster| cluster.roles())?;
    let mut missing = properties::missing_roles(&schema.database, &roles);
    missing.append(&mut large_objects::missing_roles(&shared.finish()?.large_objects, &roles));
    let mut findings = definitions::findings(&archive, missing, &roles);
    findings.extend(extensions::versions(&mut shared.session()?.connection, &schema.extensions)?);
    Ok(findings)
}

fn check_sequences(connection: &mut Connection, sequences: &[Sequence]) -> Outcome {
    for sequence in sequences {
        let what = format!("reading sequence {}.{}", sequence.schema, sequence.name);
        let from = quote_qualified(&sequence.schema, &sequence.name);
        let sql = format!("SELECT last_value, is_called FROM {from}");
        let row = connection.query_one(&sql, &[]).at(End::Target, &what)?;
        let state = || -> crate::client::Result<(i64, bool)> { Ok((row.try_get(0)?, row.try_get(1)?)) };
        if state().at(End::Target, &what)? != (sequence.last_value, sequence.is_called) {
            let what = format!("sequence {}.{} in the target is not what was sent", sequence.schema, sequence.name);
            let next = "The load was dropped. Look for other programs that use the staging database.";
            return Err(Failure::new(Code::TargetMismatch, what, next));
        }
    }
    Ok(())
}
