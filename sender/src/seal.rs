//! `seal`: reads the source once and seals it into an archive, which only one receiver can open:
//! this process cannot, once it has ended, since the keys are nowhere but in its memory and in the
//! envelope.

mod out;

use std::{io::Read, process::ExitCode, rc::Rc, time::Duration};

use sealift_agent::{
    audit::{
        AuditLog,
        entry::{Entry, Name, Purpose},
    },
    budget::Budget,
    fail_point::{self, Point},
    failure::{Failure, Outcome, code_of},
    identity::Identity,
    preflight::Preflight,
    random::SystemRandom,
    receiver_key::{self, RECEIVER_KEY_TEXT_BYTES_MAX},
    report::{Archived, Report},
    role::Role,
    shutdown::Shutdown,
    state::StateDir,
    stop::{Cause, Stop},
};
use sealift_engine_api::{Endpoint, Engines, SourceOptions};
use sealift_protocol::{
    archive::{ARCHIVE_TARGET, ARCHIVE_VERSION, ArchiveOffer, Opening, ReceiverKey, Statement},
    close::Code,
    envelope::SealingPublicKey,
    frame::ChunkHeader,
    grant::{Grant, SignedGrant},
    id::{ChunkCount, PartIndex, TransferId},
    key::DigestSecret,
    limits::{CHUNK_HEADER_BYTES, NAME_BYTES_MAX},
    manifest::{ReceiverTrust, SignedManifest},
    message::Ack,
    random::Random,
    seal::Suite,
    sealed_log::{KeyFingerprint, LogHeader, LogId, LogKind, Record},
    send::{Read as ChunkRead, SenderTransfer, SourceLane},
    sign::Signer,
};
use serde_json::json;
use time::OffsetDateTime;

use self::out::{ArchiveOut, Writing};
use crate::{
    cli::SealArgs,
    lane::{Lane, Sealer},
    preflight,
    reader::{Opened, Reader, Reading, empty_dump},
    transfer::origin,
    workers::Workers,
};

pub async fn seal(args: SealArgs, engines: Engines) -> ExitCode {
    let report = Report::new(Role::Sender, args.transfer.json);
    let outcome = run(&args, engines, &report).await.map_err(|failure| match failure.code {
        Code::UserInterrupt => Failure { hints: "No archive was made. Start again.".into(), ..failure },
        _ => failure,
    });
    report.finish_archive(&outcome)
}

async fn run(args: &SealArgs, engines: Engines, report: &Report) -> Outcome<Archived> {
    args.transfer.apply()?;
    let out = out::check(&args.out)?;
    if out.is_standard() && args.transfer.json {
        return Err(Failure::usage("--out - and --json both need standard output", "Give --out a file."));
    }
    if args.purpose.len() > NAME_BYTES_MAX {
        return Err(Failure::usage("--purpose is too long", format!("Use at most {NAME_BYTES_MAX} bytes.")));
    }
    let endpoint = engines.parse(&args.source)?;
    args.form.check(&*endpoint)?;
    args.chosen.check(&*endpoint)?;
    let options = args.source_options(args.waivers.parse(engines.findings(&args.source))?);
    let receiver = read_key(args)?;
    let state = StateDir::open(args.transfer.state_dir.clone(), "sealift-sender")?;
    let audit = AuditLog::open(&state, "sealift-sender")?;
    let stop = Stop::on(Shutdown::listen()?);
    let sealing = Sealing::new(
        args,
        &*endpoint,
        options,
        report,
        &audit,
        receiver,
        Identity::open(&state, Role::Sender, &audit)?,
    )?;
    let transfer = sealing.transfer;
    report.set_transfer(transfer);
    if args.transfer.danger_show_program_output {
        audit.append(Some(transfer), &Entry::DangerShowProgramOutput { target: None })?;
    }
    if args.empty.allow_empty {
        audit.append(Some(transfer), &Entry::SourceEmptyAllowed {})?;
    }
    let outcome = sealing.run(&stop).await;
    audit.append(Some(transfer), &Entry::ArchiveEnd { outcome: code_of(&outcome) })?;
    outcome
}

/// One archive on its way.
struct Sealing<'a> {
    args: &'a SealArgs,
    endpoint: &'a dyn Endpoint,
    options: SourceOptions,
    report: &'a Report,
    audit: &'a AuditLog,
    receiver: ReceiverKey,
    transfer: TransferId,
    identity: Identity,
    /// The receiver's, which its identity vouches for.
    sealing_key: SealingPublicKey,
}

