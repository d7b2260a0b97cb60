//! One transfer at its sender, over all its connections: opens the source, connects, and goes on after whatever happens
//! until the receipt is here, the grant has ended, or nothing can help.

mod connections;
mod opening;

use std::{rc::Rc, sync::Arc};

use sealift_agent::{
    audit::{
        AuditLog,
        entry::{Entry, Name, Purpose},
    },
    expiry::Expiry,
    failure::{BRING_AGAIN, Failure, GO_ON, Outcome, RUN_ANEW},
    identity::Identity,
    location::Location,
    report::{Finished, Report, Resume},
    shutdown::Shutdown,
    state::StateDir,
    ticket::Ticket,
};
use sealift_engine_api::Interrupt;
use sealift_protocol::{close::Code, manifest::ReceiverTrust};

pub use self::{
    connections::{connect_with, proof_of},
    opening::origin,
};
use crate::{cli::PushArgs, outage::Outage, push::can_repeat, record::Record, spool::Spool};

/// Where the transfer goes.
pub struct Destination<'a> {
    pub ticket: &'a Ticket,
    /// What stands behind the receiver's key.
    pub trust: ReceiverTrust,
}

/// Everything that running the one transfer needs.
pub struct Sending<'a> {
    args: &'a PushArgs,
    report: &'a Report,
    audit: &'a AuditLog,
    state: &'a StateDir,
    ticket: &'a Ticket,
    identity: &'a Arc<Identity>,
    expiry: Expiry,
    record: Record,
    /// What stands behind the receiver's key.
    trust: ReceiverTrust,
    /// What the source has running.
    program: Option<Arc<dyn Interrupt>>,
    /// The receiver is asked to drop what it has.
    fresh: bool,
    /// An earlier process had begun it.
    begun_before: bool,
    /// A connection of this process got as far as data.
    connected: bool,
    outage: Outage,
    /// What this process sends from, if it spools.
    spool: Option<Rc<Spool>>,
    /// An earlier process had sent everything: the load may be there, until the receiver says otherwise.
    sent_before: bool,
}

impl<'a> Sending<'a> {
    pub fn new(
        args: &'a PushArgs,
        report: &'a Report,
        audit: &'a AuditLog,
        state: &'a StateDir,
        to: Destination<'a>,
        identity: &'a Arc<Identity>,
        record: Record,
    ) -> Self {
        let Destination { ticket, trust } = to;
        let begun_before = record.is_begun();
        let expiry = Expiry::of(&ticket.grant.grant, begun_before);
        let sent_before = record.sent().is_some();
        Self {
            args,
            report,
            audit,
            state,
            ticket,
            identity,
            expiry,
            record,
            trust,
            program: None,
            fresh: args.restart,
            begun_before,
            connected: false,
            outage: Outage::default(),
            spool: None,
            sent_before,
        }
    }

    /// When the grant ends.
    pub fn expiry(&self) -> Expiry {
        self.expiry.clone()
    }

    /// Runs it to its receipt.
    pub async fn run(&mut self, location: &Location, shutdown: &mut Shutdown) -> Outcome<Finished> {
        let grant = &self.ticket.grant.grant;
        self.report.keep_progress_in(&self.record.progress_file());
        let entry = Entry::SendBegin {
            receiver: grant.receiver,
            receiver_trust: self.trust,
            source: Name::new(Location::name_of(&self.args.source)),
            engine: self.args.form.engine(location),
            target: Name::new(&grant.target),
            purpose: Purpose::new(&grant.purpose),
        };
        self.audit.append(Some(grant.transfer), &entry)?;
        // An earlier process got the receipt, whether or not it was killed before it had cleaned up.
        if let Some((receipt, receipt_path)) = self.state.receipt(grant.transfer) {
            self.report.say("sender: the transfer of this ticket was done before; nothing is sent again.");
            return Ok(Finished { receipt, receipt_path });
        }
        if let Some(outgoing) = self.take_up_spool(shutdown).await? {
            match self.connections(&outgoing, shutdown).await {
                Err(failure) if failure.code == Code::ResumeImpossible => self.give_up_spool(location, failure)?,
                outcome => return outcome,
            }
        } else if let (Some(sent), false) = (self.record.sent().cloned(), self.fresh) {
            match self.fetch_receipt(sent, shutdown).await {
                Err(failure) if failure.code == Code::ResumeImpossible => {}
                outcome => return outcome,
            }
        }
        let mut outgoing = self.open(location, shutdown).await?;
        loop {
            let failure = match self.connections(&outgoing, shutdown).await {
                Ok(finished) => return Ok(finished),
                Err(failure) => failure,
            };
            match (failure.code, location) {
                // A program can be run again, though what it prints is of another moment; a receiver that cannot take even
                // that is not asked once more.
                (Code::ResumeImpossible, Location::Exec(_)) if !self.fresh => {
                    self.kill_program();
                    self.fresh = true;
                    self.report.resume(
                        Resume::Restarted,
                        "the receiver lost what it had, and a program's output cannot be read again; it is run anew.",
                    );
                    outgoing = self.open(location, shutdown).await?;
                }
                (Code::ResumeImpossible | Code::SourceChanged, _) => {
                    self.report.resume(Resume::Impossible, &failure.what);
                    return Err(failure);
                }
                _ => return Err(failure),
            }
        }
    }

    /// What a person reads about a failure, given the source and how far the transfer has come.
    pub fn advise(&self, location: &Location, failure: Failure) -> Failure {
        let failure = self.with_source(location, failure);
        // From Finish on, the receiver may load and publish.
        match self.sent_before || self.record.sent().is_some() {
            true => failure,
            false => failure.while_nothing_is_visible(),
        }
    }

    /// What to do next is another thing where this process's end takes the source with it.
    fn with_source(&self, location: &Location, failure: Failure) -> Failure {
        let Some(rest) = failure.next.strip_prefix(GO_ON) else { return failure };
        let spooled = match &self.spool {
            Some(spool) => spool.is_whole(),
            // One that this process has not looked into.
            None => self.record.spool().is_some(),
        };
        let next = match location {
            _ if spooled || can_repeat(location) => return failure,
            Location::Exec(_) => RUN_ANEW,
            _ => BRING_AGAIN,
        };
        Failure { next: format!("{next}{rest}"), ..failure }
    }

    /// The transfer is over, or can go on later.
    pub fn end<T>(mut self, outcome: &Outcome<T>) -> Outcome {
        if outcome.is_err() {
            self.kill_program();
        }
        if outcome.as_ref().is_err_and(|failure| self.keeps(failure)) {
            // What was spooled of a source that had not ended is of no use to anybody.
            return match self.spool.as_ref().is_some_and(|spool| !spool.is_whole()) {
                true => self.drop_spool(),
                false => Ok(()),
            };
        }
        self.drop_spool()?;
        self.record.destroy()
    }

    /// Whether the transfer can go on after this, or a person decides what becomes of it.
    fn keeps(&self, failure: &Failure) -> bool {
        // Another sender runs it. Whatever else a receiver turned the first attempt down for, it may have noted our secret.
        let is_of_another = failure.told_by_peer && failure.code == Code::TransferBusy;
        let turned_down = is_of_another && !self.begun_before && !self.connected;
        // A spool that is not as it was left: nobody but its owner throws away what is there.
        let spoiled = matches!(failure.code, Code::LogDamaged | Code::LogForeign);
        let own = spoiled && !failure.told_by_peer && !self.connected;
        self.record.is_begun() && (failure.code.keeps_transfer() || own) && !turned_down
    }

    fn kill_program(&self) {
        if let Some(program) = &self.program {
            program.interrupt();
        }
    }
}
