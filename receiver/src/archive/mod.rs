//! `load`: verifies an archive that was carried here and loads it, from its first record to the receipt. What is judged is
//! what is judged over the link, by the same code; only the link is missing.
//!
//! The archive is its own journal: killed in the middle and started again, a load reads it from the beginning. What a
//! database has committed is not loaded twice; a loader is fed anew.

mod file;
mod record;
mod unload;
pub mod used;

use std::{process::ExitCode, sync::Arc};

use sealift_agent::{
    audit::{
        AuditLog,
        entry::{Entry, Purpose},
    },
    clock::{now_ms, now_seconds},
    expiry::Expiry,
    fail_point::{self, Point},
    failure::{Failure, Outcome},
    host,
    identity::Role,
    report::{Finished, Report, Resume},
    shutdown::Shutdown,
    state::StateDir,
    transfer_dir::TransferDir,
};
use sealift_engine_api::{Engines, TargetOptions};
use sealift_protocol::{
    close::Code,
    disposition::{Disposition, Event, Stage, disposition},
    fingerprint::Fingerprint,
    id::TransferId,
    manifest::{ReadBack, SignedReceipt},
    receive::{Expected, ReceiptFacts, Sealed, Session, Unsealing},
};
use serde_json::json;

use self::{
    file::{Archive, cut_short, reword},
    record::{Kept, Record},
    unload::{Records, Unload},
};
use crate::{
    cli::LoadArgs,
    ending::{KeepsEnding, Publishing, await_loader, found_in_doubt, in_doubt, prove, stated_loaded, tell_staged},
    load::{Load, blocking, note_found},
    sink::{self, Sink, place::Readiness},
    standing_key::StandingKey,
    unfinished::drop_target,
};

pub use self::record::{abandon, lines, resolve};

pub async fn load(args: LoadArgs, engines: Engines) -> ExitCode {
    let report = Report::new(Role::Receiver, args.transfer.json);
    let outcome = run(&args, engines, &report).await.map_err(reword);
    report.finish(&outcome)
}

async fn run(args: &LoadArgs, engines: Engines, report: &Report) -> Outcome<Finished> {
    args.transfer.apply()?;
    if args.target == "-" && args.transfer.json {
        return Err(Failure::usage("--target - and --json both need standard output", "Leave out --json."));
    }
    let endpoint = engines.parse(&args.target)?;
    let options = TargetOptions {
        row_bytes_max: args.transfer.row_bytes_max,
        danger_plaintext_file: args.danger_plaintext_file,
        danger_show_program_output: args.transfer.danger_show_program_output,
        standing: false,
    };
    let open_sink = || sink::open(&*endpoint, options);
    open_sink()?;
    let state = StateDir::open(args.transfer.state_dir.clone(), "sealift-receiver")?;
    let audit = AuditLog::open(&state, "sealift-receiver")?;
    TransferDir::sweep(&state)?;
    used::sweep(&state, now_seconds())?;
    let key = StandingKey::open(&state, &audit)?.ok_or_else(|| {
        let next =
            "An archive is sealed to the key of one receiver: give --state-dir as it was for `sealift-receiver key`.";
        Failure::new(Code::Preflight, "this receiver has no key, so no archive is for it", next)
    })?;
    let archive = Archive::open(&args.file, &key)?;
    let transfer = archive.transfer();
    report.set_transfer(transfer);
    sink::dangers(options, None).iter().try_for_each(|entry| audit.append(Some(transfer), entry))?;
    let mut shutdown = Shutdown::listen()?;
    let record = Record::open(&state, transfer, &endpoint.url())?;
    if record.earlier.is_none() {
        match open_sink()?.check(Readiness::Staging) {
            Ok(described) => described.iter().for_each(|line| report.say(&format!("receiver: {line}"))),
            Err(failure) => {
                record.dir.destroy()?;
                return Err(failure);
            }
        }
    }
    let mut loading = Loading {
        args,
        engines,
        report,
        audit: &audit,
        state: &state,
        key,
        open_sink: &open_sink,
        transfer,
        record,
        load: None,
    };
    let outcome = loading.run(archive, &mut shutdown).await.map_err(reword);
    let outcome = outcome.map_err(|failure| loading.with_visibility(failure));
    let outcome = outcome.map_err(|failure| report.tell(failure));
    let outcome = loading.end(outcome).await;
    audit.append(Some(transfer), &Entry::transfer_end(&outcome))?;
    outcome
}

