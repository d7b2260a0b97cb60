//! `check` of both agents, and what a transfer does with what it finds: whole agents and real
//! servers.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use sealift_agent::preflight::{OF_FAILURES, table};
use sealift_engine_api::{EngineSpec, Finding, Severity};
use sealift_engines::ENGINES;
use sealift_tests::{
    agents::{Launch, RECEIVER, SENDER},
    exit,
    finished::Finished,
    grid::Content,
    link::Faults,
    pair::Pair,
    place::{Kind, Place},
    postgres::Postgres,
    shared::workspace_root,
};

const WITHIN: Duration = Duration::from_secs(120);

fn check(program: &str, arguments: &[&str]) -> Finished {
    Launch::bare(program, &[&["check"], arguments].concat()).start().wait(WITHIN)
}

/// Name and severity of each finding that is worse than a fact; a waived error is `waived`.
fn found(checked: &Finished) -> BTreeMap<String, String> {
    let events = checked.events_named("finding").into_iter().filter(|event| event["severity"] != "fact");
    let found = events.map(|event| {
        let severity = if event["waived"] == true { "waived".into() } else { event["severity"].clone() };
        (event["name"].as_str().unwrap().to_owned(), severity.as_str().unwrap().to_owned())
    });
    found.collect()
}

fn expected(findings: &[(&str, &str)]) -> BTreeMap<String, String> {
    findings.iter().map(|(name, severity)| ((*name).to_owned(), (*severity).to_owned())).collect()
}

/// A server on which a transfer meets much at once.
const TROUBLED: &[&str] = &[
    "fsync=off",
    "full_page_writes=off",
    "log_statement=all",
    "max_connections=12",
    "max_locks_per_transaction=10",
    "max_prepared_transactions=2",
    "statement_timeout=50min",
    "wal_level=logical",
];

/// A psql session that keeps a table from being read, until it is dropped.
struct Holding(Child);

