//! A program that a user named with `exec:`. What it prints may hold rows, so it is counted and not
//! shown, with two exceptions: the user typed the danger of seeing it; or the program failed before
//! any data had passed, when what it printed can be about no row.

use std::{
    io::{self, Read, Write},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
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
use sealift_protocol::{
    close::Code,
    failure::{Failure, Outcome, io_reason},
    printable::printable,
};

use crate::detached::shut_off;

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

/// Reaped with the last handle on the program: until then its group's id is nobody else's, and can
/// be killed.
struct Running {
    child: Child,
    group: Pid,
    errors: Arc<Printed>,
    data_passed: Arc<AtomicBool>,
}

/// The data that a program gives.
#[derive(Debug)]
pub struct Data {
    output: ChildStdout,
    passed: Arc<AtomicBool>,
}

impl Read for Data {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.output.read(buffer)?;
        if read > 0 {
            self.passed.store(true, Ordering::Relaxed);
        }
        Ok(read)
    }
}

impl Program {
    /// The file that is run.
    pub fn find(&self) -> Outcome<PathBuf> {
        find(&self.words[0], Code::SourceFailed)
    }

    /// Checks that the program is there, and does not start it yet.
    pub fn new(words: Vec<String>, show_output: bool) -> Outcome<Self> {
        find(&words[0], Code::SourceFailed)?;
        Ok(Self { words, show_output, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Starts it, in a process group of its own, and returns its standard output.
    pub fn start_reading(&self) -> Outcome<Data> {
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
        let errors = Printed::start(errors, self.show_output).map_err(|error| {
            let _ = killpg(group, Signal::SIGKILL);
            let _ = child.wait();
            failed(error)
        })?;
        let errors = Arc::new(errors);
        let data_passed = Arc::<AtomicBool>::default();
        let data = Data { output, passed: Arc::clone(&data_passed) };
        state.running = Some(Running { child, group, errors, data_passed });
        Ok(data)
    }

    /// Waits for its end, which must be exit code 0.
    pub fn wait_success(&self) -> Outcome {
        let (group, errors, data_passed) = match &self.state().running {
            Some(running) => (running.group, Arc::clone(&running.errors), Arc::clone(&running.data_passed)),
            None => return Err(stopped()),
        };
        // Not under the lock: a program that has closed its output may run on, and has to be killed
        // then.
        let status = wait_unreaped(group).map_err(|errno| {
            Failure::io(Code::SourceFailed, "the source program cannot be waited for", &errno.into(), "")
        })?;
        let printed = errors.finish(data_passed.load(Ordering::Relaxed));
        let mut state = self.state();
        if state.killed {
            return Err(stopped());
        }
        state.ended_well = status.success();
        check_exit("source program", &self.words[0], status, &printed, Code::SourceFailed)
    }

    /// Kills it and everything it started, and keeps it from being started. Safe at any time, from
    /// any thread.
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
        // What one that ended well has left running is not stopped.
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

/// How long the end of a program's output is waited for after its own: what it started may hold the
/// pipe open.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(1);
/// What is kept of it: the first lines say why a program could not begin.
const KEPT_BYTES_MAX: usize = 1000;

/// Reads what a program prints, to its end, on a thread of its own: counted, its beginning kept,
/// and shown as it comes only where the danger was typed.
pub struct Printed {
    bytes: Arc<AtomicU64>,
    kept: Arc<Mutex<Vec<u8>>>,
    shown: bool,
    thread: thread::JoinHandle<()>,
}

/// What may be said of it once the program has ended.
pub enum Said {
    /// No data had passed: its first lines, safe to print. Empty if there are none, or they were
    /// shown as they came.
    Before(String),
    /// It may be about rows: how much it was.
    Bytes(u64),
}

impl Printed {
    pub fn start(mut output: impl Read + Send + 'static, show: bool) -> io::Result<Self> {
        let bytes = Arc::<AtomicU64>::default();
        let count = Arc::clone(&bytes);
        let kept = Arc::<Mutex<Vec<u8>>>::default();
        let keep = Arc::clone(&kept);
        let thread = thread::Builder::new().name("program output".to_owned()).spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                match output.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(read) => {
                        count.fetch_add(read as u64, Ordering::Relaxed);
                        let mut keep = keep.lock().unwrap_or_else(PoisonError::into_inner);
                        let room = KEPT_BYTES_MAX - keep.len();
                        keep.extend_from_slice(&buffer[..read.min(room)]);
                        if show {
                            let _ = io::stderr().write_all(&buffer[..read]);
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => return,
                }
            }
        })?;
        Ok(Self { bytes, kept, shown: show, thread })
    }

    /// After the program has ended.
    pub fn finish(&self, data_passed: bool) -> Said {
        let ended = Instant::now();
        while !self.thread.is_finished() && ended.elapsed() < OUTPUT_TIMEOUT {
            thread::sleep(Duration::from_millis(5));
        }
        if data_passed {
            return Said::Bytes(self.bytes.load(Ordering::Relaxed));
        }
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(if self.shown { &[] } else { &kept });
        let lines: Vec<String> =
            text.lines().map(|line| printable(line.trim())).filter(|line| !line.is_empty()).collect();
        Said::Before(lines.join(" / "))
    }
}

/// Exit code 0, or a failure that says how the program ended, and of what it printed only what can
/// be about no row.
pub fn check_exit(what: &str, program: &str, status: ExitStatus, said: &Said, code: Code) -> Outcome {
    if status.success() {
        return Ok(());
    }
    let how = match (status.code(), status.signal()) {
        (Some(exit), _) => format!("ended with exit code {exit}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended in an unknown way".to_owned(),
    };
    let (text, next) = match said {
        Said::Before(said) => {
            let said = if said.is_empty() { String::new() } else { format!(". It printed: {said}") };
            let next = "Run it by hand as this user, put right what it complains about, and give the same command again. \
                        It has no terminal to ask for a password: have that ready, in ~/.pgpass, an option file or a key \
                        agent.";
            (format!("the {what} {program} {how} before any data had passed{said}"), next)
        }
        Said::Bytes(bytes) => {
            let next = "What it printed may hold rows. To see it on this terminal, run again with \
                        --danger-show-program-output. It has no terminal to ask for a password: have that ready, in \
                        ~/.pgpass, an option file or a key agent.";
            (format!("the {what} {program} {how}, after it had printed {bytes} bytes that are not shown"), next)
        }
    };
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

    fn failure_of(script: &str) -> Failure {
        let program = shell(script);
        program.start_reading().unwrap().read_to_end(&mut Vec::new()).unwrap();
        program.wait_success().unwrap_err()
    }

    /// Issue 9, D1: a refused connection, a missing role.
    #[test]
    fn what_it_printed_is_shown_only_if_no_data_had_passed() {
        let failure = failure_of("printf 'no \\033[2Jrole\\n\\nNAME\\n' >&2; exit 1");
        assert!(
            failure.what.ends_with("before any data had passed. It printed: no \\u{1b}[2Jrole / NAME"),
            "{failure}"
        );
        let failure = failure_of("echo NAME >&2; echo row; exit 1");
        assert!(failure.what.ends_with("after it had printed 5 bytes that are not shown"), "{failure}");
        let failure = failure_of("yes NAME | head -c 100000 >&2; exit 1");
        assert!(failure.what.len() < 2 * KEPT_BYTES_MAX, "{}", failure.what.len());
    }

    #[test]
    fn one_that_was_killed_is_not_started_any_more() {
        let program = shell("sleep 600");
        program.kill();
        assert_eq!(program.start_reading().unwrap_err(), stopped());
    }
}
