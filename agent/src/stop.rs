//! What ends a transfer from outside of its own work: one object, made once, that readers, writers,
//! provers and every long call ask.
//!
//! [`Stop::check`] looks at every cause at that moment: a thread that asks before a commit finds a
//! grant that ended a millisecond ago. The first cause that is found stays the one that the
//! transfer ends for, and its failure is what people read.

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use sealift_engine_api::StopToken;
use tokio::sync::Notify;

use crate::{
    failure::{Failure, Outcome},
    permit::Permit,
    shutdown::Shutdown,
};

/// What ends a transfer. Of several that are found at once, the first in this order counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// A signal, or the drain of a standing receiver.
    Shutdown,
    /// What the grant permitted is withdrawn.
    Revoked,
    /// The grant has ended.
    Expired,
    /// The peer has ended the transfer for good.
    Peer,
    /// The source, or the program that it is, has failed.
    Source,
    /// Its sender brings nothing, and another transfer needs its place.
    Displaced,
    /// This process lets go of the part of the work that asks.
    Closed,
}

impl Cause {
    /// In their order.
    pub const ALL: [Self; 7] =
        [Self::Shutdown, Self::Revoked, Self::Expired, Self::Peer, Self::Source, Self::Displaced, Self::Closed];
}

/// A cause, and what people read about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raised {
    pub cause: Cause,
    pub failure: Failure,
}

/// The one object that ends a transfer. Clones share it.
#[derive(Clone)]
pub struct Stop(Arc<Shared>);

struct Shared {
    /// The stop that this one is within: what ends that ends this.
    outer: Option<Stop>,
    shutdown: Option<Shutdown>,
    permit: OnceLock<Permit>,
    state: Mutex<StopState>,
    /// Notified when a cause is raised, here or in a stop around this one.
    raised: Arc<Notify>,
}

#[derive(Default)]
struct StopState {
    first: Option<Raised>,
    /// What others have raised.
    reported: Vec<Raised>,
    /// Called with the first cause: a second signal does not wait for the farewells.
    interrupt: Option<Box<dyn FnOnce() + Send>>,
}

impl Stop {
    /// Ends what `shutdown` ends.
    pub fn on(shutdown: Shutdown) -> Self {
        Self::new(None, Some(shutdown), Arc::default())
    }

    /// A stop for a part of the work: it ends with this one, or for a cause of its own.
    pub fn within(&self) -> Self {
        Self::new(Some(self.clone()), None, Arc::clone(&self.0.raised))
    }

    fn new(outer: Option<Stop>, shutdown: Option<Shutdown>, raised: Arc<Notify>) -> Self {
        let permit = OnceLock::new();
        let state = Mutex::default();
        Self(Arc::new(Shared { outer, shutdown, permit, state, raised }))
    }

    /// From now on the transfer also ends with its permit. A transfer has one: a second is ignored.
    pub fn under(&self, permit: &Permit) {
        let _ = self.0.permit.set(permit.clone());
        self.0.raised.notify_waiters();
    }

    /// Calls this as soon as a cause is found, which may have been before, and not after the
    /// farewells: by what raises or asks this stop, and not the one that it is within. A second
    /// call replaces the first.
    pub fn interrupts(&self, interrupt: impl FnOnce() + Send + 'static) {
        let mut state = self.state();
        if state.first.is_some() {
            drop(state);
            interrupt();
        } else {
            state.interrupt = Some(Box::new(interrupt));
        }
    }

    /// Ends the transfer for a cause that the caller has found. Each kind counts once.
    pub fn raise(&self, cause: Cause, failure: Failure) {
        let mut state = self.state();
        if state.reported.iter().all(|reported| reported.cause != cause) {
            state.reported.push(Raised { cause, failure });
        }
        drop(state);
        // From here on it is the first one, and what runs is interrupted.
        self.raised();
        self.0.raised.notify_waiters();
    }