impl Holding {
    fn table(server: &Postgres, database: &str, table: &str) -> Self {
        let sql = format!("begin; lock table {table}; select pg_sleep(600)");
        let psql = server
            .client("psql", database)
            .args(["-X", "-c", &sql])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let holding = Self(psql.unwrap());
        let held =
            "select count(*) from pg_locks where mode = 'AccessExclusiveLock' and granted and relation is not null";
        let deadline = Instant::now() + Duration::from_secs(30);
        while server.query(database, held) == "0" {
            assert!(Instant::now() < deadline, "the lock is not taken");
            thread::sleep(Duration::from_millis(50));
        }
        holding
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Issue 11, its last bullet; D14, D15, L8, G11: one look finds all that a transfer would meet at a
/// source, in one run, and a transfer says the same and sends nothing.
#[test]
fn everything_about_a_source_is_found_at_once() {
    let Some(server) = Postgres::start_durable_with(TROUBLED) else { return };
    server.query("postgres", "create database ehr template template0 locale_provider icu icu_locale 'en'");
    server.query("postgres", "update pg_database set datcollversion = '0' where datname = 'ehr'");
    server.query(
        "ehr",
        "create role reader login createrole replication connection limit 6; create table patient (id int, name text); \
         create table secret (a int); create unlogged table scratch (a int); grant select, insert on patient, scratch to reader; \
         create function code(a int) returns int immutable language sql as 'select a'; create index on patient (code(id)); \
         grant create on schema public to public; \
         select pg_create_physical_replication_slot('forgotten', true)",
    );
    server.query("ehr", "begin; insert into secret values (1); prepare transaction 'left'");
    for some in ["a", "b", "c"] {
        let create = format!("execute 'create table {some}' || n || ' (n int)'");
        server.query("ehr", &format!("do $$ begin for n in 1..60 loop {create}; end loop; end $$"));
    }
    server.query("ehr", "grant select on all tables in schema public to reader; revoke all on secret from reader");
    let holding = Holding::table(&server, "ehr", "patient");
    let source = server.url("ehr").replace("postgres@", "reader@");

    let checked = check(SENDER, &["--source", &source, "--json"]);
    assert_eq!(checked.code(), Some(exit::PREFLIGHT), "{}", checked.message());
    let all = expected(&[
        ("collation-versions", "warning"),
        ("connections", "warning"),
        ("fsync-off", "warning"),
        ("locked-tables", "warning"),
        ("locks", "error"),
        ("logs-quote-values", "note"),
        ("prepared-transactions", "warning"),
        ("privileges-beyond-need", "warning"),
        ("public-schema", "warning"),
        ("replication-slots", "note"),
        ("search-path", "warning"),
        ("unlogged-tables", "note"),
        ("unreadable", "error"),
    ]);
    assert_eq!(found(&checked), all);
    let events = checked.events_named("finding");
    let what = |name: &str| events.iter().find(|event| event["name"] == name).unwrap()["what"].as_str().unwrap();
    let beyond = what("privileges-beyond-need");
    assert!(["CREATEROLE", "REPLICATION", "writing to"].iter().all(|word| beyond.contains(word)), "{beyond}");
    assert!(what("unreadable").ends_with(": public.secret"), "{}", what("unreadable"));
    assert!(what("session-timeouts").contains("statement_timeout = 3000000ms"), "{}", what("session-timeouts"));
    let facts = ["server", "pg-dump", "clock-skew", "locale", "extensions-present", "content", "xid-age", "snapshot"];
    assert!(facts.iter().all(|name| !what(name).is_empty()));

    // What may be accepted by name is, what may not is left; and nothing was locked or changed.
    let waived = ["--source", &source, "--json", "--exclude", "secret", "--waive", "locks", "--waive", "xid-age"];
    let checked = check(SENDER, &waived);
    let left = found(&checked);
    assert_eq!((left["locks"].as_str(), left["locked-tables"].as_str()), ("waived", "warning"), "{left:?}");
    assert!(!left.contains_key("unreadable"), "{left:?}");
    let notices = checked.events_named("notice");
    assert!(notices.len() == 1 && notices[0]["what"].as_str().unwrap().contains("'xid-age'"), "{notices:?}");

    // A transfer looks, too, before it waits for anything; to the sender nothing is sent.
    let mut receiver = Launch::receiver("discard:").bind_loopback().start();
    let sender = Launch::sender(&source, receiver.ticket()).json().start().wait(WITHIN);
    assert_eq!(sender.code(), Some(exit::PREFLIGHT), "{}", sender.message());
    assert_eq!(found(&sender), all);
    drop(holding);

    // People read a table.
    let table = check(SENDER, &["--source", &source]);
    let printed = String::from_utf8(table.stdout()).unwrap();
    assert!(printed.starts_with("SEVERITY  NAME ") && printed.contains("error     unreadable "), "{printed}");
    assert!(printed.lines().all(|line| line.chars().count() <= 130), "{printed}");
    assert!(table.stderr().contains("the preflight found"), "{}", table.stderr());
}

/// Issue 11, its last bullet, "findings waived by name only"; `fsync=off`: a target is looked at, a
/// dangerous error is accepted if that is typed, and the audit log has it.
#[test]
fn a_target_is_looked_at_and_a_danger_has_to_be_typed() {
    let (Some(from), Some(to)) = (Postgres::start(), Postgres::start_durable_with(TROUBLED)) else { return };
    from.create_database("ehr");
    to.create_database("taken");
    from.query("ehr", "create table patient (id int); insert into patient values (1)");
    to.query(
        "postgres",
        "create role loader login; \
         select pg_create_physical_replication_slot('forgotten', true)",
    );
    let target = to.url("ehr").replace("postgres@", "loader@");
    let checked = check(RECEIVER, &["--target", &target, "--json"]);
    assert_eq!(checked.code(), Some(exit::PREFLIGHT), "{}", checked.message());
    let all = expected(&[
        ("connections", "warning"),
        ("createdb", "error"),
        ("fsync-off", "error"),
        ("full-page-writes-off", "error"),
        ("logs-quote-values", "warning"),
        ("replication-slots", "warning"),
    ]);
    assert_eq!(found(&checked), all);
    let facts: BTreeSet<_> = checked.events_named("finding").iter().map(|event| event["name"].to_string()).collect();
    assert!(
        ["free-space", "extensions-available", "locks", "locale"]
            .iter()
            .all(|name| facts.contains(&format!("\"{name}\"")))
    );
    let checked = check(RECEIVER, &["--target", &to.url("taken"), "--json"]);
    assert_eq!(found(&checked)["target-in-the-way"], "error");

    let dangers = ["--danger-waive", "fsync-off", "--danger-waive", "full-page-writes-off"];
    let refused = Launch::receiver(&to.url("ehr")).bind_loopback().args(&dangers[..2]).json().start().wait(WITHIN);
    assert_eq!(refused.code(), Some(exit::PREFLIGHT));
    assert!(refused.message().contains("full-page-writes-off") && !refused.message().contains("(fsync-off)"));
    let moved = Pair::new(from.url("ehr"), to.url("ehr")).receiver_args(&dangers).within(WITHIN).run();
    moved.assert_done();
    assert_eq!(to.query("ehr", "select count(*) from patient"), "1");
    let log = fs::read_to_string(moved.receiver.state_dir().join("audit.jsonl")).unwrap();
    assert_eq!(log.matches("\"finding.waived\"").count(), 2, "{log}");
    assert!(log.contains("\"name\":\"fsync-off\""), "{log}");

    // The same of a configuration, whose targets are looked at by name.
    let config = moved.receiver.home().join("receiver.toml");
    let url = to.url("other");
    let write = |more: &str| fs::write(&config, format!("[targets.ehr]\nurl = \"{url}\"\n{more}")).unwrap();
    write("danger_waive = [\"fsync-off\", \"full-page-writes-off\"]");
    let checked = check(RECEIVER, &["--config", config.to_str().unwrap(), "--json"]);
    assert_eq!(checked.code(), Some(exit::DONE), "{}", checked.message());
    assert!(checked.events_named("finding").iter().all(|event| event["target"] == "ehr"));
    write("waive = [\"fsync-off\"]");
    let checked = check(RECEIVER, &["--config", config.to_str().unwrap(), "--json"]);
    assert!(
        checked.code() == Some(exit::USAGE) && checked.message().contains("--danger-waive"),
        "{}",
        checked.message()
    );
}

/// Errors of any engine are accepted by name, in a transfer and in the audit log; what cannot be is
/// a mistake in the arguments.
#[test]
fn an_error_is_waived_by_name_alone() {
    let content = Content { tables: 1, ranges: 1, rows: 3, bytes: 10, widest: 0, finding: Some(Severity::Error) };
    let place = Place::new(Kind::Grid(content), Faults::default(), 4);
    let mut receiver = place.receiver().start();
    receiver.ticket();
    let sender = place.sender().args(&["--waive", "grid-error"]).start().wait(WITHIN);
    assert_eq!(sender.code(), Some(exit::DONE), "{}", sender.message());
    assert_eq!(receiver.wait(WITHIN).code(), Some(exit::DONE));
    assert_eq!(found(&sender)["grid-error"], "waived");
    place.assert_done();

    for (arguments, says) in [
        (["--waive", "fsync"], "there is no finding 'fsync'"),
        (["--waive", "fsync-off"], "Type --danger-waive fsync-off"),
        (["--danger-waive", "locks"], "Type --waive locks"),
        (["--waive", "standby"], "cannot be waived"),
    ] {
        let source = ["--source", "postgres://nobody@/x?host=/nowhere"];
        let refused = check(SENDER, &[&source[..], &arguments].concat());
        refused.assert_code(exit::USAGE);
        assert!(refused.stderr().contains(says), "{}", refused.stderr());
    }
    // What cannot be looked at is an error by a name, too.
    let away = check(SENDER, &["--source", "postgres://nobody@/x?host=/nowhere", "--json"]);
    assert_eq!(away.code(), Some(exit::PREFLIGHT));
    assert_eq!(found(&away), expected(&[("source-unusable", "error")]));
}

#[test]
fn the_table_has_what_was_found_and_what_to_do() {
    let mut waived = Finding::error("fsync-off", "the target's server runs with fsync = off", "Set fsync = on.");
    waived.is_waived = true;
    let long = "the address leads to a pooler that gives each transaction another session, so that neither a snapshot \
                nor a lock outlives one";
    let findings = [
        Finding::error("pooler", long, "Give the address of the server itself."),
        waived,
        Finding::warning(
            "clock-skew",
            "the server's clock differs from this host's by 300 seconds",
            "Set both with NTP.",
        ),
        Finding::fact("server", "PostgreSQL 15.18 at postgres://a@/b\u{1b}[2J"),
    ];
    insta::assert_snapshot!("table", table(&findings, None));
    insta::assert_snapshot!("table_without_errors", table(&findings[1..], Some("ehr_prod")));
}

/// The names that the sources of an engine give to findings.
fn named_in_source(engine: &EngineSpec) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut folders = vec![workspace_root().join("engines").join(engine.name).join("src")];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]").next().unwrap_or_default();
            let made = text.split("Finding::").skip(1).map(|rest| rest.split_once('(').map_or("", |(_, rest)| rest));
            let looked =
                text.split(" Look {").skip(1).map(|rest| rest.split_once("name:").map_or("", |(_, rest)| rest));
            // `Finding::new` has the severity first.
            let arguments = made.chain(looked).map(|rest| rest.split(';').next().unwrap_or_default());
            names.extend(arguments.filter_map(|rest| {
                let (before, name) = rest.split_once('"')?;
                let name = name.split('"').next()?;
                let is_first = before.trim().is_empty() || before.trim().ends_with(',') && before.len() < 60;
                is_first.then(|| name.to_owned())
            }));
        }
    }
    names
}

