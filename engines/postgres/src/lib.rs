//! PostgreSQL: a database as a source and as a target.
//!
//! | module | what it is |
//! |---|---|
//! | [`endpoint`] | `postgres://` URLs |
//! | `target` | the database that a load goes into |
//! | [`archive`] | the definitions in an archive of `pg_dump` |
//! | [`client`] | connections: where they lead, TLS, passwords by reference, errors without values |
//! | [`document`] | what crosses the wire |
//! | [`copy_rows`] | rows as COPY has them and as they travel |
//! | [`session`] | the settings under which a value has one text at both ends |
//!
//! Not there yet: the source's own modules, and with them the entry of the engine in the registry.

#![forbid(unsafe_code)]

pub mod archive;
pub mod client;
pub mod copy_rows;
pub mod document;
pub mod endpoint;
pub mod engine;
pub mod fail_point;
pub mod session;
pub mod sql;
mod target;

pub use self::target::PostgresTarget;
