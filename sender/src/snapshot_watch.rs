//! The age of the source's snapshot, for the report.

use std::{cell::RefCell, convert::Infallible, rc::Rc, sync::Arc, time::Duration};

use sealift_agent::report::Report;
use sealift_engine_api::Snapshot;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The snapshot that is read, if it has an age that matters.
#[derive(Clone, Default)]
pub struct SnapshotWatch(Rc<RefCell<Option<Arc<dyn Snapshot>>>>);

impl SnapshotWatch {
    /// From now on this one is read.
    pub fn follow(&self, snapshot: Option<Arc<dyn Snapshot>>) {
        *self.0.borrow_mut() = snapshot;
    }

    /// Says how old it is, also while there is no connection. Never returns. Cancel-safe.
    pub async fn report(&self, report: &Report) -> Infallible {
        loop {
            let age = self.0.borrow().as_ref().and_then(|snapshot| snapshot.age());
            report.snapshot_age(age);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
