//! The two agents as real processes, each with a home of its own and everything it says kept.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{Read, Write},
    net::{TcpListener, UdpSocket},
    os::unix::{fs::DirBuilderExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::{
    bytes::copy_large,
    finished::Finished,
    memory::{Watch, children},
    random::Random,
};

pub const SENDER: &str = "sealift-sender";
pub const RECEIVER: &str = "sealift-receiver";
pub const OPERATOR: &str = "sealift";

/// The end of a ticket's text: what comes before it is whole.
pub const TICKET_END: &str = "-----END SEALIFT TICKET-----";

/// A debug build with a cold disk has needed two seconds.
const TICKET_WITHIN: Duration = Duration::from_secs(20);

/// The built program, beside the folder of the test executables.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let built = test.ancestors().nth(2).unwrap().join(name);
    assert!(built.is_file(), "{} is missing: run `cargo build --workspace` first", built.display());
    built
}

/// Where an agent's stdin comes from.
pub enum Input {
    Nothing,
    Reader(Box<dyn Read + Send>),
}

/// An agent about to be started.
pub struct Launch {
    home: TempDir,
    command: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    input: Input,
    output_pipe: bool,
    user: Option<(u32, u32)>,
    ticket: Option<PathBuf>,
}

impl Launch {
    fn new(program_name: &str) -> Self {
        let home = tempfile::Builder::new().prefix("sealift-agent-").tempdir().unwrap();
        fs::DirBuilder::new().mode(0o700).create(home.path().join("state")).unwrap();
        fs::create_dir(home.path().join("work")).unwrap();
        let command = vec![program(program_name).into()];
        Self { home, command, environment: vec![], input: Input::Nothing, output_pipe: false, user: None, ticket: None }
    }

    /// `sealift-receiver listen` for this target, on a free port of loopback, with its ticket in a file.
    pub fn receiver(target: &str) -> Self {
        let launch = Self::new(RECEIVER);
        let (ticket, state) = (launch.home.path().join("ticket"), launch.home.path().join("state"));
        let mut launch = launch.arg("listen").arg("--target").arg(target).arg("--ticket-out").arg(&ticket);
        launch.ticket = Some(ticket);
        launch.arg("--state-dir").arg(state)
    }

    /// `sealift-sender push` of this source, with the ticket in this file.
    pub fn sender(source: &str, ticket: impl AsRef<OsStr>) -> Self {
        let launch = Self::new(SENDER);
        let state = launch.home.path().join("state");
        launch.arg("push").arg("--source").arg(source).arg("--ticket").arg(ticket).arg("--state-dir").arg(state)
    }

    /// Any program with any words, with a home and no state directory named.
    pub fn bare<S: AsRef<OsStr>>(program_name: &str, arguments: &[S]) -> Self {
        Self::new(program_name).args(arguments)
    }

    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.push(argument.as_ref().into());
        self
    }

    pub fn args<S: AsRef<OsStr>>(mut self, arguments: &[S]) -> Self {
        self.command.extend(arguments.iter().map(|argument| argument.as_ref().into()));
        self
    }

    pub fn json(self) -> Self {
        self.arg("--json")
    }

    pub fn bind_loopback(self) -> Self {
        self.arg("--bind").arg("127.0.0.1:0")
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.into(), value.as_ref().into()));
        self
    }

    pub fn stdin(mut self, reader: impl Read + Send + 'static) -> Self {
        self.input = Input::Reader(Box::new(reader));
        self
    }

    /// Gives the agent a pipe as stdout, as in a shell's pipeline, instead of a file.
    pub fn stdout_pipe(mut self) -> Self {
        self.output_pipe = true;
        self
    }

    /// Puts other words before the agent's own: `strace -f …`.
    pub fn wrapped_in(mut self, words: Vec<OsString>) -> Self {
        self.command.splice(0..0, words);
        self
    }

    /// Runs as this user and group, who then owns the home and gets a copy of the program.
    pub fn as_user(mut self, uid: u32, gid: u32) -> Self {
        let copy = self.home.path().join("program");
        fs::copy(&self.command[0], &copy).unwrap();
        self.command[0] = copy.into();
        self.user = Some((uid, gid));
        self
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn start(self) -> Agent {
        let home = self.home.path().to_path_buf();
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).envs(self.environment).current_dir(home.join("work"));
        command.env_remove("RUST_LOG").env_remove("RUST_BACKTRACE");
        command.stderr(File::create(home.join("stderr")).unwrap());
        let stdout = File::create(home.join("stdout")).unwrap();
        let (from, to) = match self.output_pipe {
            true => (Stdio::piped(), Some(stdout)),
            false => (Stdio::from(stdout), None),
        };
        command.stdout(from);
        command.stdin(if matches!(self.input, Input::Nothing) { Stdio::null() } else { Stdio::piped() });
        if let Some((uid, gid)) = self.user {
            for path in [home.clone(), home.join("state"), home.join("work"), home.join("program")] {
                std::os::unix::fs::chown(path, Some(uid), Some(gid)).unwrap();
            }
            command.uid(uid).gid(gid);
        }
        let started = Instant::now();
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let memory = Watch::start(child.id());
        let mut copies = Vec::new();
        if let (Some(mut file), Some(mut pipe)) = (to, child.stdout.take()) {
            copies.push(thread::spawn(move || copy_large(&mut pipe, &mut file)));
        }
        if let (Input::Reader(mut reader), Some(mut pipe)) = (self.input, child.stdin.take()) {
            // Not joined: a reader may have no end, and an agent may end before its input.
            thread::spawn(move || feed(&mut reader, &mut pipe));
        }
        Agent { child: Some(child), home: Some(self.home), ticket: self.ticket, started, memory, copies }
    }
}

