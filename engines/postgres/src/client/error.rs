//! Errors of a connection, and what is reported of them.
//!
//! A server's messages quote rows, and a statement's text is in them. What is kept of an error is
//! its SQLSTATE, the name of the constraint that does not hold, and, of one in COPY, the number of
//! the line; the name of the object comes from the caller, who knows which it worked on.

use std::io;

use sealift_protocol::{
    close::Code,
    failure::{Failure, Outcome, io_reason},
};

/// The result of a call on a connection.
pub type Result<T = ()> = std::result::Result<T, Error>;

/// An error on a connection.
#[derive(Debug)]
pub enum Error {
    /// The server refused a statement.
    Server {
        /// Five letters or digits.
        sqlstate: String,
        /// The line of COPY's input, from 1.
        line: Option<u64>,
        /// The constraint that does not hold.
        constraint: Option<String>,
    },
    /// The connection was interrupted from this side: its load or snapshot has to end.
    Interrupted,
    /// A message is longer than this side takes.
    TooLong,
    /// The connection is lost.
    Lost,
    /// The socket failed.
    Io(io::Error),
    /// The server sent what this client does not understand, or text that is not in the encoding
    /// it announced.
    Protocol,
    /// A failure that says everything itself: an address, a password, a certificate.
    Failed(Box<Failure>),
}

/// Which of the two databases a connection leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Source,
    Target,
}

impl End {
    /// The code of a failure that has no better one.
    pub fn code(self) -> Code {
        match self {
            End::Source => Code::SourceFailed,
            End::Target => Code::TargetFailed,
        }
    }

    /// As messages have it.
    pub fn as_str(self) -> &'static str {
        match self {
            End::Source => "source",
            End::Target => "target",
        }
    }
}

impl Error {
    /// The SQLSTATE, if the server refused a statement.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Error::Server { sqlstate, .. } => Some(sqlstate),
            _ => None,
        }
    }

    /// Whether nothing more can be done on the connection, and what the last statement did is not
    /// known from it.
    pub fn is_lost(&self) -> bool {
        match self {
            Error::Server { sqlstate, .. } => sqlstate.starts_with("57P") || sqlstate.starts_with("08"),
            Error::Failed(_) => false,
            _ => true,
        }
    }

    /// The failure that a person reads: `what` says what was done, and to which object.
    pub fn at(self, end: End, what: &str) -> Failure {
        let code = end.code();
        let database = end.as_str();
        let (reason, next) = match self {
            Error::Failed(failure) => return *failure,
            Error::Server { sqlstate, constraint, .. } if end == End::Target && sqlstate.starts_with(VIOLATION) => {
                return violated(what, &sqlstate, constraint);
            }
            Error::Server { sqlstate, line, .. } => return refused(end, what, &sqlstate, line),
            Error::Interrupted => ("it was interrupted".to_owned(), String::new()),
            Error::TooLong => return too_long(end, what),
            Error::Lost => (
                format!("the connection to the {database} database was lost"),
                "See the server's log for why, and give the same command again.".to_owned(),
            ),
            Error::Io(error) => (
                format!("the connection to the {database} database failed: {}", io_reason(&error)),
                "Check that the server runs and can be reached from here.".to_owned(),
            ),
            Error::Protocol => (
                format!("the {database} server's answer was not understood"),
                "Check that the address is that of a PostgreSQL server, from version 12 on, and not of a pooler."
                    .to_owned(),
            ),
        };
        Failure::new(code, format!("{what}: {reason}"), next)
    }
}

/// A message of a server is over the limit, which is that of rows.
fn too_long(end: End, what: &str) -> Failure {
    let what = format!("{what}: a row is over the limit");
    match end {
        End::Source => {
            let next = "Give both sides a higher --row-bytes-max; each then needs that much memory besides.";
            Failure::new(Code::SourceUnsuitable, what, next)
        }
        End::Target => {
            let next = "Start the receiver again with a higher --row-bytes-max. The transfer is resumed.";
            Failure::new(Code::TargetFailed, what, next)
        }
    }
}

/// The class of violations of constraints.
const VIOLATION: &str = "23";

/// The rows of the source do not keep what its definitions say: no other attempt ends otherwise.
fn violated(what: &str, sqlstate: &str, constraint: Option<String>) -> Failure {
    let constraint = constraint.map_or_else(|| "a constraint".to_owned(), |name| format!("the constraint {name}"));
    let what = format!("{what}: a row does not keep {constraint} (target, SQLSTATE {sqlstate})");
    let next =
        "The source holds rows that break its own schema. Correct them there, or drop the constraint, and start again.";
    Failure::new(Code::LoadImpossible, what, next)
}

