//! Whether the receiver that a ticket leads to is the one that is meant. A ticket that is altered
//! on its way can put a third party between the two agents: only a pin, or a way of delivery that
//! is itself authentic, prevents that.

use std::{
    io::{IsTerminal, Write, stderr, stdin},
    net::SocketAddr,
};

use sealift_agent::{
    failure::{Failure, Outcome},
    pins,
    report::Report,
    state::StateDir,
    stop::Stop,
    telemetry::printable,
    ticket::Ticket,
};
use sealift_protocol::{close::Code, fingerprint::Fingerprint, grant::LISTEN_TARGET, manifest::ReceiverTrust};

use crate::{cli::PushArgs, ticket_input::TicketInput};

/// What is known before the first connection.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// The key that the operator named.
    pin: Option<Fingerprint>,
    /// The key of the receiver with which an earlier process began this transfer.
    begun_with: Option<Fingerprint>,
    ticket: Fingerprint,
    /// The ticket came through a pipe: the channel that delivered it vouches for it.
    piped: bool,
    /// `--trust-ticket`.
    trusted: bool,
    /// Every address of the ticket is on this host: no host of the network is between the two
    /// agents.
    local: bool,
    /// There is a terminal to ask at.
    terminal: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Trust(ReceiverTrust),
    /// The ticket names another receiver than the one that is meant.
    Mismatch(Fingerprint),
    Ask,
    /// There is no terminal to ask at, and nothing that vouches for the ticket.
    NoPin,
}

fn decide(known: Known) -> Decision {
    if let Some(meant) = known.pin.or(known.begun_with) {
        return match meant == known.ticket && known.begun_with.is_none_or(|begun| begun == meant) {
            true if known.pin.is_some() => Decision::Trust(ReceiverTrust::Pinned),
            true => Decision::Trust(ReceiverTrust::Ticket),
            false => Decision::Mismatch(meant),
        };
    }
    if known.piped || known.trusted || known.local {
        return Decision::Trust(ReceiverTrust::Ticket);
    }
    if known.terminal { Decision::Ask } else { Decision::NoPin }
}

/// Decides where this transfer may go, and asks if it has to.
pub async fn establish(
    args: &PushArgs,
    ticket: &Ticket,
    begun_with: Option<Fingerprint>,
    state: &StateDir,
    report: &Report,
    stop: &Stop,
) -> Outcome<ReceiverTrust> {
    let known_agents = args.known_agents.clone().unwrap_or_else(|| state.path().join(pins::KNOWN_AGENTS));
    let pin = args.to.as_deref().map(|pin| pins::resolve(pin, &known_agents)).transpose()?;
    let known = Known {
        pin,
        begun_with,
        ticket: ticket.receiver,
        piped: TicketInput::find(args.ticket()).is_piped(),
        trusted: args.trust_ticket,
        local: ticket.addresses.iter().all(|address| is_loopback(address)),
        terminal: stdin().is_terminal() && stderr().is_terminal(),
    };
    match decide(known) {
        Decision::Trust(trust) => {
            report.say_lines(&format!("sender: {}", destination(ticket)));
            Ok(trust)
        }
        Decision::Mismatch(meant) => Err(mismatch(ticket.receiver, meant)),
        Decision::Ask => ask(ticket, stop).await.map(|()| ReceiverTrust::Ticket),
        Decision::NoPin => {
            let next = format!(
                "Compare the fingerprint with what `sealift-receiver identity` prints on the target host, then add \
                 --to {}. If the ticket cannot have been altered on its way: --trust-ticket.",
                ticket.receiver
            );
            Err(Failure::usage("nothing vouches for the receiver that this ticket leads to", next))
        }
    }
}

fn mismatch(found: Fingerprint, meant: Fingerprint) -> Failure {
    let what = format!("this ticket leads to the receiver {found}, and not to {meant}");
    let next = "Nothing was sent. If the receiver's identity was not made again, the ticket was altered on its way.";
    Failure::new(Code::IdentityRefused, what, next)
}

