//! The loader guard: a process between the receiver and the loader that a user named with `exec:`.
//!
//! A loader such as `psql --single-transaction` commits when its input ends. If the receiver were
//! killed, its end of the pipe would close, the loader would see the end of a half-sent dump, and
//! commit it. So a copy of that end is kept *under way*: sent through a pair of Unix sockets and
//! not taken out (unix(7), SCM_RIGHTS). As long as any process has the socket, the pipe stays open;
//! and the loader itself has it. Its input therefore does not end when a process dies, not even
//! when receiver and guard die at the same instant. It ends when the guard, on the receiver's word
//! that everything was verified, takes the copy out and drops it.
//!
//! A loader that would wait in vain is killed: with its whole process group by the guard, if the
//! receiver goes away; by the kernel (PR_SET_PDEATHSIG), if the guard does. One that cannot be
//! killed, since `sudo` made it another user's and took the socket from it, waits as long as its
//! guard does: the guard stays until its loader is gone. It never reads what passes, and looks at
//! the end whether any of it was left.
//!
//! | descriptor of the guard | what it is |
//! |---|---|
//! | standard input | the pipe's reading end, which the loader inherits |
//! | standard output | the socket in which the pipe's writing end is under way; the loader's too |
//! | standard error | a pipe to the receiver, for what the loader prints; it breaks if that dies |
//!
//! `SIGUSR1` from the receiver is the permission to let go; the guard heeds no other signal. The
//! loader's process group has the guard's id, and the guard is not in it: by it the receiver kills
//! what it started, even if the guard is gone.

