//! One run: two hosts, the processes on them, the operators that start these again, and what
//! happens from outside.

use sealift_protocol::{
    close::Code,
    envelope::{SealingKey, SealingPublicKey},
    grant::SignedGrant,
};

use super::{
    Moved,
    fault::{Action, Hostile},
    host::{End, Host},
    receiver::{self, Receiver},
    scenario::Scenario,
    sender::{self, Sender},
    world::{Side, World},
};
use crate::wire::{Parties, TRANSFER};

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

pub fn run(scenario: &Scenario) -> Ended {
    let mut parties = Parties::new(scenario.seed);
    let mut grant = parties.grant_of(TRANSFER);
    grant.begin_before_seconds = scenario.not_after_seconds;
    grant.finish_before_seconds = scenario.not_after_seconds;
    let grant = grant.sign(&parties.receiver);
    let sealing_key = SealingKey::generate(&mut parties.random);
    let sealing_key = (sealing_key.public_key(), sealing_key);
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

/// Whether the operator gives the same command again: at once, or once the disk has room.
fn is_given_again(code: Code) -> bool {
    code.retry_may_help() || code == Code::TargetFull
}

struct Simulation<'a> {
    parties: &'a Parties,
    grant: SignedGrant,
    sealing_key: &'a (SealingPublicKey, SealingKey),
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
                let expected = self.parties.expected(&self.sealing_key.1);
                Sender::start(self.parties, self.grant.clone(), expected, host.processes, &mut host.disk, world).map(
                    |process| {
                        host.process = Some(process);
                        Moved::Yes
                    },
                )
            }
        };
        world.harmed |= host.process.as_ref().is_some_and(|process| process.did_harm());
        let again = self.receiver.end.is_none() && world.scenario.hostile.is_none();
        let now_ms = world.now_ms();
        let may_start_again = |code: Code, _: &sender::Disk| again && is_given_again(code);
        let moved = host.conclude(step, may_start_again, now_ms);
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
            |code: Code, disk: &receiver::Disk| again && is_given_again(code) && disk.record.read().is_some();
        let moved = host.conclude(step, may_start_again, now_ms);
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
                self.receiver.disk.handle_process_gone();
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
        if self.sender.end.as_ref().is_some_and(Result::is_err) {
            self.sender.disk.assert_nothing_of_no_use();
        }
        let gone = || Err(Code::Interrupted);
        Ended {
            sender: self.sender.end.unwrap_or_else(gone),
            receiver: self.receiver.end.unwrap_or_else(gone),
            published: self.receiver.disk.store.published(),
            happened: self.world.happened,
            harmed: self.world.harmed || self.world.wire.corrupted,
            virtual_ms: self.world.wire.now_ms,
            steps: self.world.steps,
            connections: self.world.connections,
        }
    }
}
