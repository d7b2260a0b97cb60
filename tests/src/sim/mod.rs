//! The simulator: `protocol::send` and `protocol::receive` with real sealing of small chunks, under a virtual clock, over
//! a link that delays, cuts and interleaves as it likes, all drawn from one seed.
//!
//! What QUIC itself does about lost or doubled datagrams is not simulated: here each stream is reliable and ordered, and
//! everything between streams is not.

mod pipe;
mod receiver;
mod scenario;
mod sender;
mod target;

use sealift_protocol::{
    close::Code,
    manifest::SignedReceipt,
    message::{Message, Refuse},
    sign::Signer,
};

use self::{
    pipe::{Control, Pipe, Wire},
    receiver::Receiver,
    sender::{Sender, transfer_of},
};
pub use self::{
    scenario::{Fault, ReceiverFault, Scenario, SenderFault},
    target::Target,
};
use crate::{
    random::Random,
    wire::{Parties, Seeded, Terms},
};

/// What lies between the two endpoints.
pub struct World {
    pub wire: Wire,
    /// Control messages of the sender, and of the receiver.
    pub up: Control,
    pub down: Control,
    /// One for each part in flight or past, in the order of their opening.
    pub streams: Vec<Pipe>,
    /// The connection is gone.
    pub cut: bool,
}

/// What an endpoint did in one step.
pub enum Moved {
    No,
    Yes,
    Ended(Box<SignedReceipt>),
}

type Step = Result<Moved, Code>;

/// How a run ended for one side.
pub type End = Result<SignedReceipt, Code>;

pub struct Ended {
    pub sender: End,
    pub receiver: End,
    pub target: Target,
    /// The fault of the run happened.
    pub triggered: bool,
    pub virtual_ms: u64,
}

/// More steps than any run takes: a run that goes in circles fails instead of hanging.
const STEPS_MAX: usize = 2_000_000;

pub fn run(scenario: &Scenario) -> Ended {
    let mut parties = Parties::new(scenario.seed);
    let terms = Terms {
        offered: scenario.offered.clone(),
        allowed: scenario.allowed.clone(),
        ..Terms::new(scenario.plan.clone(), scenario.offered[0])
    };
    let listening = parties.listening(&terms);
    let transfer = transfer_of(scenario, parties.grant(), &mut parties.random);
    let (offering, offer) = transfer.offer(&parties.channel, parties.receiver.public_key(), &mut parties.random);
    let mut world = World {
        wire: Wire::new(Random::new(!scenario.seed), scenario.delay_ms, scenario.bytes_per_second),
        up: Control::new(),
        down: Control::new(),
        streams: Vec::new(),
        cut: false,
    };
    if let Fault::Corrupt(at) = scenario.fault {
        world.wire.corrupt_at = Some(at);
    }
    world.up.say(&offer);
    let random = |side| Seeded::new(side, scenario.seed);
    let mut sender = Sender::new(scenario, parties.sender, transfer, offering, random("sender"));
    let mut receiver = Receiver::new(scenario, parties.receiver, parties.channel, listening, random("receiver"));
    let (sender_end, receiver_end) = play(scenario, &mut world, &mut sender, &mut receiver);
    Ended {
        sender: sender_end,
        receiver: receiver_end,
        triggered: sender.triggered || receiver.triggered || world.cut || world.wire.corrupted,
        target: receiver.target,
        virtual_ms: world.wire.now_ms,
    }
}

fn play(scenario: &Scenario, world: &mut World, sender: &mut Sender<'_>, receiver: &mut Receiver<'_>) -> (End, End) {
    let (mut sender_end, mut receiver_end): (Option<End>, Option<End>) = (None, None);
    for _ in 0..STEPS_MAX {
        let mut moved = false;
        let first = world.wire.chance.below(2);
        for side in [first, 1 - first] {
            if side == 0 && sender_end.is_none() {
                sender_end = settle(sender.step(world), &mut world.up, &mut moved);
            }
            if side == 1 && receiver_end.is_none() {
                receiver_end = settle(receiver.step(world), &mut world.down, &mut moved);
            }
        }
        moved |= world.up.pump(&mut world.wire) | world.down.pump(&mut world.wire);
        if sender_end.is_some() && receiver_end.is_some() {
            break;
        }
        world.cut |= matches!(scenario.fault, Fault::CutAt(at_ms) if at_ms <= world.wire.now_ms);
        if world.cut {
            break;
        }
        if moved {
            continue;
        }
        let now_ms = world.wire.now_ms;
        let controls = [world.up.next_event_ms(now_ms), world.down.next_event_ms(now_ms)];
        let streams = world.streams.iter().map(|pipe| pipe.next_event_ms(now_ms));
        let next_ms = streams.chain(controls).chain([receiver.next_event_ms(now_ms)]).flatten().min();
        match next_ms {
            Some(next_ms) => world.wire.now_ms = next_ms,
            // Nothing will ever happen again: the idle timeout of the real link.
            None => break,
        }
    }
    let gone = Err(Code::Interrupted);
    (sender_end.unwrap_or(gone.clone()), receiver_end.unwrap_or(gone))
}

/// A side that fails says why, as far as the other still listens.
fn settle(step: Step, out: &mut Control, moved: &mut bool) -> Option<End> {
    match step {
        Ok(Moved::No) => None,
        Ok(Moved::Yes) => {
            *moved = true;
            None
        }
        Ok(Moved::Ended(receipt)) => {
            *moved = true;
            Some(Ok(*receipt))
        }
        Err(code) => {
            *moved = true;
            out.say(&Message::Refuse(Refuse { code, part: None, chunk: None }));
            Some(Err(code))
        }
    }
}
