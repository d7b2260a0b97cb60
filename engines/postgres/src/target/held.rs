//! A load in the hands of this process, from the first part to its final name.

use std::sync::Arc;

use sealift_engine_api::{Finding, LoadFailure, ProvenLoad, StagedLoad, TargetLoad, Writers};
use sealift_protocol::{digest::Digests, failure::Outcome, manifest::Evidence};

use super::{prove, publish, shared::SharedLoad};

/// A load that this process holds.
pub struct PostgresLoad(pub Arc<SharedLoad>);

impl PostgresLoad {
    fn publish(&self) -> Outcome {
        // Nothing stops it: it has connections of its own.
        self.0.end();
        publish::publish(&self.0.address, self.0.bond.transfer, self.0.row_bytes_max)
    }
}

impl Drop for PostgresLoad {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl StagedLoad for PostgresLoad {
    fn abandon(self: Box<Self>) {
        self.0.end();
        // What cannot be dropped now is dropped by the next load into the target, or by `abandon`.
        let _ = publish::abandon(&self.0.address, self.0.bond.transfer);
    }
}

impl TargetLoad for PostgresLoad {
    fn writers(&self) -> Arc<dyn Writers> {
        Arc::clone(&self.0) as Arc<dyn Writers>
    }

    fn prove(self: Box<Self>, digests: &Digests) -> Result<Box<dyn ProvenLoad>, LoadFailure> {
        let proven = prove::prove(&self.0, digests).and_then(|evidence| Ok((evidence, prove::findings(&self.0)?)));
        match proven {
            Ok((evidence, findings)) => Ok(Box::new(PostgresProven { load: *self, evidence, findings })),
            Err(failure) => {
                let failure = self.0.reason(failure);
                Err(LoadFailure::new(failure, self))
            }
        }
    }
}

/// A load that was read again, and is the one that is published.
struct PostgresProven {
    load: PostgresLoad,
    evidence: Evidence,
    findings: Vec<Finding>,
}

impl StagedLoad for PostgresProven {
    fn abandon(self: Box<Self>) {
        Box::new(self.load).abandon();
    }
}

impl ProvenLoad for PostgresProven {
    fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    fn findings(&self) -> &[Finding] {
        &self.findings
    }

    fn publish(self: Box<Self>) -> Result<(), LoadFailure> {
        match self.load.publish() {
            Ok(()) => Ok(()),
            Err(failure) => Err(LoadFailure::new(failure, self)),
        }
    }
}
