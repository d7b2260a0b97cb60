//! The sender's driver: what `sealift-sender` does with threads, files and QUIC, in single steps.
//! Here is what it does over all connections; [`connection`] sends over one.

mod connection;
mod disk;
mod reader;
mod reading;
mod sabotage;
mod source;
mod spool;

use std::rc::Rc;

use sealift_protocol::{
    close::Code,
    compress::Packer,
    disposition::{
        self, Asks,
        sender::{Attempt, Replay, SenderDisposition, Sends, Standing, sender_disposition},
    },
    grant::SignedGrant,
    id::Epoch,
    key::{DigestSecret, KeyCommitment},
    message::{Message, Refuse},
    random::Nonces,
    send::{Beginning, ExpectedReceiver, Offering, Readable, SenderRecord, SenderSession, SenderTransfer},
};

pub use self::disk::Disk;
use self::{
    connection::Connection,
    disk::{Record, keep, keep_changed, record, transfer},
    reading::Reading,
    sabotage::Sabotage,
    spool::Spool,
};
use super::{
    Moved,
    fault::{Action, Moment},
    link::Link,
    scenario::SourceKind,
    world::{Expiry, Failed, Outcome, Side, Stop, World, told},
};
use crate::wire::{Parties, Seeded, TestSigner};

const SENDER: Side = Side::Sender;
/// Attempts to connect again: as many as fit into the time that `--retry-for` gives, and more than
/// any outage here takes.
const ATTEMPTS_MAX: u32 = 45;

pub struct Sender<'a> {
    signer: &'a TestSigner,
    expected: ExpectedReceiver,
    grant: SignedGrant,
    expiry: Expiry,
    transfer: SenderTransfer,
    /// None while only the receipt is missing.
    source: Option<Reading>,
    /// What this process sends from, if it spools.
    spool: Option<Spool>,
    phase: Phase,
    attempt: Attempt,
    attempts: u32,
    random: Seeded,
    nonces: Nonces<Seeded>,
    packer: Packer,
    sabotage: Sabotage,
}

enum Phase {
    /// No connection until then.
    Waiting(u64),
    Offering(Box<Offering>),
    Beginning(Box<Beginning>, KeyCommitment),
    Sending(Rc<Connection>),
    Moving,
}

fn replay_of(world: &World<'_>) -> Replay {
    match world.scenario.source {
        SourceKind::Tables | SourceKind::File => Replay::Always,
        SourceKind::Program => Replay::RunAgain,
        SourceKind::Pipe => Replay::Never,
    }
}

impl<'a> Sender<'a> {
    /// The command is given, for the first time or again.
    pub fn start(
        parties: &'a Parties,
        grant: SignedGrant,
        expected: ExpectedReceiver,
        process: u32,
        disk: &mut Disk,
        world: &mut World<'_>,
    ) -> Outcome<Self> {
        let seeded = |what: &str| Seeded::new(&format!("sender {what} {process}"), world.scenario.seed);
        let (mut random, nonces) = (seeded("random"), Nonces::new(seeded("nonces")));
        let record = disk.record.read().clone().unwrap_or_else(|| {
            let digest_secret = *DigestSecret::generate(&mut random).expose();
            Record { digest_secret, of_transfer: SenderRecord::default(), spool: None }
        });
        keep(disk, Some(record.clone()), world)?;
        let mut sender = Self {
            signer: &parties.sender,
            expected,
            expiry: Expiry::of(world, SENDER),
            transfer: transfer(&record, &grant, world.scenario.plan.clone(), world)?,
            grant,
            source: None,
            spool: None,
            phase: Phase::Waiting(world.now_ms()),
            attempt: Attempt::new(record.of_transfer.stage(), replay_of(world), Asks::Continue),
            attempts: 0,
            random,
            nonces,
            packer: Packer::new(world.scenario.compression).expect("a zstd context"),
            sabotage: Sabotage::new(world.scenario),
        };
        if !sender.resume_spool(disk)? {
            match record.of_transfer.sent() {
                Some(sent) => {
                    sender.attempt.handle_earlier(Sends::Receipt);
                    sender.transfer.handle_earlier(sent.manifest.clone());
                }
                None => sender.open(disk, world)?,
            }
        }
        Ok(sender)
    }

    /// Opens the source, to begin with it or to resume what an earlier process began.
    fn open(&mut self, disk: &mut Disk, world: &mut World<'_>) -> Outcome {
        self.attempt.handle_opening();
        self.drop_spool(disk, world)?;
        let record = record(disk)?;
        if !world.scenario.can_repeat() && record.of_transfer.is_begun() {
            // What a program prints, and what comes through a pipe, is of another moment each time.
            world.change_source();
        }
        // An earlier one is closed before another is opened.
        self.source = None;
        let (reading, plan) = Reading::open(world)?;
        self.attempt.handle_opened(reading.can_repeat());
        self.transfer = transfer(&record, &self.grant, plan, world)?;
        self.source = Some(reading);
        keep_changed(disk, world, SenderRecord::handle_unsent).map(|_| ())
    }

