//! Several transfers at once: routes what senders say to the transfer that it is about, and starts
//! one that does not run.

use std::{
    collections::{BTreeMap, VecDeque},
    future::pending,
    pin::Pin,
    rc::Rc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use sealift_agent::{
    failure::{Failure, Outcome},
    report::Finished,
    shutdown::Shutdown,
    stop::{Cause, Stop},
    transfer_dir::TransferDir,
    units::human_duration,
};
use sealift_protocol::{
    close::Code,
    disposition::{RaisedBy, receiver::Input},
    error::Error,
    fingerprint::Fingerprint,
    id::TransferId,
};
use serde_json::json;
use tokio::sync::{mpsc, watch};

use super::Server;
use crate::{
    activity::Activity,
    reception::{Incoming, Offered, Withdrawal},
    record::{Kept, Record},
    runner::Setting,
    transfer::{self, Terms},
    unfinished::{Ended, abandon_by_sender, drop_expired},
};

/// What one transfer may have waiting: a sender that has come back while the last connection is
/// being closed.
const OFFERS_WAITING: usize = 2;

/// How often expired transfers that do not run are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

type Running<'a> = Pin<Box<dyn Future<Output = TransferId> + 'a>>;
type Farewell<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// The transfers that run, and their senders' way to them.
pub struct Transfers<'a> {
    server: &'a Server<'a>,
    ways: BTreeMap<TransferId, Way>,
    running: FuturesUnordered<Running<'a>>,
    /// Those that get the places of transfers that are being suspended for them, one each.
    next: VecDeque<(Offered, Record)>,
    /// Refusals on their way. Each has a place of those that [`sealift_agent::admission`] bounds.
    farewells: FuturesUnordered<Farewell<'a>>,
    drains: watch::Sender<bool>,
}

/// How one that runs is reached.
struct Way {
    incoming: mpsc::Sender<Incoming>,
    stop: Stop,
    activity: Rc<Activity>,
}

impl<'a> Transfers<'a> {
    /// Begins with what earlier processes left, without waiting for its senders.
    pub fn resume(server: &'a Server<'a>) -> Outcome<Self> {
        drop_expired(server.state, server.audit, server.config.engines)?
            .iter()
            .for_each(|line| server.report.say(line));
        let (ways, running, next, farewells) = Default::default();
        let mut transfers = Self { server, ways, running, next, farewells, drains: watch::Sender::new(false) };
        for transfer in TransferDir::list(server.state)? {
            if transfers.is_full() {
                break;
            }
            if let Err(failure) = transfers.resume_one(transfer) {
                server.report.of_transfer(transfer).say_lines(&format!("receiver: it stays as it is: {failure}"));
            }
        }
        Ok(transfers)
    }

    fn resume_one(&mut self, transfer: TransferId) -> Outcome {
        // What is in its target waits for its sender alone; so does an unused ticket.
        let is_due = |kept: &Kept| kept.port.is_none() && kept.stage().is_begun() && !kept.stage().is_loaded();
        let looked = TransferDir::look::<Kept>(self.server.state, transfer)?;
        // What a `listen` began is resumed by a `listen`.
        if !looked.is_some_and(|look| look.record.as_ref().is_some_and(is_due)) {
            return Ok(());
        }
        let Some(record) = Record::open(self.server.state, transfer)? else { return Ok(()) };
        self.server.target_of(&record.kept)?;
        self.start(record);
        Ok(())
    }

    pub fn running(&self) -> usize {
        self.running.len()
    }

    fn is_full(&self) -> bool {
        self.running.len() as u64 >= self.server.config.transfers_max
    }

