//! One transfer at its sender, over all its connections: opens the source, connects, and goes on after whatever happens
//! until the receipt is here, the grant has ended, or nothing can help.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

use sealift_agent::{
    audit::AuditLog,
    backoff::Backoff,
    clock::now_seconds,
    endpoint::{bind, client_config},
    expiry::Expiry,
    fail_point::{self, Point},
    failure::{Failure, Outcome, explain},
    identity::Identity,
    link::{Link, connect, open_control},
    location::Location,
    program::Program,
    report::{Finished, Report, Resume},
    shutdown::Shutdown,
    state::StateDir,
    ticket::Ticket,
    trust::Trust,
    units::human_duration,
};
use sealift_protocol::{close::Code, manifest::Plan, message::Have, send::Transfer};
use serde_json::json;

use crate::{
    cli::PushArgs,
    lane::Sealer,
    outgoing::Outgoing,
    pipeline::{Pipeline, negotiate},
    reader::Reader,
    record::{Record, Sent},
    source,
    workers::Workers,
};

/// For the last packets of a connection to leave.
const FAREWELL: Duration = Duration::from_secs(3);

/// Everything that running the one transfer needs.
pub struct Sending<'a> {
    args: &'a PushArgs,
    report: &'a Report,
    audit: &'a AuditLog,
    state: &'a StateDir,
    ticket: &'a Ticket,
    identity: &'a Identity,
    expiry: Expiry,
    record: Record,
    program: Option<Arc<Program>>,
    /// The receiver is asked to drop what it has.
    fresh: bool,
    /// An earlier process had begun it.
    begun_before: bool,
    /// A connection of this process got as far as data.
    connected: bool,
    /// Since when there is no connection, if there was one.
    link_down: Option<Instant>,
    backoff: Backoff,
}

impl<'a> Sending<'a> {
    pub fn new(
        args: &'a PushArgs,
        report: &'a Report,
        audit: &'a AuditLog,
        state: &'a StateDir,
        ticket: &'a Ticket,
        identity: &'a Identity,
        record: Record,
    ) -> Self {
        let expiry = Expiry::of(&ticket.grant.grant);
        let begun_before = record.is_begun();
        Self {
            args,
            report,
            audit,
            state,
            ticket,
            identity,
            expiry,
            record,
            program: None,
            fresh: args.restart,
            begun_before,
            connected: false,
            link_down: None,
            backoff: Backoff::default(),
        }
    }

