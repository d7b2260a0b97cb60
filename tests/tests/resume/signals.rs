//! Asked to stop (fault C6): says what state things are in, and the same commands go on.

use std::{
    fs::File,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use sealift_agent::role::Role;
use sealift_tests::{
    exit,
    place::{Kind, Place},
};

use super::{GRID, MIB, WITHIN, assert_done, assert_resumed, rate};

fn stopped_by(signal: Signal, side: Role, kind: Kind) {
    let place = Place::new(kind, rate(12), signal as u64);
    let (mut sender, receiver) = place.start();
    place.wait_until_passed(&mut sender, 3 << 20);
    let (stopped, other) = match side {
        Role::Sender => (sender, receiver),
        Role::Receiver => (receiver, sender),
    };
    stopped.signal(signal);
    let (stopped, other) = (stopped.wait(WITHIN), other.wait(WITHIN));
    stopped.assert_code(exit::USER_INTERRUPT).assert_one_message();
    other.assert_code(exit::INTERRUPTED).assert_one_message();
    for ended in [stopped, other] {
        assert!(ended.message().contains("resumed where it stopped"), "{}", ended.message());
    }
    assert!(!place.target().exists());
    assert_eq!((place.transfers("sender").len(), place.transfers("receiver").len()), (1, 1));
    let (sender, receiver) = place.start();
    assert_resumed(&place, sender, receiver);
}

cases! {
    c6_sigint_to_the_sender_sqlite: stopped_by(Signal::SIGINT, Role::Sender, Kind::Sqlite(30_000));
    c6_sigterm_to_the_receiver_sqlite: stopped_by(Signal::SIGTERM, Role::Receiver, Kind::Sqlite(30_000));
    c6_sighup_to_the_receiver_grid: stopped_by(Signal::SIGHUP, Role::Receiver, GRID);
    c6_sighup_to_the_sender_grid: stopped_by(Signal::SIGHUP, Role::Sender, GRID);
    /// A loader's input cannot be given back: the next one is fed from the journal.
    c6_sigterm_to_the_sender_loader: stopped_by(Signal::SIGTERM, Role::Sender, Kind::Loader(8 * MIB));
}

/// The source ends with its sender: what is said then is what comes of the same commands.
#[test]
fn c6_sigint_to_the_sender_of_a_source_that_is_read_once() {
    for (url, said) in [(None, "the source program is run again"), (Some("-"), "needs all of its source again")] {
        let mut place = Place::new(Kind::Program(8 * MIB), rate(12), 31);
        place.source_url = url.map_or(place.source_url, str::to_owned);
        let sender = |place: &Place| place.sender().stdin(File::open(place.source()).unwrap()).start();
        let mut receiver = place.receiver().start();
        receiver.ticket();
        let mut stopped = sender(&place);
        place.wait_until_passed(&mut stopped, 3 << 20);
        stopped.sigint();
        let (stopped, receiver) = (stopped.wait(WITHIN), receiver.wait(WITHIN));
        let message = stopped.assert_code(exit::USER_INTERRUPT).message();
        assert!(message.contains(said) && !message.contains("where it stopped"), "{message}");
        assert!(receiver.message().contains("read only once"), "{}", receiver.message());
        let mut receiver = place.receiver().start();
        receiver.ticket();
        let (again, _) = assert_done(&place, sender(&place), receiver);
        assert_eq!(again.resume().as_deref(), Some("restarted"));
    }
}

/// Asked twice while its farewells reach nobody: it ends at once, and leaves what `status` tells of
/// and the next start goes on from.
fn asked_twice(first: Signal, second: Signal, side: Role, kind: Kind) {
    let place = Place::new(kind, rate(12), 20 + second as u64);
    let (mut sender, receiver) = place.start();
    place.wait_until_passed(&mut sender, 3 << 20);
    place.link.cut();
    let (mut stopped, other) = match side {
        Role::Sender => (sender, receiver),
        Role::Receiver => (receiver, sender),
    };
    stopped.signal(first);
    thread::sleep(Duration::from_millis(500));
    assert!(stopped.is_running(), "there was nothing to wait for");
    stopped.signal(second);
    let asked = Instant::now();
    let stopped = stopped.wait(WITHIN);
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    stopped.assert_code(exit::USER_INTERRUPT);
    assert!(stopped.stderr().contains("stops at once"), "{}", stopped.stderr());
    let status = place.run(side, &["status"]);
    let said = String::from_utf8(status.stdout()).unwrap();
    let [transfer] = &place.transfers(side.name())[..] else { panic!("not one transfer") };
    assert!(said.contains(transfer) && said.contains("not running"), "{said}");
    place.link.heal();
    match side {
        Role::Sender => assert_resumed(&place, place.sender().start(), other),
        Role::Receiver => assert_resumed(&place, other, place.receiver().start()),
    };
}

cases! {
    c6_asked_twice_the_sender_ends_at_once_sqlite:
        asked_twice(Signal::SIGINT, Signal::SIGINT, Role::Sender, Kind::Sqlite(30_000));
    c6_asked_twice_the_sender_ends_at_once_grid: asked_twice(Signal::SIGINT, Signal::SIGTERM, Role::Sender, GRID);
    c6_asked_twice_the_receiver_ends_at_once_grid: asked_twice(Signal::SIGINT, Signal::SIGHUP, Role::Receiver, GRID);
    c6_asked_twice_the_receiver_ends_at_once_loader:
        asked_twice(Signal::SIGTERM, Signal::SIGHUP, Role::Receiver, Kind::Loader(8 * MIB));
    c6_asked_twice_the_receiver_ends_at_once_sqlite:
        asked_twice(Signal::SIGINT, Signal::SIGINT, Role::Receiver, Kind::Sqlite(30_000));
}
