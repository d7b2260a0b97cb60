//! `discard:`: takes any plan, looks at everything that a target of its engine would look at, and
//! keeps nothing. For drills. One that is killed has nothing to go on from, so that all of it is
//! sent again.

use std::sync::Arc;

use sealift_engine_api::{
    Abandoned, Commit, Durability, Engines, FinishedLoad, LeftAt, LoadFailure, PartSink, PreparedLoad, ProvenLoad,
    Recovery, StagedLoad, StopToken, Target, TargetCapabilities, TargetLoad, TargetOptions, Writers,
};
use sealift_protocol::{
    chunk::VerifiedChunk,
    close::Code,
    digest::Digests,
    disposition::Asks,
    error::Error,
    failure::Outcome,
    id::{PartIndex, TransferId},
    manifest::{Engine, Evidence, Plan, Proof},
    receive::WholePart,
};

use crate::engine;

const NOTHING_STAYS: TargetCapabilities =
    TargetCapabilities { durability: Durability::Nothing, commit: Commit::Observable };

/// Leaves everything to the drill of the engine that made the plan.
pub struct DiscardTarget {
    pub engines: Engines,
    pub options: TargetOptions,
}

impl Recovery for DiscardTarget {
    fn abandon(&self, _transfer: TransferId, _left_at: LeftAt) -> Outcome<Abandoned> {
        Ok(Abandoned::Dropped)
    }
}

impl Target for DiscardTarget {
    fn capabilities(&self, _plan: &Plan) -> TargetCapabilities {
        NOTHING_STAYS
    }

    fn prepare(
        &self,
        transfer: TransferId,
        plan: &Plan,
        asks: Asks,
        stop: Arc<dyn StopToken>,
    ) -> Outcome<PreparedLoad> {
        plan.check()?;
        match self.engines.drill(&plan.engine, &self.options) {
            Some(drill) => drill.prepare(transfer, plan, asks, stop),
            None => Err(Error::new(Code::PlanRefused, "an engine that is not known here").into()),
        }
    }
}

/// The drill of a dump: its bytes mean nothing here.
pub fn drill(planned: &Engine, _options: &TargetOptions) -> Option<Arc<dyn Target>> {
    (planned.name == engine().name).then(|| Arc::new(OpaqueDrill) as Arc<dyn Target>)
}

struct OpaqueDrill;

impl Recovery for OpaqueDrill {
    fn abandon(&self, _transfer: TransferId, _left_at: LeftAt) -> Outcome<Abandoned> {
        Ok(Abandoned::Dropped)
    }
}

impl Target for OpaqueDrill {
    fn capabilities(&self, _plan: &Plan) -> TargetCapabilities {
        NOTHING_STAYS
    }

    fn prepare(
        &self,
        _transfer: TransferId,
        plan: &Plan,
        _asks: Asks,
        stop: Arc<dyn StopToken>,
    ) -> Outcome<PreparedLoad> {
        engine().check_same(&plan.engine)?;
        stop.check()?;
        Ok(PreparedLoad::empty(Drilled))
    }
}

/// A load of which nothing is kept.
struct Drilled;

impl StagedLoad for Drilled {
    fn abandon(self: Box<Self>) {}
}

impl TargetLoad for Drilled {
    fn writers(&self) -> Arc<dyn Writers> {
        Arc::new(Drilled)
    }

    fn prove(self: Box<Self>, _digests: &Digests) -> Result<Box<dyn ProvenLoad>, LoadFailure> {
        Ok(Box::new(FinishedLoad(Evidence::bare(Proof::Discarded))))
    }
}

impl Writers for Drilled {
    fn begin(&self, part: PartIndex, _digests: &Digests) -> Outcome<Box<dyn PartSink + '_>> {
        Ok(Box::new(Bytes { part }))
    }
}

struct Bytes {
    part: PartIndex,
}

impl PartSink for Bytes {
    fn write(&mut self, _chunk: &VerifiedChunk) -> Outcome {
        Ok(())
    }

    fn finish(self: Box<Self>, _whole: &WholePart) -> Outcome<Vec<PartIndex>> {
        Ok(vec![self.part])
    }
}
