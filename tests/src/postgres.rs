//! A throwaway PostgreSQL cluster: unix socket and loopback, superuser `postgres`, gone with the
//! test; without durability, unless that is asked for.

mod clusters;
mod proxy;

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::{
    port::free_tcp_port,
    service::{RunAs, Service},
    shared,
};

pub use self::{
    clusters::{Clusters, Databases},
    proxy::Proxy,
};

pub struct Postgres {
    // Before the folder: fields are dropped in this order, and the server writes into the folder to
    // its end.
    service: Mutex<Service>,
    server: Server,
}

/// What a server is started with.
struct Server {
    folder: TempDir,
    port: u16,
    programs: PathBuf,
    /// The server's own.
    program: PathBuf,
    user: RunAs,
    settings: Vec<&'static str>,
}

/// For a server that was killed to come back.
const COMES_BACK_WITHIN: Duration = Duration::from_secs(60);

impl Postgres {
    /// Starts a cluster that syncs nothing; `None`, and a word, where PostgreSQL is not installed.
    pub fn start() -> Option<Self> {
        Self::start_with(&[SETTINGS, WITHOUT_SYNC].concat())
    }

    /// One that keeps what it says it has, as a target of Sealift's must.
    pub fn start_durable() -> Option<Self> {
        Self::start_with(SETTINGS)
    }

