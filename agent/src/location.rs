//! The URLs of design.md, 7: where a transfer's data comes from or goes to.

use std::path::{Path, PathBuf};

use crate::{
    command,
    failure::{Failure, Outcome},
    telemetry::printable,
};

/// What a `--source` or `--target` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// `-`
    Standard,
    /// `file:PATH`
    File(PathBuf),
    /// `exec:COMMAND`, split as a shell splits words and run without a shell. Never empty.
    Exec(Vec<String>),
    /// `discard:`
    Discard,
    /// `sqlite:PATH`
    Sqlite(PathBuf),
}

const KNOWN: &str = "Use '-', 'file:PATH', 'exec:COMMAND', 'sqlite:PATH', or as a target 'discard:'.";

const POSTGRESQL: &str = "As a source: 'exec:pg_dump -d NAME'. As a target: \
    'exec:psql -X -q -o /dev/null -v ON_ERROR_STOP=1 --single-transaction -d NAME'. The recipe in docs/operations.md has \
    the rest: the encoding of the target, settings of the database, roles.";
const MARIADB: &str = "As a source: 'exec:mariadb-dump --single-transaction --quick --hex-blob --routines --triggers \
    --events NAME'. As a target: 'exec:mariadb NAME'. The recipe in docs/operations.md has the rest, and what this load \
    cannot promise.";

/// A database that is moved by its own dump and load programs. The URL may hold a password: only the scheme is repeated.
fn through_programs(scheme: &str, engine: &str, recipe: &str) -> Failure {
    Failure::usage(format!("'{scheme}:' is not known: {engine} is moved through its own programs"), recipe)
}

impl Location {
    pub fn parse(text: &str) -> Outcome<Self> {
        if text == "-" {
            return Ok(Location::Standard);
        }
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(Failure::usage(format!("'{text}' is no source or target"), KNOWN));
        };
        let path = || {
            // sqlite:///abs/path is what other tools write.
            let path = rest.strip_prefix("//").unwrap_or(rest);
            match path.is_empty() {
                true => Err(Failure::usage(format!("'{text}' names no file"), KNOWN)),
                false => Ok(PathBuf::from(path)),
            }
        };
        match scheme {
            "file" => path().map(Location::File),
            "sqlite" => path().map(Location::Sqlite),
            "exec" => command::split(rest).map(Location::Exec),
            "discard" if rest.is_empty() => Ok(Location::Discard),
            "postgres" | "postgresql" => Err(through_programs(scheme, "PostgreSQL", POSTGRESQL)),
            "mysql" | "mariadb" => Err(through_programs(scheme, "MariaDB and MySQL", MARIADB)),
            // The rest may hold a password: only the scheme is repeated.
            _ => Err(Failure::usage(format!("'{scheme}:' is not known"), KNOWN)),
        }
    }

    /// The same place, whatever the working folder will be.
    pub fn absolute(self) -> Self {
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        match self {
            Location::File(path) => Location::File(absolute(path)),
            Location::Sqlite(path) => Location::Sqlite(absolute(path)),
            other => other,
        }
    }

    /// Whether both name one place, however they are written.
    pub fn is_same_place(&self, other: &Self) -> bool {
        let resolved = |path: &Path| {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
            match (path.parent().and_then(|folder| folder.canonicalize().ok()), path.file_name()) {
                (Some(folder), Some(name)) => folder.join(name),
                _ => path,
            }
        };
        match (self, other) {
            (Location::File(one) | Location::Sqlite(one), Location::File(two) | Location::Sqlite(two)) => {
                resolved(one) == resolved(two)
            }
            _ => self == other,
        }
    }

    /// What `url` names, without what may be secret: of a command its program alone.
    pub fn name_of(url: &str) -> String {
        match Self::parse(url) {
            Ok(Location::Exec(words)) => format!("exec:{}", printable(&words[0])),
            Ok(location) => printable(&location.absolute().to_url(url)),
            Err(_) => "not known".into(),
        }
    }

    /// As a URL again; `given` is the one that it was read from.
    pub fn to_url(&self, given: &str) -> String {
        match self {
            Location::File(path) => format!("file:{}", path.display()),
            Location::Sqlite(path) => format!("sqlite:{}", path.display()),
            _ => given.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_place_is_known_however_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        let parsed = |text: &str| Location::parse(&text.replace("DIR", &folder.path().display().to_string())).unwrap();
        let is_same = |one: &str, two: &str| parsed(one).is_same_place(&parsed(two));
        for twin in ["sqlite:DIR/a", "sqlite://DIR/a", "sqlite:DIR/./a", "sqlite:DIR/link/a", "file:DIR/a"] {
            assert!(is_same("sqlite:DIR/a", twin), "{twin}");
        }
        assert!(!is_same("sqlite:DIR/a", "sqlite:DIR/b"));
        assert!(is_same("exec:psql  -d 'ehr'", "exec:psql -d ehr"));
        assert!(!is_same("exec:psql -d ehr", "exec:psql -d lab"));
    }

    #[test]
    fn locations_are_read_or_refused() {
        assert_eq!(Location::parse("-"), Ok(Location::Standard));
        assert_eq!(Location::parse("sqlite:///a/b"), Ok(Location::Sqlite("/a/b".into())));
        assert_eq!(Location::parse("file:a b"), Ok(Location::File("a b".into())));
        let words = ["psql", "-c", "a b"].map(String::from).to_vec();
        assert_eq!(Location::parse("exec:psql -c 'a b'"), Ok(Location::Exec(words)));
        for (url, program) in [("postgres://u:secret@h/ehr", "pg_dump"), ("mysql://u:secret@h/ehr", "mariadb-dump")] {
            let failure = Location::parse(url).unwrap_err();
            assert!(
                failure.hints.to_string().contains(program) && !failure.to_string().contains("secret"),
                "{failure}"
            );
        }
        for bad in ["", "x", "ftp://h/p", "exec:", "exec:'open", "exec:''", "sqlite:", "discard:x", "postgres:secret"] {
            let failure = Location::parse(bad).expect_err(bad);
            assert_eq!(failure.code.exit_code(), 2);
            assert!(!failure.what.contains("secret"));
        }
    }
}
