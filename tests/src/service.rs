//! A server process that lives as long as a test, under a user of its own where this one is root.

use std::{
    os::unix::{fs::chown, process::CommandExt},
    path::Path,
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, Uid, User},
};

/// The user to run a server as, where it refuses to run as root.
#[derive(Clone, Copy, Debug)]
pub struct RunAs(Option<(u32, u32)>);

impl RunAs {
    /// `name` if this is root and there is such a user, else the user that runs the tests.
    pub fn unprivileged(name: &str) -> Self {
        match User::from_name(name) {
            Ok(Some(user)) if Uid::effective().is_root() => Self(Some((user.uid.as_raw(), user.gid.as_raw()))),
            _ => Self(None),
        }
    }

    pub fn name(self, otherwise: &str) -> String {
        let uid = self.0.map_or(Uid::effective(), |(uid, _)| Uid::from_raw(uid));
        User::from_uid(uid).ok().flatten().map_or(otherwise.into(), |user| user.name)
    }

    pub fn own(self, path: &Path) {
        if let Some((uid, gid)) = self.0 {
            chown(path, Some(uid), Some(gid)).unwrap();
        }
    }

    pub fn command(self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        if let Some((uid, gid)) = self.0 {
            command.uid(uid).gid(gid);
        }
        command
    }
}

/// Ended by process id when it is dropped, first as the server likes to be ended, then by force.
pub struct Service {
    child: Child,
    gently: Signal,
}

impl Service {
    pub fn start(mut command: Command, gently: Signal) -> Self {
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, gently }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `ready`, and panics with the server's log if that never comes.
    pub fn wait_until(&mut self, log: &Path, mut ready: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !ready() {
            let ended = self.child.try_wait().unwrap().is_some();
            if ended || Instant::now() > deadline {
                panic!("the server did not start:\n{}", std::fs::read_to_string(log).unwrap_or_default());
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends it by this signal, or by force.
    pub fn end(&mut self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.child.id() as i32), signal);
        let deadline = Instant::now() + Duration::from_secs(10);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Its number may be another process's once it has been waited for.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.end(self.gently);
        }
    }
}
