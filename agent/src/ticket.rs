//! A ticket: everything a sender needs for one transfer, as text that can be piped or carried as a
//! file. The holder of an unused one can run that transfer, and an attacker who can alter it on its
//! way can redirect it: it has to be secret and authentic.

use minicbor::{Decode, Encode};
use sealift_protocol::{
    close::Code,
    codec,
    fingerprint::Fingerprint,
    grant::SignedGrant,
    limits::{GRANT_BYTES_MAX, NAME_BYTES_MAX},
    sealed_log::KeyFingerprint,
    ticket_proof::TicketSecret,
};
use zeroize::Zeroizing;

use crate::{
    armour::Armour,
    failure::{Failure, Outcome},
};

const ARMOUR: Armour = Armour { label: "SEALIFT TICKET", checksum_context: "sealift/1 2026-11 ticket checksum" };

/// The largest ticket: a grant, some hashes and keys, and addresses.
pub const TICKET_BYTES_MAX: usize = GRANT_BYTES_MAX + (8 << 10);

/// Addresses that a ticket may carry: every interface of an ordinary host and a few names.
pub const ADDRESSES_MAX: usize = 16;

#[derive(Clone, Encode, Decode)]
#[cbor(map)]
pub struct Ticket {
    /// `HOST:PORT`, tried in order.
    #[n(0)]
    pub addresses: Vec<String>,
    /// Of the receiver's key.
    #[n(1)]
    pub receiver: Fingerprint,
    /// Of the key to which the receiver has the data keys sealed: the inner layer of encryption
    /// does not depend on TLS.
    #[n(2)]
    pub sealing_key: KeyFingerprint,
    #[n(3)]
    pub grant: SignedGrant,
    /// Absent once the ticket is bound to its sender, which needs no more than its own key.
    #[n(4)]
    pub secret: Option<TicketSecret>,
}

impl Ticket {
    /// The ticket as text, ending in a newline. The checksum distinguishes a damaged ticket from a
    /// foreign one.
    pub fn to_text(&self) -> Zeroizing<String> {
        ARMOUR.to_text(&Zeroizing::new(codec::encode(self)))
    }

    /// Reads the one ticket in `text`; anything around it is ignored, anything wrong inside it is
    /// an error.
    pub fn from_text(text: &str) -> Outcome<Self> {
        let damaged = |what: &str| {
            let next = "Copy the ticket again, whole, from its BEGIN line to its END line.";
            Failure::new(Code::GrantInvalid, format!("the ticket is damaged: {what}"), next)
        };
        let body = ARMOUR.bytes_of(text).map_err(damaged)?;
        let ticket: Ticket = codec::decode(&body, TICKET_BYTES_MAX, "ticket").map_err(|_| damaged("its content"))?;
        if ticket.addresses.is_empty() || ticket.addresses.len() > ADDRESSES_MAX {
            return Err(damaged("its addresses"));
        }
        if ticket.addresses.iter().any(|address| address.len() > NAME_BYTES_MAX) {
            return Err(damaged("its addresses"));
        }
        // They go into the audit log before the receiver, which can check the grant, has been
        // asked.
        let grant = &ticket.grant.grant;
        if [&grant.source, &grant.target, &grant.purpose].iter().any(|text| text.len() > NAME_BYTES_MAX) {
            return Err(damaged("the texts of its grant"));
        }
        if grant.receiver != ticket.receiver {
            return Err(damaged("its grant is for another receiver"));
        }
        Ok(ticket)
    }

    /// Whether `line` ends a ticket: a reader of a pipe stops here, since the pipe stays open.
    pub fn is_end(line: &str) -> bool {
        ARMOUR.is_end(line)
    }
}
