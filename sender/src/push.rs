//! `push`: one transfer, from ticket to receipt.

use std::{
    fs::File,
    io::Read,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use sealift_agent::{
    audit::{
        AuditLog,
        entry::{Entry, ReceiptFields},
    },
    clock::now_seconds,
    fail_point::{self, Point},
    failure::{Failure, Outcome, code_of},
    identity::{Identity, Role},
    permit::check_time,
    report::{Finished, Report},
    shutdown::Shutdown,
    state::StateDir,
    stop::Stop,
    ticket::{TICKET_BYTES_MAX, Ticket},
    transfer_dir::TransferDir,
};
use sealift_engine_api::{Engines, Place};
use sealift_protocol::{
    close::Code,
    disposition::sender::{Failed, Replay, SenderDisposition, Standing, sender_disposition},
    id::TransferId,
};
use zeroize::Zeroizing;

use crate::{
    cli::PushArgs,
    receiver_trust::establish,
    record::Record,
    transfer::{Destination, Sending},
};

/// Base64 and line ends make a ticket's text longer than its bytes by a third and a bit.
const TICKET_TEXT_BYTES_MAX: usize = 2 * TICKET_BYTES_MAX;

pub async fn push(args: PushArgs, engines: Engines) -> ExitCode {
    let report = Report::new(Role::Sender, args.transfer.json);
    let outcome = run(&args, engines, &report).await;
    report.finish(&outcome)
}

async fn run(args: &PushArgs, engines: Engines, report: &Report) -> Outcome<Finished> {
    args.transfer.apply()?;
    let endpoint = engines.parse(&args.source)?;
    args.form.check(&*endpoint)?;
    if endpoint.place() == Place::StandardStream && args.ticket == "-" {
        let next = "Give the ticket as a file, or the source as file: or exec:.";
        return Err(Failure::usage("source and ticket cannot both be standard input", next));
    }
    if args.spool.is_some() && endpoint.replay() == Replay::Always {
        let next =
            "Leave --spool away: this source is read again where that is needed, and nothing has to be kept of it.";
        return Err(Failure::usage("--spool is for a source that can be read only once: - or exec:", next));
    }
    let state = StateDir::open(args.transfer.state_dir.clone(), "sealift-sender")?;
    let audit = AuditLog::open(&state, "sealift-sender")?;
    TransferDir::sweep(&state)?;
    let ticket = read_ticket(&args.ticket)?;
    let transfer_id = ticket.grant.grant.transfer;
    report.set_transfer(transfer_id);
    check_unused(&state, transfer_id, args.restart)?;
    Record::sweep(&state, transfer_id, now_seconds())?;
    let identity = Arc::new(Identity::open(&state, Role::Sender, &audit)?);
    if args.transfer.danger_show_program_output {
        audit.append(Some(transfer_id), &Entry::DangerShowProgramOutput { target: None })?;
    }
    if args.empty.allow_empty {
        audit.append(Some(transfer_id), &Entry::SourceEmptyAllowed {})?;
    }

    let stop = Stop::on(Shutdown::listen()?);
    let source = args.form.of_source(&args.source);
    let record = Record::open(&state, &ticket.grant.grant, &source, args.restart)?;
    fail_point::hit(Point::RecordKept);
    let begun_with = record.is_begun().then(|| record.receiver());
    let trust = establish(args, &ticket, begun_with, &state, report, &stop).await;
    let trust = match trust.and_then(|trust| check_time(&ticket.grant.grant, record.is_begun()).map(|()| trust)) {
        Ok(trust) => trust,
        Err(failure) => {
            let at = Standing::found(record.stage(), endpoint.replay());
            return match sender_disposition(at, Failed::unconnected(failure.code)) {
                SenderDisposition::Drop => record.destroy().and(Err(failure)),
                _ => Err(failure),
            };
        }
    };
    let to = Destination { ticket: &ticket, trust };
    let mut sending = Sending::new(args, &*endpoint, report, &audit, &state, to, &identity, record);
    let permit = sending.permit();
    stop.under(&permit);
    let outcome = tokio::select! {
        outcome = sending.run(&stop) => outcome,
        never = permit.warn(|left| report.time_left(left)) => match never {},
    };
    let outcome = outcome.map_err(|failure| report.tell(sending.advise(failure)));
    sending.end(&outcome)?;
    fail_point::hit(Point::RecordGone);
    let receipt = outcome.as_ref().ok().map(|finished| ReceiptFields::of(&finished.receipt));
    audit.append(Some(transfer_id), &Entry::TransferEnd { outcome: code_of(&outcome), receipt })?;
    outcome
}

/// A ticket is good for one transfer. Only a process that was killed before it could say that it
/// was done is followed by one that says so: its record is still here.
fn check_unused(state: &StateDir, transfer: TransferId, restart: bool) -> Outcome {
    let Some((_, receipt_path)) = state.receipt(transfer) else { return Ok(()) };
    if TransferDir::exists(state, transfer)? && !restart {
        return Ok(());
    }
    let what = format!("the transfer of this ticket was done, and its receipt is {}", receipt_path.display());
    let next =
        "Nothing was sent again. For another transfer, start the receiver again and use the ticket that it prints.";
    Err(Failure::new(Code::GrantUsed, what, next))
}

/// A ticket can be used by everybody who can read it, and redirected by everybody who can write it.
fn check_own(path: &str, file: &File) -> std::io::Result<Outcome> {
    let found = file.metadata()?;
    let wrong =
        |what: &str, next: String| Ok(Err(Failure::new(Code::Preflight, format!("the ticket {path} {what}"), next)));
    if found.uid() != nix::unistd::geteuid().as_raw() {
        let next = format!(
            "It has to be this user's own: whoever owns it can read and alter it. If user {} may, copy it: \
             install -m 600 {path} FILE.",
            found.uid()
        );
        return wrong("belongs to another user", next);
    }
    if found.is_file() && found.mode() & 0o077 != 0 {
        let next = format!(
            "It has to be closed to others: chmod 600 {path}. If others could read it until now, have a new one made."
        );
        return wrong("is open to other users", next);
    }
    Ok(Ok(()))
}

/// Whether systemd handed it over: it guards its credentials by access control lists, which look
/// like an open mode. An empty variable, or a path that leaves the folder again, names nothing that
/// systemd guards.
fn is_credential(path: &Path) -> bool {
    let Some(folder) = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from) else { return false };
    folder.is_absolute() && path.parent().is_some_and(|parent| parent == folder)
}

