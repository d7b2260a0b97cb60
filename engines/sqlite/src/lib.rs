//! What both agents do with SQLite, the embedded engine.

#![forbid(unsafe_code)]

mod options;

pub use options::check_options;
