//! What both agents are made of: identity, link, telemetry, and the words they use to people.
#![forbid(unsafe_code)]

pub mod acceptor;
pub mod armour;
pub mod audit;
pub mod authority;
pub mod backoff;
pub mod cli;
pub mod clock;
pub mod congestion;
pub mod endpoint;
pub mod expiry;
pub mod fail_point;
pub mod failure;
pub mod identity;
pub mod link;
pub mod location;
mod manual;
pub mod notify;
pub mod own_file;
pub mod process;
pub mod program;
pub mod progress;
pub mod random;
pub mod receiver_key;
pub mod report;
pub mod sealed_file;
pub mod shutdown;
pub mod signing_key;
pub mod standing;
pub mod state;
pub mod status;
pub mod telemetry;
pub mod ticket;
pub mod transfer_dir;
pub mod trust;
pub mod units;
pub mod workers;
