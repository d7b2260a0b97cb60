//! One transfer at its receiver, over all its connections: takes offers, keeps the load while no
//! connection stands, and ends with a receipt, with something to go on from, or with nothing left
//! behind.

use std::{cell::Cell, time::Duration};

use sealift_agent::{
    budget::Budget,
    control::{ControlReader, ControlWriter, MESSAGE_TIMEOUT},
    fail_point::{self, Point},
    failure::{Failure, Outcome},
    link::Link,
    permit::Permit,
    report::Finished,
    stop::{Cause, Raised, Stop},
    units::human_duration,
};
use sealift_protocol::{
    close::Code,
    disposition::{
        Asks, Disposition, Event, Stage, disposition,
        receiver::{Input, Then, While},
    },
    error::Error,
    fingerprint::Fingerprint,
    hint::{Hint, Restart},
    message::Message,
    receive::{Deciding, ReceiverSession},
};
use serde_json::json;
use tokio::sync::mpsc;

use crate::{
    activity::Activity,
    ending::{KeepsEnding, found_in_doubt, stated_loaded},
    pipeline::Pipeline,
    reception::{Incoming, Offered, Withdrawal},
    record::Record as Kept,
    runner::{Came, Outside, Runner, Setting, failed, note_end, recording_stage},
    unfinished::note_abandoned_by,
    workers::Workers,
};

mod again;
mod agree;

/// There is nothing to resume, and a ticket without a receiver that waits for it is of no use.
pub const TICKET_VOID: &str =
    "No sender had begun, and the ticket is void. Start the receiver again and use the ticket that it prints.";

/// How long a receiver that was started again waits for its sender at least: a person starts one
/// side after the other.
const START_GRACE: Duration = Duration::from_secs(15 * 60);

/// What a transfer over a link runs with, besides what every load does.
#[derive(Clone, Copy)]
pub struct Terms<'a> {
    /// Memory for bytes in flight.
    pub memory: u64,
    /// How long the load waits for a lost connection to come back.
    pub grace: Duration,
    /// What a journal may take on the disk; 0 for none.
    pub journal_bytes_max: u64,
    /// What the sender brings.
    pub activity: &'a Activity,
}

/// One transfer on its way.
pub struct Receiving<'a> {
    runner: Runner<'a, Kept>,
    terms: Terms<'a>,
    permit: Permit,
    /// An earlier process had loaded something, nothing of which is there; until the sender knows.
    is_lost: bool,
    /// How long the next sender is waited for.
    patience: Duration,
    /// Loaded and proven; published under its final name.
    finished: Option<Finished>,
    workers: Workers,
    budget: Budget,
    /// The sender that has abandoned the transfer, and waits for what becomes of it.
    withdrawal: Cell<Option<Link>>,
}

/// How a connection ended that did its part.
enum Conversed {
    /// The sender has the receipt.
    Delivered,
    /// The load is there, and the sender may not know it.
    Undelivered,
}

/// Runs a transfer from where its record says it is to its end: with a receipt, with something to
/// go on from, or with nothing left behind. It fails if `beside` ends. Not cancel-safe: dropped, it
/// leaves the transfer as a killed process would.
pub async fn receive<'a>(
    setting: Setting<'a>,
    terms: Terms<'a>,
    record: Kept,
    incoming: &mut mpsc::Receiver<Incoming>,
    stop: &Stop,
    beside: impl Future<Output = Failure>,
) -> Outcome<Finished> {
    let transfer = record.transfer();
    let mut receiving = match Receiving::resume(setting, terms, record, stop).await {
        Ok(receiving) => receiving,
        Err(failure) => {
            let outcome = Err(failure);
            note_end(setting.audit, transfer, &outcome)?;
            return outcome;
        }
    };
    let outcome = tokio::select! {
        outcome = receiving.run(incoming) => outcome,
        failure = beside => Err(failure),
    };
    let outcome = outcome.map_err(|failure| match (failure.code, receiving.stage()) {
        (Code::UserInterrupt, Stage::Issued) if receiving.runner.setting.input == Input::Listen => {
            let failure = Failure { hints: TICKET_VOID.into(), ..failure };
            receiving.runner.setting.report.tell(failure)
        }
        _ => receiving.runner.tell(failure),
    });
    receiving.end(outcome).await
}

