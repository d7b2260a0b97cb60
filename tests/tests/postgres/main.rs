//! PostgreSQL as a target: real databases, a real server that syncs what it commits, and one load
//! in this process.

mod dumped;
mod objects;
mod read_back;

use std::path::PathBuf;

use sealift_agent::failure::{Failure, Outcome};
use sealift_engine_api::{Abandoned, LeftAt, Recovery, Severity};
use sealift_postgres::{PostgresTarget, client::Address};
use sealift_protocol::{
    close::Code,
    digest::Digests,
    disposition::Asks,
    id::{PartIndex, TransferId},
    key::DigestSecret,
    manifest::Evidence,
    receive::Found,
};
use sealift_tests::{
    one_load::{OneLoad, write_part},
    postgres::{Postgres, Proxy},
    shared,
};

use self::dumped::Dumped;

const TRANSFER: TransferId = TransferId([1; 16]);

const STAGING: &str = "sealift_staging_01010101010101010101010101010101";

const ROW_BYTES_MAX: usize = 16 << 20;

/// A server with a source database `from`, and what is sent of it.
struct Place {
    server: Postgres,
    dumped: Dumped,
    data: Option<PathBuf>,
}

fn digests() -> Digests {
    Digests::new(&DigestSecret::from_bytes([7; 32]))
}

impl Place {
    /// With one of the shared sets.
    fn with_set(set: &str) -> Option<Self> {
        let data = shared::data_folder()?;
        let server = Postgres::start_durable()?;
        server.load(&data, set, "source");
        let dumped = Dumped::of(&server, "source", &digests());
        Some(Self { server, dumped, data: Some(data) })
    }

    /// With what these statements make.
    fn with_sql(sql: &str) -> Option<Self> {
        let server = Postgres::start_durable()?;
        server.create_database("source");
        server.query("source", sql);
        let dumped = Dumped::of(&server, "source", &digests());
        Some(Self { server, dumped, data: None })
    }

    fn target(&self) -> PostgresTarget {
        self.target_at(&self.server.url("ehr"))
    }

    fn target_at(&self, url: &str) -> PostgresTarget {
        PostgresTarget::new(Address::parse(url.strip_prefix("postgres:").unwrap()).unwrap(), ROW_BYTES_MAX)
    }

    /// A load that is prepared, and what is found of it.
    fn prepare(&self, asks: Asks) -> Outcome<(OneLoad, Vec<PartIndex>)> {
        let load = OneLoad::new(self.target());
        let found = load.prepare(TRANSFER, &self.dumped.plan, asks)?;
        let whole = found.iter().map(|found| match found {
            Found::Whole(whole) => whole.part,
            Found::Prefix(_) => panic!("a part is committed whole"),
        });
        Ok((load, whole.collect()))
    }

    fn write(&self, load: &OneLoad, part: usize) -> Outcome<Vec<PartIndex>> {
        write_part(load, PartIndex(part as u32), &self.dumped.parts[part], &digests())
    }

    fn write_all(&self, load: &OneLoad, found: &[PartIndex]) -> Outcome {
        for part in (0..self.dumped.parts.len()).filter(|part| !found.contains(&PartIndex(*part as u32))) {
            self.write(load, part)?;
        }
        Ok(())
    }

    /// Loads what is missing, and publishes it.
    fn finish(&self, load: &OneLoad, found: &[PartIndex]) -> Outcome<Evidence> {
        self.write_all(load, found)?;
        let evidence = load.prove(&digests())?;
        assert_eq!(evidence.tables, self.dumped.tables);
        load.publish()?;
        load.target.forget(TRANSFER);
        Ok(evidence)
    }

    fn databases(&self) -> String {
        self.server.query(
            "postgres",
            "select string_agg(datname, ' ' order by datname) from pg_database where not datistemplate",
        )
    }

    /// What is published is what the source has, and nothing else is there.
    fn assert_published(&self) {
        assert_eq!(self.databases(), "ehr postgres source");
        let sql = "select shobj_description(oid, 'pg_database'), has_database_privilege('public', oid, 'connect') \
                   from pg_database where datname = 'ehr'";
        assert_eq!(self.server.query("postgres", sql), "The clinic's|t");
        if let Some(data) = &self.data {
            let (from, to) = (self.server.fingerprint(data, "source"), self.server.fingerprint(data, "ehr"));
            assert_eq!(from, to);
        }
    }
}

