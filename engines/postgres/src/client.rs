//! Connections to a server: blocking calls, each connection on the thread that uses it.
//!
//! A connection is a socket that this module opens, TLS where the server is not on this host, and
//! PostgreSQL's protocol over it. No text of the server's leaves it: an error is a code, and where
//! the server says so a line.

mod address;
mod bounded;
mod connection;
mod error;
mod interrupt;
mod password;
mod socket;
mod tls;

pub use self::{
    address::{Address, Host, TlsMode},
    connection::{Connection, CopyIn, CopyOut},
    error::{At, End, Error, Result},
    interrupt::{Interrupt, Interrupts},
};
pub use tokio_postgres::{
    Row,
    types::{FromSql, ToSql},
};