    /// One that keeps what it says it has, with these settings besides.
    pub fn start_durable_with(settings: &[&'static str]) -> Option<Self> {
        Self::start_with(&[SETTINGS, settings].concat())
    }

    /// One that keeps what it says it has, with an extension of this control file and script.
    pub fn start_with_extension(name: &str, version: &str, script: &str) -> Option<Self> {
        let (folder, programs) = (folder(), programs()?);
        let Some(server) = extended(&programs, folder.path(), name, version, script) else {
            shared::skip("PostgreSQL is not where Debian has it", false);
            return None;
        };
        Some(Self::start_in(folder, programs, server, SETTINGS))
    }

    /// One that keeps what it says it has, of the version whose programs are in this folder.
    pub fn start_of(programs: &Path) -> Self {
        Self::start_in(folder(), programs.to_owned(), programs.join("postgres"), SETTINGS)
    }

    fn start_with(settings: &[&'static str]) -> Option<Self> {
        let Some(programs) = programs() else {
            shared::skip("PostgreSQL is not installed", true);
            return None;
        };
        let server = programs.join("postgres");
        Some(Self::start_in(folder(), programs, server, settings))
    }

    fn start_in(folder: TempDir, programs: PathBuf, program: PathBuf, settings: &[&'static str]) -> Self {
        let user = RunAs::unprivileged("postgres");
        user.own(folder.path());
        let mut initdb = user.command(programs.join("initdb"));
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]);
        shared::run(initdb.arg("-D").arg(folder.path().join("data")).current_dir(folder.path()));
        let server = Server { folder, port: free_tcp_port(), programs, program, user, settings: settings.to_vec() };
        Self { service: Mutex::new(server.start()), server }
    }

    /// Ends the server without a checkpoint or a word to its clients (`immediate`), and starts it
    /// again.
    pub fn restart_immediately(&self) {
        let mut service = self.service.lock().unwrap_or_else(PoisonError::into_inner);
        service.end(Signal::SIGQUIT);
        *service = self.server.start();
    }

    pub fn pid(&self) -> u32 {
        self.service.lock().unwrap().pid()
    }

    pub fn socket_folder(&self) -> &Path {
        self.server.folder.path()
    }

    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// What every client program needs to find `database` here, as words of a command line.
    pub fn address(&self, database: &str) -> String {
        format!("-h {} -p {} -U postgres -d {database}", self.server.folder.path().display(), self.server.port)
    }

    /// The URL of `database` here.
    pub fn url(&self, database: &str) -> String {
        format!(
            "postgres://postgres@/{database}?host={}&port={}",
            self.server.folder.path().display(),
            self.server.port
        )
    }

    /// As [`Postgres::url`], as another role than the superuser.
    pub fn url_as(&self, role: &str, database: &str) -> String {
        self.url(database).replacen("postgres@", &format!("{role}@"), 1)
    }

    /// A client program with the address in its environment.
    pub fn client(&self, program: &str, database: &str) -> Command {
        let mut command = Command::new(self.server.programs.join(program));
        command.env("PGHOST", self.server.folder.path()).env("PGPORT", self.server.port.to_string());
        command.env("PGUSER", "postgres").env("PGDATABASE", database);
        command
    }

    /// The full path of a client program that fits this server.
    pub fn program(&self, name: &str) -> PathBuf {
        self.server.programs.join(name)
    }

    /// Runs SQL and returns what it prints, unaligned, without headers.
    pub fn query(&self, database: &str, sql: &str) -> String {
        let mut psql = self.client("psql", database);
        shared::run(psql.args(["-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-c", sql])).trim_end().to_owned()
    }

    /// As `query`, but `None` if the server is down or ends the session meanwhile.
    pub fn try_query(&self, database: &str, sql: &str) -> Option<String> {
        let mut psql = self.client("psql", database);
        let output = psql.args(["-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-c", sql]).output().unwrap();
        match output.status.code() {
            Some(0) => Some(String::from_utf8_lossy(&output.stdout).trim_end().to_owned()),
            Some(PSQL_CONNECTION_LOST) => None,
            _ => panic!("{sql}: {}", String::from_utf8_lossy(&output.stderr)),
        }
    }

    /// As `query`, again and again while the server is down. For what can be repeated.
    pub fn query_patiently(&self, database: &str, sql: &str) -> String {
        let deadline = Instant::now() + COMES_BACK_WITHIN;
        loop {
            if let Some(found) = self.try_query(database, sql) {
                return found;
            }
            assert!(Instant::now() < deadline, "the server does not come back");
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Empty, without even the objects that an administrator put into template1.
    pub fn create_database(&self, name: &str) {
        self.query("postgres", &format!("create database {name} template template0 encoding 'UTF8'"));
    }

    /// Creates `database` and fills it with one of the shared sets.
    pub fn load(&self, data: &Path, set: &str, database: &str) {
        self.load_sized(data, set, database, None);
    }

    /// A set that is made can have any number of patients.
    pub fn load_sized(&self, data: &Path, set: &str, database: &str, patients: Option<u32>) {
        let mut load = Command::new(data.join(set).join("load.sh"));
        load.arg("pg").args(patients.map(|patients| patients.to_string()));
        self.environment(&mut load, database);
        shared::run(&mut load);
    }

    /// Makes `database`, which belongs to `owner`, and fills it as that role with one of the shared
    /// sets, small where it is made.
    pub fn load_as(&self, data: &Path, set: &str, owner: &str, database: &str) {
        self.query("postgres", &format!("create database {database} owner {owner} template template0 encoding 'UTF8'"));
        let mut load = Command::new(data.join(set).join("load.sh"));
        load.args(["pg", "50"]);
        self.environment(&mut load, database);
        shared::run(load.env("KEEP_DB", "1").env("PGUSER", owner));
    }

    /// The definitions of `database` as `pg_dump` prints them.
    pub fn definitions(&self, database: &str) -> String {
        let dump = shared::run(self.client("pg_dump", database).args(["--schema-only", "--no-sync"]));
        // The versions of server and program, and a key that differs each time.
        let is_version = |line: &&str| line.starts_with("-- Dumped ");
        let is_key = |line: &&str| line.starts_with("\\restrict ") || line.starts_with("\\unrestrict ");
        dump.lines().filter(|line| !is_key(line) && !is_version(line)).collect::<Vec<_>>().join("\n")
    }

    /// Every table's rows, and every definition, as comparable lines.
    pub fn fingerprint(&self, data: &Path, database: &str) -> String {
        let mut fingerprint = Command::new(data.join("pg_fingerprint.sh"));
        self.environment(&mut fingerprint, database);
        shared::run(&mut fingerprint)
    }

    /// What each column of each table holds, as comparable lines.
    pub fn columns(&self, data: &Path, database: &str) -> String {
        let mut fingerprint = Command::new(data.join("pg_fingerprint.sh"));
        fingerprint.arg("columns");
        self.environment(&mut fingerprint, database);
        shared::run(&mut fingerprint)
    }

    fn environment(&self, command: &mut Command, database: &str) {
        command.env("PGHOST", self.server.folder.path()).env("PGPORT", self.server.port.to_string());
        command.env("PGUSER", "postgres").env("PGDATABASE", database);
    }

    /// Has a process of the server die, upon which it ends all sessions and recovers by itself.
    pub fn crash(&self) {
        let sql = "select pid from pg_stat_activity where backend_type = 'checkpointer'";
        let checkpointer: i32 = self.query("postgres", sql).parse().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(checkpointer), Signal::SIGKILL).unwrap();
        let deadline = Instant::now() + COMES_BACK_WITHIN;
        let recovered = || {
            let mut psql = self.client("psql", "postgres");
            let output = psql.args(["-X", "-q", "-At", "-c", sql]).output().unwrap();
            String::from_utf8_lossy(&output.stdout).trim().parse().is_ok_and(|pid: i32| pid != checkpointer)
        };
        while !recovered() {
            assert!(Instant::now() < deadline, "the server does not come back");
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until no other client is connected to `database`.
    pub fn wait_until_idle(&self, database: &str) {
        let sql = format!("select count(*) from pg_stat_activity where datname = '{database}'");
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.query("postgres", &sql) != "0" {
            assert!(Instant::now() < deadline, "{database} still has sessions");
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// How many tables, views and sequences people made in `database`.
    pub fn objects(&self, database: &str) -> u64 {
        let sql = "select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace \
                   where n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_(toast|temp)'";
        self.query(database, sql).parse().unwrap()
    }
}

impl Server {
    fn start(&self) -> Service {
        let folder = self.folder.path();
        let log = folder.join("log");
        let log_file = fs::File::create(&log).unwrap();
        let mut command = self.user.command(&self.program);
        command.arg("-D").arg(folder.join("data")).arg("-k").arg(folder).args(["-p", &self.port.to_string()]);
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log_file);
        // SIGINT is "fast": open sessions are ended, not waited for.
        let mut service = Service::start(command, Signal::SIGINT);
        service.wait_until(&log, || {
            let mut ready = Command::new(self.programs.join("pg_isready"));
            ready.arg("-q").arg("-h").arg(folder).args(["-p", &self.port.to_string()]);
            ready.status().is_ok_and(|status| status.success())
        });
        service
    }
}

/// psql's exit code when it has lost its server, or has found none.
const PSQL_CONNECTION_LOST: i32 = 2;

/// Short: a unix socket's path may have 107 bytes.
fn folder() -> TempDir {
    tempfile::Builder::new().prefix("sealift-pg-").tempdir().unwrap()
}

/// A copy of the server's program that looks for extensions in `folder`, where this one is beside
/// those of the host: the server finds its files by where its program lies. `None` where they lie
/// otherwise than in Debian's packages.
fn extended(programs: &Path, folder: &Path, name: &str, version: &str, script: &str) -> Option<PathBuf> {
    let major = programs.parent()?.file_name()?;
    let share = Path::new("/usr/share/postgresql").join(major);
    if !programs.starts_with("/usr/lib/postgresql") || !share.join("extension").is_dir() {
        return None;
    }
    let link_all = |from: &Path, to: &Path| {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap().flatten().filter(|entry| entry.file_name() != "extension") {
            symlink(entry.path(), to.join(entry.file_name())).unwrap();
        }
    };
    let (own_share, own_lib) = (folder.join("share/postgresql").join(major), folder.join("lib/postgresql").join(major));
    link_all(&share, &own_share);
    link_all(&share.join("extension"), &own_share.join("extension"));
    let control = format!("default_version = '{version}'\n");
    fs::write(own_share.join(format!("extension/{name}.control")), control).unwrap();
    fs::write(own_share.join(format!("extension/{name}--{version}.sql")), script).unwrap();
    fs::create_dir_all(own_lib.join("bin")).unwrap();
    symlink(programs.parent()?.join("lib"), own_lib.join("lib")).unwrap();
    let server = own_lib.join("bin/postgres");
    fs::copy(programs.join("postgres"), &server).unwrap();
    Some(server)
}

/// Nothing here survives the test.
const WITHOUT_SYNC: &[&str] = &["fsync=off", "full_page_writes=off", "synchronous_commit=off"];

/// One transaction may lock every table of the widest set.
const SETTINGS: &[&str] = &[
    "listen_addresses=127.0.0.1",
    "max_locks_per_transaction=4096",
    "max_wal_size=4GB",
    "shared_buffers=64MB",
    "autovacuum=off",
    "log_min_messages=fatal",
];

/// `SEALIFT_POSTGRES`, a folder of server and client programs of any version; else the newest of
/// Debian's versioned folders, or wherever `initdb` is.
fn programs() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("SEALIFT_POSTGRES") {
        return Some(folder.into());
    }
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).max();
    match newest {
        Some(version) => Some(PathBuf::from(format!("/usr/lib/postgresql/{version}/bin"))),
        None => shared::find("initdb")?.parent().map(Path::to_path_buf),
    }
    .filter(|folder| folder.join("initdb").is_file())
}
