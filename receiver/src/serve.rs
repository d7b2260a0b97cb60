//! `serve`: a standing receiver. Named targets, several transfers at once, until it is told to
//! stop.

mod admission;
mod dispatch;

use std::{process::ExitCode, sync::Arc, time::Duration};

use sealift_agent::{
    audit::{AuditLog, entry::Entry},
    credentials::Credentials,
    door::Door,
    failure::Outcome,
    identity::Identity,
    link::{
        Acceptor, Link, Listener,
        socket::{Listening, listen_at},
    },
    notify::{READY, STOPPING, notify},
    preflight::Preflight,
    report::Report,
    role::Role,
    shutdown::EverySignal,
    state::StateDir,
    transfer_dir::TransferDir,
    trust::Trust,
};
use sealift_protocol::{receive, sign::Signer};
use serde_json::json;
use tokio::{sync::mpsc, time::timeout};

use self::dispatch::Transfers;
use crate::{
    cli::ServeArgs,
    config::Config,
    ending::LOADER_WAIT_MAX,
    invitation::say_unknown,
    reception::{Proofs, receive_offers, record_last_refusals, record_refusals},
    target::dangers,
    ticket_book::{Proven, TicketBook},
};

/// How long a drain may take: a farewell to each sender, and a sync of each load; and before that,
/// a loader that is ending. The unit's `TimeoutStopSec` is above it.
pub const DRAIN_TIMEOUT: Duration = LOADER_WAIT_MAX.saturating_add(Duration::from_secs(30));

/// For the last packets of all connections to leave.
const FAREWELL: Duration = Duration::from_secs(3);

/// What comes from senders and is not looked at yet.
const INCOMING_WAITING: usize = 4;

/// Everything that transfers have in common.
struct Server<'a> {
    config: &'a Config,
    report: &'a Report,
    audit: &'a AuditLog,
    state: &'a StateDir,
    identity: &'a Identity,
    book: TicketBook,
}

pub async fn serve(args: ServeArgs, config: Config) -> ExitCode {
    let report = Report::new(Role::Receiver, args.json);
    let outcome = run(&args, &config, &report).await;
    report.stop(&outcome)
}

async fn run(args: &ServeArgs, config: &Config, report: &Report) -> Outcome {
    args.log_level.start();
    let found = config.check_targets()?;
    let mut signals = EverySignal::listen()?;
    let state = StateDir::open(config.state_dir.clone(), "sealift-receiver")?;
    let audit = AuditLog::open(&state, "sealift-receiver")?;
    TransferDir::sweep(&state)?;
    let identity = Arc::new(Identity::open(&state, Role::Receiver, &audit)?);
    // The proof of a ticket, and not the handshake, says who a sender is.
    let credentials = Credentials::new(Arc::clone(&identity), Trust::AnyKey);
    let listeners = listeners(config, &credentials, report)?;
    say_unknown(&config.addresses, report).await;
    audit.append(None, &Entry::ServeStart { targets: config.targets.len() })?;
    for ((name, target), found) in config.targets.iter().zip(found) {
        let options = target.options(config.row_bytes_max, config.engines)?;
        Preflight::new(report, &audit, None, &options.waivers).take(found)?;
        dangers(&options, Some(name)).iter().try_for_each(|entry| audit.append(None, entry))?;
    }
    let book = TicketBook::open(&state, &audit)?;
    let server = Server { config, report, audit: &audit, state: &state, identity: &identity, book };
    let mut transfers = Transfers::resume(&server)?;
    notify(READY);
    for address in &config.listen {
        report.event("listening", &[("address", json!(address.to_string()))]);
        report.say(&format!("receiver: serving at {address} (UDP)."));
    }
    let door = Door::default();
    let outcome = tokio::select! {
        outcome = accept(&server, &listeners, &door, &mut transfers, &mut signals) => outcome,
        never = credentials.follow(&state, Role::Receiver, report) => match never {},
        failure = record_refusals(&door, server.audit) => Err(failure),
    };
    notify(STOPPING);
    report.event("draining", &[("transfers", json!(transfers.running()))]);
    report.say(&format!("receiver: stopping; {} transfers are suspended.", transfers.running()));
    // No new connections; those that stand are closed by their transfers.
    listeners.iter().for_each(Listener::refuse_new);
    let drained = tokio::select! {
        drained = timeout(DRAIN_TIMEOUT, transfers.drain()) => drained.is_ok(),
        () = signals.next() => false,
    };
    if drained {
        let left = async {
            for listener in &listeners {
                listener.wait_idle().await;
            }
        };
        let _ = timeout(FAREWELL, left).await;
    }
    record_last_refusals(&door, server.audit)?;
    audit.append(None, &Entry::ServeStop { drained })?;
    outcome
}

/// Accepts senders and runs what they begin. Ends with success when it is asked to stop. Not
/// cancel-safe: the connections of exchanges under way are closed; transfers stay in `transfers`.
async fn accept(
    server: &Server<'_>,
    listeners: &[Listener],
    door: &Door,
    transfers: &mut Transfers<'_>,
    signals: &mut EverySignal,
) -> Outcome {
    let identity = server.identity;
    let proofs = Proofs { book: &server.book, identity };
    let listening = |link: &Link, proven: Proven| receive::Listening {
        suites: server.config.suite.suites(),
        grant_keys: vec![identity.public_key()],
        receiver: identity.fingerprint(),
        sender_key: link.peer,
        proven: proven.transfer,
        begun: proven.begun,
        targets: server.config.targets.keys().cloned().collect(),
    };
    let (to_incoming, mut incoming) = mpsc::channel(INCOMING_WAITING);
    let fronts = listeners.iter().map(|listener| {
        let (to_incoming, listening) = (&to_incoming, &listening);
        Box::pin(async move {
            let mut acceptor = match Acceptor::new(listener, door) {
                Ok(acceptor) => acceptor,
                Err(failure) => return failure,
            };
            receive_offers(&mut acceptor, proofs, listening, to_incoming).await
        })
    });
    let fronts = futures_util::future::select_all(fronts);
    tokio::select! {
        () = signals.next() => Ok(()),
        (closed, ..) = fronts => Err(closed),
        failure = transfers.run(&mut incoming) => Err(failure),
    }
}

fn listeners(config: &Config, credentials: &Credentials, report: &Report) -> Outcome<Vec<Listener>> {
    let open = |&address| {
        let Listening { socket, note } = listen_at(address)?;
        note.iter().for_each(|note| report.say(&format!("receiver: {note}")));
        Listener::start(socket, credentials)
    };
    config.listen.iter().map(open).collect()
}
