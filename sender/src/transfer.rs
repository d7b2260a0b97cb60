//! One transfer at its sender, over all its connections: opens the source, connects, and goes on
//! after whatever happens until the receipt is here, the grant has ended, or nothing can help.

mod connections;
mod opening;

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use sealift_agent::{
    audit::{
        AuditLog,
        entry::{Entry, Name, Purpose},
    },
    credentials::Credentials,
    failure::{Failure, Outcome},
    identity::Identity,
    permit::Permit,
    report::{Finished, Report, Resume},
    state::StateDir,
    stop::{Cause, Stop},
    ticket::Ticket,
};
use sealift_engine_api::{Endpoint, SourceOptions};
use sealift_protocol::{
    close::Code,
    disposition::{
        Asks, RaisedBy,
        sender::{
            Attempt, During, Failed, Replay, SenderDisposition, SenderStage, Sends, Standing, sender_disposition,
        },
    },
    hint::{Hints, Restart},
    manifest::ReceiverTrust,
};

/// For a receiver to authenticate a sender that it does not know yet. A crowded one closes the
/// oldest of those that are not authenticated.
const HEARD_WITHIN: Duration = Duration::from_secs(10);

pub use self::{
    connections::{connect_with, proof_of},
    opening::origin,
};
use crate::{cli::PushArgs, outage::Outage, record::Record, snapshot_watch::SnapshotWatch, spool::Spool};

/// Where the transfer goes.
pub struct Destination<'a> {
    pub ticket: &'a Ticket,
    /// What stands behind the receiver's key.
    pub trust: ReceiverTrust,
    /// What each connection shows.
    pub credentials: &'a Credentials,
}

/// Everything that running the one transfer needs.
pub struct Sending<'a> {
    args: &'a PushArgs,
    report: &'a Report,
    endpoint: &'a dyn Endpoint,
    /// How the source is read.
    options: SourceOptions,
    audit: &'a AuditLog,
    state: &'a StateDir,
    ticket: &'a Ticket,
    credentials: &'a Credentials,
    identity: &'a Arc<Identity>,
    permit: Permit,
    record: Record,
    /// What stands behind the receiver's key.
    trust: ReceiverTrust,
    /// Ends the reading of the source, and what that has running.
    reading: Option<Stop>,
    /// As this process found it. From [`SenderStage::AllSent`] on, the load may be in the target.
    found: SenderStage,
    attempt: Attempt,
    /// When this process first tried to connect.
    began: Instant,
    outage: Outage,
    /// What this process sends from, if it spools.
    spool: Option<Rc<Spool>>,
    snapshot: SnapshotWatch,
}

impl<'a> Sending<'a> {
    #[expect(clippy::too_many_arguments, reason = "each is one thing that the transfer runs with")]
    pub fn new(
        args: &'a PushArgs,
        endpoint: &'a dyn Endpoint,
        options: SourceOptions,
        report: &'a Report,
        audit: &'a AuditLog,
        state: &'a StateDir,
        to: Destination<'a>,
        identity: &'a Arc<Identity>,
        record: Record,
    ) -> Self {
        let Destination { ticket, trust, credentials } = to;
        let found = record.stage();
        let asks = if args.restart { Asks::StartOver } else { Asks::Continue };
        Self {
            args,
            endpoint,
            options,
            report,
            audit,
            state,
            ticket,
            credentials,
            identity,
            permit: Permit::of(&ticket.grant.grant, record.is_begun()),
            record,
            trust,
            reading: None,
            found,
            attempt: Attempt::new(found, endpoint.replay(), asks),
            began: Instant::now(),
            outage: Outage::default(),
            spool: None,
            snapshot: SnapshotWatch::default(),
        }
    }

    /// How old the snapshot of the source is.
    pub fn snapshot(&self) -> SnapshotWatch {
        self.snapshot.clone()
    }

    /// What the transfer may still do.
    pub fn permit(&self) -> Permit {
        self.permit.clone()
    }

    /// Runs it to its receipt. Not cancel-safe: dropped, it leaves the transfer as a killed process
    /// would.
    pub async fn run(&mut self, stop: &Stop) -> Outcome<Finished> {
        let grant = &self.ticket.grant.grant;
        self.report.keep_progress_in(&self.record.progress_file());
        let entry = Entry::SendBegin {
            receiver: grant.receiver,
            receiver_trust: self.trust,
            source: Name::new(self.endpoint.shown()),
            engine: self.endpoint.engine(self.args.form.of_engine()),
            target: Name::new(&grant.target),
            purpose: Purpose::new(&grant.purpose),
        };
        self.audit.append(Some(grant.transfer), &entry)?;
        // An earlier process got the receipt, whether or not it was killed before it had cleaned
        // up.
        if let Some((receipt, receipt_path)) = self.state.receipt(grant.transfer) {
            self.report.say("sender: the transfer of this ticket was done before; nothing is sent again.");
            return Ok(Finished { receipt, receipt_path });
        }
        let mut outgoing = self.resume_or_open(stop).await?;
        loop {
            let failure = match self.connections(&outgoing, stop).await {
                Ok(finished) => return Ok(finished),
                Err(failure) => failure,
            };
            match self.disposition(&failure) {
                SenderDisposition::ReadSource => {}
                SenderDisposition::RunAgain => self.run_again(failure.code),
                _ => return Err(self.without_going_on(failure)),
            }
            outgoing = self.open(stop).await?;
        }
    }

