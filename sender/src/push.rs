//! `push`: one transfer, from ticket to receipt.

use std::{process::ExitCode, sync::Arc};

use sealift_agent::{
    audit::{
        AuditLog,
        entry::{Entry, ReceiptFields},
    },
    clock::now_seconds,
    credentials::Credentials,
    fail_point::{self, Point},
    failure::{Failure, Outcome, code_of},
    identity::Identity,
    permit::check_time,
    report::{Finished, Report},
    role::Role,
    shutdown::Shutdown,
    state::StateDir,
    stop::Stop,
    transfer_dir::TransferDir,
    trust::Trust,
};
use sealift_engine_api::{Engines, Place};
use sealift_protocol::{
    close::Code,
    disposition::sender::{Failed, Replay, SenderDisposition, Standing, sender_disposition},
    id::TransferId,
};

use crate::{
    cli::PushArgs,
    receiver_trust::establish,
    record::Record,
    ticket_input::TicketInput,
    transfer::{Destination, Sending},
};

pub async fn push(args: PushArgs, engines: Engines) -> ExitCode {
    let report = Report::new(Role::Sender, args.transfer.json);
    let outcome = run(&args, engines, &report).await;
    report.finish(&outcome)
}

async fn run(args: &PushArgs, engines: Engines, report: &Report) -> Outcome<Finished> {
    args.transfer.apply()?;
    let endpoint = engines.parse(&args.source)?;
    args.form.check(&*endpoint)?;
    args.chosen.check(&*endpoint)?;
    let options = args.source_options(args.waivers.parse(engines.findings(&args.source))?);
    let ticket_input = TicketInput::find(args.ticket());
    if endpoint.place() == Place::StandardStream && ticket_input.is_standard() {
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
    let ticket = ticket_input.read()?;
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
    let source = args.chosen.of_source(args.form.of_source(&args.source));
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
    let credentials = Credentials::new(Arc::clone(&identity), Trust::Pinned(ticket.receiver));
    let to = Destination { ticket: &ticket, trust, credentials: &credentials };
    let mut sending = Sending::new(args, &*endpoint, options, report, &audit, &state, to, &identity, record);
    let permit = sending.permit();
    stop.under(&permit);
    let snapshot = sending.snapshot();
    let outcome = tokio::select! {
        outcome = sending.run(&stop) => outcome,
        never = credentials.follow(&state, Role::Sender, report) => match never {},
        never = snapshot.report(report) => match never {},
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
