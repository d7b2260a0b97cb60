//! The link is lost while both sides live.

use std::{
    thread,
    time::{Duration, Instant},
};

use sealift_tests::{
    agents::Agent,
    link::{Direction, Faults},
    place::{Kind, Place},
};

use super::{GRID, MIB, NOTICED_WITHIN, OUTAGE, WITHIN, assert_done, assert_resumed, grid, rate};

/// Of one part at `--memory 32MiB`: half of that, as docs/operations.md says.
const WINDOW_BYTES: u64 = 16 << 20;

/// Fault N5: black holes one after the other. Each time a new connection under a new epoch, and no
/// more sent again than the window holds.
fn outages(kind: Kind, at: &[u64], faults: Faults) {
    let place = Place::new(kind, faults, 5);
    let mut receiver = place.receiver().args(&["--memory", "32MiB"]).start();
    receiver.ticket();
    let mut sender = place.sender().start();
    for &bytes in at {
        place.wait_until_passed(&mut sender, bytes);
        place.link.cut();
        thread::sleep(OUTAGE);
        place.link.heal();
    }
    let (sender, receiver) = assert_resumed(&place, sender, receiver);
    assert_eq!(receiver.resume().as_deref(), Some("resumed"));
    for agent in [&sender, &receiver] {
        let told: Vec<_> = agent.events().iter().map(|event| event["event"].to_string()).collect();
        assert_eq!(agent.count("link_down"), at.len(), "{told:?}");
        assert_eq!((agent.count("link_up"), agent.count("resume")), (at.len(), at.len()), "{told:?}");
    }
    assert!(sender.count("attempt") >= at.len());
    assert_eq!(sender.number("retries"), sender.count("attempt") as u64);
    let resent = sender.number("resent_bytes");
    assert!(resent <= at.len() as u64 * WINDOW_BYTES, "{resent} bytes were sent again");
    println!("sent again: {resent} bytes in {} outages", at.len());
    let epochs: Vec<_> = receiver.events().iter().filter_map(|event| event["epoch"].as_u64()).collect();
    assert_eq!(epochs, (2..2 + at.len() as u64).collect::<Vec<_>>());
}

cases! {
    n5_black_holes_file: outages(Kind::File(32 * MIB), &[3 << 20, 12 << 20, 22 << 20], rate(24));
    n5_black_holes_loader: outages(Kind::Loader(12 * MIB), &[3 << 20, 8 << 20], rate(12));
    /// Several parts, of which some are loaded, one is under way, and others wait.
    n5_black_holes_sqlite: outages(Kind::Sqlite(40_000), &[200 << 10, 3 << 20, 6 << 20], rate(12));
    /// The same of an engine that the product does not know.
    n5_black_holes_grid: outages(GRID, &[200 << 10, 3 << 20, 8 << 20], rate(12));
    /// A source that gives its bytes once survives a lost link all the same: what is not
    /// acknowledged is kept.
    n5_black_holes_program: outages(Kind::Program(12 * MIB), &[3 << 20, 8 << 20], rate(12));
}

const HALF_OPEN_NOTICED_WITHIN: Duration = Duration::from_secs(30);

/// Faults N7, N11: one direction is dead; both notice. With the way back dead, the receiver has
/// committed what the sender does not know of: it is acknowledged again, and not loaded twice.
fn half_open(kind: Kind, dead: Direction, bytes: u64) {
    let place = Place::new(kind, rate(12), 7);
    let (mut sender, mut receiver) = place.start();
    sender.wait_for_event("started", 1, NOTICED_WITHIN);
    place.wait_until_passed(&mut sender, bytes);
    place.link.block(dead);
    // A side that still receives keep-alives gives up only after those have ended.
    for agent in [&mut sender, &mut receiver] {
        agent.wait_for_event("link_down", 1, HALF_OPEN_NOTICED_WITHIN);
    }
    place.link.heal();
    assert_resumed(&place, sender, receiver);
}

cases! {
    n7_n11_way_back_dead_sqlite: half_open(Kind::Sqlite(30_000), Direction::ToSender, 300 << 10);
    n7_n11_way_back_dead_loader: half_open(Kind::Loader(8 * MIB), Direction::ToSender, 2 << 20);
    n7_n11_way_back_dead_grid: half_open(GRID, Direction::ToSender, 2 << 20);
    n7_way_there_dead_grid: half_open(GRID, Direction::ToReceiver, 2 << 20);
}

