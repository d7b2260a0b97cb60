//! The grant ends: nothing goes on after it, and nothing is left (fault matrix N6, T1, T7).

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use sealift_tests::{
    agents::Agent,
    exit,
    link::Direction,
    memory::children,
    place::{Kind, Place},
};

use super::{WITHIN, rate};

/// The end of a grant is acted upon within seconds.
const EXPIRY_WITHIN: Duration = Duration::from_secs(8);

fn start(kind: Kind, valid_for: &str) -> (Place, Agent, Agent, Instant) {
    let place = Place::new(kind, rate(4), 6);
    let mut receiver = place.receiver().args(&["--valid-for", valid_for]).start();
    let issued = Instant::now();
    receiver.ticket();
    let sender = place.sender().start();
    (place, sender, receiver, issued)
}

fn assert_expired(place: &Place, sender: Agent, receiver: Agent) {
    for ended in [sender.wait(WITHIN), receiver.wait(WITHIN)] {
        ended.assert_code(exit::REFUSED).assert_one_message();
        assert_eq!(ended.finished_event()["outcome"], "grant_expired");
    }
    place.assert_clean(&[]);
}

/// N6, T1: during a black hole. Both end, nothing staged is left, and the ticket is good for nothing.
#[test]
fn n6_t1_expires_while_the_link_is_down_sqlite() {
    let (place, mut sender, receiver, issued) = start(Kind::Sqlite(40_000), "15s");
    place.wait_until_passed(&mut sender, 500 << 10);
    place.link.cut();
    assert_expired(&place, sender, receiver);
    assert!(issued.elapsed() < Duration::from_secs(15) + EXPIRY_WITHIN, "{:?}", issued.elapsed());
    place.link.heal();
    let again = place.sender().start().wait(WITHIN);
    again.assert_code(exit::REFUSED).assert_one_message();
    place.assert_clean(&[]);
}

/// T7: while a chunk is on its way. What of the load was committed goes with its staging file.
#[test]
fn t7_expires_while_data_flows_sqlite() {
    let (place, mut sender, receiver, _) = start(Kind::Sqlite(40_000), "6s");
    place.wait_until_passed(&mut sender, 500 << 10);
    let staging = place.path("target/.to.sealift-staging");
    assert!(staging.exists(), "nothing is staged");
    let flowing = place.link.counters(Direction::ToReceiver).sent_bytes;
    assert_expired(&place, sender, receiver);
    assert!(place.link.counters(Direction::ToReceiver).sent_bytes > flowing, "nothing was on its way");
    assert!(!staging.exists());
}

/// T7: a loader that commits when its input ends is killed before it sees an end.
#[test]
fn t7_expires_while_data_flows_loader() {
    let (place, mut sender, receiver, _) = start(Kind::Loader(8 << 20), "6s");
    place.wait_until_passed(&mut sender, 500 << 10);
    let mut loader = children(receiver.pid());
    loader.extend(loader.clone().into_iter().flat_map(children));
    assert!(loader.len() >= 2, "a guard and what it guards: {loader:?}");
    assert_expired(&place, sender, receiver);
    let loading = fs::metadata(place.path("source.loading")).expect("it would be gone if the input had ended").len();
    assert!((1..8 << 20).contains(&loading), "{loading}");
    // Whose parent has gone may wait for another to take note of its end.
    let stats = loader.into_iter().filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok());
    let left: Vec<_> = stats.filter(|stat| !stat.contains(") Z ")).collect();
    assert!(left.is_empty(), "still there: {left:?}");
}

/// T1: the grant ended while neither ran. The receiver says so, drops what it had, and issues a new ticket.
#[test]
fn t1_expired_while_nobody_ran_sqlite() {
    let (place, mut sender, receiver, issued) = start(Kind::Sqlite(20_000), "6s");
    place.wait_until_passed(&mut sender, 500 << 10);
    sender.kill9();
    receiver.kill9();
    let _ = (sender.wait(WITHIN), receiver.wait(WITHIN));
    let old = place.transfers("receiver");
    assert_eq!(old.len(), 1);
    thread::sleep(Duration::from_secs(7).saturating_sub(issued.elapsed()));
    place.sender().start().wait(WITHIN).assert_code(exit::REFUSED);
    place.link.change(Direction::ToReceiver, |faults| faults.bits_per_second = None);
    let mut receiver = place.receiver().start();
    receiver.wait_for_event("listening", 1, WITHIN);
    assert!(!place.transfers("receiver").contains(&old[0]), "the transfer that expired is dropped");
    super::assert_done(&place, place.sender().start(), receiver);
}
