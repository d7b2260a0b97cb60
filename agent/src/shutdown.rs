//! Being asked to stop.
//!
//! A thread of its own counts the signals, so that they are noticed whatever the others are busy
//! with: a second one ends the process even while a clean-up is stuck in a system call.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use sealift_protocol::{
    close::Code,
    hint::{Hint, Restart},
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

use crate::{
    failure::{Failure, Outcome},
    inherited,
    process::eprintln_safe,
    session::Session,
    threads::{RAISE, spawn},
};

/// What asks a transfer to end in an orderly way.
pub struct Shutdown {
    by: By,
}

enum By {
    /// Of a process with one transfer. A second signal ends it at once.
    Signals(ArrivedSignals),
    /// A standing receiver got the signal, and drains.
    Drain(watch::Receiver<bool>),
}

/// Every signal to a standing receiver, which handles the second one itself.
pub struct EverySignal {
    arrived: ArrivedSignals,
    seen: u32,
}

/// The signals so far, and the name of the last one.
#[derive(Clone, Copy, Default)]
struct Count {
    signals: u32,
    last: &'static str,
}

/// Two signals within this are one: a terminal that closes, or a service manager, may send more
/// than one kind.
const TOGETHER: Duration = Duration::from_millis(200);

/// How signals are counted.
#[derive(Clone, Copy)]
struct Counting {
    /// The signal that ends the process, whatever it is doing; counted from 1.
    ends_at: u32,
    /// Signals within this are one.
    together: Duration,
    /// Whether the end of the session that the process was started in is one of them.
    in_session: bool,
}

/// Of a process with one transfer.
const SINGLE: Counting = Counting { ends_at: 2, together: TOGETHER, in_session: true };

/// Of a standing receiver the first signal drains, and the second ends the drain.
const STANDING: Counting = Counting { ends_at: 3, together: Duration::ZERO, in_session: false };

/// The signals that have arrived, as the watching thread counts them.
struct ArrivedSignals {
    count: watch::Receiver<Count>,
    /// How many tasks wait for a signal. While there is none, the thread itself says that one was
    /// noticed.
    waiting: Arc<AtomicUsize>,
}

impl ArrivedSignals {
    /// Starts the thread.
    fn watch(counting: Counting) -> Outcome<Self> {
        let (counted, count) = watch::channel(Count::default());
        let waiting = Arc::<AtomicUsize>::default();
        let (started, start) = mpsc::sync_channel(1);
        let waited_for = Arc::clone(&waiting);
        let watcher = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let signals = runtime.and_then(|runtime| {
                let signals = {
                    let _entered = runtime.enter();
                    Signals::listen(counting)?
                };
                Ok((runtime, signals))
            });
            match signals {
                Ok((runtime, signals)) => {
                    let _ = started.send(Ok(()));
                    runtime.block_on(signals.count(&counted, &waited_for, counting));
                }
                Err(error) => drop(started.send(Err(error))),
            }
        };
        let no_thread = |error| Failure::io(Code::Preflight, "no thread can be started for signals", &error, RAISE);
        spawn("signals", watcher).map_err(no_thread)?;
        let unusable = |error| Failure::io(Code::Preflight, "signals cannot be received", &error, "");
        start.recv().unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into())).map_err(unusable)?;
        Ok(Self { count, waiting })
    }

    /// Waits until there are more than `seen`. Cancel-safe.
    async fn more_than(&self, seen: u32) -> Count {
        struct Waiting<'a>(&'a AtomicUsize);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(&self.waiting);
        match self.count.clone().wait_for(|count| count.signals > seen).await {
            Ok(count) => *count,
            // The thread ends with the process.
            Err(_) => std::future::pending().await,
        }
    }
}

/// What may ask the process to stop. A signal that it was started to ignore stays ignored: `nohup`
/// and background jobs.
struct Signals {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
    hangup: Option<Signal>,
    /// Of a process that a person started and waits for: it ends with the session.
    session: Option<Session>,
}

