//! The source-side agent.
#![forbid(unsafe_code)]

pub mod arrivals;
pub mod chosen;
pub mod cli;
pub mod dry_run;
pub mod form;
pub mod lane;
pub mod nothing;
pub mod outage;
pub mod outgoing;
pub mod part;
pub mod pipeline;
pub mod preflight;
pub mod program;
pub mod push;
pub mod reader;
pub mod receiver_trust;
pub mod record;
pub mod seal;
mod snapshot_watch;
pub mod spool;
mod table_rows;
pub mod ticket_input;
pub mod transfer;
pub mod unfinished;
pub mod workers;
