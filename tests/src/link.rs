//! A faulty network between two agents: a UDP relay in user space, since a kernel may lack `tc
//! netem`.
//!
//! One thread moves datagrams; what happens to each is decided by `lane`, one for each direction,
//! from a seed.

mod lane;

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{setsockopt, sockopt},
};

use lane::Lane;
pub use lane::{Counters, Faults};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToReceiver,
    ToSender,
}

impl Direction {
    pub const BOTH: [Direction; 2] = [Direction::ToReceiver, Direction::ToSender];
}

/// A relay that runs until it is dropped. Senders send to `address`.
pub struct Link {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    /// By `Direction`: datagrams carry the address of the sender that they came from or go to.
    lanes: [Lane<SocketAddr>; 2],
    recording: Option<Recording>,
    rebind: bool,
}

struct Recording {
    datagrams: Vec<Vec<u8>>,
    bytes: usize,
    bytes_max: usize,
    overflowed: bool,
}

/// What one sender sends, and gets back, passes a socket of its own, so that the receiver sees who
/// is who.
type Clients = HashMap<SocketAddr, UdpSocket>;

/// Longer than any datagram on loopback.
const DATAGRAM_BYTES_MAX: usize = 1 << 16;

/// Loopback has no back-pressure: without room for a whole window, losses would be ours and not the
/// seed's.
const SOCKET_BUFFER_BYTES: usize = 16 << 20;

/// Bounds how long a change from the test, or the end, goes unnoticed.
const WAIT_MAX: Duration = Duration::from_millis(10);

impl Link {
    /// Relays to `to` with the same faults in both directions.
    pub fn start(to: SocketAddr, faults: Faults, seed: u64) -> Self {
        let front = socket();
        let address = front.local_addr().unwrap();
        let lanes = [Lane::new(faults.clone(), seed), Lane::new(faults, seed.rotate_left(32) ^ 1)];
        let state = Arc::new(Mutex::new(State { lanes, recording: None, rebind: false }));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped) = (state.clone(), stop.clone());
        let thread = thread::spawn(move || relay(&front, to, &shared, &stopped));
        Self { address, state, stop, thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Changes the faults of one direction while the link runs.
    pub fn change(&self, direction: Direction, change: impl FnOnce(&mut Faults)) {
        change(self.state().lanes[direction as usize].faults_mut());
    }

    /// From now on nothing passes, in either direction.
    pub fn cut(&self) {
        Direction::BOTH.into_iter().for_each(|direction| self.change(direction, |faults| faults.blocked = true));
    }

    pub fn heal(&self) {
        Direction::BOTH.into_iter().for_each(|direction| self.change(direction, |faults| faults.blocked = false));
    }

    /// Only this direction is dead: the half-open link.
    pub fn block(&self, direction: Direction) {
        self.change(direction, |faults| faults.blocked = true);
    }

    /// What passes comes from other ports from now on, as after a NAT has forgotten its table.
    pub fn rebind(&self) {
        self.state().rebind = true;
    }

    pub fn counters(&self, direction: Direction) -> Counters {
        self.state().lanes[direction as usize].counters()
    }

    /// Keeps every datagram from now on, as it came in, up to so many bytes.
    pub fn record(&self, bytes_max: usize) {
        self.state().recording = Some(Recording { datagrams: vec![], bytes: 0, bytes_max, overflowed: false });
    }

    /// Hands every datagram that passed to `look`; panics if more passed than was kept.
    pub fn recorded(&self, mut look: impl FnMut(&[u8])) {
        let state = self.state();
        let recording = state.recording.as_ref().expect("was recording");
        assert!(!recording.overflowed, "more than {} bytes passed the link", recording.bytes_max);
        assert!(!recording.datagrams.is_empty(), "nothing passed the link");
        recording.datagrams.iter().for_each(|datagram| look(datagram));
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl State {
    fn take_in(&mut self, direction: Direction, sender: SocketAddr, datagram: &[u8]) {
        if let Some(recording) = &mut self.recording {
            recording.keep(datagram);
        }
        self.lanes[direction as usize].push(Instant::now(), sender, datagram.to_vec());
    }

    fn next_due(&self) -> Option<Instant> {
        self.lanes.iter().filter_map(Lane::next_due).min()
    }
}

impl Recording {
    fn keep(&mut self, datagram: &[u8]) {
        if self.bytes + datagram.len() > self.bytes_max {
            self.overflowed = true;
            return;
        }
        self.bytes += datagram.len();
        self.datagrams.push(datagram.to_vec());
    }
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_nonblocking(true).unwrap();
    // The first needs a privilege, the second is cut to the system's limit: either is the most that
    // can be had.
    let _ = setsockopt(&socket, sockopt::RcvBuf, &SOCKET_BUFFER_BYTES);
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER_BYTES);
    socket
}

fn relay(front: &UdpSocket, to: SocketAddr, state: &Mutex<State>, stop: &AtomicBool) {
    let mut clients = Clients::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    while !stop.load(Ordering::Relaxed) {
        let due = state.lock().unwrap().next_due();
        let wait = due.map_or(WAIT_MAX, |due| due.saturating_duration_since(Instant::now())).min(WAIT_MAX);
        wait_for_any(front, &clients, wait);
        if std::mem::take(&mut state.lock().unwrap().rebind) {
            clients.values_mut().for_each(|back| *back = back_socket(to));
        }
        receive_from_senders(front, to, &mut clients, state, &mut buffer);
        receive_from_receiver(&clients, state, &mut buffer);
        send_due(front, &clients, &mut state.lock().unwrap());
    }
}

fn back_socket(to: SocketAddr) -> UdpSocket {
    let back = socket();
    back.connect(to).unwrap();
    back
}

fn wait_for_any(front: &UdpSocket, clients: &Clients, wait: Duration) {
    let sockets = [front].into_iter().chain(clients.values());
    let mut polled: Vec<_> = sockets.map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
    // Rounded down: at the end of a wait the last fraction of a millisecond is spent awake, not
    // late.
    let timeout = PollTimeout::try_from(wait.as_millis() as u32).unwrap_or(PollTimeout::ZERO);
    let _ = poll(&mut polled, timeout);
}

fn receive_from_senders(
    front: &UdpSocket,
    to: SocketAddr,
    clients: &mut Clients,
    state: &Mutex<State>,
    buffer: &mut [u8],
) {
    while let Some((count, sender)) = received(front.recv_from(buffer)) {
        clients.entry(sender).or_insert_with(|| back_socket(to));
        state.lock().unwrap().take_in(Direction::ToReceiver, sender, &buffer[..count]);
    }
}

fn receive_from_receiver(clients: &Clients, state: &Mutex<State>, buffer: &mut [u8]) {
    for (&sender, back) in clients {
        while let Some(count) = received(back.recv(buffer)) {
            state.lock().unwrap().take_in(Direction::ToSender, sender, &buffer[..count]);
        }
    }
}

fn send_due(front: &UdpSocket, clients: &Clients, state: &mut State) {
    let now = Instant::now();
    let [to_receiver, to_sender] = &mut state.lanes;
    while let Some((sender, datagram)) = to_receiver.pop(now) {
        // A send fails if nothing listens there, which on a network would not be reported.
        let _ = clients[&sender].send(&datagram);
    }
    while let Some((sender, datagram)) = to_sender.pop(now) {
        let _ = front.send_to(&datagram, sender);
    }
}

/// What was received; `None` if nothing is waiting. Errors of earlier sends (nothing listens) are
/// passed over.
fn received<T>(result: io::Result<T>) -> Option<T> {
    result.ok()
}
