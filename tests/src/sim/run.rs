//! One run: two hosts, the processes on them, whoever starts these again, and what happens from outside.

use sealift_protocol::{close::Code, envelope::SealingKey, grant::SignedGrant, manifest::SignedReceipt};

use super::{
    Moved,
    fault::{Action, Hostile},
    receiver::{self, Receiver},
    scenario::Scenario,
    sender::{self, Sender},
    world::{Failed, Outcome, Side, Stop, World},
};
use crate::{
    random::Random,
    wire::{Parties, TRANSFER, grant_of},
};

/// How a run ended for one side.
pub type End = Result<SignedReceipt, Code>;

pub struct Ended {
    pub sender: End,
    pub receiver: End,
    /// What is there under the target's final name.
    pub published: Option<Vec<Vec<u8>>>,
    /// What happened from outside, and whether the hostile side of the run did its harm.
    pub happened: Vec<Action>,
    pub harmed: bool,
    pub virtual_ms: u64,
    pub steps: u64,
    pub connections: u64,
}

/// More steps than any run takes: a run that goes in circles fails instead of hanging.
const STEPS_MAX: usize = 2_000_000;

/// Whoever gives the same command again does so at most this often, faults aside.
const RESTARTS_MAX: u32 = 12;

pub fn run(scenario: &Scenario) -> Ended {
    let mut parties = Parties::new(scenario.seed);
    let mut grant = grant_of(TRANSFER);
    grant.not_after_seconds = scenario.not_after_seconds;
    let grant = grant.sign(&parties.authority);
    let sealing_key = SealingKey::generate(&mut parties.random);
    let mut world = World::new(scenario);
    if let Some(Hostile::Corrupt(at)) = scenario.hostile {
        world.wire.corrupt_at = Some(at);
    }
    let mut simulation = Simulation {
        parties: &parties,
        grant,
        sealing_key: &sealing_key,
        world,
        sender: Host::new(sender::Disk::new()),
        receiver: Host::new(receiver::Disk::new(scenario)),
    };
    simulation.play();
    simulation.ended()
}

/// A machine with one process on it.
struct Host<Process, Disk> {
    process: Option<Process>,
    disk: Disk,
    snapshot: Option<Disk>,
    processes: u32,
    restarts: u32,
    start_at_ms: u64,
    /// The transfer is over for this side.
    end: Option<End>,
}

impl<Process, Disk: Clone> Host<Process, Disk> {
    fn new(disk: Disk) -> Self {
        Self { process: None, disk, snapshot: None, processes: 0, restarts: 0, start_at_ms: 0, end: None }
    }

    /// When it is started, if it does not run.
    fn next_start_ms(&self) -> Option<u64> {
        (self.process.is_none() && self.end.is_none()).then_some(self.start_at_ms)
    }

    /// The process is gone; somebody gives the same command again after a while.
    fn kill(&mut self, now_ms: u64, chance: &mut Random) {
        let soon = chance.chance(50.0);
        self.start_at_ms = now_ms + chance.below(if soon { 2000 } else { 60_000 }) as u64;
        self.process = None;
    }

    /// Notes what a step came to; whether anything moved.
    fn settle(&mut self, step: Outcome<Moved>, may_start_again: impl Fn(Code, &Disk) -> bool, now_ms: u64) -> bool {
        match step {
            Ok(Moved::No) => return false,
            // Killed: what did it is due, and says when it is started again.
            Ok(Moved::Yes) | Err(Stop::Killed) => {}
            Ok(Moved::Ended(receipt)) => (self.process, self.end) = (None, Some(Ok(*receipt))),
            Err(Stop::Failed(Failed { code, .. }) | Stop::GaveUp(code)) => {
                self.process = None;
                self.restarts += 1;
                match self.restarts <= RESTARTS_MAX && may_start_again(code, &self.disk) {
                    true => self.start_at_ms = now_ms + 10_000 * u64::from(self.restarts),
                    false => self.end = Some(Err(code)),
                }
            }
        }
        true
    }
}

