//! Killed and started again with the same command (faults C1, C2, C3, C8, C9, C14).

use std::{thread, time::Duration};

use nix::{sys::signal::Signal, unistd::Pid};
use sealift_agent::{fail_point::PANIC_PAYLOAD, role::Role};
use sealift_tests::{
    agents::{Agent, Launch},
    cgroup::MemoryGroup,
    exit,
    finished::Finished,
    link::Faults,
    memory::children,
    place::{Kind, Place},
    postgres::Postgres,
    random::Random,
};

use super::{GRID, MIB, WITHIN, assert_done, assert_resumed, grid, rate};

fn kill9(pid: u32) {
    nix::sys::signal::kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
}

fn kill(agent: Agent) {
    agent.kill9();
    let _ = agent.wait(WITHIN);
}

/// Fault C1: twice, early and late.
fn sender_killed(kind: Kind) {
    let place = Place::new(kind, rate(12), 1);
    let (mut sender, receiver) = place.start();
    for bytes in [1 << 20, 5 << 20] {
        place.wait_until_passed(&mut sender, bytes);
        kill(sender);
        sender = place.sender().start();
    }
    let (sender, receiver) = assert_resumed(&place, sender, receiver);
    assert_eq!(receiver.resume().as_deref(), Some("resumed"));
    assert!(sender.number("sealed_bytes") < sender.number("plain_bytes"), "what is there is not sent again");
}

cases! {
    c1_sender_killed_file: sender_killed(Kind::File(12 * MIB));
    c1_sender_killed_loader: sender_killed(Kind::Loader(12 * MIB));
    c1_sender_killed_sqlite: sender_killed(Kind::Sqlite(40_000));
    c1_sender_killed_grid: sender_killed(GRID);
    c1_sender_killed_image: sender_killed(Kind::Image(40_000));
}

/// Fault C8: a bug in a worker of either side ends the process at once, says where and nothing
/// else, and is survived as a kill is.
fn worker_panics(side: Role, kind: Kind, point: &str) {
    let place = Place::new(kind, rate(40), 8);
    let armed = |launch: Launch, of: Role| {
        if of == side { launch.env("SEALIFT_PANIC_POINT", point).env("RUST_BACKTRACE", "full") } else { launch }
    };
    let mut receiver = armed(place.receiver(), Role::Receiver).start();
    receiver.ticket();
    let sender = armed(place.sender(), Role::Sender).start();
    let (ended, sender, receiver) = match side {
        Role::Receiver => (receiver.wait(WITHIN), sender, place.receiver().start()),
        _ => (sender.wait(WITHIN), place.sender().start(), receiver),
    };
    assert_eq!(ended.killed_by(), Some(Signal::SIGABRT as i32), "{}", ended.message());
    let said = format!("{}{}", String::from_utf8_lossy(&ended.stdout()), ended.stderr());
    assert!(said.contains("internal error at "), "{said}");
    assert!(!said.contains(PANIC_PAYLOAD) && !said.contains("backtrace"), "{said}");
    assert_resumed(&place, sender, receiver);
}

cases! {
    c8_worker_of_the_sender_panics_loader: worker_panics(Role::Sender, Kind::Loader(24 * MIB), "chunk-sealed:16");
    c8_worker_of_the_sender_panics_grid: worker_panics(Role::Sender, grid(24), "chunk-sealed:16");
    c8_worker_of_the_receiver_panics_loader: worker_panics(Role::Receiver, Kind::Loader(24 * MIB), "chunk-opened:10");
    c8_worker_of_the_receiver_panics_grid: worker_panics(Role::Receiver, grid(24), "chunk-opened:10");
}

/// Fault C9: killed by the kernel for want of memory.
fn out_of_memory(side: Role, kind: Kind) {
    let Some(group) = MemoryGroup::new(side.name()) else { return };
    let place = Place::new(kind, rate(12), 9);
    let bounded = |launch: Launch, of: Role| if of == side { launch.wrapped_in(group.words()) } else { launch };
    let mut receiver = bounded(place.receiver(), Role::Receiver).start();
    receiver.ticket();
    let mut sender = bounded(place.sender(), Role::Sender).start();
    place.wait_until_passed(&mut sender, 2 << 20);
    let (ended, sender, receiver) = match side {
        Role::Receiver => {
            group.squeeze(&mut receiver, WITHIN);
            (receiver.wait(WITHIN), sender, place.receiver().start())
        }
        Role::Sender => {
            group.squeeze(&mut sender, WITHIN);
            (sender.wait(WITHIN), place.sender().start(), receiver)
        }
    };
    assert_eq!(ended.killed_by(), Some(Signal::SIGKILL as i32), "{}", ended.message());
    assert!(group.kills() > 0, "it was not the kernel that killed it");
    assert_resumed(&place, sender, receiver);
}

