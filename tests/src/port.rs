//! Free ports of loopback.

use std::{
    net::{TcpListener, UdpSocket},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::random::Random;

/// A UDP port that is free now, below those which the system hands out by itself, so that no
/// process gets it meanwhile.
pub fn free_udp_port() -> u16 {
    free_port(|port| UdpSocket::bind(("127.0.0.1", port)).is_ok())
}

pub fn free_tcp_port() -> u16 {
    free_port(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
}

fn free_port(is_free: impl Fn(u16) -> bool) -> u16 {
    let clock = u64::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos());
    let mut random = Random::new(clock ^ (u64::from(std::process::id()) << 32));
    (0..1000).map(|_| 10_000 + random.below(20_000) as u16).find(|&port| is_free(port)).expect("some port is free")
}
