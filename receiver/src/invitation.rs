//! Permits one transfer: the grant, which this receiver signs, and the ticket that carries it to
//! the sender.

use std::net::SocketAddr;

use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};
use sealift_agent::{
    address::{Address, FORMS, unknown_names},
    failure::{Failure, Outcome},
    identity::Identity,
    pins,
    random::SystemRandom,
    report::Report,
    state::StateDir,
    ticket::{ADDRESSES_MAX, Ticket},
};
use sealift_protocol::{
    close::Code,
    fingerprint::Fingerprint,
    grant::{Grant, SignedGrant},
    id::TransferId,
    limits::NAME_BYTES_MAX,
    random::Random,
    sealed_log::KeyFingerprint,
};

use crate::{cli::GrantArgs, record::Record, ticket_book::TicketBook};

const USABLE: &str = "Give an address by which the sender reaches this host, and its UDP port.";

pub fn random_transfer() -> TransferId {
    let mut id = [0; 16];
    SystemRandom::default().fill(&mut id);
    TransferId(id)
}

/// Permits `transfer` into `target`, as the operator asks for.
pub fn permit(
    args: &GrantArgs,
    transfer: TransferId,
    target: &str,
    state: &StateDir,
    identity: &Identity,
    now_seconds: u64,
) -> Outcome<SignedGrant> {
    if args.purpose.len() > NAME_BYTES_MAX {
        return Err(Failure::usage("--purpose is too long", format!("Use at most {NAME_BYTES_MAX} bytes.")));
    }
    let finish_before_seconds = now_seconds.saturating_add(args.finish_within.as_secs());
    let grant = Grant {
        transfer,
        sender: pinned_sender(args, state)?,
        receiver: identity.fingerprint(),
        source: String::new(),
        target: target.to_owned(),
        purpose: args.purpose.clone(),
        not_before_seconds: now_seconds,
        begin_before_seconds: now_seconds.saturating_add(args.valid_for.as_secs()),
        finish_before_seconds,
        retain_until_seconds: finish_before_seconds.saturating_add(args.keep_for.as_secs()),
        scope: None,
        policy: None,
    };
    Ok(grant.sign(identity))
}

fn pinned_sender(args: &GrantArgs, state: &StateDir) -> Outcome<Option<Fingerprint>> {
    let Some(pin) = &args.from else { return Ok(None) };
    let known_agents = args.known_agents.clone().unwrap_or_else(|| state.path().join(pins::KNOWN_AGENTS));
    pins::resolve(pin, &known_agents).map(Some)
}

/// The ticket of a transfer whose record is there. Once the transfer is bound to its sender, it
/// holds no secret.
pub fn ticket_for(record: &Record, book: &TicketBook, addresses: Vec<String>) -> Outcome<Ticket> {
    let grant = record.kept.grant.clone();
    Ok(Ticket {
        addresses,
        receiver: grant.grant.receiver,
        sealing_key: KeyFingerprint::of(&record.sealing_key()?.public_key()),
        secret: book.issue(record.transfer())?,
        grant,
    })
}

/// The addresses that a ticket names: those given, or else where `bound` can be reached from
/// elsewhere.
pub fn addresses(option: &str, given: &[String], bound: SocketAddr) -> Outcome<Vec<String>> {
    if given.len() > ADDRESSES_MAX {
        return Err(Failure::usage(format!("too many {option}"), format!("Give at most {ADDRESSES_MAX}.")));
    }
    for address in given {
        let Some(parsed) = Address::parse(address) else {
            return Err(Failure::usage(format!("{option} {address} cannot be used: it is no address"), FORMS));
        };
        if let Some(why) = parsed.unusable() {
            return Err(Failure::usage(format!("{option} {address} cannot be used: {why}"), USABLE));
        }
    }
    if !given.is_empty() {
        return Ok(given.to_vec());
    }
    if !bound.ip().is_unspecified() {
        return Ok(vec![bound.to_string()]);
    }
    let found = interface_addresses(bound)?;
    if found.is_empty() {
        let hint = format!("Say how the sender reaches this host: {option} HOST:PORT.");
        return Err(Failure::new(Code::Preflight, "this host has no address of its own", hint));
    }
    Ok(found)
}

/// Says which of the names that tickets carry are not known on this host: they may be mistyped.
pub async fn say_unknown(given: &[String], report: &Report) {
    for name in unknown_names(given).await {
        report
            .say(&format!("receiver: the address {name} is not known on this host; the sender's host has to know it."));
    }
}

/// Addresses of the interfaces that are up: global ones first, loopback last, so that a sender on
/// this very host works too; link-local ones need a zone and are left out.
fn interface_addresses(bound: SocketAddr) -> Outcome<Vec<String>> {
    let interfaces = getifaddrs().map_err(|error| {
        Failure::io(Code::Preflight, "this host's addresses cannot be read", &error.into(), "Use --address HOST:PORT.")
    })?;
    let mut found: Vec<(bool, SocketAddr)> = interfaces
        .filter(|interface| interface.flags.contains(InterfaceFlags::IFF_UP))
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::from((v4.ip(), bound.port())));
            let v6 = address.as_sockaddr_in6().map(|v6| SocketAddr::from((v6.ip(), bound.port())));
            v4.or(v6.filter(|v6| bound.is_ipv6() && !is_link_local(v6)))
        })
        .map(|address| (address.ip().is_loopback(), address))
        .collect();
    found.sort();
    found.truncate(ADDRESSES_MAX);
    Ok(found.into_iter().map(|(_, address)| address.to_string()).collect())
}

fn is_link_local(address: &SocketAddr) -> bool {
    matches!(address, SocketAddr::V6(v6) if v6.ip().is_unicast_link_local())
}