    /// The cause that the transfer ends for, if there is one.
    pub fn raised(&self) -> Option<Raised> {
        if let Some(first) = &self.state().first {
            return Some(first.clone());
        }
        let outer = self.0.outer.as_ref().and_then(Stop::raised);
        let found = outer.or_else(|| Cause::ALL.into_iter().find_map(|cause| self.find(cause)))?;
        let mut state = self.state();
        let first = state.first.get_or_insert(found).clone();
        let interrupt = state.interrupt.take();
        drop(state);
        if let Some(interrupt) = interrupt {
            interrupt();
        }
        Some(first)
    }

    /// Fails if the transfer has to end. Cheap enough to be asked for every chunk and before every
    /// commit, from any thread.
    pub fn check(&self) -> Outcome {
        match self.raised() {
            Some(raised) => Err(raised.failure),
            None => Ok(()),
        }
    }

    /// Resolves when the transfer has to end, and at once from then on. Cancel-safe.
    pub async fn requested(&self) -> Raised {
        let another = self.another(&[]).await;
        self.raised().unwrap_or(another)
    }

    /// Resolves with a cause that is not among those `seen`, for work that the first does not end.
    /// Cancel-safe.
    pub async fn another(&self, seen: &[Cause]) -> Raised {
        loop {
            let mut raised = pin!(self.0.raised.notified());
            // Before the look, so that nothing between it and the wait is missed.
            raised.as_mut().enable();
            let mut unseen = Cause::ALL.into_iter().filter(|cause| !seen.contains(cause));
            if let Some(found) = unseen.find_map(|cause| self.find(cause)) {
                self.raised();
                return found;
            }
            tokio::select! {
                () = raised => {}
                () = self.shutdown_requested(), if !seen.contains(&Cause::Shutdown) => {}
                () = self.permit_changed() => {}
            }
        }
    }

    /// Runs `work` until it ends or the transfer has to. Cancel-safe if `work` is.
    pub async fn or<T>(&self, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        tokio::select! {
            biased;
            outcome = work => outcome.map_err(|failure| self.or_failure(failure)),
            raised = self.requested() => Err(raised.failure),
        }
    }

    /// What the transfer ends for, if that is why this failed, or why another attempt is useless. A
    /// process that was stopped for long finds its link lost and its grant ended at the same
    /// moment, in either order.
    pub fn or_failure(&self, failure: Failure) -> Failure {
        match self.raised() {
            Some(raised) if failure.code.retry_may_help() || failure.code == raised.failure.code => raised.failure,
            _ => failure,
        }
    }

    /// Whether this cause is found now, by this stop or by one around it.
    fn find(&self, cause: Cause) -> Option<Raised> {
        let own = match cause {
            Cause::Shutdown => self.0.shutdown.as_ref().and_then(Shutdown::requested),
            Cause::Revoked => self.0.permit.get().and_then(Permit::revoked),
            Cause::Expired => self.0.permit.get().and_then(Permit::expired),
            Cause::Peer | Cause::Source | Cause::Displaced | Cause::Closed => None,
        };
        if let Some(failure) = own {
            return Some(Raised { cause, failure });
        }
        let reported = self.state().reported.iter().find(|reported| reported.cause == cause).cloned();
        reported.or_else(|| self.0.outer.as_ref().and_then(|outer| outer.find(cause)))
    }

    /// Cancel-safe.
    async fn shutdown_requested(&self) {
        match (&self.0.shutdown, &self.0.outer) {
            (Some(shutdown), _) => shutdown.arrives().await,
            (None, Some(outer)) => Box::pin(outer.shutdown_requested()).await,
            (None, None) => std::future::pending().await,
        }
    }

    /// Cancel-safe.
    async fn permit_changed(&self) {
        match (self.0.permit.get(), &self.0.outer) {
            (Some(permit), _) => permit.changes().await,
            (None, Some(outer)) => Box::pin(outer.permit_changed()).await,
            (None, None) => std::future::pending().await,
        }
    }

    fn state(&self) -> MutexGuard<'_, StopState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As an engine asks it.
impl StopToken for Stop {
    fn check(&self) -> Outcome {
        Stop::check(self)
    }

    fn wakes(&self, wake: Box<dyn FnOnce() + Send>) {
        self.interrupts(wake);
    }
}