/// "A test keeps the list complete": each name that an engine uses is declared, each that is
/// declared is used, and the documents say what it means.
#[test]
fn the_list_of_findings_is_complete() {
    let read = |path: &str| fs::read_to_string(workspace_root().join(path)).unwrap();
    let operations = read("docs/operations.md");
    for engine in ENGINES.specs {
        let declared: BTreeSet<String> = engine.findings.iter().map(|kind| kind.name.to_owned()).collect();
        assert_eq!(declared.len(), engine.findings.len(), "{}: a name twice", engine.name);
        assert_eq!(named_in_source(engine), declared, "{}", engine.name);
        let document = if engine.name == "postgres" { read("docs/postgres.md") } else { operations.clone() };
        for name in &declared {
            assert!(document.contains(&format!("\n| `{name}` |")), "{name} is in no table of the documents");
        }
    }
    for name in OF_FAILURES {
        assert!(operations.contains(&format!("\n| `{name}` |")), "{name}");
    }
}

/// The settings of a pooler in front of `server`.
fn pooler_settings(server: &Postgres, folder: &Path, port: u16, mode: &str) -> PathBuf {
    let users = folder.join("users");
    fs::write(&users, "\"postgres\" \"\"\n").unwrap();
    let settings = folder.join(mode);
    let text = format!(
        "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
         auth_type = any\npool_mode = {mode}\nauth_file = {}\nignore_startup_parameters = extra_float_digits\n",
        server.socket_folder().display(),
        server.port(),
        users.display()
    );
    let text = text.replace("* = host", "* = user=postgres host");
    fs::write(&settings, text).unwrap();
    settings
}

