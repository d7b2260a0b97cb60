//! What comes after the rows: sequences, indexes, constraints, triggers, grants, materialized views
//! and statistics.
//!
//! Each definition is made in a transaction with a line that says so, so that a crash repeats none
//! and leaves none out. Event triggers are made when the load is published ([`super::publish`]).

mod schedule;

use std::{
    sync::{Condvar, Mutex, PoisonError},
    thread,
};

use sealift_engine_api::out_of_order;
use sealift_protocol::{
    failure::{Failure, Outcome},
    receive::WholePart,
};

use self::schedule::Schedule;
use super::{
    definitions, large_objects, ledger, properties::Roles, session::Session, shared::SharedLoad, side_by_side,
};
use crate::{
    archive::{Archive, Entry, Section},
    client::{At, Connection, End, Result},
    document::{FinishDocument, Sequence},
    fail_point::{DEFINITION_MADE, POST_DATA_MADE, hit},
    sql::{literal, quote_qualified},
};

/// A definition is tried so often when the server ends it to resolve a deadlock.
const ATTEMPTS: usize = 5;

/// Begins the transaction of one definition. Nobody waits until its commit is on the disk: the
/// definition and its line in the ledger are in one transaction, a crash loses both or neither, and
/// the commit of the finish part is on the disk after all of them.
const BEGIN: &str = "BEGIN; SET LOCAL synchronous_commit = off";

const DEADLOCK: &str = "40P01";

/// Makes what the finish part and the archive have after the rows.
pub fn make(shared: &SharedLoad, bytes: &[u8], whole: &WholePart) -> Outcome {
    let finish = FinishDocument::from_bytes(bytes)?;
    let schema = shared.schema()?;
    let archive = Archive::from_bytes(&schema.archive)?;
    let roles = shared.with_cluster(|cluster| cluster.roles())?;
    let mut session = shared.session()?;
    let done = ledger::done(&mut session.connection)?;

    set_sequences(&mut session.connection, &finish.sequences).at(End::Target, "setting the sequences")?;
    large_objects::give_properties(&mut session.connection, &finish.large_objects, &roles)?;
    let entries = archive.section(Section::PostData).filter(|entry| is_made_here(entry));
    let entries: Vec<&Entry> = entries.filter(|entry| !done.contains(&key(entry))).collect();
    make_all(shared, &archive, &entries, &roles)?;

    for view in finish.materialized_views.iter().filter(|view| view.populated) {
        shared.check_stop()?;
        let name = quote_qualified(&view.schema, &view.name);
        let what = format!("refreshing materialized view {}.{}", view.schema, view.name);
        if !done.contains(&what) {
            refresh(&mut session.connection, &name, &what).at(End::Target, &what)?;
        }
    }
    analyze(shared, &mut session.connection)?;

    const WHAT: &str = "the ledger of the load";
    let connection = &mut session.connection;
    ledger::begin(connection, whole.part).at(End::Target, WHAT)?;
    ledger::complete(connection, whole, 0, Some(bytes)).at(End::Target, WHAT)?;
    connection.batch("COMMIT").at(End::Target, WHAT)?;
    hit(POST_DATA_MADE);
    shared.set_finish(finish);
    Ok(())
}

/// Whether anything that comes after the rows is made.
pub fn has_begun(session: &mut Session) -> Outcome<bool> {
    Ok(!ledger::done(&mut session.connection)?.is_empty())
}

/// Whether an entry after the rows is made before the load is published.
pub fn is_made_here(entry: &Entry) -> bool {
    definitions::is_made(entry) && !is_of_event_trigger(entry) && entry.kind != "MATERIALIZED VIEW DATA"
}

/// Whether it is an event trigger, or belongs to one: it would fire for what Sealift does.
pub fn is_of_event_trigger(entry: &Entry) -> bool {
    let belongs = matches!(entry.kind.as_str(), "COMMENT" | "SECURITY LABEL");
    entry.kind == "EVENT TRIGGER" || belongs && entry.tag.starts_with("EVENT TRIGGER ")
}

/// What the ledger calls it.
fn key(entry: &Entry) -> String {
    format!("definition {}", entry.id)
}

