//! The harness: both agents as real processes, throwaway databases, a faulty link, bad
//! certificates.
//!
//! Nothing here is simulated but the faults; only `sim` runs the two state machines alone, under a
//! clock of its own. A test names in its doc comment the row of `docs/faults.md` that it proves.

pub mod agents;
pub mod bytes;
pub mod canary;
pub mod certs;
pub mod cgroup;
pub mod crash_loop;
pub mod disk;
pub mod doubt_loop;
pub mod dribble;
pub mod exit;
pub mod fail_points;
pub mod finished;
pub mod flood;
pub mod grid;
pub mod invited;
pub mod launch;
pub mod link;
pub mod mariadb;
pub mod memory;
pub mod one_load;
pub mod pair;
pub mod place;
pub mod port;
pub mod postgres;
pub mod random;
pub mod service;
pub mod shared;
pub mod sim;
pub mod sqlite;
pub mod stranger;
pub mod terminal;
pub mod tls;
pub mod trace;
pub mod wire;
