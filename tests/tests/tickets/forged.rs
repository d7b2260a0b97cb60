//! Tickets of which anything was altered, given to real senders.

use std::thread;

use sealift_agent::{
    clock::now_seconds,
    identity::Identity,
    random::SystemRandom,
    role::Role,
    ticket::{ADDRESSES_MAX, Ticket},
};
use sealift_protocol::{
    fingerprint::Fingerprint,
    grant::Grant,
    id::TransferId,
    limits::NAME_BYTES_MAX,
    sealed_log::KeyFingerprint,
    sign::{Purpose, Signature, Signer},
    ticket_proof::TicketSecret,
};
use sealift_tests::{exit, invited::write_ticket};

use super::{Hosts, WITHIN, other_receiver, other_ticket, put_ticket, read_ticket, stop};

/// At once: each is a process that starts, connects and ends.
const AT_ONCE: usize = 4;

const ELSEWHERE: Fingerprint = Fingerprint([7; 32]);

/// What a forger has.
struct Parts {
    ticket: Ticket,
    /// Of another receiver.
    other: Ticket,
    /// Of the same receiver, for another transfer.
    second: Ticket,
    forger: Identity,
}

type Alter = fn(&mut Grant);
type Forge = fn(&Parts) -> Ticket;

/// Every field of a grant, and what comes of it whether or not it is signed again.
const GRANTS: &[(&str, Alter, i32, &str)] = &[
    ("transfer", |grant| grant.transfer = TransferId([9; 16]), exit::REFUSED, "ticket_unknown"),
    ("sender", |grant| grant.sender = Some(ELSEWHERE), exit::PEER, "proof_refused"),
    ("source", |grant| grant.source = "ehr".into(), exit::PEER, "proof_refused"),
    ("source too long", |grant| grant.source = "x".repeat(NAME_BYTES_MAX + 1), exit::REFUSED, "grant_invalid"),
    ("target", |grant| grant.target = "other".into(), exit::PEER, "proof_refused"),
    ("target too long", |grant| grant.target = "x".repeat(NAME_BYTES_MAX + 1), exit::REFUSED, "grant_invalid"),
    ("purpose", |grant| grant.purpose = "CHG-2".into(), exit::PEER, "proof_refused"),
    ("purpose too long", |grant| grant.purpose = "x".repeat(NAME_BYTES_MAX + 1), exit::REFUSED, "grant_invalid"),
    ("earlier start", |grant| grant.not_before_seconds -= 3600, exit::PEER, "proof_refused"),
    ("later start", |grant| grant.not_before_seconds += 3600, exit::REFUSED, "grant_not_yet_valid"),
    ("begun before", |grant| grant.begin_before_seconds = now_seconds() - 1, exit::REFUSED, "grant_expired"),
    ("begin later", |grant| grant.begin_before_seconds += 3600, exit::PEER, "proof_refused"),
    ("finished before", |grant| grant.finish_before_seconds = now_seconds() - 1, exit::REFUSED, "grant_expired"),
    ("finish later", |grant| grant.finish_before_seconds += 3600, exit::PEER, "proof_refused"),
    ("retained longer", |grant| grant.retain_until_seconds += 3600, exit::PEER, "proof_refused"),
    ("retained shorter", |grant| grant.retain_until_seconds = 0, exit::PEER, "proof_refused"),
    ("receiver, of the grant alone", |grant| grant.receiver = ELSEWHERE, exit::REFUSED, "grant_invalid"),
];

