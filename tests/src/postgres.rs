//! A throwaway PostgreSQL cluster: unix socket and loopback, superuser `postgres`, gone with the
//! test; without durability, unless that is asked for.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::{
    port::free_tcp_port,
    service::{RunAs, Service},
    shared,
};

pub struct Postgres {
    // Before the folder: fields are dropped in this order, and the server writes into the folder to
    // its end.
    service: Service,
    folder: TempDir,
    port: u16,
    programs: PathBuf,
}

impl Postgres {
    /// Starts a cluster that syncs nothing; `None`, and a word, where PostgreSQL is not installed.
    pub fn start() -> Option<Self> {
        Self::start_with(&[SETTINGS, WITHOUT_SYNC].concat())
    }

    /// One that keeps what it says it has, as a target of Sealift's must.
    pub fn start_durable() -> Option<Self> {
        Self::start_with(SETTINGS)
    }

    fn start_with(settings: &[&str]) -> Option<Self> {
        let Some(programs) = programs() else {
            shared::skip("PostgreSQL is not installed", true);
            return None;
        };
        // Short: a unix socket's path may have 107 bytes.
        let folder = tempfile::Builder::new().prefix("sealift-pg-").tempdir().unwrap();
        let user = RunAs::unprivileged("postgres");
        user.own(folder.path());
        let data = folder.path().join("data");
        let mut initdb = user.command(programs.join("initdb"));
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]);
        shared::run(initdb.arg("-D").arg(&data).current_dir(folder.path()));

        let port = free_tcp_port();
        let log = folder.path().join("log");
        let log_file = fs::File::create(&log).unwrap();
        let mut command = user.command(programs.join("postgres"));
        command.arg("-D").arg(&data).arg("-k").arg(folder.path()).args(["-p", &port.to_string()]);
        for setting in settings {
            command.args(["-c", setting]);
        }
        command.current_dir(folder.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log_file);
        // SIGINT is "fast": open sessions are ended, not waited for.
        let mut service = Service::start(command, Signal::SIGINT);
        let socket = folder.path().to_path_buf();
        service.wait_until(&log, || {
            let mut ready = Command::new(programs.join("pg_isready"));
            ready.arg("-q").arg("-h").arg(&socket).args(["-p", &port.to_string()]);
            ready.status().is_ok_and(|status| status.success())
        });
        Some(Self { service, folder, port, programs })
    }

    pub fn pid(&self) -> u32 {
        self.service.pid()
    }

    pub fn socket_folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// What every client program needs to find `database` here, as words of a command line.
    pub fn address(&self, database: &str) -> String {
        format!("-h {} -p {} -U postgres -d {database}", self.folder.path().display(), self.port)
    }

    /// The URL of `database` here.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@/{database}?host={}&port={}", self.folder.path().display(), self.port)
    }

    /// A client program with the address in its environment.
    pub fn client(&self, program: &str, database: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.env("PGHOST", self.folder.path()).env("PGPORT", self.port.to_string());
        command.env("PGUSER", "postgres").env("PGDATABASE", database);
        command
    }

    /// The full path of a client program that fits this server.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// Runs SQL and returns what it prints, unaligned, without headers.
    pub fn query(&self, database: &str, sql: &str) -> String {
        let mut psql = self.client("psql", database);
        shared::run(psql.args(["-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-c", sql])).trim_end().to_owned()
    }

    /// Empty, without even the objects that an administrator put into template1.
    pub fn create_database(&self, name: &str) {
        self.query("postgres", &format!("create database {name} template template0 encoding 'UTF8'"));
    }

    /// Creates `database` and fills it with one of the shared sets.
    pub fn load(&self, data: &Path, set: &str, database: &str) {
        let mut load = Command::new(data.join(set).join("load.sh"));
        self.environment(load.arg("pg"), database);
        shared::run(&mut load);
    }

    /// Every table's rows, and every definition, as comparable lines.
    pub fn fingerprint(&self, data: &Path, database: &str) -> String {
        let mut fingerprint = Command::new(data.join("pg_fingerprint.sh"));
        self.environment(&mut fingerprint, database);
        shared::run(&mut fingerprint)
    }

    fn environment(&self, command: &mut Command, database: &str) {
        command.env("PGHOST", self.folder.path()).env("PGPORT", self.port.to_string());
        command.env("PGUSER", "postgres").env("PGDATABASE", database);
    }

    /// Has a process of the server die, upon which it ends all sessions and recovers by itself.
    pub fn crash(&self) {
        let sql = "select pid from pg_stat_activity where backend_type = 'checkpointer'";
        let checkpointer: i32 = self.query("postgres", sql).parse().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(checkpointer), Signal::SIGKILL).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let recovered = || {
            let mut psql = self.client("psql", "postgres");
            let output = psql.args(["-X", "-q", "-At", "-c", sql]).output().unwrap();
            String::from_utf8_lossy(&output.stdout).trim().parse().is_ok_and(|pid: i32| pid != checkpointer)
        };
        while !recovered() {
            assert!(std::time::Instant::now() < deadline, "the server does not come back");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }

    /// Waits until no other client is connected to `database`.
    pub fn wait_until_idle(&self, database: &str) {
        let sql = format!("select count(*) from pg_stat_activity where datname = '{database}'");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while self.query("postgres", &sql) != "0" {
            assert!(std::time::Instant::now() < deadline, "{database} still has sessions");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }

    /// How many tables, views and sequences people made in `database`.
    pub fn objects(&self, database: &str) -> u64 {
        let sql = "select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace \
                   where n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_(toast|temp)'";
        self.query(database, sql).parse().unwrap()
    }
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
