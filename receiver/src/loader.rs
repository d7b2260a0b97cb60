//! The receiver's side of a guarded loader: feeds it, ends its input when everything is verified, judges its exit. Where its
//! exit does not say whether it committed, the failure is [`Code::InDoubt`].

use std::{
    fs::File,
    io::{self, IoSlice, Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{Child, Command, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::{
        signal::{Signal, kill, killpg},
        socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::{Pid, pipe2},
};
use sealift_agent::{
    failure::{Failure, Outcome},
    inherited::shut_off,
    program::{Printed, Said, cannot_start, find, judge_exit},
};
use sealift_protocol::close::Code;

use crate::{
    cli::GUARD_COMMAND,
    guard::{self, OWN_PROGRAM, READY, SIGNAL_BASE, UNREAD},
};

/// For a guard whose loader was killed.
const GUARD_ENDS: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A loader that runs and waits for its input.
pub struct Loader {
    program: String,
    group: Pid,
    killed: AtomicBool,
    /// The guard has ended and may have been waited for: its group's id may be another's.
    over: Mutex<bool>,
    /// That went into its pipe.
    fed_bytes: AtomicU64,
    inside: Mutex<Inside>,
}

struct Inside {
    guard: Child,
    input: Option<File>,
    /// The reading end, once the input has ended: what is left in it was not read.
    rest: Option<File>,
    output: Option<Printed>,
}

impl Inside {
    /// Nothing is written any more. Until then there must be no other reading end: a loader that is gone would not break
    /// the pipe.
    fn end_input(&mut self) {
        if let Some(input) = self.input.take() {
            self.rest = File::open(format!("/proc/self/fd/{}", input.as_raw_fd())).ok();
        }
    }

    /// Bytes in the pipe. None where that cannot be known.
    fn unread_bytes(&self) -> Option<u64> {
        let end = self.input.as_ref().or(self.rest.as_ref())?;
        rustix::io::ioctl_fionread(end).ok()
    }
}

impl Loader {
    pub fn start(words: &[String], show_output: bool) -> Outcome<Self> {
        let program = words[0].clone();
        find(&program, Code::TargetFailed)?;
        let no_pipe = |error: nix::errno::Errno| cannot_start(&program, &error.into(), Code::TargetFailed);
        let (reading, writing) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(no_pipe)?;
        let under_way = put_under_way(&writing).map_err(no_pipe)?;
        let failed = |error: io::Error| cannot_start(&program, &error, Code::TargetFailed);
        let mut command = Command::new(OWN_PROGRAM);
        command.arg0(guard::NAME).arg(GUARD_COMMAND).args(words);
        command.stdin(Stdio::from(reading)).stdout(Stdio::from(under_way)).stderr(Stdio::piped());
        let mut guard = shut_off(&mut command).spawn().map_err(failed)?;
        let mut output = guard.stderr.take();
        let mut ready = READY;
        let heard = output.as_mut().map(|output| output.read_exact(&mut ready));
        if !matches!(heard, Some(Ok(()))) {
            let _ = guard.kill();
            let _ = guard.wait();
            let next = "Start both sides again with the same commands and the same ticket.";
            return Err(Failure::new(
                Code::LoaderFailed,
                "the loader's guard ended before the loader was started",
                next,
            ));
        }
        let output = output.map(|output| Printed::start(output, show_output)).transpose().map_err(failed)?;
        Ok(Self {
            program,
            group: Pid::from_raw(guard.id() as i32),
            killed: AtomicBool::new(false),
            over: Mutex::new(false),
            fed_bytes: AtomicU64::new(0),
            inside: Mutex::new(Inside { guard, input: Some(File::from(writing)), rest: None, output }),
        })
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A handle on the loader's input. Whoever holds one keeps the input open.
    pub fn input(&self) -> Outcome<File> {
        let closed = || Failure::new(Code::Interrupted, "the loader's input is closed", "");
        let inside = self.inside();
        inside.input.as_ref().and_then(|input| input.try_clone().ok()).ok_or_else(closed)
    }

    /// Writes to the loader; blocks while it is busy.
    pub fn feed(&self, input: &mut File, bytes: &[u8]) -> Outcome {
        if self.has_failed() {
            return self.give_up();
        }
        self.write(input, bytes).map_err(|error| self.broken(&error))
    }

    fn write(&self, input: &mut File, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match input.write(bytes) {
                Ok(written) => {
                    self.fed_bytes.fetch_add(written as u64, Ordering::Relaxed);
                    bytes = &bytes[written..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The loader stopped reading: its exit code says more than the broken pipe.
    fn broken(&self, error: &io::Error) -> Failure {
        if self.killed.load(Ordering::SeqCst) {
            return Failure::new(Code::Interrupted, "the load was stopped", "");
        }
        if error.kind() != io::ErrorKind::BrokenPipe {
            return Failure::io(Code::LoaderFailed, format!("the loader {} cannot be fed", self.program), error, "");
        }
        match self.wait() {
            Err(failure) => failure,
            Ok(()) => self.ended_early(),
        }
    }

    fn ended_early(&self) -> Failure {
        let what = format!("the loader {} ended before it had read all of its input", self.program);
        // Fed again, it could load twice what it had read. Its exit code was 0.
        Failure::new(Code::InDoubt, what, "")
    }

    /// Everything is verified: ends the loader's input and waits for exit code 0.
    pub fn finish(&self) -> Outcome {
        if self.has_failed() {
            return self.give_up();
        }
        self.inside().end_input();
        let _ = kill(self.group, Signal::SIGUSR1);
        self.wait()
    }

    /// Whether guard or loader ended badly by now. The guard is left to be waited for: until then nobody else has its id.
    fn has_failed(&self) -> bool {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(self.group), flags) {
            Ok(WaitStatus::Exited(_, code)) => code != 0,
            Ok(WaitStatus::Signaled(..)) => true,
            _ => false,
        }
    }

    /// Where the guard alone is gone, the loader still waits for the end of its input, and would commit by it.
    fn give_up(&self) -> Outcome {
        self.kill_group();
        self.wait()
    }

    fn kill_group(&self) {
        if !*self.over.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = killpg(self.group, Signal::SIGKILL);
        }
    }

    fn wait(&self) -> Outcome {
        let mut inside = self.inside();
        // Its id is its own until it is waited for.
        while let Err(nix::errno::Errno::EINTR) =
            waitid(Id::Pid(self.group), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
        {}
        *self.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        let status = inside.guard.wait().map_err(|error| {
            Failure::io(Code::InDoubt, format!("the loader {} cannot be waited for", self.program), &error, "")
        })?;
        let has_read = inside.unread_bytes() != Some(self.fed_bytes.load(Ordering::Relaxed));
        let said = inside.output.as_ref().map_or(Said::Bytes(0), |output| output.finish(has_read));
        let had_everything = inside.input.is_none() && has_read;
        drop(inside);
        if self.killed.load(Ordering::SeqCst) {
            return Err(Failure::new(Code::Interrupted, "the load was stopped", ""));
        }
        if status.signal() == Some(UNREAD as i32) {
            return Err(self.ended_early());
        }
        let judged = judge_exit("loader", &self.program, status, &said, Code::LoaderFailed);
        // A shell and the guard say by a number above 128 that a signal ended what they ran.
        let by_signal = status.code().is_none_or(|code| code > SIGNAL_BASE);
        let unknown = had_everything && by_signal;
        judged.map_err(|failure| if unknown { Failure { code: Code::InDoubt, ..failure } } else { failure })
    }

    /// Kills the loader and whatever it started, before its input can end. Safe at any time, from any thread.
    pub fn kill(&self) {
        self.killed.store(true, Ordering::SeqCst);
        self.kill_group();
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // A group whose leader was waited for may be another's by now: only one that still runs is killed.
        let mut inside = self.inside();
        if !matches!(inside.guard.try_wait(), Ok(Some(_))) {
            self.kill();
            // A loader that cannot be killed keeps its guard, which outlives this process.
            let started = Instant::now();
            while started.elapsed() < GUARD_ENDS && matches!(inside.guard.try_wait(), Ok(None)) {
                thread::sleep(LOOK_EVERY);
            }
        }
    }
}

/// A socket in which a copy of a pipe's writing end is under way: see [`guard`].
fn put_under_way(writing: &OwnedFd) -> nix::Result<OwnedFd> {
    let (into, out_of) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
    let (message, copies) = ([IoSlice::new(&[0])], [writing.as_raw_fd()]);
    let copy = [ControlMessage::ScmRights(&copies)];
    sendmsg::<()>(into.as_raw_fd(), &message, &copy, MsgFlags::empty(), None)?;
    Ok(out_of)
}
