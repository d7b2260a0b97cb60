//! What others do on the server: its connections, locks and transactions, and what waits for its
//! WAL.

use sealift_engine_api::{Finding, Severity};

use super::survey::Survey;
use crate::{
    client::{Connection, End, Result},
    names::listed,
    source::LeftOut,
};

/// Sessions of a transfer: eight that read or write, one that holds the snapshot or the lock, and
/// one of `pg_dump` or of the proof.
const SESSIONS: i64 = 10;

/// The fewest with which a transfer ends.
const SESSIONS_MIN: i64 = 3;

/// From this version on, some connections are kept for roles that are no superusers.
const RESERVED_SINCE: u32 = 160_000;

/// A transaction so old keeps VACUUM from what has died since, and its locks are no accident.
const LONG_SECONDS: i64 = 60 * 60;

/// Of transaction identifiers: at 2^31 a server stops. A long snapshot keeps VACUUM from freezing.
const XID_AGE_WARNING: i64 = 1_000_000_000;
/// At which VACUUM gives up everything else (`vacuum_failsafe_age`).
const XID_AGE_ERROR: i64 = 1_600_000_000;

/// WAL that is kept for a slot that is not read.
const LAG_BYTES_MAX: i64 = 1 << 30;

pub fn connections(survey: &mut Survey<'_>) -> Result {
    let settings = &survey.settings;
    let number = |name: &str| settings.number(name).unwrap_or_default();
    let of_superusers = if survey.is_superuser { 0 } else { number("superuser_reserved_connections") };
    let is_reserved = survey.version() >= RESERVED_SINCE && !survey.is_superuser;
    let reserved = if is_reserved { of_superusers + number("reserved_connections") } else { of_superusers };
    let max = number("max_connections");
    let in_use =
        survey.number("SELECT pg_catalog.sum(numbackends)::pg_catalog.int8 FROM pg_catalog.pg_stat_database")?;
    let sql = "SELECT NULLIF(rolconnlimit, -1)::pg_catalog.int8, \
               (SELECT NULLIF(datconnlimit, -1)::pg_catalog.int8 FROM pg_catalog.pg_database \
                   WHERE datname = pg_catalog.current_database()) \
               FROM pg_catalog.pg_roles WHERE rolname = current_user";
    let row = survey.connection.query_one(sql, &[])?;
    let limits: [Option<i64>; 2] = [row.try_get(0)?, row.try_get(1)?];
    // A superuser is not bound to the limits of its role or of a database.
    let limit = limits.into_iter().flatten().filter(|_| !survey.is_superuser).min();
    // This session is one of them.
    let free = (max - reserved - in_use + 1).min(limit.unwrap_or(i64::MAX));
    let limited = limit.map(|limit| format!(", {limit} by the limit of the role or the database")).unwrap_or_default();
    let what = format!(
        "{} of {max} connections are free for this role ({reserved} are reserved, {in_use} in use{limited})",
        free.max(0)
    );
    let next = "Raise max_connections or the limit, or end sessions that nobody uses.";
    survey.push(match free {
        SESSIONS.. => Finding::fact("connections", what),
        SESSIONS_MIN..SESSIONS => Finding::warning(
            "connections",
            format!("{what}: a transfer uses {SESSIONS}, and is slower with fewer"),
            next,
        ),
        _ => Finding::error("connections", format!("{what}: a transfer needs {SESSIONS_MIN}"), next),
    });
    Ok(())
}

/// One transaction locks every table of a source, and those of the target's definitions are made in
/// one, too. The lock table is shared memory: where it is full, others fail as well.
pub fn locks(survey: &mut Survey<'_>) -> Result {
    let number = |name: &str| survey.settings.number(name).unwrap_or_default();
    let sessions = number("max_connections") + number("max_prepared_transactions");
    let room = number("max_locks_per_transaction").saturating_mul(sessions);
    let shown = survey.settings.shown("max_locks_per_transaction");
    if survey.end == End::Target {
        let what =
            format!("room for {room} locks at once: {shown}, times {sessions} connections and prepared transactions");
        survey.push(Finding::fact("locks", what));
        return Ok(());
    }
    let sql = "SELECT pg_catalog.count(*) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
               WHERE c.relkind IN ('r', 'p') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'";
    let tables = survey.number(sql)?;
    // The snapshot of an earlier run may still be held: its locks are those of the same tables.
    let sql = "SELECT pg_catalog.count(*) FROM pg_catalog.pg_locks l WHERE l.locktype = 'relation' AND NOT EXISTS ( \
               SELECT FROM pg_catalog.pg_stat_activity a WHERE a.pid = l.pid AND a.application_name = 'sealift')";
    let taken = survey.number(sql)?;
    let what = format!(
        "{tables} tables are locked at once, and there is room for {room} locks ({shown}, times {sessions}), of which {taken} \
         are taken"
    );
    let next = "Raise max_locks_per_transaction and restart the server, or leave tables out: --exclude.";
    let severity = match tables + taken {
        needed if needed > room => Severity::Error,
        needed if needed > room / 10 * 8 => Severity::Warning,
        _ => Severity::Fact,
    };
    survey.push(Finding::new(severity, "locks", what, if severity == Severity::Fact { "" } else { next }));
    Ok(())
}

