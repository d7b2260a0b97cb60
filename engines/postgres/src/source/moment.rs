//! The locks, and the snapshot that is taken when they are there.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use sealift_engine_api::Filter;
use sealift_protocol::{
    close::Code,
    failure::{Failure, Outcome},
};

use super::left_out::LeftOut;
use crate::{
    client::{At, Connection, End, Result},
    sql::quote_qualified,
};

/// How long another session may keep a table from being read before the transfer gives up.
const LOCK_TIMEOUT_SECONDS: u32 = 60;

/// Tables that are made or dropped while the locks are taken make it begin again, so often.
const ATTEMPTS_MAX: usize = 5;

/// Tables that one statement locks.
const LOCKED_AT_ONCE: usize = 500;

/// Tables and partitioned tables that people made: not those of the system, of sessions, or of an
/// extension, whose rows `CREATE EXTENSION` brings, but for those that it marks as configuration.
/// Of every kind, a member of a tree of partitions counts by itself.
const RELATIONS: &str = "\
    SELECT c.oid, n.nspname::pg_catalog.text, c.relname::pg_catalog.text, c.relkind::pg_catalog.text, \
           pg_catalog.pg_relation_filenode(c.oid) \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' \
      AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' \
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass \
          AND d.objid = c.oid AND d.deptype = 'e' \
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_extension e WHERE c.relkind = 'r' AND c.oid = ANY (e.extconfig)))";

/// One table, as the locks were taken.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Relation {
    #[n(0)]
    pub schema: String,
    #[n(1)]
    pub name: String,
    #[n(2)]
    pub kind: String,
    /// Where its rows are stored: another number after TRUNCATE or a rewrite. `None` for a
    /// partitioned table.
    #[n(3)]
    pub filenode: Option<u32>,
}

/// Tables by their OIDs.
pub type Relations = BTreeMap<u32, Relation>;

/// A snapshot, and the tables that were locked before it was taken.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Moment {
    /// By which other sessions of the server share the snapshot.
    #[n(0)]
    pub exported: String,
    /// Those that are moved.
    #[n(1)]
    pub relations: Relations,
    #[n(2)]
    pub left_out: LeftOut,
}

impl Moment {
    /// Locks all tables that the filter does not leave out, and takes a snapshot after that. Both
    /// last as long as the transaction that is open when this returns.
    pub fn take(connection: &mut Connection, filter: &Filter) -> Outcome<Self> {
        for _ in 0..ATTEMPTS_MAX {
            let mut before = relations(connection).at(End::Source, "listing the tables")?;
            let left_out = LeftOut::find(connection, filter, &before)?;
            before.retain(|oid, _| !left_out.has(*oid));
            if let Some(relations) = lock(connection, before, &left_out)? {
                let exported = export(connection).at(End::Source, "exporting a snapshot")?;
                return Ok(Self { exported, relations, left_out });
            }
            connection.batch("ROLLBACK").at(End::Source, "locking the tables")?;
        }
        let what = "tables of the source are made and dropped all the time, so that they cannot be locked all at once";
        Err(Failure::new(Code::SourceFailed, what, "Stop what does that for the moment in which the transfer begins."))
    }

    /// Fails if a table is not what it was when it was locked. `now` is a session that sees the
    /// present.
    pub fn check_relations(&self, now: &mut Connection) -> Outcome {
        let found = relations(now).at(End::Source, "listing the tables")?;
        match self.relations.iter().find(|(oid, relation)| found.get(oid) != Some(relation)) {
            None => Ok(()),
            Some((_, Relation { schema, name, .. })) => Err(changed(schema, name)),
        }
    }
}

/// The table was changed under the snapshot.
pub fn changed(schema: &str, name: &str) -> Failure {
    let what = format!("table {schema}.{name} was emptied, rewritten, renamed or dropped while it was read");
    let next = "An old snapshot does not see what TRUNCATE, VACUUM FULL, CLUSTER or ALTER TABLE leave. Start the transfer \
                again when they are over.";
    Failure::new(Code::SourceChanged, what, next)
}

/// The tables that are there now.
pub fn relations(connection: &mut Connection) -> Result<Relations> {
    let rows = connection.query(RELATIONS, &[])?;
    let relation = |row: &crate::client::Row| {
        let (schema, name, kind) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        Ok((row.try_get(0)?, Relation { schema, name, kind, filenode: row.try_get(4)? }))
    };
    rows.iter().map(relation).collect()
}

/// In one transaction: locks, and then the snapshot. `None` if that does not see what was locked.
fn lock(connection: &mut Connection, before: Relations, left_out: &LeftOut) -> Outcome<Option<Relations>> {
    // No statement up to the end of the locks takes a snapshot: LOCK and SET need none.
    let begin =
        format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'");
    connection.batch(&begin).at(End::Source, "beginning a transaction")?;
    let tables: Vec<_> = before.values().collect();
    for tables in tables.chunks(LOCKED_AT_ONCE) {
        let names: Vec<_> =
            tables.iter().map(|table| format!("ONLY {}", quote_qualified(&table.schema, &table.name))).collect();
        let locked = connection.batch(&format!("LOCK TABLE {} IN ACCESS SHARE MODE", names.join(", ")));
        match locked {
            Ok(()) => {}
            // Renamed or dropped since.
            Err(error) if matches!(error.sqlstate(), Some("42P01" | "3F000")) => return Ok(None),
            Err(error) => return Err(error.at(End::Source, "locking the tables for reading")),
        }
    }
    let mut after = relations(connection).at(End::Source, "listing the tables")?;
    after.retain(|oid, _| !left_out.has(*oid));
    Ok((after == before && is_locked(connection, &after).at(End::Source, "listing the locks")?).then_some(after))
}

/// Whether this session has the locks on these very tables, not on others of their names.
fn is_locked(connection: &mut Connection, relations: &Relations) -> Result<bool> {
    let oids: Vec<u32> = relations.keys().copied().collect();
    let sql = "SELECT pg_catalog.count(DISTINCT relation) FROM pg_catalog.pg_locks WHERE locktype = 'relation' \
               AND pid = pg_catalog.pg_backend_pid() AND granted AND relation = ANY ($1)";
    let count: i64 = connection.query_one(sql, &[&oids])?.try_get(0)?;
    Ok(usize::try_from(count) == Ok(oids.len()))
}

fn export(connection: &mut Connection) -> Result<String> {
    connection.batch("SET LOCAL lock_timeout = 0")?;
    Ok(connection.query_one("SELECT pg_catalog.pg_export_snapshot()", &[])?.try_get(0)?)
}
