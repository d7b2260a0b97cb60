//! A PostgreSQL database as a target.
//!
//! The load goes into a database of its own, made from template0 with the encoding and the locale
//! of the source's, under a staging name that follows from the transfer. Nobody but its owner and
//! superusers can connect to it. Each part is one transaction, with its line in the ledger
//! ([`ledger`]); several are written at once. The definitions of the source run one by one, from
//! the archive itself ([`crate::archive`]): those before the rows from nothing ([`pre_data`]),
//! those after the rows each with a line in the ledger ([`post_data`]). `prove` reads every table
//! again; `publish` drops the ledger and renames the database, in steps that the comment of the
//! database tells apart ([`mark`]).
//!
//! Nothing fires while rows are loaded: triggers, rules and foreign keys come after them, event
//! triggers last of all.

mod cluster;
mod definitions;
mod document_sink;
mod doubt;
mod encode;
mod extensions;
mod generated;
mod held;
mod large_objects;
mod ledger;
mod mark;
mod objects;
mod post_data;
mod pre_data;
mod privileges;
mod properties;
mod prove;
mod publish;
mod read_back;
mod rows_sink;
mod session;
mod shared;
mod side_by_side;
mod staged;

use std::{num::NonZero, panic::resume_unwind, sync::Arc, thread};

use sealift_engine_api::{
    Abandoned, Commit, Durability, Finding, LeftAt, PreparedLoad, Readiness, Recovery, StopToken, Target,
    TargetCapabilities, Waivers,
};
use sealift_protocol::{
    close::Code,
    disposition::Asks,
    error::Error,
    failure::{Failure, Outcome},
    id::TransferId,
    manifest::{Plan, Section},
    receive::Found,
};

use self::{
    cluster::{Cluster, staging_name},
    held::PostgresLoad,
    ledger::Bond,
    shared::{SharedLoad, Staged},
};
use crate::{client::Address, engine, preflight};

/// `postgres:` as a target.
pub struct PostgresTarget {
    address: Address,
    row_bytes_max: usize,
    workers: NonZero<u16>,
    waivers: Waivers,
}

/// Sessions that make indexes and constraints, and that prove tables, side by side. Each may use
/// `maintenance_work_mem` and a processor of the server, of which servers have some.
const WORKERS: NonZero<u16> = NonZero::new(4).expect("4 is not 0");

impl PostgresTarget {
    /// A target by its final name. Nothing is touched before `prepare`.
    pub fn new(address: Address, row_bytes_max: usize) -> Self {
        Self { address, row_bytes_max, workers: WORKERS, waivers: Waivers::default() }
    }

    /// So many sessions make indexes, or prove tables, at once.
    pub fn with_workers(self, workers: Option<NonZero<u16>>) -> Self {
        Self { workers: workers.unwrap_or(self.workers), ..self }
    }

    /// Errors that are accepted.
    pub fn with_waivers(self, waivers: Waivers) -> Self {
        Self { waivers, ..self }
    }
}

impl Recovery for PostgresTarget {
    fn publish(&self, transfer: TransferId) -> Outcome {
        on_own_thread(|| publish::publish(&self.address, transfer, self.row_bytes_max))
    }

    fn forget(&self, transfer: TransferId) {
        // The mark in the comment does no harm, and the next attempt may come through.
        let _ = on_own_thread(|| publish::forget(&self.address, transfer));
    }

    fn abandon(&self, transfer: TransferId, _left_at: LeftAt) -> Outcome<Abandoned> {
        if on_own_thread(|| publish::abandon(&self.address, transfer))? {
            self.forget(transfer);
            return Ok(Abandoned::Published);
        }
        Ok(Abandoned::Dropped)
    }
}

impl Target for PostgresTarget {
    /// Each part is committed with its line in the ledger.
    fn capabilities(&self, _plan: &Plan) -> TargetCapabilities {
        TargetCapabilities { durability: Durability::Parts, commit: Commit::Observable }
    }

    fn check(&self, readiness: Readiness) -> Outcome<Vec<Finding>> {
        on_own_thread(|| {
            let mut cluster = Cluster::connect(&self.address)?;
            let found = preflight::target::look(cluster.connection())?;
            if readiness >= Readiness::Name {
                cluster.check_name(&self.address.database)?;
            }
            Ok(found)
        })
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
        let mut cluster = Cluster::connect(&self.address)?;
        preflight::target::refuse_unfit(cluster.connection(), &self.waivers)?;
        cluster.check_name(&self.address.database)?;
        cluster.lock(transfer)?;
        let staged = Staged { name: staging_name(transfer), row_bytes_max: self.row_bytes_max, workers: self.workers };
        let shared = SharedLoad::new(self.address.clone(), staged, plan, bond, stop);
        shared.watch(cluster.connection())?;
        shared.set_cluster(cluster);
        let load = PostgresLoad(Arc::clone(&shared));
        let lines = staged::stage(&shared, asks).map_err(|failure| shared.reason(failure))?;
        let rows = lines.iter().fold(0, |sum: u64, line| sum.saturating_add(line.rows));
        let found = lines.iter().map(|line| Found::Whole(line.whole)).collect();
        Ok(PreparedLoad { found, rows, load: Box::new(load) })
    }
}

/// Runs a step on a thread of its own: a connection cannot be waited for on one that runs
/// asynchronous tasks, and an agent may look at a target from there.
fn on_own_thread<T: Send>(step: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(step).join().unwrap_or_else(|panic| resume_unwind(panic)))
}

/// That it is the plan of a database, and none that cannot be loaded: one part before the rows, and
/// one after them.
fn check_loadable(plan: &Plan) -> Outcome {
    plan.check()?;
    if plan.engine.name != engine::engine().name {
        let next = "Give the receiver a target of the source's kind, or one for dumps: file:PATH, exec:COMMAND or -.";
        return Err(Failure::new(Code::PlanRefused, "the source is no PostgreSQL database, and the target is", next));
    }
    engine::engine().check_same(&plan.engine)?;
    let count = |section| plan.parts.iter().filter(|part| part.section == section).count();
    match count(Section::PreData) == 1 && count(Section::PostData) == 1 {
        true => Ok(()),
        false => Err(Error::new(Code::PlanRefused, "parts of a database").into()),
    }
}
