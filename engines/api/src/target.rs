//! Where a transfer's data goes: a target, the load that is staged in it, and the proof of that
//! load. Each step consumes the one before it, so that a wrong order does not compile.
//!
//! ```text
//! Target ── prepare ──▶ TargetLoad ── prove ──▶ ProvenLoad ── publish ──▶ visible
//!    │                   │   │  └─ writers ─▶ Writers ── begin ──▶ PartSink, several at once
//!    │                   └───┴── StagedLoad: dropped, it is suspended; or `abandon`
//!    └── Recovery: what another process left, by its transfer
//! ```
//!
//! A step that fails gives the load back as what it is then: staged, to be suspended or abandoned
//! and nothing else.

use std::{path::PathBuf, sync::Arc};

use sealift_protocol::{
    chunk::VerifiedChunk,
    close::Code,
    digest::Digests,
    disposition::Asks,
    failure::{Failure, Outcome},
    id::{PartIndex, TransferId},
    manifest::{Evidence, Plan},
    receive::{Durability, Found, WholePart},
};

use crate::{Finding, StopToken};

/// How far a target is looked at. Each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Readiness {
    /// That its folder is there, can be written and has room, and that all names fit.
    Place,
    /// That nothing is in the way under its name.
    Name,
    /// That no other load is under way to it.
    Staging,
}

/// What a target promises of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetCapabilities {
    /// What outlives a process that dies.
    pub durability: Durability,
    /// What can be known of the end of a load.
    pub commit: Commit,
}

/// What can be known of the moment from which a load is in the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// A load becomes visible when it is published and not before; a later process finds out
    /// whether it was.
    Observable,
    /// [`TargetLoad::prove`] ends the load in a way that nobody can find out about later: if this
    /// process is killed meanwhile, the load is in doubt.
    Unobservable,
}

/// What a URL names, as a target. Opened, it has touched nothing.
///
/// Every method may block and is called off the async threads.
pub trait Target: Recovery {
    /// What it promises of a load of this plan.
    fn capabilities(&self, plan: &Plan) -> TargetCapabilities;

    /// A preflight, before there is a ticket: whether a load could begin and be shown, as far as
    /// can be found out now. Leaves nothing behind. Fails if the target cannot be looked at, or if
    /// something is in the way.
    fn check(&self, _readiness: Readiness) -> Outcome<Vec<Finding>> {
        Ok(Vec::new())
    }

    /// Checks the plan, and makes the staging place, or opens the one that this very transfer left
    /// there, unless it is asked to start over. Fails with `PlanRefused` or `TargetNotEmpty` before
    /// anything is sent. The load ends with `stop`.
    fn prepare(&self, transfer: TransferId, plan: &Plan, asks: Asks, stop: Arc<dyn StopToken>)
    -> Outcome<PreparedLoad>;
}

/// A load that can be written.
pub struct PreparedLoad {
    /// What an earlier process has committed.
    pub found: Vec<Found>,
    /// The rows in it.
    pub rows: u64,
    /// The load itself.
    pub load: Box<dyn TargetLoad>,
}

impl PreparedLoad {
    /// One of which nothing is there.
    pub fn empty(load: impl TargetLoad + 'static) -> Self {
        Self { found: Vec::new(), rows: 0, load: Box::new(load) }
    }
}

/// What is staged in a target, and held by this process. Dropped, it is suspended: what is not
/// durable is undone, and what is stays for a later `prepare` of the same transfer.
///
/// A writer that is busy when the load ends is not waited for; it cleans up itself.
pub trait StagedLoad: Send {
    /// Gives up: drops what was staged, so that nothing is visible in the target.
    fn abandon(self: Box<Self>);
}

/// A load that parts are written into.
pub trait TargetLoad: StagedLoad {
    /// What gives its parts to threads. It outlives the load, and then begins nothing any more.
    fn writers(&self) -> Arc<dyn Writers>;

    /// Everything has arrived and the manifest fits: ends the load, and reads from the target what
    /// is there. Asks the stop token again and again, unless the end is unobservable: then it is
    /// waited for.
    fn prove(self: Box<Self>, digests: &Digests) -> Result<Box<dyn ProvenLoad>, LoadFailure>;
}

