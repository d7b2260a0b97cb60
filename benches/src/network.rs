//! Where the two ends stand: on loopback, or in two network namespaces with an ordinary MTU between
//! them.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};

use serde::{Deserialize, Serialize};

use crate::{Outcome, ssh::run};

/// The address at which the serving end listens, and what each end's commands are started through.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Places {
    pub address: String,
    serving: Vec<String>,
    connecting: Vec<String>,
}

/// Which end of a transfer a command is.
#[derive(Clone, Copy, Debug)]
pub enum End {
    Serving,
    Connecting,
}

impl Places {
    pub fn loopback() -> Self {
        Self { address: "127.0.0.1".to_owned(), serving: Vec::new(), connecting: Vec::new() }
    }

    /// A command that will run at one end. `ip netns exec` becomes the program, so its process id
    /// is the program's.
    pub fn command(&self, end: End, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let through = match end {
            End::Serving => &self.serving,
            End::Connecting => &self.connecting,
        };
        let Some((first, rest)) = through.split_first() else { return Command::new(program) };
        let mut command = Command::new(first);
        command.args(rest).arg(program);
        command
    }
}

/// Two namespaces joined by a virtual cable with the MTU of Ethernet; gone when dropped.
pub struct Ethernet {
    names: [String; 2],
}

const MTU_BYTES: &str = "1500";
/// Only seen inside the two namespaces.
const ADDRESSES: [&str; 2] = ["10.231.77.1", "10.231.77.2"];

impl Ethernet {
    /// Needs root and `ip`.
    pub fn lay() -> Outcome<Self> {
        let names = ["a", "b"].map(|end| format!("sealift-bench-{}-{end}", std::process::id()));
        let ethernet = Self { names };
        let [serving, connecting] = &ethernet.names;
        ip(&["netns", "add", serving])?;
        ip(&["netns", "add", connecting])?;
        ip(&["-n", serving, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", connecting])?;
        for (name, address) in ethernet.names.iter().zip(ADDRESSES) {
            ip(&["-n", name, "address", "add", &format!("{address}/30"), "dev", "cable"])?;
            ip(&["-n", name, "link", "set", "cable", "mtu", MTU_BYTES, "up"])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
        }
        Ok(ethernet)
    }

    pub fn places(&self) -> Places {
        let through = |name: &String| ["ip", "netns", "exec", name].map(str::to_owned).to_vec();
        let [serving, connecting] = &self.names;
        Places { address: ADDRESSES[0].to_owned(), serving: through(serving), connecting: through(connecting) }
    }
}

/// Two namespaces with an emulated line between them, `linkem`; gone when dropped.
pub struct Emulated {
    names: [String; 2],
    line: Child,
}

/// The addresses that linkem gives its two ends.
const EMULATED_ADDRESS: &str = "10.77.0.2";

impl Emulated {
    /// Compiles `linkem.c` from `source` into `folder` and lays a line with these arguments. Needs
    /// root, `ip` and `cc`.
    pub fn lay(source: &Path, folder: &Path, arguments: &[&str]) -> Outcome<Self> {
        let program = folder.join("linkem");
        let mut compiler = Command::new("cc");
        run(compiler.args(["-O2", "-pthread", "-o"]).arg(&program).arg(source.join("linkem.c")))?;
        let names = ["west", "east"].map(|end| format!("sealift-bench-{}-{end}", std::process::id()));
        for name in &names {
            ip(&["netns", "add", name])?;
        }
        let mut line = Command::new(program)
            .args(["--ns-a", &names[0], "--ns-b", &names[1]])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut said = BufReader::new(line.stdout.take().ok_or("no pipe from linkem")?);
        let emulated = Self { names, line };
        let mut word = String::new();
        while !word.contains("ready") {
            if said.read_line(&mut word)? == 0 {
                return Err("linkem does not start".into());
            }
        }
        thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Ok(emulated)
    }

    pub fn places(&self) -> Places {
        let through = |name: &String| ["ip", "netns", "exec", name].map(str::to_owned).to_vec();
        let [connecting, serving] = &self.names;
        Places { address: EMULATED_ADDRESS.to_owned(), serving: through(serving), connecting: through(connecting) }
    }
}

impl Drop for Emulated {
    fn drop(&mut self) {
        let _ = self.line.kill();
        let _ = self.line.wait();
        for name in &self.names {
            let _ = ip(&["netns", "delete", name]);
        }
    }
}

impl Drop for Ethernet {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = ip(&["netns", "delete", name]);
        }
    }
}

fn ip(words: &[&str]) -> Outcome {
    match Command::new("ip").args(words).stderr(Stdio::null()).status()? {
        status if status.success() => Ok(()),
        _ => Err(format!("ip {} is not permitted here", words.join(" ")).into()),
    }
}
