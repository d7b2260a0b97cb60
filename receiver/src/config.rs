//! The configuration of a standing receiver: TOML, in which an unknown key is an error and a secret
//! has no place.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    net::SocketAddr,
    num::NonZero,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::ValueEnum;
use sealift_agent::{
    address::parse_own,
    cli::{SuiteChoice, WORKERS_MAX, check_memory, check_row_bytes},
    failure::{Failure, Outcome},
    units::{parse_bytes, parse_wait},
};
use sealift_engine_api::{Engines, Finding, Readiness, TargetOptions, Waivers, refuse_errors};
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::invitation::addresses;

/// A configuration of a thousand targets is smaller.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Transfers at once: each has some dozen threads and its own share of the memory; more share one
/// link's speed anyway.
const TRANSFERS_MAX: u64 = 16;

/// Sockets: the addresses of a host that is in several networks.
const LISTEN_MAX: usize = 8;

/// A name that goes into grants, logs and command lines.
const TARGET_NAME_BYTES_MAX: usize = 64;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(default = "listen_default", deserialize_with = "own_addresses")]
    pub listen: Vec<SocketAddr>,
    /// Addresses that tickets name.
    #[serde(default)]
    pub addresses: Vec<String>,
    pub state_dir: Option<PathBuf>,
    /// How many transfers run at once; they share the memory.
    #[serde(default = "transfers_max_default")]
    pub transfers_max: u64,
    #[serde(default = "memory_default", deserialize_with = "bytes")]
    pub memory: u64,
    #[serde(default = "row_bytes_max_default", deserialize_with = "bytes")]
    pub row_bytes_max: u64,
    #[serde(default = "grace_default", deserialize_with = "wait")]
    pub grace: Duration,
    /// How long a transfer whose sender brings nothing keeps its place if another needs it.
    #[serde(default = "idle_max_default", deserialize_with = "wait")]
    pub idle_max: Duration,
    #[serde(default = "journal_bytes_max_default", deserialize_with = "bytes")]
    pub journal_bytes_max: u64,
    #[serde(default = "suite_default", deserialize_with = "suite")]
    pub suite: SuiteChoice,
    #[serde(default)]
    pub targets: BTreeMap<String, Target>,
    /// What the targets' URLs are of.
    #[serde(skip)]
    pub engines: Engines,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table, as [targets.NAME] begins one")]
pub struct Target {
    pub url: String,
    pub workers: Option<NonZero<u16>>,
    #[serde(default)]
    pub danger_plaintext_file: bool,
    #[serde(default)]
    pub danger_show_program_output: bool,
    /// Errors of the preflight that are accepted, by name.
    #[serde(default)]
    pub waive: Vec<String>,
    #[serde(default)]
    pub danger_waive: Vec<String>,
}

impl Target {
    pub fn options(&self, row_bytes_max: u64, engines: Engines) -> Outcome<TargetOptions> {
        Ok(TargetOptions {
            row_bytes_max,
            workers: self.workers,
            danger_plaintext_file: self.danger_plaintext_file,
            danger_show_program_output: self.danger_show_program_output,
            standing: true,
            waivers: Waivers::parse(&self.waive, &self.danger_waive, engines.findings(&self.url))?,
        })
    }
}

impl Config {
    pub fn load(path: &Path, engines: Engines) -> Outcome<Self> {
        Self::parse(&read(path)?, engines)
            .map_err(|failure| Failure { what: format!("{}: {}", path.display(), failure.what), ..failure })
    }

