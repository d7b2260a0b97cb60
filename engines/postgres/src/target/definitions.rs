//! Running definitions of an archive.

use sealift_protocol::{
    close::Code,
    failure::{Failure, Outcome},
};

use super::{ledger::SCHEMA, properties::Roles};
use crate::{
    archive::{Archive, Entry, owned_object, statements},
    client::{Connection, End, Error, Result},
    sql::quote,
};

/// What is never carried: it holds passwords, or would connect to other servers by itself.
const NOT_CARRIED: [&str; 3] = ["SUBSCRIPTION", "SUBSCRIPTION TABLE", "USER MAPPING"];

/// The access method of every table that is moved.
const HEAP: &str = "heap";

/// An object that is not there.
const UNDEFINED_OBJECT: &str = "42704";

/// Refuses what the target could not make as it is.
pub fn check(archive: &Archive) -> Outcome {
    for entry in &archive.entries {
        if entry.access_method.as_deref().is_some_and(|method| method != HEAP) {
            let what = format!("{} is of a table access method other than heap", entry.name());
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
        "ACL" | "DEFAULT ACL" => grant(connection, entry),
        _ => define(connection, entry, roles),
    }
}

fn define(connection: &mut Connection, entry: &Entry, roles: &Roles) -> Result {
    if !entry.definition.is_empty() {
        connection.batch(&entry.definition)?;
    }
    match owned_object(entry, quote) {
        Some(object) if roles.contains(&entry.owner) => {
            connection.batch(&format!("ALTER {object} OWNER TO {}", quote(&entry.owner)))
        }
        _ => Ok(()),
    }
}

/// A statement that names a role which is not there is left out, and the others are not.
fn grant(connection: &mut Connection, entry: &Entry) -> Result {
    for statement in statements(&entry.definition) {
        connection.batch("SAVEPOINT sealift_grant")?;
        match connection.batch(statement) {
            Ok(()) => connection.batch("RELEASE SAVEPOINT sealift_grant")?,
            Err(error) if error.sqlstate() == Some(UNDEFINED_OBJECT) => {
                connection.batch("ROLLBACK TO SAVEPOINT sealift_grant; RELEASE SAVEPOINT sealift_grant")?;
            }
            Err(error) => return Err(error),
        }
    }
    // One that grants as another role ends with this, also where it was left out.
    connection.batch("RESET SESSION AUTHORIZATION")
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
