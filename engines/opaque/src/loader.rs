//! The receiver's side of a guarded loader: feeds it, ends its input when everything is verified,
//! and observes its exit. Where that does not say whether it committed ([`loader_ended`]), the
//! failure is [`Code::InDoubt`].
//!
//! Some loaders commit when their input ends (`psql --single-transaction`), others as soon as they
//! have read what ends a dump: the last data of an archive (`pg_restore`), or a COMMIT in its last
//! lines (`sqlite3`). So the last bytes of a load are held back until the receiver has recorded
//! that the loader may commit from then on.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, IoSlice, Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use nix::{
    sys::{
        signal::{Signal, kill, killpg},
        socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::{Pid, pipe2},
};
use sealift_host::OWN_PROGRAM;
use sealift_protocol::{
    close::Code,
    disposition::Event,
    failure::{Failure, Outcome},
    loader_exit::{LoaderExit, Taken, loader_ended},
};

use crate::{
    detached::shut_off,
    guard::{self, GUARD_COMMAND, READY, UNREAD},
    program::{Printed, Said, cannot_start, check_exit, find},
};

/// For a guard whose loader was killed.
const GUARD_ENDS: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What is held back of a load: as much as a pipe holds (pipe(7)), in which the end of a dump lies,
/// with what follows its COMMIT.
const TAIL_BYTES: usize = 64 << 10;

/// The exit code by which `psql` says that a statement has failed while ON_ERROR_STOP was set
/// (psql(1), Exit Status). In a single transaction that is rolled back then. A lost connection is
/// another code, also during COMMIT.
const PSQL_SCRIPT_ERROR: i32 = 3;

/// A loader that runs and waits for its input.
pub struct Loader {
    words: Vec<String>,
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
    /// The end of the load, once all of it has come.
    tail: Tail,
    output: Option<Printed>,
}

/// The last bytes that came, which the loader is not given yet.
#[derive(Default)]
pub struct Tail {
    pieces: VecDeque<Bytes>,
    bytes: usize,
}

impl Tail {
    fn push(&mut self, piece: Bytes) {
        self.bytes += piece.len();
        self.pieces.push_back(piece);
    }

    /// The oldest piece of what exceeds `keep` bytes.
    fn take_beyond(&mut self, keep: usize) -> Option<Bytes> {
        let beyond = self.bytes.checked_sub(keep).filter(|beyond| *beyond > 0)?;
        let oldest = self.pieces.front_mut()?;
        let piece = oldest.split_to(beyond.min(oldest.len()));
        if oldest.is_empty() {
            self.pieces.pop_front();
        }
        self.bytes -= piece.len();
        Some(piece)
    }
}

