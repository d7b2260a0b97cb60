//! The exchange before data flows.

use sealift_protocol::{
    disposition::{Asks, Stage, receiver::While},
    fingerprint::Fingerprint,
    limits::LANE_WINDOW_BYTES_MIN,
    message::{Begin, Message, Offer},
    receive::{Accepting, AgreedStep, Deciding, Listening, ReceiverTransfer, Window},
    sign::Signer,
};

use super::{
    super::{
        fault::Moment,
        world::{Outcome, World},
    },
    Connection, Disk, Load, Phase, RECEIVER, Receiver, Record, keep, record, say,
};
use crate::wire::TRANSFER;

impl Receiver<'_> {
    pub(super) fn handle_offer(&mut self, offer: Offer, disk: &mut Disk, world: &mut World<'_>) -> Outcome {
        let listening = Listening {
            suites: world.scenario.allowed.clone(),
            grant_keys: vec![self.parties.receiver.public_key()],
            receiver: Fingerprint::of(&self.parties.receiver.public_key()),
            sender_key: self.parties.sender.public_key(),
            proven: TRANSFER,
            begun: record(disk)?.stage.is_begun(),
            targets: vec!["ehr_prod".into()],
        };
        let now_seconds = world.wall_ms(RECEIVER) / 1000;
        let deciding = match listening.handle_offer(offer, &world.link().channel, now_seconds) {
            Ok(deciding) => deciding,
            Err(error) => {
                // A connection without a good offer is refused; nothing else happens.
                say(world.link(), &Message::Refuse(error.into()));
                world.leave(RECEIVER, true);
                return Ok(());
            }
        };
        self.during = While::Exchange;
        self.phase = Phase::Offered(Box::new(deciding));
        Ok(())
    }

    pub(super) fn accept(&mut self, deciding: Deciding, disk: &mut Disk, world: &mut World<'_>) -> Outcome {
        let scenario = world.scenario;
        let asks = deciding.asks(self.finished.is_some());
        if self.load.is_none() {
            let transfer = deciding.new_transfer();
            self.load = Some(Load::open(transfer, Asks::Continue, &self.sealing_key.1, disk, world)?);
            keep(Some(Record { stage: Stage::Offered, ..record(disk)? }), disk, world)?;
        }
        let load = self.load.as_ref().expect("made above");
        let started_over = deciding.started_over(&load.transfer, asks)?.map(Box::new);
        let window = Window { lanes: scenario.lanes_of(world.connections), lane_bytes: LANE_WINDOW_BYTES_MIN };
        let key = self.sealing_key.0.clone();
        let transfer = started_over.as_deref().unwrap_or(&load.transfer);
        let (accepting, accept) = deciding.accept(transfer, window, key, self.signer, &mut self.random)?;
        self.phase = Phase::Accepting(Box::new(accepting), started_over);
        say(world.link(), &accept);
        world.reach(RECEIVER, Moment::Accepted)
    }

    pub(super) fn handle_begin(
        &mut self,
        accepting: Accepting,
        started_over: Option<Box<ReceiverTransfer>>,
        begin: Begin,
        disk: &mut Disk,
        world: &mut World<'_>,
    ) -> Outcome {
        let mut agreed = match started_over {
            None => {
                let load = self.load.as_mut().expect("made with the offer");
                accepting.handle_begin(begin, &self.sealing_key.1, &mut load.transfer)?
            }
            Some(mut transfer) => {
                let agreed = accepting.handle_begin(begin, &self.sealing_key.1, &mut transfer)?;
                // The earlier load ends before the target is opened again.
                self.load = None;
                self.load = Some(Load::open(*transfer, Asks::StartOver, &self.sealing_key.1, disk, world)?);
                agreed
            }
        };
        let transfer = &self.load.as_ref().expect("made with the offer").transfer;
        while let Some(step) = agreed.poll(transfer) {
            match step {
                AgreedStep::Keep => keep_agreed(transfer, disk, world)?,
                AgreedStep::Append(record) => {
                    disk.journal.append(record);
                    world.reach(RECEIVER, Moment::JournalWritten)?;
                    disk.journal.sync();
                }
            }
        }
        let (session, ready) = agreed.ready()?;
        self.phase = Phase::Receiving(Box::new(Connection::new(session)));
        self.during = While::Data;
        say(world.link(), &ready);
        world.reach(RECEIVER, Moment::Ready)
    }
}

fn keep_agreed(transfer: &ReceiverTransfer, disk: &mut Disk, world: &mut World<'_>) -> Outcome {
    let earlier = record(disk)?;
    let stage = earlier.stage.max(Stage::Agreed);
    let (epoch, digest_check) = (transfer.epoch(), transfer.digest_check());
    keep(Some(Record { epoch, digest_check, stage, ..earlier }), disk, world)
}
