//! Which rows of some tables are moved: the conditions of `--where`.
//!
//! A condition is the operator's own SQL, and runs as the role of the source in a transaction that
//! only reads. It goes into the statement that reads the table and nowhere else: not into a
//! document, a message or a log of this program.

use std::collections::BTreeSet;

use sealift_engine_api::{Finding, RowFilter};
use sealift_protocol::failure::{Failure, Outcome};

use super::{
    catalogue::SourceTable,
    left_out::{above, matches, parents},
    moment::{Moment, Relation},
};
use crate::{
    client::{At, Connection, End, Error},
    document::Rows,
    names::listed,
    sql::quote_qualified,
};

/// The conditions, by the places of their tables in the plan.
pub type Conditions = Vec<Option<String>>;

/// Finds the table of each filter and has the server check its condition. `connection` is at the
/// snapshot.
pub fn find(
    connection: &mut Connection,
    filters: &[RowFilter],
    moment: &Moment,
    tables: &[SourceTable],
    encoding: &str,
) -> Outcome<Conditions> {
    let mut conditions = vec![None; tables.len()];
    if filters.is_empty() {
        return Ok(conditions);
    }
    let parents = parents(connection, &moment.relations).at(End::Source, "listing the partitions")?;
    let universe: Vec<u32> = moment.relations.keys().copied().collect();
    for RowFilter { table: pattern, condition } in filters {
        let (oid, relation) = one_table(connection, pattern, &universe, moment)?;
        check_encoding(relation, condition, encoding)?;
        check_condition(connection, relation, condition)?;
        let is_within = |stored: &u32| above(*stored, &parents).any(|above| above == oid);
        let mut is_read = false;
        for (table, place) in tables.iter().zip(&mut conditions) {
            let found = table.stored.iter().filter(|(stored, _)| is_within(stored)).count();
            if found == 0 {
                continue;
            }
            if found < table.stored.len() || matches!(table.table.rows, Rows::Configuration | Rows::LargeObjects) {
                return Err(not_apart(relation, table));
            }
            if place.replace(condition.clone()).is_some() {
                return Err(twice(relation));
            }
            is_read = true;
        }
        if !is_read {
            return Err(none_matches(pattern));
        }
    }
    Ok(conditions)
}

fn one_table<'a>(
    connection: &mut Connection,
    pattern: &str,
    universe: &[u32],
    moment: &'a Moment,
) -> Outcome<(u32, &'a Relation)> {
    let found: BTreeSet<u32> = matches(connection, pattern, universe)?;
    let mut relations = found.iter().filter_map(|oid| Some((*oid, moment.relations.get(oid)?)));
    match (relations.next(), relations.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(none_matches(pattern)),
        (Some(_), Some(_)) => {
            let what = format!("the pattern '{pattern}' of --where matches several tables");
            Err(Failure::usage(what, "Name one table, as SCHEMA.TABLE, and give --where once for each."))
        }
    }
}

/// Statements that read rows are in the encoding of the database.
fn check_encoding(relation: &Relation, condition: &str, encoding: &str) -> Outcome {
    if condition.is_ascii() || matches!(encoding, "UTF8" | "SQL_ASCII") {
        return Ok(());
    }
    let what = format!("the condition of --where for {} has other characters than ASCII", full_name(relation));
    Err(Failure::usage(what, format!("The database is in {encoding}: write them as U&'\\+00e9' in the condition.")))
}

/// That the server takes it as one boolean expression over the table's columns. What is an
/// expression both in parentheses and in brackets leaves neither; and the server takes no second
/// statement where it prepares one.
fn check_condition(connection: &mut Connection, relation: &Relation, condition: &str) -> Outcome {
    let from = quote_qualified(&relation.schema, &relation.name);
    for wrapped in [format!("(\n{condition}\n)"), format!("(ARRAY[\n{condition}\n])[1]")] {
        let sql = format!("SELECT FROM {from} WHERE {wrapped} LIMIT 0");
        // An error ends the transaction, and with it this session's snapshot: the transfer ends.
        match connection.query(&sql, &[]) {
            Ok(_) => {}
            Err(error) if error.sqlstate().is_some() || matches!(error, Error::Protocol) => {
                return Err(refused(relation, error.sqlstate()));
            }
            Err(error) => return Err(error.at(End::Source, "checking a condition of --where")),
        }
    }
    Ok(())
}

fn refused(relation: &Relation, sqlstate: Option<&str>) -> Failure {
    let state = sqlstate.map_or_else(String::new, |state| format!(" (SQLSTATE {state})"));
    let what = format!(
        "the condition of --where for {} is not one boolean expression over its columns{state}",
        full_name(relation)
    );
    let next = "Try it with psql: SET search_path = ''; SELECT count(*) FROM SCHEMA.TABLE WHERE (CONDITION). What is not in \
                pg_catalog has to be written with its schema.";
    Failure::usage(what, next)
}

fn full_name(relation: &Relation) -> String {
    format!("{}.{}", relation.schema, relation.name)
}

fn none_matches(pattern: &str) -> Failure {
    let what = format!("no table whose rows are moved matches '{pattern}' of --where");
    Failure::usage(what, "See the names with --dry-run. Names with capitals have to be in double quotes.")
}

fn not_apart(relation: &Relation, table: &SourceTable) -> Failure {
    let of = format!("{}.{}", table.table.schema, table.table.name);
    let what = format!("--where for {}: its rows are moved as those of {of}", full_name(relation));
    Failure::usage(what, "Give the condition for that table, or leave it away if that is a table of an extension.")
}

fn twice(relation: &Relation) -> Failure {
    let what = format!("rows of {} have two conditions of --where", full_name(relation));
    Failure::usage(what, "Join them with AND in one --where.")
}

/// What there is to be said of tables of which not all rows are moved.
pub fn findings(connection: &mut Connection, tables: &[SourceTable], conditions: &Conditions) -> Outcome<Vec<Finding>> {
    let filtered: Vec<&SourceTable> =
        tables.iter().zip(conditions).filter(|(_, condition)| condition.is_some()).map(|(table, _)| table).collect();
    if filtered.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<String> =
        filtered.iter().map(|table| format!("{}.{}", table.table.schema, table.table.name)).collect();
    let what = format!("only the rows that meet --where are moved of: {}", listed(&names));
    let mut findings = vec![Finding::note("filtered", what)];
    let oids: Vec<u32> = filtered.iter().flat_map(|table| &table.stored).map(|(oid, _)| *oid).collect();
    let referring = connection.query(REFERRING, &[&oids]).at(End::Source, "listing the foreign keys")?;
    let referring: Vec<String> = referring.iter().filter_map(|row| row.try_get(0).ok()).collect();
    if !referring.is_empty() {
        let what = format!("foreign keys refer to tables of which not all rows are moved: {}", listed(&referring));
        let hint = "The load fails at the end if a row is moved that refers to one that is not: filter the table that refers, too.";
        findings.push(Finding::warning("filtered-is-referenced", what, hint));
    }
    Ok(findings)
}

/// Foreign keys that refer to these tables, or to a partitioned table above one of them.
const REFERRING: &str = "\
    WITH RECURSIVE filtered AS ( \
        SELECT oid FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS oid \
        UNION SELECT i.inhparent FROM pg_catalog.pg_inherits i JOIN filtered ON filtered.oid = i.inhrelid) \
    SELECT n.nspname || '.' || c.relname || ' (' || k.conname || ')' FROM pg_catalog.pg_constraint k \
    JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE k.contype = 'f' AND k.conparentid = 0 AND k.confrelid IN (SELECT oid FROM filtered) ORDER BY 1";
