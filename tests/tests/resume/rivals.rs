//! More than one process wants the same transfer, or the receiver has moved.

use std::net::{Ipv4Addr, SocketAddr};

use sealift_agent::ticket::Ticket;
use sealift_tests::{
    agents::{Agent, Launch},
    exit,
    invited::write_ticket,
    place::{Kind, Place},
    port::free_udp_port,
};

use super::{GRID, MIB, NOTICED_WITHIN, WITHIN, assert_done, assert_resumed, rate};

/// With the same ticket, a state directory of its own, and a way to the receiver that works.
fn second_sender(place: &Place) -> Launch {
    place.another_sender(place.ticket_by(place.to))
}

fn assert_refused(rival: Agent) {
    let rival = rival.wait(WITHIN);
    rival.assert_code(exit::REFUSED).assert_one_message();
    assert_eq!(rival.finished_event()["outcome"], "ticket_bound");
    let left = std::fs::read_dir(rival.state_dir().join("transfers")).unwrap().count();
    assert_eq!(left, 0, "a sender that was turned down keeps nothing");
}

/// Fault N13: while the first one runs, and while its link is down. The same ticket is not enough
/// to resume what another sender began, nor to drop it.
#[test]
fn n13_a_second_sender_is_refused() {
    let place = Place::new(GRID, rate(12), 13);
    let (mut sender, mut receiver) = place.start();
    place.wait_until_passed(&mut sender, 2 << 20);
    assert_refused(second_sender(&place).start());
    place.link.cut();
    receiver.wait_for_event("link_down", 1, NOTICED_WITHIN);
    assert_refused(second_sender(&place).start());
    assert_refused(second_sender(&place).arg("--restart").start());
    place.link.heal();
    assert_resumed(&place, sender, receiver);
}

/// Fault S10: one process at a time has a transfer's folder.
#[test]
fn s10_a_second_process_with_the_same_state_directory_is_refused() {
    let place = Place::new(Kind::Loader(4 * MIB), rate(8), 14);
    let (mut sender, receiver) = place.start();
    place.wait_until_passed(&mut sender, 1 << 20);
    let second = place.sender().start().wait(WITHIN);
    second.assert_code(exit::REFUSED).assert_one_message();
    assert!(second.message().contains("another process"), "{}", second.message());
    // The port is the first that a second receiver misses.
    place.receiver().ticket_at(&place.path("another-ticket")).start().wait(WITHIN).assert_code(exit::PREFLIGHT);
    let (sender, _) = assert_done(&place, sender, receiver);
    assert_eq!(sender.number("retries"), 0);
}

/// Fault S10: into one target of SQLite's, whatever the state directory.
#[test]
fn s10_a_second_receiver_of_the_same_target_is_refused_sqlite() {
    let place = Place::new(Kind::Sqlite(20_000), rate(12), 15);
    let (mut sender, receiver) = place.start();
    place.wait_until_passed(&mut sender, 1 << 20);
    let mut second = Launch::receiver(&place.target_url).bind_loopback().json().start();
    assert!(second.ticket_if_it_lives().is_none(), "it is refused before there is a ticket");
    second.wait(WITHIN).assert_code(exit::UNUSABLE).assert_one_message();
    assert_done(&place, sender, receiver);
}

/// Fault S10: of two loads into one file each has a place of its own. The first to end is there,
/// whole; the other replaces nothing.
#[test]
fn s10_two_receivers_of_the_same_file() {
    let place = Place::new(Kind::File(6 * MIB), rate(12), 17);
    let (mut sender, receiver) = place.start();
    place.wait_until_passed(&mut sender, 1 << 20);
    let other = place.path("other");
    std::fs::write(&other, "another dump").unwrap();
    let mut second = Launch::receiver(&place.target_url).arg("--danger-plaintext-file").bind_loopback().json().start();
    let rival = Launch::sender(&format!("file:{}", other.display()), second.ticket()).json().start();
    rival.wait(WITHIN).assert_code(exit::DONE);
    second.wait(WITHIN).assert_code(exit::DONE);
    assert_eq!(std::fs::read_to_string(place.target()).unwrap(), "another dump");
    for ended in [sender.wait(WITHIN), receiver.wait(WITHIN)] {
        ended.assert_code(exit::UNUSABLE).assert_one_message();
        assert_eq!(ended.finished_event()["outcome"], "target_not_empty");
    }
    assert_eq!(std::fs::read_to_string(place.target()).unwrap(), "another dump");
    place.assert_clean(&["to"]);
}

