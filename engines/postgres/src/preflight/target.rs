//! What is looked at before a target is given a ticket, in one of its server's maintenance
//! databases.

use std::path::Path;

use nix::sys::statvfs::statvfs;
use sealift_engine_api::{Finding, Waivers, refuse_errors};
use sealift_host::units::human_bytes;
use sealift_protocol::failure::Outcome;

use super::{busy, collation, logs, pooler, role, server, survey::Survey};
use crate::client::{At, Connection, End, Result};

/// Extensions in one message: a server with all of PostgreSQL's own has some fifty.
const EXTENSIONS_MAX: usize = 200;

/// Everything but what is there under the target's name.
pub fn look(connection: &mut Connection) -> Outcome<Vec<Finding>> {
    let mut survey = begin(connection)?;
    survey.take("what is between", pooler::look)?;
    survey.take("the settings", server::full_page_writes)?;
    survey.take("the timeouts of sessions", server::timeouts)?;
    survey.take("the WAL", server::wal)?;
    survey.take("what the server logs", logs::look)?;
    survey.take("the clock", server::clock)?;
    survey.take("the locale", collation::locale)?;
    survey.take("template0", collation::template)?;
    survey.take("the extensions", available_extensions)?;
    survey.take("the privileges of the role", role::beyond_need)?;
    survey.take("free space", free_space)?;
    survey.take("connections", busy::connections)?;
    survey.take("locks", busy::locks)?;
    survey.take("transaction identifiers", busy::xid_age)?;
    survey.take("replication", busy::replication)?;
    Ok(survey.finish())
}

/// Refuses a server that would not keep what it says it has, or where no database can be made:
/// looked at again when a load begins, since a server may have been started otherwise since its
/// ticket.
pub fn refuse_unfit(connection: &mut Connection, waivers: &Waivers) -> Outcome {
    let mut found = begin(connection)?.finish();
    waivers.apply(&mut found);
    refuse_errors(&found)
}

fn begin(connection: &mut Connection) -> Outcome<Survey<'_>> {
    let standby = server::standby(connection, End::Target).at(End::Target, "looking at the server")?;
    let mut survey = Survey::begin(connection, End::Target)?;
    survey.found.extend(standby);
    survey.take("the version of the server", server::version)?;
    survey.take("the settings", server::fsync)?;
    survey.take("the role", role::createdb)?;
    Ok(survey)
}

fn available_extensions(survey: &mut Survey<'_>) -> Result {
    let sql = "SELECT name || ' ' || default_version FROM pg_catalog.pg_available_extensions() ORDER BY 1";
    let available = survey.names(sql)?;
    let shown: Vec<String> = available.iter().take(EXTENSIONS_MAX).cloned().collect();
    let what = format!("the target's host has the extensions {}", shown.join(", "));
    survey.push(Finding::fact("extensions-available", what));
    Ok(())
}

/// SQL does not see it. If the server is on this host, the file system does.
fn free_space(survey: &mut Survey<'_>) -> Result {
    let folder = survey.settings.text("data_directory").to_owned();
    let is_local = survey.connection.address().host.is_local() && !folder.is_empty();
    let found = is_local.then(|| statvfs(Path::new(&folder)).ok()).flatten();
    let what = match found {
        Some(found) => {
            let bytes = found.blocks_available().saturating_mul(found.fragment_size());
            format!("{} are free on this host where the server says its data is, {folder}", human_bytes(bytes))
        }
        None => "unknown: SQL does not show it. A load needs as much as the source has, and its WAL".to_owned(),
    };
    survey.push(Finding::fact("free-space", what));
    Ok(())
}
