//! `ticket`: a ticket for one transfer into a target of the standing receiver, or for one that is
//! unfinished there.

use std::process::ExitCode;

use sealift_agent::{
    audit::{AuditLog, entry::Entry},
    cli,
    clock::now_seconds,
    failure::{Failure, Outcome},
    identity::Identity,
    output::Output,
    preflight::Preflight,
    report::Report,
    role::Role,
    state::StateDir,
    status,
    transfer_dir::TransferDir,
};

use sealift_engine_api::{Engines, Readiness};

use crate::{
    cli::TicketArgs,
    config::Config,
    ending::KeepsEnding,
    invitation::{addresses, permit, random_transfer, ticket_for},
    record::Record,
    ticket_book::TicketBook,
};

pub fn ticket(args: &TicketArgs, engines: Engines) -> ExitCode {
    cli::exit("receiver", run(args, engines))
}

fn run(args: &TicketArgs, engines: Engines) -> Outcome {
    let config = Config::load(&args.config, engines)?;
    let report = Report::new(Role::Receiver, false);
    let target = config.target(&args.target)?;
    let ticket_out = Output::find("--ticket-out", &args.ticket_out)?;
    let found = config.check_target(&args.target, Readiness::Name)?;
    let state = StateDir::open(config.state_dir.clone(), "sealift-receiver")?;
    let audit = AuditLog::open(&state, "sealift-receiver")?;
    let options = target.options(config.row_bytes_max, engines)?;
    let mut preflight = Preflight::new(&report, &audit, None, &options.waivers);
    preflight.take(found)?;
    preflight.finish(Role::Receiver);
    let identity = Identity::open(&state, Role::Receiver, &audit)?;
    let addresses = addresses("addresses:", &config.addresses, config.listen[0])?;
    TransferDir::sweep(&state)?;
    let earlier = args.transfer.as_deref().map(|typed| unfinished(&state, typed, args)).transpose()?;
    let transfer = earlier.as_ref().map_or_else(random_transfer, Record::transfer);
    let grant = permit(&args.grant, transfer, &args.target, &state, &identity, now_seconds())?;
    audit.append(Some(transfer), &Entry::ticket_issue(&grant.grant))?;
    let is_new = earlier.is_none();
    let record = match earlier {
        Some(mut record) => {
            record.kept.grant = grant;
            record.keep()?;
            record
        }
        None => Record::begin(&state, grant, &target.url, None)?,
    };
    let book = TicketBook::open(&state, &audit)?;
    let ticket = ticket_for(&record, &book, addresses)?;
    ticket_out.put_secret(&ticket.to_text()).or_else(|failure| match is_new {
        // Nobody has the ticket.
        true => record.dir.destroy().and(Err(failure)),
        false => Err(failure),
    })
}

/// The transfer that is to get another ticket. One that runs now has to end first: it runs under
/// the grant that it has.
fn unfinished(state: &StateDir, typed: &str, args: &TicketArgs) -> Outcome<Record> {
    let chosen = status::choose(state, Some(typed), false)?;
    let record = chosen.first().map(|transfer| Record::open(state, *transfer)).transpose()?.flatten();
    match record {
        Some(record) if record.kept.port.is_none() && record.kept.grant.grant.target == args.target => Ok(record),
        _ => {
            let what = format!("there is no unfinished transfer {typed} into the target {}", args.target);
            Err(Failure::usage(what, "`sealift-receiver status` lists the unfinished transfers and their targets."))
        }
    }
}