    /// Runs it to its receipt.
    pub async fn run(&mut self, location: &Location, shutdown: &mut Shutdown) -> Outcome<Finished> {
        let grant = &self.ticket.grant.grant;
        self.audit.append(
            "transfer.begin",
            Some(grant.transfer),
            &[("receiver", json!(grant.receiver)), ("target", json!(grant.target)), ("purpose", json!(grant.purpose))],
        )?;
        // An earlier process got the receipt, whether or not it was killed before it had cleaned up.
        if let Some((receipt, receipt_path)) = self.state.receipt(grant.transfer) {
            self.report.say("sender: the transfer of this ticket was done before; nothing is sent again.");
            return Ok(Finished { receipt, receipt_path });
        }
        if let (Some(sent), false) = (self.record.sent().cloned(), self.fresh) {
            let outcome = self.fetch_receipt(sent, shutdown).await;
            if !matches!(&outcome, Err(failure) if failure.code == Code::ResumeImpossible) {
                return outcome;
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

    /// The transfer is over, or can go on later.
    pub fn end<T>(self, outcome: &Outcome<T>) -> Outcome {
        self.kill_program();
        // A receiver that turned the first attempt down has nothing of it.
        let turned_down = |failure: &Failure| failure.told_by_peer && !self.begun_before && !self.connected;
        match outcome {
            Err(failure) if failure.code.keeps_transfer() && self.record.is_begun() && !turned_down(failure) => Ok(()),
            _ => self.record.destroy(),
        }
    }

    fn kill_program(&self) {
        if let Some(program) = &self.program {
            program.kill();
        }
    }

    /// All of it was sent by an earlier process: if the receiver has it, only the receipt is missing (fault-matrix N12).
    async fn fetch_receipt(&mut self, sent: Sent, shutdown: &mut Shutdown) -> Outcome<Finished> {
        announce(self.report, &sent.plan);
        let mut transfer = self.transfer(sent.plan)?;
        transfer.handle_earlier(sent.manifest);
        let outgoing = Outgoing::new(transfer, None, Sealer::new(Workers::new(self.args.compression)));
        self.connections(&outgoing, shutdown).await
    }

    /// Opens the source, and begins with it or goes on with what an earlier process began.
    async fn open(&mut self, location: &Location, shutdown: &mut Shutdown) -> Outcome<Outgoing> {
        let show_output = self.args.transfer.danger_show_program_output;
        let planned = async {
            let opened = source::open(location, show_output)?;
            self.program = opened.program;
            Reader::start(opened.source, self.args.transfer.row_bytes_max as usize).await
        };
        match shutdown.or(planned).await {
            Ok((reader, plan)) => {
                announce(self.report, &plan);
                if !reader.can_repeat() {
                    self.judge_pipe();
                }
                if self.args.restart && self.begun_before && !self.connected {
                    self.report.resume(Resume::Restarted, "--restart was given; what the receiver had is dropped.");
                }
                self.record.keep_sent(None)?;
                let transfer = self.transfer(plan)?;
                Ok(Outgoing::new(transfer, Some(reader), Sealer::new(Workers::new(self.args.compression))))
            }
            Err(failure) => {
                // In the one-line form nobody could use the ticket again: the receiver need not wait for it to expire.
                if self.args.ticket == "-" && !self.connected {
                    let _ = shutdown.or(self.call_off(&failure)).await;
                }
                Err(failure)
            }
        }
    }

    /// What is read once cannot be gone on with by another process.
    fn judge_pipe(&mut self) {
        if !self.begun_before && !self.connected {
            let what = "the source can be read once: if this sender is killed, the transfer starts over. If only the link \
                        is lost, it goes on.";
            self.report.event("notice", &[("what", json!(what))]);
            self.report.say(&format!("sender: {what}"));
        } else if !self.connected && !self.fresh {
            self.fresh = true;
            self.report
                .resume(Resume::Restarted, "the earlier sender was killed, and its source can be read only once.");
        }
    }

    fn transfer(&self, plan: Plan) -> Outcome<Transfer> {
        let suites = self.args.transfer.suite.suites();
        Ok(Transfer::new(suites, self.ticket.grant.clone(), plan, self.record.digest_secret())?)
    }

    /// Tells the receiver that there will be no transfer.
    async fn call_off(&self, failure: &Failure) -> Outcome {
        let (endpoint, link) = self.connect().await?;
        let (writer, _control) = open_control(&link).await?;
        link.refuse(writer, failure).await;
        endpoint.wait_idle().await;
        Ok(())
    }

    async fn connect(&self) -> Outcome<(quinn::Endpoint, Link)> {
        // The clock may have been set since the last time; certificates would fail by it, and could not say so.
        self.ticket.grant.grant.check_time(now_seconds())?;
        connect_with(self.ticket, self.identity).await
    }

    /// One connection after another, until one ends with the receipt or with what no other would change.
    async fn connections(&mut self, outgoing: &Outgoing, shutdown: &mut Shutdown) -> Outcome<Finished> {
        loop {
            let failure = match self.connection(outgoing, shutdown).await {
                Ok(finished) => return Ok(finished),
                Err(failure) => failure,
            };
            // From Begin on the receiver may have the transfer; one that turned it down would do so again.
            let agreed = self.record.is_begun() && !failure.told_by_peer;
            let had_one = self.connected || self.begun_before || agreed;
            if !had_one || !failure.code.retry_may_help() || failure.stopped_by_person {
                return Err(self.unsure(outgoing, failure));
            }
            let down = *self.link_down.get_or_insert_with(Instant::now);
            let limit = self.args.retry_for.map_or(self.expiry.left(), |limit| limit.saturating_sub(down.elapsed()));
            if limit.is_zero() {
                return Err(self.unsure(outgoing, interrupted(failure)));
            }
            let waited = self.wait_to_retry(&failure, limit, shutdown).await;
            waited.map_err(|failure| self.unsure(outgoing, failure))?;
        }
    }

    /// Says what is wrong, once an outage, and waits a little.
    async fn wait_to_retry(&mut self, failure: &Failure, limit: Duration, shutdown: &mut Shutdown) -> Outcome {
        if self.backoff.attempts() == 0 {
            self.report.event("link_down", &[("reason", json!(failure.code.word()))]);
            let limit = human_duration(limit);
            self.report.say(&format!("sender: {}; trying again, for {limit} at most.", failure.what));
        }
        let wait = self.backoff.next_wait();
        let pause = async {
            tokio::time::sleep(wait.min(limit)).await;
            Ok(())
        };
        shutdown.or(self.expiry.or(pause)).await?;
        self.report.count(|totals| totals.retries += 1);
        self.report.event("attempt", &[("attempt", json!(self.backoff.attempts()))]);
        Ok(())
    }

    async fn connection(&mut self, outgoing: &Outgoing, shutdown: &mut Shutdown) -> Outcome<Finished> {
        let expiry = self.expiry;
        let (endpoint, link) = shutdown.or(expiry.or(self.connect())).await?;
        self.report.event("connected", &[("address", json!(link.connection.remote_address().to_string()))]);
        let (mut writer, mut control) = open_control(&link).await?;
        let outcome = async {
            let session = {
                // From Begin on the receiver may know the transfer by a secret that is kept here alone.
                let keep_begun = || {
                    self.record.keep_begun()?;
                    fail_point::hit(Point::BeginKept);
                    Ok(())
                };
                let (fresh, identity) = (self.fresh, self.identity);
                let negotiating = negotiate(outgoing, fresh, &link, identity, &mut writer, &mut control, keep_begun);
                shutdown.or(expiry.or(negotiating)).await?
            };
            fail_point::hit(Point::Agreed);
            self.report.event("started", &[("suite", json!(session.keys.suite().name()))]);
            self.tell_resumed(&session.have);
            let pipeline = Pipeline::new(&link, outgoing, self.report, self.identity, session)?;
            (self.connected, self.fresh) = (true, false);
            (self.link_down, self.backoff) = (None, Backoff::default());
            let record = &mut self.record;
            let keep_manifest = |manifest: &_| {
                let plan = outgoing.transfer().plan().clone();
                record.keep_sent(Some(Sent { plan, manifest: Clone::clone(manifest) }))?;
                fail_point::hit(Point::ManifestKept);
                Ok(())
            };
            let receipt = shutdown.or(expiry.or(pipeline.run(&mut writer, &mut control, keep_manifest))).await?;
            fail_point::hit(Point::ReceiptHeard);
            // Before the receiver hears that it arrived, and forgets about the transfer.
            let receipt_path = self.state.keep_receipt(self.ticket.grant.grant.transfer, &receipt)?;
            Ok(Finished { receipt, receipt_path })
        }
        .await;
        match &outcome {
            Ok(_) => {
                writer.finish().await;
                link.close(Code::Done);
            }
            Err(failure) => link.refuse(writer, failure).await,
        }
        let _ = tokio::time::timeout(FAREWELL, endpoint.wait_idle()).await;
        if outcome.is_ok() {
            fail_point::hit(Point::ReceiptDelivered);
        }
        outcome
    }

    /// Says that a connection stands again, and that an earlier process's work goes on.
    fn tell_resumed(&self, have: &[Have]) {
        let chunks: u64 = have.iter().map(|have| have.verified.0).sum();
        if self.link_down.is_some() {
            self.report.event("link_up", &[("attempts", json!(self.backoff.attempts()))]);
        }
        if !self.fresh && (self.connected || chunks > 0) {
            let reason = match self.connected {
                true => format!("the link is up again; the receiver has {chunks} chunks."),
                false => format!("the receiver has {chunks} chunks of an earlier run."),
            };
            self.report.resume(Resume::Resumed, &reason);
        }
    }

    /// It ended after everything had been sent: the sender cannot know whether it was loaded.
    fn unsure(&self, outgoing: &Outgoing, failure: Failure) -> Failure {
        let interrupted = matches!(failure.code, Code::Interrupted | Code::UserInterrupt | Code::Unreachable);
        if !interrupted || outgoing.transfer().manifest().is_none() {
            return failure;
        }
        let next = "Everything had been sent by then. The receiver may have loaded it: start both sides again with the \
                    same commands and the same ticket to learn that, or look for its receipt.";
        Failure { next: next.into(), ..failure }
    }
}

/// Nobody was reached any more, but there was somebody: the transfer can go on.
fn interrupted(failure: Failure) -> Failure {
    match failure.code {
        Code::Unreachable => Failure::new(Code::Interrupted, failure.what, explain(Code::Interrupted).1),
        _ => failure,
    }
}

/// Connects to the receiver of a ticket.
pub async fn connect_with(ticket: &Ticket, identity: &Identity) -> Outcome<(quinn::Endpoint, Link)> {
    let endpoint_for = |address: SocketAddr| {
        let any: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
        let socket = UdpSocket::bind(any)
            .map_err(|error| Failure::io(Code::Preflight, "no UDP socket can be opened", &error, ""))?;
        let trust = Trust::new(ticket.root_certificate(), Some(ticket.grant.grant.receiver.clone()));
        let mut endpoint = bind(socket, None)?;
        endpoint.set_default_client_config(client_config(identity, trust)?);
        Ok(endpoint)
    };
    connect(endpoint_for, &ticket.addresses, identity).await
}

fn announce(report: &Report, plan: &Plan) {
    let estimates: Option<u64> = plan.parts.iter().map(|part| part.bytes_estimate).sum::<Option<u64>>();
    report.count(|totals| {
        totals.parts_planned = plan.parts.len() as u64;
        totals.plain_bytes_estimate = estimates;
    });
    report.event("planned", &[("parts", json!(plan.parts.len()))]);
}
