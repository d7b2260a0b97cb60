//! The extensions of the target.

use std::collections::BTreeMap;

use sealift_engine_api::Finding;
use sealift_protocol::failure::Outcome;

use crate::{
    client::{At, Connection, End},
    document::Extension,
    extensions,
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
