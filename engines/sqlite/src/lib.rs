//! SQLite, the embedded engine: both sources, the target and the drill; what crosses the wire of a
//! database, and how definitions of an untrusted one are entered into another.

#![deny(unsafe_code)] // Allowed in target/{insert,long_blob}.rs and source/wal_snapshot.rs alone.

mod define;
pub mod document;
mod drill;
mod endpoint;
pub mod engine;
mod fail_point;
pub mod image;
mod loading;
mod make;
mod options;
mod partial;
mod preflight;
mod rehearse;
mod source;
mod statement;
mod stored;
mod target;
#[cfg(test)]
mod testing;
mod value;

use sealift_engine_api::EngineSpec;

use self::{
    define::{Cause, Refused, define_virtual, with_writable_schema},
    loading::{begin_loading, end_loading, has_computed_index},
    make::{make_index, make_table, make_trigger, make_view},
    options::check_options,
    partial::has_foreign_entries,
    rehearse::{distrust, rehearse},
};
pub use self::{
    endpoint::parse_with_ranges,
    source::{ImageSource, SqliteSource},
    statement::quote,
    target::SqliteTarget,
    value::{Value, put_value, read_values, value_bytes},
};

/// The engine, for the registry.
pub const SPEC: EngineSpec = EngineSpec {
    name: "sqlite",
    schemes: endpoint::SCHEMES,
    drill: drill::drill,
    helpers: &[],
    fail_points: fail_point::ALL,
    findings: preflight::FINDINGS,
};

/// What moves a database that cannot be moved row by row, as the next step of a refusal.
pub const MOVE_IMAGE: &str = "To move the database exactly as it is, page by page, give the sender --form image.";
