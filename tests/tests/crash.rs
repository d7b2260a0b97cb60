//! Agents killed at any moment (faults C1 to C4): nothing half-loaded is ever visible, the survivor
//! says what happened within 30 seconds, and the same transfer started again is exact.
//!
//! `SEALIFT_KILLS` sets how often each is killed; moments come from `SEALIFT_SEED`.

use std::{thread, time::Duration};

use sealift_tests::{
    exit,
    grid::Content,
    link::{Direction, Faults},
    pair::{Pair, Running},
    place::{Kind, Place},
    postgres::Postgres,
    random::Random,
};

/// How long a survivor may wait for the other side.
const NOTICED_WITHIN: Duration = Duration::from_secs(30);

/// Some five seconds of transfer at the rate of `slow`; a kill falls into them or shortly after.
const SQLITE: Kind = Kind::Sqlite(12_000);
const GRID: Kind = Kind::Grid(Content { tables: 2, ranges: 3, rows: 400, bytes: 1000, widest: 0, finding: None });
const POSTGRES_ROWS: u32 = 12_000;
const KILL_WITHIN: Duration = Duration::from_millis(6000);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Sender,
    Receiver,
    Both,
}

fn kills() -> u32 {
    std::env::var("SEALIFT_KILLS").map_or(2, |text| text.parse().expect("SEALIFT_KILLS is a number"))
}

fn slow() -> Faults {
    Faults { bits_per_second: Some(4_000_000), ..Faults::default() }
}

// Nobody comes back here: what comes of a transfer that goes on is for the suite `resume`.
const OF_SENDER: &[&str] = &["--retry-for", "1s"];
const OF_RECEIVER: &[&str] = &["--grace", "1s"];

/// Of two agents over a slow link, kills one or both at a moment of the seed's choosing, and checks
/// what is left. Returns whether the survivor holds that the transfer is done: then the kill came
/// too late to matter.
fn kill_once(mut running: Running, victim: Victim, random: &mut Random) -> bool {
    running.wait_until_started();
    thread::sleep(random.between(Duration::ZERO, KILL_WITHIN));
    let Running { sender, receiver, link } = running;
    if victim != Victim::Receiver {
        sender.kill9();
    }
    if victim != Victim::Sender {
        receiver.kill9();
    }
    let (sender, receiver) = (sender.wait(NOTICED_WITHIN), receiver.wait(NOTICED_WITHIN));
    drop(link);
    let survivor = match victim {
        Victim::Sender => &receiver,
        Victim::Receiver => &sender,
        Victim::Both => return false,
    };
    let done = survivor.code() == Some(exit::DONE);
    if !done {
        survivor.assert_code(exit::INTERRUPTED).assert_one_message();
    }
    done
}

/// After a kill there is nothing, or, if the kill came late, everything.
#[track_caller]
fn check(round: u32, done: bool, visible: bool, same: impl FnOnce() -> bool) {
    println!("round {round}: {}", if visible { "everything is there" } else { "nothing is there" });
    assert!(visible || !done, "the survivor says done, and nothing is there");
    assert!(!visible || same(), "what is visible is not whole");
}

/// After each kill another transfer is begun: nothing that a killed run left is in its way.
fn survives(kind: Kind, victim: Victim) {
    let mut random = Random::of_this_run(&format!("{kind:?} {victim:?}"));
    let place = Place::new(kind, slow(), random.number());
    for round in 0..kills() {
        let mut receiver = place.receiver().args(OF_RECEIVER).start();
        receiver.ticket();
        let sender = place.sender().args(OF_SENDER).start();
        let done = kill_once(Running { sender, receiver, link: None }, victim, &mut random);
        check(round, done, place.target().exists(), || place.is_same());
        place.forget();
    }
    place.link.change(Direction::ToReceiver, |faults| *faults = Faults::default());
    let (sender, receiver) = place.start();
    sender.wait(NOTICED_WITHIN).assert_code(exit::DONE);
    receiver.wait(NOTICED_WITHIN).assert_code(exit::DONE);
    place.assert_done();
}

/// Fault C1 for SQLite.
#[test]
fn c1_sender_killed_sqlite() {
    survives(SQLITE, Victim::Sender);
}

