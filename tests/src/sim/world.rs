//! What both agents live in: the time, the link, the source's content, and what goes wrong next.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use sealift_protocol::{close::Code, disposition::RaisedBy, error::Error, failure::Failure};

use super::{
    checks::Checks,
    fault::{Action, Moment, Planned, Trigger},
    link::{Link, Wire},
    scenario::Scenario,
};
use crate::{random::Random, wire::NOW_SECONDS};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Sender,
    Receiver,
}

impl Side {
    pub const BOTH: [Side; 2] = [Side::Sender, Side::Receiver];

    pub fn other(self) -> Self {
        Self::BOTH[1 - self as usize]
    }

    pub fn draw(chance: &mut Random) -> Self {
        Self::BOTH[chance.below(2)]
    }
}

/// Why a step did not end.
#[derive(Debug)]
pub enum Stop {
    /// The process is gone: nothing after this place was done.
    Killed,
    Failed(Failed),
    /// The process ends with this.
    GaveUp(Code),
}

#[derive(Clone, Copy, Debug)]
pub struct Failed {
    pub code: Code,
    pub raised_by: RaisedBy,
}

pub type Outcome<T = ()> = Result<T, Stop>;

impl From<Code> for Stop {
    fn from(code: Code) -> Self {
        Stop::Failed(Failed { code, raised_by: RaisedBy::ThisSide })
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        failure.code.into()
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        error.code.into()
    }
}

pub fn told(code: Code) -> Stop {
    Stop::Failed(Failed { code, raised_by: RaisedBy::Peer })
}

pub struct World<'a> {
    pub scenario: &'a Scenario,
    pub wire: Wire,
    pub link: Option<Link>,
    /// Connections so far.
    pub connections: u64,
    /// What the source holds now, as an index into the scenario's versions.
    pub version: Arc<AtomicUsize>,
    /// By how much each wall clock is wrong.
    clock_off_ms: [i64; 2],
    pub steps: u64,
    planned: Vec<Planned>,
    moments: BTreeMap<Moment, u32>,
    /// What happens before anything else does.
    pub due: Vec<Action>,
    /// What happened.
    pub happened: Vec<Action>,
    pub checks: Checks,
    /// The target is full after so many writes, once.
    pub target_fails_in: Option<u64>,
    /// The hostile side of the run did its harm.
    pub harmed: bool,
}

impl<'a> World<'a> {
    pub fn new(scenario: &'a Scenario) -> Self {
        Self {
            scenario,
            wire: Wire::new(Random::new(!scenario.seed), scenario.delay_ms, scenario.bytes_per_second),
            link: None,
            connections: 0,
            version: Arc::default(),
            clock_off_ms: [0; 2],
            steps: 0,
            planned: scenario.planned.clone(),
            moments: BTreeMap::new(),
            due: Vec::new(),
            happened: Vec::new(),
            checks: Checks::new(scenario.plan.parts.len()),
            target_fails_in: scenario.target_fails_in,
            harmed: false,
        }
    }

    pub fn now_ms(&self) -> u64 {
        self.wire.now_ms
    }

    pub fn wall_ms(&self, side: Side) -> u64 {
        (NOW_SECONDS * 1000 + self.wire.now_ms).saturating_add_signed(self.clock_off_ms[side as usize])
    }

    pub fn set_clock(&mut self, side: Side, by_ms: i64) {
        self.clock_off_ms[side as usize] += by_ms;
    }

    /// The source holds something else from now on, if the scenario has more for it.
    pub fn change_source(&mut self) {
        let last = self.scenario.versions.len() - 1;
        self.version.fetch_add(usize::from(self.version.load(Ordering::Relaxed) < last), Ordering::Relaxed);
    }

    pub fn link(&mut self) -> &mut Link {
        self.link.as_mut().expect("asked for while a connection stands")
    }

    /// The side is done with the connection.
    pub fn leave(&mut self, side: Side, politely: bool) {
        let Some(link) = &mut self.link else { return };
        if !link.left[side as usize] {
            link.leave(side, politely, &mut self.wire);
        }
        if link.left == [true; 2] {
            self.link = None;
        }
    }

    /// Nothing is committed after the grant has ended (faults T1, T7).
    pub fn check_grant(&self, side: Side) {
        assert!(self.wall_ms(side) < self.scenario.not_after_seconds * 1000, "committed after the grant's end");
    }

    /// The run has come this far.
    pub fn step(&mut self) {
        self.steps += 1;
        let steps = self.steps;
        self.fire(|trigger| matches!(trigger, Trigger::Step(at) if at <= steps));
    }

    /// `side` has come to a moment. Does not return to it if that is where it is killed.
    pub fn reach(&mut self, side: Side, moment: Moment) -> Outcome {
        let times = self.moments.entry(moment).or_default();
        *times += 1;
        let times = *times;
        let first = self.due.len();
        self.fire(|trigger| trigger == Trigger::Moment(moment, times));
        let dies = self.due[first..].iter().any(|action| match *action {
            Action::Kill { sender, receiver } => {
                if side == Side::Sender {
                    sender
                } else {
                    receiver
                }
            }
            Action::LosePower(of) | Action::RollBack(of) => of == side,
            _ => false,
        });
        if dies { Err(Stop::Killed) } else { Ok(()) }
    }

    fn fire(&mut self, now: impl Fn(Trigger) -> bool) {
        let due = &mut self.due;
        self.planned.retain(|planned| {
            let fires = now(planned.trigger);
            if fires {
                due.push(planned.action);
            }
            !fires
        });
    }
}

/// When the grant ends for one process, on two clocks.
#[derive(Clone, Copy)]
pub struct Expiry {
    side: Side,
    not_after_ms: u64,
    deadline_ms: u64,
}

impl Expiry {
    pub fn of(world: &World<'_>, side: Side) -> Self {
        let not_after_ms = world.scenario.not_after_seconds * 1000;
        let left_ms = not_after_ms.saturating_sub(world.wall_ms(side));
        Self { side, not_after_ms, deadline_ms: world.now_ms() + left_ms }
    }

    pub fn check(&self, world: &World<'_>) -> Outcome {
        match world.wall_ms(self.side) < self.not_after_ms && world.now_ms() < self.deadline_ms {
            true => Ok(()),
            false => Err(Code::GrantExpired.into()),
        }
    }

    /// When it will have ended, if no clock is set.
    pub fn at_ms(&self, world: &World<'_>) -> u64 {
        let left_ms = self.not_after_ms.saturating_sub(world.wall_ms(self.side));
        self.deadline_ms.min(world.now_ms() + left_ms)
    }
}
