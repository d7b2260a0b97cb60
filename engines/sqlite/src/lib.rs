//! What both agents do with SQLite, the embedded engine: how it was built, and how definitions of
//! an untrusted database are entered into another.

#![forbid(unsafe_code)]

mod define;
pub mod document;
mod endpoint;
pub mod engine;
pub mod image;
mod loading;
mod make;
mod options;
mod partial;
mod rehearse;
mod source;
mod statement;
mod value;

use sealift_engine_api::EngineSpec;

pub use define::{Cause, Refused, define_virtual, with_writable_schema};
pub use loading::{begin_loading, end_loading, has_computed_index};
pub use make::{make_index, make_table, make_trigger, make_view};
pub use options::check_options;
pub use partial::has_foreign_entries;
pub use rehearse::{distrust, rehearse};
pub use source::{ImageSource, SqliteSource};
pub use statement::quote;
pub use value::{Value, put_value, put_values, read_values, value_bytes};

/// The engine, for the registry.
pub const SPEC: EngineSpec = EngineSpec { name: "sqlite", schemes: endpoint::SCHEMES };

/// What moves a database that cannot be moved row by row, as the next step of a refusal.
pub const MOVE_IMAGE: &str = "To move the database exactly as it is, page by page, give the sender --form image.";