/// Fault C2 for SQLite.
#[test]
fn c2_receiver_killed_sqlite() {
    survives(SQLITE, Victim::Receiver);
}

/// Fault C3 for SQLite.
#[test]
fn c3_both_killed_sqlite() {
    survives(SQLITE, Victim::Both);
}

/// Faults C1, C2 and C3 for an engine that reads and writes several parts at once.
#[test]
fn c1_c2_c3_agents_killed_grid() {
    thread::scope(|scope| {
        for victim in [Victim::Sender, Victim::Receiver, Victim::Both] {
            scope.spawn(move || survives(GRID, victim));
        }
    });
}

const FINGERPRINT: &str =
    "select count(*) || ' ' || sum(('x' || substr(md5(t::text), 1, 15))::bit(60)::bigint) from visit t";

struct Databases {
    server: Postgres,
}

impl Databases {
    fn start() -> Option<Self> {
        let server = Postgres::start()?;
        server.create_database("source");
        server.create_database("target");
        let fill = format!(
            "create table visit (id int primary key, note text); insert into visit \
             select i, string_agg(md5(random()::text), '') from generate_series(1, {POSTGRES_ROWS}) i, \
             generate_series(1, 8) group by i"
        );
        server.query("source", &fill);
        Some(Self { server })
    }

    fn pair(&self) -> Pair {
        let (dump, psql) = (self.server.program("pg_dump"), self.server.program("psql"));
        let load = "-X -q -v ON_ERROR_STOP=1 --single-transaction";
        Pair::new(
            format!("exec:{} {}", dump.display(), self.server.address("source")),
            format!("exec:{} {load} {}", psql.display(), self.server.address("target")),
        )
    }

    /// Waits until nobody works in the target any more; whether there is anything in it.
    fn visible(&self) -> bool {
        self.server.wait_until_idle("target");
        self.server.objects("target") > 0
    }

    fn same(&self) -> bool {
        self.server.query("source", FINGERPRINT) == self.server.query("target", FINGERPRINT)
    }

    fn assert_a_new_run_is_exact(&self) {
        self.server.query("target", "drop table if exists visit");
        self.pair().run().assert_done();
        assert!(self.same(), "the copy differs");
    }
}

fn postgres_survives(victim: Victim) {
    let Some(databases) = Databases::start() else { return };
    let mut random = Random::of_this_run(&format!("postgres {victim:?}"));
    for round in 0..kills() {
        let pair = databases.pair().receiver_args(OF_RECEIVER).sender_args(OF_SENDER);
        let done = kill_once(pair.over(slow(), random.number()).start(), victim, &mut random);
        check(round, done, databases.visible(), || databases.same());
        databases.server.query("target", "drop table if exists visit");
    }
    databases.assert_a_new_run_is_exact();
}

/// Fault C1 for a loader that commits when its input ends.
#[test]
fn c1_sender_killed_postgres() {
    postgres_survives(Victim::Sender);
}

/// Fault C2 likewise: the loader's input must not end like a whole dump when the receiver that
/// feeds it is gone.
#[test]
fn c2_receiver_killed_postgres() {
    postgres_survives(Victim::Receiver);
}

/// Fault C3 likewise.
#[test]
fn c3_both_killed_postgres() {
    postgres_survives(Victim::Both);
}

/// Fault C4: the database ends the loader's session in the middle. Both sides end as for any failed
/// loader.
#[test]
fn c4_session_ended_postgres() {
    let Some(databases) = Databases::start() else { return };
    let mut random = Random::of_this_run("c4");
    for _ in 0..kills() {
        let mut running = databases.pair().over(slow(), random.number()).start();
        running.wait_until_started();
        thread::sleep(random.between(Duration::from_millis(500), Duration::from_millis(2000)));
        let end = "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = 'target'";
        let ended = databases.server.query("postgres", end);
        let done = running.wait(NOTICED_WITHIN);
        if ended == "0" {
            println!("nobody was connected to the target");
            continue;
        }
        done.assert_codes(exit::UNUSABLE, exit::UNUSABLE);
        assert!(!databases.visible(), "a half-loaded database is visible");
    }
    databases.assert_a_new_run_is_exact();
}
