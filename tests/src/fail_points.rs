//! Every place at which a test has an agent die: those of both agents, and those of each engine,
//! that of the tests among them.

use std::time::Duration;

use nix::sys::signal::Signal;
use sealift_agent::{fail_point::Point as AgentPoint, role::Role};
use sealift_engines::ENGINES;

use crate::{
    agents::{Agent, Launch},
    finished::Finished,
    grid,
    place::Place,
};

/// Until an agent comes to its point, or both to their end; most of it is waiting for the silence
/// of a dead peer.
const WITHIN: Duration = Duration::from_secs(120);

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
    let engines = ENGINES.specs.iter().chain([&&grid::SPEC]).flat_map(|spec| spec.fail_points);
    agents.chain(engines.map(|point| Point { name: point.name, side: Role::Receiver })).collect()
}

/// The one of this name.
pub fn named(name: &str) -> Point {
    all().into_iter().find(|point| point.name == name).unwrap()
}

impl Point {
    /// Has the agent of this side die when it comes here for the time of this number, if it is the
    /// one that comes here.
    pub fn arm(self, launch: Launch, side: Role, time: u32) -> Launch {
        match side == self.side {
            true => launch.env("SEALIFT_FAIL_POINT", format!("{}:{time}", self.name)),
            false => launch,
        }
    }

    /// Waits for the death of the agent that was armed.
    pub fn assert_died(self, agent: Agent) {
        let ended = agent.wait(WITHIN);
        let words = ended.stderr();
        assert_eq!(ended.killed_by(), Some(Signal::SIGKILL as i32), "{} is not reached:\n{words}", self.name);
    }
}

/// An agent is killed when it comes to `point` for the time of this number, and started again with
/// the same command: the transfer ends as if nothing had happened.
pub fn assert_survives(place: &Place, point: Point, time: u32) -> (Finished, Finished) {
    let mut receiver = point.arm(place.receiver(), Role::Receiver, time).start();
    receiver.ticket();
    let sender = point.arm(place.sender(), Role::Sender, time).start();
    assert_goes_on(place, point, sender, receiver)
}

/// Of two agents one dies at `point`, and is started again with the same command.
pub fn assert_goes_on(place: &Place, point: Point, sender: Agent, receiver: Agent) -> (Finished, Finished) {
    let (sender, receiver) = match point.side {
        Role::Receiver => {
            point.assert_died(receiver);
            (sender, place.receiver().start())
        }
        Role::Sender => {
            point.assert_died(sender);
            (place.sender().start(), receiver)
        }
    };
    place.assert_ends_well_at(point.name, sender, receiver)
}
