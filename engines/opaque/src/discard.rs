//! `discard:`: takes any plan, looks at everything that a target of its engine would look at, and
//! keeps nothing. For drills. One that is killed has nothing to go on from, so that all of it is
//! sent again.

use std::sync::{Arc, OnceLock};

use sealift_engine_api::{Engines, PartSink, Sink, TargetOptions};
use sealift_protocol::{
    chunk::VerifiedChunk,
    close::Code,
    digest::Digests,
    error::Error,
    failure::{Failure, Outcome},
    id::{PartIndex, TransferId},
    manifest::{Engine, Evidence, Plan, Proof},
    receive::{Found, WholePart},
};

use crate::engine;

/// Leaves everything to the drill of the engine that made the plan.
pub struct DiscardSink {
    engines: Engines,
    options: TargetOptions,
    /// From `prepare` on.
    drill: OnceLock<Arc<dyn Sink>>,
}

impl DiscardSink {
    pub fn new(engines: Engines, options: TargetOptions) -> Self {
        Self { engines, options, drill: OnceLock::new() }
    }

    fn drill(&self) -> Outcome<&dyn Sink> {
        let drill = self.drill.get().map(|drill| &**drill);
        drill.ok_or_else(|| Failure::new(Code::Internal, "the target was used out of order", ""))
    }
}

impl Sink for DiscardSink {
    fn prepare(&self, transfer: TransferId, plan: &Plan, fresh: bool) -> Outcome<Vec<Found>> {
        plan.check()?;
        let Some(drill) = self.engines.drill(&plan.engine, &self.options) else {
            return Err(Error::new(Code::PlanRefused, "an engine that is not known here").into());
        };
        self.drill.get_or_init(|| drill).prepare(transfer, plan, fresh)
    }

    fn keeps_parts(&self) -> bool {
        false
    }

    fn begin(&self, part: PartIndex, digests: &Digests) -> Outcome<Box<dyn PartSink + '_>> {
        self.drill()?.begin(part, digests)
    }

    fn prove(&self, digests: &Digests) -> Outcome<Evidence> {
        self.drill()?.prove(digests)
    }

    fn publish(&self, _transfer: TransferId) -> Outcome {
        Ok(())
    }

    fn abandon_earlier(&self, _transfer: TransferId, _proven: bool) -> Outcome<bool> {
        Ok(false)
    }

    fn suspend(&self) {
        if let Some(drill) = self.drill.get() {
            drill.suspend();
        }
    }

    fn abandon(&self) {
        if let Some(drill) = self.drill.get() {
            drill.abandon();
        }
    }
}

/// The drill of a dump: its bytes mean nothing here.
pub fn drill(planned: &Engine, _options: &TargetOptions) -> Option<Arc<dyn Sink>> {
    (planned.name == engine().name).then(|| Arc::new(OpaqueDrill) as Arc<dyn Sink>)
}

struct OpaqueDrill;

impl Sink for OpaqueDrill {
    fn prepare(&self, _transfer: TransferId, plan: &Plan, _fresh: bool) -> Outcome<Vec<Found>> {
        engine().check_same(&plan.engine)?;
        Ok(Vec::new())
    }

    fn keeps_parts(&self) -> bool {
        false
    }

    fn begin(&self, _part: PartIndex, _digests: &Digests) -> Outcome<Box<dyn PartSink + '_>> {
        Ok(Box::new(OpaqueDrill))
    }

    fn prove(&self, _digests: &Digests) -> Outcome<Evidence> {
        Ok(Evidence::bare(Proof::Discarded))
    }

    fn publish(&self, _transfer: TransferId) -> Outcome {
        Ok(())
    }

    fn suspend(&self) {}

    fn abandon(&self) {}
}

impl PartSink for OpaqueDrill {
    fn write(&mut self, _chunk: &VerifiedChunk) -> Outcome {
        Ok(())
    }

    fn finish(self: Box<Self>, _whole: &WholePart) -> Outcome {
        Ok(())
    }
}
