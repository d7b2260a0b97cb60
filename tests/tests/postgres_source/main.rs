//! A PostgreSQL database as a source: what is planned, and that every row is read as it is.

mod reading;

use std::{process::Stdio, sync::Arc};

use sealift_engine_api::{Severity, Source};
use sealift_postgres::{
    PostgresSource,
    client::{Address, Connection, End},
    document::{Format, Object},
    inventory, session,
};
use sealift_protocol::{close::Code, id::PartIndex, manifest::Section};
use sealift_tests::{postgres::Postgres, shared};

use self::reading::{Kept, ROW_BYTES_MAX, Stop, Whole, address, planned, read, refusal, source};

/// Issue 11, "Every PostgreSQL database in shared/data": the small ones are planned and read, with
/// as many rows as they have, and their archive is one that `pg_restore` reads.
#[test]
fn small_databases_are_planned_and_read() {
    let (Some(server), Some(data)) = (Postgres::start(), shared::data_folder()) else { return };
    for set in ["chinook", "northwind-pg", "sakila-pg"] {
        server.load(&data, set, set);
        let planned = planned(source(&server, set));
        let whole = read(&planned);
        let count = "select count(*) from pg_class c join pg_namespace n on n.oid = relnamespace \
                     where relkind = 'r' and nspname !~ '^pg_' and nspname <> 'information_schema'";
        assert_eq!(whole.schema.tables.len().to_string(), server.query(set, count), "{set}");
        for table in &whole.schema.tables {
            let name = format!("{}.{}", table.schema, table.name);
            let count =
                server.query(set, &format!("select count(*) from only \"{}\".\"{}\"", table.schema, table.name));
            assert_eq!(whole.rows[&name].len().to_string(), count, "{set} {name}");
        }
        assert!(planned.plan.parts.iter().is_sorted_by_key(|part| part.section));
        let sizes: Vec<_> = planned.plan.parts.iter().filter(|part| part.section == Section::Data).collect();
        assert!(sizes.is_sorted_by_key(|part| std::cmp::Reverse(part.bytes_estimate)), "{set}");
        assert!(whole.schema.archive.starts_with(b"PGDMP"));
        let sequences = "select count(*) from pg_class where relkind = 'S'";
        assert_eq!(whole.finish.sequences.len().to_string(), server.query(set, sequences), "{set}");
        assert_eq!(whole.schema.database.encoding, "UTF8");
    }
}

/// The objects of a database, as both ends list them.
fn objects(server: &Postgres, database: &str) -> Vec<Object> {
    let mut connection = Connection::open(&address(server, database), End::Source, ROW_BYTES_MAX).unwrap();
    connection.batch(&session::set_up(connection.server_version())).unwrap();
    inventory::read(&mut connection).unwrap()
}

/// What the two ends compare is what `pg_dump` and `psql` keep.
#[test]
fn a_restored_copy_has_the_same_objects() {
    let (Some(server), Some(data)) = (Postgres::start(), shared::data_folder()) else { return };
    let sets = std::env::var("SEALIFT_SETS").unwrap_or_else(|_| "northwind-pg sakila-pg".into());
    for set in sets.split_whitespace() {
        server.load(&data, set, set);
        server.create_database("copy");
        let mut dump = server.client("pg_dump", set).stdout(Stdio::piped()).spawn().unwrap();
        let mut restore = server.client("psql", "copy");
        restore.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null"]).stdin(dump.stdout.take().unwrap());
        assert!(restore.status().unwrap().success() && dump.wait().unwrap().success());
        let (there, here) = (objects(&server, "copy"), objects(&server, set));
        assert!(here.len() > 50, "{set}");
        let missing: Vec<_> = here.iter().filter(|object| !there.contains(object)).take(10).collect();
        let added: Vec<_> = there.iter().filter(|object| !here.contains(object)).take(10).collect();
        assert!(missing.is_empty() && added.is_empty(), "{set}: {missing:#?} {added:#?}");
        server.query("postgres", "drop database copy");
    }
}

