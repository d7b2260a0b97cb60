//! What a loading role that is not a superuser lacks for the definitions of a source: found before
//! anything is made.

use std::collections::BTreeSet;

use sealift_engine_api::{Finding, refuse_errors};
use sealift_protocol::failure::Outcome;

use super::{definitions::is_made, properties::Roles};
use crate::{
    archive::{Archive, Entry, owned_object, roles_of, statements},
    client::{At, Connection, End, Result},
    document::Database,
    names::listed,
    sql::quote,
};

/// From this version on, a member may act as a role only where the membership says so.
const SET_OPTION_SINCE: u32 = 160_000;

/// What only superusers make, whatever the definition says.
const OF_SUPERUSERS: [&str; 4] = ["EVENT TRIGGER", "FOREIGN DATA WRAPPER", "ACCESS METHOD", "TRANSFORM"];

/// Refuses definitions that this role could not make, and says which and what it needs for them.
pub fn check(connection: &mut Connection, archive: &Archive, database: &Database, roles: &Roles) -> Outcome {
    const WHAT: &str = "looking at the privileges of the target's role";
    let is_superuser =
        connection.query_one("SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user", &[]);
    if is_superuser.and_then(|row| Ok(row.try_get(0)?)).at(End::Target, WHAT)? {
        return Ok(());
    }
    let made: Vec<&Entry> = archive.entries.iter().filter(|entry| is_made(entry)).collect();
    let mut findings = Vec::new();
    let others: Vec<String> = acted_as(&made, database).into_iter().filter(|role| roles.contains(role)).collect();
    let (superusers, missing) = not_member_of(connection, &others).at(End::Target, WHAT)?;
    if !missing.is_empty() {
        let what = format!(
            "the target's role is no member of roles that own objects or grant privileges: {}",
            listed(&missing)
        );
        let hint = "GRANT these roles to it (from version 16 on WITH INHERIT TRUE, SET TRUE), or load as a superuser.";
        findings.push(Finding::error("role-memberships", what, hint));
    }
    let untrusted = untrusted_extensions(connection, &made).at(End::Target, WHAT)?;
    let of_superusers = superusers.iter().map(|role| format!("objects of the superuser {role}"));
    let settings = settings_of_others(connection, database, roles).at(End::Target, WHAT)?;
    let kinds = made.iter().filter(|entry| is_of_superusers(entry)).map(|entry| entry.name());
    let superusers: Vec<String> = kinds.chain(untrusted).chain(settings).chain(of_superusers).collect();
    if !superusers.is_empty() {
        let what = format!("definitions that only a superuser can make: {}", listed(&superusers));
        findings.push(Finding::error("superuser-needed", what, "Load as a superuser, or drop them in the source."));
    }
    refuse_errors(&findings)
}

/// The roles that the loading role has to act as: owners, and those that have granted something.
fn acted_as(made: &[&Entry], database: &Database) -> BTreeSet<String> {
    let mut acted_as = BTreeSet::from([database.owner.clone()]);
    for entry in made {
        acted_as.extend(owned_object(entry, quote).map(|_| entry.owner.clone()));
        if matches!(entry.kind.as_str(), "ACL" | "DEFAULT ACL") {
            acted_as.insert(entry.owner.clone());
            let is_of_role =
                |statement: &&str| statement.contains("SESSION AUTHORIZATION") || statement.contains("FOR ROLE");
            acted_as.extend(statements(&entry.definition).filter(is_of_role).flat_map(|statement| {
                // Behind TO and FROM of the others are those who are granted something.
                roles_of(statement).into_iter().take(1)
            }));
        }
    }
    acted_as.remove("");
    // Whose member is the owner of the database, which the loading role is.
    acted_as.remove("pg_database_owner");
    acted_as
}

/// `ALTER ROLE ... IN DATABASE ... SET` of other roles.
fn settings_of_others(connection: &mut Connection, database: &Database, roles: &Roles) -> Result<Vec<String>> {
    let sql = "SELECT rolname::pg_catalog.text, rolcreaterole FROM pg_catalog.pg_roles WHERE rolname = current_user";
    let row = connection.query_one(sql, &[])?;
    let (own, may_alter): (String, bool) = (row.try_get(0)?, row.try_get(1)?);
    let of = database.settings.iter().filter_map(|setting| setting.role.as_ref());
    let others: BTreeSet<&String> = of.filter(|role| **role != own && roles.contains(*role) && !may_alter).collect();
    Ok(others.into_iter().map(|role| format!("settings of the role {role} in the database")).collect())
}

/// Of these roles, those that the loading role is no member of: superusers, and others.
fn not_member_of(connection: &mut Connection, roles: &[String]) -> Result<(Vec<String>, Vec<String>)> {
    let may_set = if connection.server_version() >= SET_OPTION_SINCE { "'SET'" } else { "'MEMBER'" };
    let sql = format!(
        "SELECT rolname::pg_catalog.text FROM pg_catalog.pg_roles WHERE rolname = ANY ($1) AND rolsuper = $2 \
         AND NOT (pg_catalog.pg_has_role(oid, {may_set}) AND pg_catalog.pg_has_role(oid, 'USAGE')) ORDER BY 1"
    );
    let mut named = |is_superuser: bool| -> Result<Vec<String>> {
        connection.query(&sql, &[&roles, &is_superuser])?.iter().map(|row| Ok(row.try_get(0)?)).collect()
    };
    Ok((named(true)?, named(false)?))
}

fn is_of_superusers(entry: &Entry) -> bool {
    let is_of_all = entry.kind == "PUBLICATION"
        && (entry.definition.contains(" FOR ALL TABLES") || entry.definition.contains(" FOR TABLES IN SCHEMA"));
    is_of_all || OF_SUPERUSERS.contains(&entry.kind.as_str())
}

/// Extensions that are on the target host and that only a superuser can create. Before version 13
/// none is trusted.
fn untrusted_extensions(connection: &mut Connection, made: &[&Entry]) -> Result<Vec<String>> {
    let trusted = if connection.server_version() >= 130_000 { "v.trusted" } else { "false" };
    let names: Vec<&str> = made.iter().filter(|entry| entry.kind == "EXTENSION").map(|entry| &*entry.tag).collect();
    let sql = format!(
        "SELECT DISTINCT v.name::pg_catalog.text FROM pg_catalog.pg_available_extension_versions() v \
         JOIN pg_catalog.pg_available_extensions() e ON e.name = v.name AND e.default_version = v.version \
         WHERE v.name = ANY ($1) AND v.superuser AND NOT {trusted} ORDER BY 1"
    );
    let found = connection.query(&sql, &[&names])?;
    found.iter().map(|row| Ok(format!("extension {}", row.try_get::<_, String>(0)?))).collect()
}
