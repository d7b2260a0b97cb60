//! What earlier processes left unfinished: telling of it, and ending it for good, staging included.

use std::{process::ExitCode, sync::Arc, time::Duration};

use sealift_agent::{
    audit::{
        AuditLog,
        entry::{AbandonedBy, Entry},
    },
    cli::{self, StatusArgs},
    clock::{now_seconds, utc_text},
    failure::{Failure, Outcome},
    progress::HowFar,
    state::StateDir,
    status::{self, Line},
    telemetry::printable,
    transfer_dir::{Look, TransferDir},
    units::{counted, human_bytes, human_duration},
};
use sealift_engine_api::{Abandoned, Engines, LeftAt, Recovery, TargetOptions};
use sealift_protocol::{
    close::Code,
    disposition::{Disposition, Event, Stage, disposition},
    fingerprint::Fingerprint,
    id::TransferId,
    limits::ROW_BYTES_MAX,
};
use serde_json::json;

use crate::{
    archive,
    cli::AbandonArgs,
    ending::Ending,
    record::{Kept, Record},
    target::staged_bytes,
};

/// What became of a transfer that was ended for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nothing of it is left.
    Dropped,
    /// It had its final name already: it stays, and is forgotten here.
    Published,
    /// The operator had stated that the load is in the target.
    Stated,
}

pub fn status(args: &StatusArgs, engines: Engines) -> ExitCode {
    cli::exit("receiver", print_status(args, engines))
}

fn print_status(args: &StatusArgs, engines: Engines) -> Outcome {
    let state = StateDir::open(args.state_dir.clone(), "sealift-receiver")?;
    let mut lines = Vec::new();
    for transfer in TransferDir::list(&state)? {
        match TransferDir::look::<Kept>(&state, transfer) {
            Ok(Some(look)) => lines.extend(look.record.as_ref().map(|kept| line(transfer, kept, &look, engines))),
            Ok(None) => {}
            Err(_) => lines.push(unreadable(transfer)),
        }
    }
    lines.extend(archive::lines(&state, engines)?);
    status::print("receiver", args.json, &lines)
}

/// One that cannot be read hides no other.
fn unreadable(transfer: TransferId) -> Line {
    let text = "its record cannot be read; `abandon` removes it".to_owned();
    Line { transfer, text, fields: vec![("stage", json!("unreadable"))] }
}

fn line(transfer: TransferId, kept: &Kept, look: &Look<Kept>, engines: Engines) -> Line {
    let target = engines.shown(&kept.target);
    let left = staging(&kept.target, engines).ok().flatten();
    let staged_bytes = left.as_ref().map_or(0, |left| staged_bytes(&**left, transfer));
    let staged = left.and_then(|left| left.staged(transfer)).map(|path| printable(&path.display().to_string()));
    let staged_text = staged.as_ref().map_or(String::new(), |path| format!(", part of it in {path}"));
    let stage = kept.stage().as_str();
    let grant = &kept.grant.grant;
    let since_seconds = if kept.started_ms > 0 { kept.started_ms / 1000 } else { grant.not_before_seconds };
    let valid = kept.permit().left();
    let running = if look.running { "running" } else { "not running" };
    let how_far = look.how_far.map_or(String::new(), |how_far| format!(", {}", how_far.text()));
    let text = format!(
        "into {target} ({}): {}{how_far}, {running}; since {}; {}; holds {}{staged_text}; ticket {}",
        printable(&grant.target),
        stage_text(stage),
        utc_text(since_seconds),
        counted(kept.epoch.0.into(), "connection"),
        human_bytes(look.held_bytes + staged_bytes),
        valid_text(valid),
    );
    let mut fields = vec![
        ("target", json!(target)),
        ("target_name", json!(printable(&grant.target))),
        ("purpose", json!(printable(&grant.purpose))),
        ("stage", json!(stage)),
        ("running", json!(look.running)),
        ("since", json!(utc_text(since_seconds))),
        ("connections", json!(kept.epoch.0)),
        ("held_bytes", json!(look.held_bytes)),
        ("staged_bytes", json!(staged_bytes)),
        ("staged", json!(staged)),
        ("valid_seconds", json!(valid.as_secs())),
    ];
    fields.extend(look.how_far.iter().flat_map(HowFar::fields));
    Line { transfer, text, fields }
}

/// The word of a stage, for people.
pub fn stage_text(stage: &str) -> String {
    let text = stage.replace('_', " ");
    if stage == Stage::InDoubt.as_str() { format!("{text} (see `resolve`)") } else { text }
}

fn valid_text(left: Duration) -> String {
    if left.is_zero() { "expired".into() } else { format!("good for {}", human_duration(left)) }
}

pub fn abandon(args: &AbandonArgs, engines: Engines) -> ExitCode {
    cli::exit("receiver", run_abandon(args, engines))
}

