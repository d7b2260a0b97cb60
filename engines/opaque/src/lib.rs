//! The opaque engine: bytes that mean nothing to Sealift, from a file, a program or standard input.
#![deny(unsafe_code)] // `detached` alone allows it: what runs between fork and exec.

mod command;
mod detached;
mod endpoint;
mod engine;
pub mod program;
mod source;

use sealift_engine_api::EngineSpec;

pub use self::{detached::shut_off, engine::engine, source::OpaqueSource};

/// The engine, for the registry.
pub const SPEC: EngineSpec = EngineSpec { name: "opaque", schemes: endpoint::SCHEMES };
