//! The time that a grant gives to finish runs out: nothing more is read, opened or committed, and
//! the transfer is suspended until another ticket permits the rest (issue 9, A5; faults E11, N6,
//! T1, T7).

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

use super::{GRID, WITHIN, rate};

/// The end of a grant is acted upon within seconds.
const EXPIRY_WITHIN: Duration = Duration::from_secs(8);

fn start(kind: Kind, finish_within: &str) -> (Place, Agent, Agent, Instant) {
    let place = Place::new(kind, rate(4), 6);
    let mut receiver = place.receiver().args(&["--finish-within", finish_within]).start();
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
    assert_eq!(place.transfers("receiver").len(), 1, "it is suspended");
    assert_eq!(place.transfers("sender").len(), 1, "it is suspended");
}

/// Issue 9, A5, C7: both sides say that a minute is left, once, the one to people, the other to
/// programs. People without a terminal are also told how far it is, soon and then once a minute.
#[test]
fn both_sides_say_that_a_minute_is_left_and_how_far_it_is_loader() {
    let place = Place::new(Kind::Loader(8 << 20), rate(4), 8);
    let mut receiver = place.receiver_for_people().args(&["--finish-within", "64s"]).start();
    receiver.ticket();
    let mut sender = place.sender().start();
    sender.wait_for_event("time_left", 1, WITHIN);
    let says = |agent: &mut Agent| agent.stderr().contains("left to finish; then the transfer is suspended");
    receiver.wait_for("how much time is left", WITHIN, says);
    let is_line = |line: &str| line.starts_with("receiver: ") && line.contains("% ") && line.contains("/s ");
    let lines = |text: String| text.lines().filter(|line| is_line(line)).count();
    receiver.wait_for("how far it is", WITHIN, |agent| lines(agent.stderr()) > 0);
    place.link.change(Direction::ToReceiver, |faults| faults.bits_per_second = None);
    let (sender, receiver) = super::assert_done(&place, sender, receiver);
    let said = receiver.stderr();
    assert_eq!((said.matches("left to finish").count(), lines(said.clone())), (1, 1), "{said}");
    let told: Vec<_> = sender.events().into_iter().filter(|event| event["event"] == "time_left").collect();
    assert!(told.len() == 1 && (50..=60).contains(&told[0]["seconds"].as_u64().unwrap()), "{told:?}");
}

/// The same command at the receiver permits the rest, and its ticket lets the same sender resume.
fn assert_resumed_with_another_ticket(place: &Place) {
    place.sender().start().wait(WITHIN).assert_code(exit::REFUSED).assert_one_message();
    place.link.change(Direction::ToReceiver, |faults| faults.bits_per_second = None);
    let mut receiver = place.receiver().start();
    receiver.wait_for_event("listening", 1, WITHIN);
    super::assert_done(place, place.sender().start(), receiver);
}

/// Faults N6, T1: during a black hole. Both end, and the old ticket is good for nothing.
#[test]
fn n6_t1_expires_while_the_link_is_down_grid() {
    let (place, mut sender, receiver, issued) = start(GRID, "15s");
    place.wait_until_passed(&mut sender, 500 << 10);
    place.link.cut();
    assert_expired(&place, sender, receiver);
    assert!(issued.elapsed() < Duration::from_secs(15) + EXPIRY_WITHIN, "{:?}", issued.elapsed());
    place.link.heal();
    assert_resumed_with_another_ticket(&place);
}

/// Fault T7: while a chunk is on its way. What of the load was committed stays staged.
fn expires_while_data_flows(kind: Kind) {
    let (place, mut sender, receiver, _) = start(kind, "6s");
    place.wait_until_passed(&mut sender, 500 << 10);
    let staging = place.staging();
    assert!(staging.exists(), "nothing is staged");
    let flowing = place.link.counters(Direction::ToReceiver).sent_bytes;
    assert_expired(&place, sender, receiver);
    assert!(place.link.counters(Direction::ToReceiver).sent_bytes > flowing, "nothing was on its way");
    assert!(staging.exists(), "what was loaded stays");
    assert_resumed_with_another_ticket(&place);
}

cases! {
    t7_expires_while_data_flows_sqlite: expires_while_data_flows(Kind::Sqlite(40_000));
    t7_expires_while_data_flows_grid: expires_while_data_flows(GRID);
}

/// Fault T7: a loader that commits when its input ends is killed before it sees an end.
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
    assert_resumed_with_another_ticket(&place);
}

/// Fault T1: the time ran out while neither ran. What was begun is resumed with another ticket.
#[test]
fn t1_expired_while_nobody_ran_grid() {
    let (place, mut sender, receiver, issued) = start(GRID, "6s");
    place.wait_until_passed(&mut sender, 500 << 10);
    sender.kill9();
    receiver.kill9();
    let _ = (sender.wait(WITHIN), receiver.wait(WITHIN));
    assert_eq!(place.transfers("receiver").len(), 1);
    thread::sleep(Duration::from_secs(7).saturating_sub(issued.elapsed()));
    assert_resumed_with_another_ticket(&place);
}

/// Issue 9, A5: what nobody has resumed while it was kept is dropped by the next command, staging
/// included.
#[test]
fn what_is_suspended_is_dropped_when_its_retention_ends_sqlite() {
    let place = Place::new(Kind::Sqlite(20_000), rate(4), 7);
    let mut receiver = place.receiver().args(&["--finish-within", "4s", "--keep-for", "1s"]).start();
    receiver.ticket();
    let mut sender = place.sender().start();
    place.wait_until_passed(&mut sender, 500 << 10);
    assert_expired(&place, sender, receiver);
    let old = place.transfers("receiver");
    thread::sleep(Duration::from_secs(2));
    place.link.change(Direction::ToReceiver, |faults| faults.bits_per_second = None);
    let mut receiver = place.receiver().start();
    receiver.wait_for_event("listening", 1, WITHIN);
    assert!(!place.transfers("receiver").contains(&old[0]), "it is dropped");
    super::assert_done(&place, place.sender().start(), receiver);
}