fn run_abandon(args: &AbandonArgs, engines: Engines) -> Outcome {
    let state = StateDir::open(args.state_dir.clone(), "sealift-receiver")?;
    let audit = AuditLog::open(&state, "sealift-receiver")?;
    TransferDir::sweep(&state)?;
    let chosen = status::choose(&state, args.transfer.as_deref(), args.all)?;
    // Of those that stay, the first says why.
    let mut stays = None;
    for transfer in chosen {
        match archive::abandon(&state, &audit, engines, transfer) {
            Ok(Some(ended)) => {
                let text = match ended {
                    Ended::Dropped => "abandoned; nothing of it is left. The archive can be loaded again.",
                    ended => ended.text(),
                };
                sealift_agent::process::eprintln_safe(&format!("receiver: {transfer}: {text}"));
                continue;
            }
            Ok(None) => {}
            Err(failure) if failure.code == Code::TransferBusy => {
                stays = stays.or(Some(status::stop_first(transfer)));
                continue;
            }
            Err(failure) if failure.code == Code::InDoubt => {
                stays = stays.or(Some(failure));
                continue;
            }
            Err(failure) => return Err(failure),
        }
        let opened = Record::open(&state, transfer);
        let ended = opened.and_then(|record| {
            record.map(|record| end_for_good(&state, &audit, engines, record, By::Operator)).transpose()
        });
        match ended {
            Ok(Some(ended)) => {
                sealift_agent::process::eprintln_safe(&format!("receiver: {transfer}: {}", ended.text()));
            }
            Ok(None) => {}
            Err(failure) if failure.code == Code::TransferBusy => {
                stays = stays.or(Some(status::stop_first(transfer)));
            }
            Err(failure) if failure.code == Code::InDoubt => stays = stays.or(Some(failure)),
            Err(_) if TransferDir::look::<Kept>(&state, transfer).is_err() => {
                drop_unreadable(&state, &audit, transfer)?
            }
            Err(failure) => return Err(failure),
        }
    }
    stays.map_or(Ok(()), Err)
}

/// Only what the operator states ends a transfer that is in doubt.
pub fn resolve_first(transfer: TransferId) -> Failure {
    let what = format!(
        "the transfer {transfer} is in doubt: its loader's end was not seen or came too early, and whether it committed is not known"
    );
    let next = format!(
        "Look into the target, and state what it holds: sealift-receiver resolve {transfer} --loaded, or --not-loaded. \
         After that it can be abandoned."
    );
    Failure::new(Code::InDoubt, what, next)
}

/// What it loaded into, only its record knew.
fn drop_unreadable(state: &StateDir, audit: &AuditLog, transfer: TransferId) -> Outcome {
    audit.append(Some(transfer), &Entry::TransferAbandon { by: AbandonedBy::Operator, unreadable: true })?;
    TransferDir::open(state, transfer)?.destroy()?;
    let text = "its record could not be read, and is removed. What it had staged may be left beside its target, in a hidden \
                file whose name ends in sealift-staging: look, and remove it. Whether a loader had committed is not known.";
    sealift_agent::process::eprintln_safe(&format!("receiver: {transfer}: {text}"));
    Ok(())
}

impl Ended {
    fn text(self) -> &'static str {
        match self {
            Self::Dropped => "abandoned; nothing of it is left, nor can its ticket be used again.",
            Self::Published => "forgotten here; what it loaded is there under its final name, and stays.",
            Self::Stated => "forgotten here; by your statement its load is in the target, and stays.",
        }
    }

    /// The answer to a sender that abandons the transfer.
    pub fn code(self) -> Code {
        match self {
            Self::Dropped => Code::Abandoned,
            Self::Published => Code::Done,
            Self::Stated => Code::StatedLoaded,
        }
    }
}

/// What ends a transfer for good.
#[derive(Clone, Copy, Debug)]
pub enum By {
    Expiry,
    Operator,
    Sender(Fingerprint),
}

/// Whose key it was that ended the transfer over the link.
pub fn note_abandoned_by(audit: &AuditLog, transfer: TransferId, sender: Fingerprint) -> Outcome {
    let by = AbandonedBy::Sender { sender };
    audit.append(Some(transfer), &Entry::TransferAbandon { by, unreadable: false })
}