/// Fault N9: small datagrams from the beginning, and a path that becomes one for small datagrams
/// alone without telling.
#[test]
fn n9_small_datagrams() {
    for most in [1200, 1280] {
        let faults = Faults { datagram_bytes_max: Some(most), ..Faults::default() };
        let place = Place::new(Kind::Sqlite(5_000), faults, 9);
        let (sender, receiver) = place.start();
        let (sender, _) = assert_done(&place, sender, receiver);
        assert_eq!((sender.number("retries"), sender.resume()), (0, None), "{most}");
    }
}

#[test]
fn n9_a_path_that_shrinks() {
    let place = Place::new(grid(4), rate(12), 9);
    let (mut sender, receiver) = place.start();
    place.wait_until_passed(&mut sender, 1 << 20);
    for direction in Direction::BOTH {
        place.link.change(direction, |faults| faults.datagram_bytes_max = Some(1200));
    }
    assert_done(&place, sender, receiver);
}

/// Fault N10: migration is off, so that a connection whose packets come from elsewhere ends; the
/// next one goes on.
#[test]
fn n10_the_senders_address_changes() {
    let place = Place::new(GRID, rate(12), 10);
    let (mut sender, receiver) = place.start();
    place.wait_until_passed(&mut sender, 2 << 20);
    place.link.rebind();
    let (sender, _) = assert_resumed(&place, sender, receiver);
    assert_eq!(sender.count("link_down"), 1);
}

/// A receiver that waited as long as it was told to stops, and says how to go on; the same two
/// commands do.
#[test]
fn a_long_outage_ends_both_in_a_state_to_go_on_from() {
    let place = Place::new(GRID, rate(12), 11);
    let mut receiver = place.receiver().args(&["--grace", "1s"]).start();
    receiver.ticket();
    let mut sender = place.sender().args(&["--retry-for", "1s"]).start();
    place.wait_until_passed(&mut sender, 2 << 20);
    place.link.cut();
    for ended in [sender.wait(NOTICED_WITHIN * 3), receiver.wait(NOTICED_WITHIN)] {
        ended.assert_code(sealift_tests::exit::INTERRUPTED).assert_one_message();
        assert!(ended.message().contains("resumed where it stopped"), "{}", ended.message());
    }
    assert!(!place.target().exists());
    place.link.heal();
    let (sender, receiver) = place.start();
    assert_resumed(&place, sender, receiver);
}

/// A link that goes dead after each greeting, before any chunk is across: that there was a
/// connection again is no progress.
#[test]
fn a_link_that_dies_after_each_greeting_is_given_up() {
    let place = Place::new(Kind::Program(8 * MIB), rate(1), 13);
    let mut receiver = place.receiver().start();
    receiver.ticket();
    let mut sender = place.sender().args(&["--retry-for", "12s"]).start();
    let started = Instant::now();
    for times in 1.. {
        let told = |agent: &mut Agent, event: &str| {
            let named = format!("\"event\":\"{event}\"");
            String::from_utf8_lossy(&agent.stdout()).matches(&named).count() >= times || !agent.is_running()
        };
        sender.wait_for("a start", WITHIN, |agent| told(agent, "started"));
        if !sender.is_running() {
            break;
        }
        assert!(started.elapsed() < NOTICED_WITHIN * 4, "it is tried for ever");
        place.link.cut();
        sender.wait_for("its loss", WITHIN, |agent| told(agent, "link_down"));
        place.link.heal();
    }
    sender.wait(WITHIN).assert_code(sealift_tests::exit::INTERRUPTED).assert_one_message();
}

/// A loader that is merely slow is not taken for a dead peer.
#[test]
fn a_slow_loader_is_no_lost_link() {
    let mut place = Place::new(Kind::Loader(4 * MIB), Faults::default(), 12);
    let (loading, target) = (place.path("loading"), place.target());
    place.target_url =
        format!("exec:sh -c 'sleep 11; cat >{0} && sleep 11 && mv {0} {1}'", loading.display(), target.display());
    let (sender, receiver) = place.start();
    let (sender, receiver) = assert_done(&place, sender, receiver);
    assert!(sender.took > Duration::from_secs(20));
    assert_eq!((sender.number("retries"), receiver.count("link_down")), (0, 0));
}
