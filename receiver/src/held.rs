//! What this process holds of a load in its target. The steps run off the async threads, and a
//! caller that waits for one may be cancelled: what the step gives back is put where it was taken
//! from.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sealift_agent::failure::{Failure, Outcome};
use sealift_engine_api::{Finding, LoadFailure, ProvenLoad, StagedLoad, TargetLoad};
use sealift_protocol::{close::Code, digest::Digests, manifest::Evidence};

/// How a process lets go of a load that is not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LetGo {
    /// A later process resumes it.
    Suspend,
    /// Nothing of it stays.
    Abandon,
}

/// A load in its target. Clones share it.
#[derive(Clone)]
pub struct Held(Arc<Mutex<State>>);

enum State {
    Loading(Box<dyn TargetLoad>),
    Proven(Box<dyn ProvenLoad>),
    /// A step has failed.
    Failed(Box<dyn StagedLoad>),
    /// A step has it.
    Busy,
    /// It is published, or was by another process.
    Published,
    /// This process has let go of it.
    Closed(LetGo),
}

impl Held {
    pub fn loading(load: Box<dyn TargetLoad>) -> Self {
        Self::new(State::Loading(load))
    }

    /// A load that another process has published.
    pub fn published() -> Self {
        Self::new(State::Published)
    }

    fn new(state: State) -> Self {
        Self(Arc::new(Mutex::new(state)))
    }

    /// Ends the load and reads it back. Blocks.
    pub fn prove(&self, digests: &Digests) -> Outcome<Evidence> {
        let load = self.take(|state| match state {
            State::Loading(load) => Ok(load),
            other => Err(other),
        })?;
        match load.prove(digests) {
            Ok(proven) => {
                let evidence = proven.evidence().clone();
                self.put_back(State::Proven(proven));
                Ok(evidence)
            }
            Err(LoadFailure { failure, staged }) => {
                self.put_back(State::Failed(staged));
                Err(*failure)
            }
        }
    }

    /// What is to be said of a proven load.
    pub fn findings(&self) -> Vec<Finding> {
        match &*self.state() {
            State::Proven(proven) => proven.findings().to_vec(),
            _ => Vec::new(),
        }
    }

    /// Shows a proven load under its final name. Blocks.
    pub fn publish(&self) -> Outcome {
        let proven = self.take(|state| match state {
            State::Proven(proven) => Ok(proven),
            other => Err(other),
        })?;
        match proven.publish() {
            Ok(()) => {
                self.put_back(State::Published);
                Ok(())
            }
            Err(LoadFailure { failure, staged }) => {
                self.put_back(State::Failed(staged));
                Err(*failure)
            }
        }
    }

    /// Lets go of what is not published. A step that runs does so when it ends. Blocks.
    pub fn let_go(&self, how: LetGo) {
        let state = mem::replace(&mut *self.state(), State::Closed(how));
        state.let_go(how);
    }

    /// Takes what a step consumes, if it is there.
    fn take<T>(&self, wanted: impl FnOnce(State) -> Result<T, State>) -> Outcome<T> {
        let mut state = self.state();
        wanted(mem::replace(&mut *state, State::Busy)).map_err(|other| {
            *state = other;
            Failure::new(Code::Internal, "a step of a load out of order", "")
        })
    }

    fn put_back(&self, given: State) {
        let mut state = self.state();
        match *state {
            State::Closed(how) => {
                drop(state);
                given.let_go(how);
            }
            _ => *state = given,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn let_go(self, how: LetGo) {
        // Dropped, it is suspended.
        match (self, how) {
            (Self::Loading(load), LetGo::Abandon) => load.abandon(),
            (Self::Proven(load), LetGo::Abandon) => load.abandon(),
            (Self::Failed(load), LetGo::Abandon) => load.abandon(),
            _ => {}
        }
    }
}
