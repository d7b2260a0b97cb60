//! The table that `check` prints.

use std::fmt::Write;

use sealift_engine_api::{Finding, Severity};

use crate::{telemetry::printable, units::counted};

/// Columns of a line, as far as words can be divided.
const LINE_COLUMNS: usize = 100;

/// The heads of the first two columns.
const SEVERITY: &str = "SEVERITY";
const NAME: &str = "NAME";

/// Between two columns.
const GAP: usize = 2;

/// One finding a row: severity, name, what was found, and below it what to do. Behind the rows, how
/// many there are of each severity.
pub fn table(findings: &[Finding], of: Option<&str>) -> String {
    let severity_columns =
        findings.iter().map(|finding| word(finding).len()).chain([SEVERITY.len()]).max().unwrap_or_default() + GAP;
    let name_columns =
        findings.iter().map(|finding| finding.name.len()).chain([NAME.len()]).max().unwrap_or_default() + GAP;
    let indent = severity_columns + name_columns;
    let mut text = of.map_or_else(String::new, |of| format!("{of}:\n"));
    let _ = writeln!(text, "{SEVERITY:severity_columns$}{NAME:name_columns$}WHAT, AND WHAT TO DO");
    for finding in findings {
        let _ = write!(text, "{:severity_columns$}{:name_columns$}", word(finding), finding.name);
        let mut lines = wrapped(&printable(&finding.what), LINE_COLUMNS - indent.min(LINE_COLUMNS / 2));
        lines.extend(wrapped(&printable(&finding.hint), LINE_COLUMNS - indent.min(LINE_COLUMNS / 2)));
        let _ = writeln!(text, "{}", lines.join(&format!("\n{:indent$}", "")));
    }
    text + &summary(findings) + "\n"
}

fn word(finding: &Finding) -> &'static str {
    if finding.is_waived { "waived" } else { finding.severity.as_str() }
}

fn summary(findings: &[Finding]) -> String {
    let count = |severity: Severity| findings.iter().filter(|finding| finding.severity == severity).count() as u64;
    let waived = findings.iter().filter(|finding| finding.is_waived).count() as u64;
    let errors = count(Severity::Error) - waived;
    let mut words = vec![counted(errors, "error"), counted(count(Severity::Warning), "warning")];
    if waived > 0 {
        words.insert(1, format!("{waived} waived"));
    }
    match errors {
        0 => format!("{}: a transfer can begin", words.join(", ")),
        _ => format!("{}: no transfer begins", words.join(", ")),
    }
}

/// Lines of at most so many characters, unless a word alone is longer.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
