//! A database of the embedded engine as a target.
//!
//! The load goes into a staging file beside the target, one part at a time, each part's rows,
//! indexes and ledger line in one transaction, or with others in one where it is small ([`group`]).
//! `prove` reads every table again from the file; `publish` gives the file the target's name. What
//! is committed stays there when the load stops, and the same transfer goes on from it; another one
//! drops it.
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
mod held;
mod image;
mod indexes;
mod insert;
mod ledger;
mod leftover;
mod load;
mod long_blob;
mod long_row;
mod mark;
mod prove;
mod publish;
mod rows;
mod shared;
mod shelf;
mod staged;
mod staging;
mod turn;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use sealift_engine_api::{
    Abandoned, Commit, Durability, Finding, LeftAt, PreparedLoad, Readiness, Recovery, StopToken, Target,
    TargetCapabilities,
};
use sealift_protocol::{
    close::Code,
    disposition::Asks,
    error::Error,
    failure::{Failure, Outcome},
    id::TransferId,
    manifest::{Plan, Section},
};

pub use self::load::check_plan;
use self::{
    held::SqliteLoad, ledger::Bond, leftover::Leftover, shared::Shared, staged::Staged, staging::Staging, turn::Turn,
};
use crate::{check_options, document::LEDGER_TABLE, engine, preflight};

/// `sqlite:PATH` as a target.
pub struct SqliteTarget {
    staging: Arc<Staging>,
    row_bytes_max: usize,
}

impl SqliteTarget {
    /// A target in an existing folder. Nothing is touched before `prepare`.
    pub fn new(path: &Path, row_bytes_max: usize) -> Outcome<Self> {
        check_options()?;
        Ok(Self { staging: Arc::new(Staging::new(path)?), row_bytes_max })
    }
}

impl Recovery for SqliteTarget {
    fn publish(&self, transfer: TransferId) -> Outcome {
        publish::publish(&self.staging, transfer, None, self.row_bytes_max)
    }

    fn forget(&self, transfer: TransferId) {
        self.staging.forget(transfer);
    }

    fn abandon(&self, transfer: TransferId, _left_at: LeftAt) -> Outcome<Abandoned> {
        if self.staging.is_renamed(transfer)? {
            self.staging.forget(transfer);
            return Ok(Abandoned::Published);
        }
        staged::remove_earlier(&self.staging, self.row_bytes_max, transfer)?;
        Ok(Abandoned::Dropped)
    }

    fn staged(&self, _transfer: TransferId) -> Option<PathBuf> {
        let file = self.staging.file();
        std::fs::symlink_metadata(file).is_ok().then(|| file.to_owned())
    }
}

impl Target for SqliteTarget {
    /// Each part of rows is committed with its line in the ledger; an image is one part, of which
    /// the first pages are kept.
    fn capabilities(&self, plan: &Plan) -> TargetCapabilities {
        let durability = match plan.engine.capabilities.has(Section::Opaque) {
            true => Durability::SyncedChunks,
            false => Durability::Parts,
        };
        TargetCapabilities { durability, commit: Commit::Observable }
    }

    fn check(&self, readiness: Readiness) -> Outcome<Vec<Finding>> {
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
        let mut found = vec![preflight::free_space(self.staging.place.room_bytes())];
        found.extend(described.map(|described| Finding::note("place", described)));
        Ok(found)
    }

    fn prepare(
        &self,
        transfer: TransferId,
        plan: &Plan,
        asks: Asks,
        stop: Arc<dyn StopToken>,
    ) -> Outcome<PreparedLoad> {
        check_loadable(plan)?;
        stop.check()?;
        let bond = Bond { transfer, plan_hash: plan.hash() };
        let staged = Staged::stage(&self.staging, self.row_bytes_max, plan, bond, asks)?;
        let found = staged.found();
        let rows = staged.rows;
        let load = SqliteLoad(Shared::new(self, plan, bond, staged, stop));
        Ok(PreparedLoad { found, rows, load: Box::new(load) })
    }
}

/// That it is the plan of a database, in one of both forms, and none that cannot be loaded.
fn check_loadable(plan: &Plan) -> Outcome {
    plan.check()?;
    if ![engine::rows().name, engine::image().name].contains(&plan.engine.name) {
        let next = "Give the receiver a target for dumps: file:PATH, exec:COMMAND or -.";
        return Err(Failure::new(Code::PlanRefused, "the source is a dump, the target an SQLite database", next));
    }
    check_engine(plan)?;
    if plan.tables.iter().any(|table| table.name.eq_ignore_ascii_case(LEDGER_TABLE)) {
        return Err(Failure::new(Code::PlanRefused, "the source has a table of Sealift's own", ""));
    }
    Ok(())
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

#[cfg(test)]
mod tests;
