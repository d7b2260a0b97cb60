//! One writer at a time.

use std::sync::{Arc, PoisonError};

use rusqlite::InterruptHandle;
use sealift_protocol::{digest::Digests, failure::Outcome, id::PartIndex};

use super::{Phase, Prepared, SqliteSink, State, group, image::Image, load::Load, out_of_order};

/// The right to write, and what is written to. Dropped, it undoes what was not committed and lets
/// the next one in.
pub struct Turn<'a> {
    pub sink: &'a SqliteSink,
    pub prepared: Arc<Prepared>,
    pub digests: Digests,
    pub load: Option<Load>,
    /// Instead of a load, for the pages of an image.
    pub image: Option<Image>,
    /// Everything was read again.
    pub proven: bool,
}

impl Turn<'_> {
    pub fn load(&mut self) -> Outcome<&mut Load> {
        self.load.as_mut().ok_or_else(out_of_order)
    }

    /// These parts are on the disk.
    pub fn note_committed(&self, parts: &[PartIndex]) {
        let mut state = self.sink.state();
        parts.iter().for_each(|part| state.note_committed(*part));
    }

    /// Commits what shares the open transaction.
    pub fn commit_shared(&mut self) -> Outcome {
        let committed = self.load()?.commit_shared()?;
        self.note_committed(&committed);
        Ok(())
    }

    /// Waits a moment for another part that may share the transaction of `part`; returns whether
    /// there is one. It has the turn after this one, and its end sees to the commit.
    pub fn is_followed(&mut self, part: PartIndex) -> Outcome<bool> {
        let shared = self.load()?.shared();
        let state = self.sink.state();
        let may_come = |state: &mut State| {
            !state.phase.is_stopped() && !state.is_followed(part) && state.uncommitted_beside(part) > shared
        };
        let waited = self.sink.arrived.wait_timeout_while(state, group::WAIT_MAX, may_come);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        Ok(state.is_followed(part))
    }

    /// Lets `suspend` and `abandon` interrupt the statements of a new connection.
    pub fn interruptible_by(&self, handle: InterruptHandle) -> Outcome {
        self.sink.state().interrupt = Some(handle);
        self.sink.check_stop()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(load) = &mut self.load {
            load.undo_part();
        }
        let mut state = self.sink.state();
        state.busy = false;
        state.load = self.load.take();
        state.image = self.image.take();
        if self.proven && state.phase == Phase::Loading {
            state.phase = Phase::Proven;
        }
        if state.phase.is_stopped() {
            state.clean_up(self.sink);
        }
        self.sink.changed.notify_all();
    }
}
