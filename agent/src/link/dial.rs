//! Connecting to a receiver, at whichever of its addresses answers.

use std::net::SocketAddr;

use sealift_protocol::{close::Code, error::Error};

use super::{Connection, Link, quic};
use crate::{
    address::resolve,
    failure::{Failure, Outcome},
    identity::Identity,
    role::Role,
    trust::Trust,
};

/// Reasons that are reported when several addresses were tried.
const REASONS_MAX: usize = 4;

/// How a sender connects: to receivers that its trust vouches for, and no others.
pub struct Dialer<'a> {
    identity: &'a Identity,
    /// Public so that tests can attack at the level of packets.
    pub quic: quic::endpoint::ClientConfig,
}

impl<'a> Dialer<'a> {
    pub fn new(identity: &'a Identity, trust: Trust) -> Outcome<Self> {
        Ok(Self { identity, quic: quic::endpoint::client_config(identity, trust)? })
    }

    /// Connects to the first of `addresses` at which the right peer answers. One that cannot be
    /// used does not keep the others from being tried. Cancel-safe.
    pub async fn connect(&self, addresses: &[String]) -> Outcome<Link> {
        let mut failures = Vec::new();
        for name in addresses {
            let resolved = match resolve(name).await {
                Ok(resolved) => resolved,
                Err(failure) => {
                    failures.push(failure);
                    continue;
                }
            };
            for address in resolved {
                match self.connect_one(address).await {
                    Ok(link) => return Ok(link),
                    Err(failure) => failures.push(failure),
                }
            }
        }
        Err(most_telling(failures))
    }

    async fn connect_one(&self, address: SocketAddr) -> Outcome<Link> {
        let connection = Connection::Quic(quic::dial::dial(&self.quic, address).await?);
        Link::new(connection, self.identity, Role::Sender)
    }
}

/// An answer of another peer says more than no answer, and that more than what this host lacks for
/// an address.
fn most_telling(mut failures: Vec<Failure>) -> Failure {
    let silent = |failure: &Failure| matches!(failure.code, Code::Unreachable | Code::Preflight);
    if let Some(at) = failures.iter().position(|failure| !silent(failure)) {
        return failures.swap_remove(at);
    }
    match failures.len() {
        0 => Failure::from(Error::new(Code::Unreachable, "no address")),
        1 => failures.swap_remove(0),
        count => {
            let mut whats: Vec<_> = failures.iter().take(REASONS_MAX).map(|failure| failure.what.clone()).collect();
            if count > REASONS_MAX {
                whats.push(format!("{} more", count - REASONS_MAX));
            }
            let is_reached = |failure: &&Failure| failure.code == Code::Unreachable;
            let of = failures.iter().rfind(is_reached).unwrap_or(&failures[0]);
            Failure::new(of.code, format!("the receiver was not reached: {}", whats.join("; ")), of.hints.clone())
        }
    }
}
