//! One connection of a transfer after another, and what is waited for between them.

use std::time::{Duration, Instant};

use sealift_agent::{
    audit::entry::{Entry, Peer},
    control::open_control,
    fail_point::{self, Point},
    failure::{Failure, Outcome, explain},
    identity::Identity,
    link::{Dialer, Link},
    permit::check_time,
    report::{Finished, Resume},
    stop::Stop,
    ticket::Ticket,
    trust::Trust,
    units::{counted, human_duration},
};
use sealift_protocol::{
    close::Code,
    disposition::{
        Asks, RaisedBy,
        sender::{Contact, SenderDisposition, SenderStage},
    },
    fingerprint::Fingerprint,
    id::Epoch,
    message::Have,
    send::Sent,
    ticket_proof::TicketProof,
};
use serde_json::json;

use super::Sending;
use crate::{
    outgoing::Outgoing,
    pipeline::{OfferTerms, Pipeline, negotiate},
};

/// For the last packets of a connection to leave.
const FAREWELL: Duration = Duration::from_secs(3);

const PUT_BACK: &str = "the receiver has forgotten an earlier connection of this transfer, as if its host or its state \
                        directory had been put back from a snapshot or a backup. What it lacks is sent again. If nobody \
                        did that, stop this, and ask the receiver's operator.";

