//! Asked to stop (fault matrix C6): says what state things are in, and the same commands go on.

use nix::sys::signal::Signal;
use sealift_tests::{
    exit,
    place::{Kind, Place},
};

use super::{MIB, WITHIN, assert_resumed, rate};

#[derive(Clone, Copy)]
enum Side {
    Sender,
    Receiver,
}

fn stopped_by(signal: Signal, side: Side, kind: Kind) {
    let place = Place::new(kind, rate(12), signal as u64);
    let (mut sender, receiver) = place.start();
    place.wait_until_passed(&mut sender, 3 << 20);
    let (stopped, other) = match side {
        Side::Sender => (sender, receiver),
        Side::Receiver => (receiver, sender),
    };
    stopped.signal(signal);
    let (stopped, other) = (stopped.wait(WITHIN), other.wait(WITHIN));
    stopped.assert_code(exit::USER_INTERRUPT).assert_one_message();
    other.assert_code(exit::INTERRUPTED).assert_one_message();
    for ended in [stopped, other] {
        assert!(ended.message().contains("goes on where it stopped"), "{}", ended.message());
    }
    assert!(!place.target().exists());
    assert_eq!((place.transfers("sender").len(), place.transfers("receiver").len()), (1, 1));
    let (sender, receiver) = place.start();
    assert_resumed(&place, sender, receiver);
}

#[test]
fn c6_sigint_to_the_sender_sqlite() {
    stopped_by(Signal::SIGINT, Side::Sender, Kind::Sqlite(30_000));
}

#[test]
fn c6_sigterm_to_the_receiver_sqlite() {
    stopped_by(Signal::SIGTERM, Side::Receiver, Kind::Sqlite(30_000));
}

#[test]
fn c6_sighup_to_the_receiver_sqlite() {
    stopped_by(Signal::SIGHUP, Side::Receiver, Kind::Sqlite(30_000));
}

/// A loader's input cannot be given back: the next one is fed from the journal.
#[test]
fn c6_sigterm_to_the_sender_loader() {
    stopped_by(Signal::SIGTERM, Side::Sender, Kind::Loader(8 * MIB));
}
