//! The client programs of this host.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use sealift_engine_api::Finding;
use sealift_protocol::{
    close::Code,
    failure::{Failure, Outcome},
};

/// Where Debian and the PGDG's packages have one folder for each version.
const VERSIONED: [&str; 2] = ["/usr/lib/postgresql", "/usr/pgsql"];

/// The first releases in which a server cannot have `pg_dump` write commands into a script that
/// runs them when it is restored (CVE-2025-8714, CVE-2025-8715), by their major version. Older ones
/// were not mended.
const MENDED: [(u32, u32); 5] = [(13, 22), (14, 19), (15, 14), (16, 10), (17, 6)];

/// A program of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    pub path: PathBuf,
    pub version: Version,
}

/// `major.minor`; of one that is not released yet, the minor one is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
}

/// A `pg_dump` that is not older than the server, and of those the nearest to it.
pub fn pg_dump(server_major: u32) -> Outcome<Program> {
    let mut found: Vec<Program> = candidates().into_iter().filter_map(Program::ask).collect();
    // Stable: what is first in PATH stays first within a version.
    found.sort_by_key(|program| program.version.major);
    let newest = found.last().map(|program| program.version.major);
    if let Some(program) = found.into_iter().find(|program| program.version.major >= server_major) {
        return Ok(program);
    }
    let what = match newest {
        Some(newest) => {
            format!("the newest pg_dump on this host is of version {newest}, and the server is of {server_major}")
        }
        None => "there is no pg_dump on this host".to_owned(),
    };
    let next = format!(
        "Install PostgreSQL's client programs of version {server_major} or later (postgresql-client-{server_major})."
    );
    Err(Failure::new(Code::SourceFailed, what, next))
}

/// What there is to say about it.
pub fn findings(server_major: u32) -> Vec<Finding> {
    let program = match pg_dump(server_major) {
        Ok(program) => program,
        Err(failure) => return vec![Finding::error("pg-dump", failure.what, failure.hints.to_string())],
    };
    let Program { path, version: Version { major, minor } } = &program;
    let shown = path.display();
    let mut found = vec![Finding::fact("pg-dump", format!("{shown}, of version {major}.{minor}"))];
    if program.version.is_open_to_injection() {
        let what = format!(
            "{shown} {major}.{minor} is below the fixes of CVE-2025-8714 and CVE-2025-8715: a hostile source can put commands \
             into what it dumps"
        );
        let next = "Upgrade it. The receiver runs no script: it takes an archive apart and runs nothing but statements of the \
                    kinds that it knows.";
        found.push(Finding::warning("pg-dump-advisory", what, next));
    }
    found
}

fn candidates() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).filter(|folder| folder.is_absolute()).collect();
    for parent in VERSIONED {
        let versions = fs::read_dir(parent).into_iter().flatten().flatten();
        folders.extend(versions.map(|version| version.path().join("bin")));
    }
    folders.into_iter().map(|folder| folder.join("pg_dump")).filter(|program| program.is_file()).collect()
}

impl Program {
    /// `None` if it does not say of which version it is.
    fn ask(path: PathBuf) -> Option<Self> {
        let version = ask(&path)?;
        Some(Self { path, version })
    }
}

fn ask(program: &Path) -> Option<Version> {
    let mut command = Command::new(program);
    command.arg("--version").env_clear().env("LC_ALL", "C").stdin(Stdio::null()).stderr(Stdio::null());
    // Debian's wrapper in /usr/bin is a script.
    command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    let output = command.output().ok()?;
    let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    Version::parse(&text)
}

impl Version {
    /// From `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
    fn parse(text: &str) -> Option<Self> {
        let version = text.strip_prefix("pg_dump (PostgreSQL) ")?;
        let (major, rest) = digits(version);
        let minor = rest.strip_prefix('.').map_or("", |rest| digits(rest).0);
        Some(Self { major: major.parse().ok()?, minor: minor.parse().unwrap_or(0) })
    }

    fn is_open_to_injection(self) -> bool {
        match MENDED.iter().find(|(major, _)| *major == self.major) {
            Some((_, minor)) => self.minor < *minor,
            None => self.major < MENDED[0].0,
        }
    }
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_program_prints_them() {
        let parse = |text| Version::parse(text).map(|version| (version.major, version.minor));
        assert_eq!(parse("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some((15, 18)));
        assert_eq!(parse("pg_dump (PostgreSQL) 19devel\n"), Some((19, 0)));
        assert_eq!(parse("pg_dump (EnterpriseDB) x"), None);
    }

    /// The releases of 14 August 2025.
    #[test]
    fn versions_below_the_fixes_are_known() {
        let is_open = |major, minor| Version { major, minor }.is_open_to_injection();
        for (major, minor) in MENDED {
            assert!(is_open(major, minor - 1) && !is_open(major, minor), "{major}");
        }
        assert!(is_open(12, 99) && !is_open(18, 0));
    }
}