fn feed(reader: &mut dyn Read, pipe: &mut impl Write) {
    let mut buffer = vec![0; 1 << 18];
    while let Ok(count @ 1..) = reader.read(&mut buffer) {
        if pipe.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

/// A running agent, killed when it is dropped.
pub struct Agent {
    child: Option<Child>,
    home: Option<TempDir>,
    ticket: Option<PathBuf>,
    started: Instant,
    memory: Watch,
    copies: Vec<JoinHandle<()>>,
}

impl Agent {
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    pub fn home(&self) -> &Path {
        self.home.as_ref().unwrap().path()
    }

    pub fn state_dir(&self) -> PathBuf {
        self.home().join("state")
    }

    pub fn peak_memory_bytes(&self) -> u64 {
        self.memory.peak_bytes()
    }

    pub fn stdout(&self) -> Vec<u8> {
        fs::read(self.home().join("stdout")).unwrap()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.home().join("stderr")).unwrap()).into_owned()
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.as_mut().unwrap().try_wait(), Ok(None))
    }

    /// The ticket's file, once it is whole. Panics with the agent's words if it ends, or never writes one.
    pub fn ticket(&mut self) -> PathBuf {
        let path = self.ticket.clone().expect("only a receiver writes a ticket");
        let whole = |_: &mut Agent| fs::read_to_string(&path).is_ok_and(|text| text.contains(TICKET_END));
        self.wait_for("a ticket", TICKET_WITHIN, whole);
        path
    }

    /// Waits until `seen` holds of this agent; panics if it ends before, or takes longer.
    pub fn wait_for(&mut self, what: &str, within: Duration, mut seen: impl FnMut(&mut Agent) -> bool) {
        let deadline = Instant::now() + within;
        loop {
            // In this order: what an agent wrote just before its end counts.
            let ended = !self.is_running();
            if seen(self) {
                return;
            }
            assert!(!ended, "ended before {what} was seen:\n{}", self.stderr());
            assert!(Instant::now() < deadline, "no {what} within {within:?}:\n{}", self.stderr());
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid() as i32), signal).unwrap();
    }

    pub fn kill9(&self) {
        self.signal(Signal::SIGKILL);
    }

    pub fn sigint(&self) {
        self.signal(Signal::SIGINT);
    }

    /// Waits for the end; kills it and panics with its words if that takes longer than `within`.
    pub fn wait(mut self, within: Duration) -> Finished {
        let deadline = Instant::now() + within;
        let status = loop {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                panic!("still running after {within:?}:\n{}", self.stderr());
            }
            thread::sleep(Duration::from_millis(5));
        };
        let took = self.started.elapsed();
        self.child = None;
        for copy in self.copies.drain(..) {
            copy.join().unwrap();
        }
        Finished::new(self.home.take().unwrap(), status, took, self.memory.peak_bytes())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // What an agent has started, or what a tracer has, would outlive it.
        let started = children(child.id());
        let _ = child.kill();
        let _ = child.wait();
        for pid in started {
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
        }
    }
}

/// A UDP port that is free now, below those which the system hands out by itself, so that nobody gets it meanwhile.
pub fn free_udp_port() -> u16 {
    free_port(|port| UdpSocket::bind(("127.0.0.1", port)).is_ok())
}

pub fn free_tcp_port() -> u16 {
    free_port(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
}

fn free_port(is_free: impl Fn(u16) -> bool) -> u16 {
    let clock = Instant::now().elapsed().subsec_nanos() as u64;
    let mut random = Random::new(clock ^ (u64::from(std::process::id()) << 32));
    (0..1000).map(|_| 10_000 + random.below(20_000) as u16).find(|&port| is_free(port)).expect("some port is free")
}
