//! Reading the staged database again: the rows of every table as the source read them, sequences,
//! and the list of what is in it.

use std::{
    num::NonZero,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use sealift_engine_api::{Finding, out_of_order};
use sealift_protocol::{
    close::Code,
    digest::{Digests, RowsDigest},
    failure::{Failure, Outcome},
    id::PartIndex,
    manifest::{CatalogueCheck, Check, Evidence, Proof},
};

use super::{
    definitions, extensions, large_objects, ledger,
    mark::{Mark, Stage},
    objects, properties,
    shared::SharedLoad,
};
use crate::{
    archive::Archive,
    client::{At, Connection, End},
    copy_rows::{RowsOut, Unreadable},
    document::{SchemaDocument, Sequence, Table},
    fail_point::{PROVEN, hit},
    sql::{Names, literal, quote_qualified},
    table_rows,
};

/// Tables that are read side by side.
const READERS: NonZero<usize> = NonZero::new(4).expect("4 is not 0");

/// Rows that are read before the stop token is asked again.
const ROWS_BETWEEN_QUESTIONS: u64 = 1024;

/// Says table by table what the database holds, and marks it as proven.
pub fn prove(shared: &SharedLoad, digests: &Digests) -> Outcome<Evidence> {
    if !shared.is_whole() {
        return Err(out_of_order());
    }
    let (schema, finish) = (shared.schema()?, shared.finish()?);
    let mut session = shared.session()?;
    let tables = read_tables(shared, &schema, digests)?;
    check_sequences(&mut session.connection, &finish.sequences)?;
    let roles = shared.with_cluster(|cluster| cluster.roles())?;
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
    let checks = vec![Check::Catalogue(CatalogueCheck { definitions })];
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

/// What readers have found, or why one of them failed.
struct TablesRead {
    tables: Vec<RowsDigest>,
    failure: Option<Failure>,
}

/// Reads all tables, some of them side by side.
fn read_tables(shared: &SharedLoad, schema: &SchemaDocument, digests: &Digests) -> Outcome<Vec<RowsDigest>> {
    let read = Mutex::new(TablesRead { tables: vec![RowsDigest::default(); schema.tables.len()], failure: None });
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..READERS.get().min(schema.tables.len()) {
            scope.spawn(|| {
                if let Err(failure) = read_some(shared, schema, digests, &next, &read) {
                    lock(&read).failure.get_or_insert(failure);
                }
            });
        }
    });
    let read = read.into_inner().unwrap_or_else(PoisonError::into_inner);
    match read.failure {
        Some(failure) => Err(failure),
        None => Ok(read.tables),
    }
}

fn lock(read: &Mutex<TablesRead>) -> std::sync::MutexGuard<'_, TablesRead> {
    read.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read_some(
    shared: &SharedLoad,
    schema: &SchemaDocument,
    digests: &Digests,
    next: &AtomicUsize,
    read: &Mutex<TablesRead>,
) -> Outcome {
    let mut session = shared.session()?;
    // As the source: values are read in the encoding of the database, without a conversion.
    let encoding = format!("SET client_encoding = {}", literal(&schema.database.encoding));
    session.connection.batch(&encoding).at(End::Target, "setting up a session in the target")?;
    while lock(read).failure.is_none() {
        let place = next.fetch_add(1, Ordering::Relaxed);
        let Some(table) = schema.tables.get(place) else { break };
        let names = Names::in_encoding(&schema.database.encoding);
        let digest = read_table(shared, &mut session.connection, table, names, digests);
        let digest = digest.map_err(|failure| match first_part(shared, place) {
            Some(part) => failure.at_part(part),
            None => failure,
        })?;
        lock(read).tables[place] = digest;
    }
    Ok(())
}

fn first_part(shared: &SharedLoad, table: usize) -> Option<PartIndex> {
    let of_table = shared.plan.parts.iter().position(|part| part.table.is_some_and(|index| index.0 as usize == table));
    of_table.map(|place| PartIndex(place as u32))
}

fn read_table(
    shared: &SharedLoad,
    connection: &mut Connection,
    table: &Table,
    names: Names,
    digests: &Digests,
) -> Outcome<RowsDigest> {
    let what = format!("reading table {}.{} again", table.schema, table.name);
    let mut digest = digests.multiset();
    let mut on_row = |pieces: &[&[u8]]| {
        if digest.rows().is_multiple_of(ROWS_BETWEEN_QUESTIONS) {
            shared.check_stop()?;
        }
        digest.add_pieces(pieces);
        Ok(())
    };
    let mut rows = RowsOut {
        row_bytes_max: shared.row_bytes_max,
        on_row: &mut on_row,
        failed: &|error| error.at(End::Target, &what),
        unreadable: &|why| not_a_row(why, &what),
    };
    table_rows::read(connection, table, None, names, &mut rows)?;
    Ok(digest.digest())
}

fn not_a_row(why: Unreadable, what: &str) -> Failure {
    let why = match why {
        Unreadable::Malformed => "the server's answer is no row of the table",
        Unreadable::TooLong => "a row is longer than any that was sent",
    };
    let next = "The load was dropped. Look for triggers, and for other programs that change the staging database.";
    Failure::new(Code::TargetMismatch, format!("{what}: {why}"), next)
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
