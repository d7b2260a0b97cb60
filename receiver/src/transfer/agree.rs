//! What a connection is agreed on over, and the load that it resumes: found, made, or fed from
//! the journal.

use std::mem;

use sealift_agent::{
    audit::entry::{Entry, Name, Peer, Purpose},
    clock::now_ms,
    control::{ControlReader, ControlWriter},
    fail_point::{self, Point},
    failure::Outcome,
    link::Link,
    random::SystemRandom,
    report::Resume,
    units::counted,
};
use sealift_protocol::{
    close::Code,
    disposition::{Asks, Stage},
    error::Error,
    fingerprint::Fingerprint,
    message::Message,
    receive::{Agreed, AgreedStep, Deciding, Durability, ReceiverSession, ReceiverTransfer, Window},
};
use serde_json::json;
use tokio::sync::mpsc;

use super::{Conversed, Receiving};
use crate::{
    ending::{KeepsEnding, stated_loaded},
    held::LetGo,
    journal::{InMemory, Journal, Place, drop_journal, replay},
    load::{Load, note_found, prepare},
    reception::Offered,
    runner::{Runner, failed},
};

impl Receiving<'_> {
    /// Agrees with the sender on a connection, and finds or makes the load that it resumes. Not
    /// cancel-safe: messages may have been sent or received in part. The connection ends with it.
    pub(super) async fn negotiate(
        &mut self,
        deciding: Deciding,
        link: &Link,
        writer: &mut ControlWriter,
        control: &mut ControlReader,
    ) -> Outcome<ReceiverSession> {
        let sender = Fingerprint::of(&deciding.sender_key());
        let asks = deciding.asks(self.finished.is_some());
        let went_on = self.runner.load.as_ref().is_some_and(|load| load.transfer().has_anything());
        if self.runner.load.is_none() {
            match self.stage().is_begun() {
                // What was to be started over could not be opened.
                true => self.load_again().await?,
                false => self.begin(&deciding).await?,
            }
        }
        let mut random = SystemRandom::default();
        let sealing_key = self.runner.record.sealing_key()?;
        let load = self.runner.load()?;
        load.await_counted(self.runner.setting.report).await?;
        let mut started_over = deciding.started_over(&load.transfer(), asks)?;
        let window = Window::share(self.budget.window_bytes(), deciding.plan().parts.len());
        let public_key = sealing_key.public_key();
        let (accepting, message) = match &started_over {
            Some(transfer) => {
                deciding.accept(transfer, window, public_key, self.runner.setting.identity, &mut random)?
            }
            None => deciding.accept(&load.transfer(), window, public_key, self.runner.setting.identity, &mut random)?,
        };
        let accept_bytes = writer.send(&message).await?;
        let Message::Begin(begin) = control.expect(accept_bytes).await? else {
            return Err(Error::new(Code::ProtocolViolation, "Begin").into());
        };
        let mut agreed = match &mut started_over {
            Some(transfer) => accepting.handle_begin(begin, &sealing_key, transfer)?,
            None => accepting.handle_begin(begin, &sealing_key, &mut load.transfer_mut())?,
        };
        if let Some(transfer) = started_over {
            if let Some(load) = self.runner.load.take() {
                load.close(LetGo::Abandon).await;
            }
            self.runner.load = Some(self.open_load(transfer, Asks::StartOver).await?);
        }
        loop {
            let step = agreed.poll(&self.runner.load()?.transfer());
            match step {
                Some(AgreedStep::Keep) => {
                    self.keep_epoch()?;
                    fail_point::hit(Point::EpochKept);
                    self.note_connected(&agreed, link, sender)?;
                }
                Some(AgreedStep::Append(record)) => self.runner.load()?.journal()?.append(record).await?,
                None => break,
            }
        }
        let (session, ready) = agreed.ready()?;
        fail_point::hit(Point::ReadyDue);
        writer.send(&ready).await?;
        self.report_started(&session, went_on, asks);
        Ok(session)
    }

    fn note_connected(&self, agreed: &Agreed, link: &Link, sender: Fingerprint) -> Outcome {
        let keys = agreed.session().keys();
        let entry = Entry::TransferConnect {
            address: link.remote_address(),
            peer: Peer::Sender(sender),
            suite: keys.suite(),
            epoch: keys.epoch(),
            link: link.facts.into(),
        };
        self.runner.setting.audit.append(Some(self.runner.record.transfer()), &entry)
    }

    /// Sends what the operator has stated about the load to the sender that began the transfer, and
    /// to no other. Not cancel-safe: messages may have been sent or received in part. The
    /// connection ends with it.
    pub(super) async fn send_statement(&mut self, offered: Offered) -> Outcome<Conversed> {
        let Offered { link, slot: _slot, deciding, mut writer, mut control } = offered;
        let failure = match self.know_sender(deciding, &mut writer, &mut control).await {
            Ok(()) => stated_loaded("the sender was told that the load is stated to be in the target"),
            Err(failure) => failure,
        };
        writer.refuse(&link, &failure).await;
        Err(failure)
    }

    /// Exchanges messages up to Begin, by which a sender proves that it is the one that began the
    /// transfer.
    async fn know_sender(
        &mut self,
        deciding: Deciding,
        writer: &mut ControlWriter,
        control: &mut ControlReader,
    ) -> Outcome {
        let sealing_key = self.runner.record.sealing_key()?;
        let mut transfer = self.runner.record.state_machine()?;
        let window = Window::share(self.budget.window_bytes(), deciding.plan().parts.len());
        let public_key = sealing_key.public_key();
        let identity = self.runner.setting.identity;
        let (accepting, message) =
            deciding.accept(&transfer, window, public_key, identity, &mut SystemRandom::default())?;
        let accept_bytes = writer.send(&message).await?;
        let Message::Begin(begin) = control.expect(accept_bytes).await? else {
            return Err(Error::new(Code::ProtocolViolation, "Begin").into());
        };
        accepting.handle_begin(begin, &sealing_key, &mut transfer)?;
        self.runner.record.kept.epoch = transfer.epoch();
        self.runner.record.keep()
    }

    /// The first offer of the transfer: makes a place for what it plans to send.
    async fn begin(&mut self, deciding: &Deciding) -> Outcome {
        let grant = deciding.grant().grant.clone();
        let entry = Entry::LoadBegin {
            sender: Fingerprint::of(&deciding.sender_key()),
            into: Name::new(self.runner.target()),
            engine: deciding.plan().engine.clone(),
            purpose: Purpose::new(&grant.purpose),
        };
        self.runner.setting.audit.append(Some(grant.transfer), &entry)?;
        self.runner.record.kept.started_ms = now_ms();
        self.runner.load = Some(self.open_load(deciding.new_transfer(), Asks::Continue).await?);
        self.runner.record.advance(Stage::Offered)
    }

    /// Opens the target for the transfer, and resumes what an earlier process left, unless that is
    /// to be dropped.
    pub(super) async fn open_load(&mut self, mut transfer: ReceiverTransfer, asks: Asks) -> Outcome<Load> {
        let _at_work = self.terms.activity.at_work();
        let target = (self.runner.setting.open_target)()?;
        let stop = self.runner.stop.within();
        let id = self.runner.record.transfer();
        let plan = transfer.plan().clone();
        let durability = target.capabilities(&plan).durability;
        let report = self.runner.setting.report;
        report.planned(&plan);
        let prepared = prepare(&target, id, plan, asks, &stop).await?;
        let found = note_found(&mut transfer, &prepared.found)?;
        report.count(|totals| {
            totals.parts += found.parts;
            totals.rows = prepared.rows;
            totals.found(found.plain_bytes);
        });
        let journals = durability == Durability::Journal && self.terms.journal_bytes_max > 0;
        let drops = asks == Asks::StartOver || !journals;
        if drops && mem::take(&mut self.runner.record.kept.journal_made) {
            self.runner.record.keep()?;
        }
        let folder = self.runner.record.dir.path().to_owned();
        let bytes_max = self.terms.journal_bytes_max;
        let place = Place { folder, transfer: id, key: self.runner.record.sealing_key()?, bytes_max };
        let made = self.runner.record.kept.journal_made;
        let audit = self.runner.setting.audit.clone();
        // A large one is read through before it is appended to; others have to be served
        // meanwhile.
        let opened = tokio::task::spawn_blocking(move || -> Outcome<_> {
            if drops {
                drop_journal(&place.folder)?;
            }
            if !journals {
                return Ok(None);
            }
            Ok(Some(match place.open(made, &audit)? {
                Some(log) => (true, log),
                None => (false, place.create()?),
            }))
        });
        let opened = opened.await.map_err(|_| failed("a journal was not opened"))??;
        let Some((is_earlier, log)) = opened else {
            return Ok(Load::new(target, prepared, transfer, None, stop));
        };
        let replayed = match is_earlier {
            true => Some(replay(&log, id, self.runner.record.sealing_key()?, self.budget.open_lane().await?)?),
            false => None,
        };
        // Durable with the epoch, before anything that matters is in the journal.
        self.runner.record.kept.journal_made = true;
        let load = Load::new(target, prepared, transfer, Some(Journal::start(log)), stop);
        if let Some(replayed) = replayed {
            self.feed(&load, replayed).await?;
        }
        Ok(load)
    }

    /// Feeds a fresh loader from the journal.
    async fn feed(&self, load: &Load, replayed: mpsc::Receiver<Outcome<InMemory>>) -> Outcome {
        let report = self.runner.setting.report;
        report.event("journal", &[]);
        report.say("receiver: feeding the target with what the journal holds.");
        let feeding = async {
            tokio::select! {
                fed = load.feed(replayed) => fed,
                failure = load.watch(report) => Err(failure),
            }
        };
        let fed_bytes = self.runner.stop.or(feeding).await?;
        report.count(|totals| totals.found(fed_bytes));
        Ok(())
    }

    /// The epoch is durable before anything is sealed in it.
    fn keep_epoch(&mut self) -> Outcome {
        let Runner { load, record, .. } = &mut self.runner;
        let load = load.as_ref().ok_or_else(|| failed("no load"))?;
        let transfer = load.transfer();
        record.kept.epoch = transfer.epoch();
        record.kept.digest_check = transfer.digest_check();
        record.kept.plan = Some(transfer.plan().clone());
        drop(transfer);
        match record.stage() {
            Stage::Issued | Stage::Offered => record.advance(Stage::Agreed)?,
            _ => record.keep()?,
        }
        // It has begun: from here on it may take as long as the grant gives it to finish.
        self.permit.begin(&self.runner.record.kept.grant.grant);
        Ok(())
    }

    fn report_started(&mut self, session: &ReceiverSession, went_on: bool, asks: Asks) {
        let report = self.runner.setting.report;
        let is_lost = mem::take(&mut self.is_lost);
        let Some(load) = &self.runner.load else { return };
        let engine = load.transfer().plan().engine.name.clone();
        let suite = session.keys().suite().name();
        report.event("started", &[("engine", json!(engine)), ("suite", json!(suite))]);
        if load.transfer().epoch().0 > 1 {
            report.event("link_up", &[("epoch", json!(load.transfer().epoch().0))]);
        }
        match (went_on, asks) {
            (true, Asks::StartOver) => {
                report.resume(Resume::Restarted, "the sender could not resume; what was here was dropped.")
            }
            (true, Asks::Continue) => {
                let here = counted(load.transfer().verified_in_all(), "chunk");
                report.resume(Resume::Resumed, &format!("the sender resumes from what is here, {here}."));
            }
            (false, _) if is_lost => report.resume(
                Resume::Restarted,
                "an earlier receiver had begun it, and nothing of that is here; all of it is sent again.",
            ),
            _ => {}
        }
    }
}
