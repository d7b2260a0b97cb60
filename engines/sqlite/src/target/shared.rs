//! What a load and the threads that write into it share: one writes at a time, in the order of the
//! plan's sections.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rusqlite::InterruptHandle;
use sealift_engine_api::{PartSink, StopToken, Writers, out_of_order};
use sealift_protocol::{
    digest::Digests,
    failure::Outcome,
    id::PartIndex,
    manifest::{Plan, Section},
};

use super::{
    SqliteTarget,
    document::{DocumentLoad, Repeated},
    failure::gave_up,
    image::{Image, PagesLoad},
    ledger::Bond,
    load::Load,
    rows::RowsLoad,
    staged::Staged,
    staging::{Identity, Staging},
    turn::Turn,
};
use crate::document::SEQUENCE_TABLE;

/// The load, as its threads know it.
pub struct Shared {
    pub staging: Arc<Staging>,
    pub row_bytes_max: usize,
    pub plan: Plan,
    pub bond: Bond,
    pub identity: Identity,
    stop: Arc<dyn StopToken>,
    /// That the load has to end or has ended; looked at between rows.
    stopped: AtomicBool,
    state: Mutex<State>,
    /// Notified whenever a part ends or the load stops.
    pub changed: Condvar,
    /// Notified whenever a part begins to wait for its turn, or the load stops.
    pub arrived: Condvar,
}

#[derive(Default)]
pub struct State {
    /// How the load has ended. What was busy then cleans up itself.
    pub end: Option<End>,
    /// Which parts are committed.
    committed: Vec<bool>,
    /// Those of them that no `finish` has returned.
    pub finished: Vec<PartIndex>,
    /// Those that wait for their turn.
    pub waiting: Vec<PartIndex>,
    /// How many of each rank are not committed.
    uncommitted: BTreeMap<Rank, usize>,
    /// A thread has the turn to write, and the load with it.
    pub busy: bool,
    pub load: Option<Load>,
    /// Instead of a load, for the pages of an image.
    pub image: Option<Image>,
    pub interrupt: Option<InterruptHandle>,
}

/// How a process lets go of a load.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    Suspended,
    Abandoned,
    Published,
}

impl Shared {
    pub fn new(target: &SqliteTarget, plan: &Plan, bond: Bond, staged: Staged, stop: Arc<dyn StopToken>) -> Arc<Self> {
        let SqliteTarget { staging, row_bytes_max } = target;
        let Staged { identity, load, image, have, .. } = staged;
        let mut uncommitted = BTreeMap::new();
        let ranks = (0..plan.parts.len() as u32).filter_map(|part| rank(plan, PartIndex(part)));
        ranks.for_each(|rank| *uncommitted.entry(rank).or_default() += 1);
        let mut state = State {
            committed: vec![false; plan.parts.len()],
            uncommitted,
            interrupt: load.as_ref().map(|load| load.connection.get_interrupt_handle()),
            load,
            image,
            ..State::default()
        };
        have.iter().for_each(|whole| state.note_committed(plan, whole.part));
        state.finished.clear();
        let shared = Arc::new(Self {
            staging: Arc::clone(staging),
            row_bytes_max: *row_bytes_max,
            plan: plan.clone(),
            bond,
            identity,
            stop: Arc::clone(&stop),
            stopped: AtomicBool::new(false),
            state: Mutex::new(state),
            changed: Condvar::new(),
            arrived: Condvar::new(),
        });
        let weak = Arc::downgrade(&shared);
        stop.wakes(Box::new(move || {
            if let Some(shared) = weak.upgrade() {
                shared.interrupt(&shared.state());
            }
        }));
        shared
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks whether the load has to end. Not under the lock of the state.
    pub fn check_stop(&self) -> Outcome {
        self.stop.check()?;
        self.check_stopped()
    }

    /// Whether it was found that the load has to end: for every row.
    pub fn check_stopped(&self) -> Outcome {
        if self.stopped.load(Ordering::Relaxed) { Err(gave_up()) } else { Ok(()) }
    }

    /// Ends what runs and what waits.
    fn interrupt(&self, state: &State) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(handle) = &state.interrupt {
            handle.interrupt();
        }
        self.changed.notify_all();
        self.arrived.notify_all();
    }

    /// This process lets go of the load. The first end counts.
    pub fn end(&self, end: End) {
        let mut state = self.state();
        if state.end.is_some() {
            return;
        }
        state.end = Some(end);
        self.interrupt(&state);
        if !state.busy {
            state.clean_up(self, end);
        }
    }

