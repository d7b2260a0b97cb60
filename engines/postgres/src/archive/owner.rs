//! What an entry's owner owns.

use super::Entry;

/// The kinds whose objects are named by schema and tag alone.
const NAMED: [&str; 20] = [
    "COLLATION",
    "CONVERSION",
    "DOMAIN",
    "EVENT TRIGGER",
    "FOREIGN DATA WRAPPER",
    "FOREIGN TABLE",
    "MATERIALIZED VIEW",
    "PROCEDURAL LANGUAGE",
    "PUBLICATION",
    "SCHEMA",
    "SEQUENCE",
    "SERVER",
    "STATISTICS",
    "SUBSCRIPTION",
    "TABLE",
    "TEXT SEARCH CONFIGURATION",
    "TEXT SEARCH DICTIONARY",
    "TYPE",
    "VIEW",
    "DATABASE",
];

/// The kinds whose names are not unique without their arguments: the statement that drops one has
/// both.
const NAMED_BY_DROP: [&str; 6] =
    ["AGGREGATE", "FUNCTION", "OPERATOR", "OPERATOR CLASS", "OPERATOR FAMILY", "PROCEDURE"];

/// The object of the entry as `ALTER … OWNER TO` names it; `None` if it has no owner of its own.
pub fn owned_object(entry: &Entry, quote: impl Fn(&str) -> String) -> Option<String> {
    if entry.owner.is_empty() || entry.drop.is_empty() {
        return None;
    }
    let kind = entry.kind.as_str();
    if NAMED.contains(&kind) {
        let name = quote(&entry.tag);
        return Some(match &entry.schema {
            Some(schema) => format!("{kind} {}.{name}", quote(schema)),
            None => format!("{kind} {name}"),
        });
    }
    if NAMED_BY_DROP.contains(&kind) {
        let object = entry.drop.strip_prefix("DROP ")?;
        return Some(object.trim_end_matches(['\n', ';']).to_owned());
    }
    None
}