/// Issue 11, "Transaction poolers ... are recognised and refused or explained". Where PgBouncer is
/// installed.
#[test]
fn a_pooler_in_between_is_recognised() {
    let pgbouncer = Path::new("/usr/sbin/pgbouncer");
    if !pgbouncer.is_file() {
        eprintln!("SKIP a pooler in between: PgBouncer is not installed");
    }
    let Some(server) = Postgres::start().filter(|_| pgbouncer.is_file()) else { return };
    server.create_database("ehr");
    server.query("ehr", "create table t (a int)");
    for (mode, severity) in [("transaction", "error"), ("session", "warning")] {
        let folder = tempfile::Builder::new().prefix("sealift-pooler-").tempdir().unwrap();
        let port = sealift_tests::port::free_tcp_port();
        let settings = pooler_settings(&server, folder.path(), port, mode);
        let user = sealift_tests::service::RunAs::unprivileged("postgres");
        user.own(folder.path());
        let mut command: Command = user.command(pgbouncer);
        let log = fs::File::create(folder.path().join("log")).unwrap();
        command.arg(&settings).current_dir(folder.path()).stdout(Stdio::null()).stderr(log);
        let mut pooler = Holding(command.spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline && pooler.0.try_wait().unwrap().is_none(), "no pooler");
            thread::sleep(Duration::from_millis(50));
        }
        let checked = check(SENDER, &["--source", &format!("postgres://postgres@127.0.0.1:{port}/ehr"), "--json"]);
        let found = found(&checked);
        let events = checked.events();
        assert_eq!(found.get("pooler").map(String::as_str), Some(severity), "{mode}: {events:#?}");
    }
    let checked = check(SENDER, &["--source", &server.url("ehr"), "--json"]);
    assert!(!found(&checked).contains_key("pooler"));
}
