//! Comparing what is in the staged database with what is in the source.

use std::collections::{BTreeMap, BTreeSet};

use sealift_protocol::{
    close::Code,
    failure::{Failure, Outcome},
};

use super::properties::Roles;
use crate::{
    client::{At, Connection, End},
    document::Object,
    inventory,
    names::listed_with,
};

/// As the inventory calls it.
const EVENT_TRIGGER: &str = "event trigger";

/// That everything is there which the source has, with the same facts, owners and privileges, and
/// nothing else. `of` is the version of the source's server, `roles` are those of the target's.
/// Event triggers come when the load is published. Returns how many objects that are.
pub fn check(connection: &mut Connection, source: &[Object], of: u32, roles: &Roles) -> Outcome<u64> {
    const WHAT: &str = "listing the objects of the target";
    let loader = connection.query_one("SELECT current_user::pg_catalog.text", &[]);
    let loader: String = loader.and_then(|row| Ok(row.try_get(0)?)).at(End::Target, WHAT)?;
    let expected = inventory::expected(source, roles, &loader, of);
    let expected: BTreeSet<&Object> = expected.iter().filter(|object| object.kind != EVENT_TRIGGER).collect();
    let found = inventory::read(connection).at(End::Target, WHAT)?;
    let is_compared = |object: &&Object| object.kind != EVENT_TRIGGER && inventory::is_compared(object, of);
    let found: BTreeSet<&Object> = found.iter().filter(is_compared).collect();
    let differences = differences(&expected, &found);
    if differences.is_empty() {
        return Ok(expected.len() as u64);
    }
    let next = "The load was dropped. Look for other programs that use the staging database, and at what the versions of \
                the two servers do differently.";
    Err(Failure::new(
        Code::TargetMismatch,
        format!("the target is not what the source is: {}", listed_with(&differences, "; ")),
        next,
    ))
}

/// The facts of one object that one side has and the other has not. A privilege is a fact of its
/// object.
#[derive(Default)]
struct Difference<'a> {
    of_source: Vec<&'a str>,
    of_target: Vec<&'a str>,
}

/// Each object that is missing, is there and should not be, or is not as it is in the source.
fn differences(expected: &BTreeSet<&Object>, found: &BTreeSet<&Object>) -> Vec<String> {
    let mut differences: BTreeMap<(&str, &str), Difference<'_>> = BTreeMap::new();
    for object in expected.difference(found) {
        differences.entry((&object.kind, &object.identity)).or_default().of_source.push(&object.facts);
    }
    for object in found.difference(expected) {
        differences.entry((&object.kind, &object.identity)).or_default().of_target.push(&object.facts);
    }
    differences.into_iter().map(|((kind, identity), difference)| difference.shown(kind, identity)).collect()
}

impl Difference<'_> {
    fn shown(&self, kind: &str, identity: &str) -> String {
        let (of_source, of_target) = (self.of_source.join(", "), self.of_target.join(", "));
        match (self.of_source.is_empty(), self.of_target.is_empty()) {
            (_, true) => format!("{kind} {identity} is missing ({of_source})"),
            (true, _) => format!("{kind} {identity} is in the target alone ({of_target})"),
            (false, false) => format!("{kind} {identity} is {of_target}, and in the source {of_source}"),
        }
        .replace(" ()", "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_says_which_object_and_how() {
        let object =
            |kind: &str, facts: &str| Object { kind: kind.into(), identity: "s.o".into(), facts: facts.into() };
        let source = [object("index", "valid t"), object("table", ""), object("type", "")];
        let target = [object("index", "valid f"), object("type", ""), object("view", "persistence p")];
        assert_eq!(
            differences(&source.iter().collect(), &target.iter().collect()),
            [
                "index s.o is valid f, and in the source valid t",
                "table s.o is missing",
                "view s.o is in the target alone (persistence p)",
            ]
        );
    }
}