struct Simulation<'a> {
    parties: &'a Parties,
    grant: SignedGrant,
    sealing_key: &'a SealingKey,
    world: World<'a>,
    sender: Host<Sender<'a>, sender::Disk>,
    receiver: Host<Receiver<'a>, receiver::Disk>,
}

impl Simulation<'_> {
    fn play(&mut self) {
        for _ in 0..STEPS_MAX {
            self.act();
            if self.sender.end.is_some() && self.receiver.end.is_some() {
                return;
            }
            let mut moved = false;
            let first = Side::draw(&mut self.world.wire.chance);
            for side in [first, first.other()] {
                moved |= self.world.due.is_empty()
                    && match side {
                        Side::Sender => self.step_sender(),
                        Side::Receiver => self.step_receiver(),
                    };
            }
            if let Some(link) = &mut self.world.link {
                moved |= link.pump(&mut self.world.wire);
            }
            match moved || !self.world.due.is_empty() {
                true => self.world.step(),
                false => self.wait(),
            }
        }
        panic!("the run goes in circles");
    }

    fn step_sender(&mut self) -> bool {
        let (host, world) = (&mut self.sender, &mut self.world);
        if host.end.is_some() || host.next_start_ms().is_some_and(|at| at > world.now_ms()) {
            return false;
        }
        let step = match &mut host.process {
            Some(process) => process.step(&mut host.disk, world),
            None if let Some(receipt) = host.disk.receipt.read() => Ok(Moved::Ended(Box::new(receipt.clone()))),
            None => {
                host.processes += 1;
                Sender::start(self.parties, self.grant.clone(), host.processes, &mut host.disk, world).map(|process| {
                    host.process = Some(process);
                    Moved::Yes
                })
            }
        };
        world.harmed |= host.process.as_ref().is_some_and(|process| process.did_harm());
        let again = self.receiver.end.is_none() && world.scenario.hostile.is_none();
        let now_ms = world.now_ms();
        let moved = host.settle(step, |code, _| again && code.retry_may_help(), now_ms);
        if host.process.is_none() && host.end.is_some() {
            world.leave(Side::Sender, true);
        }
        moved
    }

    fn step_receiver(&mut self) -> bool {
        let (host, world) = (&mut self.receiver, &mut self.world);
        if host.end.is_some() || host.next_start_ms().is_some_and(|at| at > world.now_ms()) {
            return false;
        }
        let step = match &mut host.process {
            Some(process) => process.step(&mut host.disk, world),
            None => {
                host.processes += 1;
                let (number, disk) = (host.processes, &mut host.disk);
                Receiver::start(self.parties, self.grant.clone(), self.sealing_key, number, disk, world).map(
                    |process| {
                        host.process = Some(process);
                        Moved::Yes
                    },
                )
            }
        };
        let again = self.sender.end.is_none() && world.scenario.hostile.is_none();
        let now_ms = world.now_ms();
        let may_start_again =
            |code: Code, disk: &receiver::Disk| again && code.retry_may_help() && disk.record.read().is_some();
        let moved = host.settle(step, may_start_again, now_ms);
        world.checks.receiver_listens = host.process.is_some();
        if host.process.is_none() {
            world.checks.receiver_forgot = true;
            world.leave(Side::Receiver, host.end.is_some());
        }
        moved
    }

    /// What happens from outside, happens.
    fn act(&mut self) {
        for action in std::mem::take(&mut self.world.due) {
            self.world.happened.push(action);
            let World { link, wire, .. } = &mut self.world;
            match action {
                Action::Cut => {
                    if let Some(link) = link {
                        link.cut(wire);
                    }
                }
                Action::HalfOpen(from) => {
                    if let Some(link) = link {
                        link.half_open(from, wire);
                    }
                }
                Action::Kill { sender, receiver } => {
                    if sender {
                        self.kill(Side::Sender);
                    }
                    if receiver {
                        self.kill(Side::Receiver);
                    }
                }
                Action::LosePower(side) => self.lose_power(side),
                Action::TakeSnapshot(Side::Sender) => self.sender.snapshot = Some(self.sender.disk.clone()),
                Action::TakeSnapshot(Side::Receiver) => self.receiver.snapshot = Some(self.receiver.disk.clone()),
                Action::RollBack(side) => self.roll_back(side),
                Action::ClockJump(side, by_ms) => self.world.set_clock(side, by_ms),
                Action::ChangeSource => {
                    if self.world.scenario.can_repeat() {
                        self.world.change_source();
                    }
                }
            }
        }
    }

    fn kill(&mut self, side: Side) {
        let now_ms = self.world.now_ms();
        let chance = &mut self.world.wire.chance;
        match side {
            Side::Sender if self.sender.end.is_none() => self.sender.kill(now_ms, chance),
            Side::Receiver if self.receiver.end.is_none() => {
                self.receiver.kill(now_ms, chance);
                self.world.checks.receiver_listens = false;
                self.world.checks.receiver_forgot = true;
            }
            _ => return,
        }
        self.world.leave(side, false);
    }

    fn lose_power(&mut self, side: Side) {
        self.kill(side);
        let chance = &mut self.world.wire.chance;
        match side {
            Side::Sender => self.sender.disk.lose_power(chance),
            Side::Receiver => self.receiver.disk.lose_power(chance),
        }
    }

    /// The host is restored from its snapshot, unless the transfer is over there.
    fn roll_back(&mut self, side: Side) {
        self.kill(side);
        match side {
            Side::Sender => {
                if let (None, Some(snapshot)) = (&self.sender.end, &self.sender.snapshot) {
                    self.sender.disk = snapshot.clone();
                }
            }
            Side::Receiver => {
                if let (None, Some(snapshot)) = (&self.receiver.end, &self.receiver.snapshot) {
                    self.receiver.disk = snapshot.clone();
                    self.world.checks.target_forgot = true;
                }
            }
        }
    }

    /// Nothing can be done now: it is later.
    fn wait(&mut self) {
        let now_ms = self.world.now_ms();
        let starts = [self.sender.next_start_ms(), self.receiver.next_start_ms()];
        let link = self.world.link.as_ref().and_then(|link| link.next_event_ms(now_ms));
        let sender = self.sender.process.as_ref().and_then(Sender::next_event_ms);
        let receiver = self.receiver.process.as_ref().and_then(|process| process.next_event_ms(&self.world));
        let soon = starts.into_iter().chain([link, sender, receiver]).flatten().min();
        if let (None, Some(link)) = (soon, &mut self.world.link)
            && link.left == [false; 2]
        {
            assert!(self.world.scenario.hostile.is_some(), "a connection stands, and nothing will ever move");
            link.cut(&mut self.world.wire);
            return;
        }
        let expires = self.sender.process.as_ref().map(|process| process.expires_ms(&self.world));
        let gives_up =
            self.receiver.process.as_ref().map(|process| process.gives_up_ms(&self.receiver.disk, &self.world));
        let next_ms = soon.into_iter().chain(expires).chain(gives_up).min().expect("a side that has not ended");
        assert!(next_ms > now_ms, "what is due was done");
        self.world.wire.now_ms = next_ms;
    }

    fn ended(self) -> Ended {
        let gone = || Err(Code::Interrupted);
        Ended {
            sender: self.sender.end.unwrap_or_else(gone),
            receiver: self.receiver.end.unwrap_or_else(gone),
            published: self.receiver.disk.published.read().clone(),
            happened: self.world.happened,
            harmed: self.world.harmed || self.world.wire.corrupted,
            virtual_ms: self.world.wire.now_ms,
            steps: self.world.steps,
            connections: self.world.connections,
        }
    }
}
