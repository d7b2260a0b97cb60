//! `load`: verifies an archive that was carried here and loads it, from its first record to the
//! receipt. The checks are those of the link, by the same code; only the link is
//! missing.
//!
//! The archive is its own journal: killed in the middle and started again, a load reads it from the
//! beginning. What a database has committed is not loaded twice; a loader is fed again.

mod file;
mod record;
mod unload;
pub mod used;

use std::process::ExitCode;

use sealift_agent::{
    audit::{
        AuditLog,
        entry::{Entry, Name, Purpose},
    },
    budget::Budget,
    clock::{now_ms, now_seconds},
    fail_point::{self, Point},
    failure::{Failure, Outcome},
    permit::Permit,
    preflight::Preflight,
    report::{Finished, Report, Resume},
    role::Role,
    shutdown::Shutdown,
    state::StateDir,
    stop::Stop,
    transfer_dir::TransferDir,
};
use sealift_engine_api::{Engines, Readiness};
use sealift_protocol::{
    close::Code,
    disposition::{
        Asks, Disposition, Event, Stage, disposition,
        receiver::{Input, While},
    },
    fingerprint::Fingerprint,
    receive::{ExpectedArchive, ReceiverSession, SealedArchive, Unsealing},
};
use serde_json::json;

use self::{
    file::{Archive, RecordInMemory, Records, cut_short, reword},
    record::{ArchiveRecord, KeptLoad},
    unload::Unload,
};
use crate::{
    cli::LoadArgs,
    ending::{KeepsEnding, found_in_doubt, stated_loaded},
    load::{Load, note_found, prepare},
    runner::{Came, Outside, Runner, Setting, failed, recording_stage},
    standing_key::StandingKey,
    target::{self, dangers},
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
    let waivers = args.waivers.parse(engines.findings(&args.target))?;
    let options = target::options(&args.transfer, args.danger_plaintext_file, waivers);
    let open_target = || endpoint.open_target(&options, engines);
    open_target()?;
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
    dangers(&options, None).iter().try_for_each(|entry| audit.append(Some(transfer), entry))?;
    let stop = Stop::on(Shutdown::listen()?);
    let record = ArchiveRecord::open(&state, transfer, &endpoint.url())?;
    if record.earlier.is_none() {
        let mut preflight = Preflight::new(report, &audit, Some(transfer), &options.waivers);
        let found = open_target().and_then(|target| target.check(Readiness::Staging));
        if let Err(failure) = found.and_then(|found| preflight.take(found)) {
            record.dir.destroy()?;
            return Err(failure);
        }
        preflight.finish(Role::Receiver);
    }
    let setting = Setting {
        report,
        audit: &audit,
        state: &state,
        identity: &key.identity,
        input: Input::Load,
        open_target: &open_target,
        engines,
    };
    let mut loading = Loading { args, key: &key, runner: Runner::new(setting, transfer, record, &stop) };
    let outcome = loading.run(archive, &stop).await.map_err(reword);
    let outcome = outcome.map_err(|failure| loading.runner.tell(failure));
    loading.runner.end(outcome).await
}

/// One archive on its way into the target.
struct Loading<'a> {
    args: &'a LoadArgs,
    key: &'a StandingKey,
    runner: Runner<'a, ArchiveRecord>,
}