/// Drops what is staged, then what is kept. Killed in between, it can be done again. Fails with
/// `InDoubt` where only the operator's statement may end the transfer.
pub fn end_for_good(state: &StateDir, audit: &AuditLog, engines: Engines, record: Record, by: By) -> Outcome<Ended> {
    let event = match by {
        By::Expiry => Event::Expired,
        By::Operator => Event::AbandonedByOperator,
        By::Sender(_) => Event::AbandonedBySender,
    };
    let transfer = record.transfer();
    if !matches!(disposition(record.kept.ending.stage, event), Disposition::Drop | Disposition::Forget) {
        return Err(resolve_first(transfer));
    }
    match by {
        By::Expiry => audit.append(Some(transfer), &Entry::TransferExpire {})?,
        // Its uid stands in every entry.
        By::Operator => audit.append(Some(transfer), &Entry::abandoned_by_operator())?,
        By::Sender(sender) => note_abandoned_by(audit, transfer, sender)?,
    }
    let kept = &record.kept;
    let ended = drop_target(state, engines, transfer, &kept.target, &kept.ending)?;
    record.dir.destroy()?;
    Ok(ended)
}

/// Drops what is staged in the target, and a receipt of what is not shown.
pub fn drop_target(
    state: &StateDir,
    engines: Engines,
    transfer: TransferId,
    url: &str,
    ending: &Ending,
) -> Outcome<Ended> {
    let left_at = match ending.stage {
        Stage::StatedLoaded => return Ok(Ended::Stated),
        Stage::Published => {
            if let Some(left) = staging(url, engines)? {
                left.forget(transfer);
            }
            return Ok(Ended::Published);
        }
        Stage::ReceiptSigned => LeftAt::ReceiptSigned,
        Stage::Issued | Stage::Offered | Stage::Agreed | Stage::Loading | Stage::Ending | Stage::InDoubt => {
            LeftAt::Loading
        }
    };
    let abandoned = match staging(url, engines)? {
        Some(left) => left.abandon(transfer, left_at)?,
        None => Abandoned::Dropped,
    };
    if abandoned == Abandoned::Published {
        return Ok(Ended::Published);
    }
    if left_at == LeftAt::ReceiptSigned {
        // It was signed for what is not shown.
        state.drop_receipt(transfer)?;
    }
    Ok(Ended::Dropped)
}

/// The staging place of a target; `None` where nothing can be staged any more.
pub fn staging(url: &str, engines: Engines) -> Outcome<Option<Arc<dyn Recovery>>> {
    let options =
        TargetOptions { row_bytes_max: ROW_BYTES_MAX as u64, danger_plaintext_file: true, ..TargetOptions::default() };
    engines.parse(url)?.open_leftover(&options, engines)
}

/// Ends, for good, those that nothing may continue any more: an unused ticket that has expired, or
/// a suspended transfer that was kept for another ticket for as long as its grant says. One that
/// cannot be ended now is reported, and tried again by the next sweep. Returns what there is to
/// say.
pub fn drop_expired(state: &StateDir, audit: &AuditLog, engines: Engines) -> Outcome<Vec<String>> {
    let mut said = Vec::new();
    for transfer in TransferDir::list(state)? {
        let drops = |kept: &Kept| {
            let done = disposition(kept.stage(), Event::Expired);
            matches!(done, Disposition::Drop | Disposition::Forget)
        };
        let is_past = |kept: &Kept| match kept.stage().is_begun() {
            true => now_seconds() >= kept.grant.grant.retain_until_seconds,
            false => kept.permit().left().is_zero(),
        };
        let expired = |kept: &Kept| is_past(kept) && drops(kept);
        let due = match TransferDir::look::<Kept>(state, transfer) {
            Ok(Some(look)) => !look.running && look.record.as_ref().is_some_and(expired),
            Ok(None) => false,
            // `status` shows it, and no other transfer has to wait for that.
            Err(_) => false,
        };
        if !due {
            continue;
        }
        let dropped = Record::open(state, transfer).and_then(|record| match record {
            Some(record) => end_for_good(state, audit, engines, record, By::Expiry).map(Some),
            None => Ok(None),
        });
        match dropped {
            Ok(Some(ended)) => said.push(format!(
                "receiver: the ticket of the unfinished transfer {transfer} has expired; it is {}.",
                if ended == Ended::Dropped { "dropped" } else { "forgotten" }
            )),
            Ok(None) => {}
            Err(failure) if failure.code == Code::TransferBusy => {}
            Err(failure) if failure.code == Code::AuditUnwritable => return Err(failure),
            Err(failure) => said.push(format!("receiver: the expired transfer {transfer} stays here: {failure}")),
        }
    }
    Ok(said)
}

/// A sender said so, over the link, about a transfer that does not run here.
pub fn abandon_by_sender(
    state: &StateDir,
    audit: &AuditLog,
    engines: Engines,
    transfer: TransferId,
    sender: Fingerprint,
) -> Outcome<Ended> {
    match Record::open(state, transfer)? {
        Some(record) => end_for_good(state, audit, engines, record, By::Sender(sender)),
        // It was done, and its sender comes too late.
        None if state.receipt(transfer).is_some() => Ok(Ended::Published),
        None => Err(Failure::new(Code::Abandoned, "nothing is kept of the transfer", "")),
    }
}
