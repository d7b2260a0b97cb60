//! A host, and the operator that starts its process again.

use sealift_protocol::{close::Code, manifest::SignedReceipt};

use super::{
    Moved,
    world::{Failed, Outcome, Stop},
};
use crate::random::Random;

/// How a run ended for one side.
pub type End = Result<SignedReceipt, Code>;

/// The same command is given at most this often, faults aside.
const RESTARTS_MAX: u32 = 12;
const BUSY_MAX: u32 = 3;

/// A machine with one process on it.
pub struct Host<Process, Disk> {
    pub process: Option<Process>,
    pub disk: Disk,
    pub snapshot: Option<Disk>,
    pub processes: u32,
    restarts: u32,
    /// How often it was refused since another sender runs the transfer: that is not retried for
    /// long.
    told_busy: u32,
    pub start_at_ms: u64,
    /// The transfer is over for this side.
    pub end: Option<End>,
}

impl<Process, Disk: Clone> Host<Process, Disk> {
    pub fn new(disk: Disk) -> Self {
        Self { process: None, disk, snapshot: None, processes: 0, restarts: 0, told_busy: 0, start_at_ms: 0, end: None }
    }

    /// When it is started, if it does not run.
    pub fn next_start_ms(&self) -> Option<u64> {
        (self.process.is_none() && self.end.is_none()).then_some(self.start_at_ms)
    }

    /// The process is gone; the same command is given again after a while.
    pub fn kill(&mut self, now_ms: u64, chance: &mut Random) {
        let soon = chance.chance(50.0);
        self.start_at_ms = now_ms + chance.below(if soon { 2000 } else { 60_000 }) as u64;
        self.process = None;
    }

    /// Notes what a step came to; whether anything moved.
    pub fn conclude(
        &mut self,
        step: Outcome<Moved>,
        may_start_again: impl Fn(Code, &Disk) -> bool,
        now_ms: u64,
    ) -> bool {
        match step {
            Ok(Moved::No) => return false,
            // Killed: what did it is due, and says when it is started again.
            Ok(Moved::Yes) | Err(Stop::Killed) => {}
            Ok(Moved::Ended(receipt)) => (self.process, self.end) = (None, Some(Ok(*receipt))),
            Err(Stop::Failed(Failed { code, .. }) | Stop::GaveUp(code)) => {
                self.process = None;
                self.restarts += 1;
                self.told_busy += u32::from(code == Code::TransferBusy);
                match self.restarts <= RESTARTS_MAX && self.told_busy <= BUSY_MAX && may_start_again(code, &self.disk) {
                    true => self.start_at_ms = now_ms + 10_000 * u64::from(self.restarts),
                    false => self.end = Some(Err(code)),
                }
            }
        }
        true
    }
}
