//! The opaque engine: bytes that mean nothing to Sealift, from and into a file, a program or a
//! standard stream; and `discard:`, the target of a drill.
#![deny(unsafe_code)] // `detached` alone allows it: what runs between fork and exec.

mod command;
mod detached;
mod discard;
mod endpoint;
mod engine;
mod fail_point;
mod file;
mod guard;
mod loader;
mod preflight;
pub mod program;
mod source;
mod target;

use sealift_engine_api::EngineSpec;

pub use self::{detached::shut_off, engine::engine, source::OpaqueSource, target::OpaqueTarget};

/// The engine, for the registry.
pub const SPEC: EngineSpec = EngineSpec {
    name: "opaque",
    schemes: endpoint::SCHEMES,
    drill: discard::drill,
    helpers: guard::HELPERS,
    fail_points: fail_point::ALL,
    findings: preflight::FINDINGS,
};
