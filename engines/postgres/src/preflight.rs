//! What there is to know of a source or a target before a transfer: its server, the role, what else
//! goes on there, and the programs of this host. Looks, and touches nothing.
//!
//! | module | what it looks at |
//! |---|---|
//! | `kinds` | the closed list of findings |
//! | `survey` | a session that looks, and the settings of its server |
//! | `server` | version, recovery, settings, clock |
//! | `logs` | what the server's own log would quote |
//! | `busy` | connections, locks, transactions that others hold, replication |
//! | `collation` | locale, and versions of collations |
//! | `role` | what the role may do, and what it lacks |
//! | `pooler` | what is between this host and the server |
//! | `programs` | `pg_dump` |
//! | `source`, `target` | what is looked at, in order |

mod busy;
mod collation;
mod kinds;
pub(crate) mod logs;
mod pooler;
pub(crate) mod programs;
mod role;
pub(crate) mod server;
pub(crate) mod source;
mod survey;
pub(crate) mod target;

pub use self::kinds::FINDINGS;
