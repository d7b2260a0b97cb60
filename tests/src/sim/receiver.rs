//! The receiver's driver: what `sealift-receiver` does with threads, files and QUIC, in single
//! steps. Here is what it does over all connections; [`connection`] receives over one.

mod connection;
mod disk;
mod exchange;
mod load;
mod receipt;
mod target;
mod writer;

use sealift_protocol::{
    close::Code,
    disposition::{
        Asks, Disposition, Event, RaisedBy, Stage, disposition,
        receiver::{Input, Interruption, Loading, Then, While, receiver_disposition},
    },
    envelope::{SealingKey, SealingPublicKey},
    grant::SignedGrant,
    manifest::SignedReceipt,
    message::{Message, Refuse},
    receive::{Accepting, Deciding, ReceiverTransfer},
};

pub use self::disk::Disk;
use self::{
    connection::{Connection, say},
    disk::Record,
    load::Load,
    receipt::{lie, sign},
};
use super::{
    Moved,
    fault::Moment,
    world::{Expiry, Failed, Outcome, Side, Stop, World, told},
};
use crate::wire::{Parties, Seeded, TestSigner};

const RECEIVER: Side = Side::Receiver;
/// How long the sender may take to end the exchange after its receipt.
const DELIVERY_MS: u64 = 30_000;

pub struct Receiver<'a> {
    parties: &'a Parties,
    signer: &'a TestSigner,
    sealing_key: &'a (SealingPublicKey, SealingKey),
    grant: SignedGrant,
    expiry: Expiry,
    load: Option<Load>,
    finished: Option<SignedReceipt>,
    phase: Phase,
    during: While,
    random: Seeded,
}

enum Phase {
    /// For the sender, since then.
    Waiting(u64),
    /// The offer is good; Accept says what is there only once all of it counts.
    Offered(Box<Deciding>),
    Accepting(Box<Accepting>, Option<Box<ReceiverTransfer>>),
    Receiving(Box<Connection>),
    /// The receipt is out: until then the sender may end the exchange.
    Delivering(u64),
    Moving,
}

impl<'a> Receiver<'a> {
    /// The command is given, for the first time or again.
    pub fn start(
        parties: &'a Parties,
        grant: SignedGrant,
        sealing_key: &'a (SealingPublicKey, SealingKey),
        process: u32,
        disk: &mut Disk,
        world: &mut World<'_>,
    ) -> Outcome<Self> {
        let mut receiver = Self {
            parties,
            signer: &parties.receiver,
            sealing_key,
            grant,
            expiry: Expiry::of(world, RECEIVER),
            load: None,
            finished: None,
            phase: Phase::Waiting(world.now_ms()),
            during: While::Waiting,
            random: Seeded::new(&format!("receiver {process}"), world.scenario.seed),
        };
        // Without a record, an earlier process had given up: this one would begin another transfer.
        let record = disk.record.read().clone().ok_or(Code::Interrupted)?;
        match disposition(record.stage, Event::Opened) {
            Disposition::AwaitOffer => {}
            Disposition::Load => {
                let transfer = receiver.known_transfer(&record, world);
                receiver.load = Some(Load::open(transfer, Asks::Continue, &sealing_key.1, disk, world)?);
            }
            Disposition::Publish => receiver.publish_again(&record, disk, world)?,
            other => unreachable!("{other:?}"),
        }
        Ok(receiver)
    }

    fn known_transfer(&self, record: &Record, world: &World<'_>) -> ReceiverTransfer {
        let mut transfer = ReceiverTransfer::new(self.grant.clone(), world.scenario.plan.clone());
        transfer.handle_earlier(record.epoch, record.digest_check);
        transfer
    }

    /// An earlier process had signed the receipt: finishes what it began.
    fn publish_again(&mut self, record: &Record, disk: &mut Disk, world: &mut World<'_>) -> Outcome {
        let receipt = record.receipt.clone().expect("it is signed at this stage");
        let transfer = self.known_transfer(record, world);
        let load = Load::publish_again(transfer, &receipt, disk, world)?;
        keep(Some(Record { stage: Stage::Published, ..record.clone() }), disk, world)?;
        self.load = Some(load);
        self.finished = Some(receipt);
        Ok(())
    }

    /// Does one thing that can be done now, if there is one. The receipt, delivered, is the end.
    pub fn step(&mut self, disk: &mut Disk, world: &mut World<'_>) -> Outcome<Moved> {
        match self.try_step(disk, world) {
            Err(Stop::Failed(failed)) => self.fail(failed, disk, world),
            done => done,
        }
    }

