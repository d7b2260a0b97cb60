//! What the server's own log would quote of a transfer.
//!
//! A superuser, and from version 15 on a role that was granted it, sets these for its sessions.
//! Where the role may not, the log is the server's: what it would hold is said.

use sealift_engine_api::{Finding, Severity};

use super::survey::Survey;
use crate::{
    client::{Connection, End, Result},
    names::listed,
};

/// From this version on, the right to set a parameter can be granted.
const GRANTED_SINCE: u32 = 150_000;

/// The levels of `log_min_error_statement` and `log_min_messages` below that of an error that ends
/// a statement, `error` itself included.
const QUIET: [&str; 3] = ["log", "fatal", "panic"];

/// Whether a setting of this value has the log quote something.
type Quotes = fn(&str) -> bool;

/// What has to be for the log to quote a statement or a row.
const QUOTING: &[(&str, Quotes)] = &[
    ("log_statement", |value| value == "all" || value == "mod"),
    ("log_min_duration_statement", is_at_least_zero),
    ("log_min_duration_sample", is_at_least_zero),
    ("log_min_messages", |value| !QUIET.contains(&value)),
    ("log_min_error_statement", |value| !QUIET.contains(&value)),
    ("log_parameter_max_length_on_error", |value| value != "0"),
    ("auto_explain.log_min_duration", is_at_least_zero),
    ("pgaudit.log", |value| !value.is_empty() && value != "none"),
];

/// Of these, what a source's log would need to hold the texts of statements.
const OF_STATEMENTS: &[&str] = &[
    "log_statement",
    "log_min_duration_statement",
    "log_min_duration_sample",
    "auto_explain.log_min_duration",
    "pgaudit.log",
];

fn is_at_least_zero(value: &str) -> bool {
    value.parse::<i64>().is_ok_and(|number| number >= 0)
}

pub fn look(survey: &mut Survey<'_>) -> Result {
    let mut quoting = Vec::new();
    for (name, quotes) in QUOTING {
        let value = survey.settings.text(name);
        let is_of_end = survey.end == End::Target || OF_STATEMENTS.contains(name);
        let shown = survey.settings.shown(name);
        // The sessions of a source leave them as they are: no statement of theirs has a value in
        // it.
        let is_set = !value.is_empty() && quotes(value) && is_of_end;
        if is_set && (survey.end == End::Source || !may_set(survey.connection, survey.is_superuser, name)?) {
            quoting.push(shown);
        }
    }
    if quoting.is_empty() {
        let what = "the server's own log quotes nothing of a transfer";
        survey.push(Finding::fact("logs-quote-values", what));
        return Ok(());
    }
    let (severity, what, next) = match survey.end {
        End::Source => (
            Severity::Note,
            "the source's own log would hold the statements of a transfer, names of tables and filters in them, and this \
             role may not turn that off",
            "See who reads the log, or set it for the role: ALTER ROLE ... SET.",
        ),
        End::Target => (
            Severity::Warning,
            "the target's own log would quote the row for which a statement fails, and this role may not turn that off",
            "See who reads the log, or let a superuser set it for the role: ALTER ROLE ... SET log_min_messages = panic, and \
             so on.",
        ),
    };
    survey.push(Finding::new(severity, "logs-quote-values", format!("{what}: {}", listed(&quoting)), next));
    Ok(())
}

/// Whether the role may set a parameter that is a superuser's.
pub fn may_set(connection: &mut Connection, is_superuser: bool, name: &str) -> Result<bool> {
    if is_superuser || connection.server_version() < GRANTED_SINCE {
        return Ok(is_superuser);
    }
    Ok(connection.query_one("SELECT pg_catalog.has_parameter_privilege($1, 'SET')", &[&name])?.try_get(0)?)
}
