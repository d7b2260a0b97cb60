//! Packets that mean nothing, at one port, from many addresses, as if their senders' were forged:
//! noise, first packets of connections that never come about, and those of an unknown
//! version.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustls::{Side, quic};

use crate::{random::Random, tls};

/// Ten thousand packets a second (fault X19).
const BURST: usize = 100;
const BURST_EVERY: Duration = Duration::from_millis(10);

/// Made beforehand and sent again and again, so that the flood costs its host little.
const PACKETS: usize = 1024;
const SOURCES: usize = 256;

/// The least that a first packet must have (RFC 9000, 14.1).
const INITIAL_BYTES: usize = 1200;
const TAG_BYTES: usize = 16;

/// A flood that runs until it is dropped.
pub struct Flood {
    sent: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    sockets: Arc<Vec<UdpSocket>>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    pub fn start(victim: SocketAddr) -> Self {
        let mut random = Random::new(16);
        let sockets = Arc::new((0..SOURCES).map(|_| source(&mut random)).collect::<Vec<_>>());
        let (sent, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (from, count, stop) = (sockets.clone(), sent.clone(), over.clone());
        let thread = thread::spawn(move || send(&from, victim, &mut random, &count, &stop));
        Self { sent, over, sockets, thread: Some(thread) }
    }

    /// Packets so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Returns once so many more have been sent; panics if that takes longer than `within`.
    pub fn wait_for_more(&self, packets: u64, within: Duration) {
        let (enough, deadline) = (self.sent() + packets, Instant::now() + within);
        while self.sent() < enough {
            assert!(Instant::now() < deadline, "only {} packets of {enough} were sent within {within:?}", self.sent());
            thread::sleep(BURST_EVERY);
        }
    }

    /// How many sources have an answer waiting that asks them to prove their address (Retry): they
    /// were taken seriously.
    pub fn asked_for_proof(&self) -> usize {
        self.sockets.iter().filter(|socket| was_asked(socket)).count()
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// All of 127.0.0.0/8 is this host.
fn source(random: &mut Random) -> UdpSocket {
    let [a, b, c] = [0; 3].map(|_: u8| 1 + random.below(254) as u8);
    let socket = UdpSocket::bind((Ipv4Addr::new(127, a, b, c), 0)).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

fn send(from: &[UdpSocket], victim: SocketAddr, random: &mut Random, sent: &AtomicU64, over: &AtomicBool) {
    let packets: Vec<_> = (0..PACKETS).map(|_| packet(random)).collect();
    let mut next = Instant::now();
    while !over.load(Ordering::Relaxed) {
        for _ in 0..BURST {
            let (socket, packet) = (&from[random.below(SOURCES)], &packets[random.below(PACKETS)]);
            sent.fetch_add(u64::from(socket.send_to(packet, victim).is_ok()), Ordering::Relaxed);
        }
        // What a busy host has kept it from sending is not made up for: it would come all at once.
        next = (next + BURST_EVERY).max(Instant::now());
        thread::sleep(next - Instant::now());
    }
}

fn packet(random: &mut Random) -> Vec<u8> {
    let noise: Vec<u8> = (0..1 + random.below(1400)).map(|_| random.number() as u8).collect();
    let destination = random.number().to_be_bytes();
    let version = match random.below(3) {
        0 => return noise,
        1 => V1,
        _ => [0xff, 0, 0, 29],
    };
    // But for a ping there is nothing in it. The content is not read before the address is proven.
    Initial { version, destination: &destination, source: &[], token: &[], number: 0 }.seal(&[1])
}

/// QUIC's version 1.
pub(crate) const V1: [u8; 4] = [0, 0, 0, 1];

/// One of the first packets of a connection (RFC 9000, 17.2.2).
pub(crate) struct Initial<'a> {
    pub version: [u8; 4],
    pub destination: &'a [u8],
    pub source: &'a [u8],
    pub token: &'a [u8],
    pub number: u8,
}

impl Initial<'_> {
    /// The packet as its sender seals it, padded to the least length (RFC 9001, 5.2).
    pub(crate) fn seal(&self, frames: &[u8]) -> Vec<u8> {
        let mut packet = vec![0xc0];
        packet.extend(self.version);
        for id in [self.destination, self.source] {
            packet.push(id.len() as u8);
            packet.extend(id);
        }
        packet.extend((self.token.len() as u16 | 0x4000).to_be_bytes());
        packet.extend(self.token);
        // What is left of the packet, as two bytes, and the packet number.
        let length = INITIAL_BYTES - packet.len() - 2;
        packet.extend((length as u16 | 0x4000).to_be_bytes());
        let number_at = packet.len();
        packet.push(self.number);
        let mut payload = vec![0; INITIAL_BYTES - packet.len() - TAG_BYTES];
        payload[..frames.len()].copy_from_slice(frames);
        let quic::Suite { suite, quic } = tls::initial();
        let keys = quic::Keys::initial(quic::Version::V1, suite, quic, self.destination, Side::Client).local;
        let tag = keys.packet.encrypt_in_place(self.number.into(), &packet, &mut payload).unwrap();
        packet.extend(payload);
        packet.extend(tag.as_ref());
        let (header, sealed) = packet.split_at_mut(number_at + 1);
        let (first, number) = header.split_at_mut(number_at);
        // The sample begins where it would if the number had four bytes.
        keys.header.encrypt_in_place(&sealed[3..3 + 16], &mut first[0], number).unwrap();
        packet
    }
}

/// Whether a Retry (RFC 9000, 17.2.5) has arrived at the socket.
fn was_asked(socket: &UdpSocket) -> bool {
    let mut answer = [0; 1500];
    while let Ok(bytes) = socket.recv(&mut answer) {
        if bytes > 5 && answer[0] & 0xf0 == 0xf0 && answer[1..5] == V1 {
            return true;
        }
    }
    false
}