/// One archive on its way into the target.
struct Loading<'a> {
    args: &'a LoadArgs,
    engines: Engines,
    report: &'a Report,
    audit: &'a AuditLog,
    state: &'a StateDir,
    key: StandingKey,
    open_sink: &'a dyn Fn() -> Outcome<Arc<dyn Sink>>,
    transfer: TransferId,
    record: Record,
    load: Option<Load>,
}

impl<'a> Loading<'a> {
    async fn run(&mut self, archive: Archive, shutdown: &mut Shutdown) -> Outcome<Finished> {
        match disposition(self.record.kept.ending.stage, Event::Opened) {
            Disposition::Load => {}
            Disposition::Publish => return self.publishing()?.publish_kept(&mut self.record).await,
            Disposition::TellStatement => {
                return Err(stated_loaded("by the operator's statement, this archive is in the target already"));
            }
            _ => return Err(found_in_doubt(self.report, self.transfer)),
        }
        let started_ms = now_ms();
        let header = *archive.header();
        let mut records = archive.read();
        let sealed = shutdown.or(self.opening(Unsealing::new(&header), &mut records)).await?;
        let expiry = Expiry::of(&sealed.grant().grant, true);
        let session = shutdown.or(expiry.or(self.begin(sealed))).await?;
        let session = shutdown.or(expiry.or(self.unload(session, records))).await;
        let session = session.map_err(|failure| self.note_doubt(failure))?;
        let receipt = self.settle(session, started_ms, expiry, shutdown).await?;
        // From here on the load is there: nothing stops it from being published.
        self.publishing()?.publish(&mut self.record, receipt).await
    }

    /// Who sealed it, for whom, and what it is.
    async fn opening(&self, mut unsealing: Unsealing, records: &mut Records) -> Outcome<Sealed> {
        let expected = Expected {
            from: self.args.from,
            receiver: self.key.fingerprint(),
            suites: self.args.transfer.suite.suites(),
        };
        loop {
            let record = records.recv().await.ok_or_else(|| failed("the archive's reader ended early"))??;
            let record = record.ok_or_else(cut_short)?;
            let now = now_seconds();
            if let Some(sealed) = unsealing.handle(record, &expected, now)? {
                return Ok(sealed);
            }
        }
    }

    /// Makes a place for what is to come, or finds what an earlier process left of it.
    async fn begin(&mut self, sealed: Sealed) -> Outcome<Session> {
        let grant = sealed.grant().grant.clone();
        let sender = Fingerprint::of(&sealed.sender_key());
        let entry = Entry::LoadBegin {
            sender,
            into: None,
            engine: sealed.plan().engine.clone(),
            purpose: Purpose::new(&grant.purpose),
        };
        self.audit.append(Some(self.transfer), &entry)?;
        let elsewhere = self.record.earlier.take_if(|earlier| earlier.target != self.record.kept.target);
        if let Some(earlier) = elsewhere {
            self.drop_staged(&earlier);
        }
        let mut transfer = sealed.new_transfer();
        let (id, plan) = (self.transfer, sealed.plan().clone());
        self.record.kept.until_seconds = grant.finish_before_seconds;
        self.record.keep()?;
        fail_point::hit(Point::EpochKept);
        self.report.planned(&plan);
        let sink = (self.open_sink)()?;
        let found = blocking(&sink, move |sink| sink.prepare(id, &plan, false)).await?;
        if self.record.earlier.is_some() {
            let (resume, reason) = match found.is_empty() {
                true => {
                    (Resume::Restarted, "the target had nothing of the earlier run; it is loaded from the beginning.")
                }
                false => (Resume::Resumed, "the target has parts of it from an earlier run; the rest is loaded."),
            };
            self.report.resume(resume, reason);
        }
        let found = note_found(&mut transfer, found)?;
        // Its bytes are counted as the archive is read past them.
        self.report.count(|totals| totals.parts += found.parts);
        let load = self.load.insert(Load::new(sink, transfer, None));
        let session = sealed.session(&self.key.sealing, &mut load.transfer_mut())?;
        self.report.event("started", &[("suite", json!(session.keys().suite().name()))]);
        Ok(session)
    }

    /// An earlier run had another target: what is staged there is given up.
    fn drop_staged(&self, earlier: &Kept) {
        let dropped = drop_target(self.state, self.engines, self.transfer, &earlier.target, &earlier.ending);
        self.report
            .resume(Resume::Restarted, "the earlier run had another target; what it had staged there is dropped.");
        if let Err(failure) = dropped {
            self.report.say(&format!("receiver: what was staged there could not be dropped: {}", failure.what));
        }
    }

