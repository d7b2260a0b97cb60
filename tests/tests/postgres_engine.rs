//! Issue 11: a PostgreSQL database from one server to another with whole agents, as people run
//! them.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt, path::PathBuf, thread, time::Duration};

use nix::sys::signal::Signal;
use sealift_tests::{agents::Launch, exit, pair::Pair, port::free_udp_port, postgres::Postgres, shared};
use tempfile::TempDir;

const WITHIN: Duration = Duration::from_secs(120);

/// The databases of a server, but for those that every server has.
fn databases(server: &Postgres) -> String {
    let sql =
        "select string_agg(datname, ' ' order by datname) from pg_database where datname !~ '^(template|postgres)'";
    server.query("postgres", sql)
}

/// D3, D4, D16, L1: rows, definitions and sequences arrive, are proven, and nothing else is left.
#[test]
fn an_ordinary_database_is_moved_and_proven() {
    let (Some(data), Some(from), Some(to)) = (shared::data_folder(), Postgres::start(), Postgres::start_durable())
    else {
        return;
    };
    for (set, name) in [("chinook", "chinook"), ("northwind-pg", "northwind"), ("sakila-pg", "sakila")] {
        from.load(&data, set, name);
        let moved = Pair::new(from.url(name), to.url(name)).within(WITHIN).run();
        moved.assert_done();
        assert_eq!(from.fingerprint(&data, name), to.fingerprint(&data, name), "{set}");
    }
    assert_eq!(databases(&to), "chinook northwind sakila");
}

/// Issue 11, "large objects with OIDs, owners and ACLs": of no byte, of one piece and of several,
/// with a hole; what a role that the target lacks has is left out, and said.
#[test]
fn large_objects_arrive_with_what_belongs_to_them() {
    let (Some(from), Some(to)) = (Postgres::start(), Postgres::start_durable()) else { return };
    from.create_database("scans");
    for server in [&from, &to] {
        server.query("postgres", "create role \"Dr. X\"; create role nurse");
    }
    from.query("postgres", "create role gone");
    from.query(
        "scans",
        "select lo_from_bytea(1000, ''), lo_from_bytea(1001, 'a'), lo_from_bytea(1002, repeat('b', 262144)::bytea), \
             lo_from_bytea(1003, repeat('c', 262145)::bytea), lo_from_bytea(4294967295, repeat('d', 5000000)::bytea), \
             lo_create(7); \
         select lo_put(7, 1000000, 'end'); \
         comment on large object 1001 is 'it''s'; alter large object 1002 owner to \"Dr. X\"; \
         grant select on large object 1002 to nurse with grant option; revoke update on large object 1002 from \"Dr. X\"; \
         grant update on large object 1003 to public; alter large object 7 owner to gone; grant select on large object 7 to nurse",
    );
    let moved = Pair::new(from.url("scans"), to.url("scans")).within(WITHIN).run();
    moved.assert_done();
    let objects = |owner: &str| {
        format!(
            "select string_agg(concat_ws(' ', oid, {owner}, case when oid <> 7 then (select string_agg(a::text, '|' order by a::text) from unnest(lomacl) a) end, \
                 obj_description(oid, 'pg_largeobject'), md5(lo_get(oid))), E'\\n' order by oid) from pg_largeobject_metadata"
        )
    };
    let expected = objects("case oid when 7 then 'postgres' else pg_get_userbyid(lomowner) end");
    assert_eq!(from.query("scans", &expected), to.query("scans", &objects("pg_get_userbyid(lomowner)")));
    assert_eq!(to.query("scans", "select count(*) from pg_largeobject_metadata where lomacl::text ~ 'nurse=r'"), "2");
    let findings = moved.receiver.events_named("finding");
    let told = findings
        .iter()
        .any(|event| event["name"] == "roles-missing" && event["what"].as_str().unwrap().contains("gone"));
    assert!(told, "{findings:?}");
}

/// A script of an extension: a table that it fills in part, one that refers to it, and a sequence.
const EXTENSION: &str = "
    CREATE TABLE @extschema@.codes (code text PRIMARY KEY, is_standard bool NOT NULL DEFAULT false);
    INSERT INTO codes VALUES ('standard', true);
    CREATE TABLE a_code_use (n int, code text REFERENCES codes);
    CREATE TABLE unmarked (n int); INSERT INTO unmarked VALUES (1);
    CREATE SEQUENCE numbers;
    SELECT pg_catalog.pg_extension_config_dump('codes', 'WHERE NOT is_standard');
    SELECT pg_catalog.pg_extension_config_dump('a_code_use', '');
    SELECT pg_catalog.pg_extension_config_dump('numbers', '');";

