//! What both agents are made of: identity, link, telemetry, and the words they use to people.

pub mod failure;
pub mod telemetry;
