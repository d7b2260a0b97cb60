//! The extensions of the target.

use std::collections::BTreeMap;

use sealift_engine_api::Finding;
use sealift_protocol::{
    close::Code,
    failure::{Failure, Outcome},
};

use crate::{
    client::{At, Connection, End},
    document::{Extension, Rows, Table},
    extensions::{self, Configuration},
};

/// That an extension is of another version than in the source: its server has made the version
/// that it has.
pub fn versions(connection: &mut Connection, source: &[Extension]) -> Outcome<Option<Finding>> {
    let found = extensions::read(connection).at(End::Target, "listing the extensions of the target")?;
    let found: BTreeMap<&str, &str> =
        found.iter().map(|extension| (extension.name.as_str(), extension.version.as_str())).collect();
    let differs = |extension: &Extension| {
        let Extension { name, version } = extension;
        let other = found.get(name.as_str()).filter(|found| *found != version)?;
        Some(format!("{name} {other} (source: {version})"))
    };
    let differing: Vec<_> = source.iter().filter_map(differs).collect();
    let finding = || {
        let what = format!("extensions of another version than in the source: {}", differing.join(", "));
        let hint = "Check that what uses them runs with these versions; ALTER EXTENSION ... UPDATE changes them.";
        Finding::warning("extension-versions", what, hint)
    };
    Ok((!differing.is_empty()).then(finding))
}

/// That each table of an extension's configuration is one in the target, too, and has the same rows
/// moved. The condition is text of SQL: it is run because the target's own extension has it, and
/// not because the source says so.
pub fn check_configuration(connection: &mut Connection, tables: &[Table]) -> Outcome {
    let found = extensions::configuration(connection).at(End::Target, "listing the tables of extensions")?;
    let is_known = |table: &&Table| {
        let is_same = |found: &Configuration| {
            found.schema == table.schema && found.name == table.name && found.condition == table.condition
        };
        found.iter().any(is_same)
    };
    let mut configured = tables.iter().filter(|table| table.rows == Rows::Configuration);
    let Some(table) = configured.find(|table| !is_known(table)) else { return Ok(()) };
    let what = format!(
        "the table {}.{} of an extension has other rows to be moved by the target's version of it than by the source's",
        table.schema, table.name
    );
    let next = "Install the same version of the extension on both servers, and start again.";
    Err(Failure::new(Code::LoadImpossible, what, next))
}