/// Reads up to the end of the one ticket, and no further: a pipe from the receiver stays open while
/// it works.
pub fn read_ticket(from: &str) -> Outcome<Ticket> {
    let next = "Start the receiver with --ticket-out, and give its ticket here: a file, or - for standard input.";
    let unreadable =
        |error: std::io::Error| Failure::io(Code::Usage, format!("the ticket {from} cannot be read"), &error, next);
    let mut input = match from {
        "-" => std::io::stdin().as_fd().try_clone_to_owned().map(File::from),
        path => File::open(path),
    }
    .map_err(unreadable)?;
    if from != "-" && !is_credential(Path::new(from)) {
        check_own(from, &input).map_err(unreadable)??;
    }
    // Byte by byte, since a buffer would keep a copy of the key; and never moved, for the same
    // reason.
    let mut text = Zeroizing::new(Vec::with_capacity(TICKET_TEXT_BYTES_MAX));
    let (mut byte, mut line) = ([0], 0);
    while text.len() < TICKET_TEXT_BYTES_MAX && input.read(&mut byte).map_err(unreadable)? > 0 {
        text.push(byte[0]);
        if byte[0] == b'\n' {
            if std::str::from_utf8(&text[line..]).is_ok_and(Ticket::is_end) {
                break;
            }
            line = text.len();
        }
    }
    let Ok(text) = std::str::from_utf8(&text) else {
        return Err(Failure::new(Code::GrantInvalid, "the ticket is damaged: it is not text", next));
    };
    if text.trim().is_empty() {
        return Err(Failure::new(Code::GrantInvalid, "there is no ticket: the input is empty", next));
    }
    Ticket::from_text(text)
}