    /// What is done about a failure of this transfer, by the one table.
    fn disposition(&self, failure: &Failure) -> SenderDisposition {
        let during = match self.attempt.during() {
            During::Exchange if self.began.elapsed() < HEARD_WITHIN => During::Arrival,
            during => during,
        };
        let failed = Failed { code: failure.code, raised_by: failure.raised_by, during };
        sender_disposition(self.standing(), failed)
    }

    fn standing(&self) -> Standing {
        let sends = match &self.spool {
            Some(spool) if spool.is_whole() => Sends::Spool,
            Some(_) => Sends::Source,
            // One that this process has not looked into.
            None if self.record.spool().is_some() => Sends::Spool,
            None => self.attempt.sends(),
        };
        Standing { sends, ..self.attempt.standing(self.record.stage()) }
    }

    /// What a program prints when it is run again, and what a database holds now, is of another
    /// moment: the receiver is to drop what it has.
    fn run_again(&mut self, code: Code) {
        self.end_reading();
        let reason = match self.attempt.sends() {
            _ if code == Code::SourceChanged => {
                "the source has changed since it was read, and its earlier state is gone; it is read again."
            }
            _ if self.endpoint.replay() == Replay::WhileSnapshotHeld => {
                "the receiver lost what it had; the source is read again."
            }
            Sends::Spool => "the receiver has lost the key to what was spooled. The program is run again.",
            _ => "the receiver lost what it had, and a program's output cannot be read twice; it is run again.",
        };
        self.attempt.handle_run_again();
        self.report.resume(Resume::Restarted, reason);
    }

    /// Adds why the transfer cannot be resumed, if that is what ended it.
    fn without_going_on(&self, failure: Failure) -> Failure {
        match (failure.code, self.attempt.sends()) {
            (Code::ResumeImpossible, Sends::Spool) => {
                let reason = "the receiver has lost the key to what was spooled.";
                self.report.resume(Resume::Impossible, reason);
                let hint = "The spool cannot be opened any more. Bring all of the source again, and type --restart.";
                Failure { what: format!("{}: {reason}", failure.what), hints: hint.into(), ..failure }
            }
            (Code::ResumeImpossible | Code::SourceChanged, _) => {
                self.report.resume(Resume::Impossible, &failure.what);
                failure
            }
            _ => failure,
        }
    }

    /// What a person reads about a failure, given the source and how far the transfer has come.
    pub fn advise(&self, failure: Failure) -> Failure {
        let failure = self.with_source(self.with_what_is_kept(failure));
        // From Finish on, the receiver may load and publish; and a loader that ended early may have
        // committed a part.
        match SenderStage::AllSent {
            all_sent if self.found == all_sent || self.record.stage() == all_sent => failure,
            _ if self.record.of_transfer().is_in_doubt() => failure,
            _ => failure.while_nothing_is_visible(),
        }
    }

    /// What to do next is another thing where this process's end takes the source with it.
    fn with_source(&self, mut failure: Failure) -> Failure {
        let Standing { sends, replay, .. } = self.standing();
        failure.hints.set_restart(match replay {
            _ if sends == Sends::Spool => Restart::Resumes,
            Replay::Always => Restart::Resumes,
            Replay::WhileSnapshotHeld => match self.record.snapshot() {
                Some(held) if held.ends_within_seconds > 0 => {
                    Restart::SnapshotHeld { seconds: held.ends_within_seconds }
                }
                _ => Restart::ReadsLater,
            },
            Replay::RunAgain => Restart::RunsProgram,
            Replay::Never => Restart::NeedsSource,
        });
        failure
    }

    /// A receiver that refuses a transfer that had begun does not end it: says what is kept
    /// here, and what removes it.
    fn with_what_is_kept(&self, failure: Failure) -> Failure {
        let is_refusal = failure.raised_by == RaisedBy::Peer && !failure.code.keeps_transfer();
        if !is_refusal || self.disposition(&failure) != SenderDisposition::Suspend {
            return failure;
        }
        let transfer = self.ticket.grant.grant.transfer;
        let kept = match self.standing().sends {
            Sends::Spool => "its record and the spool, which holds all of the source",
            _ => "its record",
        };
        let mut hints = match failure.code {
            Code::TicketUnknown => Hints::from(
                "If the receiver is restored from a backup, or makes a new ticket for this transfer, the same command \
                 with that ticket continues it: on the target host, `sealift-receiver status` lists what can be continued.",
            ),
            _ => failure.hints,
        };
        hints.lead_with(format!("The transfer is suspended, and this sender keeps {kept}."));
        hints.push(format!("To end it here for good: sealift-sender abandon {transfer}"));
        Failure { hints, ..failure }
    }

    /// The transfer is over, or can go on later.
    pub fn end<T>(mut self, outcome: &Outcome<T>) -> Outcome {
        let done = match outcome {
            Ok(_) => SenderDisposition::Drop,
            Err(failure) => {
                self.end_reading();
                self.disposition(failure)
            }
        };
        if done != SenderDisposition::Drop {
            // What was spooled of a source that had not ended is of no use.
            return match self.spool.as_ref().is_some_and(|spool| !spool.is_whole()) {
                true => self.drop_spool(),
                false => Ok(()),
            };
        }
        self.drop_spool()?;
        self.record.destroy()
    }

    /// Nothing more is read of the source, and its program is killed.
    fn end_reading(&self) {
        self.snapshot.follow(None);
        if let Some(reading) = &self.reading {
            reading.raise(Cause::Closed, Failure::new(Code::Interrupted, "the source is read no more", ""));
        }
    }
}
