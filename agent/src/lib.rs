//! What both agents are made of: identity, link, telemetry, and the words they use to people.
#![deny(unsafe_code)] // `inherited` alone allows it: what is set before the first thread.

pub mod address;
pub mod admission;
pub mod armour;
pub mod audit;
pub mod audit_chain;
pub mod backoff;
pub mod certificate;
pub mod cli;
pub mod clock;
pub mod control;
pub mod door;
pub mod expiry;
pub mod fail_point;
pub mod host;
pub mod identity;
pub mod image;
pub mod inherited;
pub mod link;
mod manual;
pub mod misplaced;
pub mod notify;
pub mod output;
pub mod own_file;
pub mod pins;
pub mod process;
pub mod progress;
pub mod random;
pub mod receiver_key;
pub mod refusals;
pub mod refused;
pub mod report;
pub mod sealed_file;
pub mod session;
pub mod shutdown;
pub mod state;
pub mod status;
pub mod telemetry;
pub mod threads;
pub mod ticket;
pub mod transfer_dir;
pub mod trust;
pub mod units;
pub mod workers;

pub use sealift_protocol::failure;
