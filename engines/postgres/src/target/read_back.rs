//! Reading tables back from the target.
//!
//! A large table is read as soon as its last part is committed, while its pages are still in
//! memory; the others are read when the load is proven. Until then nothing should change the rows:
//! triggers and rules are made later, and nobody else can connect. That nothing did is checked when
//! the load is proven. Every row names the transaction that wrote it (`xmin`, which freezing
//! keeps), a row that is changed is a new one, and the ledger says how many rows each transaction
//! has written.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
};

use sealift_engine_api::out_of_order;
use sealift_protocol::{
    close::Code,
    digest::{Digests, RowsDigest},
    failure::{Failure, Outcome},
    id::{PartIndex, TableIndex},
    manifest::Plan,
};

use super::{ledger, session::Session, shared::SharedLoad, side_by_side};
use crate::{
    client::{At, Connection, End, Result},
    copy_rows::{RowsOut, Unreadable},
    document::{Rows, SchemaDocument, Table},
    sql::{Names, literal, quote_qualified},
    table_rows,
};

/// Tables that are read side by side while others are loaded. Reading one takes a fraction of the
/// time that loading it took.
const EARLY_READERS: usize = 2;

/// Rows that are read before the stop token is asked again.
const ROWS_BETWEEN_QUESTIONS: u64 = 1024;

/// Whether rows that were read early are there unchanged takes a statement of its own, and a table
/// that is made empty in the transaction of its part gets new files: a smaller table is neither
/// read early nor frozen.
const LARGE_TABLE_BYTES: u64 = 1 << 20;

/// What is read of the tables of a load.
#[derive(Default)]
pub struct ReadBack {
    /// Those of the transfer, as soon as one part has begun.
    digests: OnceLock<Digests>,
    tables: Mutex<Tables>,
    changed: Condvar,
}

#[derive(Default)]
struct Tables {
    states: BTreeMap<usize, TableState>,
    /// To be read early, in this order.
    waiting: VecDeque<usize>,
    early_readers: usize,
}

/// How far a table is; one that has none was not read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TableState {
    Reading,
    /// While others were loaded.
    ReadEarly(RowsDigest),
    /// When the load was proven.
    Read(RowsDigest),
}

impl ReadBack {
    pub fn set_digests(&self, digests: &Digests) {
        self.digests.get_or_init(|| digests.clone());
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next table to be read early. After `None`, its caller is no reader any more.
    fn next_early(&self) -> Option<EarlyRead<'_>> {
        let mut tables = self.tables();
        let Some(table) = tables.waiting.pop_front() else {
            tables.early_readers -= 1;
            self.changed.notify_all();
            return None;
        };
        tables.states.insert(table, TableState::Reading);
        Some(EarlyRead { read_back: self, table, digest: None })
    }

