//! Issue 11, "Snapshot": held by a process of its own, so that a killed sender resumes on the same
//! moment; and that this process ends.
#![cfg(debug_assertions)]

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt, path::PathBuf, thread, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sealift_tests::{
    agents::{Agent, Launch},
    exit,
    finished::Finished,
    port::free_udp_port,
    postgres::Postgres,
};
use serde_json::Value;
use tempfile::TempDir;

const WITHIN: Duration = Duration::from_secs(120);

/// Several tables, each a chunk or more, so that some parts are loaded when the sender dies.
const CLINIC: &str = "
    do $$ begin for n in 1..8 loop
        execute format('create table t%s as select g as id, md5(g::text || %s) || md5(g::text) as note from generate_series(1, 30000) g', n, n);
    end loop; end $$";

/// What another moment differs in.
const CHANGE: &str = "delete from t1 where id < 10; update t5 set note = 'new' where id = 77; \
                      insert into t8 select -g, 'new' from generate_series(1, 40000) g";

const CONTENT: &str = "select string_agg(md5, '|') from (
    select 1 as n, md5(string_agg(t::text, '|' order by id)) from t1 t union all
    select 5, md5(string_agg(t::text, '|' order by id)) from t5 t union all
    select 8, md5(string_agg(t::text, '|' order by id)) from t8 t order by 1) as of";

/// A transfer whose sides are started again with the same command.
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

    fn receiver(&self) -> Agent {
        let at = self.listens.to_string();
        let launch = Launch::receiver(&self.target).state(&self.path("receiver")).ticket_at(&self.path("ticket"));
        let mut receiver = launch.args(&["--bind", &at, "--address", &at]).json().start();
        receiver.ticket();
        receiver
    }

    fn sender(&self) -> Launch {
        Launch::sender(&self.source, self.path("ticket")).state(&self.path("sender")).json()
    }

    /// A sender that dies in the middle, and the receiver, which stays.
    fn kill_sender(&self, arguments: &[&str]) -> Agent {
        let receiver = self.receiver();
        let sender = self.sender().env("SEALIFT_FAIL_POINT", "chunk-sealed:12").args(arguments).start();
        let ended = sender.wait(WITHIN);
        assert_eq!(ended.killed_by(), Some(Signal::SIGKILL as i32), "{}", ended.message());
        receiver
    }

    fn run(&self, words: &[&str]) -> Finished {
        let state = self.path("sender");
        let words = [words, &["--state-dir", state.to_str().unwrap()]].concat();
        Launch::bare("sealift-sender", &words).start().wait(WITHIN)
    }

    /// What `status` says of the snapshot.
    fn snapshot(&self) -> Value {
        let status: Value = serde_json::from_slice(&self.run(&["status", "--json"]).stdout()).unwrap();
        status["transfers"][0]["snapshot"].clone()
    }
}

fn clinic() -> Option<Postgres> {
    let server = Postgres::start_durable()?;
    server.create_database("clinic");
    server.query("clinic", CLINIC);
    Some(server)
}

fn has_ended(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_none_or(|rest| rest.is_empty() || rest.starts_with(" Z"))
}

#[track_caller]
fn wait_until_ended(snapshot: &Value) {
    let pid = snapshot["pid"].as_i64().expect("a snapshot is held") as i32;
    for _ in 0..300 {
        if has_ended(pid) {
            return;
        }
        thread::sleep(Duration::from_millis(100));
    }
    panic!("the holder still runs: {snapshot}");
}

fn done(sender: &Finished, receiver: Agent) {
    let receiver = receiver.wait(WITHIN);
    let told = format!("--- sender\n{}\n--- receiver\n{}", sender.message(), receiver.message());
    assert_eq!((sender.code(), receiver.code()), (Some(exit::DONE), Some(exit::DONE)), "{told}");
}

/// Faults C1, D7: the source is changed while no sender runs; what arrives is the moment of the
/// first sender, what had arrived is not sent again, and afterwards neither process nor session is
/// left.
#[test]
fn a_killed_sender_resumes_on_the_snapshot_that_is_held() {
    let Some(server) = clinic() else { return };
    let place = Place::new(server.url("clinic"), server.url("copy"));
    let receiver = place.kill_sender(&[]);
    let expected = server.query("clinic", CONTENT);
    server.query("clinic", CHANGE);
    let mut truncate = server.client("psql", "clinic");
    let truncated = truncate.args(["-X", "-c", "set lock_timeout = '50ms'", "-c", "truncate t2"]).output().unwrap();
    assert!(String::from_utf8_lossy(&truncated.stderr).contains("lock timeout"), "TRUNCATE is kept out");
    let snapshot = place.snapshot();
    assert!(snapshot["attended"] == false && snapshot["ends_within_seconds"].as_u64() > Some(3000), "{snapshot}");
    let sender = place.sender().start().wait(WITHIN);
    done(&sender, receiver);
    assert_eq!(sender.resume().as_deref(), Some("resumed"));
    assert!(sender.number("sealed_bytes") < sender.number("plain_bytes") / 2, "{}", sender.message());
    let findings = sender.events_named("finding");
    assert!(findings.iter().any(|finding| finding["name"] == "snapshot-held"), "{findings:?}");
    assert_eq!(server.query("copy", CONTENT), expected);
    wait_until_ended(&snapshot);
    server.wait_until_idle("clinic");
}