impl Inside {
    /// Nothing is written any more. Until then there must be no other reading end: a loader that is
    /// gone would not break the pipe.
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
        let program = &words[0];
        find(program, Code::TargetFailed)?;
        let no_pipe = |error: nix::errno::Errno| cannot_start(program, &error.into(), Code::TargetFailed);
        let (reading, writing) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(no_pipe)?;
        let under_way = put_under_way(&writing).map_err(no_pipe)?;
        let failed = |error: io::Error| cannot_start(program, &error, Code::TargetFailed);
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
            words: words.to_vec(),
            group: Pid::from_raw(guard.id() as i32),
            killed: AtomicBool::new(false),
            over: Mutex::new(false),
            fed_bytes: AtomicU64::new(0),
            inside: Mutex::new(Inside {
                guard,
                input: Some(File::from(writing)),
                rest: None,
                tail: Tail::default(),
                output,
            }),
        })
    }

    fn program(&self) -> &str {
        &self.words[0]
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A handle on the loader's input. The input stays open while one exists.
    pub fn input(&self) -> Outcome<File> {
        let closed = || Failure::new(Code::Interrupted, "the loader's input is closed", "");
        let inside = self.inside();
        inside.input.as_ref().and_then(|input| input.try_clone().ok()).ok_or_else(closed)
    }

    /// Takes the next bytes of the load and writes all but the last of them; blocks while the
    /// loader is busy.
    pub fn feed(&self, input: &mut File, tail: &mut Tail, bytes: Bytes) -> Outcome {
        tail.push(bytes);
        self.feed_beyond(TAIL_BYTES, input, tail)
    }

    /// All of the load has come: its end is given to the loader by [`Loader::finish`].
    pub fn keep_tail(&self, tail: Tail) {
        self.inside().tail = tail;
    }

    fn feed_beyond(&self, keep: usize, input: &mut File, tail: &mut Tail) -> Outcome {
        if self.has_failed() {
            return self.give_up();
        }
        while let Some(piece) = tail.take_beyond(keep) {
            self.write(input, &piece).map_err(|error| self.broken(&error))?;
        }
        Ok(())
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
            return Failure::io(Code::LoaderFailed, format!("the loader {} cannot be fed", self.program()), error, "");
        }
        match self.wait() {
            Err(failure) => failure,
            Ok(()) => self.ended_early(),
        }
    }

    fn ended_early(&self) -> Failure {
        let what = format!("the loader {} ended before it had read all of its input", self.program());
        // Fed again, it could load twice what it had read. Its exit code was 0.
        Failure::new(Code::InDoubt, what, "")
    }

    /// Everything is verified, and it is recorded that the loader may commit from now on: gives it
    /// the end of the load, ends its input and waits for its exit.
    pub fn finish(&self) -> Outcome {
        let mut tail = std::mem::take(&mut self.inside().tail);
        let mut input = self.input()?;
        self.feed_beyond(0, &mut input, &mut tail)?;
        drop(input);
        self.inside().end_input();
        let _ = kill(self.group, Signal::SIGUSR1);
        self.wait()
    }

    /// Whether guard or loader ended badly by now. The guard is left to be waited for: until then
    /// nobody else has its id.
    fn has_failed(&self) -> bool {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(self.group), flags) {
            Ok(WaitStatus::Exited(_, code)) => code != 0,
            Ok(WaitStatus::Signaled(..)) => true,
            _ => false,
        }
    }

    /// Where the guard alone is gone, the loader still waits for the end of its input, and would
    /// commit by it.
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
            Failure::io(Code::InDoubt, format!("the loader {} cannot be waited for", self.program()), &error, "")
        })?;
        let taken = self.taken(&inside);
        let printed = inside.output.as_ref().map_or(Said::Bytes(0), |output| output.finish(taken != Taken::Nothing));
        drop(inside);
        if self.killed.load(Ordering::SeqCst) {
            return Err(Failure::new(Code::Interrupted, "the load was stopped", ""));
        }
        if status.signal() == Some(UNREAD as i32) {
            return Err(self.ended_early());
        }
        let code = match loader_ended(taken, loader_exit(&self.words, status)) {
            Event::LoaderSucceeded => return Ok(()),
            Event::LoaderFailed => Code::LoaderFailed,
            _ if status.success() => return Err(self.ended_early()),
            _ => Code::InDoubt,
        };
        check_exit("loader", self.program(), status, &printed, code)
    }

    /// After its end: how much of its input it has read.
    fn taken(&self, inside: &Inside) -> Taken {
        let fed_bytes = self.fed_bytes.load(Ordering::Relaxed);
        let input_ended = inside.input.is_none();
        match inside.unread_bytes() {
            // Where it cannot be known, or there was nothing to read, it may have read everything.
            Some(0) | None if input_ended && fed_bytes == 0 => Taken::Whole,
            Some(unread) if unread == fed_bytes => Taken::Nothing,
            Some(0) | None if input_ended => Taken::Whole,
            _ => Taken::Part,
        }
    }

    /// Kills the loader and whatever it started, before its input can end. Safe at any time, from
    /// any thread.
    pub fn kill(&self) {
        self.killed.store(true, Ordering::SeqCst);
        self.kill_group();
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // A group whose leader was waited for may be another's by now: only one that still runs is
        // killed.
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

/// What an exit says by itself. Only `psql` tells a failed statement from a lost connection:
/// `pg_restore` and `mariadb` have one code for both, `sqlite3` goes on after an error, and of a
/// shell the code does not say which of its commands has failed.
fn loader_exit(words: &[String], status: ExitStatus) -> LoaderExit {
    let is_psql = Path::new(&words[0]).file_name().is_some_and(|name| name == "psql");
    match status.code() {
        Some(0) => LoaderExit::Success,
        Some(PSQL_SCRIPT_ERROR) if is_psql && words[1..].iter().any(|word| is_single_transaction(word)) => {
            LoaderExit::RolledBack
        }
        _ => LoaderExit::Other,
    }
}

/// `-1` alone or among other letters that take no value (psql(1)), or in full.
fn is_single_transaction(word: &str) -> bool {
    const LETTERS: &str = "1AabEeHlnqSstwWXxz0";
    let letters = word.strip_prefix('-').filter(|letters| letters.chars().all(|letter| LETTERS.contains(letter)));
    word == "--single-transaction" || letters.is_some_and(|letters| letters.contains('1'))
}

/// A socket in which a copy of a pipe's writing end is under way: see [`guard`].
fn put_under_way(writing: &OwnedFd) -> nix::Result<OwnedFd> {
    let (into, out_of) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
    let message = [IoSlice::new(&[0])];
    let copies = [writing.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&copies)];
    sendmsg::<()>(into.as_raw_fd(), &message, &rights, MsgFlags::empty(), None)?;
    Ok(out_of)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit_of(command: &str, code: i32) -> LoaderExit {
        let words: Vec<String> = command.split(' ').map(str::to_owned).collect();
        loader_exit(&words, ExitStatus::from_raw(code << 8))
    }

    /// Issue 9, B1: what each kind of loader says by its exit code once it has read everything.
    #[test]
    fn only_a_failed_script_of_psql_in_one_transaction_says_that_it_was_rolled_back() {
        for command in ["psql -X -v ON_ERROR_STOP=1 --single-transaction", "/usr/bin/psql -1", "psql -qX1 -d ehr"] {
            assert_eq!(exit_of(command, 3), LoaderExit::RolledBack, "{command}");
            assert_eq!(exit_of(command, 0), LoaderExit::Success, "{command}");
            for lost_or_fatal in [1, 2, 127, 137] {
                assert_eq!(exit_of(command, lost_or_fatal), LoaderExit::Other, "{command}: {lost_or_fatal}");
            }
        }
        let others =
            ["psql -d ehr", "psql -dehr1", "psql -v1", "pg_restore -1 -d ehr", "sh psql -1", "mariadb", "sqlite3"];
        for command in others {
            for code in [1, 2, 3] {
                assert_eq!(exit_of(command, code), LoaderExit::Other, "{command}: {code}");
            }
        }
        assert_eq!(loader_exit(&["psql".into(), "-1".into()], ExitStatus::from_raw(9)), LoaderExit::Other);
    }

    #[test]
    fn the_last_bytes_are_held_back() {
        let mut tail = Tail::default();
        let mut given = Vec::new();
        for length in [0, 3, 1, 10, 0, 2] {
            tail.push(Bytes::from(vec![length as u8; length]));
            while let Some(piece) = tail.take_beyond(4) {
                given.extend_from_slice(&piece);
            }
            assert_eq!(tail.bytes, tail.pieces.iter().map(Bytes::len).sum::<usize>());
        }
        assert_eq!((given.len(), tail.bytes), (12, 4));
        while let Some(piece) = tail.take_beyond(0) {
            given.extend_from_slice(&piece);
        }
        assert_eq!(given, [&[3; 3][..], &[1], &[10; 10], &[2; 2]].concat());
    }
}