    /// Does one thing that can be done now, if there is one. The receipt is the end.
    pub fn step(&mut self, disk: &mut Disk, world: &mut World<'_>) -> Outcome<Moved> {
        match self.try_step(disk, world) {
            Err(Stop::Failed(failed)) => self.fail(failed, disk, world),
            done => done,
        }
    }

    fn try_step(&mut self, disk: &mut Disk, world: &mut World<'_>) -> Outcome<Moved> {
        self.expiry.check(world)?;
        // The spool is filled whether or not there is a link.
        let fills_first = self.spool.is_some() && world.wire.chance.chance(50.0);
        if fills_first && self.fill_spool(disk, world)? {
            return Ok(Moved::Yes);
        }
        match self.step_connection(disk, world)? {
            Moved::No if self.fill_spool(disk, world)? => Ok(Moved::Yes),
            moved => Ok(moved),
        }
    }

    fn step_connection(&mut self, disk: &mut Disk, world: &mut World<'_>) -> Outcome<Moved> {
        if let Phase::Waiting(until_ms) = self.phase {
            return match until_ms <= world.now_ms() {
                true => self.connect(world).map(|()| Moved::Yes),
                false => Ok(Moved::No),
            };
        }
        let now_ms = world.now_ms();
        let link = world.link.as_mut().expect("a connection that was not left");
        if let Some(message) = link.said[Side::Receiver as usize].hear(&world.wire)? {
            return self.handle(message, disk, world);
        }
        if link.is_lost(SENDER, now_ms) {
            return Err(Code::Interrupted.into());
        }
        match &self.phase {
            Phase::Sending(connection) => {
                let connection = Rc::clone(connection);
                connection.step(self, disk, world)
            }
            _ => Ok(Moved::No),
        }
    }

    fn connect(&mut self, world: &mut World<'_>) -> Outcome {
        self.attempt.handle_connecting();
        if !world.checks.receiver_listens {
            return Err(Code::Unreachable.into());
        }
        if world.link.is_some() {
            return Err(told(Code::TransferBusy));
        }
        world.connections += 1;
        world.wire.dead = [false; 2];
        let channel = world.scenario.channel(world.connections);
        let now_seconds = world.wall_ms(SENDER) / 1000;
        let (offering, offer) =
            self.transfer.offer(&channel, self.expected, self.attempt.asks(), now_seconds, &mut self.random);
        world.link = Some(Link::new(channel));
        self.say(&offer, world);
        self.phase = Phase::Offering(Box::new(offering));
        world.reach(SENDER, Moment::Offered)
    }

    fn say(&self, message: &Message, world: &mut World<'_>) {
        world.link().said[SENDER as usize].say(message);
    }

    fn handle(&mut self, message: Message, disk: &mut Disk, world: &mut World<'_>) -> Outcome<Moved> {
        match (std::mem::replace(&mut self.phase, Phase::Moving), message) {
            (_, Message::Refuse(refuse)) => return Err(told(refuse.code)),
            (Phase::Offering(offering), Message::Accept(accept)) => {
                let accepted = offering.handle_accept(&self.transfer, accept, self.signer, &mut self.random)?;
                self.transfer.handle_agreed(accepted.suite());
                let kept = keep_changed(disk, world, |record| record.handle_accepted(&accepted))?;
                let (beginning, begin) = kept.begin(accepted)?;
                let Message::Begin(body) = &begin else { unreachable!("what begin returns") };
                self.phase = Phase::Beginning(Box::new(beginning), body.body.commitment);
                self.attempt.handle_begin();
                assert!(disk.record.is_synced() && record(disk)?.of_transfer.is_begun(), "Begin before its record");
                self.say(&begin, world);
                world.reach(SENDER, Moment::Begun)?;
            }
            (Phase::Beginning(beginning, commitment), Message::Ready(ready)) => {
                let mut session = beginning.handle_ready(ready)?;
                self.attempt.handle_ready();
                keep_epoch(session.keys.epoch(), disk, world)?;
                // Real windows hold megabytes; here they are to be felt.
                session.lane_window_bytes = world.scenario.window_bytes;
                let receiver_left = world.link().left[Side::Receiver as usize];
                world.checks.agreed(&session.have, world.scenario, receiver_left);
                self.begin_spool(&session, commitment, disk, world)?;
                self.resume(&session)?;
                self.attempt.handle_resumed();
                self.attempts = 0;
                self.phase = Phase::Sending(Rc::new(Connection::new(session, commitment)));
            }
            (Phase::Sending(connection), Message::Ack(ack)) => {
                self.transfer.handle_ack(&ack)?;
                world.checks.acknowledged(&ack);
                connection.handle_ack(&ack);
                self.phase = Phase::Sending(connection);
            }
            (Phase::Sending(connection), Message::Receipt(receipt)) => {
                self.transfer.handle_receipt(&receipt, &connection.session)?;
                world.reach(SENDER, Moment::ReceiptChecked)?;
                // Kept before the receiver gets the end of the stream, and forgets the transfer.
                disk.receipt.write(Some((*receipt).clone()));
                world.reach(SENDER, Moment::ReceiptWritten)?;
                disk.receipt.sync();
                self.drop_spool(disk, world)?;
                keep(disk, None, world)?;
                world.link().control_ended = true;
                world.leave(SENDER, true);
                return Ok(Moved::Ended(receipt));
            }
            _ => return Err(Code::ProtocolViolation.into()),
        }
        Ok(Moved::Yes)
    }

