//! `push`: one transfer, from ticket to receipt.

use std::{
    io::{BufRead, BufReader, Read},
    net::{SocketAddr, UdpSocket},
    process::ExitCode,
    sync::Arc,
};

use sealift_agent::{
    audit::AuditLog,
    endpoint::{bind, client_config},
    failure::{Failure, Outcome},
    identity::{Identity, Role},
    link::{Link, connect, open_control},
    location::Location,
    program::Program,
    random::SystemRandom,
    report::{Finished, Report},
    shutdown::Shutdown,
    state::StateDir,
    ticket::{TICKET_BYTES_MAX, Ticket},
    trust::Trust,
};
use sealift_protocol::{close::Code, key::DigestSecret, manifest::Plan, manifest::SignedReceipt, send::Transfer};
use serde_json::json;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::{
    cli::PushArgs,
    pipeline::{Pipeline, negotiate},
    reader::Reader,
    source::{Source, opaque::OpaqueSource, sqlite::SqliteSource},
    workers::Workers,
};

/// Base64 and line ends make a ticket's text longer than its bytes by a third and a bit.
const TICKET_TEXT_BYTES_MAX: u64 = 2 * TICKET_BYTES_MAX as u64;

pub async fn push(args: PushArgs) -> ExitCode {
    let report = Report::new(Role::Sender, args.transfer.json);
    let outcome = run(&args, &report).await;
    report.finish(&outcome)
}

async fn run(args: &PushArgs, report: &Report) -> Outcome<Finished> {
    args.transfer.apply()?;
    let location = Location::parse(&args.source)?;
    if args.source == "-" && args.ticket == "-" {
        let next = "Give the ticket as a file, or the source as file: or exec:.";
        return Err(Failure::usage("source and ticket cannot both be standard input", next));
    }
    let state = StateDir::open(args.transfer.state_dir.clone(), "sealift-sender")?;
    let audit = AuditLog::open(&state, "sealift-sender")?;
    let ticket = read_ticket(&args.ticket)?;
    ticket.grant.grant.check_time(OffsetDateTime::now_utc().unix_timestamp() as u64)?;
    let transfer_id = ticket.grant.grant.transfer;
    report.set_transfer(transfer_id);
    if args.transfer.danger_show_program_output {
        audit.append("danger.show_program_output", Some(transfer_id), &[])?;
    }

    let mut shutdown = Shutdown::listen()?;
    let identity =
        Identity::new(vec![ticket.certificate.clone().into()], Zeroizing::new(ticket.key.clone()), Role::Sender)?;
    let pusher = Pusher { args, report, audit: &audit, ticket: &ticket, identity: &identity };
    let mut program = None;
    let outcome = pusher.run(&location, &mut program, &mut shutdown).await;
    let outcome = outcome.and_then(|receipt| {
        let receipt_path = state.keep_receipt(transfer_id, &receipt)?;
        Ok(Finished { receipt, receipt_path })
    });
    if let Some(program) = program {
        program.kill();
    }
    let word = outcome.as_ref().map_or_else(|failure| failure.code.word(), |_| Code::Done.word());
    audit.append("transfer.end", Some(transfer_id), &[("outcome", json!(word))])?;
    outcome
}

/// A source, and the program behind it that has to be killed if the transfer ends before it does.
struct OpenedSource {
    source: Box<dyn Source>,
    program: Option<Arc<Program>>,
}

fn open_source(location: &Location, args: &PushArgs) -> Outcome<OpenedSource> {
    let plain = |source: Box<dyn Source>| OpenedSource { source, program: None };
    Ok(match location {
        Location::Standard => plain(Box::new(OpaqueSource::standard())),
        Location::File(path) => plain(Box::new(OpaqueSource::file(path)?)),
        Location::Sqlite(path) => plain(Box::new(SqliteSource::open(path)?)),
        Location::Exec(words) => {
            let program = Arc::new(Program::new(words.clone(), args.transfer.danger_show_program_output)?);
            OpenedSource { source: Box::new(OpaqueSource::exec(Arc::clone(&program))), program: Some(program) }
        }
        Location::Discard => {
            return Err(Failure::usage("discard: is a target, not a source", "Give the source of the data."));
        }
    })
}

