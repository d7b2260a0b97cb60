//! A database of the embedded engine as a target.
//!
//! The load goes into a staging file beside the target, one part at a time, each part's rows,
//! indexes and ledger line in one transaction, in several with a line for each where a table is
//! large, or with others in one where it is small ([`group`]). `prove` reads every table again from
//! the file; `publish` gives the file the target's name. What is committed stays there when the
//! load stops, and the same transfer goes on from it; another one drops it.
//!
//! How it is written. A rollback journal, truncated at each commit, and `synchronous=FULL`: a
//! commit is on the disk when it returns, and a new table's pages are written once, since only
//! pages that existed before a transaction go into the journal (a WAL would take every row twice).
//! `temp_store=MEMORY`: no plaintext lies in any other file. SQLite then sorts an index in memory,
//! so an index is built by sorting only while that stays within a bound ([`indexes`]).
//!
//! What a definition from the source may do is decided in [`define`]. Triggers and views come last,
//! and are switched off on these connections besides.

mod document;
mod failure;
mod group;
mod image;
mod indexes;
mod insert;
mod ledger;
mod leftover;
mod load;
mod mark;
mod prove;
mod publish;
mod rows;
mod shelf;
mod staged;
mod staging;
mod turn;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rusqlite::InterruptHandle;
use sealift_engine_api::{PartSink, Readiness, Sink};
use sealift_protocol::{
    close::Code,
    digest::Digests,
    error::Error,
    failure::{Failure, Outcome},
    id::{PartIndex, TransferId},
    manifest::{Evidence, Plan, ReadBack, Section},
    receive::{Found, FoundPrefix},
};

use self::{
    document::{DocumentLoad, Repeated},
    failure::gave_up,
    image::{Image, PagesLoad},
    ledger::Bond,
    leftover::Leftover,
    load::Load,
    rows::{EDGE_BYTES, RowsLoad},
    staged::{Staged, remove_suspended},
    staging::{Identity, Staging},
    turn::Turn,
};
pub use self::{failure::row_too_long, load::check_plan};
use crate::{
    check_options,
    document::{LEDGER_TABLE, SEQUENCE_TABLE},
    engine,
};

/// A sink that loads into `sqlite:PATH`.
pub struct SqliteSink {
    staging: Staging,
    row_bytes_max: usize,
    edge_bytes: u64,
    state: Mutex<State>,
    /// Notified whenever a part ends or the load stops.
    changed: Condvar,
    /// Notified whenever a part begins to wait for its turn, or the load stops.
    arrived: Condvar,
    /// Set by `suspend` and `abandon`; looked at between rows.
    stop: AtomicBool,
}

#[derive(Default)]
struct State {
    phase: Phase,
    prepared: Option<Arc<Prepared>>,
    /// Which parts are committed.
    committed: Vec<bool>,
    /// Those of them that `take_finished` has not returned.
    finished: Vec<PartIndex>,
    /// Those that wait for their turn.
    waiting: Vec<PartIndex>,
    /// How many of each rank are not committed.
    uncommitted: BTreeMap<Rank, usize>,
    /// What is committed of a part that is not whole.
    prefix: Option<FoundPrefix>,
    /// That an earlier process committed.
    rows_found: u64,
    /// A thread has the turn to write, and the load with it.
    busy: bool,
    load: Option<Load>,
    /// Instead of a load, for the pages of an image.
    image: Option<Image>,
    interrupt: Option<InterruptHandle>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Fresh,
    Loading,
    Proven,
    Published,
    Suspended,
    Abandoned,
}

impl Phase {
    fn is_stopped(self) -> bool {
        matches!(self, Self::Suspended | Self::Abandoned)
    }
}

struct Prepared {
    plan: Plan,
    bond: Bond,
    identity: Identity,
}

impl SqliteSink {
    /// A target in an existing folder. Nothing is touched before `prepare`.
    pub fn new(path: &Path, row_bytes_max: usize) -> Outcome<Self> {
        check_options()?;
        let staging = Staging::new(path)?;
        let (state, changed, arrived, stop) = Default::default();
        Ok(Self { staging, row_bytes_max, edge_bytes: EDGE_BYTES, state, changed, arrived, stop })
    }

