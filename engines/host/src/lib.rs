//! What engines do with the host that they run on, whatever they are.
#![forbid(unsafe_code)]

pub mod path;
