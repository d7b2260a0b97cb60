//! The source-side agent.
#![forbid(unsafe_code)]

pub mod part;
pub mod source;