    /// Commits a part after so many row bytes, at the next edge of a chunk.
    pub fn with_edges(mut self, edge_bytes: u64) -> Self {
        self.edge_bytes = edge_bytes;
        self
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_stop(&self) -> Outcome {
        if self.stop.load(Ordering::Relaxed) { Err(gave_up()) } else { Ok(()) }
    }

    /// Ends what runs; a writer cleans up itself when it is interrupted.
    fn stop(&self, phase: Phase) {
        let mut state = self.state();
        if state.phase == Phase::Published || state.phase == phase || state.phase == Phase::Abandoned {
            return;
        }
        let let_go = state.phase == Phase::Suspended && !state.busy;
        state.phase = phase;
        self.stop.store(true, Ordering::Relaxed);
        if let Some(handle) = &state.interrupt {
            handle.interrupt();
        }
        match &state.prepared {
            // Others may have opened it since.
            Some(prepared) if let_go => remove_suspended(&self.staging, self.row_bytes_max, prepared.bond),
            _ if state.busy => {}
            _ => state.clean_up(self),
        }
        self.changed.notify_all();
        self.arrived.notify_all();
    }

    /// Waits until no other part is written, and everything of a lower rank than `part` is
    /// committed, and takes the turn.
    fn turn(&self, part: Option<PartIndex>, digests: &Digests) -> Outcome<Turn<'_>> {
        let mut state = self.state();
        state.waiting.extend(part);
        // A transaction may be kept open for this part.
        self.arrived.notify_all();
        let ended = loop {
            match state.phase {
                Phase::Suspended | Phase::Abandoned => break Err(gave_up()),
                Phase::Loading if !state.busy && part.is_none_or(|part| state.may_begin(part)) => break Ok(()),
                Phase::Loading => {}
                _ => break Err(out_of_order()),
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        if let Some(place) = state.waiting.iter().position(|waiting| Some(*waiting) == part) {
            state.waiting.swap_remove(place);
        }
        ended?;
        let prepared = state.prepared.clone().ok_or_else(out_of_order)?;
        state.busy = true;
        let (load, image) = (state.load.take(), state.image.take());
        Ok(Turn { sink: self, prepared, digests: digests.clone(), load, image, proven: false })
    }
}

impl State {
    fn note_committed(&mut self, part: PartIndex) {
        let (Some(rank), Some(committed)) = (self.rank(part), self.committed.get_mut(part.0 as usize)) else { return };
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

    fn rank(&self, part: PartIndex) -> Option<Rank> {
        rank(&self.prepared.as_ref()?.plan, part)
    }

    /// Whether everything of a lower rank is committed.
    fn may_begin(&self, part: PartIndex) -> bool {
        // One that is not in the plan is refused when it has its turn.
        let Some(rank) = self.rank(part) else { return true };
        self.uncommitted.first_key_value().is_none_or(|(lowest, _)| rank <= *lowest)
    }

    /// Whether a part of the same rank waits that may share the transaction of this one.
    fn is_followed(&self, part: PartIndex) -> bool {
        let rank = self.rank(part);
        self.waiting.iter().any(|&other| {
            other != part && self.rank(other) == rank && self.committed.get(other.0 as usize) == Some(&false)
        })
    }

    /// How many parts of the rank of this one are not committed.
    fn uncommitted_beside(&self, part: PartIndex) -> usize {
        self.rank(part).and_then(|rank| self.uncommitted.get(&rank)).copied().unwrap_or(0)
    }

    fn clean_up(&mut self, sink: &SqliteSink) {
        // The connection first: closed after its file is gone, it would leave a journal behind.
        if let Some(load) = self.load.take() {
            let _ = load.close();
        }
        let image = self.image.take();
        self.interrupt = None;
        let Some(prepared) = &self.prepared else { return };
        // Without a part, or some of an image, there is nothing to resume.
        let has_anything = self.committed.contains(&true) || image.as_ref().is_some_and(Image::has_anything);
        if self.phase == Phase::Abandoned || !has_anything {
            sink.staging.remove(prepared.identity);
        }
        drop(image);
        sink.staging.mark.release();
    }
}

fn out_of_order() -> Failure {
    Failure::new(Code::Internal, "the target was used out of order", "")
}

/// That the plan's engine is one of both that are loaded here, and its parts are those that it has:
/// the schema, the tables in the schema's order, and what comes after the rows.
fn check_engine(plan: &Plan) -> Outcome {
    if plan.engine.capabilities.has(Section::Opaque) {
        return Ok(engine::image().check_same(&plan.engine)?);
    }
    engine::rows().check_same(&plan.engine)?;
    let count = |section| plan.parts.iter().filter(|part| part.section == section).count();
    let in_order = plan.parts.iter().filter_map(|part| part.table).is_sorted();
    match count(Section::PreData) == 1 && count(Section::PostData) == 1 && in_order {
        true => Ok(()),
        false => Err(Error::new(Code::PlanRefused, "parts of a database").into()),
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

impl Sink for SqliteSink {
    fn check(&self, readiness: Readiness) -> Outcome<Option<String>> {
        let described = match readiness {
            Readiness::Place => None,
            Readiness::Name | Readiness::Staging => {
                self.staging.check_target()?;
                Some(self.staging.place.describe()?)
            }
        };
        self.staging.try_out(readiness)?;
        if readiness == Readiness::Staging {
            Leftover::find(&self.staging, self.row_bytes_max)?.let_go(&self.staging);
        }
        Ok(described)
    }

    fn prepare(&self, transfer: TransferId, plan: &Plan, fresh: bool) -> Outcome<Vec<Found>> {
        plan.check()?;
        if ![engine::rows().name, engine::image().name].contains(&plan.engine.name) {
            let next = "Give the receiver a target for dumps: file:PATH, exec:COMMAND or -.";
            return Err(Failure::new(Code::PlanRefused, "the source is a dump, the target an SQLite database", next));
        }
        check_engine(plan)?;
        if plan.tables.iter().any(|table| table.name.eq_ignore_ascii_case(LEDGER_TABLE)) {
            return Err(Failure::new(Code::PlanRefused, "the source has a table of Sealift's own", ""));
        }
        let mut state = self.state();
        if state.phase != Phase::Fresh {
            return Err(if state.phase.is_stopped() { gave_up() } else { out_of_order() });
        }
        let bond = Bond { transfer, plan_hash: plan.hash() };
        let staged = Staged::stage(&self.staging, self.row_bytes_max, plan, bond, fresh)?;
        let Staged { identity, load, image, have, prefix, rows } = staged;
        state.prepared = Some(Arc::new(Prepared { plan: plan.clone(), bond, identity }));
        state.committed = vec![false; plan.parts.len()];
        state.uncommitted = BTreeMap::new();
        let ranks = (0..plan.parts.len() as u32).filter_map(|part| rank(plan, PartIndex(part)));
        ranks.for_each(|rank| *state.uncommitted.entry(rank).or_default() += 1);
        have.iter().for_each(|whole| state.note_committed(whole.part));
        state.finished.clear();
        state.interrupt = load.as_ref().map(|load| load.connection.get_interrupt_handle());
        state.load = load;
        state.image = image;
        state.phase = Phase::Loading;
        state.prefix = prefix.clone();
        state.rows_found = rows;
        Ok(have.into_iter().map(Found::Whole).chain(prefix.map(Found::Prefix)).collect())
    }

    /// Each with its line in the ledger.
    fn keeps_parts(&self) -> bool {
        true
    }

    fn rows_found(&self) -> u64 {
        self.state().rows_found
    }

    fn begin(&self, part: PartIndex, digests: &Digests) -> Outcome<Box<dyn PartSink + '_>> {
        let place = part.0 as usize;
        let turn = self.turn(Some(part), digests)?;
        let section = turn.prepared.plan.section(part).ok_or_else(out_of_order)?;
        if self.state().committed[place] {
            return Ok(Box::new(Repeated { sink: self, part }));
        }
        match section {
            Section::Data => {
                let prefix = self.state().prefix.clone().filter(|prefix| prefix.part == part);
                Ok(Box::new(RowsLoad::begin(turn, part, prefix)?))
            }
            Section::Opaque => Ok(Box::new(PagesLoad::begin(turn)?)),
            Section::PreData | Section::PostData => Ok(Box::new(DocumentLoad::new(turn, part, section))),
        }
    }

    fn take_finished(&self, _ended: PartIndex) -> Vec<PartIndex> {
        std::mem::take(&mut self.state().finished)
    }

    fn prove(&self, digests: &Digests) -> Outcome<Evidence> {
        let mut turn = self.turn(None, digests)?;
        if self.state().committed.contains(&false) {
            return Err(out_of_order());
        }
        let evidence = match turn.prepared.plan.engine.capabilities.read_back {
            ReadBack::Bytes => image::prove(&mut turn)?,
            _ => prove::prove(&mut turn)?,
        };
        turn.proven = true;
        Ok(evidence)
    }

    fn publish(&self, transfer: TransferId) -> Outcome {
        let mut state = self.state();
        let proven = match (state.phase, &state.prepared) {
            (Phase::Proven, Some(prepared)) if prepared.bond.transfer == transfer => Some(prepared.identity),
            (Phase::Fresh, _) => None,
            (Phase::Published, _) => return Ok(()),
            (Phase::Suspended | Phase::Abandoned, _) => return Err(gave_up()),
            _ => return Err(out_of_order()),
        };
        publish::publish(&self.staging, transfer, proven, self.row_bytes_max)?;
        state.phase = Phase::Published;
        Ok(())
    }

    fn forget(&self, transfer: TransferId) {
        if matches!(self.state().phase, Phase::Fresh | Phase::Published) {
            self.staging.forget(transfer);
        }
    }

    fn abandon_earlier(&self, transfer: TransferId, _proven: bool) -> Outcome<bool> {
        if self.staging.is_renamed(transfer)? {
            self.staging.forget(transfer);
            return Ok(true);
        }
        staged::remove_earlier(&self.staging, self.row_bytes_max, transfer).map(|()| false)
    }

    fn staged(&self, _transfer: TransferId) -> Option<PathBuf> {
        let file = self.staging.file();
        std::fs::symlink_metadata(file).is_ok().then(|| file.to_owned())
    }

    fn suspend(&self) {
        self.stop(Phase::Suspended);
    }

    fn abandon(&self) {
        self.stop(Phase::Abandoned);
    }
}

impl Drop for SqliteSink {
    fn drop(&mut self) {
        self.suspend();
    }
}

#[cfg(test)]
mod tests;
