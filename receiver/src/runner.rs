//! How a load runs from its last chunk to its end, whatever it comes from: `listen`, `serve` and
//! `load` are three inputs of this. It is proven, its receipt is signed and published, or what is
//! left of it is kept or removed as [`sealift_protocol::disposition`] says.

use std::{convert::Infallible, sync::Arc};

use sealift_agent::{
    audit::{AuditLog, entry::Entry},
    clock::now_ms,
    failure::{Failure, Outcome, explain},
    host,
    identity::Identity,
    link::Link,
    report::{Finished, Report},
    state::StateDir,
    stop::{Cause, Stop},
    transfer_dir::TransferDir,
};
use sealift_engine_api::{Commit, Engines, Target};
use sealift_protocol::{
    close::Code,
    disposition::{
        Disposition, Event, RaisedBy, Stage, disposition,
        receiver::{Input, Interruption, Loading, Then, While, receiver_disposition},
    },
    error::Error,
    id::TransferId,
    manifest::{LinkEvidence, Plan, SignedReceipt},
    receive::{ReceiptFacts, ReceiverSession},
};
use tokio::sync::mpsc;

use crate::{
    ending::{KeepsEnding, Publishing, await_loader, in_doubt, prove, with_staged},
    held::{Held, LetGo},
    load::Load,
    reception::{Incoming, refuse_others},
};

/// What a load runs with.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    pub report: &'a Report,
    pub audit: &'a AuditLog,
    pub state: &'a StateDir,
    pub identity: &'a Identity,
    pub input: Input,
    /// Opens the target.
    pub open_target: &'a dyn Fn() -> Outcome<Arc<dyn Target>>,
    pub engines: Engines,
}

/// What is kept of an unfinished load, by its input.
pub trait LoadRecord: KeepsEnding {
    /// Whether a later process would find something of the load in its target.
    fn finds_again(&self, load: &Load) -> bool;

    /// URL of the target.
    fn target(&self) -> &str;

    /// The folder, to be removed with all that is in it.
    fn into_dir(self) -> TransferDir;
}

/// One load on its way into its target.
pub struct Runner<'a, R> {
    pub setting: Setting<'a>,
    pub transfer: TransferId,
    pub record: R,
    pub load: Option<Load>,
    /// What it is at, for what becomes of it if that fails.
    pub during: While,
    /// What ends it from outside.
    pub stop: Stop,
}

/// What the receipt says of how the load came here.
pub struct Came {
    /// None where there was no connection.
    pub link: Option<LinkEvidence>,
    pub started_ms: u64,
}

impl<'a, R: LoadRecord> Runner<'a, R> {
    pub fn new(setting: Setting<'a>, transfer: TransferId, record: R, stop: &Stop) -> Self {
        Self { setting, transfer, record, load: None, during: While::Waiting, stop: stop.clone() }
    }

    pub fn load(&self) -> Outcome<&Load> {
        self.load.as_ref().ok_or_else(|| failed("no load"))
    }

    /// What is done about a failure, by the one table.
    pub fn disposition(&self, failure: &Failure) -> Then {
        let Failure { code, raised_by, .. } = *failure;
        let input = self.setting.input;
        let stage = self.record.stage();
        let why = Interruption { code, raised_by, during: self.during };
        receiver_disposition(Loading { input, stage }, why)
    }

    /// A loader that ended early, by itself and with exit code 0, may have committed what it had
    /// read: the next process is not to feed another.
    pub fn note_doubt(&mut self, failure: Failure) -> Failure {
        let asks = disposition(self.record.stage(), Event::LoaderUnknown) == Disposition::AskOperator;
        if failure.code != Code::InDoubt || failure.raised_by.is_peer() || !asks {
            return failure;
        }
        match self.record.advance(Stage::InDoubt) {
            Ok(()) => in_doubt(self.setting.report, self.transfer, failure),
            Err(failure) => failure,
        }
    }