impl<'a> Sealing<'a> {
    fn new(
        args: &'a SealArgs,
        endpoint: &'a dyn Endpoint,
        options: SourceOptions,
        report: &'a Report,
        audit: &'a AuditLog,
        receiver: ReceiverKey,
        identity: Identity,
    ) -> Outcome<Self> {
        let mut id = [0; 16];
        SystemRandom::default().fill(&mut id);
        let sealing_key = receiver.sealing()?.clone();
        Ok(Self { args, endpoint, options, report, audit, receiver, transfer: TransferId(id), identity, sealing_key })
    }

    async fn run(&self, stop: &Stop) -> Outcome<Archived> {
        let to = self.receiver.fingerprint();
        let entry = Entry::ArchiveBegin {
            receiver: to,
            source: Name::new(self.endpoint.shown()),
            engine: self.endpoint.engine(self.args.form.of_engine()),
            purpose: Purpose::new(&self.args.purpose),
        };
        self.audit.append(Some(self.transfer), &entry)?;
        self.report.event("sealing", &[("receiver", json!(to.to_string()))]);
        self.report.say_lines(&format!(
            "sender: sealing to the receiver whose key has this fingerprint; compare it with its operator, out of band:\n  {to}"
        ));
        let header = LogHeader::new(
            LogId { kind: LogKind::Archive, transfer: self.transfer, key: KeyFingerprint::of(&self.sealing_key) },
            &mut SystemRandom::default(),
        );
        let source = self.endpoint.open_source(self.options.clone())?;
        let stop = stop.within();
        let mut preflight = Preflight::new(self.report, self.audit, Some(self.transfer), &self.options.waivers);
        let (source, findings) = stop.or(preflight::look(source, stop.clone())).await?;
        preflight.take(findings)?;
        let named = self.args.out.clone();
        // Off this thread: a FIFO waits for its reader, and a signal has to end that.
        let created = tokio::task::spawn_blocking(move || ArchiveOut::create(&named, header));
        let created = async { created.await.map_err(ended_early)? };
        let writing = Writing::start(stop.or(created).await?);
        let row_bytes_max = self.args.transfer.row_bytes_max as usize;
        let waivers = self.options.waivers.clone();
        let reading = Reading { waivers, row_bytes_max, empty: self.args.empty.said(), is_empty: empty_dump };
        let opening = Reader::start(source, reading, stop.clone());
        let sealed = stop.or(self.read(opening, preflight, &header, &writing)).await;
        match sealed {
            Ok((manifest, suite)) => self.finish(writing, manifest, suite).await,
            Err(failure) => {
                stop.raise(Cause::Closed, failure.clone());
                // A thread that could not write says more than who noticed it.
                let why = writing.abandon().await;
                Err(why.filter(|_| failure.code == Code::Internal).unwrap_or(failure))
            }
        }
    }

    /// Reads the whole source into the archive. Not cancel-safe: chunks between source and archive
    /// are lost.
    async fn read(
        &self,
        opening: impl Future<Output = Outcome<Opened>>,
        mut preflight: Preflight<'_>,
        header: &LogHeader,
        writing: &Writing,
    ) -> Outcome<(SignedManifest, Suite)> {
        let Opened { reader, plan, findings } = opening.await?;
        preflight.take(findings)?;
        preflight.finish(Role::Sender);
        self.report.planned(&plan);
        let engine = json!(plan.engine.name);
        let parts = json!(plan.parts.len());
        self.report.event("planned", &[("engine", engine), ("parts", parts)]);
        let suites = self.args.transfer.suite.suites();
        let suite = *suites.first().ok_or_else(|| Failure::new(Code::Internal, "no suite", ""))?;
        let grant = self.grant();
        let mut random = SystemRandom::default();
        let digest_secret = DigestSecret::generate(&mut random);
        let offer = ArchiveOffer {
            version: ARCHIVE_VERSION,
            grant: grant.clone(),
            plan: plan.clone(),
            sender_key: self.identity.public_key(),
        };
        let to = &self.sealing_key;
        let opening = Opening::make(header, offer, suite, &digest_secret, to, &self.identity, &mut random)?;
        for record in opening.records {
            append(writing, record).await?;
        }
        let engine = json!(plan.engine.name);
        self.report.event("started", &[("engine", engine), ("suite", json!(suite.name()))]);
        let sealer = Rc::new(Sealer::new(Workers::new(self.args.compression), Budget::new(self.args.transfer.memory)));
        sealer.set_keys(opening.keys);
        let parts = plan.parts.len() as u32;
        let mut transfer =
            SenderTransfer::new(suites, grant, plan, digest_secret, origin(ReceiverTrust::Ticket, self.endpoint))?;
        for part in (0..parts).map(PartIndex) {
            self.seal_part(part, &reader, &sealer, &mut transfer, writing).await?;
        }
        let Some(manifest) = transfer.poll_manifest(&self.identity, self.audit.head()?) else {
            return Err(Failure::new(Code::Internal, "no manifest", ""));
        };
        append(writing, Statement::Finish(manifest.clone()).to_record()).await?;
        Ok((manifest, suite))
    }