impl<'a> Receiving<'a> {
    /// Resumes a transfer where its record says it is, unless the transfer has to end. What was
    /// proven is published all the same: no message may say then that nothing is there.
    async fn resume(setting: Setting<'a>, terms: Terms<'a>, record: Kept, stop: &Stop) -> Outcome<Self> {
        match disposition(record.stage(), Event::Opened) {
            Disposition::Publish => Self::new(setting, terms, record, stop).await,
            _ => stop.or(Self::new(setting, terms, record, stop)).await,
        }
    }

    /// Opens the target, and what an earlier process left. Not cancel-safe: a step of the target
    /// that was started ends in its thread.
    async fn new(setting: Setting<'a>, terms: Terms<'a>, record: Kept, stop: &Stop) -> Outcome<Self> {
        setting.report.keep_progress_in(&record.dir.progress_file());
        let permit = record.permit();
        stop.under(&permit);
        let runner = Runner::new(setting, record.transfer(), record, stop);
        let budget = Budget::new(terms.memory);
        let patience = match (setting.input, runner.record.stage()) {
            // The grant says for how long.
            (Input::Listen, Stage::Issued) => Duration::MAX,
            (Input::Listen, _) => terms.grace.max(START_GRACE),
            _ => terms.grace,
        };
        let mut receiving = Self {
            runner,
            terms,
            permit,
            is_lost: false,
            patience,
            finished: None,
            workers: Workers::default(),
            budget,
            withdrawal: Cell::default(),
        };
        match disposition(receiving.stage(), Event::Opened) {
            Disposition::Publish => receiving.publish_again().await?,
            Disposition::AwaitOffer | Disposition::SendStatement => {}
            Disposition::Load => receiving.load_again().await?,
            _ => return Err(found_in_doubt(receiving.runner.setting.report, receiving.runner.transfer)),
        }
        Ok(receiving)
    }

    /// Resumes what an earlier process had begun to load.
    async fn load_again(&mut self) -> Outcome {
        let transfer = self.runner.record.state_machine()?;
        let opened = self.open_load(transfer, Asks::Continue).await;
        let load = opened.map_err(|failure| self.runner.note_doubt(failure))?;
        self.is_lost = self.stage() == Stage::Loading && !load.transfer().has_anything();
        self.runner.load = Some(load);
        Ok(())
    }

    fn stage(&self) -> Stage {
        self.runner.record.stage()
    }

    /// Runs it to its end, and says in time how little of that is left. Not cancel-safe, as
    /// [`receive`] is not.
    async fn run(&mut self, incoming: &mut mpsc::Receiver<Incoming>) -> Outcome<Finished> {
        let permit = self.permit.clone();
        let report = self.runner.setting.report;
        tokio::select! {
            outcome = self.connections(incoming) => outcome,
            never = permit.warn(|left| report.time_left(left)) => match never {},
        }
    }

    /// Not cancel-safe, as [`receive`] is not.
    async fn connections(&mut self, incoming: &mut mpsc::Receiver<Incoming>) -> Outcome<Finished> {
        loop {
            let offered = match self.wait(incoming).await.map_err(|failure| self.runner.stop.or_failure(failure))? {
                Some(offered) => *offered,
                // No sender came for the receipt. The load is there all the same.
                None => return self.finished(),
            };
            let ended = self.connection(offered, incoming).await;
            let failure = match ended {
                Ok(Conversed::Delivered) => return self.finished(),
                Ok(Conversed::Undelivered) if self.is_withdrawn() => return self.finished(),
                Ok(Conversed::Undelivered) => continue,
                Err(failure) => failure,
            };
            match self.runner.disposition(&failure) {
                Then::Finish => return self.finished(),
                Then::Wait if self.stage().shows_nothing() => {
                    if self.terms.grace.is_zero() || self.runner.stop.raised().is_some() {
                        return Err(self.runner.stop.or_failure(failure));
                    }
                    self.report_waiting(&failure);
                }
                Then::Wait => {}
                Then::Suspend | Then::Drop => return Err(self.runner.stop.or_failure(failure)),
            }
            self.runner.during = While::Waiting;
        }
    }

