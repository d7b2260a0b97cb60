//! What is not rows: a target that has changed, dropped or added an object is found out, and the
//! object is named.

use sealift_engine_api::{Abandoned, LeftAt, Recovery};
use sealift_protocol::{close::Code, disposition::Asks};

use crate::{Place, STAGING, TRANSFER, digests, failure};

/// Roles that are on the server, and one that is not by the time of the load.
const OBJECTS: &str = "
    CREATE ROLE owner; CREATE ROLE reader; CREATE ROLE third; CREATE ROLE \"of, odd name\"; CREATE ROLE gone;
    CREATE SCHEMA s; ALTER SCHEMA s OWNER TO owner; GRANT USAGE ON SCHEMA s TO reader WITH GRANT OPTION;
    CREATE TYPE s.kind AS ENUM ('a'); ALTER TYPE s.kind OWNER TO owner; REVOKE USAGE ON TYPE s.kind FROM PUBLIC;
    CREATE FUNCTION s.f(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT n'; REVOKE EXECUTE ON FUNCTION s.f FROM PUBLIC;
    CREATE TABLE s.t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text, CONSTRAINT short CHECK (length(note) < 9));
    ALTER TABLE s.t OWNER TO owner; ALTER TABLE s.t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON s.t USING (true);
    GRANT SELECT ON s.t TO reader, \"of, odd name\", gone; GRANT UPDATE (note) ON s.t TO reader; REVOKE DELETE ON s.t FROM owner;
    INSERT INTO s.t (note) SELECT 'n' || n FROM generate_series(1, 9) n;
    CREATE INDEX i ON s.t (note); CREATE STATISTICS s.st ON id, note FROM s.t;
    CREATE FUNCTION s.trigger() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER tr BEFORE UPDATE ON s.t EXECUTE FUNCTION s.trigger();
    CREATE VIEW s.v AS SELECT id FROM s.t; CREATE RULE r AS ON INSERT TO s.v DO INSTEAD NOTHING;
    CREATE TABLE s.of_gone (); ALTER TABLE s.of_gone OWNER TO gone; GRANT SELECT ON s.of_gone TO reader; REVOKE INSERT ON s.of_gone FROM gone;
    ALTER DEFAULT PRIVILEGES FOR ROLE owner IN SCHEMA s GRANT SELECT ON TABLES TO reader;
    CREATE PUBLICATION pub FOR TABLE s.t; ALTER PUBLICATION pub OWNER TO owner;";

