//! The client of PostgreSQL over TLS, with a password by reference.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use sealift_engine_api::{Source, StopToken};
use sealift_postgres::{
    PostgresSource,
    client::{Address, Connection, End, Error},
};
use sealift_protocol::{close::Code, failure::Outcome};
use sealift_tests::postgres::Postgres;
use tempfile::TempDir;

const PASSWORD: &str = "se:cr\\et";
const ROW_BYTES_MAX: usize = 1 << 20;

/// A server that takes TLS and a password and nothing else, and what a client needs for it.
struct Guarded {
    server: Postgres,
    folder: TempDir,
}

fn authority(name: &str) -> (String, Issuer<'static, KeyPair>) {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    // Another name than the certificates that it issues have.
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    (certificate, Issuer::new(params, key))
}

impl Guarded {
    fn start() -> Option<Self> {
        let server = Postgres::start()?;
        let folder = tempfile::tempdir().unwrap();
        let (root, issuer) = authority("authority.test");
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let data = server.socket_folder().join("data");
        write(&data, "server.crt", &leaf.pem());
        write(&data, "server.key", &key.serialize_pem());
        let rules = "local all postgres trust\nhostssl all all 127.0.0.1/32 scram-sha-256\nhost all all all reject\n";
        write(&data, "pg_hba.conf", rules);
        server.query("postgres", &format!("create role app login password '{PASSWORD}'"));
        server.query("postgres", "create database d owner app");
        server.query("d", "create table t as select 1 as a; alter table t owner to app");
        server.query("postgres", "alter system set ssl = on");
        server.query("postgres", "select pg_reload_conf()");
        let this = Self { server, folder };
        this.keep("root.crt", &root);
        this.keep("other.crt", &authority("other.test").0);
        this.keep("pgpass", "localhost:*:*:app:se\\:cr\\\\et\n");
        this.keep("wrong", "*:*:*:app:wrong-secret\n");
        // The server reads its files again in its own time.
        while this.server.query("postgres", "show ssl") != "on" {
            thread::sleep(Duration::from_millis(20));
        }
        Some(this)
    }

    fn keep(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn address(&self, host: &str, root: &str, passwords: &str) -> Address {
        let (folder, port) = (self.folder.path().display(), self.server.port());
        let url = format!(
            "//app@{host}:{port}/d?hostaddr=127.0.0.1&sslmode=verify-full&sslrootcert={folder}/{root}&passfile={folder}/{passwords}"
        );
        Address::parse(&url).unwrap()
    }

    fn refused(&self, host: &str, root: &str, passwords: &str) -> String {
        let opened = Connection::open(&self.address(host, root, passwords), End::Source, ROW_BYTES_MAX);
        let failure = opened.err().unwrap().at(End::Source, "connecting");
        assert_eq!(failure.code, Code::SourceFailed);
        let shown = failure.to_string();
        assert!(!shown.contains("secret") && !shown.contains("se:cr"), "{shown}");
        shown
    }
}

/// A file of the server's.
fn write(data: &Path, name: &str, text: &str) {
    let owner = fs::metadata(data).unwrap();
    let path = data.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
}

struct Never;

impl StopToken for Never {
    fn check(&self) -> Outcome {
        Ok(())
    }

    fn wakes(&self, _wake: Box<dyn FnOnce() + Send>) {}
}

/// Issue 11, "Leaks": TLS to the server is verified, and passwords come by reference alone, for
/// `pg_dump` as for the sessions.
#[test]
fn a_server_is_verified_before_it_gets_a_password() {
    let Some(guarded) = Guarded::start() else { return };
    let address = guarded.address("localhost", "root.crt", "pgpass");
    let mut connection =
        Connection::open(&address, End::Source, ROW_BYTES_MAX).map_err(|error| error.at(End::Source, "x")).unwrap();
    let sql = "select version from pg_stat_ssl where ssl and pid = pg_backend_pid()";
    assert_eq!(connection.query_one(sql, &[]).unwrap().get::<_, String>(0), "TLSv1.3");
    let planned =
        Box::new(PostgresSource::new(address)).plan(Arc::new(Never)).map_err(|failure| failure.to_string()).unwrap();
    assert_eq!(planned.plan.parts.len(), 3);

    assert!(guarded.refused("localhost", "other.crt", "pgpass").contains("certificate"));
    assert!(guarded.refused("db.example.org", "root.crt", "pgpass").contains("certificate"));
    assert!(guarded.refused("localhost", "root.crt", "wrong").contains("28P01"));
    assert!(guarded.refused("localhost", "root.crt", "none").contains("password"));
    let plain = Address::parse(&format!("//app@localhost:{}/d", guarded.server.port())).unwrap();
    let refused = Connection::open(&plain, End::Source, ROW_BYTES_MAX).err().unwrap();
    assert_eq!(refused.sqlstate(), Some("28000"));
}

/// An interruption ends a call that waits, and the server's statement too, over TLS.
#[test]
fn an_interrupted_statement_ends_on_the_server() {
    let Some(guarded) = Guarded::start() else { return };
    let address = guarded.address("localhost", "root.crt", "pgpass");
    let mut connection =
        Connection::open(&address, End::Source, ROW_BYTES_MAX).map_err(|error| error.at(End::Source, "x")).unwrap();
    let interrupt = connection.interrupt().unwrap();
    let sleeping = "select count(*) from pg_stat_activity where query like 'select pg_sleep%' and state = 'active'";
    thread::scope(|scope| {
        let call = scope.spawn(|| connection.batch("select pg_sleep(600)"));
        while guarded.server.query("postgres", sleeping) != "1" {
            thread::sleep(Duration::from_millis(20));
        }
        interrupt.interrupt();
        assert!(matches!(call.join().unwrap(), Err(Error::Interrupted)));
    });
    assert!(matches!(connection.batch("select 1"), Err(Error::Interrupted)));
    while guarded.server.query("postgres", sleeping) != "0" {
        thread::sleep(Duration::from_millis(20));
    }
}