/// Where a ticket leads, for the person who may know better.
fn destination(ticket: &Ticket) -> String {
    let addresses = ticket.addresses.iter().map(|address| printable(address)).collect::<Vec<_>>().join(", ");
    let named = &ticket.grant.grant.target;
    let target = if named == LISTEN_TARGET { String::new() } else { format!("the target '{}' of ", printable(named)) };
    format!("the ticket leads to {target}the receiver at {addresses}\n  fingerprint {}", ticket.receiver)
}

async fn ask(ticket: &Ticket, stop: &Stop) -> Outcome {
    let unreadable = |error: std::io::Error| Failure::io(Code::Usage, "the terminal", &error, "Use --to FINGERPRINT.");
    let question = format!(
        "sender: {}\nCompare it with what `sealift-receiver identity` prints on the target host. Is it the same? [y/N] ",
        destination(ticket)
    );
    stderr().lock().write_all(question.as_bytes()).map_err(unreadable)?;
    // Off the async thread: the answer may take long, or be a signal instead.
    let reading = tokio::task::spawn_blocking(|| {
        let mut answer = String::new();
        stdin().read_line(&mut answer).map(|_| answer)
    });
    let answer = async {
        let read = reading.await.map_err(|_| Failure::new(Code::Internal, "the answer's thread ended early", ""))?;
        read.map_err(unreadable)
    };
    let answer = stop.or(answer).await;
    if !answer.as_ref().is_ok_and(|answer| answer.ends_with('\n')) {
        // The question's line has no end yet.
        let _ = stderr().lock().write_all(b"\n");
    }
    let answer = answer.map_err(|failure| match failure.code {
        Code::UserInterrupt => Failure { hints: "Nothing was sent.".into(), ..failure },
        _ => failure,
    })?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => {
            let next = "Nothing was sent. If the fingerprints differ, the ticket was altered on its way.";
            Err(Failure::new(Code::IdentityRefused, "the receiver was not confirmed", next))
        }
    }
}

/// Whether `address` is one of this host's own, by number or as `localhost`.
fn is_loopback(address: &str) -> bool {
    match address.parse::<SocketAddr>() {
        Ok(address) => address.ip().is_loopback(),
        Err(_) => address.rsplit_once(':').is_some_and(|(host, _)| host == "localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: Fingerprint = Fingerprint([1; 32]);
    const WRONG: Fingerprint = Fingerprint([2; 32]);

    /// Issue 9, A1: every combination of what can be known. A mismatch is never a question, and
    /// never excused.
    #[test]
    fn a_receiver_is_trusted_only_for_a_reason() {
        let some = [None, Some(RIGHT), Some(WRONG)];
        for (pin, begun_with) in some.iter().flat_map(|pin| some.map(|begun| (*pin, begun))) {
            for bits in 0..16_u8 {
                let bit = |at: u8| bits & (1 << at) != 0;
                let (piped, trusted, local, terminal) = (bit(0), bit(1), bit(2), bit(3));
                let known = Known { pin, begun_with, ticket: RIGHT, piped, trusted, local, terminal };
                let decision = decide(known);
                let mismatched = pin == Some(WRONG) || begun_with == Some(WRONG);
                match decision {
                    Decision::Mismatch(_) => assert!(mismatched, "{known:?}"),
                    Decision::Trust(ReceiverTrust::Pinned) => assert!(pin == Some(RIGHT) && !mismatched, "{known:?}"),
                    Decision::Trust(ReceiverTrust::Ticket) => {
                        assert!(pin.is_none() && !mismatched, "{known:?}");
                        assert!(begun_with.is_some() || piped || trusted || local, "{known:?}");
                    }
                    Decision::Ask | Decision::NoPin => {
                        assert!(pin.is_none() && begun_with.is_none() && !(piped || trusted || local), "{known:?}");
                        assert_eq!(decision == Decision::Ask, terminal);
                    }
                }
            }
        }
    }

    #[test]
    fn only_this_host_is_local() {
        for local in ["127.0.0.1:7443", "[::1]:7443", "localhost:7443", "127.8.8.8:1"] {
            assert!(is_loopback(local), "{local}");
        }
        for remote in ["10.0.0.1:7443", "[fe80::1]:7443", "localhost.example.org:7443", "localhost", "0.0.0.0:7443", ""]
        {
            assert!(!is_loopback(remote), "{remote}");
        }
    }
}
