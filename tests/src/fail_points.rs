//! Every place at which a test has an agent die: those of both agents, and those of each engine.

use sealift_agent::{fail_point::Point as AgentPoint, role::Role};
use sealift_engines::ENGINES;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// What `SEALIFT_FAIL_POINT` calls it.
    pub name: &'static str,
    /// The agent that comes to it.
    pub side: Role,
}

/// All of them. An engine's are reached by its targets.
pub fn all() -> Vec<Point> {
    let agents = AgentPoint::ALL.iter().map(|point| Point { name: point.name(), side: point.side() });
    let engines = ENGINES.specs.iter().flat_map(|spec| spec.fail_points);
    agents.chain(engines.map(|point| Point { name: point.name, side: Role::Receiver })).collect()
}

/// The one of this name.
pub fn named(name: &str) -> Point {
    all().into_iter().find(|point| point.name == name).unwrap()
}
