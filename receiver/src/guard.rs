//! The loader guard: a process between the receiver and the loader that a user named with `exec:`.
//!
//! A loader such as `psql --single-transaction` commits when its input ends. If the receiver were killed, its end of the
//! pipe would close, the loader would see the end of a half-sent dump, and commit it. So the guard holds the pipe open
//! too, and lets go only when it is told that everything was verified; if the receiver goes away before that, it kills
//! the loader. It never reads what passes.
//!
//! | descriptor of the guard | what it is |
//! |---|---|
//! | standard input | the pipe's reading end, which the loader inherits |
//! | standard output | the pipe's writing end, held and never written to |
//! | standard error | a pipe to the receiver, for what the loader prints; its other end closing says that the receiver died |
//!
//! `SIGUSR1` from the receiver is the permission to let go. Loader and guard share a process group, by which the receiver
//! can kill both even if the guard is gone.

use std::{
    ffi::CStr,
    io::Write,
    os::{
        fd::AsFd,
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{Child, Command, ExitCode, Stdio},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::{SigSet, SigmaskHow, Signal, killpg},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::{dup2_stdout, getpgrp},
};
use sealift_agent::failure::{Failure, Outcome};
use sealift_protocol::close::Code;

/// As the kernel names the receiver itself, which it cuts after 15 bytes; without it, it would be `exe`.
const SHORT_NAME: &CStr = c"sealift-receive";

/// Exit codes of a shell for a program that cannot be run, and the base for one that a signal ended.
const CANNOT_RUN: u8 = 127;
pub const SIGNAL_BASE: i32 = 128;

/// The one byte that the guard itself writes to its standard error, before the loader exists.
pub const READY: [u8; 1] = [0];

/// Runs the loader under guard; its exit code becomes the guard's.
pub fn run(words: &[String]) -> ExitCode {
    ExitCode::from(guard(words).unwrap_or(CANNOT_RUN))
}

fn guard(words: &[String]) -> Outcome<u8> {
    let failed = |_| Failure::new(Code::Internal, "loader guard", "");
    prctl::set_name(SHORT_NAME).map_err(failed)?;
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGUSR1);
    signals.add(Signal::SIGCHLD);
    signals.thread_swap_mask(SigmaskHow::SIG_BLOCK).map_err(failed)?;
    let signal_fd = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(failed)?;
    // Says that from here on a signal is heard.
    std::io::stderr().write_all(&READY).map_err(|_| Failure::new(Code::Internal, "loader guard", ""))?;
    let mut loader = start(words)?;
    let stderr = std::io::stderr();
    loop {
        let mut watched = [
            PollFd::new(signal_fd.as_fd(), PollFlags::POLLIN),
            // Only errors are reported for a writing end: POLLERR once nobody reads it any more.
            PollFd::new(stderr.as_fd(), PollFlags::empty()),
        ];
        match poll(&mut watched, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(failed(error)),
        }
        let receiver_died = watched[1].revents().is_some_and(|events| events.contains(PollFlags::POLLERR));
        while let Ok(Some(signal)) = signal_fd.read_signal() {
            if signal.ssi_signo == Signal::SIGUSR1 as u32 {
                let_go()?;
            }
        }
        if let Ok(Some(status)) = loader.try_wait() {
            let code = status.code().unwrap_or_else(|| SIGNAL_BASE + status.signal().unwrap_or(0));
            return Ok(code as u8);
        }
        if receiver_died {
            // Kills the loader, whatever it started, and the guard itself.
            let _ = killpg(getpgrp(), Signal::SIGKILL);
        }
    }
}

fn start(words: &[String]) -> Outcome<Child> {
    let failed = |_| Failure::new(Code::LoaderFailed, "loader", "");
    let errors = || std::io::stderr().as_fd().try_clone_to_owned().map(Stdio::from).map_err(failed);
    let (program, arguments) =
        words.split_first().ok_or(()).map_err(|()| Failure::new(Code::Internal, "loader", ""))?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::inherit()).stdout(errors()?).stderr(errors()?);
    // The guard's own signal mask is not the loader's affair; arg0 stays the program's name.
    command.arg0(program);
    command.spawn().map_err(failed)
}

/// Closes the writing end: standard output becomes /dev/null.
fn let_go() -> Outcome {
    let failed = |_| Failure::new(Code::Internal, "loader guard", "");
    let null = std::fs::File::create("/dev/null").map_err(failed)?;
    dup2_stdout(null).map_err(|_| Failure::new(Code::Internal, "loader guard", ""))
}
