//! The opaque engine: bytes that mean nothing to Sealift, from a file, a program or standard input.
#![deny(unsafe_code)] // `detached` alone allows it: what runs between fork and exec.

mod detached;
mod engine;
pub mod program;
mod source;

pub use self::{detached::shut_off, engine::engine, source::OpaqueSource};
