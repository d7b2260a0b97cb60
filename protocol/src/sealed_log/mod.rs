//! The sealed log: the one format in which chunks lie at rest, whether as journal, spool or
//! archive. It holds what came over the wire, sealed as it came, and the key envelopes that open
//! it; so the log is as secret as the wire.
//!
//! | what | bytes |
//! |---|---|
//! | header | `"SLl1"`, kind, 3 zeros, transfer (16), fingerprint of the sealing key (32), salt (16), check (32) |
//! | record | head (32), body, check (32) |
//! | head | `"SLr1"`, type, 3 zeros, length of the body `u32`, synced `u64`, check of the head (12) |
//!
//! The goals are that a torn tail is told from rot, and that nothing is skipped, doubled or moved
//! without being found. Whoever writes appends, syncs, and only then acknowledges. What a crash may
//! leave of unsynced writes is anything: any of their sectors, in any order, the others zero, old
//! or not there.
//!
//! - Checks chain: each covers the one before, so what is read is what was written, from the first
//!   record on. They are keyed by the header, whose salt is random; a record of another log, or of
//!   another place in this one, never fits.
//! - *Synced* is the length that the file had when it was last synced before the record was
//!   written. A record that cannot be read was torn by a crash, unless something further on is
//!   there that was written after it had been synced: a head whose *synced* lies beyond it. Then it
//!   is rot. The head's own check makes that proof independent of its body.
//! - A mark is a record without a body, written after each sync, so that the batch before it has
//!   such a proof as well.
//!
//! It is no goal to withstand somebody who writes to the file: with the header anybody can compute
//! the checks. Against them stand the seals of the chunks, the signatures of statements, and the
//! peer's own count of what is durable.

mod chain;
mod places;
mod reader;
mod record;
#[cfg(test)]
mod tests;
mod writer;

pub use places::{EnvelopePlaces, LogBytes};
pub use reader::{Ending, LogPlace, LogReader, ReadError, Step};
pub use record::{EpochRecord, KeyFingerprint, LogHeader, LogId, LogKind, Record};
pub use writer::{Encoded, LogWriter};
