//! `listen`: one transfer, from ticket to receipt.

use std::{
    fs::OpenOptions, io::Write, net::UdpSocket, os::unix::fs::OpenOptionsExt, path::PathBuf, process::ExitCode,
    sync::Arc, time::Duration,
};

use sealift_agent::{
    acceptor::Acceptor,
    audit::AuditLog,
    endpoint::{bind, server_config},
    failure::{Failure, Outcome},
    identity::Role,
    link::{ControlReader, ControlWriter, Link, MESSAGE_TIMEOUT},
    location::Location,
    random::SystemRandom,
    report::{Finished, Report},
    shutdown::Shutdown,
    state::StateDir,
    units::human_duration,
};
use sealift_protocol::{
    close::Code,
    envelope::SealingKey,
    error::Error,
    id::{Epoch, TransferId},
    manifest::SignedReceipt,
    message::Message,
    receive::{Judging, Listening, ReceiptFacts, Receiving, Window},
};
use serde_json::json;
use time::OffsetDateTime;

use crate::{
    cli::ListenArgs,
    invitation::{Invitation, addresses},
    pipeline::Pipeline,
    reception::{Offered, first_offer, turn_away},
    sink::{Sink, opaque::OpaqueSink, sqlite::SqliteSink},
    workers::Workers,
};

/// What the grant calls the one target of a `listen`: the sender names it and never learns what it stands for.
const TARGET_NAME: &str = "listen";

pub async fn listen(args: ListenArgs) -> ExitCode {
    let report = Report::new(Role::Receiver, args.transfer.json);
    let outcome = run(&args, &report).await;
    report.finish(&outcome)
}

async fn run(args: &ListenArgs, report: &Report) -> Outcome<Finished> {
    args.transfer.apply()?;
    check_stdout(args)?;
    let location = Location::parse(&args.target)?;
    let sink = open_sink(&location, args)?;
    let state = StateDir::open(args.transfer.state_dir.clone(), "sealift-receiver")?;
    let audit = AuditLog::open(&state, "sealift-receiver")?;

    let socket = UdpSocket::bind(args.bind).map_err(|error| {
        let next = "Another receiver may be running there; choose another port with --bind IP:PORT.";
        Failure::io(Code::Preflight, format!("cannot listen at {} (UDP)", args.bind), &error, next)
    })?;
    let bound = socket.local_addr().unwrap_or(args.bind);
    let addresses = addresses(&args.address, bound)?;
    let invitation = Invitation::make(addresses, TARGET_NAME, &args.purpose, args.valid_for)?;
    let transfer = invitation.ticket.grant.grant.transfer;
    report.set_transfer(transfer);
    for (typed, event) in [
        (args.danger_plaintext_file, "danger.plaintext_file"),
        (args.transfer.danger_show_program_output, "danger.show_program_output"),
    ] {
        if typed {
            audit.append(event, Some(transfer), &[])?;
        }
    }
    let valid_seconds = args.valid_for.as_secs();
    audit.append(
        "ticket.issue",
        Some(transfer),
        &[("purpose", json!(args.purpose)), ("valid_seconds", json!(valid_seconds))],
    )?;
    let endpoint = bind(socket, Some(server_config(&invitation.identity, invitation.trust())?))?;
    let mut shutdown = Shutdown::listen()?;
    write_ticket(&args.ticket_out, &invitation)?;
    report.event("listening", &[("address", json!(bound.to_string()))]);
    report.say(&format!(
        "receiver: waiting at {bound} (UDP) for the sender that has the ticket; it is good for {}.",
        human_duration(args.valid_for)
    ));

    let receiver = Receiver { args, report, audit: &audit, state: &state, invitation: &invitation, sink: &sink };
    let outcome = receiver.serve(&endpoint, &mut shutdown).await;
    if outcome.is_err() {
        let sink = Arc::clone(&sink);
        let _ = tokio::task::spawn_blocking(move || sink.abandon()).await;
    }
    // Gives the last packets a moment to leave.
    let _ = tokio::time::timeout(Duration::from_secs(3), endpoint.wait_idle()).await;
    let word = outcome.as_ref().map_or_else(|failure: &Failure| failure.code.word(), |_| Code::Done.word());
    audit.append("transfer.end", Some(transfer), &[("outcome", json!(word))])?;
    outcome
}