/// Fault N14: another receiver answers at one of the addresses. The right one is found at
/// the next.
#[test]
fn n14_another_receiver_at_the_first_address() {
    let place = Place::new(Kind::File(MIB), rate(12), 18);
    let mut other = Launch::receiver("discard:").bind_loopback().start();
    let other_ticket = Ticket::from_text(&std::fs::read_to_string(other.ticket()).unwrap()).unwrap();
    let mut receiver = place.receiver().start();
    let mut ticket = Ticket::from_text(&std::fs::read_to_string(receiver.ticket()).unwrap()).unwrap();
    ticket.addresses.insert(0, other_ticket.addresses[0].clone());
    write_ticket(&place.ticket(), ticket.to_text().as_bytes());
    assert_done(&place, place.sender().start(), receiver);
    other.sigint();
    other.wait(WITHIN);
}

/// Fault N14: while the receiver is away, another one is where it was. The sender does not take its
/// word, and waits.
#[test]
fn n14_another_receiver_takes_the_place_for_a_while() {
    let place = Place::new(GRID, rate(12), 19);
    let (mut sender, receiver) = place.start();
    place.wait_until_passed(&mut sender, 2 << 20);
    receiver.kill9();
    receiver.wait(WITHIN);
    let mut other = Launch::receiver("discard:").args(&["--bind", &place.to.to_string()]).start();
    other.ticket();
    sender.wait_for_event("attempt", 3, WITHIN);
    other.sigint();
    other.wait(WITHIN);
    assert_resumed(&place, sender, place.receiver().start());
}

/// Fault N14: the receiver comes back at another port, with the same identity, and its ticket says
/// where. The sender is given that ticket, and goes on.
#[test]
fn n14_the_receiver_comes_back_elsewhere_sqlite() {
    let place = Place::new(Kind::Sqlite(30_000), rate(12), 16);
    let (mut sender, receiver) = place.start();
    place.wait_until_passed(&mut sender, 3 << 20);
    receiver.kill9();
    sender.sigint();
    sender.wait(WITHIN).assert_code(exit::USER_INTERRUPT);
    let elsewhere = SocketAddr::from((Ipv4Addr::LOCALHOST, free_udp_port())).to_string();
    let moved = Launch::receiver(&place.target_url).state(&place.path("receiver")).ticket_at(&place.ticket()).json();
    let mut receiver = moved.args(&["--bind", &elsewhere]).start();
    receiver.wait_for_event("listening", 1, WITHIN);
    assert_resumed(&place, place.sender().start(), receiver);
}

/// Fault N14: at the new place that the ticket names, another receiver is. Its certificate is not
/// the one of the ticket: the sender says so, sends it nothing and keeps the transfer, which goes
/// on with the right one.
#[test]
fn n14_another_receiver_at_the_new_place_of_the_ticket_is_refused_sqlite() {
    let place = Place::new(Kind::Sqlite(30_000), rate(12), 20);
    let (mut sender, receiver) = place.start();
    place.wait_until_passed(&mut sender, 2 << 20);
    sender.sigint();
    sender.wait(WITHIN).assert_code(exit::USER_INTERRUPT);
    receiver.wait(WITHIN).assert_code(exit::INTERRUPTED);
    let mut other = Launch::receiver("discard:").bind_loopback().json().start();
    let other_ticket = Ticket::from_text(&std::fs::read_to_string(other.ticket()).unwrap()).unwrap();
    let there = place.ticket_by(other_ticket.addresses[0].parse().unwrap());
    let led_astray = Launch::sender(&place.source_url, there).state(&place.path("sender")).json();
    let refused = led_astray.args(&["--retry-for", "3s"]).start().wait(WITHIN);
    refused.assert_code(exit::INTERRUPTED).assert_one_message();
    assert!(refused.message().contains("not the one that the ticket is for"), "{}", refused.message());
    assert_eq!(refused.number("sealed_bytes"), 0);
    other.sigint();
    let other = other.wait(WITHIN);
    assert_eq!((other.count("started"), other.count("finished")), (0, 1), "{:?}", other.events());
    assert_eq!(place.transfers("sender"), place.transfers("receiver"), "nothing is lost");
    let mut receiver = place.receiver().start();
    receiver.wait_for_event("listening", 1, WITHIN);
    assert_resumed(&place, place.sender().start(), receiver);
}
