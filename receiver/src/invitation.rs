//! Makes the ticket of one transfer. For `listen`, an authority lives for a moment, certifies two identities and signs the
//! grant: what is left of it afterwards is the receiver's identity, and what the ticket carries. A standing receiver has an
//! authority of its own.

use std::{net::SocketAddr, time::Duration};

use minicbor::{Decode, Encode};
use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};
use sealift_agent::{
    address::{Address, FORMS, unknown_names},
    authority::Authority,
    failure::{Failure, Outcome},
    identity::{Identity, Role, SpiffeId},
    random::SystemRandom,
    report::Report,
    ticket::{ADDRESSES_MAX, Ticket},
    trust::Trust,
};
use sealift_protocol::{
    close::Code,
    grant::Grant,
    id::TransferId,
    limits::NAME_BYTES_MAX,
    random::Random,
    sign::{PublicKey, Signer},
};
use time::OffsetDateTime;
use zeroize::{Zeroize, Zeroizing};

/// What the receiver keeps, and the ticket to give away.
#[derive(Clone, Encode, Decode)]
#[cbor(map)]
pub struct Invitation {
    #[n(0)]
    pub ticket: Ticket,
    /// DER of the receiver's certificate, and PKCS #8 of its key.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    certificate: Vec<u8>,
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    key: Vec<u8>,
    #[n(3)]
    pub grant_key: PublicKey,
}

impl Drop for Invitation {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl Invitation {
    pub fn make(addresses: Vec<String>, target: &str, purpose: &str, valid_for: Duration) -> Outcome<Self> {
        let transfer = random_transfer();
        let now = OffsetDateTime::now_utc();
        let authority = Authority::generate(&format!("ticket-{transfer}"), now, valid_for)?;
        let receiver = authority.issue(Role::Receiver, "once", now, valid_for)?;
        let to = Addressed { addresses, receiver: authority.id(Role::Receiver, "once")?, target: target.to_owned() };
        let ticket = issue_ticket(&authority, transfer, to, purpose, now, valid_for)?;
        let (certificate, key) = (receiver.chain[0].to_vec(), receiver.pkcs8.to_vec());
        Ok(Self { ticket, certificate, key, grant_key: authority.public_key() })
    }

    pub fn identity(&self) -> Outcome<Identity> {
        Identity::new(vec![self.certificate.clone().into()], Zeroizing::new(self.key.clone()), Role::Receiver)
    }

    /// Whom the receiver lets in: the one sender of the ticket.
    pub fn trust(&self) -> Trust {
        Trust::new(self.ticket.root_certificate(), Some(self.ticket.grant.grant.sender.clone()))
    }
}

/// Where a ticket leads.
pub struct Addressed {
    pub addresses: Vec<String>,
    pub receiver: SpiffeId,
    /// What the receiver calls the target.
    pub target: String,
}

pub fn random_transfer() -> TransferId {
    let mut id = [0; 16];
    SystemRandom::default().fill(&mut id);
    TransferId(id)
}

/// A ticket for one transfer: makes its sender, which is named like the transfer, and signs its grant.
pub fn issue_ticket(
    authority: &Authority,
    transfer: TransferId,
    to: Addressed,
    purpose: &str,
    now: OffsetDateTime,
    valid_for: Duration,
) -> Outcome<Ticket> {
    if purpose.len() > NAME_BYTES_MAX {
        return Err(Failure::usage("--purpose is too long", format!("Use at most {NAME_BYTES_MAX} bytes.")));
    }
    let name = transfer.to_string();
    let sender = authority.issue(Role::Sender, &name, now, valid_for)?;
    let grant = Grant {
        transfer,
        sender: authority.id(Role::Sender, &name)?.as_str().to_owned(),
        receiver: to.receiver.as_str().to_owned(),
        source: String::new(),
        target: to.target,
        purpose: purpose.to_owned(),
        not_before_seconds: now.unix_timestamp() as u64,
        not_after_seconds: u64::try_from((now + valid_for).unix_timestamp()).unwrap_or(0),
    };
    Ok(Ticket {
        addresses: to.addresses,
        root: authority.root().to_vec(),
        certificate: sender.chain[0].to_vec(),
        key: sender.pkcs8.to_vec(),
        grant: grant.sign(authority),
    })
}

/// The addresses that a ticket names: those given, or else where `bound` can be reached from elsewhere.
pub fn addresses(given: &[String], bound: SocketAddr) -> Outcome<Vec<String>> {
    if given.len() > ADDRESSES_MAX {
        return Err(Failure::usage("too many --address", format!("Give at most {ADDRESSES_MAX}.")));
    }
    for address in given {
        if Address::parse(address).is_none_or(|parsed| parsed.port() == 0) {
            return Err(Failure::usage(format!("--address {address} cannot be used"), FORMS));
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
        let next = "Say how the sender reaches this host: --address HOST:PORT.";
        return Err(Failure::new(Code::Preflight, "this host has no address of its own", next));
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

/// Addresses of the interfaces that are up: global ones first, loopback last, so that a sender on this very host works
/// too; link-local ones need a zone and are left out.
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
