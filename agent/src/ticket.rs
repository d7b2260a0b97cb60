//! A ticket: everything a sender needs for one transfer, as text that can be piped or mailed as a file. It holds a
//! private key, so whoever has it can run that transfer until it expires or is used.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use minicbor::{Decode, Encode};
use rustls_pki_types::CertificateDer;
use sealift_protocol::{close::Code, codec, grant::SignedGrant, limits::GRANT_BYTES_MAX};
use zeroize::{Zeroize, Zeroizing};

use crate::failure::{Failure, Outcome};

const BEGIN: &str = "-----BEGIN SEALIFT TICKET-----";
const END: &str = "-----END SEALIFT TICKET-----";
const LINE_CHARACTERS: usize = 64;
const CHECKSUM_BYTES: usize = 8;

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
        let mut bytes = Zeroizing::new(codec::encode(self));
        let checksum = checksum(&bytes);
        bytes.extend_from_slice(&checksum);
        let armour = Zeroizing::new(STANDARD.encode(&*bytes));
        let mut text = Zeroizing::new(format!("{BEGIN}\n"));
        for line in armour.as_bytes().chunks(LINE_CHARACTERS) {
            text.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
            text.push('\n');
        }
        text.push_str(END);
        text.push('\n');
        text
    }

    /// Reads the one ticket in `text`; anything around it is ignored, anything wrong inside it is an error.
    pub fn from_text(text: &str) -> Outcome<Self> {
        let damaged = |what: &str| {
            let next = "Copy the ticket again, whole, from its BEGIN line to its END line.";
            Failure::new(Code::GrantInvalid, format!("the ticket is damaged: {what}"), next)
        };
        let (_, rest) = text.split_once(BEGIN).ok_or_else(|| damaged("it has no BEGIN line"))?;
        let (armour, _) = rest.split_once(END).ok_or_else(|| damaged("it has no END line"))?;
        let armour: Zeroizing<String> = Zeroizing::new(armour.split_ascii_whitespace().collect());
        let bytes = STANDARD.decode(armour.as_bytes()).map(Zeroizing::new);
        let bytes = bytes.map_err(|_| damaged("it is not base64"))?;
        let body_bytes = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or_else(|| damaged("it is too short"))?;
        let (body, found) = bytes.split_at(body_bytes);
        if found != checksum(body) {
            return Err(damaged("its checksum is wrong"));
        }
        let ticket: Ticket = codec::decode(body, TICKET_BYTES_MAX, "ticket").map_err(|_| damaged("its content"))?;
        if ticket.addresses.is_empty() || ticket.addresses.len() > ADDRESSES_MAX {
            return Err(damaged("its addresses"));
        }
        Ok(ticket)
    }

    /// Whether `line` ends a ticket: a reader of a pipe stops here, since the pipe stays open.
    pub fn is_end(line: &str) -> bool {
        line.trim_end() == END
    }
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = blake3::derive_key("sealift/1 2026-11 ticket checksum", body);
    hash[..CHECKSUM_BYTES].try_into().expect("a BLAKE3 hash has 32 bytes")
}
