//! The exchange before data flows.

use sealift_protocol::{
    close::Code,
    disposition::{Stage, receiver::While},
    fingerprint::Fingerprint,
    limits::LANE_WINDOW_BYTES_MIN,
    message::{Begin, Message, Offer},
    receive::{Accepting, Listening, ReceiverTransfer, Window},
    sign::Signer,
};

use super::{
    super::{
        fault::Moment,
        scenario::TargetKind,
        world::{Outcome, World},
    },
    Connection, Disk, Load, Phase, RECEIVER, Receiver, Record, keep, record, say,
    target::Journalled,
};
use crate::wire::TRANSFER;

impl Receiver<'_> {
    pub(super) fn handle_offer(&mut self, offer: Offer, disk: &mut Disk, world: &mut World<'_>) -> Outcome {
        let scenario = world.scenario;
        let listening = Listening {
            suites: scenario.allowed.clone(),
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
        let fresh = deciding.is_fresh() && self.finished.is_none();
        if self.load.is_none() {
            let transfer = deciding.new_transfer();
            self.load = Some(Load::open(transfer, false, &self.sealing_key.1, disk, world)?);
            keep(Some(Record { stage: Stage::Offered, ..record(disk)? }), disk, world)?;
        }
        let load = self.load.as_ref().expect("made above");
        let mut started_over = None;
        if fresh {
            let mut transfer = deciding.new_transfer();
            transfer.handle_earlier(load.transfer.epoch(), load.transfer.digest_check());
            started_over = Some(Box::new(transfer));
        } else if !deciding.continues(&load.transfer) {
            return Err(Code::SourceChanged.into());
        }
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
        let (suite, info, envelope) = (accepting.suite(), accepting.envelope_info(), begin.body.envelope.clone());
        let (session, ready) = match started_over {
            None => {
                let load = self.load.as_mut().expect("made with the offer");
                accepting.handle_begin(begin, &self.sealing_key.1, &mut load.transfer)?
            }
            Some(mut transfer) => {
                let begun = accepting.handle_begin(begin, &self.sealing_key.1, &mut transfer)?;
                // Only now is it sure that the sender is the one that began the transfer.
                self.load = Some(Load::open(*transfer, true, &self.sealing_key.1, disk, world)?);
                begun
            }
        };
        let transfer = &self.load.as_ref().expect("made with the offer").transfer;
        let (epoch, digest_check) = (transfer.epoch(), transfer.digest_check());
        if world.scenario.target == TargetKind::Journalled {
            disk.journal.append(Journalled::Keys { suite, epoch, info, envelope });
            disk.journal.sync();
        }
        let earlier = record(disk)?;
        let stage = earlier.stage.max(Stage::Agreed);
        keep(Some(Record { epoch, digest_check, stage, ..earlier }), disk, world)?;
        self.phase = Phase::Receiving(Box::new(Connection::new(session)));
        self.during = While::Data;
        say(world.link(), &ready);
        world.reach(RECEIVER, Moment::Ready)
    }
}