cases! {
    c9_sender_out_of_memory_sqlite: out_of_memory(Role::Sender, Kind::Sqlite(40_000));
    c9_receiver_out_of_memory_sqlite: out_of_memory(Role::Receiver, Kind::Sqlite(40_000));
    c9_receiver_out_of_memory_loader: out_of_memory(Role::Receiver, Kind::Loader(16 * MIB));
}

/// Fault C3: without its guard the loader reads on, and would commit by the end of its input. It is
/// killed before that, and another is fed from the journal.
#[test]
fn c3_guard_killed_while_loading() {
    let place = Place::new(Kind::Loader(8 * MIB), rate(12), 9);
    let (mut sender, receiver) = place.start();
    place.wait_until_passed(&mut sender, 3 << 20);
    let guards = children(receiver.pid());
    assert_eq!(guards.len(), 1);
    kill9(guards[0]);
    let (sender, receiver) = (sender.wait(WITHIN), receiver.wait(WITHIN));
    sender.assert_code(exit::UNUSABLE).assert_one_message();
    receiver.assert_code(exit::UNUSABLE).assert_one_message();
    assert_eq!(receiver.resume(), None, "{}", receiver.message());
    assert!(!place.target().exists());
    let (sender, receiver) = place.start();
    assert_resumed(&place, sender, receiver);
}

/// Fault C2: the sender comes back to a receiver that was started again.
fn receiver_killed(kind: Kind) -> Finished {
    let place = Place::new(kind, rate(12), 2);
    let (mut sender, mut receiver) = place.start();
    for bytes in [1 << 20, 8 << 20] {
        place.wait_until_passed(&mut sender, bytes);
        kill(receiver);
        receiver = place.receiver().start();
    }
    assert_resumed(&place, sender, receiver).0
}

/// What the open range had is read and sent again, and the ranges before it are not.
#[test]
fn c2_receiver_killed_grid() {
    let sender = receiver_killed(GRID);
    assert!(sender.number("resent_bytes") > 0, "{}", sender.message());
}

/// What the open part had is read and sent again, and counted as such.
#[test]
fn c2_receiver_killed_sqlite() {
    let sender = receiver_killed(Kind::Sqlite(80_000));
    assert!(sender.number("resent_bytes") > 0, "{}", sender.message());
}

/// A large table is committed range by range: what is behind the last of them is sent again, and no
/// more.
#[test]
fn c2_receiver_killed_in_a_large_table_sqlite() {
    let place = Place::new(Kind::Ranges(150_000), rate(100), 21);
    let (mut sender, receiver) = place.start();
    let come = 24 << 20;
    place.wait_until_passed(&mut sender, come);
    kill(receiver);
    let (sender, receiver) = assert_resumed(&place, sender, place.receiver().start());
    let resent = sender.number("resent_bytes");
    assert!(resent < come * 3 / 4, "{resent} bytes were sent again");
    assert_eq!(receiver.resume().as_deref(), Some("resumed"));
}

/// The pages that were durable are not sent again.
#[test]
fn c2_receiver_killed_in_an_image() {
    let place = Place::new(Kind::Image(400_000), rate(300), 21);
    let (mut sender, receiver) = place.start();
    let come = 48 << 20;
    place.wait_until_passed(&mut sender, come);
    kill(receiver);
    let (sender, receiver) = assert_resumed(&place, sender, place.receiver().start());
    let resent = sender.number("resent_bytes");
    assert!(resent < come * 3 / 4, "{resent} bytes were sent again");
    assert_eq!(receiver.resume().as_deref(), Some("resumed"));
}

cases! {
    c2_receiver_killed_loader: receiver_killed(Kind::Loader(16 * MIB));
    /// A source that gives its bytes once: what the receiver lost, its journal has.
    c2_receiver_killed_program: receiver_killed(Kind::Program(16 * MIB));
}

/// Fault C3: both at once, and both are started again.
fn both_killed(kind: Kind) {
    let place = Place::new(kind, rate(12), 3);
    let (mut sender, mut receiver) = place.start();
    for bytes in [1 << 20, 8 << 20] {
        place.wait_until_passed(&mut sender, bytes);
        kill(sender);
        kill(receiver);
        receiver = place.receiver().start();
        sender = place.sender().start();
    }
    assert_done(&place, sender, receiver);
}

cases! {
    c3_both_killed_sqlite: both_killed(Kind::Sqlite(80_000));
    c3_both_killed_grid: both_killed(GRID);
    c3_both_killed_image: both_killed(Kind::Image(80_000));
    /// A new loader is fed from the journal, and the file is read again for what is missing.
    c3_both_killed_loader: both_killed(Kind::Loader(16 * MIB));
}

