//! A throwaway MariaDB server: unix socket only, no durability, gone with the test.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::{
    service::{RunAs, Service},
    shared,
};

pub struct MariaDb {
    // Before the folder: fields are dropped in this order, and the server writes into the folder to
    // its end.
    service: Service,
    folder: TempDir,
}

/// Any process that reaches the socket may be this user: it has no password.
const USER: &str = "root";

impl MariaDb {
    /// Starts a server; `None`, and a word, where MariaDB is not installed.
    pub fn start() -> Option<Self> {
        if !["mariadbd", "mariadb-install-db", "mariadb", "mariadb-dump"].into_iter().all(shared::installed) {
            return None;
        }
        // Short: a unix socket's path may have 107 bytes.
        let folder = tempfile::Builder::new().prefix("sealift-my-").tempdir().unwrap();
        let user = RunAs::unprivileged("mysql");
        user.own(folder.path());
        // The client must reach the socket as any user.
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let data = folder.path().join("data");
        let mut install = user.command(shared::find("mariadb-install-db").unwrap());
        install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        shared::run(install.arg(format!("--datadir={}", data.display())).current_dir(folder.path()));

        let log = folder.path().join("log");
        let log_file = fs::File::create(&log).unwrap();
        let mut command = user.command(shared::find("mariadbd").unwrap());
        command.args(["--no-defaults", "--skip-networking", "--skip-log-bin"]);
        command.args(["--event-scheduler=OFF", "--local-infile=1", "--max-allowed-packet=256M"]);
        command.args(["--innodb-flush-log-at-trx-commit=0", "--innodb-flush-method=nosync", "--innodb-doublewrite=0"]);
        command.args(["--character-set-server=utf8mb4", "--collation-server=utf8mb4_general_ci"]);
        command.arg(format!("--datadir={}", data.display()));
        command.arg(format!("--socket={}", folder.path().join("socket").display()));
        command.arg(format!("--pid-file={}", folder.path().join("pid").display()));
        command.current_dir(folder.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log_file);
        let service = Service::start(command, Signal::SIGTERM);
        let mut server = Self { service, folder };
        let socket = server.socket();
        server.service.wait_until(&log, || {
            let mut ping = client_at(&socket, "mariadb");
            ping.args(["-e", "select 1"]).stdout(Stdio::null()).stderr(Stdio::null());
            ping.status().is_ok_and(|status| status.success())
        });
        Some(server)
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// What every client program needs to get here, as words of a command line.
    pub fn address(&self) -> String {
        format!("--no-defaults --socket={} --user={USER} --max-allowed-packet=256M", self.socket().display())
    }

    pub fn client(&self, program: &str) -> Command {
        client_at(&self.socket(), program)
    }

    pub fn query(&self, database: &str, sql: &str) -> String {
        let mut client = self.client("mariadb");
        shared::run(client.args(["-N", "-B", "--raw", "-e", sql, database])).trim_end().to_owned()
    }

    pub fn create_database(&self, name: &str, like: &str) {
        let sql = format!(
            "select concat('create database {name} character set ', default_character_set_name, ' collate ', \
             default_collation_name) from information_schema.schemata where schema_name = '{like}'"
        );
        let create = self.query("mysql", &sql);
        self.query("mysql", &create);
    }

    /// Creates `database` and fills it with one of the shared sets.
    pub fn load(&self, data: &Path, set: &str, database: &str) {
        let mut load = Command::new(data.join(set).join("load.sh"));
        self.environment(load.arg("mysql"), database);
        shared::run(&mut load);
    }

    /// Every table's rows, and every definition, as comparable lines.
    pub fn fingerprint(&self, data: &Path, database: &str) -> String {
        let mut fingerprint = Command::new(data.join("my_fingerprint.sh"));
        self.environment(&mut fingerprint, database);
        shared::run(&mut fingerprint)
    }

    fn environment(&self, command: &mut Command, database: &str) {
        command.env("MYSQL_UNIX_PORT", self.socket()).env("MYSQL_USER", USER).env("MYSQL_DATABASE", database);
    }
}

fn client_at(socket: &Path, program: &str) -> Command {
    let mut command = Command::new(program);
    command.args(["--no-defaults", "--max-allowed-packet=256M"]);
    command.arg(format!("--socket={}", socket.display())).arg(format!("--user={USER}"));
    command
}
