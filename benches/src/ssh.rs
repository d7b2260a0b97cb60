//! An ssh server of this bench's own: throwaway keys, one port, started and stopped by process id.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, User, getuid},
};

use crate::{
    Outcome,
    network::{End, Places},
};

/// By absolute path, as the server insists.
const SERVER: &str = "/usr/sbin/sshd";
/// What the keys call the host, wherever it listens.
const HOST_ALIAS: &str = "sealift-bench";
/// For sessions to end after their client has.
const SESSIONS_END: Duration = Duration::from_secs(2);

/// A folder with the keys of host and user, and an age identity.
#[derive(Clone)]
pub struct Keys(PathBuf);

impl Keys {
    pub fn at(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    pub fn make(folder: &Path) -> Outcome<Self> {
        let keys = Self::at(folder);
        for name in ["host", "user"] {
            let mut command = Command::new("ssh-keygen");
            run(command.args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]).arg(folder.join(name)))?;
        }
        run(Command::new("age-keygen").arg("-o").arg(keys.age_identity()))?;
        fs::copy(folder.join("user.pub"), folder.join("authorized"))?;
        fs::write(folder.join("known"), format!("{HOST_ALIAS} {}", fs::read_to_string(folder.join("host.pub"))?))?;
        let path = folder.display();
        let config = format!(
            "HostKey {path}/host\nAuthorizedKeysFile {path}/authorized\nPidFile none\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n\
             Subsystem sftp internal-sftp\n"
        );
        fs::write(folder.join("server"), config)?;
        Ok(keys)
    }

    pub fn age_identity(&self) -> PathBuf {
        self.0.join("age")
    }

    pub fn age_recipient(&self) -> Outcome<String> {
        let text = fs::read_to_string(self.age_identity())?;
        let line = text.lines().find_map(|line| line.strip_prefix("# public key: "));
        Ok(line.ok_or("age-keygen named no public key")?.to_owned())
    }

    /// The options with which `ssh` and `scp` find the server and nothing of this user's own.
    pub fn client_options(&self, port: u16) -> Vec<OsString> {
        let path = self.0.display();
        let options = [
            format!("Port={port}"),
            format!("IdentityFile={path}/user"),
            format!("UserKnownHostsFile={path}/known"),
            format!("HostKeyAlias={HOST_ALIAS}"),
            "IdentitiesOnly=yes".to_owned(),
            "StrictHostKeyChecking=yes".to_owned(),
            "Ciphers=aes256-gcm@openssh.com".to_owned(),
            "Compression=no".to_owned(),
        ];
        let mut words: Vec<OsString> = vec!["-F".into(), "none".into()];
        for option in options {
            words.extend(["-o".into(), option.into()]);
        }
        words
    }
}

/// The name of this user, whom the server lets in.
pub fn user() -> Outcome<String> {
    Ok(User::from_uid(getuid())?.ok_or("this user has no name")?.name)
}

/// The server while it runs.
pub struct Server {
    child: Child,
    pub port: u16,
}

impl Server {
    /// Starts it and waits until it listens.
    pub fn start(keys: &Keys, places: &Places) -> Outcome<Self> {
        // Free here at this moment, which is as good as free at the other end.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut child = places
            .command(End::Serving, SERVER)
            .args(["-D", "-e", "-f"])
            .arg(keys.0.join("server"))
            .args(["-o", &format!("ListenAddress={}:{port}", places.address)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut words = BufReader::new(child.stderr.take().ok_or("no pipe from sshd")?);
        let server = Self { child, port };
        let mut said = String::new();
        while !said.contains("Server listening") {
            if words.read_line(&mut said)? == 0 {
                return Err(format!("sshd does not start: {}", said.trim()).into());
            }
        }
        thread::spawn(move || std::io::copy(&mut words, &mut std::io::sink()));
        Ok(server)
    }

    /// Waits for its sessions to end, so that their time is counted, and ends it.
    pub fn stop(mut self) {
        let asked = Instant::now();
        while asked.elapsed() < SESSIONS_END && has_children(self.child.id()) {
            thread::sleep(Duration::from_millis(10));
        }
        self.end();
    }

    fn end(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
            let _ = self.child.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn has_children(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).is_ok_and(|children| !children.trim().is_empty())
}

/// Runs a command to a good end, quietly.
pub fn run(command: &mut Command) -> Outcome {
    let program = command.get_program().to_string_lossy().into_owned();
    let done = command.stdin(Stdio::null()).output().map_err(|error| format!("{program}: {error}"))?;
    match done.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&done.stderr);
            Err(format!("{program} ended with {}: {}", done.status, said.trim()).into())
        }
    }
}
