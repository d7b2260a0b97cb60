//! `listen`: one transfer, from ticket to receipt.

use std::{
    fs::OpenOptions, io::Write, net::UdpSocket, os::unix::fs::OpenOptionsExt, path::Path, process::ExitCode, sync::Arc,
    time::Duration,
};

use sealift_agent::{
    acceptor::Acceptor,
    audit::AuditLog,
    endpoint::{bind, server_config},
    expiry::Expiry,
    failure::{Failure, Outcome},
    identity::Role,
    link::Link,
    location::Location,
    report::{Finished, Report},
    shutdown::Shutdown,
    state::StateDir,
    transfer_dir::TransferDir,
    units::human_duration,
};
use sealift_protocol::{close::Code, receive::Listening};
use serde_json::json;
use tokio::sync::mpsc;

use crate::{
    cli::ListenArgs,
    invitation::{Invitation, addresses},
    reception::receive_offers,
    record::Record,
    sink::{Sink, opaque::OpaqueSink, sqlite::SqliteSink},
    transfer::{Receiving, Setting},
};

/// For the last packets of a connection to leave.
const FAREWELL: Duration = Duration::from_secs(3);

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
    let open_sink = || open_sink(&location, args);
    open_sink()?;
    let state = StateDir::open(args.transfer.state_dir.clone(), "sealift-receiver")?;
    let audit = AuditLog::open(&state, "sealift-receiver")?;
    TransferDir::sweep(&state)?;

    let earlier = find_unfinished(&state, &args.target, report)?;
    let socket = bind_socket(args, earlier.as_ref())?;
    let bound = socket.local_addr().unwrap_or(args.bind);
    let addresses = addresses(&args.address, bound)?;
    let record = match earlier {
        // It may have moved: the ticket says where it is now (fault-matrix N14).
        Some(mut record) => {
            record.kept.invitation.ticket.addresses = addresses;
            record.kept.port = bound.port();
            record.keep()?;
            record
        }
        None => {
            let invitation = Invitation::make(addresses, TARGET_NAME, &args.purpose, args.valid_for)?;
            Record::begin(&state, invitation, &args.target, bound.port())?
        }
    };
    let transfer = record.transfer();
    report.set_transfer(transfer);
    for (typed, event) in [
        (args.danger_plaintext_file, "danger.plaintext_file"),
        (args.transfer.danger_show_program_output, "danger.show_program_output"),
    ] {
        if typed {
            audit.append(event, Some(transfer), &[])?;
        }
    }
    let invitation = record.kept.invitation.clone();
    let expiry = Expiry::of(&invitation.ticket.grant.grant);
    audit.append(
        "ticket.issue",
        Some(transfer),
        &[("purpose", json!(invitation.ticket.grant.grant.purpose)), ("valid_seconds", json!(expiry.left().as_secs()))],
    )?;
    let identity = invitation.identity()?;
    let endpoint = bind(socket, Some(server_config(&identity, invitation.trust())?))?;
    let mut shutdown = Shutdown::listen()?;
    write_ticket(&args.ticket_out, &invitation)?;
    report.event("listening", &[("address", json!(bound.to_string()))]);
    report.say(&format!(
        "receiver: waiting at {bound} (UDP) for the sender that has the ticket; it is good for {}.",
        human_duration(expiry.left())
    ));

    let setting = Setting {
        report,
        audit: &audit,
        state: &state,
        identity: &identity,
        memory: args.transfer.memory,
        grace: args.grace,
        open_sink: &open_sink,
    };
    let outcome = serve(setting, record, &invitation, &endpoint, args, &mut shutdown).await;
    // Gives the last packets a moment to leave.
    let _ = tokio::time::timeout(FAREWELL, endpoint.wait_idle()).await;
    let word = outcome.as_ref().map_or_else(|failure: &Failure| failure.code.word(), |_| Code::Done.word());
    audit.append("transfer.end", Some(transfer), &[("outcome", json!(word))])?;
    outcome
}

/// Hears whoever has the ticket, and runs the one transfer.
async fn serve(
    setting: Setting<'_>,
    record: Record,
    invitation: &Invitation,
    endpoint: &quinn::Endpoint,
    args: &ListenArgs,
    shutdown: &mut Shutdown,
) -> Outcome<Finished> {
    let identity = setting.identity;
    let mut receiving = shutdown.or(Receiving::new(setting, record)).await?;
    let listening = |link: &Link| Listening {
        suites: args.transfer.suite.suites(),
        grant_keys: vec![invitation.grant_key],
        receiver: identity.id.as_str().to_owned(),
        sender: link.peer.id.as_str().to_owned(),
        sender_key: link.peer.key,
        targets: vec![TARGET_NAME.to_owned()],
    };
    let mut acceptor = Acceptor::new(endpoint, identity);
    let (offers, mut heard) = mpsc::channel(1);
    let outcome = tokio::select! {
        outcome = receiving.run(&mut heard, shutdown) => outcome,
        closed = receive_offers(&mut acceptor, listening, &offers) => Err(closed),
    };
    receiving.end(&outcome).await?;
    outcome
}

/// The unfinished transfer into this target that an earlier process left here, if its ticket is still good. One that has
/// expired is dropped: nothing may go on with it.
fn find_unfinished(state: &StateDir, target: &str, report: &Report) -> Outcome<Option<Record>> {
    for transfer in TransferDir::list(state)? {
        let record = match Record::open(state, transfer) {
            Ok(Some(record)) if record.kept.target == target => record,
            Ok(_) => continue,
            Err(failure) if failure.code == Code::TransferBusy => continue,
            Err(failure) => return Err(failure),
        };
        if Expiry::of(&record.kept.invitation.ticket.grant.grant).left().is_zero() {
            report.say(&format!(
                "receiver: the ticket of the unfinished transfer {transfer} has expired; it is dropped."
            ));
            record.dir.destroy()?;
            continue;
        }
        report.say(&format!("receiver: going on with the transfer {transfer}, with the same ticket."));
        return Ok(Some(record));
    }
    Ok(None)
}

/// A transfer that goes on is where its ticket says.
fn bind_socket(args: &ListenArgs, earlier: Option<&Record>) -> Outcome<UdpSocket> {
    let mut bind = args.bind;
    if let (0, Some(record)) = (bind.port(), earlier) {
        bind.set_port(record.kept.port);
    }
    UdpSocket::bind(bind).map_err(|error| {
        let next = "Another receiver may be running there; choose another port with --bind IP:PORT.";
        Failure::io(Code::Preflight, format!("cannot listen at {bind} (UDP)"), &error, next)
    })
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
            // A ticket of an earlier run is replaced at once: a sender may be about to read it. Nothing is written through a
            // link that somebody left there.
            let path = Path::new(path);
            let beside = path.with_file_name(format!(".{}.partial", path.file_name().unwrap_or_default().display()));
            let _ = std::fs::remove_file(&beside);
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside);
            let written = file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
            written.and_then(|()| std::fs::rename(&beside, path)).inspect_err(|_| {
                let _ = std::fs::remove_file(&beside);
            })
        }
    };
    written.map_err(|error| {
        let next = "Check the path given to --ticket-out, or that the program behind the pipe is still there.";
        Failure::io(Code::Usage, "the ticket cannot be written", &error, next)
    })
}
