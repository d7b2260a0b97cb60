//! Where a `postgres://` URL leads.
//!
//! ```text
//! postgres://[USER@][HOST][:PORT][/DATABASE][?NAME=VALUE&...]
//! ```
//!
//! What the URL leaves out comes from the service that it or `PGSERVICE` names, then from the
//! environment as libpq reads it, then from libpq's defaults. Several hosts in one URL are refused:
//! one connection could lead to another server than the next.

mod service;
mod url;

use std::{
    env, fmt,
    path::{Path, PathBuf},
};

use sealift_protocol::{
    failure::{Failure, Outcome},
    printable::printable,
};

pub use self::service::password_of;
use self::{service::Service, url::Url};

/// Debian's and most distributions' folder of the server's socket. libpq as PostgreSQL builds it
/// looks into /tmp.
const SOCKET_FOLDERS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// PostgreSQL's port.
const PORT: u16 = 5432;

/// A database of a server, and how to get there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub host: Host,
    pub port: u16,
    pub user: String,
    pub database: String,
    pub tls: TlsMode,
    /// The authorities that the server's certificate is checked against.
    pub root_certificates: PathBuf,
    /// What a service file gives beside the address; its password goes to the server alone.
    pub service: Option<ServiceName>,
    /// `PGPASSFILE`, or `~/.pgpass`.
    pub password_file: PathBuf,
}

/// The service that an address was made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceName {
    pub name: String,
    pub file: PathBuf,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// The folder of a unix socket.
    Socket(PathBuf),
    Tcp {
        /// What is in its certificate and in `~/.pgpass`.
        name: String,
        /// An IP address to use instead of looking up the name.
        at: Option<String>,
    },
}

/// How a connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// Not at all: it does not leave this host.
    Off,
    /// Encrypted, with a server whose certificate was checked: authority and name.
    VerifyFull,
}

impl Host {
    /// Whether a connection there stays on this host, by what it says itself.
    pub fn is_local(&self) -> bool {
        match self {
            Host::Socket(_) => true,
            Host::Tcp { name, at } => {
                let address = at.as_deref().unwrap_or(name);
                address == "localhost" || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
            }
        }
    }
}

/// Names of settings from a URL, a service file or the environment that mean something here.
#[derive(Clone, Debug, Default)]
struct Settings {
    host: Option<String>,
    hostaddr: Option<String>,
    port: Option<String>,
    user: Option<String>,
    dbname: Option<String>,
    sslmode: Option<String>,
    sslrootcert: Option<String>,
    passfile: Option<String>,
    service: Option<String>,
}

impl Settings {
    /// `None` if the name means nothing here.
    fn field(&mut self, name: &str) -> Option<&mut Option<String>> {
        Some(match name {
            "host" => &mut self.host,
            "hostaddr" => &mut self.hostaddr,
            "port" => &mut self.port,
            "user" => &mut self.user,
            "dbname" => &mut self.dbname,
            "sslmode" => &mut self.sslmode,
            "sslrootcert" => &mut self.sslrootcert,
            "passfile" => &mut self.passfile,
            "service" => &mut self.service,
            _ => return None,
        })
    }

    /// What is missing comes from `other`.
    fn or(self, other: Self) -> Self {
        Self {
            host: self.host.or(other.host),
            hostaddr: self.hostaddr.or(other.hostaddr),
            port: self.port.or(other.port),
            user: self.user.or(other.user),
            dbname: self.dbname.or(other.dbname),
            sslmode: self.sslmode.or(other.sslmode),
            sslrootcert: self.sslrootcert.or(other.sslrootcert),
            passfile: self.passfile.or(other.passfile),
            service: self.service.or(other.service),
        }
    }

    fn of_environment(environment: &Environment) -> Self {
        let variable = |name: &str| environment.variable(name);
        Self {
            host: variable("PGHOST"),
            hostaddr: variable("PGHOSTADDR"),
            port: variable("PGPORT"),
            user: variable("PGUSER"),
            dbname: variable("PGDATABASE"),
            sslmode: variable("PGSSLMODE"),
            sslrootcert: variable("PGSSLROOTCERT"),
            passfile: variable("PGPASSFILE"),
            service: variable("PGSERVICE"),
        }
    }
}

/// What an address takes from its process.
struct Environment {
    variables: Vec<(String, String)>,
    home: Option<PathBuf>,
    user: Option<String>,
}

impl Environment {
    fn of_process() -> Self {
        let names = [
            "PGHOST",
            "PGHOSTADDR",
            "PGPORT",
            "PGUSER",
            "PGDATABASE",
            "PGSSLMODE",
            "PGSSLROOTCERT",
            "PGPASSFILE",
            "PGSERVICE",
            "PGSERVICEFILE",
            "PGSYSCONFDIR",
        ];
        let variables = names.into_iter().filter_map(|name| Some((name.to_owned(), env::var(name).ok()?))).collect();
        let account = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
        let home = env::var_os("HOME").map(PathBuf::from).or_else(|| Some(account.as_ref()?.dir.clone()));
        Self { variables, home, user: account.map(|account| account.name) }
    }

    /// As libpq, an empty one is none.
    fn variable(&self, name: &str) -> Option<String> {
        let found = self.variables.iter().find(|(known, _)| known == name)?;
        Some(found.1.clone()).filter(|value| !value.is_empty())
    }

    fn in_home(&self, path: &str) -> PathBuf {
        self.home.as_deref().unwrap_or(Path::new("/")).join(path)
    }
}

