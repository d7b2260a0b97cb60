//! Others at the receiver's port while it works: a second sender, floods of packets that mean nothing.

use std::{
    net::UdpSocket,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use sealift_agent::ticket::Ticket;
use sealift_tests::{
    agents::Launch,
    bytes::{digest_file, dump_like, write_file},
    exit,
    pair::Pair,
    random::Random,
};

const WITHIN: Duration = Duration::from_secs(60);
const MEMORY_BYTES_MAX: u64 = 128 << 20;

fn address(ticket: &Path) -> String {
    Ticket::from_text(&std::fs::read_to_string(ticket).unwrap()).unwrap().addresses[0].clone()
}

/// fault-matrix N13: the second sender of one transfer is turned away, and the first goes on.
#[test]
fn n13_a_second_sender_is_turned_away() {
    let mut running = Pair::new("exec:sh -c 'echo rows; sleep 4'", "discard:").start();
    running.wait_until_started();
    let ticket = running.receiver.ticket();
    let second = Launch::sender("exec:echo others", &ticket).start().wait(WITHIN);
    second.assert_code(exit::REFUSED).assert_one_message();
    running.wait(WITHIN).assert_done();
}

/// fault-matrix X15, X16, X19: packets that are no handshake, and handshakes that go nowhere, from many ports: a transfer
/// that begins and runs meanwhile completes, exact, and memory stays bounded.
#[test]
fn x16_x19_a_flood_does_not_stop_a_transfer() {
    let folder = tempfile::Builder::new().prefix("sealift-data-").tempdir().unwrap();
    let (source, target) = (folder.path().join("source"), folder.path().join("target"));
    write_file(&source, dump_like(19, 30 << 20));
    let mut receiver =
        Launch::receiver(&format!("file:{}", target.display())).bind_loopback().arg("--danger-plaintext-file").start();
    let ticket = receiver.ticket();
    let victim = address(&ticket);
    let over = AtomicBool::new(false);
    let (sender, floods) = thread::scope(|scope| {
        let flood = scope.spawn(|| flood(&victim, &over));
        let sender = Launch::sender(&format!("file:{}", source.display()), &ticket).start().wait(WITHIN);
        over.store(true, Ordering::SeqCst);
        (sender, flood.join().unwrap())
    });
    sender.assert_code(exit::DONE);
    let receiver = receiver.wait(WITHIN);
    receiver.assert_code(exit::DONE);
    assert_eq!(digest_file(&source), digest_file(&target));
    assert!(floods > 1000, "only {floods} packets were sent");
    assert!(receiver.peak_memory_bytes < MEMORY_BYTES_MAX, "{} bytes", receiver.peak_memory_bytes);
}

/// Packets a second: ten thousand (fault-matrix X19), with a bound in time besides.
const FLOOD_BURST: u32 = 100;
const FLOOD_PAUSE: Duration = Duration::from_millis(10);
const FLOOD_AT_MOST: Duration = Duration::from_secs(30);

fn flood(victim: &str, over: &AtomicBool) -> u64 {
    let sockets: Vec<UdpSocket> = (0..20).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let (mut random, started, mut sent) = (Random::new(16), Instant::now(), 0);
    while !over.load(Ordering::SeqCst) && started.elapsed() < FLOOD_AT_MOST {
        for _ in 0..FLOOD_BURST {
            let socket = &sockets[random.below(sockets.len())];
            let packet = packet(&mut random);
            sent += u64::from(socket.send_to(&packet, victim).is_ok());
        }
        thread::sleep(FLOOD_PAUSE);
    }
    sent
}

/// Noise; or what looks like the first packet of a QUIC connection, of version 1 or another, with noise as content.
fn packet(random: &mut Random) -> Vec<u8> {
    let noise: Vec<u8> = (0..1 + random.below(1400)).map(|_| random.number() as u8).collect();
    let version: [u8; 4] = match random.below(3) {
        0 => return noise,
        1 => [0, 0, 0, 1],
        _ => [0xff, 0, 0, 29],
    };
    let mut packet = vec![0xc3];
    packet.extend(version);
    packet.push(8);
    packet.extend(&noise[..8.min(noise.len())]);
    packet.resize(14, 0);
    packet.extend([0, 0, 0x44, 0xb0]);
    packet.extend(&noise);
    packet.resize(1200, 0);
    packet
}
