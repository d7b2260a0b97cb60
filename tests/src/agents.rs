//! The two agents as real processes, each with a home of its own and everything it says kept.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Child,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

pub use crate::launch::Launch;
use crate::{
    finished::Finished,
    finished::last_words,
    memory::{Watch, children},
};

pub const SENDER: &str = "sealift-sender";
pub const RECEIVER: &str = "sealift-receiver";
pub const OPERATOR: &str = "sealift";

/// The end of a ticket's text: what comes before it is whole.
pub const TICKET_END: &str = "-----END SEALIFT TICKET-----";

/// A debug build with a cold disk has needed two seconds.
const TICKET_WITHIN: Duration = Duration::from_secs(20);

/// A running agent, killed when it is dropped.
pub struct Agent {
    child: Option<Child>,
    home: Option<TempDir>,
    ticket: Option<PathBuf>,
    started: Instant,
    memory: Watch,
    copies: Vec<JoinHandle<()>>,
}

impl Agent {
    pub(crate) fn new(
        child: Child,
        home: TempDir,
        ticket: Option<PathBuf>,
        memory: Watch,
        copies: Vec<JoinHandle<()>>,
    ) -> Self {
        Self { child: Some(child), home: Some(home), ticket, started: Instant::now(), memory, copies }
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    pub fn home(&self) -> &Path {
        self.home.as_ref().unwrap().path()
    }

    pub fn state_dir(&self) -> PathBuf {
        self.home().join("state")
    }

    pub fn peak_memory_bytes(&self) -> u64 {
        self.memory.peak_bytes()
    }

    pub fn stdout(&self) -> Vec<u8> {
        fs::read(self.home().join("stdout")).unwrap()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.home().join("stderr")).unwrap()).into_owned()
    }

    /// What it printed for people, and its last event.
    pub(crate) fn last_words(&self) -> String {
        last_words(&self.stdout(), &self.stderr())
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.as_mut().unwrap().try_wait(), Ok(None))
    }

    /// The ticket's file, once it is whole. Panics with the agent's words if it ends, or never
    /// writes one.
    pub fn ticket(&mut self) -> PathBuf {
        let ticket = self.ticket_if_it_lives();
        ticket.unwrap_or_else(|| panic!("ended before a ticket was seen:\n{}", self.last_words()))
    }

    /// As `ticket`; `None` if the agent ends without.
    pub fn ticket_if_it_lives(&mut self) -> Option<PathBuf> {
        let path = self.ticket.clone().expect("only a receiver writes a ticket");
        let whole = || fs::read_to_string(&path).is_ok_and(|text| text.contains(TICKET_END));
        self.wait_for("a ticket or an end", TICKET_WITHIN, |agent| whole() || !agent.is_running());
        whole().then_some(path)
    }

    /// Waits until `seen` holds of this agent; panics if it ends before, or takes longer.
    pub fn wait_for(&mut self, what: &str, within: Duration, mut seen: impl FnMut(&mut Agent) -> bool) {
        let deadline = Instant::now() + within;
        loop {
            // In this order: what an agent wrote just before its end counts.
            let ended = !self.is_running();
            if seen(self) {
                return;
            }
            assert!(!ended, "ended before {what} was seen:\n{}", self.last_words());
            assert!(Instant::now() < deadline, "no {what} within {within:?}:\n{}", self.last_words());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until it has printed this event so often. Needs `--json`.
    pub fn wait_for_event(&mut self, event: &str, times: usize, within: Duration) {
        let named = format!("\"event\":\"{event}\"");
        let told = |agent: &mut Agent| String::from_utf8_lossy(&agent.stdout()).matches(&named).count() >= times;
        self.wait_for(event, within, told);
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid() as i32), signal).unwrap();
    }

    pub fn kill9(&self) {
        self.signal(Signal::SIGKILL);
    }

    pub fn sigint(&self) {
        self.signal(Signal::SIGINT);
    }

    /// Waits for the end; kills it and panics with its words if that takes longer than `within`.
    pub fn wait(mut self, within: Duration) -> Finished {
        let deadline = Instant::now() + within;
        let status = loop {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                panic!("still running after {within:?}:\n{}", self.last_words());
            }
            thread::sleep(Duration::from_millis(5));
        };
        let took = self.started.elapsed();
        self.child = None;
        for copy in self.copies.drain(..) {
            copy.join().unwrap();
        }
        Finished::new(self.home.take().unwrap(), status, took, self.memory.peak_bytes())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // What an agent has started, or what a tracer has, would outlive it.
        let started = children(child.id());
        let _ = child.kill();
        let _ = child.wait();
        for pid in started {
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
        }
    }
}
