//! Running definitions of an archive.

use std::borrow::Cow;

use sealift_engine_api::Finding;
use sealift_protocol::{
    close::Code,
    failure::{Failure, Outcome},
};

use super::{ledger::SCHEMA, properties::Roles};
use crate::{
    archive::{Archive, Entry, owned_object, roles_of, statements},
    client::{Connection, End, Error, Result},
    sql::{quote, quote_qualified},
};

/// What is never carried: it holds passwords, or would connect to other servers by itself.
const NOT_CARRIED: [&str; 3] = ["SUBSCRIPTION", "SUBSCRIPTION TABLE", "USER MAPPING"];

/// The access method of tables that have no other one.
const HEAP: &str = "heap";

/// The kind of the entry that makes an access method.
const ACCESS_METHOD: &str = "ACCESS METHOD";

const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// An object that is not there.
const UNDEFINED_OBJECT: &str = "42704";

/// Refuses what the target could not make as it is.
pub fn check(archive: &Archive) -> Outcome {
    let is_made =
        |method: &String| archive.entries.iter().any(|entry| entry.kind == ACCESS_METHOD && entry.tag == *method);
    for entry in &archive.entries {
        if let Some(method) = entry.access_method.as_ref().filter(|method| *method != HEAP && !is_made(method)) {
            let what = format!("{} is of the table access method {method}, which is not heap", entry.name());
            return Err(Failure::new(Code::LoadImpossible, what, "Such tables are not moved."));
        }
        if entry.kind == "SCHEMA" && entry.tag == SCHEMA {
            let what = format!("the source has a schema of the name {SCHEMA}, which is Sealift's own");
            return Err(Failure::new(Code::LoadImpossible, what, "Rename it in the source."));
        }
    }
    Ok(())
}

/// Whether the definition is made in the target.
pub fn is_made(entry: &Entry) -> bool {
    let belongs_to_subscription =
        matches!(entry.kind.as_str(), "COMMENT" | "SECURITY LABEL") && entry.tag.starts_with("SUBSCRIPTION ");
    !entry.is_of_database() && !NOT_CARRIED.contains(&entry.kind.as_str()) && !belongs_to_subscription
}

/// Makes one object, and gives it its owner, in the transaction that is open. What concerns a role
/// that is not on the target's server is left out: the object then belongs to the loading role.
pub fn make(connection: &mut Connection, entry: &Entry, roles: &Roles) -> Result {
    match entry.kind.as_str() {
        "ACL" | "DEFAULT ACL" => grant(connection, entry, roles),
        _ => define(connection, entry, roles),
    }
}

fn define(connection: &mut Connection, entry: &Entry, roles: &Roles) -> Result {
    let method = entry.access_method.as_deref().filter(|method| *method != HEAP).map(quote);
    match (&method, &entry.schema) {
        _ if entry.definition.is_empty() => {}
        (Some(method), Some(schema)) if entry.is_partitioned => {
            let table = quote_qualified(schema, &entry.tag);
            connection.batch(&entry.definition)?;
            connection.batch(&format!("ALTER TABLE {table} SET ACCESS METHOD {method}"))?;
        }
        (Some(method), _) => {
            connection.batch(&format!("SET default_table_access_method = {method}"))?;
            connection.batch(&entry.definition)?;
            connection.batch(&format!("SET default_table_access_method = {HEAP}"))?;
        }
        (None, _) => connection.batch(&entry.definition)?,
    }
    match owned_object(entry, quote) {
        Some(object) if roles.contains(&entry.owner) => give_to_owner(connection, entry, &object),
        _ => Ok(()),
    }
}

