//! What is looked at before a source is planned.

use sealift_engine_api::{Filter, Finding, Severity};
use sealift_protocol::failure::Outcome;

use super::{busy, collation, logs, pooler, programs, role, server, survey::Survey};
use crate::{
    client::{At, Connection, End, Result},
    extensions,
    names::listed,
    source::{LeftOut, findings, moment},
};

/// Extensions in one message: those of one database are fewer.
const EXTENSIONS_MAX: usize = 100;

/// Everything but what only a snapshot shows.
pub fn look(connection: &mut Connection, filter: &Filter) -> Outcome<Vec<Finding>> {
    let standby = server::standby(connection, End::Source).at(End::Source, "looking at the server")?;
    let mut survey = Survey::begin(connection, End::Source)?;
    survey.found.extend(standby);
    survey.take("the version of the server", server::version)?;
    if survey.found.iter().any(|finding| finding.name == "server-version") {
        return Ok(survey.finish());
    }
    survey.found.extend(programs::findings(survey.version() / 10_000));
    survey.take("what is between", pooler::look)?;
    survey.take("the settings", server::fsync)?;
    survey.take("the timeouts of sessions", server::timeouts)?;
    survey.take("what the server logs", logs::look)?;
    survey.take("the clock", server::clock)?;
    survey.take("the locale", collation::locale)?;
    survey.take("the extensions", present_extensions)?;
    survey.take("the privileges of the role", role::beyond_need)?;
    // A condition holds values, and is part of a statement.
    let of_log = |finding: &&mut Finding| finding.name == "logs-quote-values" && finding.severity == Severity::Note;
    survey.found.iter_mut().filter(of_log).filter(|_| !filter.rows.is_empty()).for_each(|finding| {
        finding.severity = Severity::Warning;
    });
    let left_out = left_out(survey.connection, filter)?;
    survey.found.extend(
        role::unreadable(survey.connection, &left_out).at(End::Source, "looking at the privileges of the role")?,
    );
    survey.found.extend(
        findings::of_objects(survey.connection, &left_out, filter.definitions_only)
            .at(End::Source, "looking at the source")?,
    );
    survey.take("what the database holds", content)?;
    survey.take("connections", busy::connections)?;
    survey.take("locks", busy::locks)?;
    survey.found.extend(busy::locked_tables(survey.connection, &left_out).at(End::Source, "looking at locks")?);
    survey.take("transactions", busy::transactions)?;
    survey.take("prepared transactions", busy::prepared)?;
    survey.take("transaction identifiers", busy::xid_age)?;
    survey.take("replication", busy::replication)?;
    survey.take("the schema public", public_schema)?;
    survey.take("functions in indexes", search_path)?;
    survey.take("snapshots", snapshot)?;
    Ok(survey.finish())
}

fn left_out(connection: &mut Connection, filter: &Filter) -> Outcome<LeftOut> {
    let relations = moment::relations(connection).at(End::Source, "listing the tables")?;
    LeftOut::find(connection, filter, &relations)
}

fn present_extensions(survey: &mut Survey<'_>) -> Result {
    let present = extensions::read(survey.connection)?;
    let shown: Vec<String> = present
        .iter()
        .take(EXTENSIONS_MAX)
        .map(|extension| format!("{} {}", extension.name, extension.version))
        .collect();
    let what = format!("to be there in the target, too: {}", shown.join(", "));
    survey.push(Finding::fact("extensions-present", what));
    Ok(())
}

fn content(survey: &mut Survey<'_>) -> Result {
    let sql = "SELECT pg_catalog.pg_database_size(pg_catalog.current_database()), \
               (SELECT pg_catalog.count(*) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                   WHERE c.relkind = 'r' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'), \
               (SELECT pg_catalog.count(*) FROM pg_catalog.pg_largeobject_metadata)";
    let row = survey.connection.query_one(sql, &[])?;
    let (bytes, tables, large_objects): (i64, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let size = sealift_host::units::human_bytes(bytes.unsigned_abs());
    let what = format!("{tables} tables and {large_objects} large objects; with its indexes, the database has {size}");
    survey.push(Finding::fact("content", what));
    Ok(())
}

/// Before version 15 everybody could create objects in it, and of an upgraded cluster still can.
fn public_schema(survey: &mut Survey<'_>) -> Result {
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace n, \
                   pg_catalog.aclexplode(COALESCE(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) AS acl \
               WHERE n.nspname = 'public' AND acl.grantee = 0 AND acl.privilege_type = 'CREATE')";
    if survey.connection.query_one(sql, &[])?.try_get(0)? {
        let what = "everybody may create objects in the schema public, as was the default before version 15; that is moved as \
                    it is";
        let next = "In the target: REVOKE CREATE ON SCHEMA public FROM PUBLIC, if nobody needs it.";
        survey.push(Finding::warning("public-schema", what, next));
    }
    Ok(())
}

/// Indexes are built under an empty `search_path`, and from version 17 on always: a function that
/// finds its tables or functions by it fails then.
fn search_path(survey: &mut Survey<'_>) -> Result {
    let sql = "SELECT DISTINCT n.nspname || '.' || p.proname FROM pg_catalog.pg_depend d \
               JOIN pg_catalog.pg_proc p ON d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND p.oid = d.refobjid \
               JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
               JOIN pg_catalog.pg_language l ON l.oid = p.prolang AND l.lanname NOT IN ('c', 'internal') \
               JOIN pg_catalog.pg_index i ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND i.indexrelid = d.objid \
               WHERE n.nspname <> 'pg_catalog' AND NOT EXISTS (SELECT FROM pg_catalog.unnest(p.proconfig) AS setting \
                   WHERE setting LIKE 'search\\_path=%') ORDER BY 1";
    let names = survey.names(sql)?;
    if !names.is_empty() {
        let what = format!(
            "functions in indexes have no search_path of their own, and indexes are built under an empty one: {}",
            listed(&names)
        );
        let next = "If one names tables or functions without their schema, ALTER FUNCTION ... SET search_path first.";
        survey.push(Finding::warning("search-path", what, next));
    }
    Ok(())
}

/// That this server exports snapshots. What is exported ends with the transaction.
fn snapshot(survey: &mut Survey<'_>) -> Result {
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    let exported = survey
        .connection
        .batch(begin)
        .and_then(|()| survey.connection.query_one("SELECT pg_catalog.pg_export_snapshot()", &[]).map(drop));
    survey.connection.batch("ROLLBACK")?;
    match exported {
        Ok(()) => survey.push(Finding::fact("snapshot", "a snapshot can be exported, and shared by several sessions")),
        Err(error) if error.is_lost() => return Err(error),
        Err(_) => {
            let next =
                "Give the address of the primary itself, not of a reader or a pooler, or move it with exec:pg_dump.";
            survey.push(Finding::error(
                "snapshot",
                "the server exports no snapshot that several sessions could share",
                next,
            ));
        }
    }
    Ok(())
}
