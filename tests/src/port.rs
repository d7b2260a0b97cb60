//! Free ports of loopback.

use std::{
    collections::VecDeque,
    fs::{self, File},
    net::{TcpListener, UdpSocket},
    sync::{Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use nix::fcntl::{Flock, FlockArg};

use crate::random::Random;

/// The ports that this process was given last stay its own: what it starts there may end and be
/// started again, and the port is free in between.
static RESERVED: Mutex<VecDeque<Flock<File>>> = Mutex::new(VecDeque::new());

/// More than one test has at a time; a long crash loop gives back those of rounds that are over.
const RESERVED_MAX: usize = 256;

/// A UDP port that is free now, below those which the system hands out by itself, and that no other
/// test gets meanwhile.
pub fn free_udp_port() -> u16 {
    free_port(|port| UdpSocket::bind(("127.0.0.1", port)).is_ok())
}

pub fn free_tcp_port() -> u16 {
    free_port(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
}

fn free_port(is_free: impl Fn(u16) -> bool) -> u16 {
    let clock = u64::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos());
    let mut random = Random::new(clock ^ (u64::from(std::process::id()) << 32));
    (0..1000)
        .map(|_| 10_000 + random.below(20_000) as u16)
        .find(|&port| reserve(port) && is_free(port))
        .expect("some port is free")
}

/// Whether no other process of tests, nor this one, has the port. They all ask for a lock on a file
/// of its name.
fn reserve(port: u16) -> bool {
    let folder = std::env::temp_dir().join("sealift-test-ports");
    // Where another user has made the folder, the chance of two with one port stays.
    let file = fs::create_dir_all(&folder).and_then(|()| File::create(folder.join(port.to_string())));
    let Ok(file) = file else { return true };
    let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else { return false };
    let mut reserved = RESERVED.lock().unwrap_or_else(PoisonError::into_inner);
    reserved.push_back(lock);
    if reserved.len() > RESERVED_MAX {
        reserved.pop_front();
    }
    true
}