/// Issue 11, "extension configuration tables by extconfig and extcondition ... with differences of
/// version shown".
#[test]
fn rows_of_an_extensions_configuration_arrive() {
    let newer = EXTENSION.replace("('standard', true)", "('standard', true), ('newer', true)");
    let start = Postgres::start_with_extension;
    let (Some(from), Some(to)) = (start("ehr_codes", "1.0", EXTENSION), start("ehr_codes", "1.1", &newer)) else {
        return;
    };
    from.create_database("clinic");
    from.query(
        "clinic",
        "create extension ehr_codes; insert into codes values ('ours'), ('yours'); \
         insert into a_code_use select n, 'ours' from generate_series(1, 2000) n; insert into unmarked values (2); \
         select setval('numbers', 77); create table own (code text references codes); insert into own values ('yours')",
    );
    let moved = Pair::new(from.url("clinic"), to.url("clinic")).within(WITHIN).run();
    moved.assert_done();
    let content = "select (select string_agg(code, ' ' order by code) from codes), (select count(*) from a_code_use), \
                   (select sum(n) from unmarked), nextval('numbers'), (select code from own)";
    assert_eq!(to.query("clinic", content), "newer ours standard yours|2000|1|78|yours");
    let findings = moved.receiver.events_named("finding");
    let told = findings.iter().any(|event| {
        event["name"] == "extension-versions" && event["what"].as_str().unwrap().contains("ehr_codes 1.1 (source: 1.0)")
    });
    assert!(told, "{findings:?}");

    // What the source says is not run as SQL, unless the extension of the target says the same.
    from.query("clinic", "update pg_extension set extcondition[1] = 'WHERE true' where extname = 'ehr_codes'");
    let refused = Pair::new(from.url("clinic"), to.url("again")).within(WITHIN).run();
    refused.assert_codes(exit::UNUSABLE, exit::UNUSABLE);
    assert!(
        refused.receiver.message().contains("codes of an extension has other rows"),
        "{}",
        refused.receiver.message()
    );
}

/// A transfer whose receiver is stopped and started again with the same command.
struct Place {
    folder: TempDir,
    listens: SocketAddr,
    source: String,
    target: String,
}

impl Place {
    fn new(source: String, target: String) -> Self {
        let folder = tempfile::Builder::new().prefix("sealift-data-").tempdir().unwrap();
        for name in ["sender", "receiver"] {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(0o700)).unwrap();
        }
        let listens = SocketAddr::from(([127, 0, 0, 1], free_udp_port()));
        Self { folder, listens, source, target }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn receiver(&self) -> Launch {
        let at = self.listens.to_string();
        let launch = Launch::receiver(&self.target).state(&self.path("receiver")).ticket_at(&self.path("ticket"));
        launch.args(&["--bind", &at, "--address", &at]).json()
    }

    fn sender(&self) -> Launch {
        Launch::sender(&self.source, self.path("ticket")).state(&self.path("sender")).json()
    }
}