    /// Reads and checks the text of a configuration. No error repeats a value: it may be what
    /// should not be there.
    pub fn parse(text: &str, engines: Engines) -> Outcome<Self> {
        let config: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            Failure::usage(format!("line {line}: {}", without_value(error.message())), NEXT)
        })?;
        let config = Self { engines, ..config };
        config.check().map(|()| config)
    }

    fn check(&self) -> Outcome {
        let wrong = |what: String| Err(Failure::usage(what, NEXT));
        if self.listen.is_empty() || self.listen.len() > LISTEN_MAX {
            return wrong(format!("listen: give 1 to {LISTEN_MAX} addresses"));
        }
        if self.listen.iter().any(|address| address.port() == 0) {
            return wrong("listen: a port of 0 would be another one at each start, and tickets name it".into());
        }
        addresses("addresses:", &self.addresses, self.listen[0])?;
        if !(1..=TRANSFERS_MAX).contains(&self.transfers_max) {
            return wrong(format!("transfers_max: give 1 to {TRANSFERS_MAX}"));
        }
        check_memory("memory: the share of each transfer", self.memory_each())?;
        check_row_bytes("row_bytes_max", self.row_bytes_max)?;
        if self.targets.is_empty() {
            return wrong("there are no targets; give one as [targets.NAME] with a url".into());
        }
        self.targets.iter().try_for_each(|(name, target)| self.check_settings_of(name, target))
    }

    fn check_settings_of(&self, name: &str, target: &Target) -> Outcome {
        let wrong = |what: &str, next: &str| Err(Failure::usage(format!("targets.{name}: {what}"), next));
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if name.is_empty() || name.len() > TARGET_NAME_BYTES_MAX || !name.bytes().all(plain) {
            return Err(Failure::usage("a target's name cannot be used", "Use letters, digits, '-' and '_'."));
        }
        if target.workers.is_some_and(|workers| workers.get() > WORKERS_MAX) {
            return wrong("workers is too large", &format!("Give a number from 1 to {WORKERS_MAX}."));
        }
        let named = |failure: Failure| Failure { what: format!("targets.{name}: {}", failure.what), ..failure };
        let endpoint = self.engines.parse(&target.url).map_err(named)?;
        let options = target.options(self.row_bytes_max, self.engines).map_err(named)?;
        endpoint.check_target(&options).map_err(named)?;
        let place = endpoint.place();
        let is_same = |url: &str| self.engines.parse(url).is_ok_and(|other| other.place().is_shared_with(&place));
        match self.targets.iter().any(|(other, found)| other != name && is_same(&found.url)) {
            true => wrong("another target is the same place", "Two names for one place would load into each other."),
            false => Ok(()),
        }
    }

    /// What each transfer may have in flight.
    pub fn memory_each(&self) -> u64 {
        self.memory / self.transfers_max.max(1)
    }

    pub fn target(&self, name: &str) -> Outcome<&Target> {
        self.targets.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.targets.keys().map(String::as_str).collect();
            Failure::usage(format!("there is no target '{name}'"), format!("There are: {}.", known.join(", ")))
        })
    }

    /// Finds out, before anything is promised, what no transfer could load into.
    /// Returns what was found about all of them.
    pub fn check_targets(&self) -> Outcome<Vec<Vec<Finding>>> {
        // What is there under a target's name may be what the last transfer loaded.
        self.targets.keys().map(|name| self.check_target(name, Readiness::Place)).collect()
    }

    /// Finds out whether a transfer could load into this target; returns what was found, without an
    /// error that is not waived.
    pub fn check_target(&self, name: &str, readiness: Readiness) -> Outcome<Vec<Finding>> {
        let target = self.target(name)?;
        let check = || {
            let options = target.options(self.row_bytes_max, self.engines)?;
            let opened = self.engines.parse(&target.url)?.open_target(&options, self.engines)?;
            let mut found = opened.check(readiness)?;
            options.waivers.apply(&mut found);
            refuse_errors(&found).map(|()| found)
        };
        check().map_err(|failure| Failure { what: format!("targets.{name}: {}", failure.what), ..failure })
    }
}

const NEXT: &str = "See `sealift-receiver serve --help` for the keys, and correct the configuration.";

/// A user who could write to it could have any command run.
fn read(path: &Path) -> Outcome<String> {
    let next = "Give --config the file that configures this receiver.";
    let unreadable = |error: std::io::Error| {
        Failure::io(sealift_protocol::close::Code::Usage, format!("{} cannot be read", path.display()), &error, next)
    };
    let file = File::open(path).map_err(unreadable)?;
    let found = file.metadata().map_err(unreadable)?;
    let ours = [0, nix::unistd::geteuid().as_raw()].contains(&found.uid());
    if !ours || found.mode() & 0o022 != 0 {
        let what = format!("{} can be changed by others than root and this user", path.display());
        return Err(Failure::usage(
            what,
            "Give it to root or this user, and take write permission from group and others.",
        ));
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(unreadable)?;
    Ok(text)
}

/// The parser's message without the value that it quotes.
fn without_value(message: &str) -> String {
    match (message.starts_with("invalid "), message.rsplit_once(", expected ")) {
        (true, Some((_, expected))) => format!("a value of another kind than expected: {expected}"),
        _ => message.lines().next().unwrap_or_default().to_owned(),
    }
}

fn own_addresses<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<SocketAddr>, D::Error> {
    Vec::<String>::deserialize(value)?.iter().map(|text| parse_own(text).map_err(D::Error::custom)).collect()
}

fn bytes<'de, D: Deserializer<'de>>(value: D) -> Result<u64, D::Error> {
    parse_bytes(&String::deserialize(value)?).map_err(D::Error::custom)
}

fn wait<'de, D: Deserializer<'de>>(value: D) -> Result<Duration, D::Error> {
    parse_wait(&String::deserialize(value)?).map_err(D::Error::custom)
}

fn suite<'de, D: Deserializer<'de>>(value: D) -> Result<SuiteChoice, D::Error> {
    let text = String::deserialize(value)?;
    SuiteChoice::from_str(&text, false)
        .map_err(|_| D::Error::custom("give auto, aes-256-gcm or chacha20-poly1305 as suite"))
}

fn listen_default() -> Vec<SocketAddr> {
    vec![SocketAddr::from(([0u16; 8], 7443))]
}

fn transfers_max_default() -> u64 {
    2
}

fn memory_default() -> u64 {
    128 << 20
}

fn row_bytes_max_default() -> u64 {
    256 << 20
}

fn grace_default() -> Duration {
    Duration::from_secs(15 * 60)
}

fn idle_max_default() -> Duration {
    Duration::from_secs(60)
}

fn journal_bytes_max_default() -> u64 {
    64 << 30
}

fn suite_default() -> SuiteChoice {
    SuiteChoice::Auto
}

#[cfg(test)]
mod tests;