    /// Drops what was read of parts that have to be read again.
    fn resume(&mut self, session: &SenderSession) -> Outcome {
        let spooled = self.spool.as_ref().map(|spool| Readable::Spooled(spool.frames));
        let readable = spooled.unwrap_or_else(|| Readable::of_source(self.source.as_ref().map(Reading::can_repeat)));
        let repeated = self.transfer.resume(session, readable)?;
        if let Some(source) = &mut self.source {
            repeated.iter().for_each(|part| drop(source.lanes.remove(&part.0)));
        }
        Ok(())
    }

    /// A connection ended, or none came about: tries again, opens the source again, or gives up.
    fn fail(&mut self, failed: Failed, disk: &mut Disk, world: &mut World<'_>) -> Outcome<Moved> {
        let Failed { code, raised_by } = failed;
        if !matches!(self.phase, Phase::Waiting(_)) {
            if code != Code::Interrupted && !raised_by.is_peer() {
                self.say(&Message::Refuse(Refuse::new(code)), world);
            }
            world.leave(SENDER, true);
        }
        self.phase = Phase::Waiting(world.now_ms());
        let failed = disposition::sender::Failed { code, raised_by, during: self.attempt.during() };
        match sender_disposition(self.standing(disk)?, failed) {
            SenderDisposition::ReadSource => {
                self.open(disk, world)?;
                return Ok(Moved::Yes);
            }
            SenderDisposition::RunAgain => {
                self.attempt.handle_run_again();
                self.open(disk, world)?;
                return Ok(Moved::Yes);
            }
            SenderDisposition::Retry if self.attempts < ATTEMPTS_MAX && world.scenario.hostile.is_none() => {
                self.attempts += 1;
                let full_ms = (250u64 << self.attempts.min(10)).min(3000);
                let wait_ms = full_ms / 2 + world.wire.chance.below(full_ms as usize / 2) as u64;
                self.phase = Phase::Waiting(world.now_ms() + wait_ms);
                return Ok(Moved::Yes);
            }
            SenderDisposition::Retry | SenderDisposition::Suspend => {
                // What was spooled of a source that had not ended is of no use.
                if self.spool.as_ref().is_some_and(|spool| spool.whole.is_none()) {
                    self.drop_spool(disk, world)?;
                }
            }
            SenderDisposition::Drop => {
                self.drop_spool(disk, world)?;
                keep(disk, None, world)?;
            }
        }
        Err(Stop::GaveUp(code))
    }

    fn standing(&self, disk: &Disk) -> Outcome<Standing> {
        let standing = self.attempt.standing(record(disk)?.of_transfer.stage());
        let is_whole = self.spool.as_ref().is_some_and(|spool| spool.whole.is_some());
        Ok(if is_whole { Standing { sends: Sends::Spool, ..standing } } else { standing })
    }

    pub fn did_harm(&self) -> bool {
        self.sabotage.done
    }

    /// When it will do something by itself.
    pub fn next_event_ms(&self) -> Option<u64> {
        let connects_ms = match self.phase {
            Phase::Waiting(until_ms) => Some(until_ms),
            _ => None,
        };
        let ends_ms = self.spool.as_ref().and_then(Spool::next_event_ms);
        connects_ms.into_iter().chain(ends_ms).min()
    }

    pub fn expires_ms(&self, world: &World<'_>) -> u64 {
        self.expiry.at_ms(world)
    }
}

/// Only a receiver that went back to an earlier state agrees on an epoch once more.
fn keep_epoch(epoch: Epoch, disk: &mut Disk, world: &mut World<'_>) -> Outcome {
    let mut is_repeated = false;
    keep_changed(disk, world, |record| is_repeated = record.handle_epoch(epoch))?;
    let went_back = world.happened.contains(&Action::RollBack(Side::Receiver));
    assert!(!is_repeated || went_back, "an epoch is agreed on twice");
    Ok(())
}