/// Reads up to the end of the one ticket, and no further: a pipe from the receiver stays open while it works.
fn read_ticket(from: &str) -> Outcome<Ticket> {
    let next = "Start the receiver with --ticket-out, and give its ticket here: a file, or - for standard input.";
    let unreadable =
        |error: std::io::Error| Failure::io(Code::Usage, format!("the ticket {from} cannot be read"), &error, next);
    let input: Box<dyn Read> = match from {
        "-" => Box::new(std::io::stdin().lock()),
        path => Box::new(std::fs::File::open(path).map_err(unreadable)?),
    };
    let mut lines = BufReader::new(input.take(TICKET_TEXT_BYTES_MAX));
    let mut text = Zeroizing::new(String::new());
    loop {
        let start = text.len();
        let read = lines.read_line(&mut text).map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidData => {
                Failure::new(Code::GrantInvalid, "the ticket is damaged: it is not text", next)
            }
            _ => unreadable(error),
        })?;
        if read == 0 || Ticket::is_end(&text[start..]) {
            break;
        }
    }
    if text.trim().is_empty() {
        return Err(Failure::new(Code::GrantInvalid, "there is no ticket: the input is empty", next));
    }
    Ticket::from_text(&text)
}

fn announce(report: &Report, plan: &Plan) {
    let estimates: Option<u64> = plan.parts.iter().map(|part| part.bytes_estimate).sum::<Option<u64>>();
    report.count(|totals| {
        totals.parts_planned = plan.parts.len() as u64;
        totals.plain_bytes_estimate = estimates;
    });
    report.event("planned", &[("parts", json!(plan.parts.len()))]);
}

/// It ended after everything had been sent: the sender cannot know whether it was loaded.
fn unsure(failure: Failure) -> Failure {
    let next = "Everything had been sent by then. The receiver may have loaded it: look there for its receipt before you \
                start again.";
    Failure { next: next.into(), ..failure }
}

/// Everything that running the one transfer needs.
struct Pusher<'a> {
    args: &'a PushArgs,
    report: &'a Report,
    audit: &'a AuditLog,
    ticket: &'a Ticket,
    identity: &'a Identity,
}

impl Pusher<'_> {
    async fn run(
        &self,
        location: &Location,
        program: &mut Option<Arc<Program>>,
        shutdown: &mut Shutdown,
    ) -> Outcome<SignedReceipt> {
        let planned = async {
            let opened = open_source(location, self.args)?;
            *program = opened.program;
            Reader::start(opened.source, self.args.transfer.row_bytes_max as usize).await
        };
        match shutdown.or(planned).await {
            Ok((reader, plan)) => {
                announce(self.report, &plan);
                self.transfer(&reader, plan, shutdown).await
            }
            Err(failure) => {
                // In the one-line form nobody could use the ticket again: the receiver need not wait for it to expire.
                if self.args.ticket == "-" {
                    let _ = shutdown.or(self.call_off(&failure)).await;
                }
                Err(failure)
            }
        }
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
        let endpoint_for = |address: SocketAddr| {
            let any: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
            let socket = UdpSocket::bind(any)
                .map_err(|error| Failure::io(Code::Preflight, "no UDP socket can be opened", &error, ""))?;
            let receiver = self.ticket.grant.grant.receiver.clone();
            let trust = Trust::new(self.ticket.root_certificate(), Some(receiver));
            let mut endpoint = bind(socket, None)?;
            endpoint.set_default_client_config(client_config(self.identity, trust)?);
            Ok(endpoint)
        };
        connect(endpoint_for, &self.ticket.addresses, self.identity).await
    }

    async fn transfer(&self, reader: &Reader, plan: Plan, shutdown: &mut Shutdown) -> Outcome<SignedReceipt> {
        let grant = &self.ticket.grant.grant;
        self.audit.append(
            "transfer.begin",
            Some(grant.transfer),
            &[("receiver", json!(grant.receiver)), ("target", json!(grant.target)), ("purpose", json!(grant.purpose))],
        )?;
        let digest_secret = DigestSecret::generate(&mut SystemRandom::default());
        let suites = self.args.transfer.suite.suites();
        let transfer = Transfer::new(suites, self.ticket.grant.clone(), plan, digest_secret)?;
        let (endpoint, link) = shutdown.or(self.connect()).await?;
        self.report.event("connected", &[("address", json!(link.connection.remote_address().to_string()))]);

        let (mut writer, mut control) = open_control(&link).await?;
        let outcome = async {
            let negotiating = negotiate(&transfer, &link, self.identity, &mut writer, &mut control);
            let session = shutdown.or(negotiating).await?;
            self.report.event("started", &[("suite", json!(session.keys.suite().name()))]);
            let workers = Workers::new(self.args.compression);
            let pipeline = Pipeline::new(&link, reader, &workers, self.report, self.identity, transfer, session);
            let outcome = shutdown.or(pipeline.run(&mut writer, &mut control)).await;
            outcome.map_err(|failure| match failure.code {
                Code::Interrupted | Code::UserInterrupt if pipeline.has_sent_all() => unsure(failure),
                _ => failure,
            })
        }
        .await;
        match &outcome {
            Ok(_) => {
                writer.finish().await;
                link.close(Code::Done);
            }
            Err(failure) => link.refuse(writer, failure).await,
        }
        endpoint.wait_idle().await;
        outcome
    }
}