/// What an SQLSTATE means, and what to do. The full list is in PostgreSQL's documentation, appendix
/// A.
fn refused(end: End, what: &str, sqlstate: &str, line: Option<u64>) -> Failure {
    let database = end.as_str();
    let at_line = line.map(|line| format!(", line {line}")).unwrap_or_default();
    let (code, reason, next) = match sqlstate {
        "28000" | "28P01" => (
            end.code(),
            "the server refused the user or the password",
            "Check the user in the URL, the server's pg_hba.conf, and the password in ~/.pgpass or the service file.",
        ),
        "26000" | "42P05" => (
            end.code(),
            "what was prepared in the session is not there: a pooler gives each transaction another one",
            "Give the address of the server itself, or of a pooler with pool_mode = session.",
        ),
        "3D000" => (end.code(), "there is no such database", "Check the name in the URL."),
        "42501" => (
            end.code(),
            "the user lacks a privilege that this needs",
            "docs/postgres.md lists the privileges. Grant what is missing, or use another user.",
        ),
        "53100" if end == End::Target => {
            (Code::TargetFull, "the server's disk is full", "Make room on the target host and start again.")
        }
        "53300" => (
            end.code(),
            "the server takes no more connections",
            "End other sessions, raise max_connections, or use fewer workers.",
        ),
        "53200" => (
            end.code(),
            "the server has no memory, or no locks, left for it",
            "Raise max_locks_per_transaction, or give the server more memory.",
        ),
        "54000" | "54001" => (
            end.code(),
            "a value or statement is over a limit of the server's",
            "A value whose text is over 1 GB cannot be moved; see docs/postgres.md.",
        ),
        "55P03" | "40P01" => {
            (end.code(), "another session keeps it locked", "Let that session end, and give the same command again.")
        }
        "57014" => (end.code(), "the server cancelled the statement", "See who cancels statements on that server."),
        "57P01" | "57P02" | "57P03" => {
            (end.code(), "the server shuts down, or ended the session", "See the server's log, and start again.")
        }
        "57P05" | "25P03" | "25P04" => {
            (end.code(), "a timeout of the server's ended the session", "Lift that timeout for this user.")
        }
        "22021" | "22P05" => {
            (end.code(), "a text is not valid in the encoding of the database", "Repair the text in the source.")
        }
        "40001" if end == End::Source => (
            end.code(),
            "the server ended the transaction, as a standby does where it conflicts with recovery",
            "Read from the primary, or see hot_standby_feedback and max_standby_streaming_delay.",
        ),
        "XX001" | "XX002" => {
            (end.code(), "the database is damaged there", "Restore it from a backup or repair it, and start again.")
        }
        _ => (
            end.code(),
            "the server refused it",
            "Appendix A of PostgreSQL's documentation explains the code; the server's log has its message.",
        ),
    };
    let what = format!("{what}{at_line}: {reason} ({database}, SQLSTATE {sqlstate})");
    Failure::new(code, what, next)
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(db) = error.as_db_error() {
            return Error::Server {
                sqlstate: plain(db.code().code()),
                line: db.where_().and_then(copy_line),
                constraint: db.constraint().map(name),
            };
        }
        if error.is_closed() {
            return Error::Lost;
        }
        match std::error::Error::source(&error).and_then(|source| source.downcast_ref::<io::Error>()) {
            Some(source) => Error::from(io_copy(source)),
            None => Error::Protocol,
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::FileTooLarge => Error::TooLong,
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Error::Lost,
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => Error::Protocol,
            _ => Error::Io(error),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Error::Failed(Box::new(failure))
    }
}

fn io_copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => error.kind().into(),
    }
}

/// An SQLSTATE of a hostile server is no text for a terminal.
fn plain(sqlstate: &str) -> String {
    let is_plain =
        sqlstate.len() == 5 && sqlstate.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
    if is_plain { sqlstate.to_owned() } else { "unknown".to_owned() }
}

/// A name has at most `NAMEDATALEN` bytes, also of a server that was built with a larger one.
fn name(name: &str) -> String {
    name.chars().take(NAME_CHARS_MAX).collect()
}

const NAME_CHARS_MAX: usize = 255;

/// The number of the line in COPY's context, `COPY t, line 3, column c: "..."`: nothing but digits
/// is taken.
fn copy_line(context: &str) -> Option<u64> {
    let after = context.lines().find_map(|line| line.strip_prefix("COPY ")?.split_once(", line "))?.1;
    let digits = after.find(|character: char| !character.is_ascii_digit()).unwrap_or(after.len());
    after[..digits].parse().ok()
}

/// The outcome of a call, as a person reads it.
pub trait At<T> {
    /// With what was done, and to which object.
    fn at(self, end: End, what: &str) -> Outcome<T>;
}

impl<T> At<T> for Result<T> {
    fn at(self, end: End, what: &str) -> Outcome<T> {
        self.map_err(|error| error.at(end, what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_context_only_the_number_is_kept() {
        assert_eq!(copy_line("COPY visit, line 12, column note: \"secret\""), Some(12));
        assert_eq!(copy_line("PL/pgSQL function f()\nCOPY visit, line 7"), Some(7));
        assert_eq!(copy_line("COPY visit, line secret"), None);
        assert_eq!(copy_line("secret"), None);
    }

    #[test]
    fn a_failure_has_the_code_and_the_object_and_no_message() {
        let error = Error::Server { sqlstate: "22P02".into(), line: Some(3), constraint: None };
        let failure = error.at(End::Target, "loading public.visit");
        assert_eq!(failure.code, Code::TargetFailed);
        assert_eq!(failure.what, "loading public.visit, line 3: the server refused it (target, SQLSTATE 22P02)");
        let error = Error::Server { sqlstate: "23505".into(), line: Some(3), constraint: Some("visit_pkey".into()) };
        let failure = error.at(End::Target, "loading public.visit");
        assert_eq!(failure.code, Code::LoadImpossible);
        assert!(failure.what.contains("constraint visit_pkey"), "{failure}");
        assert_eq!(plain("\u{1b}[2J1"), "unknown");
    }
}