    /// Loads everything.
    async fn unload(&self, session: Session, records: Records) -> Outcome<Session> {
        let load = self.load.as_ref().ok_or_else(|| failed("no load"))?;
        let unload = Unload::new(load, self.report);
        tokio::select! {
            biased;
            failure = load.watch(self.report) => Err(failure),
            session = unload.run(session, records) => session,
        }
    }

    /// Ends the load, proves it from the target, and signs what was found.
    async fn settle(
        &mut self,
        session: Session,
        started_ms: u64,
        expiry: Expiry,
        shutdown: &mut Shutdown,
    ) -> Outcome<SignedReceipt> {
        let load = self.load.as_ref().ok_or_else(|| failed("no load"))?;
        let proving = prove(&mut self.record, load, session.keys().digests().clone());
        let mut stopping = false;
        let proven = match load.sink.ends_unseen() {
            true => {
                let outside = async || {
                    match stopping {
                        true => std::future::pending().await,
                        false => drop(shutdown.requested().await),
                    }
                    stopping = true;
                    Event::StopRequested
                };
                await_loader(self.report, proving, outside).await
            }
            false => shutdown.or(expiry.or(proving)).await,
        };
        let evidence = proven.map_err(|failure| match self.record.kept.ending.stage {
            Stage::InDoubt => in_doubt(self.report, self.transfer, failure),
            _ => failure,
        })?;
        let load = self.load.as_ref().ok_or_else(|| failed("no load"))?;
        let facts = ReceiptFacts {
            evidence,
            link: None,
            started_ms,
            finished_ms: now_ms(),
            software: format!("sealift-receiver {}", env!("CARGO_PKG_VERSION")),
            target_host: host::name(),
            audit_head: self.audit.head()?,
        };
        Ok(load.transfer().receipt(&session, facts, &self.key.identity)?)
    }

    fn publishing(&self) -> Outcome<Publishing<'a>> {
        let sink = self.load.as_ref().map(|load| Arc::clone(&load.sink));
        let sink = sink.map_or_else(|| (self.open_sink)(), Ok)?;
        Ok(Publishing { state: self.state, audit: self.audit, transfer: self.transfer, sink, uses_archive: true })
    }

    /// The load is over, or can go on later: leaves what that needs, and nothing else.
    async fn end(self, outcome: Outcome<Finished>) -> Outcome<Finished> {
        let kept = &self.record.kept;
        let staged = |load: &Load| match load.transfer().plan().engine.capabilities.read_back {
            // A file has a prefix that is gone on with; a loader is fed anew.
            ReadBack::None => load.transfer().has_anything() && load.sink.staged(self.transfer).is_some(),
            ReadBack::Rows => load.transfer().has_finished(),
            // What is durable of an image need not be all of its one part.
            ReadBack::Bytes => load.transfer().has_anything(),
        };
        let has_something = self.load.as_ref().is_some_and(staged);
        let keeps = match kept.ending.stage {
            // What only the operator's statement ends, and that statement: the archive is not loaded again.
            Stage::Ending | Stage::InDoubt | Stage::StatedLoaded => outcome.is_err(),
            stage => {
                matches!(&outcome, Err(failure) if failure.code.keeps_transfer())
                    && (stage != Stage::Loading || has_something)
            }
        };
        let sink = self.load.as_ref().map(|load| Arc::clone(&load.sink));
        if let Some(load) = self.load {
            load.close(keeps).await;
        }
        if !keeps {
            self.record.dir.destroy()?;
        }
        outcome.map_err(|failure| sink.map_or(failure.clone(), |sink| tell_staged(failure, &*sink, self.transfer)))
    }

    /// A loader that ended early with exit code 0 may have committed what it had read.
    fn note_doubt(&mut self, failure: Failure) -> Failure {
        if failure.code != Code::InDoubt {
            return failure;
        }
        match self.record.advance(Stage::InDoubt) {
            Ok(()) => in_doubt(self.report, self.transfer, failure),
            Err(failure) => failure,
        }
    }

    /// Adds to what interrupted the load, or is wrong with the archive, that nothing is visible, where that is so.
    fn with_visibility(&self, failure: Failure) -> Failure {
        match self.record.kept.ending.stage.shows_nothing() {
            true => failure.while_nothing_is_visible(),
            false => failure,
        }
    }
}

fn failed(what: &'static str) -> Failure {
    Failure::new(Code::Internal, what, "")
}