/// A dump of many rows, from a file into a loader that commits when its input ends.
fn visits(server: &Postgres, seed: u64) -> Place {
    server.create_database("target");
    let mut place = Place::new(Kind::Loader(0), rate(12), seed);
    let mut dump = String::from("create table visit (id int primary key, note text);\ncopy visit from stdin;\n");
    let mut random = Random::new(seed);
    for id in 0..60_000 {
        dump += &format!("{id}\t{:016x}{:016x}{:016x}{:016x}\n", random.number(), random.number(), random.number(), id);
    }
    dump += "\\.\n";
    std::fs::write(place.source(), dump).unwrap();
    let load = "-X -q -v ON_ERROR_STOP=1 --single-transaction";
    place.target_url = format!("exec:{} {load} {}", server.program("psql").display(), server.address("target"));
    place
}

#[track_caller]
fn assert_visits(server: &Postgres, place: &Place, sender: Agent, receiver: Agent) {
    for ended in [sender.wait(WITHIN), receiver.wait(WITHIN)] {
        ended.assert_code(exit::DONE);
        assert_eq!(ended.resume().as_deref(), Some("resumed"));
    }
    place.assert_clean(&[]);
    let found = server.query("target", "select count(*), count(distinct note), min(id), max(id) from visit");
    assert_eq!(found, "60000|60000|0|59999");
}

/// Fault C1: a loader that commits when its input ends, and a dump that is read again.
#[test]
fn c1_sender_killed_postgres() {
    let Some(server) = Postgres::start() else { return };
    let place = visits(&server, 4);
    let (mut sender, receiver) = place.start();
    place.wait_until_passed(&mut sender, 1 << 20);
    kill(sender);
    let sender = place.sender().start();
    assert_visits(&server, &place, sender, receiver);
}

/// Fault C3: receiver and guard killed in one instant, as `kill` with both their ids does. Nobody
/// is left to keep the loader's input open, and yet it does not end: nothing is committed, and the
/// loader does not stay.
#[test]
fn c3_receiver_and_guard_killed_at_once_postgres() {
    let Some(server) = Postgres::start() else { return };
    let place = visits(&server, 5);
    let (mut sender, mut receiver) = place.start();
    for bytes in [1 << 20, 3 << 19] {
        place.wait_until_passed(&mut sender, bytes);
        let guards = children(receiver.pid());
        assert_eq!(guards.len(), 1);
        receiver.signal(Signal::SIGSTOP);
        kill9(guards[0]);
        kill(receiver);
        server.wait_until_idle("target");
        assert_eq!(server.query("target", "select to_regclass('visit')"), "");
        receiver = place.receiver().start();
    }
    assert_visits(&server, &place, sender, receiver);
}

/// Fault C3: who kills all receivers by name means the receiver, and its guard ends the loader.
#[test]
fn c3_the_guard_goes_by_another_name() {
    let place = Place::new(Kind::Loader(8 * MIB), rate(12), 6);
    let (mut sender, receiver) = place.start();
    place.wait_until_passed(&mut sender, 1 << 20);
    let guards = children(receiver.pid());
    let told = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", guards[0])).unwrap();
    let words = told("cmdline");
    assert_eq!((told("comm").trim(), words.split('\0').next()), ("loader-guard", Some("loader-guard")));
    let group = children(guards[0]);
    // It does not die with what it guards.
    let group_of = |pid: u32| nix::unistd::getpgid(Some(Pid::from_raw(pid as i32))).unwrap();
    assert_ne!(group_of(guards[0]), group_of(group[0]));
    kill(receiver);
    let gone = |pid: &u32| !std::path::Path::new(&format!("/proc/{pid}")).exists();
    sender.wait_for("the loader's end", WITHIN, |_| guards.iter().chain(&group).all(gone));
    assert!(!place.target().exists());
    assert_resumed(&place, sender, place.receiver().start());
}

/// Fault C14: crashes before the first chunk, of either side at any moment. Nothing piles up.
fn many_crashes_before_the_first_chunk(kind: Kind, of_each_side: u32) {
    let place = Place::new(kind, Faults::default(), 14);
    let mut random = Random::of_this_run("c14");
    let moment = Duration::from_millis(60);
    let ticketless = |random: &mut Random| {
        let receiver = place.receiver().start();
        thread::sleep(random.between(Duration::ZERO, moment));
        kill(receiver);
    };
    (0..of_each_side).for_each(|_| ticketless(&mut random));
    assert!(place.transfers("receiver").len() <= 1, "{:?}", place.transfers("receiver"));
    let mut receiver = place.receiver().start();
    receiver.wait_for_event("listening", 1, WITHIN);
    // Nothing gets through, so that no chunk does.
    place.link.cut();
    for _ in 0..of_each_side {
        let sender = place.sender().start();
        thread::sleep(random.between(Duration::ZERO, moment));
        kill(sender);
    }
    assert!(place.transfers("sender").len() <= 1, "{:?}", place.transfers("sender"));
    place.link.heal();
    assert_done(&place, place.sender().start(), receiver);
}

cases! {
    c14_a_hundred_crashes_before_the_first_chunk_sqlite: many_crashes_before_the_first_chunk(Kind::Sqlite(200), 50);
    c14_crashes_before_the_first_chunk_grid: many_crashes_before_the_first_chunk(GRID, 15);
}
