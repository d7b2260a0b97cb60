//! One transfer at its receiver, over all its connections: takes offers, keeps the load while no connection stands, and
//! ends with a receipt, with something to go on from, or with nothing left behind.

use std::{cell::Cell, sync::Arc, time::Duration};

use sealift_agent::{
    audit::AuditLog,
    control::{ControlReader, ControlWriter, MESSAGE_TIMEOUT},
    expiry::Expiry,
    fail_point::{self, Point},
    failure::{Failure, Outcome},
    identity::Identity,
    link::Link,
    report::{Finished, Report},
    shutdown::Shutdown,
    state::StateDir,
    units::human_duration,
};
use sealift_engine_api::Engines;
use sealift_protocol::{
    close::Code,
    disposition::{Disposition, Event, RaisedBy, Stage, disposition},
    error::Error,
    fingerprint::Fingerprint,
    hint::{Hint, Restart},
    manifest::SignedReceipt,
    message::Message,
    receive::{Judging, Session},
};
use serde_json::json;
use tokio::sync::mpsc;

use crate::{
    ending::{found_in_doubt, stated_loaded, tell_staged},
    load::Load,
    pipeline::Pipeline,
    reception::{CalledOff, Heard, Offered, turn_away},
    record::Record as Kept,
    sink::Sink,
    unfinished::note_abandoned_by,
    workers::Workers,
};

mod agree;
mod settle;

/// What the transfer runs with.
pub struct Setting<'a> {
    pub report: &'a Report,
    pub audit: &'a AuditLog,
    pub state: &'a StateDir,
    pub identity: &'a Identity,
    /// Memory for bytes in flight.
    pub memory: u64,
    /// How long the load waits for a lost connection to come back.
    pub grace: Duration,
    /// What a journal may take on the disk; 0 for none.
    pub journal_bytes_max: u64,
    /// This receiver goes on when the transfer has ended: one that is shown is kept until its sender has fetched the receipt.
    pub standing: bool,
    /// Makes the sink of the target; anew if the transfer starts over.
    pub open_sink: &'a dyn Fn() -> Outcome<Arc<dyn Sink>>,
    pub engines: Engines,
}

/// One transfer on its way.
pub struct Receiving<'a> {
    setting: Setting<'a>,
    record: Kept,
    expiry: Expiry,
    load: Option<Load>,
    /// An earlier process had begun it, and nothing that it took was kept.
    lost: bool,
    /// Loaded and proven; shown under its final name.
    finished: Option<Finished>,
    /// The sender of the connection that stands is the one that began the transfer: it alone can end it.
    agreed: bool,
    workers: Workers,
    /// Who ended it for good, and wants to know when that is done.
    called_off: Cell<Option<Link>>,
}

/// How a connection ended that did its part.
enum Conversed {
    /// The sender has the receipt.
    Delivered,
    /// The load is there, and the sender may not know it.
    Undelivered,
}

impl<'a> Receiving<'a> {
    /// Takes up a transfer where its record says it is, unless somebody asks to stop. What was proven is shown all the same:
    /// nobody is told then that nothing is there.
    pub async fn take_up(setting: Setting<'a>, record: Kept, shutdown: &mut Shutdown) -> Outcome<Self> {
        match disposition(record.kept.ending.stage, Event::Opened) {
            Disposition::Publish => Self::new(setting, record).await,
            _ => shutdown.or(Self::new(setting, record)).await,
        }
    }

    async fn new(setting: Setting<'a>, record: Kept) -> Outcome<Self> {
        setting.report.keep_progress_in(&record.dir.progress_file());
        let (expiry, workers, called_off) = (record.expiry(), Workers::default(), Cell::default());
        let (load, lost, finished, agreed) = (None, false, None, false);
        let mut receiving = Self { setting, record, expiry, load, lost, finished, agreed, workers, called_off };
        match disposition(receiving.record.kept.ending.stage, Event::Opened) {
            Disposition::Publish => receiving.publish_again().await?,
            Disposition::TellStatement => {}
            Disposition::Load => receiving.load_again().await?,
            _ => return Err(found_in_doubt(receiving.setting.report, receiving.record.transfer())),
        }
        Ok(receiving)
    }

    /// Goes on with what an earlier process had begun to load, if one had.
    async fn load_again(&mut self) -> Outcome {
        if self.record.kept.plan.is_none() {
            return Ok(());
        }
        let transfer = self.record.state_machine()?;
        let opened = self.open_load(transfer, false).await;
        let load = opened.map_err(|failure| self.note_doubt(failure))?;
        self.lost = !load.transfer().has_anything();
        self.load = Some(load);
        Ok(())
    }

    fn stage(&self) -> Stage {
        self.record.kept.ending.stage
    }