const TICKETS: &[(&str, Forge, i32, &str)] = &[
    ("no address", |p| with(p, |t| t.addresses.clear()), exit::REFUSED, "grant_invalid"),
    (
        "too many addresses",
        |p| with(p, |t| t.addresses = vec![t.addresses[0].clone(); ADDRESSES_MAX + 1]),
        exit::REFUSED,
        "grant_invalid",
    ),
    ("long address", |p| with(p, |t| t.addresses[0] = "x".repeat(NAME_BYTES_MAX + 1)), exit::REFUSED, "grant_invalid"),
    ("no such address", |p| with(p, |t| t.addresses[0] = "127.0.0.1:9".into()), exit::PEER, "unreachable"),
    ("another's address", |p| with(p, |t| t.addresses = p.other.addresses.clone()), exit::PEER, "identity_refused"),
    ("receiver alone", |p| with(p, |t| t.receiver = ELSEWHERE), exit::REFUSED, "grant_invalid"),
    (
        "receiver and grant",
        |p| with(p, |t| (t.receiver, t.grant.grant.receiver) = (ELSEWHERE, ELSEWHERE)),
        exit::PEER,
        "identity_refused",
    ),
    (
        "receiver and signed grant",
        |p| {
            with(p, |t| {
                t.receiver = p.forger.fingerprint();
                t.grant.grant.receiver = t.receiver;
                t.grant = t.grant.grant.clone().sign(&p.forger);
            })
        },
        exit::PEER,
        "identity_refused",
    ),
    (
        "another's fingerprint and grant",
        |p| with(p, |t| (t.receiver, t.grant) = (p.other.receiver, p.other.grant.clone())),
        exit::PEER,
        "identity_refused",
    ),
    (
        "another's fingerprint, grant and key",
        |p| Ticket { addresses: p.ticket.addresses.clone(), secret: p.ticket.secret.clone(), ..p.other.clone() },
        exit::PEER,
        "identity_refused",
    ),
    (
        "another's ticket, this secret",
        |p| Ticket { secret: p.ticket.secret.clone(), ..p.other.clone() },
        exit::PEER,
        "proof_refused",
    ),
    ("no secret", |p| with(p, |t| t.secret = None), exit::PEER, "proof_refused"),
    (
        "a made up secret",
        |p| with(p, |t| t.secret = Some(TicketSecret::generate(&mut SystemRandom::default()))),
        exit::PEER,
        "proof_refused",
    ),
    ("another receiver's secret", |p| with(p, |t| t.secret = p.other.secret.clone()), exit::PEER, "proof_refused"),
    (
        "the secret of another transfer",
        |p| with(p, |t| t.secret = p.second.secret.clone()),
        exit::PEER,
        "proof_refused",
    ),
    (
        "the grant of another transfer, this secret",
        |p| with(p, |t| t.grant = p.second.grant.clone()),
        exit::PEER,
        "proof_refused",
    ),
    (
        "a ticket of another transfer, this secret",
        |p| Ticket { secret: p.ticket.secret.clone(), ..p.second.clone() },
        exit::PEER,
        "proof_refused",
    ),
    (
        "that ticket at this address",
        |p| Ticket { secret: p.ticket.secret.clone(), addresses: p.ticket.addresses.clone(), ..p.second.clone() },
        exit::PEER,
        "proof_refused",
    ),
    ("signature of zeros", |p| with(p, |t| t.grant.signature = Signature([0; 64])), exit::PEER, "proof_refused"),
    ("signature, one bit", |p| with(p, |t| t.grant.signature.0[0] ^= 1), exit::PEER, "proof_refused"),
    ("signature, last bit", |p| with(p, |t| t.grant.signature.0[63] ^= 0x80), exit::PEER, "proof_refused"),
    (
        "signature of another grant",
        |p| with(p, |t| t.grant.signature = p.second.grant.signature),
        exit::PEER,
        "proof_refused",
    ),
    (
        "signature of another receiver",
        |p| with(p, |t| t.grant.signature = p.other.grant.signature),
        exit::PEER,
        "proof_refused",
    ),
    (
        "signed by the forger",
        |p| with(p, |t| t.grant = t.grant.grant.clone().sign(&p.forger)),
        exit::PEER,
        "proof_refused",
    ),
    (
        "signed by the forger, as a receipt",
        |p| with(p, |t| t.grant.signature = p.forger.sign(Purpose::Accept, b"")),
        exit::PEER,
        "proof_refused",
    ),
];

/// What is done to the text of a ticket.
type Damage = fn(&str) -> String;

/// Texts that are no ticket any more.
const TEXTS: &[(&str, Damage)] = &[
    ("empty", |_| String::new()),
    ("white space", |_| "\n \n".into()),
    ("without an end", |text| text.replace("-----END SEALIFT TICKET-----", "")),
    ("without a beginning", |text| text.replace("-----BEGIN SEALIFT TICKET-----", "")),
    ("cut off", |text| text[..text.len() / 2].to_owned()),
    ("one character", |text| text.replacen('A', "B", 1)),
    ("a line is missing", |text| {
        text.lines().enumerate().filter(|(at, _)| *at != 2).map(|(_, l)| format!("{l}\n")).collect()
    }),
    ("two lines change places", |text| {
        let mut lines: Vec<&str> = text.lines().collect();
        lines.swap(2, 3);
        lines.join("\n") + "\n"
    }),
    ("another label", |text| text.replace("SEALIFT TICKET", "SEALIFT PUBLIC KEY")),
    ("no base64", |text| text.replacen('A', "*", 1)),
];

fn with(parts: &Parts, change: impl FnOnce(&mut Ticket)) -> Ticket {
    let mut ticket = parts.ticket.clone();
    change(&mut ticket);
    ticket
}