/// Issue 11, "stable finding names": each thing for which a source is refused is an event of its
/// own, and nothing is sent.
#[test]
fn a_refused_source_has_an_event_for_each_finding() {
    let Some(server) = Postgres::start_durable() else { return };
    server.create_database("clinic");
    server.query(
        "clinic",
        "create extension postgres_fdw; create server s foreign data wrapper postgres_fdw; \
         create user mapping for public server s; create table t (a int) ; alter table t enable row level security; \
         create role reader login in role pg_read_all_data; select lo_create(7)",
    );
    let place = Place::new(server.url("clinic").replace("postgres@", "reader@"), server.url("copy"));
    let mut receiver = place.receiver().start();
    receiver.ticket();
    let sender = place.sender().start().wait(WITHIN);
    assert_eq!(sender.code(), Some(exit::PREFLIGHT), "{}", sender.message());
    let errors = sender.events_named("finding").into_iter().filter(|event| event["severity"] == "error");
    let names: Vec<_> = errors.map(|event| event["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, ["large-objects", "user-mappings", "row-level-security"]);
    assert_eq!(databases(&server), "clinic");
}

/// Issue 11, "Include and exclude patterns by schema and table ... a pattern that matches nothing
/// is an error. `--dry-run` prints the plan and touches nothing".
#[test]
fn tables_are_chosen_and_shown_before_they_are_moved() {
    let Some(server) = Postgres::start_durable() else { return };
    server.create_database("clinic");
    server.query(
        "clinic",
        "create schema audit; create type mood as enum ('so'); \
         create table patient (id serial primary key, mood mood, note text); create index on patient (note); \
         insert into patient (mood) select 'so' from generate_series(1, 300); \
         create table visit (patient int references patient, at date) partition by range (at); \
         create table visit_old partition of visit for values from (minvalue) to (maxvalue); \
         insert into visit values (1, '2020-01-01'); create statistics of_visit on patient, at from visit; \
         create table audit.log (id bigint generated always as identity, what text); \
         insert into audit.log (what) values ('x'); create table \"Odd.Name\" (a int); \
         create function f(n int) returns int language sql as 'select n'; \
         create table secret (a int) ; alter table secret enable row level security; select lo_create(5); \
         create role reader login in role pg_read_all_data",
    );
    // A role that may not read everything may still read what is chosen.
    let source = server.url("clinic").replace("postgres@", "reader@");
    let dry = |arguments: &[&str]| {
        let mut sender = std::process::Command::new(sealift_tests::launch::program("sealift-sender"));
        sender.args(["push", "--dry-run", "--source", &source]).args(arguments);
        let output = sender.output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let chosen = ["--exclude", "audit.*", "--exclude", "SECRET", "--exclude", "pg_largeobject"];
    let (code, table, words) = dry(&chosen);
    assert_eq!(code, Some(exit::DONE), "{words}");
    let names = ["public.patient", "public.visit_old", "public.Odd.Name", "3 tables in 5 parts"];
    assert!(names.iter().all(|name| table.contains(name)) && !table.contains("audit"), "{table}");
    assert!(
        words.contains("audit.log") && words.contains("public.secret") && words.contains("all large objects"),
        "{words}"
    );
    let (_, json, _) = dry(&[&chosen[..], &["--json"]].concat());
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["schema"], &json["parts"][1]["table"]), (&"sealift.plan/1".into(), &"patient".into()), "{json}");
    assert_eq!(json["findings"][0]["name"], "left-out");
    // What needs a table that is left out; a pattern of nothing, and what is no pattern.
    let (code, _, words) = dry(&["--include", "visit"]);
    assert!(code == Some(exit::PREFLIGHT) && words.contains("visit_patient_fkey"), "{words}");
    for bad in ["nothing", "a.b.c", "p(", "Odd.Name"] {
        let (code, _, words) = dry(&["--exclude", bad]);
        assert!(code == Some(exit::USAGE) && words.contains(bad), "{words}");
    }

    let to = Postgres::start_durable().unwrap();
    let moved = Pair::new(source.clone(), to.url("clinic")).sender_args(&chosen).within(WITHIN).run();
    moved.assert_done();
    let content = "select (select count(*) from patient), (select count(*) from visit), nextval('patient_id_seq'), f(7), \
                   (select count(*) from pg_class where relname ~ '^(log|secret)'), (select count(*) from pg_largeobject_metadata)";
    assert_eq!(to.query("clinic", content), "300|1|301|7|0|0");
    let moved = Pair::new(source.clone(), to.url("two"))
        .sender_args(&["--include", "visit", "--include", "public.pat*", "--include", "\"Odd.Name\""])
        .within(WITHIN)
        .run();
    moved.assert_done();
    assert_eq!(to.query("two", "select count(*) from pg_statistic_ext"), "1");
}

const CLINIC: &str = "
    CREATE TABLE patient (id int PRIMARY KEY, name text, born date);
    INSERT INTO patient SELECT n, 'patient ' || n, '1950-01-01'::date + n FROM generate_series(1, 3000) n;
    CREATE TABLE visit (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, patient int REFERENCES patient, cost numeric);
    INSERT INTO visit (patient, cost) SELECT 1 + n % 3000, n / 7.0 FROM generate_series(1, 9000) n;
    CREATE INDEX ON visit (patient);
    SELECT lo_from_bytea(4711, repeat('scan', 200000)::bytea);
    CREATE MATERIALIZED VIEW totals AS SELECT patient, sum(cost) FROM visit GROUP BY 1;";

/// What must be the same: every row, and what comes after the rows.
const CONTENT: &str = "
    SELECT (SELECT md5(string_agg(p::text, '|' ORDER BY id)) FROM patient p), (SELECT md5(string_agg(v::text, '|' ORDER BY id)) FROM visit v),
           (SELECT md5(string_agg(t::text, '|' ORDER BY patient)) FROM totals t), (SELECT last_value FROM visit_id_seq),
           (SELECT string_agg(indexdef, '|' ORDER BY indexdef) FROM pg_indexes WHERE schemaname = 'public'),
           (SELECT string_agg(oid || md5(lo_get(oid)), '|') FROM pg_largeobject_metadata),
           (SELECT count(*) FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND convalidated)";

/// C2, N11: the receiver is killed at each point of the engine, and the same command ends it well.
#[test]
#[cfg_attr(not(debug_assertions), ignore = "fail points are not in this build")]
fn a_kill_at_every_fail_point_changes_nothing() {
    let (Some(from), Some(to)) = (Postgres::start(), Postgres::start_durable()) else { return };
    from.create_database("clinic");
    from.query("clinic", CLINIC);
    let points = sealift_postgres::SPEC.fail_points.iter().map(|point| point.name).enumerate();
    // One after the other, so that no two have one port.
    let places: Vec<_> = points
        .map(|(number, point)| {
            let name = format!("clinic_{number}");
            (point, Place::new(from.url("clinic"), to.url(&name)), name)
        })
        .collect();
    thread::scope(|scope| {
        for (point, place, name) in &places {
            let (from, to) = (&from, &to);
            scope.spawn(move || {
                let mut receiver = place.receiver().env("SEALIFT_FAIL_POINT", point).start();
                receiver.ticket();
                let sender = place.sender().start();
                let killed = receiver.wait(WITHIN);
                let words = killed.stderr();
                assert_eq!(killed.killed_by(), Some(Signal::SIGKILL as i32), "{point} is not reached:\n{words}");
                let receiver = place.receiver().start();
                let (sender, receiver) = (sender.wait(WITHIN), receiver.wait(WITHIN));
                let told = format!("{point}\n--- sender\n{}--- receiver\n{}", sender.message(), receiver.message());
                assert_eq!((sender.code(), receiver.code()), (Some(exit::DONE), Some(exit::DONE)), "{told}");
                assert_eq!(from.query("clinic", CONTENT), to.query(name, CONTENT), "{point}");
                let leftover = "select count(*) from pg_namespace where nspname = 'sealift'";
                assert_eq!(to.query(name, leftover), "0", "{point}");
            });
        }
    });
    let mut expected: Vec<_> = places.iter().map(|(_, _, name)| name.clone()).collect();
    expected.sort();
    assert_eq!(databases(&to), expected.join(" "));
}

/// D6, D11: rows that were changed in the target after they were loaded are found, the table is
/// named, no value is, and nothing is published.
#[test]
#[cfg_attr(not(debug_assertions), ignore = "fail points are not in this build")]
fn a_table_whose_rows_differ_is_named() {
    let (Some(from), Some(to)) = (Postgres::start(), Postgres::start_durable()) else { return };
    from.create_database("clinic");
    from.query("clinic", CLINIC);
    let place = Place::new(from.url("clinic"), to.url("clinic"));
    let mut receiver = place.receiver().env("SEALIFT_FAIL_POINT", "postgres-post-data-made").start();
    receiver.ticket();
    let sender = place.sender().start();
    assert_eq!(receiver.wait(WITHIN).killed_by(), Some(Signal::SIGKILL as i32));
    let staging = databases(&to);
    assert!(staging.starts_with("sealift_staging_"), "{staging}");
    to.query(&staging, "update patient set name = 'secret' where id = 5");
    let (sender, receiver) = (sender, place.receiver().start());
    let (sender, receiver) = (sender.wait(WITHIN), receiver.wait(WITHIN));
    let told = format!("--- sender\n{}\n--- receiver\n{}", sender.message(), receiver.message());
    assert_eq!((sender.code(), receiver.code()), (Some(exit::MISMATCH), Some(exit::MISMATCH)), "{told}");
    assert!(receiver.message().contains("table public.patient"), "{told}");
    assert!(!told.contains("secret"), "{told}");
    assert_eq!(databases(&to), "");
}

/// What an owner has who is no superuser.
const OWNED: &str = "
    CREATE SCHEMA clinic; CREATE TYPE clinic.sex AS ENUM ('f', 'm', 'x');
    CREATE FUNCTION clinic.twice(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * n';
    CREATE TABLE clinic.log (what text, sex clinic.sex); CREATE UNLOGGED TABLE clinic.scratch (a int);
    CREATE FUNCTION clinic.log() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO clinic.log VALUES (TG_OP); RETURN NULL; END';
    CREATE TRIGGER log AFTER INSERT ON patient EXECUTE FUNCTION clinic.log();
    ALTER TABLE clinic.log ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON clinic.log USING (what IS NOT NULL);
    CREATE INDEX ON visit (clinic.twice(patient)); CREATE STATISTICS clinic.both ON id, name FROM patient;
    CREATE PUBLICATION pub FOR TABLE patient; CREATE EXTENSION IF NOT EXISTS pgcrypto;
    REVOKE ALL ON SCHEMA public FROM PUBLIC; COMMENT ON SCHEMA public IS 'ours'; GRANT SELECT ON patient TO PUBLIC;
    ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC;";

/// Issue 11: a role with CREATEDB and nothing else moves what it owns, whole; what it cannot make
/// is named with the privilege that is missing before anything is made, and moved once it is there.
#[test]
fn a_role_that_is_no_superuser_moves_what_it_owns() {
    let (Some(from), Some(to)) = (Postgres::start(), Postgres::start_durable()) else { return };
    for server in [&from, &to] {
        server.query("postgres", "create role app login createdb; create role other");
    }
    from.query("postgres", "create database clinic template template0 owner app");
    let as_app = |server: &Postgres| server.url("clinic").replace("postgres@", "app@");
    from.query("clinic", &format!("SET SESSION AUTHORIZATION app; {CLINIC} {OWNED}"));
    Pair::new(as_app(&from), as_app(&to)).within(WITHIN).run().assert_done();
    assert_eq!(from.query("clinic", CONTENT), to.query("clinic", CONTENT));
    let owners = "select (select rolname from pg_database d join pg_roles r on r.oid = datdba where datname = 'clinic'), \
                  (select string_agg(distinct relowner::regrole::text, ' ') from pg_class where oid > 16384)";
    assert_eq!(to.query("clinic", owners), "app|app");
    to.query("postgres", "drop database clinic");

    // The source is read by a superuser, since not all of it is the owner's. One owner may create
    // nothing in the schema of its table, and has row-level security forced upon it.
    from.query(
        "clinic",
        "create schema theirs authorization other; create table theirs.t (n int); alter table theirs.t owner to other; \
         create schema ours authorization app; create table ours.t (n int); alter table ours.t owner to other; \
         insert into theirs.t select generate_series(1, 9); create policy none on theirs.t using (false); \
         alter table theirs.t enable row level security; alter table theirs.t force row level security; \
         create function stop() returns event_trigger language plpgsql as 'begin end'; \
         create event trigger stop on sql_drop execute function stop()",
    );
    let refused = Pair::new(from.url("clinic"), as_app(&to)).within(WITHIN).run();
    let told = refused.receiver.message();
    for named in [
        "other (role-memberships)",
        "event trigger stop, objects of the superuser postgres (superuser-needed)",
        "GRANT",
    ] {
        assert!(told.contains(named), "{named}: {told}");
    }
    assert_eq!(refused.receiver.code(), Some(exit::PREFLIGHT), "{told}");
    assert_eq!(databases(&to), "", "nothing was made");
    from.query("clinic", "drop event trigger stop; alter function stop() owner to app");
    to.query("postgres", "grant other to app");
    Pair::new(from.url("clinic"), as_app(&to)).within(WITHIN).run().assert_done();
    let owners = "select string_agg(relowner::regrole::text, ' ') from pg_class where oid in ('theirs.t'::regclass, 'ours.t'::regclass)";
    assert_eq!(to.query("clinic", owners), "other other");
    assert_eq!(to.query("clinic", "select count(*) from theirs.t"), "9");
    assert_eq!(to.query("clinic", "select has_schema_privilege('other', 'ours', 'create')"), "f");
}