fn set_sequences(connection: &mut Connection, sequences: &[Sequence]) -> Result {
    connection.batch("BEGIN")?;
    for sequence in sequences {
        let name = literal(&quote_qualified(&sequence.schema, &sequence.name));
        let Sequence { last_value, is_called, .. } = sequence;
        connection
            .batch(&format!("SELECT pg_catalog.setval({name}::pg_catalog.regclass, {last_value}, {is_called})"))?;
    }
    connection.batch("COMMIT")
}

fn refresh(connection: &mut Connection, name: &str, what: &str) -> Result {
    connection.batch(BEGIN)?;
    ledger::note_done(connection, what)?;
    connection.batch(&format!("REFRESH MATERIALIZED VIEW {name}"))?;
    connection.batch("COMMIT")
}

/// What `ANALYZE` without a name would look at in this database, the largest first. With a
/// partitioned table go its partitions.
const ANALYZED: &str = "\
    SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'p', 'm') AND NOT c.relispartition AND c.relpersistence <> 't' AND NOT c.relisshared \
        AND n.nspname <> 'sealift' \
    ORDER BY c.relkind = 'p' DESC, pg_catalog.pg_relation_size(c.oid) DESC, 1";

/// Makes the statistics of all tables, side by side. They do not travel: they have values in them.
fn analyze(shared: &SharedLoad, connection: &mut Connection) -> Outcome {
    const WHAT: &str = "analyzing the tables";
    let found = connection.query(ANALYZED, &[]).at(End::Target, WHAT)?;
    let names: Vec<String> =
        found.iter().map(|row| Ok(row.try_get(0)?)).collect::<Result<_>>().at(End::Target, WHAT)?;
    side_by_side::for_each(shared, shared.workers, &names, |session, name| {
        session.connection.batch(&format!("ANALYZE {name}")).at(End::Target, &format!("analyzing table {name}"))
    })
}

/// The definitions that are left, and why they are not made any more.
struct Work<'a> {
    schedule: Schedule<'a>,
    failure: Option<Failure>,
}

/// Makes definitions side by side, as far as they do not depend on each other.
fn make_all(shared: &SharedLoad, archive: &Archive, entries: &[&Entry], roles: &Roles) -> Outcome {
    let work = Mutex::new(Work { schedule: Schedule::new(archive, entries), failure: None });
    let changed = Condvar::new();
    thread::scope(|scope| {
        for _ in 0..shared.workers.get().min(entries.len()) {
            scope.spawn(|| run_worker(shared, roles, &work, &changed));
        }
    });
    let work = work.into_inner().unwrap_or_else(PoisonError::into_inner);
    match work.failure {
        Some(failure) => Err(failure),
        None if work.schedule.is_over() => Ok(()),
        None => Err(out_of_order()),
    }
}

fn run_worker(shared: &SharedLoad, roles: &Roles, work: &Mutex<Work<'_>>, changed: &Condvar) {
    let mut session = None;
    let mut guard = work.lock().unwrap_or_else(PoisonError::into_inner);
    while guard.failure.is_none() && !guard.schedule.is_over() {
        let Some(entry) = guard.schedule.begin() else {
            guard = changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        drop(guard);
        let made = make_one(shared, &mut session, entry, roles);
        guard = work.lock().unwrap_or_else(PoisonError::into_inner);
        guard.schedule.end(entry);
        if let Err(failure) = made {
            guard.failure.get_or_insert(failure);
        }
        changed.notify_all();
    }
    drop(guard);
    if let Some(session) = session {
        shared.give_back(session);
    }
}

fn make_one(shared: &SharedLoad, session: &mut Option<Session>, entry: &Entry, roles: &Roles) -> Outcome {
    let mut attempt = 1;
    loop {
        shared.check_stop()?;
        let open = match session {
            Some(open) => open,
            None => session.insert(shared.session()?),
        };
        let what = format!("making {}", entry.name());
        open.connection.batch(BEGIN).at(End::Target, &what)?;
        ledger::note_done(&mut open.connection, &key(entry)).at(End::Target, &what)?;
        match definitions::make(&mut open.connection, entry, roles) {
            Ok(()) => {
                open.connection.batch("COMMIT").at(End::Target, &what)?;
                hit(DEFINITION_MADE);
                return Ok(());
            }
            Err(error) if error.sqlstate() == Some(DEADLOCK) && attempt < ATTEMPTS => {
                open.connection.batch("ROLLBACK").at(End::Target, &what)?;
                attempt += 1;
            }
            Err(error) => return Err(definitions::failed(error, entry)),
        }
    }
}