fn failure<T>(outcome: Outcome<T>) -> Failure {
    match outcome {
        Ok(_) => panic!("it must fail"),
        Err(failure) => failure,
    }
}

/// Issue 11; D3, D4, D16.
#[test]
fn ordinary_databases_arrive_exactly() {
    for set in ["chinook", "northwind-pg", "sakila-pg"] {
        let Some(place) = Place::with_set(set) else { return };
        let (load, found) = place.prepare(Asks::Continue).unwrap();
        assert!(found.is_empty());
        place.finish(&load, &found).unwrap();
        place.assert_published();
    }
}

/// What definitions there are beside tables: each kind has its own way into the target.
const DEFINITIONS: &str = "
    CREATE SCHEMA clinic;
    CREATE TYPE clinic.sex AS ENUM ('f', 'm', 'x');
    CREATE DOMAIN clinic.code AS text CHECK (length(VALUE) < 9);
    CREATE FUNCTION clinic.twice(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * n';
    CREATE TABLE clinic.patient (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, sex clinic.sex, code clinic.code,
        weight float8, note text, double int GENERATED ALWAYS AS (clinic.twice(1)) STORED,
        EXCLUDE USING btree (code WITH =));
    CREATE TABLE clinic.visit (patient int REFERENCES clinic.patient, at date, PRIMARY KEY (patient, at))
        PARTITION BY RANGE (at);
    CREATE TABLE clinic.visit_old PARTITION OF clinic.visit FOR VALUES FROM (MINVALUE) TO ('2020-01-01');
    CREATE TABLE clinic.visit_new PARTITION OF clinic.visit FOR VALUES FROM ('2020-01-01') TO (MAXVALUE);
    INSERT INTO clinic.patient (sex, code, weight, note)
        SELECT (ARRAY['f', 'm', 'x'])[1 + n % 3]::clinic.sex, 'c' || n, n / 3.0, E'a\\tb\\\\N ' || n FROM generate_series(1, 500) n;
    INSERT INTO clinic.visit SELECT n, '2019-12-01'::date + n FROM generate_series(1, 400) n;
    CREATE UNLOGGED TABLE clinic.scratch (a int);
    INSERT INTO clinic.scratch SELECT generate_series(1, 10);
    CREATE MATERIALIZED VIEW clinic.heavy AS SELECT * FROM clinic.patient WHERE weight > 100;
    CREATE MATERIALIZED VIEW clinic.heaviest AS SELECT max(weight) FROM clinic.heavy WITH NO DATA;
    CREATE INDEX ON clinic.patient (clinic.twice(id));
    CREATE TABLE clinic.log (what text);
    CREATE FUNCTION clinic.log() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO clinic.log VALUES (TG_OP); RETURN NULL; END';
    CREATE TRIGGER log AFTER INSERT ON clinic.patient EXECUTE FUNCTION clinic.log();
    CREATE FUNCTION clinic.log_command() RETURNS event_trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO clinic.log VALUES (TG_TAG); END';
    CREATE EVENT TRIGGER commands ON ddl_command_end EXECUTE FUNCTION clinic.log_command();
    COMMENT ON EVENT TRIGGER commands IS 'logs';
    ALTER TABLE clinic.patient ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON clinic.patient USING (note IS NOT NULL);
    CREATE ROLE nurse; GRANT SELECT ON clinic.patient TO nurse;
    CREATE STATISTICS clinic.both ON sex, code FROM clinic.patient;
    CREATE RULE quiet AS ON DELETE TO clinic.scratch DO INSTEAD NOTHING;
    DELETE FROM clinic.log;";

/// D6, D12, E14: nothing fires while it is loaded, and everything is there at the end.
#[test]
fn every_kind_of_definition_arrives() {
    let Some(mut place) = Place::with_sql(DEFINITIONS) else { return };
    place.data = shared::data_folder();
    let (load, found) = place.prepare(Asks::Continue).unwrap();
    place.finish(&load, &found).unwrap();
    place.assert_published();
    assert_eq!(place.server.query("ehr", "select count(*) from clinic.log"), "0");
    let grants = "select has_table_privilege('nurse', 'clinic.patient', 'select')";
    assert_eq!(place.server.query("ehr", grants), "t");
    assert_ne!(place.server.query("ehr", "select count(*) from pg_stats where schemaname = 'clinic'"), "0");
}

/// The first is large: its rows are written as frozen, and read back when its part is committed.
const TWO_TABLES: &str = "
    CREATE TABLE a (n int PRIMARY KEY, t text); INSERT INTO a SELECT n, repeat('x', 600) FROM generate_series(1, 2000) n;
    CREATE TABLE b (n int REFERENCES a, f float8); INSERT INTO b SELECT n, n / 7.0 FROM generate_series(1, 1999) n;";

/// C2: what is committed is found by the next process, and nothing is written twice.
#[test]
fn a_load_goes_on_where_it_stopped() {
    let Some(place) = Place::with_sql(TWO_TABLES) else { return };
    for stop_after in 0..4 {
        let (load, _) = place.prepare(Asks::StartOver).unwrap();
        (0..stop_after).for_each(|part| drop(place.write(&load, part).unwrap()));
        load.suspend();
        drop(load);
        let (load, found) = place.prepare(Asks::Continue).unwrap();
        assert_eq!(found, (0..stop_after as u32).map(PartIndex).collect::<Vec<_>>());
        place.finish(&load, &found).unwrap();
        place.assert_published();
        place.server.query("postgres", "drop database ehr");
    }
}

/// Another process has the load: it is not taken from it. Once that has ended, it can be dropped.
#[test]
fn a_load_belongs_to_one_process_and_can_be_given_up() {
    let Some(place) = Place::with_sql(TWO_TABLES) else { return };
    let (load, _) = place.prepare(Asks::Continue).unwrap();
    place.write(&load, 0).unwrap();
    let other = OneLoad::new(place.target());
    let code = failure(other.prepare(TransferId([2; 16]), &place.dumped.plan, Asks::Continue)).code;
    assert_eq!(code, Code::TargetBusy);
    load.suspend();
    drop(load);
    assert!(place.databases().contains(STAGING));
    // Nobody but its owner can even connect.
    place.server.query("postgres", "create role stranger login");
    let connects = format!("select has_database_privilege('stranger', '{STAGING}', 'connect')");
    assert_eq!(place.server.query("postgres", &connects), "f");
    assert_eq!(place.target().abandon(TRANSFER, LeftAt::Loading).unwrap(), Abandoned::Dropped);
    assert_eq!(place.databases(), "postgres source");
}

/// An existing database is refused at the start, and at the end.
#[test]
fn a_database_in_the_way_is_left_as_it_is() {
    let Some(place) = Place::with_sql(TWO_TABLES) else { return };
    let (load, found) = place.prepare(Asks::Continue).unwrap();
    place.write_all(&load, &found).unwrap();
    load.prove(&digests()).unwrap();
    place.server.create_database("ehr");
    assert!(failure(load.publish()).what.contains("exists"));
    drop(load);
    let refused = failure(place.prepare(Asks::Continue).map(drop));
    assert_eq!(refused.code, Code::TargetNotEmpty);
    place.server.query("postgres", "drop database ehr");
    place.target().publish(TRANSFER).unwrap();
    place.target().publish(TRANSFER).unwrap();
    place.target().forget(TRANSFER);
    place.assert_published();
    assert_eq!(place.target().abandon(TRANSFER, LeftAt::ReceiptSigned).unwrap(), Abandoned::Dropped);
    assert_eq!(place.databases(), "ehr postgres source");
}

/// D6: a trigger that changes or drops rows is found, and the table is named.
#[test]
fn a_trigger_that_changes_rows_is_found() {
    let Some(place) = Place::with_sql(TWO_TABLES) else { return };
    let change = |body: &str| {
        let (load, _) = place.prepare(Asks::StartOver).unwrap();
        place.write(&load, 0).unwrap();
        let sql = format!(
            "create function hostile() returns trigger language plpgsql as 'begin {body} end'; \
             create trigger hostile before insert on b for each row execute function hostile()"
        );
        place.server.query(STAGING, &sql);
        place.write(&load, 1).unwrap();
        let written = place.write(&load, 2);
        (load, written)
    };
    let (load, written) = change("new.f := 0; return new;");
    written.unwrap();
    place.write(&load, 3).unwrap();
    place.server.query(STAGING, "drop trigger hostile on b; drop function hostile");
    let evidence = load.prove(&digests()).unwrap();
    assert_eq!(evidence.tables[0], place.dumped.tables[0]);
    assert_ne!(evidence.tables[1], place.dumped.tables[1]);
    drop(load);
    // What is still there is found by itself.
    let (load, _) = change("return new;");
    place.write(&load, 3).unwrap();
    let failed = failure(load.prove(&digests()));
    assert_eq!(failed.code, Code::TargetMismatch);
    assert!(failed.what.contains("hostile"), "{failed}");
    drop(load);
    let (_load, written) = change("return null;");
    let failure = failure(written);
    assert_eq!(failure.code, Code::TargetMismatch);
    assert!(failure.what.contains("public.b"), "{failure}");
}

/// D1, D5, L8: what a row holds is in no failure, and nothing of the part is left.
#[test]
fn a_hostile_row_is_refused() {
    let Some(mut place) = Place::with_sql(TWO_TABLES) else { return };
    let (load, _) = place.prepare(Asks::Continue).unwrap();
    place.write(&load, 0).unwrap();
    // Of `b`, in text: not a number; too few values; a format that is not the table's.
    for (row, code) in [
        (&b"\x0a\x01\x07secret!\0"[..], Code::TargetFailed),
        (b"\x03\x01\x011", Code::RowMalformed),
        (b"\x04\x02\x011\0", Code::RowMalformed),
    ] {
        place.dumped.parts[2] = row.to_vec();
        let failure = failure(place.write(&load, 2));
        assert_eq!(failure.code, code, "{failure}");
        assert!(!failure.to_string().contains("secret"), "{failure}");
    }
    assert_eq!(place.server.query(STAGING, "select count(*) from sealift.part"), "1");
    assert_eq!(place.server.query(STAGING, "select count(*) from b"), "0");
}

/// C4: the backend is killed in the middle of a part: nothing of it is left, and it is written
/// again.
#[test]
fn a_backend_that_is_killed_in_the_middle_leaves_nothing() {
    let Some(place) = Place::with_sql(TWO_TABLES) else { return };
    let (load, _) = place.prepare(Asks::Continue).unwrap();
    place.write(&load, 0).unwrap();
    let sink = load.begin(PartIndex(1), &digests()).unwrap();
    let kill = format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{STAGING}'");
    place.server.query("postgres", &kill);
    drop(sink);
    assert_eq!(place.server.query(STAGING, "select count(*) from sealift.part"), "1");
    place.finish(&load, &[PartIndex(0)]).unwrap();
    place.assert_published();
}

/// C5, N11: the answer to a COMMIT is lost. The server says whether it took place.
#[test]
fn a_lost_answer_to_a_commit_is_not_guessed() {
    let Some(place) = Place::with_sql(TWO_TABLES) else { return };
    let proxy = Proxy::start(place.server.port());
    let load = OneLoad::new(place.target_at(&format!("postgres://postgres@127.0.0.1:{}/ehr", proxy.port())));
    load.prepare(TRANSFER, &place.dumped.plan, Asks::Continue).unwrap();
    place.write(&load, 0).unwrap();
    proxy.lose_next_answer_to_commit();
    place.write(&load, 1).unwrap();
    assert!(proxy.has_lost_one(), "the answer was lost");
    assert_eq!(place.server.query(STAGING, "select count(*) from a"), "2000");
    // Here the server ends the session before it commits.
    place.server.query(
        STAGING,
        "create function quit() returns trigger language plpgsql as
             'begin perform pg_terminate_backend(pg_backend_pid()); return null; end';
         create constraint trigger quit after update on sealift.part deferrable initially deferred
             for each row execute function quit()",
    );
    let failed = failure(place.write(&load, 2));
    assert_eq!(failed.code, Code::TargetFailed, "{failed}");
    assert_eq!(place.server.query(STAGING, "select count(*) from b"), "0");
    place.server.query(STAGING, "drop function quit() cascade");
    place.finish(&load, &[0, 1].map(PartIndex)).unwrap();
    place.assert_published();
}

/// A row of the source that breaks its own constraint: which one is said.
#[test]
fn a_constraint_that_does_not_hold_is_named() {
    let broken = "
        CREATE TABLE a (n int PRIMARY KEY); CREATE TABLE b (n int CONSTRAINT of_a REFERENCES a);
        SET session_replication_role = replica; INSERT INTO b VALUES (7654321);";
    let Some(place) = Place::with_sql(broken) else { return };
    let (load, found) = place.prepare(Asks::Continue).unwrap();
    let failure = failure(place.write_all(&load, &found));
    assert_eq!(failure.code, Code::LoadImpossible, "{failure}");
    assert!(failure.what.contains("of_a") && !failure.to_string().contains("7654321"), "{failure}");
}

/// A server that would lose what it commits is refused.
#[test]
fn a_server_without_fsync_is_refused() {
    let Some(server) = Postgres::start() else { return };
    let address = Address::parse(server.url("ehr").strip_prefix("postgres:").unwrap()).unwrap();
    let target = PostgresTarget::new(address, ROW_BYTES_MAX);
    let found = sealift_engine_api::Target::check(&target, sealift_engine_api::Readiness::Place).unwrap();
    let refused = found.iter().any(|finding| finding.name == "fsync-off" && finding.severity == Severity::Error);
    assert!(refused, "{found:?}");
}

/// Crash recovery empties unlogged tables, and not the ledger: they are loaded again.
#[test]
fn unlogged_tables_are_loaded_again_after_a_crash() {
    let sql = format!("{TWO_TABLES} CREATE UNLOGGED TABLE c (n int); INSERT INTO c SELECT generate_series(1, 99);");
    let Some(place) = Place::with_sql(&sql) else { return };
    let (load, _) = place.prepare(Asks::Continue).unwrap();
    (0..4).for_each(|part| drop(place.write(&load, part).unwrap()));
    drop(load);
    place.server.crash();
    let (load, found) = place.prepare(Asks::Continue).unwrap();
    assert_eq!(found, [0, 1, 2].map(PartIndex));
    place.finish(&load, &found).unwrap();
    place.assert_published();
}

/// A server that crashes after the proof empties them, too: that load is not published. One without
/// such tables is.
#[test]
fn a_crash_after_the_proof_keeps_back_what_it_has_emptied_and_nothing_else() {
    let Some(mut place) = Place::with_sql(TWO_TABLES) else { return };
    let crash_after_proof = |place: &Place| {
        let (load, found) = place.prepare(Asks::StartOver).unwrap();
        place.write_all(&load, &found).unwrap();
        load.prove(&digests()).unwrap();
        drop(load);
        place.server.crash();
        place.target().publish(TRANSFER)
    };
    crash_after_proof(&place).unwrap();
    place.target().forget(TRANSFER);
    place.assert_published();
    place.server.query("postgres", "drop database ehr");
    place.server.query("source", "create unlogged table c (n int); insert into c values (1)");
    place.dumped = Dumped::of(&place.server, "source", &digests());
    let failure = failure(crash_after_proof(&place));
    assert!(failure.what.contains("emptied its unlogged tables"), "{failure}");
    assert_eq!(place.target().abandon(TRANSFER, LeftAt::ReceiptSigned).unwrap(), Abandoned::Dropped);
    assert_eq!(place.databases(), "postgres source");
}

/// The server crashes while the database of a load is dropped: what is left cannot be connected to,
/// and is dropped by the next attempt.
#[test]
fn what_is_half_dropped_is_no_load() {
    let Some(place) = Place::with_sql(TWO_TABLES) else { return };
    for left in [format!("alter database {STAGING} allow_connections false"), invalid(STAGING)] {
        let (load, _) = place.prepare(Asks::StartOver).unwrap();
        place.write(&load, 0).unwrap();
        drop(load);
        place.server.query("postgres", &left);
        let (load, found) = place.prepare(Asks::Continue).unwrap();
        assert!(found.is_empty(), "{left}");
        place.finish(&load, &found).unwrap();
        place.assert_published();
        place.server.query("postgres", "drop database ehr");
    }
}

/// As an interrupted `DROP DATABASE` leaves it, in versions that mark it.
fn invalid(database: &str) -> String {
    format!("update pg_database set datconnlimit = -2 where datname = '{database}'")
}
