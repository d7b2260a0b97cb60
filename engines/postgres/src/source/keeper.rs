//! What holds the snapshot and the locks: a session of this process, or a process that outlives it.

use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use minicbor::bytes::ByteVec;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use sealift_engine_api::{Filter, KeepSnapshot, SnapshotAge, StopToken};
use sealift_host::{
    OWN_PROGRAM,
    holder::{self, Answer, Ask, Held, Limits},
};
use sealift_protocol::{
    close::Code,
    codec,
    failure::{Failure, Outcome},
};

use super::moment::Moment;
use crate::{
    client::{Address, Connection, Interrupts},
    snapshot_holder::{COMMAND, Request, open_and_take},
};

/// Variables by which the holder finds what the URL does not name: service files, and the home
/// folder for names in them. Nothing else of this process's environment goes to it.
const ENVIRONMENT: [&str; 4] = ["HOME", "PGSERVICEFILE", "PGSYSCONFDIR", "TZ"];

/// From this age on the operator is warned: nothing that was deleted since can be removed from any
/// table of the server.
const AGE_WARNED: Duration = Duration::from_secs(4 * 3600);

/// Half of what `autovacuum_freeze_max_age` is by default, at which the server begins to freeze
/// tables to save transaction ids, and cannot while the snapshot is held.
const TRANSACTIONS_WARNED: u32 = 100_000_000;

/// How often the stop token is asked while the holder says nothing.
const STOP_POLL_MILLISECONDS: u16 = 200;

/// The longest description of a snapshot: that of as many tables as a transfer can have.
const MOMENT_BYTES_MAX: usize = 64 << 20;

/// What keeps a snapshot.
pub struct Keeper {
    pub moment: Moment,
    /// What an earlier sender has planned at it.
    pub planned: Option<Vec<u8>>,
    taken: Instant,
    kept_by: KeptBy,
}

enum KeptBy {
    /// A session, for a run that nothing resumes.
    Session {
        _session: Connection,
    },
    Process(Attached),
}

/// The connection to a holder, for as long as this process reads.
struct Attached {
    stream: UnixStream,
    watched: Arc<Watched>,
}

/// What the thread that listens to the holder knows.
#[derive(Default)]
struct Watched {
    /// This process has closed the connection.
    detached: AtomicBool,
    /// Why the holder has.
    ended: Mutex<Option<Failure>>,
    held: Mutex<Option<Held>>,
}

impl Keeper {
    /// Attaches to the holder of the transfer, or else takes a snapshot as of now.
    pub fn open(
        address: &Address,
        filter: &Filter,
        keep: Option<&KeepSnapshot>,
        interrupts: &Interrupts,
        stop: &dyn StopToken,
    ) -> Outcome<Self> {
        let Some(keep) = keep else {
            let (session, moment) = open_and_take(address, filter, interrupts)?;
            let kept_by = KeptBy::Session { _session: session };
            return Ok(Self { moment, planned: None, taken: Instant::now(), kept_by });
        };
        if keep.fresh {
            holder::release(&keep.folder).map_err(|error| unusable(&error))?;
        } else if let Some(stream) = holder::connect(&keep.folder).map_err(|error| unusable(&error))? {
            holder::send(&stream, &Ask::Attach(limits(keep))).map_err(|error| unusable(&error))?;
            // One that ends at this moment does not answer.
            if let Some(keeper) = Self::attached(stream, interrupts, stop)? {
                return Ok(keeper);
            }
        }
        let stream = start(address, filter, keep)?;
        Self::attached(stream, interrupts, stop)?.ok_or_else(|| {
            let what = "the process that was to hold the snapshot of the source has ended";
            Failure::new(Code::SourceFailed, what, "Start the transfer again.")
        })
    }

    /// Waits for the holder's description of the snapshot. `None` if the holder has ended.
    fn attached(stream: UnixStream, interrupts: &Interrupts, stop: &dyn StopToken) -> Outcome<Option<Self>> {
        stream.set_read_timeout(None).map_err(|error| unusable(&error))?;
        wait_for_answer(&stream, stop)?;
        let answer = holder::receive(&stream).ok().flatten();
        let (moment, planned, held) = match answer {
            None => return Ok(None),
            Some(Answer::Attached { moment, planned, held }) => (moment, planned, held),
            Some(Answer::Failed { code, what, hint }) => return Err(Failure::new(code, what, hint)),
            Some(Answer::Looked(_)) => return Err(unusable(&io::ErrorKind::InvalidData.into())),
        };
        let moment = codec::decode(&moment, MOMENT_BYTES_MAX, "snapshot").map_err(Failure::from)?;
        let now = Instant::now();
        let taken = now.checked_sub(Duration::from_secs(held.age_seconds)).unwrap_or(now);
        let watched = Arc::new(Watched { held: Mutex::new(Some(held)), ..Watched::default() });
        watch(&stream, &watched, interrupts)?;
        let kept_by = KeptBy::Process(Attached { stream, watched });
        let planned = planned.map(Vec::from);
        Ok(Some(Self { moment, planned, taken, kept_by }))
    }