/// What is done to the staged database, what undoes it, and what the message names.
const CHANGES: &[(&str, &str, &str)] = &[
    ("ALTER TABLE s.t OWNER TO third", "ALTER TABLE s.t OWNER TO owner", "owner of table s.t is third"),
    ("GRANT DELETE ON s.t TO owner", "REVOKE DELETE ON s.t FROM owner", "revoked privilege on table s.t is missing"),
    ("REVOKE SELECT ON s.t FROM reader", "GRANT SELECT ON s.t TO reader", "privilege on table s.t is missing"),
    (
        "GRANT SELECT (id) ON s.t TO PUBLIC",
        "REVOKE SELECT (id) ON s.t FROM PUBLIC",
        "privilege on table column s.t.id is in the target alone",
    ),
    (
        "GRANT EXECUTE ON FUNCTION s.f TO PUBLIC",
        "REVOKE EXECUTE ON FUNCTION s.f FROM PUBLIC",
        "revoked privilege on function s.f",
    ),
    (
        "ALTER TABLE s.of_gone OWNER TO third",
        "ALTER TABLE s.of_gone OWNER TO postgres",
        "owner of table s.of_gone is third",
    ),
    (
        "ALTER DEFAULT PRIVILEGES FOR ROLE owner IN SCHEMA s REVOKE SELECT ON TABLES FROM reader",
        "ALTER DEFAULT PRIVILEGES FOR ROLE owner IN SCHEMA s GRANT SELECT ON TABLES TO reader",
        "default privileges \"owner\" s r is missing",
    ),
    ("ALTER TABLE s.t DISABLE ROW LEVEL SECURITY", "ALTER TABLE s.t ENABLE ROW LEVEL SECURITY", "table s.t is"),
    (
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 's.i'::regclass",
        "UPDATE pg_index SET indisvalid = true WHERE indexrelid = 's.i'::regclass",
        "index s.i is",
    ),
    (
        "UPDATE pg_constraint SET convalidated = false WHERE conname = 'short'",
        "UPDATE pg_constraint SET convalidated = true WHERE conname = 'short'",
        "constraint s.t.short is",
    ),
    ("SELECT setval('s.t_id_seq', 2)", "SELECT setval('s.t_id_seq', 9)", "sequence s.t_id_seq"),
    ("DROP INDEX s.i", "CREATE INDEX i ON s.t (note)", "index s.i is missing"),
    (
        "DROP STATISTICS s.st",
        "CREATE STATISTICS s.st ON id, note FROM s.t; ALTER STATISTICS s.st OWNER TO postgres",
        "statistics s.st is missing",
    ),
    ("ALTER TABLE s.t DISABLE TRIGGER tr", "ALTER TABLE s.t ENABLE TRIGGER tr", "trigger s.t.tr is"),
    ("DROP POLICY p ON s.t", "CREATE POLICY p ON s.t USING (true)", "policy s.t.p is missing"),
    ("DROP RULE r ON s.v", "CREATE RULE r AS ON INSERT TO s.v DO INSTEAD NOTHING", "rule s.v.r is missing"),
    ("ALTER FUNCTION s.f SECURITY DEFINER", "ALTER FUNCTION s.f SECURITY INVOKER", "function s.f(n integer) is"),
    (
        "CREATE OR REPLACE FUNCTION s.f(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 7'",
        "CREATE OR REPLACE FUNCTION s.f(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT n'",
        "function s.f(n integer) is",
    ),
    ("ALTER TYPE s.kind ADD VALUE 'b'", "DELETE FROM pg_enum WHERE enumlabel = 'b'", "type s.kind is"),
    (
        "DROP PUBLICATION pub",
        "CREATE PUBLICATION pub FOR TABLE s.t; ALTER PUBLICATION pub OWNER TO owner",
        "publication pub is missing",
    ),
    ("CREATE TABLE extra ()", "DROP TABLE extra", "table public.extra is in the target alone"),
    ("CREATE VIEW extra AS SELECT 1", "DROP VIEW extra", "view public.extra is in the target alone"),
    (
        "CREATE MATERIALIZED VIEW extra AS SELECT 1",
        "DROP MATERIALIZED VIEW extra",
        "materialized view public.extra is in",
    ),
    ("CREATE SEQUENCE extra", "DROP SEQUENCE extra", "sequence public.extra is in the target alone"),
    ("CREATE SCHEMA extra", "DROP SCHEMA extra", "schema extra is in the target alone"),
    ("CREATE DOMAIN extra AS int", "DROP DOMAIN extra", "type public.extra is in the target alone"),
    ("CREATE OPERATOR !! (RIGHTARG = int, PROCEDURE = s.f)", "DROP OPERATOR !! (NONE, int)", "operator public.!!"),
    (
        "CREATE CAST (s.kind AS int) WITH INOUT",
        "DROP CAST (s.kind AS int)",
        "cast (s.kind AS integer) is in the target alone",
    ),
    ("CREATE COLLATION extra FROM \"C\"", "DROP COLLATION extra", "collation public.extra is in the target alone"),
];

/// Issue 11, "proof from the target": owners, privileges, sequences, validity of indexes and
/// constraints, row-level security, and every kind of object. D6, D11.
#[test]
fn an_object_that_the_target_changed_dropped_or_added_is_named() {
    let Some(place) = Place::with_sql(OBJECTS) else { return };
    place.server.query("source", "ALTER TABLE s.of_gone OWNER TO postgres; DROP OWNED BY gone; DROP ROLE gone");
    let (load, found) = place.prepare(Asks::Continue).unwrap();
    place.write_all(&load, &found).unwrap();
    load.suspend();
    drop(load);
    for (change, undo, named) in CHANGES {
        place.server.query(STAGING, change);
        let (load, _) = place.prepare(Asks::Continue).unwrap();
        let failure = failure(load.prove(&digests()));
        assert_eq!(failure.code, Code::TargetMismatch, "{change}: {failure}");
        assert!(failure.what.contains(named), "{change}: {failure}");
        load.suspend();
        drop(load);
        place.server.query(STAGING, undo);
    }
    let (load, found) = place.prepare(Asks::Continue).unwrap();
    place.finish(&load, &found).unwrap();
    place.assert_published();
    assert_eq!(place.target().abandon(TRANSFER, LeftAt::ReceiptSigned).unwrap(), Abandoned::Dropped);
}
