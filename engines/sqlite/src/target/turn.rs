//! One writer at a time.

use std::sync::PoisonError;

use rusqlite::InterruptHandle;
use sealift_engine_api::out_of_order;
use sealift_protocol::{digest::Digests, failure::Outcome, id::PartIndex};

use super::{
    group,
    image::Image,
    load::Load,
    shared::{Shared, State},
};

/// The right to write, and what is written to. Dropped, it undoes what was not committed and lets
/// the next one in.
pub struct Turn<'a> {
    pub shared: &'a Shared,
    pub digests: Digests,
    pub load: Option<Load>,
    /// Instead of a load, for the pages of an image.
    pub image: Option<Image>,
}

impl Turn<'_> {
    pub fn load(&mut self) -> Outcome<&mut Load> {
        self.load.as_mut().ok_or_else(out_of_order)
    }

    /// The parts that are on the disk and were not returned before.
    pub fn take_finished(&self) -> Vec<PartIndex> {
        std::mem::take(&mut self.shared.state().finished)
    }

    /// These parts are on the disk.
    pub fn note_committed(&self, parts: &[PartIndex]) {
        let mut state = self.shared.state();
        parts.iter().for_each(|part| state.note_committed(&self.shared.plan, *part));
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
        let uncommitted = self.load()?.shared();
        let Shared { plan, arrived, .. } = self.shared;
        let may_come = |state: &mut State| {
            self.shared.check_stopped().is_ok()
                && !state.is_followed(plan, part)
                && state.uncommitted_beside(plan, part) > uncommitted
        };
        let waited = arrived.wait_timeout_while(self.shared.state(), group::WAIT_MAX, may_come);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        Ok(state.is_followed(plan, part))
    }

    /// Lets what ends the load interrupt the statements of a new connection.
    pub fn interruptible_by(&self, handle: InterruptHandle) -> Outcome {
        self.shared.state().interrupt = Some(handle);
        self.shared.check_stop()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(load) = &mut self.load {
            load.undo_part();
        }
        let mut state = self.shared.state();
        state.busy = false;
        state.load = self.load.take();
        state.image = self.image.take();
        if let Some(end) = state.end {
            state.clean_up(self.shared, end);
        }
        self.shared.changed.notify_all();
    }
}