    /// Leaves what was planned with the holder, for a sender that attaches later.
    pub fn keep(&self, planned: Vec<u8>) -> Outcome {
        match &self.kept_by {
            KeptBy::Session { .. } => Ok(()),
            KeptBy::Process(attached) => {
                let kept = holder::send(&attached.stream, &Ask::Keep(ByteVec::from(planned)));
                kept.map_err(|_| self.lost().unwrap_or_else(gone))
            }
        }
    }

    /// Why nothing more can be read at the snapshot, if that is so.
    pub fn lost(&self) -> Option<Failure> {
        match &self.kept_by {
            KeptBy::Session { .. } => None,
            KeptBy::Process(Attached { watched, .. }) => locked(&watched.ended).clone(),
        }
    }

    pub fn age(&self) -> SnapshotAge {
        let age = self.taken.elapsed();
        let transactions = match &self.kept_by {
            KeptBy::Session { .. } => None,
            KeptBy::Process(Attached { watched, .. }) => {
                locked(&watched.held).as_ref().and_then(|held| held.transactions)
            }
        };
        let is_old = age >= AGE_WARNED || transactions.is_some_and(|count| count >= TRANSACTIONS_WARNED);
        SnapshotAge { age, transactions, is_old }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.watched.detached.store(true, Ordering::SeqCst);
        // For the thread that listens, too.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

fn limits(keep: &KeepSnapshot) -> Limits {
    Limits { unattended_seconds: keep.unattended.as_secs(), age_seconds: keep.age_max.as_secs() }
}

/// Starts the holder of a transfer that has none. It takes its request and its first sender from
/// its standard input, and has nothing else of this process: neither its terminal nor its pipes.
fn start(address: &Address, filter: &Filter, keep: &KeepSnapshot) -> Outcome<UnixStream> {
    let failed = |error: io::Error| {
        let what = "the process that holds the snapshot of the source cannot be started";
        let next = "It is this program again, from /proc/self/exe: mount /proc, and see the limit of processes.";
        Failure::io(Code::SourceFailed, what, &error, next)
    };
    let (ours, its) = UnixStream::pair().map_err(failed)?;
    let mut command = Command::new(OWN_PROGRAM);
    command.arg(COMMAND).env_clear().current_dir("/");
    for name in ENVIRONMENT {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    command.stdin(Stdio::from(OwnedFd::from(its))).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(failed)?;
    // So that it is no zombie while this process lives.
    thread::Builder::new().name("snapshot-holder".into()).spawn(move || child.wait()).map_err(failed)?;
    let request = Request {
        url: address.url(),
        include: filter.include.clone(),
        exclude: filter.exclude.clone(),
        folder: keep.folder.to_string_lossy().into_owned(),
        limits: limits(keep),
    };
    holder::send(&ours, &request).map_err(failed)?;
    Ok(ours)
}

/// Waits until the holder says something. It may wait for locks, or for the server.
fn wait_for_answer(stream: &UnixStream, stop: &dyn StopToken) -> Outcome {
    loop {
        stop.check()?;
        let mut ready = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::from(STOP_POLL_MILLISECONDS)) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(unusable(&errno.into())),
        }
    }
}

/// Listens to the holder. When that ends, so does what reads the source.
fn watch(stream: &UnixStream, watched: &Arc<Watched>, interrupts: &Interrupts) -> Outcome {
    let stream = stream.try_clone().map_err(|error| unusable(&error))?;
    let watched = Arc::clone(watched);
    let interrupts = interrupts.clone();
    let listen = move || {
        let why = loop {
            match holder::receive(&stream) {
                Ok(Some(Answer::Looked(held))) => *locked(&watched.held) = Some(held),
                Ok(Some(Answer::Failed { code, what, hint })) => break Failure::new(code, what, hint),
                _ => break gone(),
            }
        };
        if !watched.detached.load(Ordering::SeqCst) {
            *locked(&watched.ended) = Some(why);
            interrupts.interrupt();
        }
    };
    let started = thread::Builder::new().name("snapshot-watch".into()).spawn(listen);
    started.map(drop).map_err(|error| unusable(&error))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unusable(error: &io::Error) -> Failure {
    let next = "See the processes named snapshot-holder; `sealift-sender status` shows what they hold, and `abandon` ends them.";
    Failure::io(Code::SourceFailed, "the process that holds the snapshot of the source cannot be reached", error, next)
}

/// Nothing of the snapshot can be read any more, so that the transfer starts over.
pub fn gone() -> Failure {
    let what = "the snapshot of the source is gone: the session or the process that held it was ended";
    let next = "See the server's log for why. Start both sides again: the source is read as of a new moment.";
    Failure::new(Code::SourceChanged, what, next)
}