impl Sending<'_> {
    /// One connection after another, until one ends with the receipt or with what no other would
    /// change.
    pub(super) async fn connections(&mut self, outgoing: &Outgoing, stop: &Stop) -> Outcome<Finished> {
        let stop = &outgoing.stop(stop);
        let report = self.report;
        tokio::select! {
            outcome = self.connect_until_done(outgoing, stop) => outcome,
            never = outgoing.report_spooled(report) => match never {},
        }
    }

    /// Not cancel-safe, as [`Pipeline::run`] is not.
    async fn connect_until_done(&mut self, outgoing: &Outgoing, stop: &Stop) -> Outcome<Finished> {
        self.began = Instant::now();
        loop {
            let failure = match self.connection(outgoing, stop).await {
                Ok(finished) => return Ok(finished),
                Err(failure) => stop.or_failure(failure),
            };
            if failure.code == Code::InDoubt {
                self.report.resume(Resume::InDoubt, &failure.what);
                self.record.keep_in_doubt()?;
            }
            if self.disposition(&failure) != SenderDisposition::Retry {
                if failure.raised_by.is_peer() {
                    outgoing.end_reading(&failure);
                }
                return Err(self.unsure(failure));
            }
            let now = Instant::now();
            if outgoing.take_progress() {
                self.outage.handle_progress();
            }
            let is_new = self.outage.handle_lost(now);
            let elapsed = self.outage.elapsed(now);
            let limit = self.args.retry_for.map_or(self.permit.left(), |limit| limit.saturating_sub(elapsed));
            if limit.is_zero() {
                return Err(self.unsure(stop.or_failure(interrupted(failure))));
            }
            if is_new {
                self.report_lost(&failure, limit);
            }
            self.attempt.handle_connecting();
            let waited = self.wait_to_retry(limit, stop).await;
            waited.map_err(|failure| self.unsure(failure))?;
        }
    }

    fn report_lost(&self, failure: &Failure, limit: Duration) {
        self.report.lost();
        self.report.event("link_down", &[("reason", json!(failure.code.as_str()))]);
        let limit = human_duration(limit);
        self.report.say(&format!("sender: {}; trying again, for {limit} at most.", failure.what));
    }

    async fn wait_to_retry(&mut self, limit: Duration, stop: &Stop) -> Outcome {
        let wait = self.outage.backoff.next_wait();
        let pause = async {
            tokio::time::sleep(wait.min(limit)).await;
            Ok(())
        };
        stop.or(pause).await?;
        self.report.retried();
        self.report.event("attempt", &[("attempt", json!(self.outage.backoff.attempts()))]);
        Ok(())
    }

    async fn connection(&mut self, outgoing: &Outgoing, stop: &Stop) -> Outcome<Finished> {
        self.attempt.handle_connecting();
        let link = stop.or(self.connect()).await?;
        let had_anything = outgoing.transfer().has_anything();
        self.report.event("connected", &[("address", json!(link.remote_address().to_string()))]);
        let (mut writer, mut control) = open_control(&link, &self.proof(&link)).await?;
        let outcome = async {
            let session = {
                let terms = OfferTerms { asks: self.attempt.asks(), sealing_key: self.ticket.sealing_key };
                let begin = |accepted| {
                    let begun = self.record.begin(accepted)?;
                    self.attempt.handle_begin();
                    fail_point::hit(Point::BeginKept);
                    Ok(begun)
                };
                let identity = self.identity;
                let negotiating = negotiate(outgoing, terms, &link, identity, &mut writer, &mut control, begin);
                stop.or(negotiating).await?
            };
            self.attempt.handle_ready();
            fail_point::hit(Point::Agreed);
            let entry = Entry::TransferConnect {
                address: link.remote_address(),
                peer: Peer::Receiver(Fingerprint::of(&session.receiver_key)),
                suite: session.keys.suite(),
                epoch: session.keys.epoch(),
                link: link.facts.into(),
            };
            self.audit.append(Some(self.ticket.grant.grant.transfer), &entry)?;
            self.keep_epoch(session.keys.epoch())?;
            self.begin_spool(outgoing, &session, stop).await?;
            let engine = json!(outgoing.transfer().plan().engine.name);
            self.report.event("started", &[("engine", engine), ("suite", json!(session.keys.suite().name()))]);
            self.report_resumed(outgoing, &session.have, had_anything);
            let pipeline = Pipeline::new(&link, outgoing, self.report, self.identity, self.audit, session)?;
            self.attempt.handle_resumed();
            self.permit.begin(&self.ticket.grant.grant);
            self.outage.handle_ready(Instant::now());
            let record = &mut self.record;
            let finish = |manifest| {
                let plan = outgoing.transfer().plan().clone();
                let finish = record.finish(Sent { plan, manifest })?;
                fail_point::hit(Point::ManifestKept);
                Ok(finish)
            };
            let receipt = stop.or(pipeline.run(&mut writer, &mut control, finish)).await?;
            fail_point::hit(Point::ReceiptChecked);
            // Before the receiver gets the end of the stream, and forgets about the transfer.
            let receipt_path = self.state.keep_receipt(self.ticket.grant.grant.transfer, &receipt)?;
            Ok(Finished { receipt, receipt_path })
        }
        .await;
        match &outcome {
            Ok(_) => {
                writer.finish().await;
                link.leave().await;
                fail_point::hit(Point::ReceiptDelivered);
            }
            Err(failure) => {
                writer.refuse(&link, failure).await;
                let _ = tokio::time::timeout(FAREWELL, link.wait_idle()).await;
            }
        }
        outcome
    }

    /// Sends the receiver a refusal: there will be no transfer. Not cancel-safe: the receiver may
    /// not get the code.
    pub(super) async fn withdraw(&self, failure: &Failure) -> Outcome {
        let link = self.connect().await?;
        let (writer, _control) = open_control(&link, &self.proof(&link)).await?;
        writer.refuse(&link, failure).await;
        link.wait_idle().await;
        Ok(())
    }

    /// Cancel-safe.
    async fn connect(&self) -> Outcome<Link> {
        // The clock may have been set since the last time; certificates would fail by it, and could
        // not say so.
        check_time(&self.ticket.grant.grant, self.record.is_begun())?;
        let connected = connect_with(self.ticket, &self.credentials.current().identity).await;
        let is_begun = self.record.is_begun();
        connected.map_err(|failure| match failure.code {
            Code::Preflight | Code::Usage | Code::Internal => failure,
            // What answers there and is not proven to be the receiver that has the transfer does
            // not speak for it.
            _ if is_begun => Failure { code: Code::Unreachable, raised_by: RaisedBy::ThisSide, ..failure },
            _ => failure,
        })
    }

    /// Keeps the epoch that was agreed on. One that this process has seen is refused before. A
    /// receiver that was put back to an earlier state repeats one that an earlier process has seen:
    /// it may continue, and the operator is told, who knows whether that was done.
    fn keep_epoch(&mut self, epoch: Epoch) -> Outcome {
        if self.record.keep_epoch(epoch)? {
            self.report.notice("sender", PUT_BACK);
        }
        Ok(())
    }

    fn proof(&self, link: &Link) -> TicketProof {
        proof_of(self.ticket, self.identity, link)
    }

    /// Says that a connection stands again, and what became of what had been sent before.
    fn report_resumed(&self, outgoing: &Outgoing, have: &[Have], had_anything: bool) {
        let chunks: u64 = have.iter().map(|have| have.verified.0).sum();
        if self.outage.is_down() {
            self.report.event("link_up", &[("attempts", json!(self.outage.backoff.attempts()))]);
        }
        let spooled = outgoing.spool().is_some_and(|spool| spool.is_earlier());
        if self.attempt.asks() == Asks::StartOver {
            return;
        }
        if chunks == 0 && (had_anything || self.attempt.contact() == Contact::Earlier && !spooled) {
            let reason = "the receiver has nothing of what was sent before; all of it is sent again.";
            self.report.resume(Resume::Restarted, reason);
        } else if self.attempt.contact() == Contact::Made || spooled || chunks > 0 {
            let there = counted(chunks, "chunk");
            let reason = match (self.attempt.contact(), spooled) {
                (Contact::Made, _) => format!("the link is up again; the receiver has {there}."),
                (_, true) => format!("all of the source was spooled; the receiver has {there} of it."),
                (_, false) => format!("the receiver has {there} of an earlier run."),
            };
            self.report.resume(Resume::Resumed, &reason);
        }
    }

    /// It ended after everything had been sent: the sender cannot know whether it was loaded.
    fn unsure(&self, failure: Failure) -> Failure {
        let hint = match failure.code {
            Code::Interrupted | Code::UserInterrupt | Code::Unreachable => {
                "Everything had been sent by then. The receiver may have loaded it: start both sides again with the \
                 same commands and the same ticket to learn that, or look for its receipt."
            }
            Code::GrantExpired => {
                "Everything had been sent by then. The receiver may have loaded it: look for its receipt before \
                 another transfer is made."
            }
            _ => return failure,
        };
        match self.record.stage() {
            SenderStage::AllSent => Failure { hints: hint.into(), ..failure },
            _ => failure,
        }
    }
}

/// Nothing answers any more, and something did: the transfer can be resumed.
fn interrupted(failure: Failure) -> Failure {
    match failure.code {
        Code::Unreachable => Failure::new(Code::Interrupted, failure.what, explain(Code::Interrupted).1),
        _ => failure,
    }
}

/// What shows the receiver that this sender holds the ticket. Once the ticket is bound, the
/// sender's key alone does.
pub fn proof_of(ticket: &Ticket, identity: &Identity, link: &Link) -> TicketProof {
    let transfer = ticket.grant.grant.transfer;
    match &ticket.secret {
        Some(secret) => {
            let on = link.proven_on(identity, ticket.grant.hash_with_signature());
            TicketProof::make(transfer, secret, on)
        }
        None => TicketProof::bound(transfer),
    }
}

/// Connects to the receiver of a ticket. Cancel-safe.
pub async fn connect_with(ticket: &Ticket, identity: &Identity) -> Outcome<Link> {
    Dialer::new(identity, Trust::Pinned(ticket.receiver))?.connect(&ticket.addresses).await
}
