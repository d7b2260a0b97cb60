//! `status` and `abandon`: what earlier processes left unfinished here, and ending it for good on
//! both sides.

use std::{process::ExitCode, time::Duration};

use sealift_agent::{
    audit::{AuditLog, entry::Entry},
    cli::{self, StatusArgs},
    clock::utc_text,
    control::open_control,
    failure::{Failure, Outcome, explain},
    identity::Identity,
    link::{Link, end::LinkEnd},
    process::eprintln_safe,
    role::Role,
    state::StateDir,
    status::{self, Line},
    telemetry::printable,
    ticket::Ticket,
    transfer_dir::{HeldSnapshot, TransferDir},
    units::{counted, human_bytes, human_duration},
};
use sealift_protocol::{
    close::Code,
    disposition::sender::SenderStage,
    id::TransferId,
    message::{Message, Refuse},
};
use serde_json::{Value, json};

use crate::{
    cli::AbandonArgs,
    record::{Unfinished, destroy, unfinished},
    ticket_input::TicketInput,
    transfer::{connect_with, proof_of},
};

/// For the receiver to drop what it has: a staging file of any size is unlinked, a journal's
/// envelopes are overwritten.
const ABANDON_TIMEOUT: Duration = Duration::from_secs(30);

pub fn status(args: &StatusArgs) -> ExitCode {
    cli::exit("sender", print_status(args))
}

fn print_status(args: &StatusArgs) -> Outcome {
    let state = StateDir::open(args.state_dir.clone(), "sealift-sender")?;
    let line = |found: Unfinished| {
        let Unfinished { transfer, stage, in_doubt, running, held_bytes, how_far, spool, snapshot } = found;
        let doing = if running { "running" } else { "not running" };
        let mut text = format!("{}, {doing}", stage_text(stage));
        let mut fields =
            vec![("stage", json!(stage.as_str())), ("running", json!(running)), ("held_bytes", json!(held_bytes))];
        if in_doubt {
            text += "; in doubt: the receiver's operator has to state what the target holds";
            fields.push(("in_doubt", json!(true)));
        }
        if let Some(how_far) = how_far {
            text += &format!("; {} by {}", how_far.text(), utc_text(how_far.at_seconds));
            fields.extend(how_far.fields());
        }
        text += &format!("; holds {}", human_bytes(held_bytes));
        if let Some(spool) = spool {
            let spool = printable(&spool.to_string_lossy());
            text += &format!("; spooled in {spool}");
            fields.push(("spool", json!(spool)));
        }
        if let Some(snapshot) = snapshot {
            text += &snapshot_text(&snapshot);
            fields.push(("snapshot", snapshot_object(&snapshot)));
        }
        Line { transfer, text, fields }
    };
    let lines: Vec<Line> = unfinished(&state)?.into_iter().map(line).collect();
    status::print("sender", args.json, &lines)
}

fn snapshot_text(held: &HeldSnapshot) -> String {
    let age = human_duration(Duration::from_secs(held.age_seconds));
    let behind = held.transactions.map_or_else(String::new, |count| {
        format!(", {} behind the source's newest", counted(count.into(), "transaction"))
    });
    let until = match held.attended {
        true => String::new(),
        false => format!("; it is released in {}", human_duration(Duration::from_secs(held.ends_within_seconds))),
    };
    format!("; process {} holds a snapshot of the source, {age} old{behind}{until}", held.pid)
}

fn snapshot_object(held: &HeldSnapshot) -> Value {
    json!({
        "name": held.name,
        "pid": held.pid,
        "age_seconds": held.age_seconds,
        "transactions_behind": held.transactions,
        "attended": held.attended,
        "ends_within_seconds": held.ends_within_seconds,
    })
}

fn stage_text(stage: SenderStage) -> &'static str {
    match stage {
        SenderStage::Prepared => "prepared, nothing was sent",
        SenderStage::Begun => "begun",
        SenderStage::AllSent => "all of it was sent; the receipt is missing",
        SenderStage::Acknowledged => "done, the receipt is here; the next push clears up what is left",
    }
}

pub async fn abandon(args: AbandonArgs) -> ExitCode {
    cli::exit("sender", run(&args).await)
}

