//! The head of an audit log. An agent states the head of its own log in what it signs, so that a
//! log that was cut, replaced or rewritten afterwards no longer fits.

use minicbor::{Decode, Encode};

/// The last entry of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AuditHead {
    /// Counted from 0.
    #[n(0)]
    pub sequence: u64,
    /// BLAKE3 of the entry, without the end of its line.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub hash: [u8; 32],
}