    /// Ends the load, proves it from the target, and signs what was found.
    pub async fn prove_and_sign(
        &mut self,
        session: &ReceiverSession,
        came: Came,
        outside: &mut Outside<'_>,
    ) -> Outcome<SignedReceipt> {
        tracing::info!(transfer = %self.transfer, "everything arrived; proving it from the target");
        let load = self.load.as_ref().ok_or_else(|| failed("no load"))?;
        let commit = load.commit();
        let proving = prove(&mut self.record, load, session.keys().digests().clone());
        let mut seen = Vec::new();
        let proven = match commit {
            Commit::Unobservable => {
                await_loader(self.setting.report, proving, async || outside.next(&mut seen).await).await
            }
            Commit::Observable => outside.unless(proving).await,
        };
        let evidence = proven.map_err(|failure| self.without_proof(failure, outside))?;
        self.load()?.held.findings().iter().for_each(|finding| self.setting.report.finding(finding));
        let facts = ReceiptFacts {
            evidence,
            link: came.link,
            started_ms: came.started_ms,
            finished_ms: now_ms(),
            software: format!("sealift-receiver {}", env!("CARGO_PKG_VERSION")),
            target_host: host::name(),
            target: host::bounded(self.target()),
            audit_head: self.setting.audit.head()?,
        };
        let transfer = self.load()?.transfer();
        let receipt = transfer.receipt(session, facts, self.setting.identity);
        receipt.map_err(|error| with_table(error, transfer.plan()))
    }

    /// What is loaded into, without what may be secret.
    pub fn target(&self) -> String {
        self.setting.engines.shown(self.record.target())
    }

    /// Where the load has to end, so has what the target is busy with, and not after the farewell
    /// to the sender. A loader that may commit is left to itself.
    pub fn interrupt(&self) {
        if let Some(load) = &self.load
            && self.record.stage().shows_nothing()
            && self.stop.raised().is_some()
        {
            load.interrupt();
        }
    }

    /// The load is not proven: it is in doubt, or it failed.
    fn without_proof(&self, failure: Failure, outside: &Outside<'_>) -> Failure {
        let stage = self.record.stage();
        if stage == Stage::InDoubt {
            return in_doubt(self.setting.report, self.transfer, failure);
        }
        // The loader has failed by itself, and the sender had abandoned the transfer meanwhile.
        let abandoned = outside.withdrawal.is_some();
        if abandoned && disposition(stage, Event::AbandonedBySender) == Disposition::Drop {
            let (what, hints) = explain(Code::Abandoned);
            return Failure::new(Code::Abandoned, what, hints);
        }
        failure
    }

    /// Publishes the load. Not cancel-safe: what it begins continues in its thread.
    pub async fn publish(&mut self, receipt: SignedReceipt) -> Outcome<Finished> {
        let load = self.load()?;
        let publishing = self.publishing(Arc::clone(&load.target), Some(load.held.clone()));
        publishing.publish(&mut self.record, receipt).await
    }

    /// The same where an earlier process had signed the receipt: finishes what it began.
    pub async fn publish_kept(&mut self) -> Outcome<Finished> {
        let publishing = self.publishing((self.setting.open_target)()?, None);
        publishing.publish_kept(&mut self.record).await
    }

    fn publishing(&self, target: Arc<dyn Target>, held: Option<Held>) -> Publishing<'a> {
        let Setting { state, audit, input, .. } = self.setting;
        Publishing { state, audit, transfer: self.transfer, target, held, uses_archive: input == Input::Load }
    }

    /// Says what failed, before the clean-up. No message says that nothing is visible once
    /// something may be.
    pub fn tell(&self, failure: Failure) -> Failure {
        let failure = match self.record.stage().shows_nothing() {
            true => failure.while_nothing_is_visible(),
            false => failure,
        };
        self.setting.report.tell(failure)
    }

    /// The load is over, or can go on later: leaves what that needs, and nothing else.
    pub async fn end(self, outcome: Outcome<Finished>) -> Outcome<Finished> {
        let how = match &outcome {
            Err(failure) if self.disposition(failure) != Then::Drop => LetGo::Suspend,
            // What is published stays.
            Ok(_) | Err(_) => LetGo::Abandon,
        };
        let Self { setting, transfer, record, load, .. } = self;
        let target = load.as_ref().map(|load| Arc::clone(&load.target));
        if let Some(load) = load {
            load.close(how).await;
        }
        if how == LetGo::Abandon {
            // A large journal takes a while.
            let dir = record.into_dir();
            let destroyed = tokio::task::spawn_blocking(move || dir.destroy()).await;
            destroyed.map_err(|_| failed("a clean-up ended early"))??;
        }
        let outcome = outcome.map_err(|failure| match target {
            // What stays in the clear is reported.
            Some(target) => with_staged(failure, &*target, transfer),
            None => failure,
        });
        note_end(setting.audit, transfer, &outcome)?;
        outcome
    }
}

