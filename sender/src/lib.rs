//! The source-side agent.
#![forbid(unsafe_code)]

pub mod cli;
pub mod part;
pub mod pipeline;
pub mod push;
pub mod reader;
pub mod source;
pub mod workers;
