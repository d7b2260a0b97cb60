//! `resolve`: what the operator states about a transfer that is in doubt. It decides whether the
//! load is done again, and it proves nothing: it is logged as a statement, and no receipt comes of
//! it.

use std::process::ExitCode;

use sealift_agent::{
    audit::{
        AuditLog,
        entry::{Entry, Statement},
    },
    cli,
    failure::{Failure, Outcome},
    process::eprintln_safe,
    state::StateDir,
    status,
    transfer_dir::TransferDir,
};
use sealift_protocol::{
    close::Code,
    disposition::{Disposition, Event, Stage, disposition},
    id::TransferId,
};

use crate::{archive, cli::ResolveArgs, ending::KeepsEnding, journal::drop_journal, record::Record};

pub fn resolve(args: &ResolveArgs) -> ExitCode {
    cli::exit("receiver", run(args))
}

fn run(args: &ResolveArgs) -> Outcome {
    let state = StateDir::open(args.state_dir.clone(), "sealift-receiver")?;
    let audit = AuditLog::open(&state, "sealift-receiver")?;
    TransferDir::sweep(&state)?;
    let event = if args.loaded { Event::StatedLoaded } else { Event::StatedNotLoaded };
    for transfer in status::choose(&state, Some(&args.transfer), false)? {
        let resolved = match archive::resolve(&state, &audit, transfer, event) {
            Ok(Some(stage)) => Ok(text_of_archive(stage)),
            Ok(None) => resolve_transfer(&state, &audit, transfer, event).map(text_of_transfer),
            Err(failure) => Err(failure),
        };
        let text = resolved.map_err(|failure| match failure.code {
            Code::TransferBusy => Failure {
                hints: "Its loader may still end by itself. Stop that process first, or wait for it.".into(),
                ..failure
            },
            _ => failure,
        })?;
        eprintln_safe(&format!("receiver: {transfer}: {text}"));
    }
    Ok(())
}

fn resolve_transfer(state: &StateDir, audit: &AuditLog, transfer: TransferId, event: Event) -> Outcome<Stage> {
    let Some(mut record) = Record::open(state, transfer)? else {
        return Err(not_in_doubt(transfer));
    };
    let stage = state_stage(transfer, record.kept.ending.stage, event)?;
    note_statement(audit, transfer, stage)?;
    if stage == Stage::StatedLoaded {
        // What could feed another loader is of no use any more.
        record.kept.journal_made = false;
        record.advance(stage)?;
        drop_journal(record.dir.path())?;
    } else {
        record.advance(stage)?;
    }
    Ok(stage)
}

/// The stage of a transfer after a statement, if one may be made about it.
pub fn state_stage(transfer: TransferId, stage: Stage, event: Event) -> Outcome<Stage> {
    match disposition(stage, event) {
        Disposition::SendStatement => Ok(Stage::StatedLoaded),
        Disposition::Load => Ok(Stage::Loading),
        _ => Err(not_in_doubt(transfer)),
    }
}

/// Durable before anything comes of it.
pub fn note_statement(audit: &AuditLog, transfer: TransferId, stage: Stage) -> Outcome {
    let statement = if stage == Stage::StatedLoaded { Statement::Loaded } else { Statement::NotLoaded };
    audit.append(Some(transfer), &Entry::TransferResolve { statement })
}

fn not_in_doubt(transfer: TransferId) -> Failure {
    let what = format!("the transfer {transfer} is not in doubt");
    Failure::usage(what, "Nothing has to be stated about it. `sealift-receiver status` shows how far it is.")
}

fn text_of_transfer(stage: Stage) -> &'static str {
    match stage {
        Stage::StatedLoaded => {
            "noted as your statement: the load is in the target, and is not loaded again. There is no receipt. To tell its \
             sender, start both sides once more with the same commands; or end it here with `abandon`."
        }
        _ => {
            "noted as your statement: nothing of the load is in the target. Start both sides again with the same commands to \
             load it, or end it with `abandon`."
        }
    }
}

fn text_of_archive(stage: Stage) -> &'static str {
    match stage {
        Stage::StatedLoaded => {
            "noted as your statement: the archive is in the target, and is not loaded again. There is no receipt."
        }
        _ => {
            "noted as your statement: nothing of the archive is in the target. Give the same command again to load it, or end \
             it with `abandon`."
        }
    }
}