/// Standard output has one use at a time.
fn check_stdout(args: &ListenArgs) -> Outcome {
    let uses = [
        (args.ticket_out == "-", "--ticket-out -"),
        (args.target == "-", "--target -"),
        (args.transfer.json, "--json"),
    ];
    let names: Vec<&str> = uses.iter().filter(|(used, _)| *used).map(|(_, name)| *name).collect();
    match names.len() {
        0 | 1 => Ok(()),
        _ => {
            let what = format!("{} all need standard output", names.join(" and "));
            Err(Failure::usage(what, "Give the ticket a file: --ticket-out FILE."))
        }
    }
}

fn open_sink(location: &Location, args: &ListenArgs) -> Outcome<Arc<dyn Sink>> {
    Ok(match location {
        Location::Standard => Arc::new(OpaqueSink::standard()?),
        Location::Discard => Arc::new(OpaqueSink::discard()),
        Location::Sqlite(path) => Arc::new(SqliteSink::new(path, args.transfer.row_bytes_max as usize)?),
        Location::Exec(words) => {
            sealift_agent::program::find(&words[0], Code::TargetFailed)?;
            Arc::new(OpaqueSink::exec(words.clone(), args.transfer.danger_show_program_output))
        }
        Location::File(path) if args.danger_plaintext_file => Arc::new(OpaqueSink::file(path)?),
        Location::File(_) => {
            let next =
                "Load into a database (exec:, sqlite:), or type --danger-plaintext-file if you mean it: it is logged.";
            return Err(Failure::usage("a file: target would hold every row in the clear", next));
        }
    })
}

fn write_ticket(to: &str, invitation: &Invitation) -> Outcome {
    let text = invitation.ticket.to_text();
    let written = match to {
        "-" => {
            let mut out = std::io::stdout().lock();
            out.write_all(text.as_bytes()).and_then(|()| out.flush())
        }
        path => {
            // A ticket of an earlier run is replaced; nothing is written through a link that somebody left there.
            let _ = std::fs::remove_file(path);
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
            file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        }
    };
    written.map_err(|error| {
        let next = "Check the path given to --ticket-out, or that the program behind the pipe is still there.";
        Failure::io(Code::Usage, "the ticket cannot be written", &error, next)
    })
}

/// Everything that serving the one transfer needs.
struct Receiver<'a> {
    args: &'a ListenArgs,
    report: &'a Report,
    audit: &'a AuditLog,
    state: &'a StateDir,
    invitation: &'a Invitation,
    sink: &'a Arc<dyn Sink>,
}