    /// Adds to what interrupted the transfer that nothing is visible, where that is so.
    pub fn with_visibility(&self, failure: Failure) -> Failure {
        if self.stage().shows_nothing() { failure.while_nothing_is_visible() } else { failure }
    }

    /// Runs it to its end, and says in time how little of that is left.
    pub async fn run(&mut self, heard: &mut mpsc::Receiver<Heard>, shutdown: &mut Shutdown) -> Outcome<Finished> {
        let (expiry, report) = (self.expiry.clone(), self.setting.report);
        tokio::select! {
            outcome = self.connections(heard, shutdown) => outcome,
            never = expiry.warn(|left| report.time_left(left)) => match never {},
        }
    }

    async fn connections(&mut self, heard: &mut mpsc::Receiver<Heard>, shutdown: &mut Shutdown) -> Outcome<Finished> {
        loop {
            let offered = match self.wait(heard, shutdown).await? {
                Some(offered) => *offered,
                // Nobody came for the receipt. The load is there all the same.
                None => return self.finished.take().ok_or_else(|| failed("no receipt")),
            };
            match self.connection(offered, heard, shutdown).await {
                Ok(Conversed::Delivered) => return self.finished.take().ok_or_else(|| failed("no receipt")),
                Ok(Conversed::Undelivered) if self.is_called_off() => {
                    return self.finished.take().ok_or_else(|| failed("no receipt"));
                }
                Ok(Conversed::Undelivered) => {}
                // What is shown stays shown, and nobody will come for the receipt, or it is not waited for.
                Err(Failure { code: Code::Abandoned | Code::UserInterrupt, .. }) if self.finished.is_some() => {
                    return self.finished.take().ok_or_else(|| failed("no receipt"));
                }
                // What is shown stays: a sender that comes for its receipt and fails changes nothing about that.
                Err(failure) if self.finished.is_some() => {
                    if !failure.raised_by.is_peer() && matches!(failure.code, Code::UserInterrupt | Code::GrantExpired)
                    {
                        return self.finished.take().ok_or_else(|| failed("no receipt"));
                    }
                }
                Err(failure) if self.is_for_another(&failure) => {}
                Err(failure) if self.waits_after(&failure) => self.tell_waiting(&failure),
                Err(failure) => return Err(self.expiry.or_failure(failure)),
            }
        }
    }

    /// A sender that was to be told the operator's statement is not the one that began the transfer, or was lost.
    fn is_for_another(&self, failure: &Failure) -> bool {
        self.stage() == Stage::StatedLoaded && (failure.code.is_of_peer() || failure.code.retry_may_help())
    }

    /// The transfer is over, or can go on later: leaves what that needs, and nothing else. What stays in the clear is told.
    pub async fn end(mut self, outcome: Outcome<Finished>) -> Outcome<Finished> {
        // Once a sender has been agreed with, or was lost while that was done, it may come back with this very ticket.
        let may_come_back = |failure: &Failure| match self.record.kept.epoch.0 {
            0 => self.load.is_some() && failure.code.retry_may_help(),
            _ => failure.code.keeps_transfer(),
        };
        let keeps = match (&outcome, self.stage()) {
            // Whatever the failure was: only the operator's statement ends this.
            (Err(_), Stage::Ending | Stage::InDoubt) => true,
            // Until the sender knows.
            (Err(failure), Stage::StatedLoaded) => failure.code != Code::StatedLoaded,
            (Err(failure), _) => may_come_back(failure),
            (Ok(_), _) => false,
        };
        let transfer = self.record.transfer();
        let called_off = self.called_off.take();
        if let (Some(link), Err(Failure { code: Code::Abandoned, .. })) = (&called_off, &outcome) {
            note_abandoned_by(self.setting.audit, transfer, Fingerprint::of(&link.peer))?;
        }
        let sink = self.load.as_ref().map(|load| Arc::clone(&load.sink));
        if let Some(load) = self.load.take() {
            load.close(keeps).await;
        }
        if !keeps {
            // A large journal takes a while.
            let dir = self.record.dir;
            let destroyed = tokio::task::spawn_blocking(move || dir.destroy()).await;
            destroyed.map_err(|_| failed("a clean-up ended early"))??;
        }
        if let Some(link) = called_off {
            link.leave_with(outcome.as_ref().map_or_else(|failure| failure.code, |_| Code::Done)).await;
        }
        outcome.map_err(|failure| sink.map_or(failure.clone(), |sink| tell_staged(failure, &*sink, transfer)))
    }

    fn is_called_off(&self) -> bool {
        let link = self.called_off.take();
        let is_called_off = link.is_some();
        self.called_off.set(link);
        is_called_off
    }

    /// No sender has begun anything.
    pub fn is_untouched(&self) -> bool {
        self.record.kept.epoch.0 == 0 && self.load.is_none()
    }

