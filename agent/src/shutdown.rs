//! Being asked to stop.

use sealift_protocol::close::Code;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

use crate::failure::{Failure, Outcome};

/// What ends a transfer in an orderly way.
pub struct Shutdown(By);

enum By {
    Signals {
        interrupt: Signal,
        terminate: Signal,
        hangup: Signal,
    },
    /// A standing receiver got the signal, and drains.
    Drain(watch::Receiver<bool>),
}

impl Shutdown {
    pub fn listen() -> Outcome<Self> {
        let on =
            |kind| signal(kind).map_err(|error| Failure::io(Code::Preflight, "signals cannot be received", &error, ""));
        Ok(Self(By::Signals {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hangup: on(SignalKind::hangup())?,
        }))
    }

    /// One of several transfers of a process, which tells them all when it is to end. The peers are then not told that
    /// a person stopped the transfer: they keep trying until this process is there again.
    pub fn with_all(drains: watch::Receiver<bool>) -> Self {
        Self(By::Drain(drains))
    }

    /// Resolves when the first of them arrives. Cancel-safe.
    pub async fn requested(&mut self) -> Failure {
        let by = match &mut self.0 {
            By::Signals { interrupt, terminate, hangup } => tokio::select! {
                _ = interrupt.recv() => "Ctrl-C",
                _ = terminate.recv() => "a request to end (SIGTERM)",
                _ = hangup.recv() => "the end of its session (SIGHUP)",
            },
            By::Drain(drains) => {
                // Whoever would tell has gone: the process ends, too.
                let _ = drains.wait_for(|drains| *drains).await;
                let next =
                    "Nothing is visible in the target yet. The transfer goes on when this receiver is started again.";
                return Failure::new(Code::Interrupted, "this receiver is being stopped", next);
            }
        };
        Failure::new(
            Code::UserInterrupt,
            format!("stopped by {by}"),
            "Nothing is visible in the target yet. Start both sides again with the same commands and the same ticket: \
             the transfer goes on where it stopped. To drop it instead, use `abandon`.",
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