/// Issue 11, "Whatever is not moved exactly is named by the tool itself".
#[test]
fn what_is_not_moved_exactly_is_refused_by_name() {
    let Some(server) = Postgres::start() else { return };
    server.create_database("d");
    server.query(
        "d",
        "create extension postgres_fdw; \
        create server s foreign data wrapper postgres_fdw options (host 'h'); \
        create foreign table f (a int) server s; create user mapping for public server s options (password 'secret')",
    );
    let failure = refusal(source(&server, "d"));
    assert_eq!(failure.code, Code::Preflight);
    assert!(failure.what.contains("user-mappings") && !failure.to_string().contains("secret"), "{failure}");
    server.query("d", "drop user mapping for public server s");
    let planned = planned(source(&server, "d"));
    let [finding] = &planned.findings[..] else { panic!("{:?}", planned.findings) };
    assert_eq!((finding.name, finding.severity), ("foreign-tables", Severity::Warning));
}

/// A large object that the role may not read is named; those that it may are read in ranges of
/// their OIDs, which add up to all of them.
#[test]
fn large_objects_are_read_or_named() {
    let Some(server) = Postgres::start() else { return };
    server.create_database("d");
    server.query(
        "d",
        "create role reader login; create role readers; grant readers to reader; \
         select lo_from_bytea((1000 + n)::oid, repeat(n::text, n * 3000)::bytea) from generate_series(1, 40) n; \
         grant select on large object 1001 to readers; grant select on large object 1002 to public; \
         grant update on large object 1003 to reader; alter large object 1004 owner to reader",
    );
    server.query("d", "do $$ begin for n in 1005..1040 loop execute 'grant select on large object ' || n || ' to reader'; end loop; end $$");
    let by_reader = server.url("d").replace("postgres@", "reader@");
    let as_reader = || PostgresSource::new(Address::parse(by_reader.strip_prefix("postgres:").unwrap()).unwrap());
    let failure = refusal(as_reader());
    assert_eq!(failure.code, Code::Preflight);
    assert!(failure.what.ends_with(": 1003 (large-objects)"), "{failure}");
    server.query("d", "select lo_unlink(1003)");
    let whole = read(&planned(as_reader()));
    let ranges = read(&planned(as_reader().with_range_bytes(20_000)));
    assert!(whole.parts == 3 && ranges.parts > 6, "{}", ranges.parts);
    let sorted = |whole: &Whole| {
        let mut rows = whole.cells("pg_catalog.pg_largeobject");
        rows.sort();
        rows
    };
    let rows = sorted(&whole);
    assert_eq!(rows, sorted(&ranges));
    // None is longer than a piece.
    let bytes = |row: &Vec<Option<Vec<u8>>>| row[2].as_ref().unwrap().len() as u64;
    assert_eq!(rows.len(), 39);
    let expected = server.query("d", "select sum(length(lo_get(oid))) from pg_largeobject_metadata");
    assert_eq!(rows.iter().map(bytes).sum::<u64>().to_string(), expected);
    let owners: Vec<_> = whole.finish.large_objects.iter().map(|group| group.owner.as_str()).collect();
    assert!(owners.contains(&"reader") && owners.contains(&"postgres"));
}

/// Fault D14: a role from which policies hide rows reads nothing; one that they do not apply to
/// reads all.
#[test]
fn rows_that_a_policy_hides_are_not_left_out() {
    let Some(server) = Postgres::start() else { return };
    server.create_database("d");
    server.query(
        "d",
        "create role reader login in role pg_read_all_data; create table open (a int); create table chart (a int); \
         insert into chart values (1), (2); alter table chart enable row level security; \
         create policy partly on chart to reader using (a = 1)",
    );
    let by_reader = server.url("d").replace("postgres@", "reader@");
    let as_reader = || PostgresSource::new(Address::parse(by_reader.strip_prefix("postgres:").unwrap()).unwrap());
    let failure = refusal(as_reader());
    assert_eq!(failure.code, Code::Preflight);
    assert!(failure.what.contains("public.chart") && failure.what.contains("row-level-security"), "{failure}");
    assert!(!failure.what.contains("public.open"), "{failure}");
    server.query("d", "alter role reader bypassrls");
    assert_eq!(planned(as_reader()).plan.tables.len(), 2);
}