    fn finished(&mut self) -> Outcome<Finished> {
        self.finished.take().ok_or_else(|| failed("no receipt"))
    }

    /// The transfer is over, or can go on later. A sender that has abandoned it is told when that
    /// is done.
    async fn end(self, outcome: Outcome<Finished>) -> Outcome<Finished> {
        let Runner { transfer, setting: Setting { audit, .. }, .. } = self.runner;
        let withdrawal = self.withdrawal.take();
        if let (Some(link), Err(Failure { code: Code::Abandoned, .. })) = (&withdrawal, &outcome) {
            note_abandoned_by(audit, transfer, Fingerprint::of(&link.peer))?;
        }
        let outcome = self.runner.end(outcome).await;
        if let Some(link) = withdrawal {
            link.leave_with(outcome.as_ref().map_or_else(|failure| failure.code, |_| Code::Done)).await;
        }
        outcome
    }

    fn is_withdrawn(&self) -> bool {
        let link = self.withdrawal.take();
        let is_withdrawn = link.is_some();
        self.withdrawal.set(link);
        is_withdrawn
    }

    fn report_waiting(&self, failure: &Failure) {
        let report = self.runner.setting.report;
        report.lost();
        report.event("link_down", &[("reason", json!(failure.code.as_str()))]);
        let grace = human_duration(self.terms.grace);
        report.say(&format!("receiver: {}; keeping the load for the sender to come back, for {grace}.", failure.what));
    }

    /// Waits for the sender: for its first offer as long as the grant lasts, later as long as the
    /// load is kept for it. `None` when the load is there and no sender came for the receipt.
    async fn wait(&self, incoming: &mut mpsc::Receiver<Incoming>) -> Outcome<Option<Box<Offered>>> {
        let watching = async {
            match &self.runner.load {
                Some(load) if self.finished.is_none() => load.watch(self.runner.setting.report).await,
                _ => std::future::pending().await,
            }
        };
        let shown = self.finished.is_some();
        tokio::select! {
            offered = self.next_offer(incoming) => match offered {
                Err(failure) if shown && failure.code == Code::Abandoned => Ok(None),
                offered => offered.map(Some),
            },
            failure = watching => Err(failure),
            raised = self.runner.stop.requested() => match (shown, raised) {
                (false, Raised { failure, .. }) => Err(failure),
                (true, Raised { cause: Cause::Expired | Cause::Revoked, .. }) => Ok(None),
                (true, _) => self.not_fetched(),
            },
            () = tokio::time::sleep(self.patience) => match shown {
                true => self.not_fetched(),
                false => Err(self.runner.stop.or_failure(Failure::new(
                    Code::Interrupted,
                    "the sender did not come back",
                    Hint::StartAgain(Restart::Resumes),
                ))),
            },
        }
    }

    /// The load is there, and its sender did not come for the receipt. A standing receiver will be
    /// there when it does.
    fn not_fetched(&self) -> Outcome<Option<Box<Offered>>> {
        if self.runner.setting.input != Input::Serve {
            return Ok(None);
        }
        let what = "the load is there, and its sender has not fetched the receipt";
        Err(Failure::new(Code::Interrupted, what, "No action needed: the receipt is kept for it."))
    }

    /// Cancel-safe.
    async fn next_offer(&self, incoming: &mut mpsc::Receiver<Incoming>) -> Outcome<Box<Offered>> {
        loop {
            match incoming.recv().await {
                Some(Incoming::Offer(offered)) => return Ok(offered),
                Some(Incoming::Withdrawal(withdrawal)) if withdrawal.is_final() || self.stage() == Stage::Issued => {
                    return Err(self.withdraw(*withdrawal));
                }
                // Only the sender that began the transfer can abandon it.
                Some(Incoming::Withdrawal(_)) => {}
                None => return Err(failed("the endpoint was closed")),
            }
        }
    }

    fn withdraw(&self, withdrawal: Withdrawal) -> Failure {
        self.withdrawal.set(Some(withdrawal.link));
        match self.stage() {
            Stage::StatedLoaded => stated_loaded("the sender has abandoned a load that is stated to be in the target"),
            _ => withdrawal.failure,
        }
    }

