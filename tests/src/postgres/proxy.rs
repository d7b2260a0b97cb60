//! A way to a server on which the answer to a COMMIT can be lost, and which can be cut.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// A COMMIT as a message of PostgreSQL's protocol.
const COMMIT: &[u8] = b"Q\0\0\0\x0bCOMMIT\0";

pub struct Proxy {
    port: u16,
    armed: Arc<AtomicBool>,
    passed: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    pub fn start(server_port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let armed = Arc::new(AtomicBool::new(false));
        let lose = Arc::clone(&armed);
        let passed = Arc::new(Mutex::new(Vec::new()));
        let open = Arc::clone(&passed);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A server that is down refuses, and so does this.
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server_port)) else { continue };
                open.lock().unwrap().push(client.try_clone().unwrap());
                let lose = Arc::clone(&lose);
                thread::spawn(move || pass(client, server, &lose));
            }
        });
        Self { port, armed, passed }
    }

    /// Ends every connection that passes.
    pub fn cut(&self) {
        for client in self.passed.lock().unwrap().drain(..) {
            let _ = client.shutdown(Shutdown::Both);
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn lose_next_answer_to_commit(&self) {
        self.armed.store(true, Ordering::SeqCst);
    }

    pub fn has_lost_one(&self) -> bool {
        !self.armed.load(Ordering::SeqCst)
    }
}

/// Passes on both ways, until one of them ends or an answer is to be lost.
fn pass(client: TcpStream, server: TcpStream, lose: &AtomicBool) {
    let lost = Arc::new(AtomicBool::new(false));
    let (mut from_server, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    let is_lost = Arc::clone(&lost);
    let back = thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from_server.read(&mut buffer) {
            if is_lost.load(Ordering::SeqCst) || to_client.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        let _ = to_client.shutdown(Shutdown::Both);
    });
    let (mut from_client, mut to_server) = (client, server);
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from_client.read(&mut buffer) {
        let is_commit = buffer[..length].windows(COMMIT.len()).any(|window| window == COMMIT);
        if is_commit && lose.swap(false, Ordering::SeqCst) {
            lost.store(true, Ordering::SeqCst);
        }
        if to_server.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to_server.shutdown(Shutdown::Both);
    let _ = back.join();
}
