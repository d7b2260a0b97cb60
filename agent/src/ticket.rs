//! A ticket: everything a sender needs for one transfer, as text that can be piped or mailed as a file. It holds a
//! private key, so whoever has it can run that transfer until it expires or is used.

use minicbor::{Decode, Encode};
use rustls_pki_types::CertificateDer;
use sealift_protocol::{
    close::Code,
    codec,
    grant::SignedGrant,
    limits::{GRANT_BYTES_MAX, NAME_BYTES_MAX},
};
use zeroize::{Zeroize, Zeroizing};

use crate::{
    armour::Armour,
    failure::{Failure, Outcome},
};

const ARMOUR: Armour = Armour { label: "SEALIFT TICKET", checksum_context: "sealift/1 2026-11 ticket checksum" };

/// The largest ticket: a grant, two certificates, a key, and addresses.
pub const TICKET_BYTES_MAX: usize = GRANT_BYTES_MAX + (16 << 10);

/// Addresses that a ticket may carry: every interface of an ordinary host and a few names.
pub const ADDRESSES_MAX: usize = 16;

#[derive(Clone, Encode, Decode)]
#[cbor(map)]
pub struct Ticket {
    /// `HOST:PORT`, tried in order.
    #[n(0)]
    pub addresses: Vec<String>,
    /// DER of the root that the receiver's certificate chains to.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub root: Vec<u8>,
    /// DER of the sender's one-time certificate.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub certificate: Vec<u8>,
    /// PKCS #8 of its key.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub key: Vec<u8>,
    #[n(4)]
    pub grant: SignedGrant,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl Ticket {
    pub fn root_certificate(&self) -> CertificateDer<'static> {
        CertificateDer::from(self.root.clone())
    }

    /// The ticket as text, ending in a newline. The checksum tells a damaged ticket from a foreign one.
    pub fn to_text(&self) -> Zeroizing<String> {
        ARMOUR.to_text(&Zeroizing::new(codec::encode(self)))
    }

    /// Reads the one ticket in `text`; anything around it is ignored, anything wrong inside it is an error.
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
        // They go into the audit log before the receiver, which can check the grant, has been asked.
        let grant = &ticket.grant.grant;
        let texts = [&grant.sender, &grant.receiver, &grant.source, &grant.target, &grant.purpose];
        if texts.iter().any(|text| text.len() > NAME_BYTES_MAX) {
            return Err(damaged("the texts of its grant"));
        }
        Ok(ticket)
    }

    /// Whether `line` ends a ticket: a reader of a pipe stops here, since the pipe stays open.
    pub fn is_end(line: &str) -> bool {
        ARMOUR.is_end(line)
    }
}
