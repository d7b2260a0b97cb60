//! How an agent is started: its arguments, environment, user, and what its standard streams are.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::unix::{
        fs::{DirBuilderExt, OpenOptionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use tempfile::TempDir;

use crate::{
    agents::{Agent, RECEIVER, SENDER},
    bytes::copy_large,
    memory::Watch,
};

/// The built program, beside the folder of the test executables, or beside this program.
pub fn program(name: &str) -> PathBuf {
    let this = std::env::current_exe().unwrap();
    let mut beside = this.ancestors().skip(1).take(2).map(|folder| folder.join(name));
    let built = beside.find(|path| path.is_file()).unwrap_or_else(|| this.with_file_name(name));
    assert!(built.is_file(), "{} is missing: run `cargo build --workspace` first", built.display());
    built
}

/// Puts a copy of a program into a folder, in the place of an earlier one, as a package manager
/// does: a process that runs that one keeps running a file that has no name any more.
pub fn install(name: &str, folder: &Path) {
    let beside = folder.join("new");
    fs::copy(program(name), &beside).unwrap();
    fs::rename(beside, folder.join(name)).unwrap();
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

    /// `sealift-receiver listen` for this target, on a free port of loopback, with its ticket in a
    /// file.
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

    /// Another program of these tests, for the same words.
    pub fn program(mut self, name: &str) -> Self {
        self.command[0] = program(name).into();
        self
    }

    /// Keeps its state in this folder, which outlives it, and not in its home.
    pub fn state(mut self, folder: &Path) -> Self {
        *self.value_of("--state-dir") = folder.into();
        self
    }

    /// Writes its ticket to this file, which outlives it.
    pub fn ticket_at(mut self, path: &Path) -> Self {
        *self.value_of("--ticket-out") = path.into();
        self.ticket = Some(path.to_path_buf());
        self
    }

    fn value_of(&mut self, name: &str) -> &mut OsString {
        let at = self.command.iter().position(|word| word == name).expect("given by the constructor");
        &mut self.command[at + 1]
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

    /// Bounds the files that it writes, and leaves the signal of that limit as it is. What it
    /// starts may lift the limit.
    pub fn file_bytes_max(self, bytes: u64) -> Self {
        self.wrapped_in(vec!["prlimit".into(), format!("--fsize={bytes}:unlimited").into()])
    }

    /// Runs as this user and group, who then owns the home and gets a copy of the program.
    pub fn as_user(mut self, uid: u32, gid: u32) -> Self {
        let copy = self.home.path().join("program");
        fs::copy(&self.command[0], &copy).unwrap();
        self.command[0] = copy.into();
        self.user = Some((uid, gid));
        self
    }

    /// Runs what is installed in this folder; `install` puts it there.
    pub fn installed_in(mut self, folder: &Path) -> Self {
        let name = Path::new(&self.command[0]).file_name().unwrap();
        self.command[0] = folder.join(name).into();
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
        // A ticket may go there, and goes nowhere that others can read.
        let private = OpenOptions::new().write(true).create_new(true).mode(0o600).open(home.join("stdout"));
        let stdout = private.unwrap();
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
        Agent::new(child, self.home, self.ticket, memory, copies)
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
