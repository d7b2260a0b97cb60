//! A program that a user named with `exec:`. What it prints may hold rows, so it is counted and thrown away, unless the
//! user typed the danger of seeing it.

use std::{
    io::{self, Read, Write},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, killpg},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::{AccessFlags, Pid, access},
};
use sealift_protocol::close::Code;

use crate::{
    failure::{Failure, Outcome, io_reason},
    inherited::shut_off,
    threads,
};

/// A source program: its standard output is data, its standard error is not shown.
pub struct Program {
    words: Vec<String>,
    show_output: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: Option<Running>,
    ended_well: bool,
    killed: bool,
}

/// Reaped with the last handle on the program: until then its group's id is nobody else's, and can be killed.
struct Running {
    child: Child,
    group: Pid,
    errors: Arc<OutputCounter>,
}

impl Program {
    /// Checks that the program is there, and does not start it yet.
    pub fn new(words: Vec<String>, show_output: bool) -> Outcome<Self> {
        find(&words[0], Code::SourceFailed)?;
        Ok(Self { words, show_output, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Starts it, in a process group of its own, and returns its standard output.
    pub fn start_reading(&self) -> Outcome<ChildStdout> {
        // Held until it is known what there is to kill.
        let mut state = self.state();
        if state.killed || state.running.is_some() {
            return Err(stopped());
        }
        let failed = |error: io::Error| cannot_start(&self.words[0], &error, Code::SourceFailed);
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = shut_off(&mut command).spawn().map_err(failed)?;
        let missing = || Failure::new(Code::Internal, "a pipe is missing", "");
        let output = child.stdout.take().ok_or_else(missing)?;
        let errors = child.stderr.take().ok_or_else(missing)?;
        let group = Pid::from_raw(child.id() as i32);
        let errors = OutputCounter::start(errors, self.show_output).map_err(|error| {
            let _ = killpg(group, Signal::SIGKILL);
            let _ = child.wait();
            failed(error)
        })?;
        let errors = Arc::new(errors);
        state.running = Some(Running { child, group, errors });
        Ok(output)
    }

    /// Waits for its end, which must be exit code 0.
    pub fn wait_success(&self) -> Outcome {
        let running = self.state().running.as_ref().map(|running| (running.group, Arc::clone(&running.errors)));
        let (group, errors) = running.ok_or_else(stopped)?;
        // Not under the lock: a program that has closed its output may run on, and has to be killed then.
        let status = wait_unreaped(group).map_err(|errno| {
            Failure::io(Code::SourceFailed, "the source program cannot be waited for", &errno.into(), "")
        })?;
        let printed_bytes = errors.finish();
        let mut state = self.state();
        if state.killed {
            return Err(stopped());
        }
        state.ended_well = status.success();
        judge_exit("source program", &self.words[0], status, printed_bytes, Code::SourceFailed)
    }

    /// Kills it and everything it started, and keeps it from being started. Safe at any time, from any thread.
    pub fn kill(&self) {
        let mut state = self.state();
        state.killed = true;
        if let Some(running) = &state.running {
            let _ = killpg(running.group, Signal::SIGKILL);
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // What one that ended well has left behind is its own affair.
        if !self.state().ended_well {
            self.kill();
        }
        if let Some(mut running) = self.state().running.take() {
            let _ = running.child.wait();
        }
    }
}

fn stopped() -> Failure {
    Failure::new(Code::Interrupted, "the source program was stopped", "")
}

/// Waits for the end of a child, and leaves it to be reaped.
fn wait_unreaped(pid: Pid) -> nix::Result<ExitStatus> {
    loop {
        match waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(ExitStatus::from_raw(code << 8)),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(ExitStatus::from_raw(signal as i32)),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// How long the count of a program's output is waited for after its end: what it started may hold the pipe open.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(1);

/// Reads what a program prints, to its end, on a thread of its own: counted, and shown only where the danger was typed.
pub struct OutputCounter {
    bytes: Arc<AtomicU64>,
    thread: thread::JoinHandle<()>,
}

impl OutputCounter {
    pub fn start(mut output: impl Read + Send + 'static, show: bool) -> io::Result<Self> {
        let bytes = Arc::<AtomicU64>::default();
        let count = Arc::clone(&bytes);
        let thread = threads::spawn("program output", move || {
            let mut buffer = [0; 4096];
            loop {
                match output.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(read) => {
                        count.fetch_add(read as u64, Ordering::Relaxed);
                        if show {
                            let _ = io::stderr().write_all(&buffer[..read]);
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => return,
                }
            }
        })?;
        Ok(Self { bytes, thread })
    }

    /// The count, after the program has ended.
    pub fn finish(&self) -> u64 {
        let ended = Instant::now();
        while !self.thread.is_finished() && ended.elapsed() < OUTPUT_TIMEOUT {
            thread::sleep(Duration::from_millis(5));
        }
        self.bytes.load(Ordering::Relaxed)
    }
}

/// Exit code 0 or a failure that tells the code and how much the program printed, never what.
pub fn judge_exit(what: &str, program: &str, status: ExitStatus, printed_bytes: u64, code: Code) -> Outcome {
    if status.success() {
        return Ok(());
    }
    let how = match (status.code(), status.signal()) {
        (Some(exit), _) => format!("ended with exit code {exit}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended in an unknown way".to_owned(),
    };
    let text = format!("the {what} {program} {how}, after it had printed {printed_bytes} bytes that are not shown");
    let next = "What it printed may hold rows. To see it on this terminal, run again with --danger-show-program-output. It \
                has no terminal to ask for a password: have that ready, in ~/.pgpass, an option file or a key agent.";
    Err(Failure::new(code, text, next))
}

pub fn cannot_start(program: &str, error: &io::Error, code: Code) -> Failure {
    let what = format!("the program {program} cannot be started: {}", io_reason(error));
    Failure::new(code, what, "Check its name, that it is installed on this host, and that this user may run it.")
}

/// Where programs are looked for while PATH is not set, as execvp(3) does.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The file that `program` names, as a shell would find it.
pub fn find(program: &str, code: Code) -> Outcome<PathBuf> {
    let usable = |path: &Path| path.is_file() && access(path, AccessFlags::X_OK).is_ok();
    let found = if program.contains('/') {
        Some(PathBuf::from(program)).filter(|path| usable(path))
    } else {
        let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
        std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| usable(path))
    };
    let is_there = program.contains('/') && Path::new(program).exists();
    let errno = if is_there { Errno::EACCES } else { Errno::ENOENT };
    found.ok_or_else(|| cannot_start(program, &errno.into(), code))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const WITHIN: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Program {
        Program::new(["sh", "-c", script].map(str::to_owned).into(), false).unwrap()
    }

    fn group(program: &Program) -> Pid {
        program.state().running.as_ref().unwrap().group
    }

    /// Members of the group that have not ended.
    fn alive(group: Pid) -> usize {
        let stats = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let fields: Vec<String> = stat.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect();
            Some((fields[0].clone(), fields[2].clone()))
        });
        stats.filter(|(state, of)| state != "Z" && state != "X" && *of == group.to_string()).count()
    }

    fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
        let started = Instant::now();
        while !holds() {
            assert!(started.elapsed() < WITHIN, "never {what}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Reads it to its end, waits for that, and kills it when `members` of its group are left.
    fn killed_with(script: &str, members: usize) -> Outcome {
        let program = shell(script);
        let mut output = program.start_reading().unwrap();
        let group = group(&program);
        let ended = thread::scope(|scope| {
            let reading = scope.spawn(|| {
                output.read_to_end(&mut Vec::new()).unwrap();
                program.wait_success()
            });
            wait_until("so few", || alive(group) == members);
            thread::sleep(Duration::from_millis(100));
            program.kill();
            wait_until("ended", || reading.is_finished());
            reading.join().unwrap()
        });
        wait_until("gone", || alive(group) == 0);
        ended
    }

    #[test]
    fn one_that_closed_its_output_and_ignores_signals_is_killed() {
        let ended = killed_with("trap '' TERM INT HUP; echo data; exec >&- 2>&-; sleep 600; exit", 2);
        assert_eq!(ended, Err(stopped()));
    }

    #[test]
    fn what_it_started_is_killed_while_it_keeps_the_pipe_open() {
        assert_eq!(killed_with("sleep 600 & echo data; exit 0", 1), Err(stopped()));
    }

    #[test]
    fn what_it_left_behind_is_killed_if_the_transfer_fails_later() {
        assert_eq!(killed_with("sleep 600 >&- 2>&- & echo data; exit 0", 1), Ok(()));
    }

    #[test]
    fn what_it_left_behind_is_killed_when_it_has_failed() {
        let program = shell("sleep 600 >&- 2>&- & exit 3");
        program.start_reading().unwrap();
        let group = group(&program);
        assert_eq!(program.wait_success().unwrap_err().code, Code::SourceFailed);
        drop(program);
        wait_until("gone", || alive(group) == 0);
    }

    #[test]
    fn one_that_was_killed_is_not_started_any_more() {
        let program = shell("sleep 600");
        program.kill();
        assert_eq!(program.start_reading().unwrap_err(), stopped());
    }
}