    /// Serves what senders say; returns only if it cannot go on. Cancel-safe: the transfers stay in
    /// `self`, and a sweep that was started ends in its thread.
    pub async fn run(&mut self, incoming: &mut mpsc::Receiver<Incoming>) -> Failure {
        let sweeping = sweep_expired(self.server);
        tokio::pin!(sweeping);
        loop {
            tokio::select! {
                incoming = incoming.recv() => match incoming {
                    Some(Incoming::Offer(offered)) => self.offer(*offered),
                    Some(Incoming::Withdrawal(withdrawal)) => self.withdraw(*withdrawal),
                    None => return Failure::new(Code::Interrupted, "the endpoints were closed", ""),
                },
                Some(transfer) = self.running.next() => {
                    self.ways.remove(&transfer);
                    self.let_in();
                }
                Some(()) = self.farewells.next() => {}
                failure = &mut sweeping => return failure,
            }
        }
    }

    /// Suspends everything that runs. Cancel-safe: what has not ended stays in `self`.
    pub async fn drain(&mut self) {
        let _ = self.drains.send(true);
        self.next.drain(..).for_each(|(offered, _)| offered.link.close(Code::Interrupted));
        while self.running.next().await.is_some() {}
        while self.farewells.next().await.is_some() {}
    }

    fn offer(&mut self, offered: Offered) {
        let grant = offered.deciding.grant().clone();
        let transfer = grant.grant.transfer;
        if !self.ways.contains_key(&transfer) {
            match self.server.admit(&grant) {
                Ok(record) if !self.is_full() => self.start(record),
                Ok(record) if self.displace() => return self.next.push_back((offered, record)),
                Ok(_) => return self.refuse(offered, Error::new(Code::ReceiverBusy, "transfers").into()),
                Err(failure) => return self.refuse(offered, failure),
            }
        }
        self.route(transfer, offered);
    }

    /// Of the transfers that run, has the one make room that waits for its sender the longest, if
    /// one has waited for long enough.
    fn displace(&self) -> bool {
        let now = Instant::now();
        let idle_max = self.server.config.idle_max;
        let staying = self.ways.values().filter(|way| way.stop.raised().is_none());
        let idlest = staying.max_by_key(|way| way.activity.waiting(now));
        let Some(way) = idlest.filter(|way| way.activity.waiting(now) >= idle_max) else { return false };
        let idle = human_duration(idle_max);
        let what = format!("its sender has sent next to nothing for {idle}, and another one needs the place");
        let next = "It is resumed when its sender comes again and there is a place: see transfers_max.";
        way.stop.raise(Cause::Displaced, Failure::new(Code::ReceiverBusy, what, next));
        true
    }

    /// Gives places that have become free to those who were promised one.
    fn let_in(&mut self) {
        while !self.is_full()
            && let Some((offered, record)) = self.next.pop_front()
        {
            let transfer = record.transfer();
            self.start(record);
            self.route(transfer, offered);
        }
    }