    /// What is written counts as acknowledged: nothing of it will ever be asked for again.
    async fn seal_part(
        &self,
        part: PartIndex,
        reader: &Reader,
        sealer: &Rc<Sealer>,
        transfer: &mut SenderTransfer,
        writing: &Writing,
    ) -> Outcome {
        let reading = reader.read(part, transfer.digests().multiset())?;
        let rules = SourceLane::new(transfer, part);
        let mut lane = Lane::new(reading, sealer.budget.open_lane().await?, rules, sealer);
        transfer.handle_start(part);
        while let Some(read) = lane.read().await? {
            let ChunkRead::Sealed(sealed, keys) = read else { continue };
            let header: ChunkHeader = sealed.header;
            transfer.handle_sealed(&sealed, &keys);
            let written = ChunkCount(header.index.0 + 1);
            append(writing, Record::Chunk { header, sealed: sealed.frame.slice(CHUNK_HEADER_BYTES..) }).await?;
            transfer.handle_ack(&Ack { part, verified: written, durable: written })?;
            self.report.count(|totals| {
                totals.rows = reader.rows();
                totals.moved(header.part, header.plain_bytes.into(), header.frame_bytes() as u64);
            });
        }
        let summary = lane.summary().await?;
        transfer.handle_source_end(&mut lane.rules, summary);
        let parts = transfer.parts_verified();
        let rows = reader.rows();
        self.report.count(|totals| (totals.parts, totals.rows) = (parts, rows));
        Ok(())
    }

    /// Everything is written: makes it durable, and visible.
    async fn finish(&self, writing: Writing, manifest: SignedManifest, suite: Suite) -> Outcome<Archived> {
        let out = writing.finish().await?;
        let sender = self.identity.fingerprint();
        fail_point::hit(Point::ManifestKept);
        self.audit.append(Some(self.transfer), &Entry::ArchivePublish { sender })?;
        tokio::task::spawn_blocking(move || out.finish()).await.map_err(ended_early)??;
        Ok(Archived { manifest: manifest.manifest, suite, sender })
    }

    fn grant(&self) -> SignedGrant {
        let now = OffsetDateTime::now_utc();
        let seconds = |at: OffsetDateTime| u64::try_from(at.unix_timestamp()).unwrap_or(0);
        let load_before_seconds = seconds(now.saturating_add(signed(self.args.valid_for)));
        let grant = Grant {
            transfer: self.transfer,
            sender: Some(self.identity.fingerprint()),
            receiver: self.receiver.fingerprint(),
            source: String::new(),
            target: ARCHIVE_TARGET.to_owned(),
            purpose: self.args.purpose.clone(),
            not_before_seconds: seconds(now),
            begin_before_seconds: load_before_seconds,
            finish_before_seconds: load_before_seconds,
            retain_until_seconds: load_before_seconds,
            scope: None,
            policy: None,
        };
        grant.sign(&self.identity)
    }
}

fn ended_early(_: tokio::task::JoinError) -> Failure {
    Failure::new(Code::Internal, "the archive's thread ended early", "")
}

fn signed(duration: Duration) -> time::Duration {
    time::Duration::try_from(duration).unwrap_or(time::Duration::MAX)
}

async fn append(writing: &Writing, record: Record) -> Outcome {
    match writing.append(record).await {
        true => Ok(()),
        false => Err(Failure::new(Code::Internal, "the archive's thread ended early", "")),
    }
}

fn read_key(args: &SealArgs) -> Outcome<ReceiverKey> {
    let mut text = String::new();
    let read =
        std::fs::File::open(&args.to).and_then(|file| file.take(RECEIVER_KEY_TEXT_BYTES_MAX).read_to_string(&mut text));
    read.map_err(|error| {
        let what = format!("the receiver's key {} cannot be read", args.to.display());
        Failure::io(
            Code::Usage,
            what,
            &error,
            "It is made on the target host: sealift-receiver key --out RECEIVER.pub.",
        )
    })?;
    receiver_key::from_text(&text)
}
