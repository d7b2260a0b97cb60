//! Those who have a ticket and do nothing with it, before Ready or after it, beside a sender that
//! wants to be served.

use std::{fs, path::Path, time::Duration};

use nix::sys::signal::Signal;
use sealift_agent::ticket::Ticket;
use sealift_receiver::serve::DRAIN_TIMEOUT;
use sealift_tests::{agents::RECEIVER, dribble::Dribblers, exit};

use crate::place::{Place, WITHIN, events, wait_for_events};

const MEMORY_BYTES_MAX: u64 = 128 << 20;

const CONNECTIONS_EACH: usize = 12;

/// Issue 9, C1: two holders of tickets, one of them spent, with connections that announce as much
/// as they may and dribble: a third sender is served, and memory stays bounded.
#[test]
fn c1_offers_that_dribble_neither_shut_a_service_nor_fill_it() {
    let targets = ["a", "b", "c"].map(|name| (name, "discard:"));
    let place = Place::new("transfers_max = 2\nmemory = \"64MiB\"", &targets);
    let mut receiver = place.serve();
    let source = place.dump("dump");
    let tickets = ["a", "b", "c"].map(|name| place.ticket(name));
    let push = |ticket: &Path| place.push(&format!("file:{}", source.display()), ticket).wait(WITHIN);
    push(&tickets[0]).assert_code(exit::DONE);
    let read = |path: &Path| Ticket::from_text(&fs::read_to_string(path).unwrap()).unwrap();
    let (spent, unused) = (read(&tickets[0]), read(&tickets[1]));
    let attack = Dribblers::start(vec![spent, unused], CONNECTIONS_EACH);
    std::thread::sleep(Duration::from_secs(3));
    let honest = push(&tickets[2]);
    honest.assert_code(exit::DONE);
    assert_eq!(honest.number("retries"), 0, "{}", honest.stderr());
    wait_for_events(&mut receiver, "ended", 2);
    drop(attack);
    // It is good for the sender that proved it first.
    push(&tickets[1]).assert_code(exit::REFUSED);
    receiver.signal(Signal::SIGTERM);
    let receiver = receiver.wait(DRAIN_TIMEOUT + Duration::from_secs(10));
    receiver.assert_code(exit::DONE);
    assert!(receiver.peak_memory_bytes < MEMORY_BYTES_MAX, "{} bytes", receiver.peak_memory_bytes);
    let refused = receiver.stderr().lines().filter(|line| line.contains("refused")).count();
    assert!(refused <= 20, "{}", receiver.stderr());
}

/// Every part of a dump of `lines` lines, each a while after the one before.
fn slow_dump(lines: u32, pause: &str) -> String {
    format!("exec:sh -c 'for i in $(seq {lines}); do echo row $i; sleep {pause}; done'")
}

/// Issue 9, C1: senders that are let in and then bring nothing keep their places only until another
/// one needs one; they go on afterwards, by themselves, and lose nothing.
#[test]
fn c1_a_place_is_not_kept_by_silence() {
    let load = |name: &str| format!("exec:sh -c 'cat > {{}}/{name}.part && mv {{}}/{name}.part {{}}/{name}'");
    let (a, b, c) = (load("a"), load("b"), load("c"));
    let place =
        Place::new("transfers_max = 2\nidle_max = \"1s\"", &[("a", a.as_str()), ("b", b.as_str()), ("c", c.as_str())]);
    let mut receiver = place.serve();
    // One line now, and the rest much later than any peer is waited for.
    let quiet = ["a", "b"].map(|name| place.push(&slow_dump(2, "12"), &place.ticket(name)));
    wait_for_events(&mut receiver, "started", 2);
    std::thread::sleep(Duration::from_secs(2));
    let honest = place.push(&slow_dump(1, "0"), &place.ticket("c")).wait(WITHIN);
    assert_eq!(honest.assert_code(exit::DONE).number("retries"), 0, "{}", honest.stderr());
    let displaced = events(&receiver, "ended").iter().filter(|ended| ended["outcome"] == "receiver_busy").count();
    // The one that made room may by now have the other one's place: neither brings anything.
    assert!(displaced > 0, "a place was needed: {}", receiver.stderr());
    for (name, quiet) in ["a", "b"].into_iter().zip(quiet) {
        quiet.wait(WITHIN).assert_code(exit::DONE);
        assert_eq!(fs::read_to_string(place.path("target").join(name)).unwrap(), "row 1\nrow 2\n");
    }
    place.assert_nothing_left(&["a", "b", "c"]);
    receiver.signal(Signal::SIGTERM);
    receiver.wait(DRAIN_TIMEOUT).assert_code(exit::DONE);
}

/// Issue 9, C1: a sender whose link is down is waited for no longer, if its place is needed; nor
/// are those of an earlier process, that have not come back.
#[test]
fn c1_a_place_is_not_kept_for_one_that_is_gone() {
    let place = Place::new("transfers_max = 1\nidle_max = \"1s\"", &[("a", "discard:"), ("b", "discard:")]);
    let mut receiver = place.serve();
    let gone = place.push(&slow_dump(2, "20"), &place.ticket("a"));
    wait_for_events(&mut receiver, "started", 1);
    receiver.kill9();
    gone.kill9();
    receiver.wait(WITHIN);
    gone.wait(WITHIN);
    let receiver = place.serve();
    std::thread::sleep(Duration::from_secs(2));
    place.push(&slow_dump(1, "0"), &place.ticket("b")).wait(WITHIN).assert_code(exit::DONE);
    assert_eq!(place.status(RECEIVER).len(), 1, "the other one is kept");
    receiver.signal(Signal::SIGTERM);
    receiver.wait(DRAIN_TIMEOUT).assert_code(exit::DONE);
}

/// Issue 9, C1: nobody waits for the sender while the receiver itself is at work: a loader that
/// takes its time, in the middle and at its end, keeps its place.
#[test]
fn c1_a_place_is_kept_while_the_receiver_is_at_work() {
    let loader = "exec:sh -c 'head -c 100000 >/dev/null; sleep 4; cat >/dev/null; sleep 4'";
    let place = Place::new("transfers_max = 1\nidle_max = \"1s\"", &[("a", loader), ("b", "discard:")]);
    let mut receiver = place.serve();
    let dump = place.path("large");
    fs::write(&dump, sealift_tests::place::random_bytes(16 << 20, 71)).unwrap();
    let slow = place.push(&format!("file:{}", dump.display()), &place.ticket("a"));
    wait_for_events(&mut receiver, "started", 1);
    for number in 0..3 {
        std::thread::sleep(Duration::from_millis(2200));
        let ticket = place.path(&format!("{number}.ticket"));
        place.ticket_command("b", &ticket).assert_code(exit::DONE);
        let other = place.push(&slow_dump(1, "0"), &ticket).wait(WITHIN);
        assert_eq!(other.assert_code(exit::REFUSED).finished_event()["outcome"], "receiver_busy");
    }
    assert_eq!(slow.wait(WITHIN).assert_code(exit::DONE).number("retries"), 0);
    receiver.signal(Signal::SIGTERM);
    receiver.wait(DRAIN_TIMEOUT).assert_code(exit::DONE);
}