    /// Has no table begun any more, and waits for those that are being read.
    fn end_early(&self) {
        let mut tables = self.tables();
        tables.waiting.clear();
        while tables.early_readers > 0 {
            tables = self.changed.wait(tables).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// One table that is being read early. What fails is read again when the load is proven.
struct EarlyRead<'a> {
    read_back: &'a ReadBack,
    table: usize,
    digest: Option<RowsDigest>,
}

impl Drop for EarlyRead<'_> {
    fn drop(&mut self) {
        let mut tables = self.read_back.tables();
        match self.digest {
            Some(digest) => tables.states.insert(self.table, TableState::ReadEarly(digest)),
            None => tables.states.remove(&self.table),
        };
    }
}

/// Whether the parts of a table have so many bytes, by the source's estimate.
pub fn is_large(plan: &Plan, table: TableIndex) -> bool {
    let parts = plan.parts.iter().filter(|part| part.table == Some(table));
    let bytes = parts.fold(0u64, |sum, part| sum.saturating_add(part.bytes_estimate.unwrap_or(0)));
    bytes >= LARGE_TABLE_BYTES
}

/// A part is committed: reads its table on a thread of its own, if it was the last one.
pub fn note_committed(shared: &SharedLoad, part: PartIndex) {
    let Some(table) = shared.plan.parts.get(part.0 as usize).and_then(|part| part.table) else { return };
    let is_read_early = |schema: &SchemaDocument| {
        let rows = schema.tables.get(table.0 as usize).map(|table| table.rows);
        matches!(rows, Some(Rows::Own | Rows::OfPartitions))
    };
    if !is_large(&shared.plan, table)
        || !shared.is_table_whole(table)
        || !shared.schema().is_ok_and(|schema| is_read_early(&schema))
    {
        return;
    }
    let Some(load) = shared.this.upgrade() else { return };
    {
        let mut tables = shared.read_back.tables();
        let table = table.0 as usize;
        if tables.states.contains_key(&table) || tables.waiting.contains(&table) {
            return;
        }
        tables.waiting.push_back(table);
        if tables.early_readers >= EARLY_READERS.min(shared.workers.get()) {
            return;
        }
        tables.early_readers += 1;
    }
    let reader = thread::Builder::new().name("postgres-read-back".into());
    if reader.spawn(move || read_early(&load)).is_err() {
        shared.read_back.tables().early_readers -= 1;
    }
}

fn read_early(shared: &SharedLoad) {
    while let Some(mut early) = shared.read_back.next_early() {
        early.digest = read_in_own_session(shared, early.table).ok();
    }
}

fn read_in_own_session(shared: &SharedLoad, table: usize) -> Outcome<RowsDigest> {
    let schema = shared.schema()?;
    let mut session = shared.session()?;
    let digest = read(shared, &mut session, &schema, table)?;
    shared.give_back(session);
    Ok(digest)
}

/// Says table by table what the database holds, and how many tables were read early.
pub fn read_all(shared: &SharedLoad, schema: &SchemaDocument, digests: &Digests) -> Outcome<(Vec<RowsDigest>, u64)> {
    let read_back = &shared.read_back;
    read_back.set_digests(digests);
    read_back.end_early();
    let read: BTreeMap<usize, TableState> = read_back.tables().states.clone();
    let written = ledger::written(&mut shared.session()?.connection)?;
    let hidden = hidden(&mut shared.session()?.connection)?;
    let tables: Vec<usize> = (0..schema.tables.len()).collect();
    side_by_side::for_each(shared, shared.workers, &tables, |session, table| {
        let is_hidden = hidden.contains(&(schema.tables[*table].schema.clone(), schema.tables[*table].name.clone()));
        if is_hidden {
            show(&mut session.connection, &schema.tables[*table])?;
        }
        let in_target = match read.get(table) {
            Some(TableState::ReadEarly(_)) => {
                check_unchanged(shared, &mut session.connection, &schema.tables[*table], *table, &written)
            }
            _ => read_late(shared, session, schema, *table),
        };
        if is_hidden {
            session.connection.batch("ROLLBACK").at(End::Target, "hiding rows again")?;
        }
        in_target.map_err(|failure| match first_part(&shared.plan, *table) {
            Some(part) => failure.at_part(part),
            None => failure,
        })
    })?;
    let states = &read_back.tables().states;
    let early = states.values().filter(|state| matches!(state, TableState::ReadEarly(_))).count();
    let digest = |table: &usize| match states.get(table) {
        Some(TableState::Read(digest) | TableState::ReadEarly(digest)) => Ok(*digest),
        _ => Err(out_of_order()),
    };
    Ok((tables.iter().map(digest).collect::<Outcome<_>>()?, early as u64))
}

/// Tables whose row-level security is forced upon their owners, and so upon this role.
fn hidden(connection: &mut Connection) -> Outcome<BTreeSet<(String, String)>> {
    let sql = "SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text \
               FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
               WHERE c.relrowsecurity AND c.relforcerowsecurity AND NOT (SELECT rolsuper OR rolbypassrls \
                   FROM pg_catalog.pg_roles WHERE rolname = current_user)";
    let found = connection.query(sql, &[]).and_then(|rows| {
        let name = |row: &crate::client::Row| Ok((row.try_get(0)?, row.try_get(1)?));
        rows.iter().map(name).collect()
    });
    found.at(End::Target, "looking for row-level security")
}

/// Begins a transaction in which the rows of such a table are seen. It is rolled back.
fn show(connection: &mut Connection, table: &Table) -> Outcome {
    let name = quote_qualified(&table.schema, &table.name);
    let sql = format!("BEGIN; ALTER TABLE ONLY {name} NO FORCE ROW LEVEL SECURITY");
    connection.batch(&sql).at(End::Target, &format!("reading table {}.{} again", table.schema, table.name))
}

fn read_late(shared: &SharedLoad, session: &mut Session, schema: &SchemaDocument, table: usize) -> Outcome {
    let digest = read(shared, session, schema, table)?;
    shared.read_back.tables().states.insert(table, TableState::Read(digest));
    Ok(())
}

fn first_part(plan: &Plan, table: usize) -> Option<PartIndex> {
    let of_table = plan.parts.iter().position(|part| part.table.is_some_and(|index| index.0 as usize == table));
    of_table.map(|place| PartIndex(place as u32))
}

fn read(shared: &SharedLoad, session: &mut Session, schema: &SchemaDocument, table: usize) -> Outcome<RowsDigest> {
    let digests = shared.read_back.digests.get().ok_or_else(out_of_order)?;
    let table = schema.tables.get(table).ok_or_else(out_of_order)?;
    let encoding = &schema.database.encoding;
    let connection = &mut session.connection;
    let what = format!("reading table {}.{} again", table.schema, table.name);
    // As the source: values are read in the encoding of the database, without a conversion.
    connection.batch(&format!("SET client_encoding = {}", literal(encoding))).at(End::Target, &what)?;
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
    table_rows::read(connection, table, None, Names::in_encoding(encoding), &mut rows)?;
    connection.batch("RESET client_encoding").at(End::Target, &what)?;
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

/// That the rows of a table that was read early are those which the transactions of its parts have
/// written, and no others.
fn check_unchanged(
    shared: &SharedLoad,
    connection: &mut Connection,
    table: &Table,
    index: usize,
    written: &BTreeMap<PartIndex, (u32, u64)>,
) -> Outcome {
    let parts = shared.plan.parts.iter().zip(0..);
    let of_table = parts.filter(|(part, _)| part.table.is_some_and(|table| table.0 as usize == index));
    let mut expected: BTreeMap<u32, u64> = BTreeMap::new();
    for (transaction, rows) in of_table.filter_map(|(_, part)| written.get(&PartIndex(part))) {
        *expected.entry(*transaction).or_default() += rows;
    }
    let what = format!("looking for changes of table {}.{}", table.schema, table.name);
    if rows_by_transaction(connection, table).at(End::Target, &what)? == expected {
        return Ok(());
    }
    let what = format!("rows of table {}.{} were changed after they had been read back", table.schema, table.name);
    let next =
        "The load was dropped. Look for functions that write, and for other programs that change the staging database.";
    Err(Failure::new(Code::TargetMismatch, what, next))
}

fn rows_by_transaction(connection: &mut Connection, table: &Table) -> Result<BTreeMap<u32, u64>> {
    let only = if table.rows == Rows::OfPartitions { "" } else { "ONLY " };
    let from = quote_qualified(&table.schema, &table.name);
    let sql =
        format!("SELECT xmin::pg_catalog.text::pg_catalog.int8, pg_catalog.count(*) FROM {only}{from} GROUP BY xmin");
    let found = connection.query(&sql, &[])?;
    let counted = |row: &crate::client::Row| {
        let (transaction, rows): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        Ok((transaction as u32, rows.cast_unsigned()))
    };
    found.iter().map(counted).collect()
}
