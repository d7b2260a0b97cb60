//! Errors of a preflight that are accepted by name.

use sealift_protocol::failure::{Failure, Outcome};

use crate::{Finding, FindingKind, Severity, Waiver};

/// The names of the errors that are accepted, each of which the engine declares as waivable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waivers(Vec<FindingKind>);

impl Waivers {
    /// What was typed: names behind `--waive`, and those behind `--danger-waive`. Fails if a name
    /// is not one of `kinds`, if its errors may not be waived, or if it was typed in the wrong way.
    pub fn parse(by_name: &[String], danger: &[String], kinds: &[FindingKind]) -> Outcome<Self> {
        let by_name = by_name.iter().map(|name| (name, Waiver::ByName));
        let danger = danger.iter().map(|name| (name, Waiver::Danger));
        let mut waived: Vec<FindingKind> = Vec::new();
        for (name, typed) in by_name.chain(danger) {
            let kind = find(name, typed, kinds)?;
            if !waived.contains(&kind) {
                waived.push(kind);
            }
        }
        Ok(Self(waived))
    }

    /// Marks the errors that are accepted.
    pub fn apply(&self, findings: &mut [Finding]) {
        for finding in findings.iter_mut().filter(|finding| finding.severity == Severity::Error) {
            finding.is_waived = self.0.iter().any(|kind| kind.name == finding.name);
        }
    }

    /// The names that no error among these findings has.
    pub fn unmatched<'a>(&'a self, findings: &'a [Finding]) -> impl Iterator<Item = &'static str> + 'a {
        let is_unmatched =
            |kind: &&FindingKind| !findings.iter().any(|found| found.is_waived && found.name == kind.name);
        self.0.iter().filter(is_unmatched).map(|kind| kind.name)
    }
}

fn find(name: &str, typed: Waiver, kinds: &[FindingKind]) -> Outcome<FindingKind> {
    let Some(kind) = kinds.iter().find(|kind| kind.name == name) else {
        return Err(Failure::usage(format!("there is no finding '{name}'"), waivable(kinds)));
    };
    match (kind.waiver, typed) {
        (Waiver::ByName, Waiver::ByName) | (Waiver::Danger, Waiver::Danger) => Ok(*kind),
        (Waiver::Never, _) => Err(Failure::usage(format!("the finding '{name}' cannot be waived"), waivable(kinds))),
        (Waiver::Danger, _) => {
            let next = format!("Type --danger-waive {name} if you mean it: it is logged. See docs/operations.md.");
            Err(Failure::usage(format!("to waive '{name}' puts at risk what a receipt promises"), next))
        }
        (Waiver::ByName, _) => {
            let next = format!("Type --waive {name}.");
            Err(Failure::usage(format!("to waive '{name}' is no danger"), next))
        }
    }
}

/// What can be waived.
fn waivable(kinds: &[FindingKind]) -> String {
    let names = |waiver: Waiver| {
        let names = kinds.iter().filter(|kind| kind.waiver == waiver).map(|kind| kind.name);
        names.collect::<Vec<_>>().join(", ")
    };
    match (names(Waiver::ByName), names(Waiver::Danger)) {
        (by_name, danger) if by_name.is_empty() && danger.is_empty() => "No finding here can be waived.".to_owned(),
        (by_name, danger) if danger.is_empty() => format!("With --waive: {by_name}."),
        (by_name, danger) if by_name.is_empty() => format!("With --danger-waive: {danger}."),
        (by_name, danger) => format!("With --waive: {by_name}. With --danger-waive: {danger}."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: &[FindingKind] = &[
        FindingKind::new("standby"),
        FindingKind::waivable("locks", Waiver::ByName),
        FindingKind::waivable("fsync-off", Waiver::Danger),
    ];

    fn parse(by_name: &[&str], danger: &[&str]) -> Outcome<Waivers> {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        Waivers::parse(&owned(by_name), &owned(danger), KINDS)
    }

    #[test]
    fn an_error_is_accepted_by_its_name_alone() {
        let waivers = parse(&["locks"], &["fsync-off"]).expect("both can be waived");
        let mut findings = vec![
            Finding::error("locks", "", ""),
            Finding::error("standby", "", ""),
            Finding::warning("fsync-off", "", ""),
        ];
        waivers.apply(&mut findings);
        assert_eq!(findings.iter().map(Finding::refuses).collect::<Vec<_>>(), [false, true, false]);
        assert_eq!(waivers.unmatched(&findings).collect::<Vec<_>>(), ["fsync-off"]);
    }

    #[test]
    fn what_cannot_be_waived_so_is_refused_with_the_way() {
        for (by_name, danger, says) in [
            (&["lock"][..], &[][..], "With --waive: locks. With --danger-waive: fsync-off."),
            (&["standby"], &[], "cannot be waived"),
            (&["fsync-off"], &[], "Type --danger-waive fsync-off"),
            (&[], &["locks"], "Type --waive locks."),
        ] {
            let failure = parse(by_name, danger).expect_err("it is refused");
            assert!(failure.code.exit_code() == 2 && failure.to_string().contains(says), "{failure}");
        }
    }
}
