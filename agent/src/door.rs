//! The connections behind the slots of [`Admission`]: closes what is evicted, notices what is gone,
//! and counts what is refused. One for all the addresses at which a receiver listens.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use sealift_protocol::{close::Code, error::Error};

use crate::{
    admission::{Admission, Arrival, Growth, Key, SlotId, Stage},
    failure::Outcome,
    link::connection::Connection,
    refusals::{Counts, RefusalCause, Refusals},
};

/// How often it is looked which connections are gone. A peer that is closed now waits for some 300
/// ms at least.
const SWEEP_EVERY: Duration = Duration::from_millis(50);

/// Bounds and counts what comes to a receiver.
#[derive(Clone, Default)]
pub struct Door {
    state: Arc<Mutex<DoorState>>,
}

#[derive(Default)]
struct DoorState {
    admission: Admission,
    connections: BTreeMap<SlotId, Occupant>,
    refusals: Refusals,
    swept: Option<Instant>,
}

/// What is behind a slot.
struct Occupant {
    /// `None` once it was closed.
    connection: Option<Connection>,
    /// Cannot be upgraded any more once the transport has forgotten the connection.
    left: Weak<()>,
    address: IpAddr,
}

/// A place of one connection, which is given back when this is dropped.
pub struct Slot {
    door: Door,
    id: SlotId,
    address: IpAddr,
}

impl Door {
    /// A place for a newcomer whose address is validated, or none. Closes the connection whose
    /// place it takes.
    pub(crate) fn arrive(&self, address: IpAddr) -> Option<Slot> {
        let mut state = self.lock();
        state.sweep(Instant::now());
        match state.admission.arrive(address) {
            Arrival::Admitted { slot, evicted } => {
                evicted.into_iter().for_each(|evicted| state.evict(evicted));
                Some(Slot { door: self.clone(), id: slot, address })
            }
            Arrival::Ignored => {
                state.refuse(RefusalCause::Ignored, address);
                None
            }
        }
    }

    /// The refusals since the last report, if one is due.
    pub fn report(&self) -> Option<Counts> {
        self.lock().refusals.report(Instant::now())
    }

    /// The refusals since the last report, if there are any.
    pub fn last_report(&self) -> Option<Counts> {
        self.lock().refusals.drain()
    }

    fn lock(&self) -> MutexGuard<'_, DoorState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DoorState {
    /// For the peer it is an interruption: it may try again.
    fn evict(&mut self, slot: SlotId) {
        let Some(behind) = self.connections.get_mut(&slot) else { return };
        if let Some(connection) = behind.connection.take() {
            connection.close(Code::Interrupted);
        }
        let address = behind.address;
        self.refuse(RefusalCause::Evicted, address);
    }

    fn refuse(&mut self, cause: RefusalCause, address: IpAddr) {
        if self.refusals.count(cause, address, Instant::now()) {
            tracing::warn!(%address, cause = cause.as_str(), "connection refused");
        }
    }

    fn sweep(&mut self, now: Instant) {
        if self.swept.is_some_and(|swept| now.saturating_duration_since(swept) < SWEEP_EVERY) {
            return;
        }
        self.swept = Some(now);
        let admission = &mut self.admission;
        self.connections.retain(|slot, behind| {
            let is_left = behind.connection.is_some() || behind.left.strong_count() > 0;
            if !is_left {
                admission.forget(*slot);
            }
            is_left
        });
    }
}

impl Slot {
    /// The connection that has this place. What is left of it when `left` is gone is nothing.
    pub(crate) fn hold(&self, connection: Option<Connection>, left: Weak<()>) {
        let address = self.address;
        self.door.lock().connections.insert(self.id, Occupant { connection, left, address });
    }

    /// The connection has come to `stage`, and `key` is what it is known by.
    pub fn advance(&self, stage: Stage, key: Key) {
        let mut state = self.door.lock();
        let evicted = state.admission.advance(self.id, stage, key);
        evicted.into_iter().for_each(|evicted| state.evict(evicted));
    }

    /// What the peer has sent takes so many bytes of memory now.
    pub fn hold_bytes(&self, bytes: usize) -> Outcome {
        let mut state = self.door.lock();
        match state.admission.hold(self.id, bytes) {
            Growth::Granted(evicted) => {
                evicted.into_iter().for_each(|evicted| state.evict(evicted));
                Ok(())
            }
            Growth::Refused => Err(Error::new(Code::ReceiverBusy, "memory for offers").into()),
        }
    }

    /// Counts that the peer was refused, and logs it if there were not too many.
    pub fn refuse(&self, cause: impl Into<RefusalCause>) {
        self.door.lock().refuse(cause.into(), self.address);
    }

    /// The same for a caller that says it in its own words, if this returns true.
    pub fn count_refusal(&self, cause: impl Into<RefusalCause>) -> bool {
        self.door.lock().refusals.count(cause.into(), self.address, Instant::now())
    }

    /// A transfer has the connection, and bounds what it holds.
    pub fn accept(self) {
        let mut state = self.door.lock();
        state.connections.remove(&self.id);
        state.admission.forget(self.id);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.door.lock();
        state.admission.close(self.id);
        match state.connections.get_mut(&self.id) {
            Some(behind) => behind.connection = None,
            // It was accepted, or never had a connection.
            None => state.admission.forget(self.id),
        }
    }
}
