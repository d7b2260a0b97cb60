//! Where a transfer's data goes.

pub mod opaque;
pub mod sqlite;

use sealift_agent::failure::Outcome;
use sealift_protocol::{
    chunk::VerifiedChunk,
    digest::Digests,
    id::PartIndex,
    manifest::{LoadedPart, Plan, Proof},
};

/// A target that is loaded part by part under a staging name and shown under its own only at the end.
///
/// Every method may block and is called off the async threads. `prepare`, then any number of `begin`, then `prove`,
/// `publish`; or `abandon` at any point, from any thread, more than once.
pub trait Sink: Send + Sync {
    /// Judges the plan and makes the staging place. Fails with `PlanRefused` or `TargetNotEmpty` before anything is sent.
    fn prepare(&self, plan: &Plan) -> Outcome;

    /// Waits until this part may be written, and returns what writes it. Asked for one part at a time, in the order of the
    /// plan; the parts of earlier kinds are durable by then. Rows are digested under the
    /// transfer's own keys.
    fn begin(&self, part: PartIndex, digests: &Digests) -> Outcome<Box<dyn PartSink + '_>>;

    /// Everything has arrived and the manifest fits: ends the load, and says what the target itself says is there.
    fn prove(&self, digests: &Digests) -> Outcome<(Proof, Vec<LoadedPart>)>;

    /// The receipt is signed: shows the load under its final name.
    fn publish(&self) -> Outcome;

    /// Gives up: stops what runs and drops what was staged, so that nothing is visible in the target.
    fn abandon(&self);
}

/// Writes one part. Dropped without `finish`, it leaves nothing of the part behind.
pub trait PartSink {
    /// Takes the next chunk. When this returns, the target's transaction or the loader has it.
    fn write(&mut self, chunk: &VerifiedChunk) -> Outcome;

    /// The part is whole. When this returns, it is durable, if this target can make a part durable on its own.
    fn finish(self: Box<Self>) -> Outcome;
}
