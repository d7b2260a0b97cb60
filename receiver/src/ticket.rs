//! `ticket`: a ticket for one transfer into a target of the standing receiver.

use std::process::ExitCode;

use sealift_agent::{
    audit::AuditLog,
    cli,
    failure::{Failure, Outcome},
    output::Output,
    process::eprintln_safe,
    standing::{Standing, TICKET_VALID_FOR_MAX},
    state::StateDir,
};
use serde_json::json;
use time::OffsetDateTime;

use crate::{
    cli::TicketArgs,
    config::Config,
    invitation::{Addressed, addresses, issue_ticket, random_transfer},
    sink::place::Readiness,
};

pub fn ticket(args: &TicketArgs) -> ExitCode {
    cli::exit("receiver", run(args))
}

fn run(args: &TicketArgs) -> Outcome {
    let config = Config::load(&args.config)?;
    config.target(&args.target)?;
    let ticket_out = Output::find("--ticket-out", &args.ticket_out)?;
    if args.valid_for > TICKET_VALID_FOR_MAX {
        let days = TICKET_VALID_FOR_MAX.as_secs() / 86_400;
        return Err(Failure::usage("--valid-for is too long", format!("Give at most {days}d.")));
    }
    if let Some(described) = config.check_target(&args.target, Readiness::Name)? {
        eprintln_safe(&format!("receiver: {described}"));
    }
    let state = StateDir::open(config.state_dir.clone(), "sealift-receiver")?;
    let audit = AuditLog::open(&state, "sealift-receiver")?;
    let now = OffsetDateTime::now_utc();
    let Standing { authority, identity } = Standing::open(&state, now)?;
    let to = Addressed {
        addresses: addresses(&config.addresses, config.listen[0])?,
        receiver: identity.id,
        target: args.target.clone(),
    };
    let transfer = random_transfer();
    let ticket = issue_ticket(&authority, transfer, to, &args.purpose, now, args.valid_for)?;
    audit.append(
        "ticket.issue",
        Some(transfer),
        &[
            ("target", json!(args.target)),
            ("purpose", json!(args.purpose)),
            ("valid_seconds", json!(args.valid_for.as_secs())),
        ],
    )?;
    ticket_out.put_secret(&ticket.to_text())
}
