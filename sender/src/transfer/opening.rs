//! What a transfer goes on from: the source, what an earlier process had spooled of it, or nothing
//! but the receipt.

use std::{rc::Rc, sync::Arc};

use sealift_agent::{
    audit::entry::Entry,
    budget::Budget,
    fail_point::{self, Point},
    failure::{Failure, Outcome},
    host::{self, bounded},
    preflight::Preflight,
    report::{Report, Resume},
    role::Role,
    stop::Stop,
    units::human_bytes,
};
use sealift_engine_api::{Endpoint, SourceOptions};
use sealift_protocol::{
    close::Code,
    disposition::{
        Asks,
        sender::{Contact, Sends},
    },
    manifest::{Origin, Plan, ReceiverTrust},
    send::{SPOOLED_PART, SenderSession, SenderTransfer, Sent, SpoolFilling},
};
use serde_json::json;

use super::Sending;
use crate::{
    lane::{Sealer, nothing_came},
    outgoing::Outgoing,
    preflight,
    reader::{Reader, Reading, empty_dump},
    spool::{self, Filling, Place, Spool, Whole},
    ticket_input::TicketInput,
    workers::Workers,
};

impl Sending<'_> {
    /// What this process sends from: what an earlier one kept, or else the source.
    pub(super) async fn resume_or_open(&mut self, stop: &Stop) -> Outcome<Outgoing> {
        if self.attempt.asks() == Asks::Continue {
            if let Some(outgoing) = self.resume_spool(stop).await? {
                return Ok(outgoing);
            }
            if let Some(sent) = self.record.of_transfer().sent().cloned() {
                return self.only_receipt(sent);
            }
        }
        self.open(stop).await
    }

    /// All of it was sent by an earlier process: if the receiver has it, only the receipt is
    /// missing (fault N12).
    fn only_receipt(&mut self, sent: Sent) -> Outcome<Outgoing> {
        announce(self.report, &sent.plan);
        let mut transfer = self.transfer(sent.plan)?;
        transfer.handle_earlier(sent.manifest);
        self.attempt.handle_earlier(Sends::Receipt);
        Ok(Outgoing::new(transfer, None, self.sealer()))
    }

    /// An earlier process had spooled all of its source: nothing of that is needed any more.
    async fn resume_spool(&mut self, stop: &Stop) -> Outcome<Option<Outgoing>> {
        let Some(place) = self.record.spool().cloned() else { return Ok(None) };
        let plan = place.plan.clone();
        let bytes_max = self.args.spool_bytes_max;
        self.report
            .say(&format!("sender: checking the spool of the earlier run, {}.", human_bytes(place.held_bytes())));
        let sealer = self.sealer();
        let budget = sealer.budget.open_lane().await?;
        let opening = async {
            let opened = tokio::task::spawn_blocking(move || place.open(bytes_max, budget));
            opened.await.map_err(|_| Failure::new(Code::Internal, "a thread ended early", ""))?
        };
        let found = stop.or(opening).await?;
        if let Some(repaired) = found.repaired {
            let entry = Entry::SpoolRepaired { kept_bytes: repaired.kept_bytes, cut_bytes: repaired.cut_bytes };
            self.audit.append(Some(self.ticket.grant.grant.transfer), &entry)?;
        }
        let Some(Whole { spool, keys, manifest }) = found.whole else { return Ok(None) };
        announce(self.report, &plan);
        let mut transfer = self.transfer(plan)?;
        transfer.handle_earlier(manifest);
        let outgoing = Outgoing::new(transfer, None, sealer);
        let spool = self.spool.insert(Rc::new(spool));
        outgoing.set_spool(Rc::clone(spool), keys);
        self.attempt.handle_earlier(Sends::Spool);
        Ok(Some(outgoing))
    }

    /// The first connection stands: from here on the source goes into the spool, under this
    /// connection's keys. Not cancel-safe: the spool may be made all the same.
    pub(super) async fn begin_spool(&mut self, outgoing: &Outgoing, session: &SenderSession, stop: &Stop) -> Outcome {
        let Some(folder) = self.args.spool.as_ref().filter(|_| outgoing.spool().is_none() && outgoing.has_source())
        else {
            return Ok(());
        };
        // No other lane is open: what a spool holds is sent from there.
        let budget = outgoing.sealer.budget.open_lane().await?;
        let plan = outgoing.transfer().plan().clone();
        let mut place = Place::new(folder, self.ticket.grant.grant.transfer, session.spool.key, plan.clone())?;
        // The record first: by it a later process knows what to remove.
        self.record.keep_spool(Some(place.clone()))?;
        let log = place.create(&session.spool, self.args.spool_bytes_max)?;
        place.made = true;
        self.record.keep_spool(Some(place))?;
        fail_point::hit(Point::SpoolMade);
        let filling = Filling {
            reading: outgoing.read(SPOOLED_PART)?,
            stop: outgoing.stop(stop),
            workers: Workers::new(self.args.compression),
            rules: SpoolFilling::new(self.transfer(plan)?, Arc::clone(&session.keys)),
            identity: Arc::clone(self.identity),
            audit: self.audit.clone(),
            comes_again: self.attempt.comes_again(),
        };
        let spool = self.spool.insert(Rc::new(Spool::start(log, filling, budget)));
        outgoing.set_spool(Rc::clone(spool), session.spool.clone());
        Ok(())
    }

    /// What was spooled is of no use any more.
    pub(super) fn drop_spool(&mut self) -> Outcome {
        let Some(mut place) = self.record.spool().cloned() else { return Ok(()) };
        if place.made {
            // First: a process that is killed from here on leaves no record of a spool that is
            // gone.
            place.made = false;
            self.record.keep_spool(Some(place.clone()))?;
        }
        if let Some(spool) = self.spool.take() {
            spool.destroy()?;
        }
        place.destroy()?;
        fail_point::hit(Point::SpoolGone);
        self.record.keep_spool(None)
    }

    /// Opens the source, and begins with it or resumes what an earlier process began.
    pub(super) async fn open(&mut self, stop: &Stop) -> Outcome<Outgoing> {
        self.attempt.handle_opening();
        self.drop_spool()?;
        let comes_again = self.attempt.comes_again();
        let is_empty = if comes_again { nothing_came } else { empty_dump };
        // A source that fails ends itself: another may take its place.
        let stop_reading = stop.within();
        let report = self.report;
        let mut preflight =
            Preflight::new(report, self.audit, Some(self.ticket.grant.grant.transfer), &self.options.waivers);
        if self.attempt.contact() == Contact::Made {
            preflight = preflight.again();
        }
        let planned = async {
            let fresh = self.attempt.asks() == Asks::StartOver;
            let keep = self.args.snapshot.keep(self.record.folder().to_owned(), fresh);
            let source = self.endpoint.open_source(SourceOptions { keep: Some(keep), ..self.options.clone() })?;
            let (source, findings) = preflight::look(source, stop_reading.clone()).await?;
            preflight.take(findings)?;
            if let Some(folder) = &self.args.spool {
                spool::prepare(folder)?;
            }
            let row_bytes_max = self.args.transfer.row_bytes_max as usize;
            let waivers = self.options.waivers.clone();
            let reading = Reading { waivers, row_bytes_max, empty: self.args.empty.said(), is_empty };
            let opened = Reader::start(source, reading, stop_reading.clone()).await?;
            preflight.take(opened.findings)?;
            preflight.finish(Role::Sender);
            Ok((opened.reader, opened.plan))
        };
        let planned = stop.or(planned).await;
        self.reading = Some(stop_reading);
        match planned {
            Ok((reader, plan)) => {
                self.snapshot.follow(Some(reader.snapshot()));
                announce(self.report, &plan);
                if !reader.can_repeat() {
                    self.check_pipe();
                }
                if self.args.restart && self.attempt.contact() == Contact::Earlier {
                    self.report.resume(Resume::Restarted, "--restart was given; what the receiver had is dropped.");
                }
                self.record.keep_unsent()?;
                let transfer = self.transfer(plan)?;
                let sealer = self.sealer().comes_again(comes_again);
                Ok(Outgoing::new(transfer, Some(reader), sealer))
            }
            Err(failure) => {
                // In the one-line form the ticket could not be used again: the receiver need not
                // wait for it to expire.
                if TicketInput::find(self.args.ticket()).is_standard() && self.attempt.contact() != Contact::Made {
                    let _ = stop.or(self.withdraw(&failure)).await;
                }
                Err(failure)
            }
        }
    }

    /// A source that is read once cannot be resumed by another process.
    fn check_pipe(&mut self) {
        let starts_over = self.attempt.handle_opened(false);
        if self.attempt.contact() == Contact::None {
            let what = match self.args.spool {
                Some(_) => {
                    "the source can be read only once, and is spooled: if this sender is killed after the source has \
                     ended, the transfer goes on; if it is killed before that, it starts over."
                }
                None => {
                    "the source can be read only once: if this sender is killed, the transfer starts over. With --spool DIR \
                     it would go on once the source has ended. If only the link is lost, it goes on."
                }
            };
            self.report.notice("sender", what);
        } else if starts_over {
            let reason = match self.args.spool {
                Some(_) => {
                    "the earlier sender ended before all of its source was spooled, and that can be read only once."
                }
                None => "the earlier sender was killed, and its source can be read only once.",
            };
            self.report.resume(Resume::Restarted, reason);
        }
    }

    fn transfer(&self, plan: Plan) -> Outcome<SenderTransfer> {
        let suites = self.args.transfer.suite.suites();
        let origin = origin(self.trust, self.endpoint);
        let mut transfer =
            SenderTransfer::new(suites, self.ticket.grant.clone(), plan, self.record.digest_secret(), origin)?;
        for &suite in self.record.of_transfer().suites() {
            transfer.handle_agreed(suite);
        }
        Ok(transfer.within(Budget::new(self.args.transfer.memory).window_bytes()))
    }

    fn sealer(&self) -> Sealer {
        Sealer::new(Workers::new(self.args.compression), Budget::new(self.args.transfer.memory))
    }
}

/// What the manifest says of where the data comes from.
pub fn origin(receiver_trust: ReceiverTrust, endpoint: &dyn Endpoint) -> Origin {
    Origin { receiver_trust, host: host::name(), source: bounded(endpoint.shown()) }
}

fn announce(report: &Report, plan: &Plan) {
    report.planned(plan);
    let engine = json!(plan.engine.name);
    let parts = json!(plan.parts.len());
    report.event("planned", &[("engine", engine), ("parts", parts)]);
}
