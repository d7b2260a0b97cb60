//! Loaders that fail when they have read everything: with real databases, whose load is there or
//! not. Whatever an exit code does not rule out is in doubt, and no load is done twice.

use std::{
    fs,
    io::{self, Write},
    net::{Shutdown, TcpListener, TcpStream},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use sealift_tests::{
    agents::{Agent, Launch, RECEIVER, SENDER},
    exit,
    finished::Finished,
    link::Faults,
    mariadb::MariaDb,
    place::{Kind, Place},
    postgres::Postgres,
    shared,
};

const WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);
const DATABASE: &str = "ehr";

/// A TCP connection to a database that breaks at both ends while the session behind it goes on.
struct Breaking {
    port: u16,
    ends: Arc<Mutex<Vec<TcpStream>>>,
    over: Arc<AtomicBool>,
}

impl Breaking {
    fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own_port = listener.local_addr().unwrap().port();
        let (ends, over) = (Arc::<Mutex<Vec<TcpStream>>>::default(), Arc::new(AtomicBool::new(false)));
        let (kept, is_over) = (Arc::clone(&ends), Arc::clone(&over));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                let server = TcpStream::connect(("127.0.0.1", port)).unwrap();
                kept.lock().unwrap().extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    thread::spawn(move || {
                        let _ = io::copy(&mut from, &mut to);
                    });
                }
            }
        });
        Self { port: own_port, ends, over }
    }

    fn breaks(&self) {
        self.ends.lock().unwrap().drain(..).for_each(|end| drop(end.shutdown(Shutdown::Both)));
    }
}

