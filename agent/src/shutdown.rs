//! Being asked to stop.

use std::{sync::Arc, time::Duration};

use sealift_protocol::close::Code;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

use crate::{
    failure::{Failure, GO_ON, Outcome},
    inherited,
    process::eprintln_safe,
    program::Program,
    session::Session,
};

/// What ends a transfer in an orderly way.
pub struct Shutdown {
    by: By,
    program: Option<Arc<Program>>,
}

enum By {
    /// Of a process with one transfer. A second signal ends it at once.
    Signals(Signals),
    /// Of a standing receiver, which sees to the second signal itself.
    EverySignal(Signals),
    /// A standing receiver got the signal, and drains.
    Drain(watch::Receiver<bool>),
}

/// What may ask the process to stop. A signal that it was started to ignore stays ignored: `nohup` and background jobs.
struct Signals {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
    hangup: Option<Signal>,
    session: Option<Session>,
}

impl Signals {
    fn listen() -> Outcome<Self> {
        let on = |kind: SignalKind| match inherited::is_ignored(kind.as_raw_value()) {
            true => Ok(None),
            false => signal(kind)
                .map(Some)
                .map_err(|error| Failure::io(Code::Preflight, "signals cannot be received", &error, "")),
        };
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hangup: on(SignalKind::hangup())?,
            session: None,
        })
    }

    /// As `listen`, for a process that somebody started and waits for: it ends with their session.
    fn listen_in_session() -> Outcome<Self> {
        let signals = Self::listen()?;
        let session = signals.hangup.is_some().then(Session::of_this_process).flatten();
        Ok(Self { session, ..signals })
    }

    /// The name of the next one. Cancel-safe.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            () = heard(&mut self.interrupt) => "Ctrl-C",
            () = heard(&mut self.terminate) => "a request to end (SIGTERM)",
            () = heard(&mut self.hangup) => "the end of its session (SIGHUP)",
            () = ended(self.session.as_ref()) => "the end of its session (nobody reads its messages any more)",
        }
    }
}

async fn heard(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

async fn ended(session: Option<&Session>) {
    match session {
        Some(session) => session.ended().await,
        None => std::future::pending().await,
    }
}

/// Two signals within this are one: a terminal that closes, or a service manager, may send more than one kind.
const TOGETHER: Duration = Duration::from_millis(200);

/// Whoever asks again does not want to wait for farewells. What is on the disk then is what a kill leaves, and the next
/// start goes on from it.
fn end_at_the_next() {
    tokio::spawn(async {
        tokio::time::sleep(TOGETHER).await;
        // Without, the process ends in its order.
        let Ok(mut again) = Signals::listen() else { return };
        again.next().await;
        eprintln_safe(
            "sealift: asked a second time, it stops at once. Start both sides again with the same commands to go on.",
        );
        std::process::exit(Code::UserInterrupt.exit_code().into());
    });
}

impl Shutdown {
    pub fn listen() -> Outcome<Self> {
        Ok(Self { by: By::Signals(Signals::listen_in_session()?), program: None })
    }

    /// Resolves anew for each signal.
    pub fn listen_to_all() -> Outcome<Self> {
        Ok(Self { by: By::EverySignal(Signals::listen()?), program: None })
    }

    /// One of several transfers of a process, which tells them all when it is to end. The peers are then not told that
    /// a person stopped the transfer: they keep trying until this process is there again.
    pub fn with_all(drains: watch::Receiver<bool>) -> Self {
        Self { by: By::Drain(drains), program: None }
    }

    /// Kills this source program when it is asked for, and not after the farewells: a second signal does not wait for them.
    pub fn kills(&mut self, program: Arc<Program>) {
        self.program = Some(program);
    }

    /// Resolves when the first of them arrives. Cancel-safe.
    pub async fn requested(&mut self) -> Failure {
        let by = match &mut self.by {
            By::Signals(signals) => {
                let by = signals.next().await;
                end_at_the_next();
                by
            }
            By::EverySignal(signals) => signals.next().await,
            By::Drain(drains) => {
                // Whoever would tell has gone: the process ends, too.
                let _ = drains.wait_for(|drains| *drains).await;
                let next =
                    "Nothing is visible in the target yet. The transfer goes on when this receiver is started again.";
                return Failure::new(Code::Interrupted, "this receiver is being stopped", next);
            }
        };
        if let Some(program) = &self.program {
            program.kill();
        }
        Failure::new(
            Code::UserInterrupt,
            format!("stopped by {by}"),
            format!("{GO_ON} To drop it instead, use `abandon`."),
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
