//! What goes over the wire and onto disk, and the rules by which both ends check it.
//!
//! Pure: no clock, no file, no socket, no environment. Time, randomness and bytes come in as
//! arguments, so that the real link and the simulator run the same code. `docs/protocol.md` is the
//! specification; the modules' headers hold the layouts.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod archive;
pub mod audit_head;
mod bytes;
pub mod certificate;
pub mod chunk;
pub mod close;
pub mod codec;
pub mod compress;
pub mod digest;
pub mod disposition;
pub mod envelope;
pub mod error;
pub mod failure;
pub mod fingerprint;
pub mod frame;
pub mod grant;
pub mod hint;
pub mod id;
pub mod key;
pub mod limits;
pub mod link_facts;
pub mod loader_exit;
pub mod manifest;
pub mod message;
pub mod negotiate;
pub mod printable;
pub mod random;
pub mod receive;
pub mod row;
pub mod seal;
pub mod sealed_log;
pub mod send;
pub mod sign;
mod suite;
pub mod ticket_proof;
pub mod transcript;