impl Receiver<'_> {
    /// Waits for the sender, at most as long as the ticket is good, and runs its transfer. Others are turned away.
    async fn serve(&self, endpoint: &quinn::Endpoint, shutdown: &mut Shutdown) -> Outcome<Finished> {
        let mut acceptor = Acceptor::new(endpoint, &self.invitation.identity);
        let expiry = tokio::time::sleep(self.args.valid_for);
        tokio::pin!(expiry);
        let expired =
            || Failure::new(Code::GrantExpired, "the ticket expired", "Start the receiver again for a new one.");
        let Offered { link, judging, mut writer, mut control } = tokio::select! {
            offered = first_offer(&mut acceptor, |link| self.listening(link)) => offered?,
            () = &mut expiry => return Err(expired()),
            stopped = shutdown.requested() => return Err(stopped),
        };
        let outcome = tokio::select! {
            outcome = self.transfer(&link, judging, &mut writer, &mut control) => outcome,
            never = turn_away(&mut acceptor) => Err(never),
            () = &mut expiry => Err(expired()),
            stopped = shutdown.requested() => Err(stopped),
        };
        match &outcome {
            Ok(_) => {
                // The sender ends its side once it has checked the receipt.
                let _ = tokio::time::timeout(MESSAGE_TIMEOUT, control.next()).await;
                writer.finish().await;
                link.close(Code::Done);
            }
            Err(failure) => link.refuse(writer, failure).await,
        }
        outcome
    }

    fn listening(&self, link: &Link) -> Listening {
        Listening {
            suites: self.args.transfer.suite.suites(),
            grant_keys: vec![self.invitation.grant_key],
            receiver: self.invitation.identity.id.as_str().to_owned(),
            sender: link.peer.id.as_str().to_owned(),
            sender_key: link.peer.key,
            targets: vec![TARGET_NAME.to_owned()],
        }
    }

    async fn transfer(
        &self,
        link: &Link,
        judging: Judging,
        writer: &mut ControlWriter,
        control: &mut ControlReader,
    ) -> Outcome<Finished> {
        let started_ms = now_ms();
        let grant = judging.grant().grant.clone();
        self.audit.append(
            "transfer.begin",
            Some(grant.transfer),
            &[("sender", json!(grant.sender)), ("purpose", json!(grant.purpose))],
        )?;
        let plan = judging.plan().clone();
        self.report.count(|totals| totals.parts_planned = plan.parts.len() as u64);
        self.blocking({
            let plan = plan.clone();
            let transfer = grant.transfer;
            move |sink| sink.prepare(transfer, &plan, false)
        })
        .await?;

        let mut random = SystemRandom::default();
        let sealing_key = SealingKey::generate(&mut random);
        let window = Window::share(self.args.transfer.memory / 2, plan.parts.len());
        let identity = &self.invitation.identity;
        let (accepting, message) = judging.accept(Epoch(1), window, sealing_key.public_key(), identity, &mut random)?;
        let accept_bytes = writer.send(&message).await?;
        let Message::Begin(begin) = control.expect(accept_bytes).await? else {
            return Err(Error::new(Code::ProtocolViolation, "Begin").into());
        };
        let (receiving, message) = accepting.handle_begin(begin, &sealing_key)?;
        writer.send(&message).await?;
        self.report.event("started", &[("suite", json!(receiving.keys().suite().name()))]);

        let workers = Workers::default();
        let (pipeline, events) = Pipeline::new(link, self.report, Arc::clone(self.sink), &workers, receiving);
        pipeline.run(writer, control, events).await?;
        let receipt = self.settle(link, &pipeline.into_receiving(), grant.transfer, started_ms).await?;
        let receipt_path = self.publish(grant.transfer, &receipt).await?;
        self.report.count(|totals| totals.rows = receipt.receipt.loaded.iter().map(|part| part.rows).sum());
        // From here on the load is there, whether or not the sender can still be told.
        if writer.send(&Message::Receipt(Box::new(receipt.clone()))).await.is_err() {
            self.report
                .say("receiver: the sender went away before it had the receipt; give it the one that is kept here.");
        }
        Ok(Finished { receipt, receipt_path })
    }

    /// Keeps the receipt, and shows the load under its final name: both, or neither.
    async fn publish(&self, transfer: TransferId, receipt: &SignedReceipt) -> Outcome<PathBuf> {
        let receipt_path = self.state.keep_receipt(transfer, receipt)?;
        self.audit.append("transfer.publish", Some(transfer), &[])?;
        let published = self.blocking(move |sink| sink.publish(transfer)).await;
        if published.is_err() {
            let _ = std::fs::remove_file(&receipt_path);
        }
        published?;
        let forget = move |sink: &dyn Sink| {
            sink.forget(transfer);
            Ok(())
        };
        let _ = self.blocking(forget).await;
        Ok(receipt_path)
    }

    /// Ends the load, proves it from the target, and signs what was found.
    async fn settle(
        &self,
        link: &Link,
        receiving: &Receiving,
        transfer: TransferId,
        started_ms: u64,
    ) -> Outcome<SignedReceipt> {
        let digests = receiving.keys().digests().clone();
        tracing::info!(%transfer, "everything arrived; proving it from the target");
        let (proof, loaded) = self.blocking(move |sink| sink.prove(&digests)).await?;
        let facts = ReceiptFacts {
            proof,
            loaded,
            tls: link.tls_description(),
            started_ms,
            finished_ms: now_ms(),
            software: format!("sealift-receiver {}", env!("CARGO_PKG_VERSION")),
        };
        Ok(receiving.receipt(facts, &self.invitation.identity)?)
    }

    /// Runs a step of the sink off the async thread.
    async fn blocking<T: Send + 'static>(
        &self,
        step: impl FnOnce(&dyn Sink) -> Outcome<T> + Send + 'static,
    ) -> Outcome<T> {
        let sink = Arc::clone(self.sink);
        let done = tokio::task::spawn_blocking(move || step(&*sink)).await;
        done.map_err(|_| Failure::new(Code::Internal, "a step of the target ended early", ""))?
    }
}

fn now_ms() -> u64 {
    (OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000) as u64
}