use std::{
    ffi::CStr,
    io::Write,
    os::{
        fd::AsFd,
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::{SigSet, SigmaskHow, Signal, killpg, raise},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::{Pid, dup, getpgid, getpgrp, getppid, read, setpgid},
};
use sealift_engine_api::Helper;
use sealift_host::OWN_PROGRAM;
use sealift_protocol::{
    close::Code,
    failure::{Failure, Outcome},
};

/// The receiver starts itself so as the guard of a loader, which starts itself so as the loader.
pub const GUARD_COMMAND: &str = "loader-guard";
const GUARDED_COMMAND: &str = "guarded-loader";

/// The guard passes on what it has open on purpose, so that it is hardened and the loader is not.
pub const HELPERS: &[Helper] = &[
    Helper { command: GUARD_COMMAND, is_hardened: true, run },
    Helper { command: GUARDED_COMMAND, is_hardened: false, run: become_loader },
];

/// What lists of processes show, and `killall sealift-receiver` does not mean: the guard has work
/// left then.
pub const NAME: &str = "loader-guard";
const SHORT_NAME: &CStr = c"loader-guard";

/// Exit codes of a shell for a program that cannot be run, and the base for one that a signal
/// ended.
const CANNOT_RUN: u8 = 127;
pub const SIGNAL_BASE: i32 = 128;

/// What ends a guard whose loader ended with 0 and left some of its input in the pipe: no loader's
/// exit code says that.
pub const UNREAD: Signal = Signal::SIGUSR2;

/// The one byte that the guard itself writes to its standard error, before the loader exists.
pub const READY: [u8; 1] = [0];

/// Whether a loader can be started at all.
pub fn check() -> Outcome {
    if Path::new(OWN_PROGRAM).exists() {
        return Ok(());
    }
    let next = "Mount it, in the container or chroot too; or use another target.";
    Err(Failure::new(Code::Preflight, "/proc is not mounted, and without it an exec: target cannot be guarded", next))
}

/// Runs the loader under guard; its exit code becomes the guard's.
fn run(words: &[String]) -> ExitCode {
    ExitCode::from(guard(words).unwrap_or(CANNOT_RUN))
}

fn guard(words: &[String]) -> Outcome<u8> {
    let failed = |_| Failure::new(Code::Internal, "loader guard", "");
    prctl::set_name(SHORT_NAME).map_err(failed)?;
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGUSR1);
    signals.add(Signal::SIGCHLD);
    SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK).map_err(failed)?;
    let signal_fd = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(failed)?;
    // From here on signals are handled.
    std::io::stderr().write_all(&READY).map_err(|_| Failure::new(Code::Internal, "loader guard", ""))?;
    let group = getpgrp();
    let mut loader = start(words)?;
    // Into the group of the receiver, which is of the same session. Where that is gone, the guard
    // dies with its loader.
    let _ = getpgid(Some(getppid())).and_then(|receivers| setpgid(Pid::from_raw(0), receivers));
    let stderr = std::io::stderr();
    let mut receiver_died = false;
    loop {
        let mut watched = [
            PollFd::new(signal_fd.as_fd(), PollFlags::POLLIN),
            // Only errors are reported for a writing end: POLLERR once nobody reads it any more.
            PollFd::new(stderr.as_fd(), PollFlags::empty()),
        ];
        let watched = if receiver_died { &mut watched[..1] } else { &mut watched[..] };
        match poll(watched, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(failed(error)),
        }
        let dies = watched.get(1).and_then(PollFd::revents).is_some_and(|events| events.contains(PollFlags::POLLERR));
        while let Ok(Some(signal)) = signal_fd.read_signal() {
            if signal.ssi_signo == Signal::SIGUSR1 as u32 {
                let_go()?;
            }
        }
        if let Ok(Some(status)) = loader.try_wait() {
            if status.success() && has_unread() {
                die_of(UNREAD)?;
            }
            let code = status.code().unwrap_or_else(|| SIGNAL_BASE + status.signal().unwrap_or(0));
            return Ok(code as u8);
        }
        if dies {
            receiver_died = true;
            // The loader, and whatever it started.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

/// Whether something is in the pipe that nobody reads any more.
fn has_unread() -> bool {
    let stdin = std::io::stdin();
    let mut watched = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    poll(&mut watched, PollTimeout::ZERO).is_ok()
        && watched[0].revents().is_some_and(|events| events.contains(PollFlags::POLLIN))
}

fn die_of(signal: Signal) -> Outcome {
    let mut own = SigSet::empty();
    own.add(signal);
    let died = own.thread_unblock().and_then(|()| raise(signal));
    died.map_err(|_| Failure::new(Code::Internal, "loader guard", ""))
}

fn start(words: &[String]) -> Outcome<Child> {
    let failed = |_| Failure::new(Code::LoaderFailed, "loader", "");
    let errors = || std::io::stderr().as_fd().try_clone_to_owned().map(Stdio::from).map_err(failed);
    // Without FD_CLOEXEC, unlike everything else: the loader and all that it starts have it too.
    let _under_way = dup(std::io::stdout()).map_err(|error| failed(error.into()))?;
    let mut command = Command::new(OWN_PROGRAM);
    command.arg0(NAME).arg(GUARDED_COMMAND).arg(std::process::id().to_string()).args(words);
    command.stdin(Stdio::inherit()).stdout(errors()?).stderr(errors()?);
    command.spawn().map_err(failed)
}

/// Becomes the loader, which is killed when its guard ends. Returns only if that cannot be done.
fn become_loader(words: &[String]) -> ExitCode {
    let [guard, program, arguments @ ..] = words else { return CANNOT_RUN.into() };
    let Ok(guard) = guard.parse() else { return CANNOT_RUN.into() };
    let bound = prctl::set_pdeathsig(Signal::SIGKILL).is_ok();
    // The guard blocks all signals; a shell that waits for its children would wait for ever.
    let unblocked = SigSet::empty().thread_set_mask().is_ok();
    // It may have ended before its end was bound to the loader's.
    if bound && unblocked && getppid() == Pid::from_raw(guard) {
        let _ = Command::new(program).args(arguments).exec();
    }
    CANNOT_RUN.into()
}

/// Takes the pipe's writing end from under way, and drops it: read without a place for descriptors,
/// it is closed.
fn let_go() -> Outcome {
    let taken = read(std::io::stdout(), &mut [0]);
    taken.map(drop).map_err(|_| Failure::new(Code::Internal, "loader guard", ""))
}
