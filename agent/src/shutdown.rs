//! Being asked to stop.

use sealift_protocol::close::Code;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{Failure, Outcome};

/// The signals that end a transfer in an orderly way.
pub struct Shutdown {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Shutdown {
    pub fn listen() -> Outcome<Self> {
        let on =
            |kind| signal(kind).map_err(|error| Failure::io(Code::Preflight, "signals cannot be received", &error, ""));
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    /// Resolves when the first of them arrives. Cancel-safe.
    pub async fn requested(&mut self) -> Failure {
        let by = tokio::select! {
            _ = self.interrupt.recv() => "Ctrl-C",
            _ = self.terminate.recv() => "a request to end (SIGTERM)",
            _ = self.hangup.recv() => "the end of its session (SIGHUP)",
        };
        Failure::new(
            Code::UserInterrupt,
            format!("stopped by {by}"),
            "Nothing is visible in the target yet. Start both sides again with the same commands and the same ticket: the \
             transfer goes on where it stopped.",
        )
    }

    /// Runs `work` until it ends or somebody asks to stop.
    pub async fn or<T>(&mut self, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        tokio::select! {
            outcome = work => outcome,
            stopped = self.requested() => Err(stopped),
        }
    }
}
