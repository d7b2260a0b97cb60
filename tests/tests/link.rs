//! Faulty networks between the two agents (faults N1 to N4, N7 to N9, N15, N16). Whatever the link
//! does, what arrives is exact.

use std::time::{Duration, Instant};

use sealift_tests::{
    bytes::{digest_file, noise, write_file},
    exit,
    link::{Counters, Direction, Faults},
    pair::{Pair, Running},
    random::Random,
};
use tempfile::TempDir;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Longer than any of these should take; a fault must not look like a hang.
const WITHIN: Duration = Duration::from_secs(100);

struct Moved {
    folder: TempDir,
    running: Running,
}

/// Starts a transfer of so many bytes over this link, of which neither side forgives the loss: no
/// fault here is to be mistaken for one.
fn start(test: &str, bytes: u64, faults: Faults) -> Moved {
    let folder = tempfile::Builder::new().prefix("sealift-data-").tempdir().unwrap();
    let seed = Random::of_this_run(test).number();
    write_file(&folder.path().join("from"), noise(seed, bytes));
    let url = |name: &str| format!("file:{}", folder.path().join(name).display());
    let pair = Pair::new(url("from"), url("to")).receiver_args(&["--danger-plaintext-file"]).over(faults, seed);
    let running = pair.receiver_args(&["--grace", "0s"]).sender_args(&["--retry-for", "0s"]).start();
    Moved { folder, running }
}

impl Moved {
    /// Waits for both, and returns what the link did in each direction.
    #[track_caller]
    fn assert_exact(self) -> [Counters; 2] {
        let Running { sender, receiver, link } = self.running;
        let (sender, receiver) = (sender.wait(WITHIN), receiver.wait(WITHIN));
        let counters = Direction::BOTH.map(|direction| link.as_ref().unwrap().counters(direction));
        println!("{:?} for {counters:?}", sender.took);
        sender.assert_code(exit::DONE);
        receiver.assert_code(exit::DONE);
        let file = |name| digest_file(&self.folder.path().join(name));
        assert_eq!(file("from"), file("to"));
        counters
    }
}

fn exact(test: &str, bytes: u64, faults: Faults) -> [Counters; 2] {
    start(test, bytes, faults).assert_exact()
}

#[test]
fn a_perfect_link() {
    exact("perfect", 4 * MIB, Faults::default());
}

#[test]
fn n1_loss_of_one_percent() {
    let counters = exact("n1-1", 4 * MIB, Faults { loss_percent: 1.0, ..Faults::default() });
    assert!(counters[0].lost > 0, "the link lost nothing");
}

#[test]
fn n1_loss_of_five_percent() {
    exact("n1-5", 2 * MIB, Faults { loss_percent: 5.0, ..Faults::default() });
}

#[test]
fn n1_loss_of_twenty_percent() {
    exact("n1-20", MIB, Faults { loss_percent: 20.0, ..Faults::default() });
}

#[test]
fn n2_every_datagram_twice() {
    let counters = exact("n2", 4 * MIB, Faults { duplicate_percent: 100.0, ..Faults::default() });
    assert!(counters[0].duplicated > 100, "{counters:?}");
}

#[test]
fn n3_heavy_reordering() {
    exact("n3", 2 * MIB, Faults { reorder_window: 500, ..Faults::default() });
}

#[test]
fn n4_flipped_bits_in_datagrams() {
    let counters = exact("n4", 2 * MIB, Faults { corrupt_percent: 5.0, ..Faults::default() });
    assert!(counters[0].corrupted > 10, "{counters:?}");
}

/// Fault N7: one direction dies. Both notice within 30 seconds, and nothing is visible.
#[test]
fn n7_half_open_link() {
    for dead in Direction::BOTH {
        let slow = Faults { bits_per_second: Some(4_000_000), ..Faults::default() };
        let mut moved = start("n7", 8 * MIB, slow);
        moved.running.wait_until_started();
        moved.running.link().block(dead);
        let cut = Instant::now();
        let Running { sender, receiver, link } = moved.running;
        sender.wait(WITHIN).assert_code(exit::INTERRUPTED).assert_one_message();
        receiver.wait(WITHIN).assert_code(exit::INTERRUPTED).assert_one_message();
        assert!(cut.elapsed() < Duration::from_secs(30), "{:?}", cut.elapsed());
        assert!(!moved.folder.path().join("to").exists());
        drop(link);
    }
}

/// A link that is dead from the beginning is a receiver that cannot be reached.
#[test]
fn n16_nothing_passes() {
    let moved = start("n16", KIB, Faults { blocked: true, ..Faults::default() });
    let mut running = moved.running;
    running.sender.wait(WITHIN).assert_code(exit::PEER).assert_one_message();
    assert!(running.receiver.is_running(), "its ticket was not used");
    running.receiver.sigint();
    running.receiver.wait(WITHIN).assert_code(exit::USER_INTERRUPT);
}

#[test]
fn n8_long_round_trip_with_jitter() {
    let (delay, jitter) = (Duration::from_millis(200), Duration::from_millis(400));
    exact("n8", 100 * KIB, Faults { delay, jitter, ..Faults::default() });
}

#[test]
fn n9_datagrams_of_1200_bytes_and_no_more() {
    let counters = exact("n9-1200", 2 * MIB, Faults { datagram_bytes_max: Some(1200), ..Faults::default() });
    assert!(counters[0].too_large > 0, "larger ones were tried: {counters:?}");
}

#[test]
fn n9_datagrams_of_1252_bytes_as_an_mtu_of_1280_allows() {
    exact("n9-1280", 2 * MIB, Faults { datagram_bytes_max: Some(1252), ..Faults::default() });
}

/// Fault N9: the path shrinks while data flows, and nobody says so.
#[test]
fn n9_the_path_shrinks_on_the_way() {
    let slow = Faults { bits_per_second: Some(8_000_000), ..Faults::default() };
    let mut moved = start("n9-shrinks", 4 * MIB, slow);
    moved.running.wait_until_started();
    std::thread::sleep(Duration::from_millis(500));
    for direction in Direction::BOTH {
        moved.running.link().change(direction, |faults| faults.datagram_bytes_max = Some(1200));
    }
    moved.assert_exact();
}

#[test]
fn n15_sixty_four_kilobits_a_second() {
    // Two seconds of queue: a modem's, not a router's.
    let faults = Faults { bits_per_second: Some(64_000), queue_bytes_max: 16 << 10, ..Faults::default() };
    exact("n15", 40 * KIB, faults);
}

/// A link that is down for a few seconds is waited for.
#[test]
fn a_short_cut_is_survived() {
    let slow = Faults { bits_per_second: Some(8_000_000), ..Faults::default() };
    let mut moved = start("short-cut", 4 * MIB, slow);
    moved.running.wait_until_started();
    moved.running.link().cut();
    std::thread::sleep(Duration::from_secs(3));
    moved.running.link().heal();
    moved.assert_exact();
}

/// All at once, and not much of each: what a bad mobile link does.
#[test]
fn a_bad_mobile_link() {
    let faults = Faults {
        loss_percent: 2.0,
        duplicate_percent: 1.0,
        corrupt_percent: 0.5,
        reorder_window: 5,
        delay: Duration::from_millis(30),
        jitter: Duration::from_millis(40),
        bits_per_second: Some(4_000_000),
        datagram_bytes_max: Some(1300),
        ..Faults::default()
    };
    exact("mobile", 512 * KIB, faults);
}
