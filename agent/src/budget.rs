//! What a transfer has in memory, and which lane may take how much of it.
//!
//! Half of `--memory` is for what the link has: a window for each lane, fixed when a connection is
//! agreed on. The other half is here: chunks between the link and the source or target.
//!
//! A lane reserves [`LANE_BYTES`] before it opens, and waits for them while it holds nothing. What
//! it needs beyond is taken from what is left, if there is enough, and never waited for. From then
//! on a lane waits only for bytes of its own reserve, which its own chunks give back. So what one
//! lane waits for is never held by another that waits in turn.

use std::sync::Arc;

use sealift_protocol::limits::{CHUNK_PLAIN_BYTES, CHUNK_PLAIN_BYTES_MAX, FRAME_BYTES_MAX, LANE_WINDOW_BYTES_MIN};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::failure::{Failure, Outcome};

/// What a lane reserves: the largest chunk, as it was and as it will be.
pub const LANE_BYTES: usize = LANE_WINDOW_BYTES_MIN as usize;
const _: () = assert!(FRAME_BYTES_MAX + CHUNK_PLAIN_BYTES_MAX <= LANE_BYTES);

/// What each of two has of a lane: the largest frame, or a chunk of the usual size as it was and as
/// it will be, with another one ready behind it.
pub const HALF_LANE_BYTES: usize = LANE_BYTES / 2;
const _: () = assert!(FRAME_BYTES_MAX <= HALF_LANE_BYTES && 3 * CHUNK_PLAIN_BYTES <= HALF_LANE_BYTES);

/// The bytes of one transfer; its clones share them.
#[derive(Clone)]
pub struct Budget {
    memory: u64,
    pool: Arc<Semaphore>,
}

/// What one lane may take; its clones share it.
#[derive(Clone)]
pub struct LaneBudget {
    own: Arc<Semaphore>,
    /// Of which no more is taken at once.
    own_bytes: usize,
    pool: Arc<Semaphore>,
    reserve: Arc<OwnedSemaphorePermit>,
}

/// Bytes that were taken. Dropped, they are given back.
pub struct Room {
    bytes: OwnedSemaphorePermit,
    /// Given back to the pool after all that was taken of it.
    _reserve: Option<Arc<OwnedSemaphorePermit>>,
}

impl Budget {
    pub fn new(memory: u64) -> Self {
        let here = usize::try_from(memory / 2).unwrap_or(usize::MAX).clamp(LANE_BYTES, Semaphore::MAX_PERMITS);
        Self { memory, pool: Arc::new(Semaphore::new(here)) }
    }

    /// For what the link has, of all lanes together.
    pub fn window_bytes(&self) -> u64 {
        self.memory / 2
    }

    /// Reserves what a lane needs at least. Lanes are opened in the order of the calls.
    /// Cancel-safe.
    pub async fn open_lane(&self) -> Outcome<LaneBudget> {
        let reserve = Arc::clone(&self.pool).acquire_many_owned(LANE_BYTES as u32).await.map_err(closed)?;
        Ok(LaneBudget {
            own: Arc::new(Semaphore::new(LANE_BYTES)),
            own_bytes: LANE_BYTES,
            pool: Arc::clone(&self.pool),
            reserve: Arc::new(reserve),
        })
    }
}

impl LaneBudget {
    /// The budgets of two that must not wait for each other, each with half of the reserve:
    /// [`HALF_LANE_BYTES`].
    pub fn halves(self) -> (Self, Self) {
        let half =
            || Self { own: Arc::new(Semaphore::new(HALF_LANE_BYTES)), own_bytes: HALF_LANE_BYTES, ..self.clone() };
        (half(), half())
    }

    /// Takes so many bytes, or as many as are reserved, if that is less: a chunk needs no more,
    /// unless one of the largest has a copy for a journal, too.
    /// Waits, if it has to, until chunks of this very lane give back theirs. Cancel-safe.
    pub async fn take(&self, bytes: usize) -> Outcome<Room> {
        let wanted = bytes.min(self.own_bytes) as u32;
        if let Ok(bytes) = Arc::clone(&self.own).try_acquire_many_owned(wanted) {
            return Ok(self.held(bytes));
        }
        if let Ok(bytes) = Arc::clone(&self.pool).try_acquire_many_owned(wanted) {
            return Ok(Room { bytes, _reserve: None });
        }
        let bytes = Arc::clone(&self.own).acquire_many_owned(wanted).await.map_err(closed)?;
        Ok(self.held(bytes))
    }

    /// The same for a thread that may block.
    pub fn take_blocking(&self, bytes: usize) -> Outcome<Room> {
        Handle::current().block_on(self.take(bytes))
    }

    fn held(&self, bytes: OwnedSemaphorePermit) -> Room {
        Room { bytes, _reserve: Some(Arc::clone(&self.reserve)) }
    }
}

impl Room {
    /// What is held has become smaller: gives back all but so many bytes.
    pub fn shrink(&mut self, bytes: usize) {
        let spare = self.bytes.num_permits().saturating_sub(bytes);
        drop(self.bytes.split(spare));
    }
}

fn closed(_: tokio::sync::AcquireError) -> Failure {
    Failure::new(sealift_protocol::close::Code::Internal, "the budget of a transfer was closed", "")
}

#[cfg(test)]
mod tests;
