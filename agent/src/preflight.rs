//! What both agents do with what an engine finds before a transfer: `check` prints it, and a
//! transfer reports it, records what is waived, and does not begin if an error is left.

mod table;

use sealift_engine_api::{Finding, FindingKind, Severity, Waivers, refuse_errors};
use sealift_protocol::{close::Code, id::TransferId};

pub use self::table::table;
use crate::{
    audit::{
        AuditLog,
        entry::{Entry, Name},
    },
    failure::{Failure, Outcome},
    output,
    report::Report,
    role::Role,
    units::counted,
};

/// Options that accept errors of a preflight.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct WaiveArgs {
    /// Accept an error that `check` finds, by its name; it is logged. Can be given more than once
    #[arg(long, value_name = "NAME")]
    pub waive: Vec<String>,

    /// Accept an error that puts at risk what a receipt promises, such as fsync-off; it is logged.
    /// Can be given more than once
    #[arg(long, value_name = "NAME")]
    pub danger_waive: Vec<String>,
}

impl WaiveArgs {
    /// The errors that are accepted, of those that an engine can find.
    pub fn parse(&self, kinds: &[FindingKind]) -> Outcome<Waivers> {
        Waivers::parse(&self.waive, &self.danger_waive, kinds)
    }
}

/// The preflight of one transfer.
pub struct Preflight<'a> {
    pub report: &'a Report,
    pub audit: &'a AuditLog,
    pub transfer: Option<TransferId>,
    pub waivers: &'a Waivers,
    /// What was found and reported so far.
    found: Vec<Finding>,
    /// All of it was reported when this process looked before.
    is_again: bool,
}

impl<'a> Preflight<'a> {
    pub fn new(report: &'a Report, audit: &'a AuditLog, transfer: Option<TransferId>, waivers: &'a Waivers) -> Self {
        Self { report, audit, transfer, waivers, found: Vec::new(), is_again: false }
    }

    /// The same of a process that has looked before: errors alone are reported.
    pub fn again(self) -> Self {
        Self { is_again: true, ..self }
    }

    /// Reports what was found and was not before, records what is waived, and fails if there is an
    /// error that is not.
    pub fn take(&mut self, mut findings: Vec<Finding>) -> Outcome {
        self.waivers.apply(&mut findings);
        findings.retain(|finding| !self.found.contains(finding));
        let is_news = |finding: &&Finding| !self.is_again || finding.refuses();
        for finding in findings.iter().filter(is_news).filter(|finding| finding.is_waived) {
            let entry = Entry::FindingWaived { name: Name::new(finding.name) };
            self.audit.append(self.transfer, &entry)?;
        }
        let reported = findings.iter().filter(is_news).filter(|finding| finding.severity > Severity::Fact);
        reported.for_each(|finding| self.report.finding(finding));
        refuse_errors(&findings)?;
        self.found.append(&mut findings);
        Ok(())
    }

    /// Everything was looked at: a waiver for which there was no error may be a mistake.
    pub fn finish(&self, role: Role) {
        for name in self.waivers.unmatched(&self.found).filter(|_| !self.is_again) {
            self.report.notice(role.name(), &unmatched(name));
        }
    }
}

/// The output of `check`: prints what was found, a table or an event for each, and fails if an
/// error is left. `of` names the target among several.
pub fn print(report: &Report, waivers: &Waivers, mut findings: Vec<Finding>, of: Option<&str>) -> Outcome {
    waivers.apply(&mut findings);
    // Stable: what an engine looks at first stays first.
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    if report.is_json() {
        findings.iter().for_each(|finding| report.finding_of(finding, of));
    } else {
        output::print(table(&findings, of).as_bytes())?;
    }
    for name in waivers.unmatched(&findings) {
        report.notice(report.role().name(), &unmatched(name));
    }
    let errors = findings.iter().filter(|finding| finding.refuses()).count() as u64;
    match errors {
        0 => Ok(()),
        _ => {
            let what = format!("the preflight found {}", counted(errors, "error"));
            Err(Failure::new(Code::Preflight, what, "Put it right as the table says, or see --waive in --help."))
        }
    }
}

fn unmatched(name: &str) -> String {
    format!("the waiver of '{name}' was not needed: no such error was found. Leave it away.")
}

/// A failure to look at a source or a target, as one finding more. Fails with what is not about
/// them: a mistake in arguments, a signal.
pub fn of_failure(failure: Failure) -> Outcome<Finding> {
    let name = match failure.code {
        Code::SourceFailed | Code::SourceUnsuitable | Code::SourceEmpty => "source-unusable",
        Code::TargetNotEmpty => "target-in-the-way",
        Code::TargetFailed | Code::TargetBusy | Code::LoadImpossible => "target-unusable",
        Code::Preflight => "preflight",
        _ => return Err(failure),
    };
    Ok(Finding::error(name, failure.what, failure.hints.to_string()))
}

/// The findings of any engine, which [`of_failure`] makes.
pub const OF_FAILURES: [&str; 4] = ["source-unusable", "target-in-the-way", "target-unusable", "preflight"];