/// Tables that others keep from being read now. A transfer waits for them for a minute, which is
/// enough for most: it ends only if that was too short.
pub fn locked_tables(connection: &mut Connection, left_out: &LeftOut) -> Result<Option<Finding>> {
    // Who waits for such a lock may wait for the snapshot of an earlier run, which is still held.
    let sql = "SELECT DISTINCT n.nspname || '.' || c.relname, c.oid FROM pg_catalog.pg_locks l \
               JOIN pg_catalog.pg_class c ON c.oid = l.relation JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
               WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.granted AND c.relkind IN ('r', 'p') \
                 AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) \
                 AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' ORDER BY 1";
    let mut names: Vec<String> = Vec::new();
    for row in connection.query(sql, &[])? {
        if !left_out.has(row.try_get(1)?) {
            names.push(row.try_get(0)?);
        }
    }
    let finding = || {
        let what = format!("sessions hold ACCESS EXCLUSIVE locks, which a transfer would wait for: {}", listed(&names));
        let next =
            "Wait for them, or see pg_locks and end them. A lock that is not there within a minute ends the transfer.";
        Finding::warning("locked-tables", what, next)
    };
    Ok((!names.is_empty()).then(finding))
}

pub fn transactions(survey: &mut Survey<'_>) -> Result {
    let sql = "SELECT pid, EXTRACT(epoch FROM pg_catalog.clock_timestamp() - xact_start)::pg_catalog.int8 AS seconds \
               FROM pg_catalog.pg_stat_activity WHERE xact_start IS NOT NULL AND application_name <> 'sealift' \
                 AND datname = pg_catalog.current_database() ORDER BY xact_start";
    let mut long = Vec::new();
    for row in survey.rows(sql, &[])? {
        let (pid, seconds): (i32, i64) = (row.try_get(0)?, row.try_get(1)?);
        if seconds >= LONG_SECONDS {
            long.push(format!("{pid} ({} min)", seconds / 60));
        }
    }
    if !long.is_empty() {
        let what = format!("server processes with transactions of over an hour: {}", listed(&long));
        let next =
            "VACUUM keeps what they may see, and so it does for the transfer's own snapshot. See pg_stat_activity.";
        survey.push(Finding::warning("long-transactions", what, next));
    }
    Ok(())
}

/// They hold their locks and keep VACUUM back until they are ended, whatever happens.
pub fn prepared(survey: &mut Survey<'_>) -> Result {
    let sql = "SELECT pg_catalog.count(*), \
               EXTRACT(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.min(prepared))::pg_catalog.int8 \
               FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database()";
    let row = survey.connection.query_one(sql, &[])?;
    let (count, oldest): (i64, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
    if count > 0 {
        let minutes = oldest.unwrap_or_default() / 60;
        let what = format!("{count} prepared transactions hold their locks, the oldest for {minutes} minutes");
        let next =
            "End them, or have their application do it: COMMIT PREPARED or ROLLBACK PREPARED; see pg_prepared_xacts.";
        survey.push(Finding::warning("prepared-transactions", what, next));
    }
    Ok(())
}

pub fn xid_age(survey: &mut Survey<'_>) -> Result {
    let sql = "SELECT GREATEST(pg_catalog.max(pg_catalog.age(datfrozenxid)), pg_catalog.max(pg_catalog.mxid_age(datminmxid)))\
               ::pg_catalog.int8 FROM pg_catalog.pg_database";
    let age = survey.number(sql)?;
    let what = format!("the oldest transaction identifier that is not frozen is {} million old", age / 1_000_000);
    let next = "Let VACUUM (FREEZE) end first: it cannot freeze what a snapshot or a load of hours may see.";
    survey.push(match age {
        XID_AGE_ERROR.. => Finding::error("xid-age", what, next),
        XID_AGE_WARNING..XID_AGE_ERROR => Finding::warning("xid-age", what, next),
        _ => Finding::fact("xid-age", what),
    });
    Ok(())
}

/// A load writes all its rows to the WAL, which is kept for slots that nobody reads.
pub fn replication(survey: &mut Survey<'_>) -> Result {
    if survey.connection.query_one("SELECT pg_catalog.pg_is_in_recovery()", &[])?.try_get(0)? {
        return Ok(());
    }
    let sql = "SELECT slot_name::pg_catalog.text, active, \
               pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), restart_lsn)::pg_catalog.int8 \
               FROM pg_catalog.pg_replication_slots ORDER BY 1";
    let mut behind = Vec::new();
    for row in survey.rows(sql, &[])? {
        let (name, is_active, lag): (String, bool, Option<i64>) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let lag = lag.unwrap_or_default();
        if !is_active || lag > LAG_BYTES_MAX {
            behind.push(format!("{name} ({} MB behind)", lag >> 20));
        }
    }
    if !behind.is_empty() {
        let what = format!("replication slots that nobody reads, or that are far behind: {}", listed(&behind));
        let (severity, next) = match survey.end {
            End::Source => (Severity::Note, "A transfer writes nothing here."),
            End::Target => {
                (Severity::Warning, "WAL of the whole load is kept for them: see that the disk has room for it.")
            }
        };
        survey.push(Finding::new(severity, "replication-slots", what, next));
    }
    let sql = "SELECT pg_catalog.count(*), pg_catalog.max(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), \
               replay_lsn))::pg_catalog.int8 FROM pg_catalog.pg_stat_replication";
    let row = survey.connection.query_one(sql, &[])?;
    let (standbys, lag): (i64, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
    if standbys > 0 {
        let synchronous = survey.settings.text("synchronous_standby_names");
        let waits = if synchronous.is_empty() { "" } else { ", and commits wait for some of them" };
        let lag = lag.map_or_else(|| "unknown".to_owned(), |lag| format!("{} MB", lag >> 20));
        survey.push(Finding::fact("replication", format!("{standbys} standbys follow, the last {lag} behind{waits}")));
    }
    Ok(())
}
