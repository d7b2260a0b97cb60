//! One writer at a time.

use std::sync::Arc;

use rusqlite::InterruptHandle;
use sealift_agent::failure::Outcome;
use sealift_protocol::{digest::Digests, id::PartIndex};

use super::{Phase, Prepared, SqliteSink, image::Image, load::Load, out_of_order};

/// The right to write, and what is written to. Dropped, it undoes what was not committed and lets the next one in.
pub struct Turn<'a> {
    pub sink: &'a SqliteSink,
    pub prepared: Arc<Prepared>,
    pub digests: Digests,
    pub load: Option<Load>,
    /// Instead of a load, for the pages of an image.
    pub image: Option<Image>,
    pub done: Done,
}

/// What a turn came to.
pub enum Done {
    Nothing,
    Part(PartIndex),
    Proof,
}

impl Turn<'_> {
    pub fn load(&mut self) -> Outcome<&mut Load> {
        self.load.as_mut().ok_or_else(out_of_order)
    }

    /// Lets `suspend` and `abandon` interrupt the statements of a new connection.
    pub fn interruptible_by(&self, handle: InterruptHandle) -> Outcome {
        self.sink.state().interrupt = Some(handle);
        self.sink.check_stop()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(load) = &self.load {
            load.roll_back();
        }
        let mut state = self.sink.state();
        state.busy = false;
        state.load = self.load.take();
        state.image = self.image.take();
        match self.done {
            Done::Part(part) => state.note_committed(part),
            Done::Proof if state.phase == Phase::Loading => state.phase = Phase::Proven,
            _ => {}
        }
        if state.phase.is_stopped() {
            state.clean_up(self.sink);
        }
        self.sink.changed.notify_all();
    }
}
