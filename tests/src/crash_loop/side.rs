//! One agent of a round.

use std::{thread, time::Duration};

use crate::{agents::Agent, exit, finished::Finished};

/// For an agent that was killed or asked to stop.
pub const ENDS_WITHIN: Duration = Duration::from_secs(30);

/// Before an agent that gave up is started again.
pub const START_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// One agent: the process that runs now, and how its last one ended if that was the end.
#[derive(Default)]
pub struct Side {
    pub agent: Option<Agent>,
    pub done: Option<Finished>,
    /// It reported that the transfer cannot be resumed.
    pub in_doubt: bool,
    /// It reported that a crash has emptied the unlogged tables of what it has proven.
    pub emptied: bool,
    /// It reported that something is there already.
    pub target_taken: bool,
    /// It reported that when it ended just now.
    pub loader_failed: bool,
    /// How each of its processes ended, to examine a round that failed.
    pub ends: Vec<String>,
}

impl Side {
    pub fn is_missing(&self) -> bool {
        self.agent.is_none() && self.done.is_none()
    }

    /// An agent that ends by itself is done, or may be started again.
    /// `false` if it ended as none should.
    pub fn take_end(&mut self) -> bool {
        let Some(agent) = &mut self.agent else { return true };
        if agent.is_running() {
            return true;
        }
        let ended = self.agent.take().expect("looked at above").wait(ENDS_WITHIN);
        self.note(&ended);
        self.loader_failed =
            ended.code() == Some(exit::UNUSABLE) && ended.finished_event()["outcome"] == "loader_failed";
        match ended.code() {
            Some(exit::DONE) => self.done = Some(ended),
            Some(exit::UNUSABLE) if ended.finished_event()["outcome"] == "target_not_empty" => self.target_taken = true,
            Some(exit::UNUSABLE) if ended.message().contains("has emptied its unlogged tables") => self.emptied = true,
            Some(exit::INTERRUPTED) if ended.resume().as_deref() == Some("in_doubt") => self.in_doubt = true,
            // Unreachable or busy before anything was agreed, interrupted, or a loader that was
            // killed.
            Some(exit::PEER | exit::INTERRUPTED | exit::REFUSED | exit::UNUSABLE) => thread::sleep(START_AGAIN_AFTER),
            _ => {
                self.done = Some(ended);
                return false;
            }
        }
        true
    }

    pub fn note(&mut self, ended: &Finished) {
        self.ends.push(format!("{:?} after {:?}: {}\n", ended.status, ended.took, ended.last_words()));
    }

    pub fn kill(&mut self) -> bool {
        let Some(agent) = self.agent.take() else { return false };
        agent.kill9();
        let ended = agent.wait(ENDS_WITHIN);
        self.note(&ended);
        // It may have been quicker.
        if ended.code() == Some(exit::DONE) {
            self.done = Some(ended);
        }
        true
    }
}