impl Loading<'_> {
    async fn run(&mut self, archive: Archive, stop: &Stop) -> Outcome<Finished> {
        match disposition(self.runner.record.stage(), Event::Opened) {
            Disposition::AwaitOffer | Disposition::Load => {}
            Disposition::Publish => return self.runner.publish_kept().await,
            Disposition::SendStatement => {
                return Err(stated_loaded("by the operator's statement, this archive is in the target already"));
            }
            _ => return Err(found_in_doubt(self.runner.setting.report, self.runner.transfer)),
        }
        self.runner.during = While::Data;
        let started_ms = now_ms();
        let header = *archive.header();
        let budget = Budget::new(self.args.transfer.memory);
        let mut records = archive.read(budget.open_lane().await?);
        let sealed = stop.or(self.opening(Unsealing::new(&header), &mut records)).await?;
        stop.under(&Permit::of(&sealed.grant().grant, true));
        let mut outside = Outside::new(stop, None);
        let session = outside.unless(self.begin(sealed)).await?;
        let session = outside.unless(self.unload(session, records)).await;
        let session = session.map_err(|failure| self.runner.note_doubt(failure))?;
        let came = Came { link: None, started_ms };
        let receipt = self.runner.prove_and_sign(&session, came, &mut outside).await?;
        // From here on the load is there: nothing stops it from being published.
        self.runner.publish(receipt).await
    }

    /// Who sealed it, for whom, and what it is. Not cancel-safe: records that were read are lost.
    async fn opening(&self, mut unsealing: Unsealing, records: &mut Records) -> Outcome<SealedArchive> {
        let expected = ExpectedArchive {
            from: self.args.from,
            receiver: self.key.fingerprint(),
            suites: self.args.transfer.suite.suites(),
        };
        loop {
            let record = records.recv().await.ok_or_else(|| failed("the archive's reader ended early"))??;
            let RecordInMemory { record, .. } = record.ok_or_else(cut_short)?;
            let now = now_seconds();
            if let Some(sealed) = unsealing.handle(record, &expected, now)? {
                return Ok(sealed);
            }
        }
    }

    /// Makes a place for what is to come, or finds what an earlier process left of it. Not
    /// cancel-safe: the record may be kept and the target be prepared all the same.
    async fn begin(&mut self, sealed: SealedArchive) -> Outcome<ReceiverSession> {
        let grant = sealed.grant().grant.clone();
        let sender = Fingerprint::of(&sealed.sender_key());
        let entry = Entry::LoadBegin {
            sender,
            into: Name::new(self.runner.target()),
            engine: sealed.plan().engine.clone(),
            purpose: Purpose::new(&grant.purpose),
        };
        let Setting { report, audit, open_target, .. } = self.runner.setting;
        audit.append(Some(self.runner.transfer), &entry)?;
        let record = &mut self.runner.record;
        let elsewhere = record.earlier.take_if(|earlier| earlier.target != record.kept.target);
        if let Some(earlier) = elsewhere {
            self.drop_staged(&earlier);
        }
        let mut transfer = sealed.new_transfer();
        let id = self.runner.transfer;
        let plan = sealed.plan().clone();
        self.runner.record.kept.until_seconds = grant.finish_before_seconds;
        match self.runner.record.stage() {
            Stage::Issued | Stage::Offered => self.runner.record.advance(Stage::Agreed)?,
            _ => self.runner.record.keep()?,
        }
        fail_point::hit(Point::EpochKept);
        report.planned(&plan);
        let target = open_target()?;
        let stop = self.runner.stop.within();
        let prepared = prepare(&target, id, plan, Asks::Continue, &stop).await?;
        if self.runner.record.earlier.is_some() {
            let (resume, reason) = match prepared.found.is_empty() {
                true => {
                    (Resume::Restarted, "the target had nothing of the earlier run; it is loaded from the beginning.")
                }
                false => (Resume::Resumed, "the target has parts of it from an earlier run; the rest is loaded."),
            };
            report.resume(resume, reason);
        }
        let found = note_found(&mut transfer, &prepared.found)?;
        // Its bytes are counted as the archive is read past them.
        report.count(|totals| totals.parts += found.parts);
        let load = self.runner.load.insert(Load::new(target, prepared, transfer, None, stop));
        let engine = json!(sealed.plan().engine.name);
        let session = sealed.session(&self.key.sealing, &mut load.transfer_mut())?;
        report.event("started", &[("engine", engine), ("suite", json!(session.keys().suite().name()))]);
        Ok(session)
    }

    /// An earlier run had another target: what is staged there is given up.
    fn drop_staged(&self, earlier: &KeptLoad) {
        let Setting { report, state, engines, .. } = self.runner.setting;
        let dropped = drop_target(state, engines, self.runner.transfer, &earlier.target, &earlier.ending);
        report.resume(Resume::Restarted, "the earlier run had another target; what it had staged there is dropped.");
        if let Err(failure) = dropped {
            report.say(&format!("receiver: what was staged there could not be dropped: {}", failure.what));
        }
    }

    /// Loads everything. Not cancel-safe: chunks between archive and target are lost.
    async fn unload(&mut self, session: ReceiverSession, records: Records) -> Outcome<ReceiverSession> {
        let Runner { record, load, setting: Setting { report, .. }, .. } = &mut self.runner;
        let load = load.as_ref().ok_or_else(|| failed("no load"))?;
        let unload = Unload::new(load, report);
        let unloaded = async {
            tokio::select! {
                biased;
                failure = load.watch(report) => Err(failure),
                session = unload.run(session, records) => session,
            }
        };
        recording_stage(record, load, unloaded).await
    }
}
