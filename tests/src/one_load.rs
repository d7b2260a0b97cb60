//! One load of a target in this process, held as a receiver holds it.

use std::sync::{Arc, OnceLock};

use sealift_agent::{
    failure::{Failure, Outcome},
    shutdown::Shutdown,
    stop::{Cause, Stop},
};
use sealift_engine_api::{PartSink, StopToken, Target, Writers};
use sealift_protocol::{
    close::Code,
    digest::Digests,
    disposition::Asks,
    id::{PartIndex, TransferId},
    manifest::{Evidence, Plan},
    receive::Found,
};
use sealift_receiver::held::{Held, LetGo};
use tokio::sync::watch;

/// The stop of work that nothing ends.
pub fn endless() -> Arc<dyn StopToken> {
    Arc::new(Endless)
}

struct Endless;

impl StopToken for Endless {
    fn check(&self) -> Outcome {
        Ok(())
    }

    fn wakes(&self, _wake: Box<dyn FnOnce() + Send>) {}
}

pub struct OneLoad {
    pub target: Arc<dyn Target>,
    stop: Stop,
    /// Without it the stop would be raised.
    _drains: Option<watch::Sender<bool>>,
    prepared: OnceLock<(Held, Arc<dyn Writers>)>,
}

impl OneLoad {
    pub fn new(target: impl Target + 'static) -> Self {
        let (drains, drained) = watch::channel(false);
        Self { _drains: Some(drains), ..Self::ended_by(target, &Stop::on(Shutdown::with_all(drained))) }
    }

    /// One that ends with `stop`.
    pub fn ended_by(target: impl Target + 'static, stop: &Stop) -> Self {
        Self { target: Arc::new(target), stop: stop.within(), _drains: None, prepared: OnceLock::new() }
    }

    pub fn prepare(&self, transfer: TransferId, plan: &Plan, asks: Asks) -> Outcome<Vec<Found>> {
        let prepared = self.target.prepare(transfer, plan, asks, Arc::new(self.stop.clone()))?;
        let writers = prepared.load.writers();
        assert!(self.prepared.set((Held::loading(prepared.load), writers)).is_ok(), "prepared once");
        Ok(prepared.found)
    }

    fn held(&self) -> &Held {
        &self.prepared.get().expect("prepared").0
    }

    pub fn writers(&self) -> Arc<dyn Writers> {
        Arc::clone(&self.prepared.get().expect("prepared").1)
    }

    pub fn begin(&self, part: PartIndex, digests: &Digests) -> Outcome<Box<dyn PartSink + '_>> {
        self.prepared.get().expect("prepared").1.begin(part, digests)
    }

    pub fn prove(&self, digests: &Digests) -> Outcome<Evidence> {
        self.held().prove(digests)
    }

    /// What was proven.
    pub fn publish(&self) -> Outcome {
        self.held().publish()
    }

    pub fn suspend(&self) {
        self.let_go(LetGo::Suspend);
    }

    pub fn abandon(&self) {
        self.let_go(LetGo::Abandon);
    }

    fn let_go(&self, how: LetGo) {
        self.stop.raise(Cause::Closed, Failure::new(Code::Interrupted, "the load was given up", ""));
        if let Some((held, _)) = self.prepared.get() {
            held.let_go(how);
        }
    }
}
