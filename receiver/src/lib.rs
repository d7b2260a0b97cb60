//! The destination-side agent.
#![forbid(unsafe_code)]

pub mod activity;
pub mod archive;
pub mod cli;
pub mod config;
pub mod ending;
pub mod held;
pub mod invitation;
pub mod journal;
pub mod listen;
pub mod load;
pub mod pipeline;
pub mod preflight;
pub mod program;
pub mod reception;
pub mod record;
pub mod resolve;
pub mod runner;
pub mod serve;
pub mod standing_key;
pub mod target;
pub mod ticket;
pub mod ticket_book;
pub mod transfer;
pub mod unfinished;
pub mod workers;
pub mod writer;
