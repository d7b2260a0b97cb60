//! What is found when a source or a target is looked at.

use sealift_protocol::{
    close::Code,
    failure::{Failure, Outcome},
};

/// One result of looking at a source or a target before it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// A stable name, such as `wal-grows`, unique in its engine.
    pub name: &'static str,
    /// What it means for the transfer.
    pub severity: Severity,
    /// What was found. No value of a row.
    pub what: String,
    /// What can be done about it; empty if nothing has to be.
    pub hint: String,
}

/// What a finding means for a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// To be known.
    Note,
    /// The transfer may bring less, or do more, than is expected.
    Warning,
    /// The transfer does not begin.
    Error,
}

impl Severity {
    /// The name in `--json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

impl Finding {
    /// Something to be known, about which nothing has to be done.
    pub fn note(name: &'static str, what: impl Into<String>) -> Self {
        Self { name, severity: Severity::Note, what: what.into(), hint: String::new() }
    }

    /// Something that may not be as expected.
    pub fn warning(name: &'static str, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { name, severity: Severity::Warning, what: what.into(), hint: hint.into() }
    }

    /// Something for which the transfer does not begin.
    pub fn error(name: &'static str, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { name, severity: Severity::Error, what: what.into(), hint: hint.into() }
    }
}

/// Fails if there is a finding for which the transfer does not begin. The failure names all of
/// them, and has the hint of the first.
pub fn refuse_errors(findings: &[Finding]) -> Outcome {
    let errors: Vec<_> = findings.iter().filter(|finding| finding.severity == Severity::Error).collect();
    let Some(first) = errors.first() else { return Ok(()) };
    let named: Vec<_> = errors.iter().map(|finding| format!("{} ({})", finding.what, finding.name)).collect();
    Err(Failure::new(Code::Preflight, named.join("; "), first.hint.clone()))
}
