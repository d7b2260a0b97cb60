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
    /// An error that was accepted by name: [`crate::Waivers`].
    pub is_waived: bool,
}

/// A finding that an engine can have: an entry of the closed list by which findings are known,
/// documented and waived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FindingKind {
    /// The name of its findings.
    pub name: &'static str,
    /// Whether an error of this name may be accepted.
    pub waiver: Waiver,
}

/// Whether an error may be accepted by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiver {
    /// Never: what follows could not be moved exactly, or not at all.
    Never,
    /// With `--waive`: the transfer may fail for it, and nothing is at risk.
    ByName,
    /// With `--danger-waive`: what a receipt promises is at risk.
    Danger,
}

impl FindingKind {
    /// A kind whose errors are never accepted, or that has none.
    pub const fn new(name: &'static str) -> Self {
        Self { name, waiver: Waiver::Never }
    }

    /// A kind whose errors may be accepted in this way.
    pub const fn waivable(name: &'static str, waiver: Waiver) -> Self {
        Self { name, waiver }
    }
}

/// What a finding means for a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// How things are, for those who ask for a preflight. A transfer does not report it.
    Fact,
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
            Severity::Fact => "fact",
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

impl Finding {
    /// How something is.
    pub fn fact(name: &'static str, what: impl Into<String>) -> Self {
        Self::new(Severity::Fact, name, what, "")
    }

    /// Something to be known, about which nothing has to be done.
    pub fn note(name: &'static str, what: impl Into<String>) -> Self {
        Self::new(Severity::Note, name, what, "")
    }

    /// Something that may not be as expected.
    pub fn warning(name: &'static str, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Severity::Warning, name, what, hint)
    }

    /// Something for which the transfer does not begin.
    pub fn error(name: &'static str, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Severity::Error, name, what, hint)
    }

    /// A finding of this severity, not waived.
    pub fn new(severity: Severity, name: &'static str, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { name, severity, what: what.into(), hint: hint.into(), is_waived: false }
    }

    /// Whether the transfer does not begin for it.
    pub fn refuses(&self) -> bool {
        self.severity == Severity::Error && !self.is_waived
    }
}

/// Fails if there is a finding for which the transfer does not begin: an error that is not waived.
/// The failure names all of them, and has the hint of the first.
pub fn refuse_errors(findings: &[Finding]) -> Outcome {
    let errors: Vec<_> = findings.iter().filter(|finding| finding.refuses()).collect();
    let Some(first) = errors.first() else { return Ok(()) };
    let named: Vec<_> = errors.iter().map(|finding| format!("{} ({})", finding.what, finding.name)).collect();
    Err(Failure::new(Code::Preflight, named.join("; "), first.hint.clone()))
}