async fn run(args: &AbandonArgs) -> Outcome {
    let state = StateDir::open(args.state_dir.clone(), "sealift-sender")?;
    let audit = AuditLog::open(&state, "sealift-sender")?;
    TransferDir::sweep(&state)?;
    let Some(from) = &args.ticket else {
        let chosen = status::choose(&state, args.transfer.as_deref(), args.all)?;
        for transfer in chosen {
            forget(&state, &audit, transfer)?;
            eprintln_safe(&format!(
                "sender: {transfer}: forgotten here, and here alone. At the receiver, end it with: sealift-receiver abandon \
                 {transfer}"
            ));
        }
        return Ok(());
    };
    let ticket = TicketInput::find(from).read()?;
    let transfer = ticket.grant.grant.transfer;
    if let (Some((_, receipt)), false) = (state.receipt(transfer), TransferDir::list(&state)?.contains(&transfer)) {
        eprintln_safe(&format!(
            "sender: {transfer}: it is done, and there is nothing to end. What was loaded is there, and stays.\n\
             receipt: {}",
            receipt.display()
        ));
        return Ok(());
    }
    // First, so that no process here continues while the receiver is informed.
    let dir = hold(&state, transfer)?;
    audit.append(Some(transfer), &Entry::abandoned_by_operator())?;
    let identity = Identity::open(&state, Role::Sender, &audit)?;
    let notified = notify_receiver(&ticket, &identity).await;
    destroy(dir)?;
    match notified {
        Ok(text) => {
            eprintln_safe(&format!("sender: {transfer}: {text}"));
            Ok(())
        }
        Err(failure) if failure.bound.is_some() => {
            let what = format!("{transfer} is forgotten here, and continues at the receiver: {}", failure.what);
            Err(Failure { what, ..failure })
        }
        Err(failure) => {
            let what =
                format!("{transfer} is forgotten here, and the receiver could not be notified: {}", failure.what);
            let hint = format!("At the receiver, end it with: sealift-receiver abandon {transfer}");
            Err(Failure { what, hints: hint.into(), ..failure })
        }
    }
}

fn forget(state: &StateDir, audit: &AuditLog, transfer: TransferId) -> Outcome {
    let dir = hold(state, transfer)?;
    audit.append(Some(transfer), &Entry::abandoned_by_operator())?;
    destroy(dir)
}

fn hold(state: &StateDir, transfer: TransferId) -> Outcome<TransferDir> {
    TransferDir::open(state, transfer).map_err(|failure| match failure.code {
        Code::TransferBusy => status::stop_first(transfer),
        _ => failure,
    })
}

/// Says so as the first word of a connection, and waits until the receiver has done it.
async fn notify_receiver(ticket: &Ticket, identity: &Identity) -> Outcome<&'static str> {
    let link = connect_with(ticket, identity).await?;
    let (mut writer, mut control) = open_control(&link, &proof_of(ticket, identity, &link)).await?;
    let refuse = Refuse::new(Code::Abandoned);
    writer.send(&Message::Refuse(refuse)).await?;
    writer.finish().await;
    // A receiver that does so closes the connection with its answer; one that refuses the proof
    // says why before it closes.
    let refused = tokio::time::timeout(ABANDON_TIMEOUT, control.next()).await;
    let answer = match refused {
        Ok(Err(failure)) if failure.bound.is_some() => Err(failure),
        _ => answer(&link).await,
    };
    link.close(Code::Abandoned);
    link.wait_idle().await;
    answer
}

async fn answer(link: &Link) -> Outcome<&'static str> {
    let closed = tokio::time::timeout(ABANDON_TIMEOUT, link.closed()).await;
    let code = match closed {
        Ok(LinkEnd::Closed(code)) => code,
        _ => None,
    };
    match code {
        Some(Code::Abandoned) => Ok("abandoned on both sides; nothing of it is left."),
        Some(Code::Done) => {
            Ok("forgotten on both sides. The receiver had finished it: what it loaded is there, and stays.")
        }
        Some(code) => Err(Failure::new(code, format!("the receiver says: {}", explain(code).0), "")),
        None => Err(Failure::new(Code::Interrupted, "it did not say that it has done so", "")),
    }
}