    fn route(&mut self, transfer: TransferId, offered: Offered) {
        let Some(way) = self.ways.get(&transfer) else { return };
        match way.incoming.try_send(Incoming::Offer(Box::new(offered))) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(Incoming::Offer(offered))) => {
                self.refuse(*offered, Error::new(Code::TransferBusy, "connection").into());
            }
            // It is being suspended, and is resumed when the sender tries again.
            Err(mpsc::error::TrySendError::Closed(Incoming::Offer(offered))) => {
                offered.link.close(Code::Interrupted);
            }
            Err(_) => {}
        }
    }

    fn refuse(&mut self, offered: Offered, failure: Failure) {
        let transfer = offered.deciding.grant().grant.transfer;
        let report = self.server.report.of_transfer(transfer);
        if offered.slot.count_refusal(failure.code) {
            report.event("refused", &[("reason", json!(failure.code.as_str()))]);
            report.say(&format!("receiver: refused: {}", failure.what));
        }
        self.farewells.push(Box::pin(offered.refuse(failure)));
    }

    /// The sender that a transfer is bound to ends it.
    fn withdraw(&mut self, withdrawal: Withdrawal) {
        if !withdrawal.is_final() {
            return;
        }
        let transfer = withdrawal.transfer;
        if let Some(way) = self.ways.get(&transfer) {
            // If too many wait, it gets no reason, and its message refers to this host.
            let _ = way.incoming.try_send(Incoming::Withdrawal(Box::new(withdrawal)));
            return;
        }
        let server = self.server;
        let (state, audit) = (server.state.clone(), server.audit.clone());
        let engines = server.config.engines;
        self.farewells.push(Box::pin(async move {
            let sender = Fingerprint::of(&withdrawal.link.peer);
            let abandon = move || abandon_by_sender(&state, &audit, engines, transfer, sender);
            let ended = tokio::task::spawn_blocking(abandon).await;
            let ended = ended.unwrap_or_else(|_| Err(Failure::new(Code::Internal, "an abandonment ended early", "")));
            let code = ended.map_or_else(|failure| failure.code, Ended::code);
            let report = server.report.of_transfer(transfer);
            report.event("abandoned", &[("outcome", json!(code.as_str()))]);
            withdrawal.link.close(code);
        }));
    }

    fn start(&mut self, record: Record) {
        let transfer = record.transfer();
        let (way, incoming) = mpsc::channel(OFFERS_WAITING);
        let stop = Stop::on(Shutdown::with_all(self.drains.subscribe()));
        let activity = Rc::new(Activity::new(Instant::now()));
        self.ways.insert(transfer, Way { incoming: way, stop: stop.clone(), activity: Rc::clone(&activity) });
        self.running.push(Box::pin(run_one(self.server, record, incoming, stop, activity)));
    }
}

/// Drops what expires, off the thread that serves the others; returns only if that cannot go on.
/// Cancel-safe: a sweep that was started ends in its thread.
async fn sweep_expired(server: &Server<'_>) -> Failure {
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    loop {
        ticks.tick().await;
        let (state, audit) = (server.state.clone(), server.audit.clone());
        let engines = server.config.engines;
        let sweep = move || drop_expired(&state, &audit, engines);
        match tokio::task::spawn_blocking(sweep).await {
            Ok(Ok(said)) => said.iter().for_each(|line| server.report.say(line)),
            Ok(Err(failure)) => return failure,
            Err(_) => return Failure::new(Code::Internal, "a sweep ended early", ""),
        }
    }
}

/// One transfer, until it is finished, refused, or suspended. Not cancel-safe: dropped, it leaves
/// the transfer as a killed process would.
async fn run_one(
    server: &Server<'_>,
    record: Record,
    mut incoming: mpsc::Receiver<Incoming>,
    stop: Stop,
    activity: Rc<Activity>,
) -> TransferId {
    let transfer = record.transfer();
    let report = server.report.of_transfer(transfer);
    let outcome = receive(server, &report, record, &mut incoming, &stop, &activity).await;
    // Senders that came too late for this run get the reason for its end.
    incoming.close();
    while let Ok(late) = incoming.try_recv() {
        if let (Incoming::Offer(offered), Err(failure)) = (late, &outcome) {
            offered.refuse(Failure { raised_by: RaisedBy::ThisSide, ..failure.clone() }).await;
        }
    }
    report.end_transfer(&outcome);
    transfer
}

async fn receive(
    server: &Server<'_>,
    report: &sealift_agent::report::Report,
    record: Record,
    incoming: &mut mpsc::Receiver<Incoming>,
    stop: &Stop,
    activity: &Activity,
) -> Outcome<Finished> {
    let target = server.target_of(&record.kept)?;
    let endpoint = server.config.engines.parse(&target.url)?;
    let options = target.options(server.config.row_bytes_max, server.config.engines)?;
    let open_target = || endpoint.open_target(&options, server.config.engines);
    let setting = Setting {
        report,
        audit: server.audit,
        state: server.state,
        identity: server.identity,
        input: Input::Serve,
        open_target: &open_target,
        engines: server.config.engines,
    };
    let terms = Terms {
        memory: server.config.memory_each(),
        grace: server.config.grace,
        journal_bytes_max: server.config.journal_bytes_max,
        activity,
    };
    transfer::receive(setting, terms, record, incoming, stop, pending()).await
}
