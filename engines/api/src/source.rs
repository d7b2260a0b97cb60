//! Where a transfer's data comes from: a source, the snapshot that is taken of it, and what reads
//! the parts of that snapshot.
//!
//! ```text
//! Source ── plan ──▶ Planned { plan, findings, snapshot }
//!                                               └─ reader ─▶ PartReader ── read ─▶ RowSink
//! ```

use std::{sync::Arc, time::Duration};

use sealift_protocol::{
    failure::Outcome,
    id::{PartIndex, TableIndex},
    manifest::Plan,
};

use crate::{Finding, RowSink, StopToken};

/// A source, opened. Nothing of it was read, and nothing runs.
pub trait Source: Send {
    /// A preflight: looks at the source as far as that touches nothing of it, and takes no
    /// snapshot. Fails if it cannot be looked at. Blocks, and ends with `stop`.
    fn check(&self, _stop: Arc<dyn StopToken>) -> Outcome<Vec<Finding>> {
        Ok(Vec::new())
    }

    /// Says what there is, and takes the snapshot that every reader sees. Fails with
    /// `SourceUnsuitable` if anything in it could not be moved exactly, before a byte is sent.
    /// Blocks. This and every later read end with `stop`.
    fn plan(self: Box<Self>, stop: Arc<dyn StopToken>) -> Outcome<Planned>;
}

/// What a source has, as of one moment.
pub struct Planned {
    /// What is to be moved.
    pub plan: Plan,
    /// What is to be said of it before anything is sent, and follows from the snapshot. If one of
    /// them is an error, nothing is read: [`crate::refuse_errors`].
    pub findings: Vec<Finding>,
    /// From which it is read.
    pub snapshot: Arc<dyn Snapshot>,
}

/// One moment of a source, which all readers see. Dropped with its readers, it is let go.
///
/// Every method may block.
pub trait Snapshot: Send + Sync {
    /// How many readers may be open at once, at least one.
    fn readers_max(&self) -> usize {
        1
    }

    /// Whether a part can be read more than once while the snapshot is held. It then has the same
    /// bytes as long as what is read has not changed. That it has not is not taken on trust: what
    /// is read again is proven by its digest.
    fn can_repeat(&self) -> bool;

    /// How old it is, where that is a burden on the source.
    fn age(&self) -> Option<SnapshotAge> {
        None
    }

    /// Opens a reader with a connection of its own. Of a snapshot that was planned, the first one
    /// can be opened; more may fail where the source has no room for them.
    fn reader(&self) -> Outcome<Box<dyn PartReader>>;
}

/// The age of a snapshot that a source holds for its readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotAge {
    /// Since it was taken.
    pub age: Duration,
    /// Transactions that the source has begun since, of which it can clean up nothing; `None` if
    /// that is not known.
    pub transactions: Option<u32>,
    /// Old enough for the operator to be warned.
    pub is_old: bool,
}

/// Reads parts, one at a time. Whichever reader of a snapshot reads a part, it has the same bytes
/// in the same order.
pub trait PartReader: Send {
    /// Writes one part into `out`, whole. Returns only when the source vouches for it: a program
    /// that feeds it has ended with exit code 0. Blocks.
    fn read(&mut self, part: PartIndex, out: &mut dyn RowSink) -> Outcome;

    /// How many rows a table has at the snapshot, found in another way than [`Self::read`] finds
    /// them: a row that is skipped there is in no digest of either side. `None` where the engine
    /// has no cheap way. Asked once all parts of the table are read. Blocks.
    fn count_rows(&mut self, _table: TableIndex) -> Outcome<Option<u64>> {
        Ok(None)
    }
}
