//! A database of the embedded engine as a target.
//!
//! The load goes into a staging file beside the target, one part at a time, each part's rows, indexes and ledger line in
//! one transaction. `prove` reads every table again from the file; `publish` gives the file the target's name.
//!
//! How it is written. A rollback journal, truncated at each commit, and `synchronous=FULL`: a commit is on the disk when
//! it returns, and a new table's pages are written once, since only pages that existed before a transaction go into the
//! journal (a WAL would take every row twice). `temp_store=MEMORY`: no plaintext lies in any other file. SQLite
//! then sorts an index in memory, so an index is built by sorting only over a bounded number of row bytes; past them it
//! grows with its rows.
//!
//! What a definition from the source may do is [`define`]'s affair. Triggers and views come last, and are switched off
//! on these connections besides.

mod define;
mod failure;
mod load;
mod mark;
mod prove;
mod rows;
mod staging;

use std::{
    path::Path,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rusqlite::InterruptHandle;
use sealift_agent::failure::{Failure, Outcome};
use sealift_protocol::{
    close::Code,
    digest::Digests,
    id::{PartIndex, TransferId},
    manifest::{Engine, LoadedPart, PartKind, Plan, Proof},
    receive::WholePart,
    sqlite::{LEDGER_TABLE, SEQUENCE_TABLE},
};

use self::{
    failure::gave_up,
    load::{DocumentLoad, Load, Repeated},
    rows::RowsLoad,
    staging::{Identity, Staging},
};
use super::{PartSink, Sink};

/// A sink that loads into `sqlite:PATH`.
pub struct SqliteSink {
    staging: Staging,
    row_bytes_max: usize,
    state: Mutex<State>,
    /// Told whenever a part ends or the load is given up.
    changed: Condvar,
    /// Set by `abandon`; looked at between rows.
    stop: AtomicBool,
}

#[derive(Default)]
struct State {
    phase: Phase,
    prepared: Option<Prepared>,
    /// Which parts are committed.
    committed: Vec<bool>,
    /// Somebody has the turn to write, and the load with it.
    busy: bool,
    load: Option<Load>,
    interrupt: Option<InterruptHandle>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Fresh,
    Loading,
    Proven,
    Published,
    Abandoned,
}

#[derive(Clone)]
struct Prepared {
    plan: Plan,
    identity: Identity,
}

impl SqliteSink {
    /// A target in an existing folder. Nothing is touched before `prepare`.
    pub fn new(path: &Path, row_bytes_max: usize) -> Outcome<Self> {
        let staging = Staging::new(path)?;
        let (state, changed, stop) = Default::default();
        Ok(Self { staging, row_bytes_max, state, changed, stop })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_stop(&self) -> Outcome {
        if self.stop.load(Ordering::Relaxed) { Err(gave_up()) } else { Ok(()) }
    }

    /// Waits until nobody writes and `ready` says so, and takes the turn.
    fn turn(&self, digests: &Digests, ready: impl Fn(&State) -> bool) -> Outcome<Turn<'_>> {
        let mut state = self.state();
        loop {
            match state.phase {
                Phase::Abandoned => return Err(gave_up()),
                Phase::Loading if !state.busy && ready(&state) => break,
                Phase::Loading => {}
                _ => return Err(out_of_order()),
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.busy = true;
        let prepared = state.prepared.clone().ok_or_else(out_of_order)?;
        Ok(Turn { sink: self, prepared, digests: digests.clone(), load: state.load.take(), done: Done::Nothing })
    }
}

/// The right to write, and what is written to. Dropped, it undoes what was not committed and lets the next one in.
struct Turn<'a> {
    sink: &'a SqliteSink,
    prepared: Prepared,
    digests: Digests,
    load: Option<Load>,
    done: Done,
}

/// What a turn came to.
enum Done {
    Nothing,
    Part(PartIndex),
    Proof,
}

impl Turn<'_> {
    fn load(&mut self) -> Outcome<&mut Load> {
        self.load.as_mut().ok_or_else(out_of_order)
    }

    /// Lets `abandon` interrupt the statements of a new connection.
    fn interruptible_by(&self, handle: InterruptHandle) -> Outcome {
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
        match self.done {
            Done::Part(part) => state.committed[part.0 as usize] = true,
            Done::Proof if state.phase == Phase::Loading => state.phase = Phase::Proven,
            _ => {}
        }
        if state.phase == Phase::Abandoned {
            state.clean_up(&self.sink.staging);
        }
        self.sink.changed.notify_all();
    }
}

impl State {
    fn clean_up(&mut self, staging: &Staging) {
        // The connection first: closed after its file is gone, it would leave a journal behind.
        (self.load, self.interrupt) = (None, None);
        if let Some(prepared) = &self.prepared {
            staging.remove(prepared.identity);
        }
    }
}

fn out_of_order() -> Failure {
    Failure::new(Code::Internal, "the target was used out of order", "")
}

/// Parts of a lower rank are committed before those of a higher one begin.
fn rank(plan: &Plan, part: usize) -> (PartKind, bool) {
    let part = &plan.parts[part];
    (part.kind, part.name == SEQUENCE_TABLE)
}

impl Sink for SqliteSink {
    fn prepare(&self, _transfer: TransferId, plan: &Plan, _fresh: bool) -> Outcome<Vec<WholePart>> {
        plan.check()?;
        if plan.engine != Engine::Sqlite {
            let next = "Give the receiver a target for dumps: file:PATH, exec:COMMAND or -.";
            return Err(Failure::new(Code::PlanRefused, "the source is a dump, the target an SQLite database", next));
        }
        if plan.parts.iter().any(|part| part.name.eq_ignore_ascii_case(LEDGER_TABLE)) {
            return Err(Failure::new(Code::PlanRefused, "the source has a table of Sealift's own", ""));
        }
        let mut state = self.state();
        if state.phase != Phase::Fresh {
            return Err(if state.phase == Phase::Abandoned { gave_up() } else { out_of_order() });
        }
        let identity = self.staging.create()?;
        state.prepared = Some(Prepared { plan: plan.clone(), identity });
        state.committed = vec![false; plan.parts.len()];
        state.phase = Phase::Loading;
        Ok(Vec::new())
    }

    fn begin(&self, part: PartIndex, digests: &Digests) -> Outcome<Box<dyn PartSink + '_>> {
        let place = part.0 as usize;
        let ready = |state: &State| {
            let Some(plan) = state.prepared.as_ref().map(|prepared| &prepared.plan) else { return true };
            let earlier = |other: usize| rank(plan, other) < rank(plan, place);
            place >= plan.parts.len() || (0..plan.parts.len()).all(|other| state.committed[other] || !earlier(other))
        };
        let turn = self.turn(digests, ready)?;
        let kind = turn.prepared.plan.parts.get(place).ok_or_else(out_of_order)?.kind;
        if self.state().committed[place] {
            return Ok(Box::new(Repeated));
        }
        match kind {
            PartKind::Rows => Ok(Box::new(RowsLoad::begin(turn, part)?)),
            _ => Ok(Box::new(DocumentLoad::new(turn, part, kind))),
        }
    }

    fn prove(&self, digests: &Digests) -> Outcome<(Proof, Vec<LoadedPart>)> {
        let mut turn = self.turn(digests, |_| true)?;
        if self.state().committed.contains(&false) {
            return Err(out_of_order());
        }
        let loaded = prove::prove(&mut turn)?;
        turn.done = Done::Proof;
        Ok((Proof::ReadAgain, loaded))
    }

    fn publish(&self, _transfer: TransferId) -> Outcome {
        let mut state = self.state();
        let identity = match (state.phase, &state.prepared) {
            (Phase::Proven, Some(prepared)) => prepared.identity,
            (Phase::Abandoned, _) => return Err(gave_up()),
            _ => return Err(out_of_order()),
        };
        self.staging.publish(identity)?;
        state.phase = Phase::Published;
        Ok(())
    }

    fn suspend(&self) {
        self.abandon();
    }

    fn abandon(&self) {
        let mut state = self.state();
        if matches!(state.phase, Phase::Published | Phase::Abandoned) {
            return;
        }
        state.phase = Phase::Abandoned;
        self.stop.store(true, Ordering::Relaxed);
        if let Some(handle) = &state.interrupt {
            handle.interrupt();
        }
        // A writer cleans up itself when it is stopped.
        if !state.busy {
            state.clean_up(&self.staging);
        }
        self.changed.notify_all();
    }
}

impl Drop for SqliteSink {
    fn drop(&mut self) {
        self.abandon();
    }
}

#[cfg(test)]
mod tests;