impl Drop for Breaking {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

/// A dump of rows alone, which a second load would double.
fn place_with_dump(target_url: String, dump: &str) -> Place {
    let mut place = Place::new(Kind::Loader(1), Faults::default(), 9);
    fs::write(place.source(), dump).unwrap();
    place.target_url = target_url;
    place
}

fn resolve(place: &Place, statement: &str) {
    let [transfer] = &place.transfers("receiver")[..] else { panic!("not one transfer") };
    let words = ["resolve", transfer, statement, "--state-dir"];
    Launch::bare(RECEIVER, &words).arg(place.path("receiver")).start().wait(WITHIN).assert_code(exit::DONE);
}

fn wait(sender: Agent, receiver: Agent) -> [Finished; 2] {
    [sender.wait(WITHIN), receiver.wait(WITHIN)]
}

#[track_caller]
fn assert_in_doubt(ended: &Finished) {
    let event = ended.assert_code(exit::INTERRUPTED).finished_event();
    assert_eq!(event["outcome"], "in_doubt", "{event}");
    assert!(!ended.message().contains("othing is visible"), "{}", ended.message());
}

/// In doubt on both sides, and so it stays: started again, nothing is loaded.
#[track_caller]
fn assert_left_in_doubt(place: &Place, ended: &[Finished; 2]) {
    ended.iter().for_each(assert_in_doubt);
    assert!(ended[1].message().contains("sealift-receiver resolve"), "{}", ended[1].message());
    assert_in_doubt(&place.receiver().start().wait(WITHIN));
}

/// The operator states what is there, and the same commands do what is left to be done.
#[track_caller]
fn assert_resolved(place: &Place, is_there: bool) {
    resolve(place, if is_there { "--loaded" } else { "--not-loaded" });
    let (sender, receiver) = place.start();
    for ended in wait(sender, receiver) {
        ended.assert_code(if is_there { exit::OTHER } else { exit::DONE });
    }
}

const ROWS: u64 = 3;

/// A server with a table whose first row takes its transaction some seconds to commit, or fails it
/// then.
fn server() -> Option<Postgres> {
    let postgres = Postgres::start()?;
    postgres.create_database(DATABASE);
    postgres.query(
        DATABASE,
        "create table settings(seconds float8, fails boolean);
         insert into settings values (3, false);
         create table visit(patient int);
         create function slow() returns trigger language plpgsql as $$ begin
           perform pg_sleep(seconds) from public.settings;
           if (select fails from public.settings) then raise exception 'not now'; end if;
           return null;
         end $$;
         create constraint trigger c after insert on visit deferrable initially deferred
           for each row when (new.patient = 1) execute function slow()",
    );
    Some(postgres)
}

fn rows(postgres: &Postgres) -> u64 {
    postgres.query(DATABASE, "select count(*) from visit").parse().unwrap()
}

fn dump() -> String {
    (1..=ROWS).map(|patient| format!("insert into visit values ({patient});\n")).collect()
}

/// The same rows as `pg_dump` writes them for `pg_restore`.
fn archive(postgres: &Postgres, place: &Place) {
    postgres.create_database("source");
    postgres.query("source", &format!("create table visit(patient int); {}", dump()));
    let mut pg_dump = postgres.client("pg_dump", "source");
    shared::run(pg_dump.args(["--format=custom", "--data-only", "--file"]).arg(place.source()));
}

fn psql(postgres: &Postgres, port: u16) -> String {
    let psql = postgres.program("psql");
    format!("exec:{} -h 127.0.0.1 -p {port} -U postgres -d {DATABASE} -Xq1 -v ON_ERROR_STOP=1", psql.display())
}

fn pg_restore(postgres: &Postgres, port: u16) -> String {
    let restore = postgres.program("pg_restore");
    format!("exec:{} -h 127.0.0.1 -p {port} -U postgres -d {DATABASE} -1", restore.display())
}

/// Returns when a loader's COMMIT has begun, and not ended.
fn wait_for_commit(postgres: &Postgres) {
    let sql = format!("select count(*) from pg_stat_activity where datname = '{DATABASE}' and query = 'COMMIT'");
    let deadline = Instant::now() + WITHIN;
    while postgres.query("postgres", &sql) == "0" {
        assert!(Instant::now() < deadline, "no COMMIT");
        thread::sleep(LOOK_EVERY);
    }
}

/// Issue 9, B1; faults E1, C5: the connection to the server breaks between COMMIT and its answer,
/// and the server commits: `psql` ends with 2, `pg_restore` with 1, and the rows are there. Before,
/// both were given the load again, which doubled them.
#[test]
fn postgres_answer_to_commit_lost_leaves_the_load_in_doubt() {
    let Some(postgres) = server() else { return };
    for form in [psql, pg_restore] {
        let breaking = Breaking::before(postgres.port());
        let place = place_with_dump(form(&postgres, breaking.port), &dump());
        if place.target_url.contains("pg_restore") {
            archive(&postgres, &place);
        }
        let (sender, receiver) = place.start();
        wait_for_commit(&postgres);
        breaking.breaks();
        let ended = wait(sender, receiver);
        postgres.wait_until_idle(DATABASE);
        assert_left_in_doubt(&place, &ended);
        assert_eq!(rows(&postgres), ROWS, "{}", place.target_url);
        assert_resolved(&place, true);
        assert_eq!(rows(&postgres), ROWS, "{}", place.target_url);
        postgres.query(DATABASE, "delete from visit");
    }
}

/// Issue 9, B1; faults E1, C4: the server ends the session during COMMIT, which rolls it back.
/// `psql` cannot know and says the same.
#[test]
fn postgres_session_ended_during_commit_is_in_doubt_and_loads_once() {
    let Some(postgres) = server() else { return };
    let place = place_with_dump(psql(&postgres, postgres.port()), &dump());
    let (sender, receiver) = place.start();
    wait_for_commit(&postgres);
    postgres.query("postgres", "select pg_terminate_backend(pid) from pg_stat_activity where query = 'COMMIT'");
    let ended = wait(sender, receiver);
    assert_left_in_doubt(&place, &ended);
    assert!(ended[1].message().contains("exit code 2"), "{}", ended[1].message());
    assert_eq!(rows(&postgres), 0);
    assert_resolved(&place, false);
    assert_eq!(rows(&postgres), ROWS);
}

/// Issue 9, B1; fault E1: a COMMIT that the server refuses is rolled back, and `psql` says so by 3:
/// the same commands load it again, also where the receiver was asked to stop meanwhile.
#[test]
fn postgres_commit_that_fails_is_known_not_to_have_loaded() {
    let Some(postgres) = server() else { return };
    postgres.query(DATABASE, "update settings set fails = true");
    let place = place_with_dump(psql(&postgres, postgres.port()), &dump());
    let (sender, receiver) = place.start();
    wait_for_commit(&postgres);
    receiver.sigint();
    for ended in wait(sender, receiver) {
        assert_eq!(ended.assert_code(exit::UNUSABLE).finished_event()["outcome"], "loader_failed");
    }
    assert_eq!(rows(&postgres), 0);

    // Abandoned by its sender meanwhile, it is dropped.
    let (sender, receiver) = place.start();
    wait_for_commit(&postgres);
    sender.kill9();
    let _ = sender.wait(WITHIN);
    let abandon = Launch::bare(SENDER, &["abandon", "--ticket"]).arg(place.ticket());
    let told = abandon.arg("--state-dir").arg(place.path("sender")).start().wait(WITHIN);
    assert!(told.assert_code(exit::DONE).stderr().contains("nothing of it is left"), "{}", told.stderr());
    receiver.wait(WITHIN).assert_code(exit::INTERRUPTED);
    place.assert_clean(&[]);
    assert_eq!(rows(&postgres), 0);

    postgres.query(DATABASE, "update settings set fails = false");
    fs::remove_file(place.ticket()).unwrap();
    let (sender, receiver) = place.start();
    for ended in wait(sender, receiver) {
        ended.assert_code(exit::DONE);
    }
    assert_eq!(rows(&postgres), ROWS);
}

/// Issue 9, B1: `sqlite3` goes on after an error, commits what else there is, and ends with 1.
#[test]
fn sqlite3_ends_with_1_and_has_committed() {
    if !shared::installed("sqlite3") {
        return;
    }
    let mut place = place_with_dump(String::new(), "");
    let database = place.path("database");
    let run = |sql: &str| shared::run(Command::new("sqlite3").arg(&database).arg(sql)).trim_end().to_owned();
    run("create table visit(patient int)");
    fs::write(place.source(), format!("begin;\n{}insert into nowhere values (1);\ncommit;\n", dump())).unwrap();
    place.target_url = format!("exec:sqlite3 {}", database.display());
    let (sender, receiver) = place.start();
    let ended = wait(sender, receiver);
    assert_left_in_doubt(&place, &ended);
    assert_eq!(run("select count(*) from visit"), ROWS.to_string());
    assert_resolved(&place, true);
    assert_eq!(run("select count(*) from visit"), ROWS.to_string());
}

/// Issue 9, B1: `mariadb` has one exit code for every error, and commits each statement by itself.
#[test]
fn mariadb_ends_with_1_and_has_committed() {
    let Some(mariadb) = MariaDb::start() else { return };
    mariadb.query("mysql", &format!("create database {DATABASE}; create table {DATABASE}.visit(patient int)"));
    let url = format!("exec:mariadb {} {DATABASE}", mariadb.address());
    let place = place_with_dump(url, &format!("{}insert into nowhere values (1);\n", dump()));
    let (sender, receiver) = place.start();
    let ended = wait(sender, receiver);
    assert_left_in_doubt(&place, &ended);
    assert_eq!(mariadb.query(DATABASE, "select count(*) from visit"), ROWS.to_string());
    assert_resolved(&place, true);
    assert_eq!(mariadb.query(DATABASE, "select count(*) from visit"), ROWS.to_string());
}

/// Issue 9, B1; fault C2: a loader that commits as soon as it has read the COMMIT in its dump, and
/// not only at the end of its input, is not given that before the receiver has recorded that it may
/// commit: killed a moment earlier, it loads once.
#[test]
fn the_end_of_a_load_is_held_back_until_it_may_commit() {
    if !shared::installed("sqlite3") {
        return;
    }
    let mut place = place_with_dump(String::new(), "");
    let database = place.path("database");
    let run = |sql: &str| shared::run(Command::new("sqlite3").arg(&database).arg(sql)).trim_end().to_owned();
    run("create table visit(patient int)");
    let mut dump = Vec::new();
    writeln!(dump, "begin;").unwrap();
    const PATIENTS: u64 = 100_000;
    (0..PATIENTS).for_each(|patient| writeln!(dump, "insert into visit values ({patient});").unwrap());
    writeln!(dump, "commit;").unwrap();
    fs::write(place.source(), &dump).unwrap();
    let read = place.path("read");
    place.target_url = format!("exec:sh -c 'tee {} | sqlite3 -bail {}'", read.display(), database.display());
    let mut receiver = place.receiver().env("SEALIFT_FAIL_POINT", "part-finished").start();
    receiver.ticket();
    let sender = place.sender().start();
    assert_eq!(receiver.wait(WITHIN).killed_by(), Some(9));
    // What was under way in the pipe is read, or the loader is gone.
    thread::sleep(Duration::from_millis(500));
    let read_bytes = fs::metadata(&read).unwrap().len() as usize;
    assert!(read_bytes > 0 && read_bytes <= dump.len() - (64 << 10), "{read_bytes} bytes of {}", dump.len());
    assert_eq!(run("select count(*) from visit"), "0");
    let receiver = place.receiver().start();
    for ended in wait(sender, receiver) {
        ended.assert_code(exit::DONE);
    }
    assert_eq!(run("select count(*) from visit"), PATIENTS.to_string());
}
