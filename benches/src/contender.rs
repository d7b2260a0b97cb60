//! What is measured side by side: one way each of moving a dump from one end to the other.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use crate::{
    Outcome,
    agents::Transfer,
    measure::{Usage, children},
    network::{End, Places},
    ssh::{Keys, Server, run, user},
};

/// A way of moving a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    Sealift { compression: &'static str, suite: &'static str, into: Into },
    Scp,
    Rsync,
    ZstdAgeSsh,
}

/// Where Sealift puts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Into {
    Nothing,
    File,
}

pub const SEALIFT_1: Contender = Contender::Sealift { compression: "1", suite: "aes-256-gcm", into: Into::Nothing };
pub const SEALIFT_1_CHACHA: Contender =
    Contender::Sealift { compression: "1", suite: "chacha20-poly1305", into: Into::Nothing };
pub const SEALIFT_OFF: Contender = Contender::Sealift { compression: "off", suite: "aes-256-gcm", into: Into::Nothing };
pub const SEALIFT_OFF_CHACHA: Contender =
    Contender::Sealift { compression: "off", suite: "chacha20-poly1305", into: Into::Nothing };
/// As scp and rsync do it.
pub const SEALIFT_OFF_FILE: Contender =
    Contender::Sealift { compression: "off", suite: "aes-256-gcm", into: Into::File };

/// All of them, in the order in which they take turns.
pub const ALL: [Contender; 8] = [
    SEALIFT_1,
    Contender::ZstdAgeSsh,
    SEALIFT_OFF,
    Contender::Scp,
    SEALIFT_OFF_FILE,
    SEALIFT_1_CHACHA,
    Contender::Rsync,
    SEALIFT_OFF_CHACHA,
];

/// What the others need, and the Debian packages it comes in.
pub const NEEDED: [(&str, &str); 7] = [
    ("/usr/sbin/sshd", "openssh-server"),
    ("/usr/bin/ssh", "openssh-client"),
    ("/usr/bin/scp", "openssh-client"),
    ("/usr/bin/age", "age"),
    ("/usr/bin/rsync", "rsync"),
    ("/usr/bin/zstd", "zstd"),
    ("/usr/bin/bash", "bash"),
];

/// One run of one contender, told to a process of its own.
pub struct Job<'a> {
    pub contender: Contender,
    pub dump: &'a Path,
    /// Holds the keys, and what the run leaves behind.
    pub folder: &'a Path,
    pub places: &'a Places,
}

impl Contender {
    pub fn name(&self) -> String {
        match self {
            Contender::Sealift { compression, suite, into: Into::Nothing } => format!("sealift {compression}, {suite}"),
            Contender::Sealift { compression, suite, into: Into::File } => {
                format!("sealift {compression}, {suite}, into a file")
            }
            Contender::Scp => "scp aes256-gcm, into a file".to_owned(),
            Contender::Rsync => "rsync -z zstd 1, into a file".to_owned(),
            Contender::ZstdAgeSsh => "zstd -1 | age | ssh | age -d | zstd -d".to_owned(),
        }
    }
}

impl Job<'_> {
    /// Runs it. The wall time is from the start of the connecting end to the end of both; the
    /// serving end of every contender listens before. Call in a small process that does nothing
    /// else.
    pub fn run(&self) -> Outcome<Usage> {
        let landing = self.folder.join("landed.sql");
        let (usage, wall_seconds) = children(|| match self.contender {
            Contender::Sealift { compression, suite, into } => self.sealift(compression, suite, into, &landing),
            _ => self.over_ssh(&landing),
        })?;
        let usage = Usage { wall_seconds: wall_seconds?, ..usage };
        if let Ok(found) = fs::metadata(&landing) {
            if found.len() != fs::metadata(self.dump)?.len() {
                return Err("not all of the dump landed".into());
            }
            fs::remove_file(&landing)?;
        }
        Ok(usage)
    }

    fn sealift(&self, compression: &str, suite: &str, into: Into, landing: &Path) -> Outcome<f64> {
        let target = match into {
            Into::Nothing => "discard:".to_owned(),
            Into::File => format!("file:{}", landing.display()),
        };
        let transfer = Transfer {
            source: &format!("file:{}", self.dump.display()),
            target: &target,
            compression,
            suite,
            folder: self.folder,
            places: self.places,
            relay: None,
            memory: None,
        };
        let listening = transfer.listen()?;
        let start = Instant::now();
        listening.push()?.wait()?;
        Ok(start.elapsed().as_secs_f64())
    }

    fn over_ssh(&self, landing: &Path) -> Outcome<f64> {
        let keys = Keys::at(self.folder);
        let server = Server::start(&keys, self.places)?;
        let host = format!("{}@{}", user()?, self.places.address);
        let landed = format!("{host}:{}", landing.display());
        let options = keys.client_options(server.port);
        let mut command = match self.contender {
            Contender::Scp => {
                let mut scp = self.places.command(End::Connecting, "scp");
                scp.arg("-q").args(&options).arg(self.dump).arg(landed);
                scp
            }
            Contender::Rsync => {
                let mut rsync = self.places.command(End::Connecting, "rsync");
                rsync.args(["--whole-file", "-z", "--zc=zstd", "--zl=1", "-e"]).arg(one_word("ssh", &options));
                rsync.arg(self.dump).arg(landed);
                rsync
            }
            _ => self.zstd_age_ssh(&keys, &options, &host)?,
        };
        let start = Instant::now();
        run(&mut command)?;
        let wall_seconds = start.elapsed().as_secs_f64();
        server.stop();
        Ok(wall_seconds)
    }

    fn zstd_age_ssh(&self, keys: &Keys, options: &[OsString], host: &str) -> Outcome<Command> {
        let script = r#"set -o pipefail
            dump=$1 recipient=$2 host=$3 remote=$4; shift 4
            zstd -q -1 -c "$dump" | age -r "$recipient" | ssh "$@" "$host" "$remote""#;
        let remote = format!("age -d -i {} | zstd -q -d >/dev/null", keys.age_identity().display());
        let mut bash = self.places.command(End::Connecting, "bash");
        bash.args(["-c", script, "bash"]).arg(self.dump).arg(keys.age_recipient()?).args([host, &remote]).args(options);
        Ok(bash)
    }
}

fn one_word(program: &str, options: &[OsString]) -> String {
    let words = options.iter().map(|option| option.to_string_lossy().into_owned());
    [program.to_owned()].into_iter().chain(words).collect::<Vec<_>>().join(" ")
}

/// The programs that are missing, as the packages to install.
pub fn missing() -> Vec<&'static str> {
    let mut packages: Vec<_> =
        NEEDED.iter().filter(|(program, _)| !PathBuf::from(program).exists()).map(|(_, package)| *package).collect();
    packages.dedup();
    packages
}
