//! The destination-side agent.

pub mod sink;