/// A role that is not a superuser can give an object only to one that may create objects in its
/// schema. The grants on schemas come later, and an owner may have lost that privilege: it has it
/// for this one statement.
fn give_to_owner(connection: &mut Connection, entry: &Entry, object: &str) -> Result {
    let owner = quote(&entry.owner);
    let give = format!("ALTER {object} OWNER TO {owner}");
    let given = connection.batch(&format!("SAVEPOINT give; {give}; RELEASE give"));
    match (given, &entry.schema) {
        (Err(error), Some(schema)) if error.sqlstate() == Some(INSUFFICIENT_PRIVILEGE) => {
            let schema = quote(schema);
            connection.batch(&format!(
                "ROLLBACK TO give; GRANT CREATE ON SCHEMA {schema} TO {owner}; {give}; \
                 REVOKE CREATE ON SCHEMA {schema} FROM {owner}; RELEASE give"
            ))
        }
        (given, _) => given,
    }
}

/// A statement that names a role which is not there is left out, and the others are not.
fn grant(connection: &mut Connection, entry: &Entry, roles: &Roles) -> Result {
    for statement in statements(&entry.definition) {
        if roles_of(statement).iter().all(|role| roles.contains(role)) {
            connection.batch(&as_member(statement))?;
        }
    }
    // One that grants as another role ends with this, also where it was left out.
    connection.batch("RESET ROLE")
}

/// `pg_dump` grants as another role by `SET SESSION AUTHORIZATION`, which is for superusers; a
/// member of that role can set it as well.
fn as_member(statement: &str) -> Cow<'_, str> {
    match statement.strip_prefix("SET SESSION AUTHORIZATION ") {
        Some("DEFAULT") => Cow::Borrowed("RESET ROLE"),
        Some(role) => Cow::Owned(format!("SET ROLE {role}")),
        None if statement == "RESET SESSION AUTHORIZATION" => Cow::Borrowed("RESET ROLE"),
        None => Cow::Borrowed(statement),
    }
}

/// What of the archive and of the database's own properties does not arrive as it is.
pub fn findings(archive: &Archive, missing_of_database: Roles, roles: &Roles) -> Vec<Finding> {
    let mut missing = missing_of_database;
    for entry in archive.entries.iter().filter(|entry| is_made(entry)) {
        let grants = matches!(entry.kind.as_str(), "ACL" | "DEFAULT ACL");
        let named = if grants { statements(&entry.definition).flat_map(roles_of).collect() } else { Vec::new() };
        let owner = owned_object(entry, quote).map(|_| entry.owner.clone());
        missing.extend(named.into_iter().chain(owner).filter(|role| !roles.contains(role)));
    }
    let mut findings = Vec::new();
    if !missing.is_empty() {
        let names = Vec::from_iter(missing).join(", ");
        let what = format!("roles that the target's server does not have: {names}");
        let hint = "What they own there belongs to the loading role, and their privileges were left out. To have both, \
                    create the roles and move the database again.";
        findings.push(Finding::warning("roles-missing", what, hint));
    }
    for entry in archive.entries.iter().filter(|entry| NOT_CARRIED.contains(&entry.kind.as_str())) {
        let what = format!("{} was not moved: it may hold a password", entry.name());
        findings.push(Finding::warning("not-carried", what, "Create it in the target yourself."));
    }
    if let Some(entry) = archive.entries.iter().find(|entry| entry.tablespace.is_some()) {
        let what = format!("{} and perhaps others are in another tablespace in the source", entry.name());
        findings.push(Finding::note("tablespaces-left-out", what));
    }
    findings
}

/// The failure of a definition that could not be made.
pub fn failed(error: Error, entry: &Entry) -> Failure {
    let name = entry.name();
    let sqlstate = error.sqlstate().map(str::to_owned);
    let failure = error.at(End::Target, &format!("making {name}"));
    match sqlstate.as_deref() {
        Some(UNDEFINED_OBJECT) => {
            let next = "It names a role, collation or the like that the target's server lacks: create that there, and start again.";
            Failure::new(failure.code, failure.what, next)
        }
        Some("58P01" | "0A000") if entry.kind == "EXTENSION" => {
            let next = "Install the extension on the target host, and start again.";
            Failure::new(failure.code, failure.what, next)
        }
        _ => failure,
    }
}
