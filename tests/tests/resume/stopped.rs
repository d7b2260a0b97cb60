//! A process that is stopped and continued, as a suspended machine or a debugger would (fault C7).

use std::{
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use sealift_agent::role::Role;
use sealift_tests::{
    agents::Agent,
    exit,
    place::{Kind, Place},
};

use super::{GRID, MIB, OUTAGE, WITHIN, assert_resumed, rate};

/// Longer than the silence that ends a connection, by what may still lie in the link when a process
/// is stopped.
const STOPPED: Duration = OUTAGE.saturating_add(Duration::from_secs(6));

/// Stopped for this long once data flows; the other side gives the link up meanwhile.
fn stop_for(pause: Duration, side: Role, sender: &Agent, receiver: &Agent) {
    let stopped = match side {
        Role::Sender => sender,
        Role::Receiver => receiver,
    };
    stopped.signal(Signal::SIGSTOP);
    thread::sleep(pause);
    stopped.signal(Signal::SIGCONT);
}

/// Until its grant has ended: it says that, not that a link was lost, and nothing goes on.
fn stopped_past_the_grant(side: Role, kind: Kind) {
    let place = Place::new(kind, rate(4), 7);
    let mut receiver = place.receiver().args(&["--finish-within", "10s"]).start();
    let issued = Instant::now();
    receiver.ticket();
    let mut sender = place.sender().start();
    place.wait_until_passed(&mut sender, MIB as u64);
    stop_for(Duration::from_secs(12).saturating_sub(issued.elapsed()), side, &sender, &receiver);
    for ended in [sender.wait(WITHIN), receiver.wait(WITHIN)] {
        ended.assert_code(exit::REFUSED).assert_one_message();
        assert_eq!(ended.finished_event()["outcome"], "grant_expired");
    }
    place.assert_suspended();
}

cases! {
    c7_sender_stopped_past_its_grant_loader: stopped_past_the_grant(Role::Sender, Kind::Loader(16 * MIB));
    c7_receiver_stopped_past_its_grant_loader: stopped_past_the_grant(Role::Receiver, Kind::Loader(16 * MIB));
    c7_receiver_stopped_past_its_grant_sqlite: stopped_past_the_grant(Role::Receiver, Kind::Sqlite(40_000));
    c7_receiver_stopped_past_its_grant_grid: stopped_past_the_grant(Role::Receiver, GRID);
}

/// While the grant lasts, it goes on as after an outage.
fn stopped_for_an_outage(side: Role, kind: Kind) {
    let place = Place::new(kind, rate(12), 8);
    let (mut sender, receiver) = place.start();
    place.wait_until_passed(&mut sender, MIB as u64);
    stop_for(STOPPED, side, &sender, &receiver);
    assert_resumed(&place, sender, receiver);
}

cases! {
    c7_sender_stopped_and_continued_sqlite: stopped_for_an_outage(Role::Sender, Kind::Sqlite(40_000));
    c7_sender_stopped_and_continued_grid: stopped_for_an_outage(Role::Sender, GRID);
    c7_receiver_stopped_and_continued_grid: stopped_for_an_outage(Role::Receiver, GRID);
    c7_receiver_stopped_and_continued_loader: stopped_for_an_outage(Role::Receiver, Kind::Loader(16 * MIB));
}