/// A load that was read back from its target, and is not visible yet.
pub trait ProvenLoad: StagedLoad {
    /// What the target itself says is there.
    fn evidence(&self) -> &Evidence;

    /// What is to be said of the load before it is published, such as what was left out of it.
    fn findings(&self) -> &[Finding] {
        &[]
    }

    /// The receipt is signed and kept: shows the load under its final name. Nothing stops it.
    fn publish(self: Box<Self>) -> Result<(), LoadFailure>;
}

/// Why a step of a load failed, and what is staged of it.
pub struct LoadFailure {
    /// Why.
    pub failure: Box<Failure>,
    /// To be suspended or abandoned.
    pub staged: Box<dyn StagedLoad>,
}

impl LoadFailure {
    /// A step of `staged` has failed.
    pub fn new(failure: Failure, staged: Box<dyn StagedLoad>) -> Self {
        Self { failure: Box::new(failure), staged }
    }
}

/// Gives the parts of one load to threads that write them.
pub trait Writers: Send + Sync {
    /// Waits until this part may be written, and returns what writes it. Asked for one part at a
    /// time, in the order of the plan; the parts of earlier sections are finished by then. Rows are
    /// digested under the transfer's own keys.
    fn begin(&self, part: PartIndex, digests: &Digests) -> Outcome<Box<dyn PartSink + '_>>;
}

/// Writes one part, from its first chunk, or from the one after the prefix that `prepare` found.
/// Dropped without `finish`, it leaves nothing of the part behind but what is durable. Fails once
/// the stop token says so.
pub trait PartSink {
    /// Takes the next chunk. When this returns, the target's transaction or the loader has it.
    fn write(&mut self, chunk: &VerifiedChunk) -> Outcome;

    /// Rows that were taken so far, where the target has rows.
    fn rows(&self) -> u64 {
        0
    }

    /// Makes all that was taken so far durable. Called of a target with
    /// [`Durability::SyncedChunks`] and of no other.
    fn sync(&mut self) -> Outcome {
        Err(Failure::new(Code::Internal, "a target that keeps whole parts was asked to sync one", ""))
    }

    /// The part is whole. Returns the parts that are finished by now and were not returned before:
    /// one that is committed together with a later part is returned when it is. Of a target with
    /// [`Durability::Parts`] they are durable; `whole` is kept with its part, for `prepare` to
    /// find.
    fn finish(self: Box<Self>, whole: &WholePart) -> Outcome<Vec<PartIndex>>;
}

/// How far a transfer had come when the process that ran it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftAt {
    /// Before its receipt was signed.
    Loading,
    /// After that: it may be published.
    ReceiptSigned,
}

/// What became of a load that was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abandoned {
    /// Nothing of it is left.
    Dropped,
    /// It has its final name, where it stays.
    Published,
}

/// The way of a process that has no load in its hands: what is in a target is found by its
/// transfer. Each method finishes what another process began, and can be called again after a
/// crash.
pub trait Recovery: Send + Sync {
    /// The receipt is signed and kept: publishes the load, from wherever an earlier attempt
    /// stopped, or finds that it is published.
    fn publish(&self, _transfer: TransferId) -> Outcome {
        Ok(())
    }

    /// The caller has noted, durably, that the load is published, and will not call `publish` for
    /// it again: removes what that would know it by.
    fn forget(&self, _transfer: TransferId) {}

    /// Drops what is left of this transfer in the staging place, and nothing of another's.
    fn abandon(&self, transfer: TransferId, left_at: LeftAt) -> Outcome<Abandoned>;

    /// The file that holds, in the clear, what is loaded of this transfer and not shown yet, if
    /// there is one.
    fn staged(&self, _transfer: TransferId) -> Option<PathBuf> {
        None
    }
}

/// A load that is over when it is proven, with nothing left to publish: a drill, or what went into
/// a program.
pub struct FinishedLoad(pub Evidence);

impl StagedLoad for FinishedLoad {
    fn abandon(self: Box<Self>) {}
}

impl ProvenLoad for FinishedLoad {
    fn evidence(&self) -> &Evidence {
        &self.0
    }

    fn publish(self: Box<Self>) -> Result<(), LoadFailure> {
        Ok(())
    }
}
