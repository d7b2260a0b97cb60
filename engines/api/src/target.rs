//! Where a transfer's data goes.

use std::path::PathBuf;

use sealift_protocol::{
    chunk::VerifiedChunk,
    digest::{Digests, PartRoot},
    failure::Outcome,
    id::{PartIndex, TransferId},
    manifest::{Evidence, Plan},
    receive::{Found, WholePart},
};

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

/// A target that is loaded part by part under a staging name and shown under its own only at the
/// end.
///
/// Every method may block and is called off the async threads. `prepare`, then any number of
/// `begin`, then `prove`, `publish`, `forget`; or `suspend` or `abandon` at any point, from any
/// thread, more than once. Dropped, a sink is suspended.
pub trait Sink: Send + Sync {
    /// Before there is a ticket: whether a load could begin and be shown, as far as can be
    /// found out now; asked of a sink that has done nothing else, and leaves nothing behind.
    /// Returns what there is to say about the target.
    fn check(&self, _readiness: Readiness) -> Outcome<Option<String>> {
        Ok(None)
    }

    /// Checks the plan, and makes the staging place, or opens the one that this very transfer left
    /// there: returns the parts that are committed in it. `fresh` drops what is there instead.
    /// Fails with `PlanRefused` or `TargetNotEmpty` before anything is sent.
    fn prepare(&self, transfer: TransferId, plan: &Plan, fresh: bool) -> Outcome<Vec<Found>>;

    /// Whether a part that the target has taken outlives this process. Only then is the sender told
    /// that it is durable; what is not may be asked for again, after a crash.
    fn keeps_parts(&self) -> bool;

    /// Whether a process that dies takes the load with it, and a new one can feed the target
    /// afresh: then what is verified is kept in a journal.
    fn wants_journal(&self) -> bool {
        false
    }

    /// Whether a chunk counts as verified only when the part's writer says that it is durable
    /// (`edge`, `rest`, `finish`): then a sender that can give its bytes once is never asked for
    /// what it has forgotten.
    fn counts_when_synced(&self) -> bool {
        false
    }

    /// Whether `prove` ends the load in a way that nobody can find out about later: if this process
    /// is killed meanwhile, the load must not be done again.
    fn ends_unseen(&self) -> bool {
        false
    }

    /// Rows that `prepare` found committed.
    fn rows_found(&self) -> u64 {
        0
    }

    /// Waits until this part may be written, and returns what writes it. Asked for one part at a
    /// time, in the order of the plan; the parts of earlier sections are finished by then. Rows are
    /// digested under the transfer's own keys.
    fn begin(&self, part: PartIndex, digests: &Digests) -> Outcome<Box<dyn PartSink + '_>>;

    /// Asked after each `finish`: the parts that are finished by now and were not returned before.
    /// A part may be missing that is committed together with a later one; it is returned when it
    /// is.
    fn take_finished(&self, ended: PartIndex) -> Vec<PartIndex> {
        vec![ended]
    }

    /// Everything has arrived and the manifest fits: ends the load, and says what the target itself
    /// says is there.
    fn prove(&self, digests: &Digests) -> Outcome<Evidence>;

    /// The receipt is signed and kept: shows the load under its final name. After a crash it is
    /// called again, by a process that has done nothing else with this sink, and then finishes what
    /// the first began, or finds that it had ended.
    fn publish(&self, transfer: TransferId) -> Outcome;

    /// The caller has noted, durably, that the load is published, and will not call `publish` for
    /// it again: removes what that would know it by. Called again after a crash, too.
    fn forget(&self, _transfer: TransferId) {}

    /// Drops what an earlier process left of this transfer in the staging place, and nothing of
    /// another's; asked of a sink that has done nothing else. `proven`: its receipt was signed.
    /// Returns whether the load has its final name, where it stays.
    fn abandon_earlier(&self, _transfer: TransferId, proven: bool) -> Outcome<bool> {
        Ok(proven)
    }

    /// The file that holds, in the clear, what is loaded of this transfer and not shown yet, if
    /// there is one.
    fn staged(&self, _transfer: TransferId) -> Option<PathBuf> {
        None
    }

    /// Stops what runs and undoes what is not durable; keeps what is, for a later `prepare` of the
    /// same transfer.
    fn suspend(&self);

    /// Gives up: stops what runs and drops what was staged, so that nothing is visible in the
    /// target.
    fn abandon(&self);
}

/// Writes one part. Dropped without `finish`, it leaves nothing of the part behind but what is
/// durable.
pub trait PartSink {
    /// What is durable of the part already: the next chunk is the one after it.
    fn begun(&self, part: PartIndex, digests: &Digests) -> PartRoot {
        digests.part_root(part)
    }

    /// Takes the next chunk. When this returns, the target's transaction or the loader has it.
    fn write(&mut self, chunk: &VerifiedChunk) -> Outcome;

    /// Rows that were taken so far, where the target has rows.
    fn rows(&self) -> u64 {
        0
    }

    /// Between two chunks: a target that can make a part durable piece by piece may do so now.
    /// Returns whether all that was taken so far is.
    fn edge(&mut self, _so_far: &PartRoot) -> Outcome<bool> {
        Ok(false)
    }

    /// Nothing more waits to be written: a target that makes a part durable piece by piece may do
    /// so now. Returns whether all that was taken so far is.
    fn rest(&mut self) -> Outcome<bool> {
        Ok(false)
    }

    /// The part is whole. When `take_finished` returns it, it is durable, if this target
    /// `keeps_parts`; `whole` is then kept with it, for `prepare` to tell.
    fn finish(self: Box<Self>, whole: &WholePart) -> Outcome;
}
