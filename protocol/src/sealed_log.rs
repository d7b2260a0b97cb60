//! The sealed log: the one format of chunks at rest, as journal, spool or archive
//! (`docs/sealed-log.md`). It holds the chunks as they were sealed for the wire, with the key
//! envelopes that open them, so that the log is as secret as the wire.
//!
//! | what | bytes |
//! |---|---|
//! | header | `"SLl1"`, kind, 3 zeros, transfer (16), sealing key (32), salt (16), check (32) |
//! | record | head (32), body, check (32) |
//! | head | `"SLr1"`, type, 3 zeros, length of the body `u32`, synced `u64`, check (12) |
//!
//! The sealing key stands there as its fingerprint, and the check of a head covers the head alone.
//!
//! The goals are to distinguish a torn tail from corruption, and to detect any record that is
//! missing, doubled or moved. A writer appends, syncs, and only then acknowledges. A crash may
//! leave any subset of the sectors of unsynced writes, in any order, the others zero, old or
//! missing.
//!
//! - Checks chain: each covers the one before, so what is read is what was written, from the first
//!   record on. They are keyed by the header, whose salt is random; a record of another log, or of
//!   another place in this one, never fits.
//! - *Synced* is the length that the file had when it was last synced before the record was
//!   written. A record that cannot be read was torn by a crash, unless something further on is
//!   there that was written after it had been synced: a head whose *synced* is beyond it. Then it
//!   is corruption. The head's own check makes that proof independent of its body.
//! - A mark is a record without a body, written after each sync, so that the batch before it has
//!   such a proof as well.
//!
//! The checks do not protect against an attacker who can write to the file, since they are computed
//! from the header. The seals of the chunks, the signatures of statements, and the peer's own count
//! of what is durable protect against that.

mod chain;
mod places;
mod reader;
mod record;
#[cfg(test)]
mod tests;
mod writer;

pub use places::{EnvelopePlaces, LogBytes};
pub use reader::{Ending, LogPlace, LogReader, ReadError, ReadStep};
pub use record::{EpochRecord, KeyFingerprint, LogHeader, LogId, LogKind, Record};
pub use writer::{Encoded, LogWriter};