impl Signals {
    fn listen(counting: Counting) -> std::io::Result<Self> {
        let on = |kind: SignalKind| match inherited::is_ignored(kind.as_raw_value()) {
            true => Ok(None),
            false => signal(kind).map(Some),
        };
        let hangup = on(SignalKind::hangup())?;
        let in_session = counting.in_session && hangup.is_some();
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            session: in_session.then(Session::of_this_process).flatten(),
            hangup,
        })
    }

    /// The name of the next request to stop. Cancel-safe.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            () = received(&mut self.interrupt) => "Ctrl-C",
            () = received(&mut self.terminate) => "a request to end (SIGTERM)",
            () = received(&mut self.hangup) => "the end of its session (SIGHUP)",
            () = ended(self.session.as_ref()) => {
                // It ends once.
                self.session = None;
                "the end of its session (nobody reads its messages any more)"
            }
        }
    }

    /// Counts them for as long as the process lives.
    async fn count(mut self, counted: &watch::Sender<Count>, waiting: &AtomicUsize, counting: Counting) {
        let mut previous: Option<Instant> = None;
        loop {
            let last = self.next().await;
            if previous.is_some_and(|previous| previous.elapsed() < counting.together) {
                continue;
            }
            previous = Some(Instant::now());
            if counted.borrow().signals + 1 == counting.ends_at {
                eprintln_safe(
                    "sealift: asked again, it stops at once. `status` shows what is left of the transfer, and the \
                     same commands continue from there.",
                );
                std::process::exit(Code::UserInterrupt.exit_code().into());
            }
            if waiting.load(Ordering::SeqCst) == 0 {
                eprintln_safe(&format!(
                    "sealift: stopped by {last}: what is being finished or cleaned up comes first. Another signal ends it \
                     at once, and leaves the rest to the next start."
                ));
            }
            counted.send_modify(|count| *count = Count { signals: count.signals + 1, last });
        }
    }
}

/// The next signal of this kind, if it is received at all. Cancel-safe.
async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// The end of the session, if it is watched. Cancel-safe.
async fn ended(session: Option<&Session>) {
    match session {
        Some(session) => session.ended().await,
        None => std::future::pending().await,
    }
}

impl Shutdown {
    pub fn listen() -> Outcome<Self> {
        Ok(Self { by: By::Signals(ArrivedSignals::watch(SINGLE)?) })
    }

    /// One of several transfers of a process, which stops them all when it is to end. The peers do
    /// not get the code of a stop by a person: they keep trying until this process is there again.
    pub fn with_all(drains: watch::Receiver<bool>) -> Self {
        Self { by: By::Drain(drains) }
    }

    /// Why the transfer is to end, if it is.
    pub(crate) fn requested(&self) -> Option<Failure> {
        match &self.by {
            By::Signals(arrived) => {
                let count = *arrived.count.borrow();
                (count.signals > 0).then(|| stopped_by(count.last))
            }
            // Without the one that would tell, the process ends, too.
            By::Drain(drains) => (*drains.borrow() || drains.has_changed().is_err()).then(drained),
        }
    }

    /// Resolves when there is a request, and at once from then on. Cancel-safe.
    pub(crate) async fn arrives(&self) {
        match &self.by {
            By::Signals(arrived) => drop(arrived.more_than(0).await),
            By::Drain(drains) => drop(drains.clone().wait_for(|drains| *drains).await),
        }
    }
}

impl EverySignal {
    pub fn listen() -> Outcome<Self> {
        Ok(Self { arrived: ArrivedSignals::watch(STANDING)?, seen: 0 })
    }

    /// Resolves once for each signal. Cancel-safe.
    pub async fn next(&mut self) {
        self.seen = self.arrived.more_than(self.seen).await.signals;
    }
}

fn stopped_by(signal: &str) -> Failure {
    let hints = [Hint::StartAgain(Restart::Resumes), Hint::OrAbandon];
    Failure::new(Code::UserInterrupt, format!("stopped by {signal}"), hints)
}

fn drained() -> Failure {
    let hint = "The transfer continues when this receiver is started again.";
    Failure::new(Code::Interrupted, "this receiver is being stopped", hint)
}
