//! A load in the hands of this process, from the first part to its final name.

use std::sync::Arc;

use sealift_engine_api::{LoadFailure, ProvenLoad, StagedLoad, TargetLoad, Writers, out_of_order};
use sealift_protocol::{
    digest::Digests,
    failure::Outcome,
    manifest::{Evidence, ReadBack},
};

use super::{
    image, prove, publish,
    shared::{End, Shared},
};

/// A load that this process holds.
pub struct SqliteLoad(pub Arc<Shared>);

impl SqliteLoad {
    /// Ends the load, and reads it again.
    fn read_back(&self, digests: &Digests) -> Outcome<Evidence> {
        let mut turn = self.0.turn(None, digests)?;
        if !self.0.state().is_whole() {
            return Err(out_of_order());
        }
        match self.0.plan.engine.capabilities.read_back {
            ReadBack::Bytes => image::prove(&mut turn),
            _ => prove::prove(&mut turn),
        }
    }
}

impl Drop for SqliteLoad {
    fn drop(&mut self) {
        self.0.end(End::Suspended);
    }
}

impl StagedLoad for SqliteLoad {
    fn abandon(self: Box<Self>) {
        self.0.end(End::Abandoned);
    }
}

impl TargetLoad for SqliteLoad {
    fn writers(&self) -> Arc<dyn Writers> {
        Arc::clone(&self.0) as Arc<dyn Writers>
    }

    fn prove(self: Box<Self>, digests: &Digests) -> Result<Box<dyn ProvenLoad>, LoadFailure> {
        match self.read_back(digests) {
            Ok(evidence) => Ok(Box::new(SqliteProven { load: *self, evidence })),
            Err(failure) => Err(LoadFailure::new(failure, self)),
        }
    }
}

/// A load that was read again, and is the one that is published.
struct SqliteProven {
    load: SqliteLoad,
    evidence: Evidence,
}

impl StagedLoad for SqliteProven {
    fn abandon(self: Box<Self>) {
        self.load.0.end(End::Abandoned);
    }
}

impl ProvenLoad for SqliteProven {
    fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    fn publish(self: Box<Self>) -> Result<(), LoadFailure> {
        let Shared { staging, bond, identity, row_bytes_max, .. } = &*self.load.0;
        match publish::publish(staging, bond.transfer, Some(*identity), *row_bytes_max) {
            Ok(()) => {
                self.load.0.end(End::Published);
                Ok(())
            }
            Err(failure) => Err(LoadFailure::new(failure, self)),
        }
    }
}