    fn try_step(&mut self, disk: &mut Disk, world: &mut World<'_>) -> Outcome<Moved> {
        self.expiry.check(world)?;
        let now_ms = world.now_ms();
        if let (Phase::Waiting(_), Some(link)) = (&self.phase, &world.link)
            && link.left[RECEIVER as usize]
        {
            // A connection that the other side has not given up.
            return self.rest(disk, world);
        }
        if let Some(link) = &mut world.link {
            if let Some(message) = link.said[Side::Sender as usize].hear(&world.wire)? {
                return self.handle(message, disk, world);
            }
            let (lost, ended) = (link.is_lost(RECEIVER, now_ms), link.control_ended);
            match self.phase {
                Phase::Delivering(_) if lost && ended => {
                    world.leave(RECEIVER, true);
                    return self.end();
                }
                Phase::Delivering(until_ms) if until_ms <= now_ms => return Err(Code::Interrupted.into()),
                _ if lost => return Err(Code::Interrupted.into()),
                _ => {}
            }
        }
        self.rest(disk, world)
    }

    /// What is to be done without a message.
    fn rest(&mut self, disk: &mut Disk, world: &mut World<'_>) -> Outcome<Moved> {
        if let Some(load) = &mut self.load
            && self.finished.is_none()
            && load.step(world)?
        {
            return Ok(Moved::Yes);
        }
        let is_syncing = self.load.as_ref().is_some_and(|load| load.transfer.is_syncing());
        match &mut self.phase {
            Phase::Waiting(since_ms) => {
                let waited_ms = world.now_ms() - *since_ms;
                if !record(disk)?.stage.is_begun() || waited_ms < world.scenario.grace_ms {
                    return Ok(Moved::No);
                }
                if self.finished.is_some() {
                    return self.end();
                }
                let (code, raised_by) = (Code::Interrupted, RaisedBy::ThisSide);
                let why = Interruption { code, raised_by, during: While::Waiting };
                let then = self.disposition(why, disk)?;
                self.give_up(code, then, disk, world)
            }
            Phase::Offered(_) if !is_syncing => {
                let Phase::Offered(deciding) = std::mem::replace(&mut self.phase, Phase::Moving) else {
                    unreachable!("as found above")
                };
                self.accept(*deciding, disk, world).map(|()| Moved::Yes)
            }
            Phase::Receiving(connection) => {
                let load = self.load.as_mut().expect("a connection has a load");
                if connection.step(load, disk, world)? {
                    return Ok(Moved::Yes);
                }
                self.complete(disk, world)
            }
            _ => Ok(Moved::No),
        }
    }

    fn handle(&mut self, message: Message, disk: &mut Disk, world: &mut World<'_>) -> Outcome<Moved> {
        match (std::mem::replace(&mut self.phase, Phase::Moving), message) {
            (_, Message::Refuse(refuse)) => return Err(told(refuse.code)),
            (Phase::Waiting(since_ms), Message::Offer(offer)) => {
                self.phase = Phase::Waiting(since_ms);
                self.handle_offer(offer, disk, world)?;
            }
            (Phase::Accepting(accepting, started_over), Message::Begin(begin)) => {
                self.handle_begin(*accepting, started_over, begin, disk, world)?;
            }
            (Phase::Receiving(mut connection), Message::Finish(manifest)) => {
                let load = self.load.as_mut().expect("a connection has a load");
                connection.session.handle_finish(&mut load.transfer, manifest)?;
                self.phase = Phase::Receiving(connection);
            }
            _ => return Err(Code::ProtocolViolation.into()),
        }
        Ok(Moved::Yes)
    }