    /// Whether the sender can be expected to come back by itself, or with another command.
    fn waits_after(&self, failure: &Failure) -> bool {
        let agreed_once = self.record.kept.epoch.0 > 0;
        let hopeful = failure.code.retry_may_help()
            || agreed_once && matches!(failure.code, Code::ResumeImpossible | Code::SourceChanged)
            // Of the sender's spool.
            || agreed_once && failure.raised_by.is_peer() && matches!(failure.code, Code::LogFull | Code::LogFailed)
            || agreed_once && !self.agreed && (failure.raised_by.is_peer() || failure.code.is_of_peer());
        let loading = disposition(self.stage(), Event::ConnectionLost) == Disposition::Load;
        // A holder of a ticket that offers and then is silent keeps no place of a standing receiver: it comes back as it came.
        let begun = agreed_once || self.load.is_some() && !self.setting.standing;
        hopeful && loading && begun && failure.raised_by != RaisedBy::PeerOperator && !self.setting.grace.is_zero()
    }

    fn tell_waiting(&self, failure: &Failure) {
        let report = self.setting.report;
        report.lost();
        report.event("link_down", &[("reason", json!(failure.code.word()))]);
        let grace = human_duration(self.setting.grace);
        report.say(&format!("receiver: {}; keeping the load for the sender to come back, for {grace}.", failure.what));
    }

    /// Waits for the sender: for its first offer as long as the grant lasts, later as long as the load is kept for it. `None`
    /// when the load is there and nobody came for the receipt.
    async fn wait(&self, heard: &mut mpsc::Receiver<Heard>, shutdown: &mut Shutdown) -> Outcome<Option<Box<Offered>>> {
        let awaited = self.record.kept.epoch.0 == 0 && self.load.is_none();
        let grace = if awaited && !self.setting.standing { Duration::MAX } else { self.setting.grace };
        let watching = async {
            match &self.load {
                Some(load) if self.finished.is_none() => load.watch(self.setting.report).await,
                _ => std::future::pending().await,
            }
        };
        let shown = self.finished.is_some();
        tokio::select! {
            offered = self.next_offer(heard) => match offered {
                Err(failure) if shown && failure.code == Code::Abandoned => Ok(None),
                offered => offered.map(Some),
            },
            failure = watching => Err(failure),
            expired = self.expiry.passed() => if shown { Ok(None) } else { Err(expired) },
            stopped = shutdown.requested() => if shown { self.not_fetched() } else { Err(stopped) },
            () = tokio::time::sleep(grace) => match shown {
                true => self.not_fetched(),
                false => Err(self.expiry.or_failure(Failure::new(
                    Code::Interrupted,
                    "the sender did not come back",
                    Hint::StartAgain(Restart::Resumes),
                ))),
            },
        }
    }

    /// The load is there, and its sender did not come for the receipt. A standing receiver will be there when it does.
    fn not_fetched(&self) -> Outcome<Option<Box<Offered>>> {
        if !self.setting.standing {
            return Ok(None);
        }
        let what = "the load is there, and its sender has not fetched the receipt";
        Err(Failure::new(Code::Interrupted, what, "Nothing is to be done here: the receipt is kept for it."))
    }

    async fn next_offer(&self, heard: &mut mpsc::Receiver<Heard>) -> Outcome<Box<Offered>> {
        loop {
            match heard.recv().await {
                Some(Heard::Offer(offered)) => return Ok(offered),
                Some(Heard::CalledOff(called_off)) if called_off.is_final() || self.is_untouched() => {
                    return Err(self.call_off(*called_off));
                }
                // Whoever began the transfer decides about it.
                Some(Heard::CalledOff(_)) => {}
                None => return Err(failed("the endpoint was closed")),
            }
        }
    }

    fn call_off(&self, called_off: CalledOff) -> Failure {
        self.called_off.set(Some(called_off.link));
        match self.stage() {
            Stage::StatedLoaded => stated_loaded("the sender has abandoned a load that is stated to be in the target"),
            _ => called_off.failure,
        }
    }