    /// Waits until no other part is written, and everything of a lower rank than `part` is
    /// committed, and takes the turn.
    pub fn turn(&self, part: Option<PartIndex>, digests: &Digests) -> Outcome<Turn<'_>> {
        self.check_stop()?;
        let mut state = self.state();
        state.waiting.extend(part);
        // A transaction may be kept open for this part.
        self.arrived.notify_all();
        let ended = loop {
            if let Err(failure) = self.check_stopped() {
                break Err(failure);
            }
            if !state.busy && part.is_none_or(|part| state.may_begin(&self.plan, part)) {
                break Ok(());
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        if let Some(place) = state.waiting.iter().position(|waiting| Some(*waiting) == part) {
            state.waiting.swap_remove(place);
        }
        ended?;
        state.busy = true;
        let (load, image) = (state.load.take(), state.image.take());
        Ok(Turn { shared: self, digests: digests.clone(), load, image })
    }
}

impl Writers for Shared {
    fn begin(&self, part: PartIndex, digests: &Digests) -> Outcome<Box<dyn PartSink + '_>> {
        let place = part.0 as usize;
        let turn = self.turn(Some(part), digests)?;
        let section = self.plan.section(part).ok_or_else(out_of_order)?;
        if self.state().committed[place] {
            return Ok(Box::new(Repeated { part }));
        }
        match section {
            Section::Data => Ok(Box::new(RowsLoad::begin(turn, part)?)),
            Section::Opaque => Ok(Box::new(PagesLoad::begin(turn)?)),
            Section::PreData | Section::PostData => Ok(Box::new(DocumentLoad::new(turn, part, section))),
        }
    }
}

impl State {
    /// Whether every part is committed.
    pub fn is_whole(&self) -> bool {
        !self.committed.contains(&false)
    }

    pub fn note_committed(&mut self, plan: &Plan, part: PartIndex) {
        let (Some(rank), Some(committed)) = (rank(plan, part), self.committed.get_mut(part.0 as usize)) else { return };
        if std::mem::replace(committed, true) {
            return;
        }
        self.finished.push(part);
        if let Entry::Occupied(mut left) = self.uncommitted.entry(rank) {
            *left.get_mut() -= 1;
            if *left.get() == 0 {
                left.remove();
            }
        }
    }

    /// Whether everything of a lower rank is committed.
    fn may_begin(&self, plan: &Plan, part: PartIndex) -> bool {
        // One that is not in the plan is refused when it has its turn.
        let Some(rank) = rank(plan, part) else { return true };
        self.uncommitted.first_key_value().is_none_or(|(lowest, _)| rank <= *lowest)
    }

    /// Whether a part of the same rank waits that may share the transaction of this one.
    pub fn is_followed(&self, plan: &Plan, part: PartIndex) -> bool {
        let own = rank(plan, part);
        self.waiting.iter().any(|&other| {
            other != part && rank(plan, other) == own && self.committed.get(other.0 as usize) == Some(&false)
        })
    }

    /// How many parts of the rank of this one are not committed.
    pub fn uncommitted_beside(&self, plan: &Plan, part: PartIndex) -> usize {
        rank(plan, part).and_then(|rank| self.uncommitted.get(&rank)).copied().unwrap_or(0)
    }

    pub fn clean_up(&mut self, shared: &Shared, end: End) {
        // The connection first: closed after its file is gone, it would leave a journal behind.
        if let Some(load) = self.load.take() {
            let _ = load.close();
        }
        let image = self.image.take();
        self.interrupt = None;
        // What is published is known by its mark until that is forgotten.
        if end == End::Published {
            return;
        }
        // Without a part, or some of an image, there is nothing to resume.
        let has_anything = self.committed.contains(&true) || image.as_ref().is_some_and(Image::has_anything);
        if end == End::Abandoned || !has_anything {
            shared.staging.remove(shared.identity);
        }
        drop(image);
        shared.staging.mark.release();
    }
}

/// Parts of a lower rank are committed before those of a higher one begin.
type Rank = (Section, bool, bool);

fn rank(plan: &Plan, part: PartIndex) -> Option<Rank> {
    let section = plan.section(part)?;
    let Some(table) = plan.table_of(part) else { return Some((section, false, false)) };
    // Building an index of another table takes its rows out of the engine's statistics; any row may
    // count in the last.
    Some((section, table.internal, table.name == SEQUENCE_TABLE))
}