/// Runs `work`, which loads, and records that something is in the target as soon as it is. Not
/// cancel-safe if `work` is not.
pub async fn recording_stage<T>(
    record: &mut impl LoadRecord,
    load: &Load,
    work: impl Future<Output = Outcome<T>>,
) -> Outcome<T> {
    let outcome = tokio::select! {
        biased;
        outcome = work => outcome,
        failure = record_stage(record, load) => Err(failure),
    };
    // What came last is recorded before it is decided what becomes of it.
    match (outcome, advance_stage(record, load)) {
        (Ok(_), Err(failure)) => Err(failure),
        (outcome, _) => outcome,
    }
}

/// Returns if the record cannot be kept. Cancel-safe.
async fn record_stage(record: &mut impl LoadRecord, load: &Load) -> Failure {
    loop {
        let notified = load.moved.notified();
        if let Err(failure) = advance_stage(record, load) {
            return failure;
        }
        match record.stage() {
            Stage::Agreed => notified.await,
            _ => std::future::pending().await,
        }
    }
}

fn advance_stage(record: &mut impl LoadRecord, load: &Load) -> Outcome {
    match record.stage() {
        Stage::Agreed if record.finds_again(load) => record.advance(Stage::Loading),
        _ => Ok(()),
    }
}

/// Enters how a transfer ended, for this process.
pub fn note_end(audit: &AuditLog, transfer: TransferId, outcome: &Outcome<Finished>) -> Outcome {
    audit.append(Some(transfer), &Entry::transfer_end(outcome))
}

/// What runs beside a load: its stop, and other connections of the same transfer.
pub struct Outside<'a> {
    stop: &'a Stop,
    incoming: Option<&'a mut mpsc::Receiver<Incoming>>,
    /// The sender that has abandoned the transfer, and waits for what becomes of it.
    pub withdrawal: Option<Link>,
}

impl<'a> Outside<'a> {
    /// `incoming` yields what comes on other connections, if there are any.
    pub fn new(stop: &'a Stop, incoming: Option<&'a mut mpsc::Receiver<Incoming>>) -> Self {
        Self { stop, incoming, withdrawal: None }
    }

    /// Runs `work`, unless something ends it from outside; then writers and provers end as well.
    /// `work` is dropped then.
    pub async fn unless<T>(&mut self, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        let stop = self.stop;
        tokio::select! {
            outcome = stop.or(work) => outcome,
            never = self.listen() => match never {},
        }
    }

    /// What happens next to work that nothing ends; each kind comes once. Cancel-safe as
    /// [`Self::listen`] is.
    async fn next(&mut self, seen: &mut Vec<Cause>) -> Event {
        let stop = self.stop;
        let raised = tokio::select! {
            raised = stop.another(seen) => raised,
            never = self.listen() => match never {},
        };
        seen.push(raised.cause);
        match raised.cause {
            // A receiver has no source that could fail, and a load is closed when nothing waits for
            // it.
            Cause::Shutdown | Cause::Displaced | Cause::Source | Cause::Closed => Event::StopRequested,
            Cause::Peer => Event::AbandonedBySender,
            Cause::Revoked => Event::Revoked,
            Cause::Expired => Event::TimeRanOut,
        }
    }

    /// Refuses other connections, and ends the transfer once its sender has abandoned it on one.
    /// Never returns. Cancel-safe, but for refusals on their way to senders.
    pub async fn listen(&mut self) -> Infallible {
        if let (Some(incoming), None) = (&mut self.incoming, &self.withdrawal)
            && let Ok(by) = refuse_others(incoming).await
        {
            self.withdrawal = Some(by.link);
            self.stop.raise(Cause::Peer, Failure { raised_by: RaisedBy::ThisSide, ..by.failure });
        }
        std::future::pending().await
    }
}

/// A failure of the proof, with the name of the table that differs.
fn with_table(error: Error, plan: &Plan) -> Failure {
    let table = error.part.and_then(|part| plan.table_of(part));
    let mut failure = Failure::from(error);
    if let Some(table) = table {
        failure.what = format!("table {}: {}", table.full_name(), failure.what);
    }
    failure
}

pub fn failed(what: &'static str) -> Failure {
    Failure::new(Code::Internal, what, "")
}