/// Name, text, exit code and outcome of every forgery.
fn forgeries(parts: &Parts) -> Vec<(String, String, i32, &'static str)> {
    let text = |ticket: &Ticket| ticket.to_text().to_string();
    let mut rows = Vec::new();
    for (name, alter, code, outcome) in GRANTS {
        let altered = with(parts, |ticket| alter(&mut ticket.grant.grant));
        rows.push((format!("grant: {name}"), text(&altered), *code, *outcome));
        let signed = altered.grant.grant.clone().sign(&parts.forger);
        rows.push((
            format!("grant, signed again: {name}"),
            text(&Ticket { grant: signed, ..altered }),
            *code,
            *outcome,
        ));
    }
    for (name, forge, code, outcome) in TICKETS {
        rows.push((format!("ticket: {name}"), text(&forge(parts)), *code, *outcome));
    }
    for (name, damage) in TEXTS {
        let damaged = damage(&text(&parts.ticket));
        rows.push((format!("text: {name}"), damaged, exit::REFUSED, "grant_invalid"));
    }
    rows
}

/// Issue 9, A1, and the table of forgeries: every field of ticket and grant altered, signed again,
/// spliced and swapped.
#[test]
fn no_forged_ticket_gets_anywhere_and_the_honest_one_stays_good() {
    let hosts = Hosts::new();
    let mut receiver = hosts.listen().args(&["--purpose", "CHG-1"]).start();
    let ticket = read_ticket(&receiver.ticket());
    let (elsewhere, other) = other_receiver(&hosts);
    let (beside, second) = other_ticket(&hosts);
    let parts = Parts {
        ticket,
        other: read_ticket(&other),
        second: read_ticket(&second),
        forger: Identity::generate(Role::Receiver).unwrap(),
    };
    let rows = forgeries(&parts);
    assert!(rows.len() >= 60, "{} forgeries", rows.len());
    for (batch, some) in rows.chunks(AT_ONCE).enumerate() {
        thread::scope(|scope| {
            for (at, (name, text, code, outcome)) in some.iter().enumerate() {
                let hosts = &hosts;
                scope.spawn(move || {
                    let forged = hosts.path(&format!("forged-{batch}-{at}"));
                    write_ticket(&forged, text);
                    let source = hosts.source();
                    let launch = sealift_tests::agents::Launch::sender(&source, &forged);
                    let sender = launch.args(&["--json", "--retry-for", "0s"]).start().wait(WITHIN);
                    let event = sender.finished_event();
                    assert_eq!(
                        (event["exit_code"].as_i64(), event["outcome"].as_str()),
                        (Some((*code).into()), Some(*outcome)),
                        "{name}: {event}"
                    );
                    sender.assert_one_message();
                });
            }
        });
    }
    let transfer = parts.ticket.grant.grant.transfer;
    hosts.assert_unbound(transfer);
    stop(elsewhere);
    stop(beside);
    assert_eq!(hosts.entries("receiver", "transfer.begin").len(), 0);
    assert_eq!(hosts.entries("receiver", "ticket.bind").len(), 0);
    assert!(!hosts.entries("receiver", "ticket.refuse").is_empty());
    hosts.assert_serves(receiver, "sender");
    assert_eq!(hosts.entries("receiver", "ticket.bind").len(), 1);
}

/// Issue 9, A4: the key to which the data keys are sealed is the one that the ticket names. A
/// ticket with another one is still proven, and so binds; it is the sender that finds out, before
/// it has sent anything, and tells the receiver.
#[test]
fn another_sealing_key_is_refused_by_the_sender() {
    for elsewhere in [false, true] {
        let hosts = Hosts::new();
        let mut receiver = hosts.listen().start();
        let mut ticket = read_ticket(&receiver.ticket());
        ticket.sealing_key = match elsewhere {
            true => {
                let (other, path) = other_receiver(&hosts);
                stop(other);
                read_ticket(&path).sealing_key
            }
            false => KeyFingerprint([0; 32]),
        };
        let forged = put_ticket(hosts.folder.path(), "forged", &ticket);
        let sender = hosts.push("sender", &forged).start().wait(WITHIN);
        sender.assert_code(exit::PEER).assert_one_message();
        assert_eq!(sender.finished_event()["outcome"], "identity_refused");
        let receiver = receiver.wait(WITHIN);
        receiver.assert_code(exit::PEER).assert_one_message();
        assert_eq!(receiver.finished_event()["outcome"], "identity_refused");
        hosts.assert_nothing_loaded();
    }
}
