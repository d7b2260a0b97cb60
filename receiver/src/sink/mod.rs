//! Where a transfer's data goes.

pub mod opaque;
pub mod sqlite;

use sealift_agent::failure::Outcome;
use sealift_protocol::{
    chunk::VerifiedChunk,
    digest::Digests,
    id::{PartIndex, TransferId},
    manifest::{LoadedPart, Plan, Proof},
    receive::WholePart,
};

/// A target that is loaded part by part under a staging name and shown under its own only at the end.
///
/// Every method may block and is called off the async threads. `prepare`, then any number of `begin`, then `prove`,
/// `publish`, `forget`; or `suspend` or `abandon` at any point, from any thread, more than once. Dropped, a sink is
/// suspended.
pub trait Sink: Send + Sync {
    /// Judges the plan, and makes the staging place, or opens the one that this very transfer left there: returns the parts
    /// that are committed in it. `fresh` drops what is there instead. Fails with `PlanRefused` or `TargetNotEmpty` before
    /// anything is sent.
    fn prepare(&self, transfer: TransferId, plan: &Plan, fresh: bool) -> Outcome<Vec<WholePart>>;

    /// Waits until this part may be written, and returns what writes it. Asked for one part at a time, in the order of the
    /// plan; the parts of earlier kinds are durable by then. Rows are digested under the
    /// transfer's own keys.
    fn begin(&self, part: PartIndex, digests: &Digests) -> Outcome<Box<dyn PartSink + '_>>;

    /// Everything has arrived and the manifest fits: ends the load, and says what the target itself says is there.
    fn prove(&self, digests: &Digests) -> Outcome<(Proof, Vec<LoadedPart>)>;

    /// The receipt is signed and kept: shows the load under its final name. After a crash it is called again, by a process
    /// that has done nothing else with this sink, and then finishes what the first began, or finds that it had ended.
    fn publish(&self, transfer: TransferId) -> Outcome;

    /// The caller has noted, durably, that the load is published, and will not call `publish` for it again: removes what
    /// that would know it by. Called again after a crash, too.
    fn forget(&self, _transfer: TransferId) {}

    /// Stops what runs and undoes what is not durable; keeps what is, for a later `prepare` of the same transfer.
    fn suspend(&self);

    /// Gives up: stops what runs and drops what was staged, so that nothing is visible in the target.
    fn abandon(&self);
}

/// Writes one part. Dropped without `finish`, it leaves nothing of the part behind.
pub trait PartSink {
    /// Takes the next chunk. When this returns, the target's transaction or the loader has it.
    fn write(&mut self, chunk: &VerifiedChunk) -> Outcome;

    /// The part is whole. When this returns, it is durable, if this target can make a part durable on its own; `whole` is
    /// then kept with it, for `prepare` to tell.
    fn finish(self: Box<Self>, whole: &WholePart) -> Outcome;
}