/// Faults C1, D7: without the holder the transfer starts over as of a new moment, and says so; the
/// two are not mixed. `--restart` lets a snapshot go that is held.
#[test]
fn without_its_holder_a_transfer_starts_over() {
    let Some(server) = clinic() else { return };
    server.query("postgres", "create database other template clinic");
    let starts_over = |source: &str, target: &str, is_killed: bool| {
        let place = Place::new(server.url(source), server.url(target));
        let receiver = place.kill_sender(&[]);
        let snapshot = place.snapshot();
        if is_killed {
            kill(Pid::from_raw(snapshot["pid"].as_i64().unwrap() as i32), Signal::SIGKILL).unwrap();
            wait_until_ended(&snapshot);
            assert_eq!(place.snapshot(), Value::Null);
        }
        server.query(source, CHANGE);
        let arguments: &[&str] = if is_killed { &[] } else { &["--restart"] };
        let sender = place.sender().args(arguments).start().wait(WITHIN);
        done(&sender, receiver);
        assert_eq!(sender.resume().as_deref(), Some("restarted"), "{target}");
        assert_eq!(server.query(target, CONTENT), server.query(source, CONTENT), "{target}");
        wait_until_ended(&snapshot);
    };
    thread::scope(|scope| {
        scope.spawn(|| starts_over("clinic", "lost", true));
        scope.spawn(|| starts_over("other", "again", false));
    });
    server.wait_until_idle("clinic");
}

/// A holder that is killed, or whose session ends, while its sender runs: the transfer starts over
/// by itself.
#[test]
fn a_holder_that_is_lost_while_its_sender_runs_is_replaced() {
    let Some(server) = clinic() else { return };
    let place = Place::new(server.url("clinic"), server.url("copy"));
    let receiver = place.receiver();
    let mut sender = place.sender().start();
    sender.wait_for_event("planned", 1, WITHIN);
    receiver.signal(Signal::SIGSTOP);
    let snapshot = place.snapshot();
    let sessions = "select pg_terminate_backend(pid) from pg_stat_activity \
                    where datname = 'clinic' and query ~ 'SELECT 1$' and state = 'idle in transaction'";
    server.query("postgres", sessions);
    server.query("clinic", CHANGE);
    wait_until_ended(&snapshot);
    receiver.signal(Signal::SIGCONT);
    let sender = sender.wait(WITHIN);
    done(&sender, receiver);
    assert_eq!(sender.resume().as_deref(), Some("restarted"), "{}", sender.message());
    assert_eq!(server.query("copy", CONTENT), server.query("clinic", CONTENT));
    server.wait_until_idle("clinic");
}

/// Every way in which a holder ends that nobody needs: `abandon`, the time without a sender, the
/// age, and a state directory that is gone.
#[test]
fn no_holder_stays() {
    let Some(server) = clinic() else { return };
    let at = |target: &str| Place::new(server.url("clinic"), server.url(target));
    thread::scope(|scope| {
        scope.spawn(|| abandoned(&at("a")));
        scope.spawn(|| {
            let place = at("b");
            let receiver = place.kill_sender(&["--hold-snapshot", "2s"]);
            wait_until_ended(&place.snapshot());
            receiver.kill9();
        });
        scope.spawn(|| too_old(&at("c")));
        scope.spawn(|| {
            let place = at("d");
            let receiver = place.kill_sender(&[]);
            let snapshot = place.snapshot();
            receiver.kill9();
            drop(place);
            wait_until_ended(&snapshot);
        });
    });
    server.wait_until_idle("clinic");
}

/// Ctrl-C says how long the snapshot is held, and how it is ended.
fn abandoned(place: &Place) {
    let receiver = place.receiver();
    let mut sender = place.sender().env("SEALIFT_FAIL_POINT", "chunk-sealed:12").start();
    sender.wait_for_event("planned", 1, WITHIN);
    let _ = sender.wait(WITHIN);
    receiver.signal(Signal::SIGSTOP);
    let mut sender = place.sender().start();
    sender.wait_for_event("planned", 1, WITHIN);
    sender.sigint();
    let ended = sender.wait(WITHIN);
    assert_eq!(ended.code(), Some(exit::USER_INTERRUPT), "{}", ended.message());
    assert!(ended.message().contains("for 60 min from now"), "{}", ended.message());
    let snapshot = place.snapshot();
    place.run(&["abandon", "--all"]).assert_code(exit::DONE);
    assert!(has_ended(snapshot["pid"].as_i64().unwrap() as i32), "abandon waits for its end: {snapshot}");
    receiver.kill9();
}

/// The source is released though the sender cannot send; and when that can, it fails.
fn too_old(place: &Place) {
    let receiver = place.receiver();
    let mut sender = place.sender().args(&["--snapshot-age-max", "3s"]).start();
    sender.wait_for_event("planned", 1, WITHIN);
    receiver.signal(Signal::SIGSTOP);
    wait_until_ended(&place.snapshot());
    receiver.signal(Signal::SIGCONT);
    let ended = sender.wait(WITHIN);
    assert!(ended.message().contains("which is the limit"), "{}", ended.message());
    receiver.kill9();
}