    /// Once all is there and the manifest fits it: proves it from the target, signs, publishes, and
    /// says so.
    fn complete(&mut self, disk: &mut Disk, world: &mut World<'_>) -> Outcome<Moved> {
        let Phase::Receiving(connection) = &mut self.phase else { return Ok(Moved::No) };
        let load = self.load.as_mut().expect("a connection has a load");
        match load.transfer.poll_complete() {
            None => return Ok(Moved::No),
            Some(checked) => checked?,
        }
        connection.last_ack_said();
        let receipt = match &self.finished {
            Some(receipt) if load.transfer.manifest() == Some(&receipt.receipt.manifest) => receipt.clone(),
            Some(_) => return Err(Code::ManifestMismatch.into()),
            None => {
                let receipt = sign(connection, load, self.parties, disk, world)?;
                world.check_grant(RECEIVER);
                let signed = Some(receipt.clone());
                keep(Some(Record { stage: Stage::ReceiptSigned, receipt: signed, ..record(disk)? }), disk, world)?;
                load.publish(world)?;
                keep(Some(Record { stage: Stage::Published, ..record(disk)? }), disk, world)?;
                self.finished = Some(receipt.clone());
                receipt
            }
        };
        let receipt = lie(connection, receipt, self.signer, world);
        self.phase = Phase::Delivering(world.now_ms() + DELIVERY_MS);
        say(world.link(), &Message::Receipt(Box::new(receipt)));
        Ok(Moved::Yes)
    }

    fn end(&mut self) -> Outcome<Moved> {
        Ok(Moved::Ended(Box::new(self.finished.take().expect("asked for when there is one"))))
    }

    /// A connection ended without the receipt: waits for the next, or gives up.
    fn fail(&mut self, failed: Failed, disk: &mut Disk, world: &mut World<'_>) -> Outcome<Moved> {
        let Failed { code, raised_by } = failed;
        if !matches!(self.phase, Phase::Waiting(_)) {
            if code != Code::Interrupted && !raised_by.is_peer() {
                say(world.link(), &Message::Refuse(Refuse::new(code)));
            }
            world.leave(RECEIVER, true);
        } else if world.link.as_ref().is_some_and(|link| !link.left[RECEIVER as usize]) {
            world.leave(RECEIVER, true);
        }
        self.phase = Phase::Waiting(world.now_ms());
        let during = std::mem::replace(&mut self.during, While::Waiting);
        let expired = code == Code::GrantExpired && !raised_by.is_peer();
        // A connection that ends without a good offer does not belong to the transfer.
        let is_of_target = code == Code::TargetFull;
        if during == While::Waiting && !expired && !is_of_target && world.scenario.hostile.is_none() {
            return Ok(Moved::Yes);
        }
        if self.finished.is_some() && (expired || world.scenario.hostile.is_some()) {
            return self.end();
        }
        let then = self.disposition(Interruption { code, raised_by, during }, disk)?;
        match then {
            Then::Wait if world.scenario.hostile.is_none() => Ok(Moved::Yes),
            Then::Finish => self.end(),
            _ => self.give_up(code, then, disk, world),
        }
    }

    fn disposition(&self, why: Interruption, disk: &Disk) -> Outcome<Then> {
        let stage = record(disk)?.stage;
        Ok(receiver_disposition(Loading { input: Input::Listen, stage }, why))
    }

    /// Leaves what going on later needs, and nothing else.
    fn give_up(&mut self, code: Code, then: Then, disk: &mut Disk, world: &mut World<'_>) -> Outcome<Moved> {
        if then == Then::Drop {
            self.load = None;
            disk.drop_staged();
            keep(None, disk, world)?;
        }
        Err(Stop::GaveUp(code))
    }

    /// When the sink will have done something, or patience ends.
    pub fn next_event_ms(&self, world: &World<'_>) -> Option<u64> {
        let load = self.load.as_ref().and_then(|load| load.next_event_ms(world.now_ms()));
        let phase = match &self.phase {
            Phase::Delivering(until_ms) => Some(*until_ms),
            Phase::Receiving(connection) => connection.next_event_ms(world.now_ms()),
            _ => None,
        };
        load.into_iter().chain(phase).min()
    }

    /// When it stops waiting.
    pub fn gives_up_ms(&self, disk: &Disk, world: &World<'_>) -> u64 {
        let expires_ms = self.expiry.at_ms(world);
        match (&self.phase, disk.record.read()) {
            (Phase::Waiting(since_ms), Some(record)) if record.stage.is_begun() => {
                expires_ms.min(since_ms + world.scenario.grace_ms)
            }
            _ => expires_ms,
        }
    }
}

fn record(disk: &Disk) -> Outcome<Record> {
    disk.record.read().clone().ok_or(Code::Internal.into())
}

/// Durable when it returns.
fn keep(record: Option<Record>, disk: &mut Disk, world: &mut World<'_>) -> Outcome {
    disk.record.write(record);
    world.reach(RECEIVER, Moment::ReceiverRecordWritten)?;
    disk.record.sync();
    Ok(())
}