    async fn connection(&mut self, offered: Offered, incoming: &mut mpsc::Receiver<Incoming>) -> Outcome<Conversed> {
        let stop = self.runner.stop.clone();
        let mut outside = Outside::new(&stop, Some(incoming));
        self.patience = self.terms.grace;
        self.runner.during = While::Exchange;
        if disposition(self.stage(), Event::Opened) == Disposition::SendStatement {
            let told = outside.unless(self.send_statement(offered)).await;
            self.withdrawal.set(outside.withdrawal);
            return told;
        }
        let Offered { link, slot, deciding, mut writer, mut control } = offered;
        slot.accept();
        let received = outside.unless(self.converse(&link, deciding, &mut writer, &mut control)).await;
        // From here on it is the sender that waits.
        let _at_work = self.terms.activity.at_work();
        let proven = match received {
            Ok(Some(session)) => {
                let came = Came { link: Some(link.evidence()), started_ms: self.runner.record.kept.started_ms };
                self.runner.prove_and_sign(&session, came, &mut outside).await.map(Some)
            }
            Ok(None) => Ok(None),
            Err(failure) => Err(self.runner.note_doubt(failure)),
        };
        if proven.is_err() {
            self.runner.interrupt();
        }
        // What was proven is published, whatever would stop it now.
        let published = match proven {
            Ok(Some(receipt)) => self.runner.publish(receipt).await.map(|finished| self.finished = Some(finished)),
            Ok(None) => Ok(()),
            Err(failure) => Err(failure),
        };
        let outcome = match published {
            Ok(()) => self.deliver(&mut writer, &mut control, &mut outside).await,
            Err(failure) => Err(failure),
        };
        match &outcome {
            Ok(Conversed::Delivered) => {
                fail_point::hit(Point::ReceiptFetched);
                writer.finish().await;
                link.leave().await;
            }
            Ok(Conversed::Undelivered) => link.close(Code::Interrupted),
            Err(failure) => writer.refuse(&link, failure).await,
        }
        self.withdrawal.set(outside.withdrawal);
        outcome
    }

    /// Takes all that is missing. `None` where it was proven over an earlier connection. Not
    /// cancel-safe: messages may have been sent or received in part. The connection ends with it.
    async fn converse(
        &mut self,
        link: &Link,
        deciding: Deciding,
        writer: &mut ControlWriter,
        control: &mut ControlReader,
    ) -> Outcome<Option<ReceiverSession>> {
        let session = self.negotiate(deciding, link, writer, control).await?;
        link.open_data(session.window().bytes());
        self.runner.during = While::Data;
        let Self { terms, workers, budget, runner, .. } = self;
        let Runner { record, load, setting, .. } = runner;
        let load = load.as_ref().ok_or_else(|| failed("no load"))?;
        let pipeline = Pipeline::new(link, setting.report, load, workers, budget, session, terms.activity);
        recording_stage(record, load, pipeline.run(writer, control)).await?;
        let session = pipeline.into_session();
        match &self.finished {
            Some(finished) if load.transfer().manifest() == Some(&finished.receipt.receipt.manifest) => Ok(None),
            Some(_) => Err(Error::new(Code::ManifestMismatch, "another manifest than was loaded").into()),
            None => Ok(Some(session)),
        }
    }

    /// The load is there, whether or not the sender gets its receipt. Takes [`MESSAGE_TIMEOUT`] or
    /// so at most, and is not stopped before: the sender would not know.
    async fn deliver(
        &self,
        writer: &mut ControlWriter,
        control: &mut ControlReader,
        outside: &mut Outside<'_>,
    ) -> Outcome<Conversed> {
        if outside.withdrawal.is_some() {
            // The sender has abandoned the transfer while the load ended, and learns by that link
            // that it is there.
            return Ok(Conversed::Undelivered);
        }
        tokio::select! {
            biased;
            delivered = self.deliver_receipt(writer, control) => delivered,
            never = outside.listen() => match never {},
        }
    }

    /// Not cancel-safe: the receipt may have been sent in part.
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