impl Address {
    /// The address that a URL means, by what is after its scheme and colon.
    pub fn parse(rest: &str) -> Outcome<Self> {
        Self::parse_in(rest, &Environment::of_process())
    }

    fn parse_in(rest: &str, environment: &Environment) -> Outcome<Self> {
        let from_url = Url::parse(rest)?.settings;
        let from_environment = Settings::of_environment(environment);
        let service = from_url.service.clone().or_else(|| from_environment.service.clone());
        let service = service.map(|name| Service::find(&name, environment)).transpose()?;
        let (from_service, service) = match service {
            Some(Service { settings, name }) => (settings, Some(name)),
            None => (Settings::default(), None),
        };
        let settings = from_url.or(from_service).or(from_environment);
        Self::of_settings(settings, service, environment)
    }

    fn of_settings(settings: Settings, service: Option<ServiceName>, environment: &Environment) -> Outcome<Self> {
        let host = host(settings.host, settings.hostaddr)?;
        let port = match settings.port {
            None => PORT,
            Some(text) => text.parse().ok().filter(|port| *port > 0).ok_or_else(bad_port)?,
        };
        let user = settings.user.or_else(|| environment.user.clone()).ok_or_else(|| {
            Failure::usage("the URL names no user, and this process has no name of its own", "Write USER@ in the URL.")
        })?;
        let database = settings.dbname.unwrap_or_else(|| user.clone());
        if user.contains('\0') || database.contains('\0') {
            return Err(Failure::usage("the URL has a zero byte", "Check the URL."));
        }
        let tls = tls_mode(settings.sslmode.as_deref(), &host)?;
        let root_certificates = match settings.sslrootcert {
            None => environment.in_home(".postgresql/root.crt"),
            Some(path) if path == "system" => return Err(system_roots()),
            Some(path) => PathBuf::from(path),
        };
        let password_file = settings.passfile.map_or_else(|| environment.in_home(".pgpass"), PathBuf::from);
        Ok(Self { host, port, user, database, tls, root_certificates, service, password_file })
    }

    /// The same server and user, another database.
    pub fn with_database(&self, database: &str) -> Self {
        Self { database: database.to_owned(), ..self.clone() }
    }

    /// The URL again. It does not depend on the environment any more, but for what a service file
    /// holds besides.
    pub fn url(&self) -> String {
        url::write(self)
    }

    /// For logs and messages.
    pub fn shown(&self) -> String {
        printable(&self.to_string())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, database, port, .. } = self;
        match &self.host {
            Host::Socket(folder) => write!(f, "postgres://{user}@/{database}?host={}&port={port}", folder.display()),
            Host::Tcp { name, .. } => write!(f, "postgres://{user}@{name}:{port}/{database}"),
        }
    }
}

fn host(host: Option<String>, at: Option<String>) -> Outcome<Host> {
    if host.iter().chain(&at).any(|text| text.contains(',')) {
        let next = "Give one host: every connection of a transfer must lead to the same server.";
        return Err(Failure::usage("the URL has several hosts", next));
    }
    if let Some(at) = &at {
        at.parse::<std::net::IpAddr>().map_err(|_| Failure::usage("hostaddr is no IP address", "Check the URL."))?;
    }
    Ok(match host {
        Some(folder) if folder.starts_with('/') => Host::Socket(folder.into()),
        Some(name) if name.starts_with('@') => {
            return Err(Failure::usage(
                "the host is an abstract socket",
                "Give the folder of the server's socket file: ?host=/FOLDER.",
            ));
        }
        Some(name) => Host::Tcp { name, at },
        None if at.is_some() => Host::Tcp { name: at.clone().unwrap_or_default(), at },
        None => Host::Socket(socket_folder()),
    })
}

fn socket_folder() -> PathBuf {
    let [first, other] = SOCKET_FOLDERS.map(PathBuf::from);
    if first.is_dir() { first } else { other }
}

fn bad_port() -> Failure {
    Failure::usage("the port in the URL is no number from 1 to 65535", "Check the URL, PGPORT and the service file.")
}

fn tls_mode(sslmode: Option<&str>, host: &Host) -> Outcome<TlsMode> {
    const VERIFIED: &str = "A connection that leaves this host is encrypted and its server's certificate checked: \
                            use sslmode=verify-full, with sslrootcert=FILE for the authority that issued it.";
    match (sslmode, host) {
        (_, Host::Socket(_)) => Ok(TlsMode::Off),
        (None, host) => Ok(if host.is_local() { TlsMode::Off } else { TlsMode::VerifyFull }),
        (Some("verify-full"), _) => Ok(TlsMode::VerifyFull),
        (Some("disable"), host) if host.is_local() => Ok(TlsMode::Off),
        (Some("disable"), _) => Err(Failure::usage("sslmode=disable would send rows in the clear", VERIFIED)),
        (Some("allow" | "prefer"), host) if host.is_local() => Ok(TlsMode::Off),
        (Some("allow" | "prefer" | "require" | "verify-ca"), _) => {
            let what = "this sslmode accepts a server that is not the one in the URL, or no encryption";
            Err(Failure::usage(what, VERIFIED))
        }
        (Some(_), _) => Err(Failure::usage("this sslmode is not known", VERIFIED)),
    }
}

fn system_roots() -> Failure {
    Failure::usage(
        "sslrootcert=system would trust every public authority",
        "Give the file of the authority that issued the server's certificate: sslrootcert=FILE.",
    )
}

#[cfg(test)]
mod tests;
