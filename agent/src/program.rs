//! A program that a user named with `exec:`. What it prints may hold rows, so it is counted and thrown away, unless the
//! user typed the danger of seeing it.

use std::{
    io::{self, Read, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
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
    sys::signal::{Signal, killpg},
    unistd::{AccessFlags, Pid, access},
};
use sealift_protocol::close::Code;

use crate::failure::{Failure, Outcome, io_reason};

/// A source program: its standard output is data, its standard error is not shown.
pub struct Program {
    words: Vec<String>,
    show_output: bool,
    state: Mutex<Option<Running>>,
}

struct Running {
    child: Child,
    group: Pid,
    errors: OutputCounter,
}

impl Program {
    /// Checks that the program is there, and does not start it yet.
    pub fn new(words: Vec<String>, show_output: bool) -> Outcome<Self> {
        find(&words[0], Code::SourceFailed)?;
        Ok(Self { words, show_output, state: Mutex::new(None) })
    }

    fn state(&self) -> MutexGuard<'_, Option<Running>> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Starts it, in a process group of its own, and returns its standard output.
    pub fn start_reading(&self) -> Outcome<ChildStdout> {
        let mut child = Command::new(&self.words[0])
            .args(&self.words[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| cannot_start(&self.words[0], &error, Code::SourceFailed))?;
        let missing = || Failure::new(Code::Internal, "a pipe is missing", "");
        let output = child.stdout.take().ok_or_else(missing)?;
        let errors = child.stderr.take().ok_or_else(missing)?;
        let group = Pid::from_raw(child.id() as i32);
        let errors = OutputCounter::start(errors, self.show_output);
        *self.state() = Some(Running { child, group, errors });
        Ok(output)
    }

    /// Waits for its end, which must be exit code 0.
    pub fn wait_success(&self) -> Outcome {
        let taken = self.state().take();
        let Some(mut running) = taken else {
            return Err(Failure::new(Code::Interrupted, "the source program was stopped", ""));
        };
        let status = running
            .child
            .wait()
            .map_err(|error| Failure::io(Code::SourceFailed, "the source program cannot be waited for", &error, ""))?;
        judge_exit("source program", &self.words[0], status, running.errors.finish(), Code::SourceFailed)
    }

    /// Kills it and everything it started. Safe at any time.
    pub fn kill(&self) {
        if let Some(running) = self.state().as_ref() {
            let _ = killpg(running.group, Signal::SIGKILL);
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
        if let Some(mut running) = self.state().take() {
            let _ = running.child.wait();
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
    pub fn start(mut output: impl Read + Send + 'static, show: bool) -> Self {
        let bytes = Arc::<AtomicU64>::default();
        let count = Arc::clone(&bytes);
        let thread = thread::spawn(move || {
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
        });
        Self { bytes, thread }
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
    let next =
        "What it printed may hold rows. To see it on this terminal, run again with --danger-show-program-output.";
    Err(Failure::new(code, text, next))
}

pub fn cannot_start(program: &str, error: &io::Error, code: Code) -> Failure {
    let what = format!("the program {program} cannot be started: {}", io_reason(error));
    Failure::new(code, what, "Check its name, that it is installed on this host, and that this user may run it.")
}

/// The file that `program` names, as a shell would find it.
pub fn find(program: &str, code: Code) -> Outcome<PathBuf> {
    let usable = |path: &Path| path.is_file() && access(path, AccessFlags::X_OK).is_ok();
    let found = if program.contains('/') {
        Some(PathBuf::from(program)).filter(|path| usable(path))
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| usable(path))
    };
    found.ok_or_else(|| cannot_start(program, &io::Error::from_raw_os_error(nix::libc::ENOENT), code))
}
