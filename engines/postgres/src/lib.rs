//! PostgreSQL: a database as a source and as a target.
//!
//! | module | what it is |
//! |---|---|
//! | [`endpoint`] | `postgres://` URLs |
//! | `target` | the database that a load goes into |
//! | [`archive`] | the definitions in an archive of `pg_dump` |
//! | [`client`] | connections: addresses, TLS, passwords by reference, errors without values |
//! | [`document`] | what crosses the wire |
//! | [`copy_rows`] | rows as COPY has them and as they travel |
//! | [`session`] | the settings under which a value has one text at both ends |
//! | `extensions` | extensions, and which of their tables hold configuration |
//! | [`inventory`] | the objects of a database, listed by both ends and compared |
//! | [`large_objects`] | large objects as rows of one table |
//! | [`table_rows`] | reading the rows of a table of either kind |
//! | `source` | the snapshot, the plan, the schema through `pg_dump`, the readers |
//! | `snapshot_holder` | the process that holds the snapshot for a sender that is killed |
//!
//! Not there yet: roles made for one transfer.

#![forbid(unsafe_code)]

pub mod archive;
pub mod client;
pub mod copy_rows;
pub mod document;
pub mod endpoint;
pub mod engine;
mod extensions;
pub mod fail_point;
pub mod inventory;
pub mod large_objects;
mod names;
pub mod preflight;
pub mod session;
mod snapshot_holder;
mod source;
pub mod sql;
pub mod table_rows;
mod target;

use sealift_engine_api::EngineSpec;

pub use self::{source::PostgresSource, target::PostgresTarget};

/// The engine, for the registry.
pub const SPEC: EngineSpec = EngineSpec {
    name: "postgres",
    schemes: endpoint::SCHEMES,
    drill: |_, _| None,
    helpers: snapshot_holder::HELPERS,
    fail_points: fail_point::ALL,
    findings: preflight::FINDINGS,
};
