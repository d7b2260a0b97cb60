//! The destination-side agent.
#![forbid(unsafe_code)]

pub mod cli;
pub mod guard;
pub mod invitation;
pub mod listen;
pub mod loader;
pub mod pipeline;
pub mod reception;
pub mod sink;
pub mod workers;
pub mod writer;
