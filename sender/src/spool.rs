//! The spool: a sealed log in which a source that can be read only once lies as it goes out, so
//! that a sender that was killed goes on without it. It is sealed to the receiver: after a restart
//! this sender cannot open it either.
//!
//! [`Place`] is where it lies; [`fill`] reads the source into it, whether or not there is a link;
//! [`frames`] reads it for the link, and may stand anywhere behind.

mod fill;
mod frames;
mod place;

use std::{
    cell::Cell,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sealift_agent::{
    budget::LaneBudget,
    failure::{Failure, Outcome},
    report::Report,
    sealed_file::SealedFile,
};
use sealift_protocol::{close::Code, manifest::SignedManifest};
use serde_json::json;
use tokio::{sync::watch, task::AbortHandle};

use self::frames::Places;
pub use self::{
    fill::Filling,
    frames::Frames,
    place::{Found, Place, Whole, prepare},
};

/// A spool that is sent from.
pub struct Spool {
    /// None once it is destroyed.
    log: Log,
    progress: watch::Receiver<Progress>,
    /// None if an earlier process had filled it.
    filling: Option<AbortHandle>,
    places: Arc<Mutex<Places>>,
    /// For the frames that are read.
    budget: LaneBudget,
    is_reported: Cell<bool>,
}

type Log = Arc<Mutex<Option<SealedFile>>>;

/// What of the spool is durable.
#[derive(Clone, Default)]
struct Progress {
    frames: u64,
    /// All of the source is there, with its manifest; or it never will be.
    ended: Option<Outcome<SignedManifest>>,
}

impl Spool {
    fn new(log: SealedFile, progress: watch::Receiver<Progress>, budget: LaneBudget) -> Self {
        let (log, places) = (Arc::new(Mutex::new(Some(log))), Arc::default());
        Self { log, progress, filling: None, places, budget, is_reported: Cell::new(false) }
    }

    /// Frames that are durable.
    pub fn frames(&self) -> u64 {
        self.progress.borrow().frames
    }

    /// Whether an earlier process had filled it.
    pub fn is_earlier(&self) -> bool {
        self.filling.is_none()
    }

    /// Whether all of the source is durable here: another process can send it.
    pub fn is_whole(&self) -> bool {
        matches!(self.progress.borrow().ended, Some(Ok(_)))
    }

    /// The manifest, once the source has ended and all of it is durable here. Cancel-safe.
    pub async fn manifest(&self) -> Outcome<SignedManifest> {
        let mut progress = self.progress.clone();
        let ended = progress.wait_for(|progress| progress.ended.is_some()).await;
        ended.ok().and_then(|progress| progress.ended.clone()).unwrap_or_else(|| Err(stopped()))
    }

    /// Waits until the source has ended, and says so. Cancel-safe.
    pub async fn report_whole(&self, report: &Report) {
        if self.manifest().await.is_ok() && !self.is_earlier() && !self.is_reported.replace(true) {
            report.event("spooled", &[("frames", json!(self.frames()))]);
            report.say("sender: the source has ended, and all of it is spooled; it is not needed any more.");
        }
    }

    /// The transfer is over, or this spool is of no use: nothing is written to it any more.
    pub fn destroy(&self) -> Outcome {
        self.stop();
        locked(&self.log).take().map_or(Ok(()), SealedFile::destroy)
    }

    fn stop(&self) {
        if let Some(filling) = &self.filling {
            filling.abort();
        }
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.stop();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Not one that another connection would mend.
fn stopped() -> Failure {
    Failure::new(Code::Internal, "the spool is no longer filled", "")
}

/// What the spool's disk refused. A spool that is full stays so: nothing in it is given up before
/// all of it is loaded.
fn of_spool(failure: Failure) -> Failure {
    let remedy = match failure.code {
        Code::LogFull => "Give --spool a larger disk, or more with --spool-bytes-max",
        Code::LogFailed => "Examine the disk of --spool, or give another",
        _ => return failure,
    };
    let hint = format!("{remedy}, and the same command again: the source is then read again.");
    Failure { hints: hint.into(), ..failure }
}
