//! Handshakes without end by those who have no ticket.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
};

use sealift_agent::admission::Stage;
use sealift_tests::{
    exit,
    link::Faults,
    place::{Kind, Place},
    stranger::Strangers,
};
use serde_json::Value;

use super::{MEMORY_BYTES_MAX, Victim, WITHIN};

/// The honest sender's own: strangers behind the same gateway.
const SAME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 9, 9, 9));

/// More than the places of any address, and all that begin before one of them gives up by itself.
const HANDSHAKES: u64 = 2000;

fn wait_until_established(strangers: &Strangers, per_second: u64) {
    strangers.wait_for_more(HANDSHAKES.min(per_second * 5 / 2), WITHIN);
}

/// Issue 9, C1; fault E13: half-open handshakes, 10 to 200 a second (1,000 are for `flood`, the
/// bench) from the sender's own address or another, keep nobody out.
#[test]
fn e13_half_open_handshakes_keep_no_sender_out() {
    for (per_second, address) in [(10, SAME), (100, OTHER), (200, SAME)] {
        let mut victim = Victim::start();
        let strangers = Strangers::half_open(victim.address(), address, per_second);
        wait_until_established(&strangers, per_second);
        victim.serves_an_honest_sender();
    }
}

/// Issue 9, C1; fault E13: nor does who completes them, without a known identity. What is refused
/// is a few lines in the log, and counts by cause and address in the audit log.
#[test]
fn e13_foreign_handshakes_keep_no_sender_out_and_fill_no_log() {
    let mut victim = Victim::start();
    let strangers = Strangers::foreign(victim.address(), SAME, 100);
    strangers.wait_for_more(200, WITHIN);
    let begun = strangers.begun();
    let receiver = victim.serves_an_honest_sender();
    let stderr = receiver.stderr();
    assert!(stderr.lines().filter(|line| line.contains("refused")).count() <= 20, "{stderr}");
    let audit = fs::read_to_string(receiver.state_dir().join("audit.jsonl")).unwrap();
    let entries = audit.lines().map(|line| serde_json::from_str(line).unwrap());
    let refused: Vec<Value> = entries.filter(|entry: &Value| entry["event"] == "connections.refused").collect();
    // One a minute at most, and the last.
    assert!((1..=3).contains(&refused.len()), "{refused:?}");
    // Evicted, or too slow with their proof; as many as have a place at the end are not refused
    // yet.
    let total: u64 = refused.iter().map(|entry| entry["total"].as_u64().unwrap()).sum();
    let held = Stage::Unproven.limits().each_address as u64;
    assert!(total + held >= begun * 9 / 10, "{total} of {begun}: {refused:?}");
    assert!(refused[0]["addresses"]["127.0.0.1"].as_u64().is_some(), "{refused:?}");
}

/// Issue 9, C1; fault E13: a transfer that runs beside them, and whose link is lost, comes back.
#[test]
fn e13_a_running_transfer_comes_back_beside_half_open_handshakes() {
    let slow = Faults { bits_per_second: Some(12_000_000), ..Faults::default() };
    let place = Place::new(Kind::File(6 << 20), slow, 13);
    let (mut sender, mut receiver) = place.start();
    place.wait_until_passed(&mut sender, 1 << 20);
    let strangers = Strangers::half_open(place.to, SAME, 200);
    wait_until_established(&strangers, 200);
    place.link.cut();
    receiver.wait_for_event("link_down", 1, WITHIN);
    place.link.heal();
    sender.wait_for_event("link_up", 1, WITHIN);
    let (sender, receiver) = (sender.wait(WITHIN), receiver.wait(WITHIN));
    sender.assert_code(exit::DONE);
    receiver.assert_code(exit::DONE);
    assert!(place.is_same());
    assert!(receiver.peak_memory_bytes < MEMORY_BYTES_MAX, "{} bytes", receiver.peak_memory_bytes);
    assert!(strangers.begun() > HANDSHAKES / 4, "they were there all the time");
}
