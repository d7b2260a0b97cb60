//! `listen`: one transfer, from ticket to receipt.

use std::{
    cell::Cell,
    io::Write,
    os::fd::AsFd,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use sealift_agent::{
    audit::{AuditLog, entry::Entry},
    clock::now_seconds,
    credentials::Credentials,
    door::Door,
    fail_point::{self, Point},
    failure::{Failure, Outcome},
    identity::Identity,
    link::{
        Acceptor, Link, Listener,
        socket::{Listening, listen_at},
    },
    output::Output,
    permit::Permit,
    preflight::Preflight,
    report::{Finished, Report},
    role::Role,
    session::{is_stream, is_writable, reader_is_gone},
    shutdown::Shutdown,
    state::StateDir,
    stop::Stop,
    ticket::Ticket,
    transfer_dir::TransferDir,
    trust::Trust,
    units::human_duration,
};
use sealift_engine_api::{Engines, Readiness};
use sealift_protocol::{
    close::Code,
    disposition::{Disposition, Event, disposition, receiver::Input},
    grant::LISTEN_TARGET,
    receive,
    sign::Signer,
};
use serde_json::json;
use tokio::sync::mpsc;

use crate::{
    activity::Activity,
    cli::ListenArgs,
    ending::{KeepsEnding, found_in_doubt},
    invitation::{addresses, permit, random_transfer, say_unknown, ticket_for},
    reception::{Proofs, receive_offers, record_last_refusals, record_refusals},
    record::{Kept, Record},
    runner::Setting,
    target::{self, dangers},
    ticket_book::{Proven, TicketBook},
    transfer::{self, TICKET_VOID, Terms},
    unfinished::drop_expired,
};

/// For the last packets of a connection to leave.
const FAREWELL: Duration = Duration::from_secs(3);

/// For a sender whose connection is on its way although its process has ended, and between two
/// looks.
const READER_GONE_AFTER: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// An `ssh` between this process and the sender notices that the sender has ended when it has
/// something to pass on. So a blank line follows the ticket now and then; a ticket is read
/// to its end line.
const BLANK_LINE_EVERY: Duration = Duration::from_secs(5);

pub async fn listen(args: ListenArgs, engines: Engines) -> ExitCode {
    let report = Report::new(Role::Receiver, args.transfer.json);
    let outcome = run(&args, engines, &report).await;
    report.finish(&outcome)
}

async fn run(args: &ListenArgs, engines: Engines, report: &Report) -> Outcome<Finished> {
    args.transfer.apply()?;
    let ticket_out = Output::find("--ticket-out", &args.ticket_out)?;
    check_stdout(args, &ticket_out)?;
    let endpoint = engines.parse(&args.target)?;
    let waivers = args.waivers.parse(engines.findings(&args.target))?;
    let options = target::options(&args.transfer, args.danger_plaintext_file, waivers);
    let open_target = || endpoint.open_target(&options, engines);
    open_target()?;
    let target = endpoint.url();
    let state = StateDir::open(args.transfer.state_dir.clone(), "sealift-receiver")?;
    let audit = AuditLog::open(&state, "sealift-receiver")?;
    TransferDir::sweep(&state)?;

    drop_expired(&state, &audit, engines)?.iter().for_each(|line| report.say(line));
    let identity = Arc::new(Identity::open(&state, Role::Receiver, &audit)?);
    let earlier = find_unfinished(&state, &target, report)?;
    if earlier.is_none() {
        let mut preflight = Preflight::new(report, &audit, None, &options.waivers);
        preflight.take(open_target()?.check(Readiness::Staging)?)?;
        preflight.finish(Role::Receiver);
    }
    let Listening { socket, note } = bind_socket(args, earlier.as_ref())?;
    note.iter().for_each(|note| report.say(&format!("receiver: {note}")));
    let bound = socket.local_addr().unwrap_or(args.bind);
    let addresses = addresses("--address", &args.address, bound)?;
    say_unknown(&args.address, report).await;
    let is_new = earlier.is_none();
    let record = match earlier {
        // It may have moved: the ticket says where it is now (fault N14).
        Some(mut record) => {
            check_purpose(&args.grant.purpose, &record)?;
            record.kept.port = Some(bound.port());
            if record.permit().left().is_zero() {
                renew(&mut record, args, &state, &identity, report)?;
            }
            record.keep()?;
            record
        }
        None => {
            let grant = permit(&args.grant, random_transfer(), LISTEN_TARGET, &state, &identity, now_seconds())?;
            Record::begin(&state, grant, &target, Some(bound.port()))?
        }
    };
    let transfer = record.transfer();
    let book = TicketBook::open(&state, &audit)?;
    let ticket = ticket_for(&record, &book, addresses)?;
    report.set_transfer(transfer);
    if disposition(record.kept.stage(), Event::Opened) == Disposition::AskOperator {
        return Err(found_in_doubt(report, transfer));
    }
    dangers(&options, None).iter().try_for_each(|entry| audit.append(Some(transfer), entry))?;
    fail_point::hit(Point::Invited);
    let permit = record.permit();
    audit.append(Some(transfer), &Entry::ticket_issue(&record.kept.grant.grant))?;
    // The proof of the ticket, and not the handshake, says who the sender is.
    let credentials = Credentials::new(Arc::clone(&identity), Trust::AnyKey);
    let listener = Listener::start(socket, &credentials)?;
    let door = Door::default();
    let acceptor = Acceptor::new(&listener, &door)?;
    let stop = Stop::on(Shutdown::listen()?);
    if let Err(failure) = put_ticket(&ticket_out, &ticket, &stop).await {
        // No sender has the ticket; one of an earlier run may be in use.
        if is_new {
            record.dir.destroy()?;
        }
        audit.append(Some(transfer), &Entry::TransferEnd { outcome: failure.code, receipt: None })?;
        return Err(failure);
    }
    report.event("listening", &[("address", json!(bound.to_string()))]);
    report.say(&waiting_text(&bound.to_string(), &ticket, &record, &permit));
    report.say(&format!("receiver: its fingerprint is {}", identity.fingerprint()));

    let setting = Setting {
        report,
        audit: &audit,
        state: &state,
        identity: &identity,
        input: Input::Listen,
        open_target: &open_target,
        engines,
    };
    let piped = ticket_out.is_standard();
    let outcome = tokio::select! {
        outcome = serve(setting, record, &book, acceptor, args, piped, &stop) => outcome,
        never = credentials.follow(&state, Role::Receiver, report) => match never {},
        failure = record_refusals(&door, &audit) => Err(failure),
    };
    record_last_refusals(&door, &audit)?;
    if outcome.is_err() {
        // Gives the packets that say why a moment to leave.
        let _ = tokio::time::timeout(FAREWELL, listener.wait_idle()).await;
    }
    outcome
}

/// Off the async thread: a FIFO waits for its reader, and a signal has to end that.
async fn put_ticket(out: &Output, ticket: &Ticket, stop: &Stop) -> Outcome {
    let out = out.clone();
    let text = ticket.to_text();
    let putting = tokio::task::spawn_blocking(move || out.put_secret(&text));
    let put = async { putting.await.map_err(|_| Failure::new(Code::Internal, "the ticket's thread ended early", ""))? };
    stop.or(put).await.map_err(|failure| match failure.code {
        Code::UserInterrupt => Failure { hints: TICKET_VOID.into(), ..failure },
        _ => failure,
    })
}

/// Serves the holder of the ticket, and runs the one transfer. Runs the transfer until it ends. Not
/// cancel-safe: dropped, it leaves the transfer as a killed process would.
async fn serve(
    setting: Setting<'_>,
    record: Record,
    book: &TicketBook,
    mut acceptor: Acceptor<'_>,
    args: &ListenArgs,
    piped: bool,
    stop: &Stop,
) -> Outcome<Finished> {
    let identity = setting.identity;
    let came = Cell::new(record.kept.stage().is_begun());
    let listening = |link: &Link, proven: Proven| {
        came.set(true);
        receive::Listening {
            suites: args.transfer.suite.suites(),
            grant_keys: vec![identity.public_key()],
            receiver: identity.fingerprint(),
            sender_key: link.peer,
            proven: proven.transfer,
            begun: proven.begun,
            targets: vec![LISTEN_TARGET.to_owned()],
        }
    };
    let proofs = Proofs { book, identity };
    let (offers, mut incoming) = mpsc::channel(1);
    let ended = async {
        tokio::select! {
            closed = receive_offers(&mut acceptor, proofs, listening, &offers) => closed,
            gone = reader_gone(&came), if piped => gone,
        }
    };
    // One transfer has the process to itself, however long its sender takes.
    let activity = Activity::new(Instant::now());
    let terms = Terms {
        memory: args.transfer.memory,
        grace: args.grace,
        journal_bytes_max: args.journal_bytes_max,
        activity: &activity,
    };
    transfer::receive(setting, terms, record, &mut incoming, stop, ended).await
}

/// In the one-line form the ticket goes to the sender alone: one that ends before it has come
/// leaves no sender to wait for. Cancel-safe.
async fn reader_gone(came: &Cell<bool>) -> Failure {
    let stdout = std::io::stdout();
    let mut gone_since = None;
    let mut written = Instant::now();
    while !came.get() {
        if is_stream(&stdout) && written.elapsed() >= BLANK_LINE_EVERY && is_writable(stdout.as_fd()) {
            written = Instant::now();
            // Where it cannot be written, the reader has gone: that is seen below.
            let _ = writeln!(stdout.lock()).and_then(|()| stdout.lock().flush());
        }
        gone_since = if reader_is_gone(stdout.as_fd()) { gone_since.or(Some(Instant::now())) } else { None };
        if gone_since.is_some_and(|since| since.elapsed() >= READER_GONE_AFTER) {
            let what = "the program that was to read the ticket has ended, and no sender came";
            let next = "See what the sender said. To carry the ticket yourself, give it a file: --ticket-out FILE.";
            return Failure::new(Code::Unreachable, what, next);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    std::future::pending().await
}

/// Who may come, and until when.
fn waiting_text(bound: &str, ticket: &Ticket, record: &Record, permit: &Permit) -> String {
    let left = human_duration(permit.left());
    match (&ticket.secret, record.kept.stage().is_begun()) {
        (_, true) => format!("receiver: waiting at {bound} (UDP) for the sender that began; it has {left} to finish."),
        (Some(_), false) => {
            format!(
                "receiver: waiting at {bound} (UDP) for the sender that has the ticket, which it can use for {left}."
            )
        }
        (None, false) => {
            format!("receiver: waiting at {bound} (UDP) for the sender that the ticket is bound to, for {left}.")
        }
    }
}

/// The grant of a suspended transfer has ended: giving the command again permits the rest of it.
fn renew(record: &mut Record, args: &ListenArgs, state: &StateDir, identity: &Identity, report: &Report) -> Outcome {
    let earlier = record.kept.grant.grant.clone();
    let mut grant = args.grant.clone();
    grant.purpose = earlier.purpose;
    record.kept.grant = permit(&grant, earlier.transfer, &earlier.target, state, identity, now_seconds())?;
    report.say("receiver: its time had run out. This command permits the rest of it: the sender needs the new ticket.");
    Ok(())
}

/// The unfinished transfer into this target that an earlier `listen` left here.
fn find_unfinished(state: &StateDir, target: &str, report: &Report) -> Outcome<Option<Record>> {
    for transfer in TransferDir::list(state)? {
        let is_ours = |kept: &Kept| kept.target == target;
        // Looked at first, so that another process that starts it at this moment finds it free.
        let opened = match TransferDir::look::<Kept>(state, transfer) {
            Ok(Some(look)) if !look.running && look.record.as_ref().is_some_and(is_ours) => {
                Record::open(state, transfer)
            }
            Ok(_) => continue,
            Err(failure) => Err(failure),
        };
        let record = match opened {
            Ok(Some(record)) if is_ours(&record.kept) => record,
            Ok(_) => continue,
            Err(failure) if failure.code == Code::TransferBusy => continue,
            Err(failure) => {
                report
                    .say(&format!("receiver: the unfinished transfer {transfer} is left as it is: {}.", failure.what));
                continue;
            }
        };
        if record.kept.port.is_none() {
            continue;
        }
        report.say(&format!("receiver: continuing the transfer {transfer}."));
        return Ok(Some(record));
    }
    Ok(None)
}

/// The purpose stands in the signed grant: another one is another transfer.
fn check_purpose(purpose: &str, record: &Record) -> Outcome {
    let grant = &record.kept.grant.grant;
    if purpose.is_empty() || purpose == grant.purpose {
        return Ok(());
    }
    let what = format!("the unfinished transfer into this target was begun for another purpose: {}", grant.purpose);
    let next = format!(
        "Give the same command as before to resume it; or end it with: sealift-receiver abandon {}",
        grant.transfer
    );
    Err(Failure::usage(what, next))
}

/// A transfer that goes on is where its ticket says.
fn bind_socket(args: &ListenArgs, earlier: Option<&Record>) -> Outcome<Listening> {
    let mut bind = args.bind;
    if let (0, Some(port)) = (bind.port(), earlier.and_then(|record| record.kept.port)) {
        bind.set_port(port);
    }
    listen_at(bind)
}

/// Standard output has one use at a time.
fn check_stdout(args: &ListenArgs, ticket_out: &Output) -> Outcome {
    let uses = [
        (ticket_out.is_standard(), "--ticket-out -"),
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