/// D1 to D4, D8: names and values that tools trip over.
#[test]
fn nasty_values_are_read_as_they_are() {
    let Some(server) = Postgres::start() else { return };
    server.create_database("d");
    server.query("d", r#"
        create schema "S ""1"""; create table "S ""1"""."T'\é" ("select" int, "a b" text);
        insert into "S ""1"""."T'\é" values (1, null), (2, ''), (3, E'\t\n\\N');
        create table b (f float8, g float4, d date, t timestamptz, i interval, n numeric, a int[], x text[], y bytea, c "char",
            r int4range, j jsonb, g2 int generated always as (1 + 1) stored, s char(5));
        insert into b (f, g, d, t, i, n, a, x, y, c, r, j, s) values
            ('NaN', '-0', '0044-03-15 BC', 'infinity', '1 year -2 days', 'NaN', '{}', array[null, '', 'NULL'], '\x00ff', 'x',
             'empty', '{"a": 1.50}', 'ab'),
            ('-Infinity', '1e-45', '-infinity', '4713-01-01 00:00:00+00 BC', '-00:00:01', 1e-50, '{{1,2},{3,null}}', null, '', '',
             '[1,5)', 'null', '');
        create type mood as enum ('so''so', 'é'); create type pair as (a int, b text); create domain positive as int check (value > 0);
        create table t (m mood, p pair, q positive, ms mood[], mo money, re regclass, long text);
        insert into t values ('é', row(1, null), 1, '{"so''so"}', 12.34, 't', repeat('x', 1000000)),
            (null, null, null, null, null, null, ''), (null, row(null, null), 7, '{}', null, null, E'\\\n\t\r\b\f\x0b');
        create table none (); insert into none default values; insert into none default values;
        create unlogged table u (a int); insert into u values (1);
        create table parent (a int); create table child (b int) inherits (parent);
        insert into parent values (1); insert into child values (2, 3);
        create table h (m mood, v int) partition by hash (m);
        create table h0 partition of h for values with (modulus 2, remainder 0);
        create table h1 partition of h for values with (modulus 2, remainder 1);
        insert into h values ('é', 1), ('so''so', 2);
        create table l (v int) partition by list (v); create table l1 partition of l for values in (1); insert into l values (1);
        alter table b enable row level security;
    "#);
    let planned = planned(source(&server, "d"));
    let whole = read(&planned);

    let first = whole.cells("S \"1\".T'\\é");
    let text = |text: &str| Some(text.as_bytes().to_vec());
    assert_eq!(
        first,
        [
            vec![Some(vec![0, 0, 0, 1]), None],
            vec![Some(vec![0, 0, 0, 2]), text("")],
            vec![Some(vec![0, 0, 0, 3]), text("\t\n\\N")],
        ]
    );

    let binary = whole.table("public.b");
    assert_eq!((binary.format, binary.columns.len()), (Format::Binary, 14));
    let rows = whole.cells("public.b");
    assert_eq!(rows[0][0], Some(f64::NAN.to_be_bytes().to_vec()));
    assert_eq!(rows[0][1], Some((-0f32).to_be_bytes().to_vec()));
    assert_eq!((&rows[1][7], &rows[1][8]), (&None, &Some(Vec::new())));
    assert_eq!(rows[0][12], Some(2i32.to_be_bytes().to_vec()));
    assert_eq!(rows[0][13], text("ab   "));

    assert_eq!(whole.table("public.t").format, Format::Text);
    let rows = whole.cells("public.t");
    let long = "x".repeat(1_000_000);
    let expected = ["é", "(1,)", "1", "{so'so}", "$12.34", "public.t", &long];
    assert_eq!(rows[0], expected.map(text));
    assert_eq!(rows[1], [None, None, None, None, None, None, text("")]);
    assert_eq!(rows[2], [None, text("(,)"), text("7"), text("{}"), None, None, text("\\\n\t\r\u{8}\u{c}\u{b}")]);

    assert_eq!(whole.rows["public.none"], [Vec::<u8>::new(), Vec::new()]);
    assert_eq!(whole.rows["public.parent"].len(), 1);
    assert_eq!(whole.rows["public.child"].len(), 1);
    // The hash of an enum's label is another in another database: the root has the rows.
    assert_eq!(whole.rows["public.h"].len(), 2);
    assert!(!whole.rows.contains_key("public.h0") && !whole.rows.contains_key("public.l"));
    assert_eq!(whole.rows["public.l1"].len(), 1);
    assert!(
        planned.findings.iter().any(|finding| finding.name == "unlogged-tables" && finding.what.contains("public.u"))
    );
    assert!(
        whole
            .finish
            .objects
            .iter()
            .any(|object| object.identity == "public.b" && object.facts.contains("row security t f"))
    );
}

/// D1: bytes travel as the database stores them, in whatever encoding; names are the same text.
#[test]
fn values_travel_in_the_encoding_of_the_database() {
    let Some(server) = Postgres::start() else { return };
    server.query("postgres", "create database d template template0 encoding 'LATIN1' lc_collate 'C' lc_ctype 'C'");
    let mut psql = server.client("psql", "d");
    psql.env("PGCLIENTENCODING", "UTF8").args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-c"]);
    shared::run(psql.arg("create table \"é\" (\"ü\" text); insert into \"é\" values ('ñ')"));
    server.query("postgres", "create database s template template0 encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C'");
    server.query("s", "create table t as select E'\\xff\\xfe'::text as x");
    let latin = read(&planned(source(&server, "d")));
    assert_eq!(latin.schema.database.encoding, "LATIN1");
    assert_eq!(latin.table("public.é").columns[0].name, "ü");
    assert_eq!(latin.cells("public.é"), [[Some(vec![0xf1])]]);
    let ascii = read(&planned(source(&server, "s")));
    assert_eq!(ascii.cells("public.t"), [[Some(vec![0xff, 0xfe])]]);
}

/// E1: readers of ranges, each with a session of its own, have together exactly the rows of the
/// table, whatever is written meanwhile.
#[test]
fn ranges_add_up_to_the_table_of_one_snapshot() {
    let Some(server) = Postgres::start() else { return };
    server.create_database("d");
    server.query(
        "d",
        "create table t as select i, md5(i::text) from generate_series(1, 20000) i; delete from t where i % 7 = 0",
    );
    let whole = read(&planned(source(&server, "d")));
    assert_eq!(whole.parts, 3);
    let planned = planned(source(&server, "d").with_range_bytes(100 << 10));
    // An older server reads a whole table for each range of it.
    let has_ranges = whole.schema.server_version >= 140_000;
    assert_eq!(planned.plan.parts.len() > 8, has_ranges, "{}", planned.plan.parts.len());
    server.query("d", "update t set md5 = 'new'; insert into t select i, 'new' from generate_series(1, 20000) i; delete from t where i > 5");
    let parts: Vec<u32> = (1..planned.plan.parts.len() as u32 - 1).collect();
    let read_some = |parts: &[u32]| -> Vec<Vec<u8>> {
        let mut reader = planned.snapshot.reader().unwrap();
        let mut rows = Vec::new();
        for &part in parts {
            let mut kept = Kept::new();
            reader.read(PartIndex(part), &mut kept).unwrap();
            rows.append(&mut kept.rows);
        }
        rows
    };
    let (one, two) = parts.split_at(parts.len() / 2);
    let rows = std::thread::scope(|scope| {
        let one = scope.spawn(|| read_some(one));
        let two = read_some(two);
        [one.join().unwrap(), two].concat()
    });
    assert_eq!(rows, whole.rows["public.t"]);
    // Once more, by another reader: the same bytes in the same order.
    assert_eq!(read_some(&parts), rows);
}

/// C4: the locks keep out TRUNCATE; where the session that held them was ended, it is found.
#[test]
fn a_truncated_table_is_found() {
    let Some(server) = Postgres::start() else { return };
    server.create_database("d");
    server.query("d", "create table t as select i from generate_series(1, 100) i; create table u as select 1 as i");
    let planned = planned(source(&server, "d"));
    let readers = [planned.snapshot.reader().unwrap(), planned.snapshot.reader().unwrap()];
    let mut psql = server.client("psql", "d");
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", "set lock_timeout = '200ms'", "-c", "truncate t"]);
    assert!(!psql.output().unwrap().status.success(), "the table is locked");
    let end = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'sealift' and state like 'idle in%' \
               and backend_start = (select min(backend_start) from pg_stat_activity where application_name = 'sealift')";
    assert_eq!(server.query("d", end), "t");
    server.query("d", "truncate t");
    server.query("d", "vacuum full u");
    let last = planned.plan.parts.len() as u32 - 1;
    for (mut reader, part) in readers.into_iter().zip([1, 2]) {
        let failure = reader.read(PartIndex(part), &mut Kept::new()).unwrap_err();
        assert_eq!(failure.code, Code::SourceChanged, "{failure}");
        let failure = reader.read(PartIndex(part), &mut Kept::new()).unwrap_err();
        assert!(failure.code == Code::SourceChanged && failure.what.contains("snapshot"), "{failure}");
        let failure = reader.read(PartIndex(last), &mut Kept::new()).unwrap_err();
        assert_eq!(failure.code, Code::SourceChanged, "{failure}");
    }
}

/// L8: a server's messages quote values and statements; nothing of them is passed on.
#[test]
fn a_servers_message_is_not_passed_on() {
    let Some(server) = Postgres::start() else { return };
    let mut connection = Connection::open(&address(&server, "postgres"), End::Source, ROW_BYTES_MAX).unwrap();
    let error = connection.query("select 'secret 123'::int", &[]).err().unwrap();
    assert_eq!(error.sqlstate(), Some("22P02"));
    let debugged = format!("{error:?}");
    let shown = format!("{debugged} {}", error.at(End::Source, "reading table a.b"));
    assert!(!shown.contains("secret") && shown.contains("22P02") && shown.contains("a.b"), "{shown}");
}

/// A row that is longer than both sides take is refused while it arrives.
#[test]
fn a_row_over_the_limit_is_refused() {
    let Some(server) = Postgres::start() else { return };
    server.create_database("d");
    server.query("d", "create table t as select repeat('x', 3000000) as x; create table u as select 1 as i");
    let planned = planned(source(&server, "d"));
    let mut reader = planned.snapshot.reader().unwrap();
    let mut kept = Kept { row_bytes_max: 1 << 20, ..Kept::new() };
    let failure = reader.read(PartIndex(1), &mut kept).unwrap_err();
    assert_eq!(failure.code, Code::SourceUnsuitable);
    assert!(failure.hints.to_string().contains("--row-bytes-max"), "{failure}");
    // The reader can read another part.
    reader.read(PartIndex(2), &mut kept).unwrap();
    assert_eq!(kept.rows.len(), 1);
}

/// A stop ends a plan that waits for a lock, and nothing stays on the server.
#[test]
fn a_stop_ends_what_waits() {
    let Some(server) = Postgres::start() else { return };
    server.create_database("d");
    server.query("d", "create table t (a int)");
    let mut lock = Connection::open(&address(&server, "d"), End::Source, ROW_BYTES_MAX).unwrap();
    lock.batch("begin; lock table t").unwrap();
    let stop = Arc::new(Stop::default());
    let waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'";
    let raised = Arc::clone(&stop);
    let planning = {
        let source = Box::new(source(&server, "d"));
        std::thread::spawn(move || source.plan(raised).err())
    };
    while server.query("d", waiting) == "0" {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    stop.raise();
    assert_eq!(planning.join().unwrap().unwrap().code, Code::UserInterrupt);
    drop(lock);
    server.wait_until_idle("d");
}