    async fn connection(
        &mut self,
        offered: Offered,
        heard: &mut mpsc::Receiver<Heard>,
        shutdown: &mut Shutdown,
    ) -> Outcome<Conversed> {
        let expiry = self.expiry.clone();
        let mut called_off = None;
        if disposition(self.stage(), Event::Opened) == Disposition::TellStatement {
            let told = unless_ended(self.tell_statement(offered), &expiry, heard, shutdown, &mut called_off).await;
            self.called_off.set(called_off);
            return told;
        }
        let Offered { link, slot, judging, mut writer, mut control } = offered;
        slot.accept();
        self.agreed = false;
        let conversing = self.converse(&link, judging, &mut writer, &mut control);
        let received = unless_ended(conversing, &expiry, heard, shutdown, &mut called_off).await;
        let proven = match received {
            Ok(Some(session)) => self.settle(&link, &session, heard, shutdown, &mut called_off).await.map(Some),
            Ok(None) => Ok(None),
            Err(failure) => Err(self.note_doubt(failure)),
        };
        // What was proven is published, whoever wants to stop it now.
        let published = match proven {
            Ok(receipt) => self.publish(receipt).await,
            Err(failure) => Err(failure),
        };
        let outcome = match published {
            Ok(()) => self.deliver(&mut writer, &mut control, heard, &mut called_off).await,
            Err(failure) => Err(failure),
        };
        match &outcome {
            Ok(Conversed::Delivered) => {
                fail_point::hit(Point::ReceiptFetched);
                writer.finish().await;
                link.leave().await;
            }
            Ok(Conversed::Undelivered) => link.close(Code::Interrupted),
            Err(failure) => link.refuse(writer, failure).await,
        }
        self.called_off.set(called_off);
        outcome
    }

    /// Takes all that is missing. `None` where it was proven over an earlier connection.
    async fn converse(
        &mut self,
        link: &Link,
        judging: Judging,
        writer: &mut ControlWriter,
        control: &mut ControlReader,
    ) -> Outcome<Option<Session>> {
        let session = self.negotiate(judging, link, writer, control).await?;
        link.open_data();
        self.agreed = true;
        let load = self.load.as_ref().ok_or_else(|| failed("no load"))?;
        let pipeline = Pipeline::new(link, self.setting.report, load, &self.workers, session);
        pipeline.run(writer, control).await?;
        let session = pipeline.into_session();
        match &self.finished {
            Some(finished) if load.transfer().manifest() == Some(&finished.receipt.receipt.manifest) => Ok(None),
            Some(_) => Err(Error::new(Code::ManifestMismatch, "another manifest than was loaded").into()),
            None => Ok(Some(session)),
        }
    }

    /// Publishes the load. Not cancel-safe: what it begins continues in its thread.
    async fn publish(&mut self, receipt: Option<SignedReceipt>) -> Outcome {
        if let Some(receipt) = receipt {
            let finished = self.publishing()?.publish(&mut self.record, receipt).await?;
            self.finished = Some(finished);
        }
        Ok(())
    }

    /// The load is there, whether or not the sender can be told. Takes [`MESSAGE_TIMEOUT`] or so at most, and is not stopped
    /// before: the sender would not know.
    async fn deliver(
        &self,
        writer: &mut ControlWriter,
        control: &mut ControlReader,
        heard: &mut mpsc::Receiver<Heard>,
        called_off: &mut Option<Link>,
    ) -> Outcome<Conversed> {
        if called_off.is_some() {
            // The sender has abandoned the transfer while the load ended, and learns by that link that it is there.
            return Ok(Conversed::Undelivered);
        }
        let delivering = self.deliver_receipt(writer, control);
        tokio::pin!(delivering);
        tokio::select! {
            biased;
            delivered = &mut delivering => return delivered,
            by = turn_away(heard) => *called_off = by.ok().map(|by| by.link),
        }
        delivering.await
    }

    async fn deliver_receipt(&self, writer: &mut ControlWriter, control: &mut ControlReader) -> Outcome<Conversed> {
        let finished = self.finished.as_ref().ok_or_else(|| failed("no receipt"))?;
        let receipt = Message::Receipt(Box::new(finished.receipt.clone()));
        fail_point::hit(Point::ReceiptDue);
        let told = writer.send(&receipt).await.is_ok();
        // The sender ends its side once it has checked the receipt.
        let ended = tokio::time::timeout(MESSAGE_TIMEOUT, control.next()).await;
        Ok(if told && matches!(ended, Ok(Ok(None))) { Conversed::Delivered } else { Conversed::Undelivered })
    }
}

/// Runs `work`, unless the grant ends, somebody asks to stop, or who began the transfer calls it off.
async fn unless_ended<T>(
    work: impl Future<Output = Outcome<T>>,
    expiry: &Expiry,
    heard: &mut mpsc::Receiver<Heard>,
    shutdown: &mut Shutdown,
    called_off: &mut Option<Link>,
) -> Outcome<T> {
    tokio::select! {
        outcome = work => outcome,
        by = turn_away(heard) => Err(by.map_or_else(|closed| closed, |by| {
            *called_off = Some(by.link);
            Failure { raised_by: RaisedBy::ThisSide, ..by.failure }
        })),
        expired = expiry.passed() => Err(expired),
        stopped = shutdown.requested() => Err(stopped),
    }
}

fn failed(what: &'static str) -> Failure {
    Failure::new(Code::Internal, what, "")
}
