//! Others at the receiver's port while it works: a second sender, floods of packets that mean
//! nothing.

use std::{fs::File, path::Path, time::Duration};

use sealift_agent::ticket::Ticket;
use sealift_tests::{
    agents::Launch,
    bytes::{digest_file, dump_like, write_file},
    exit,
    flood::Flood,
    pair::Pair,
};

const WITHIN: Duration = Duration::from_secs(60);
const MEMORY_BYTES_MAX: u64 = 128 << 20;
/// Before a transfer, and again while it runs.
const FLOOD_PACKETS: u64 = 3000;

fn address(ticket: &Path) -> String {
    Ticket::from_text(&std::fs::read_to_string(ticket).unwrap()).unwrap().addresses[0].clone()
}

/// Fault N13: the second sender of one transfer is turned away, and the first goes on.
#[test]
fn n13_a_second_sender_is_turned_away() {
    let mut running = Pair::new("exec:sh -c 'echo rows; sleep 4'", "discard:").start();
    running.wait_until_started();
    let ticket = running.receiver.ticket();
    let second = Launch::sender("exec:echo others", &ticket).start().wait(WITHIN);
    second.assert_code(exit::REFUSED).assert_one_message();
    running.wait(WITHIN).assert_done();
}

/// Faults X15, X16, X19: packets that are no handshake, and handshakes that go nowhere, from many
/// addresses: a transfer that begins and runs meanwhile completes, exact, and memory stays bounded.
#[test]
fn x16_x19_a_flood_does_not_stop_a_transfer() {
    let folder = tempfile::Builder::new().prefix("sealift-data-").tempdir().unwrap();
    let path = |name| folder.path().join(name);
    write_file(&path("piece"), dump_like(19, 1 << 20));
    // It goes on until it is told that the flood has had its time, and keeps what it gave.
    let pieces = "until test -e enough; do cat piece; sleep 0.05; done; cat piece";
    let source = format!("exec:sh -c 'cd {} && {{ {pieces}; }} | tee source'", folder.path().display());
    let target = format!("file:{}", path("target").display());
    let mut receiver = Launch::receiver(&target).bind_loopback().arg("--danger-plaintext-file").json().start();
    let ticket = receiver.ticket();

    let flood = Flood::start(address(&ticket).parse().unwrap());
    flood.wait_for_more(FLOOD_PACKETS, WITHIN);
    let sender = Launch::sender(&source, &ticket).start();
    receiver.wait_for_event("started", 1, WITHIN);
    flood.wait_for_more(FLOOD_PACKETS, WITHIN);
    File::create(path("enough")).unwrap();
    sender.wait(WITHIN).assert_code(exit::DONE);
    let receiver = receiver.wait(WITHIN);
    receiver.assert_code(exit::DONE);
    assert!(flood.asked_for_proof() > 0, "no packet was taken for the first of a connection");

    assert_eq!(digest_file(&path("source")), digest_file(&path("target")));
    assert!(receiver.peak_memory_bytes < MEMORY_BYTES_MAX, "{} bytes", receiver.peak_memory_bytes);
}
