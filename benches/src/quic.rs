//! A raw transfer over QUIC on loopback, set up exactly as the agents set it up: what the link
//! alone costs.

use std::{net::UdpSocket, sync::Arc, thread};

use bytes::{BufMut, Bytes, BytesMut};
use sealift_agent::{
    credentials::Credentials,
    door::Door,
    identity::Identity,
    link::{Acceptor, Arrived, Dialer, Listener},
    process::runtime,
    role::Role,
    trust::Trust,
};
use sealift_protocol::{close::Code, id::PartIndex, limits::LANE_WINDOW_BYTES_MAX};
use sealift_tests::invited::Invited;

use crate::{
    Outcome,
    measure::{Usage, own},
};

/// What is handed to the stream at once: about a sealed chunk.
const PIECE_BYTES: usize = 1 << 20;

/// Moves `bytes` over one stream, each end on a thread and a runtime of its own, and returns what
/// both ends took.
pub fn transfer(bytes: u64) -> Outcome<Usage> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let address = socket.local_addr()?.to_string();
    let invited = Invited::at(address);
    let (usage, moved) = own(|| {
        thread::scope(|scope| {
            let receiving = scope.spawn(|| runtime()?.block_on(receive(socket, &invited)));
            let sent = scope.spawn(|| runtime()?.block_on(send(bytes, &invited))).join();
            sent.map_err(|_| "the sending end stopped")??;
            let received: Outcome<u64> = receiving.join().map_err(|_| "the receiving end stopped")?;
            received
        })
    })?;
    if moved? != bytes {
        return Err("not all bytes arrived".into());
    }
    Ok(usage)
}

async fn receive(socket: UdpSocket, invited: &Invited) -> Outcome<u64> {
    let credentials = Credentials::new(Arc::clone(&invited.identity), Trust::AnyKey);
    let listener = Listener::start(socket, &credentials)?;
    let door = Door::default();
    let Arrived { link, slot } = Acceptor::new(&listener, &door)?.next().await?;
    slot.accept();
    link.open_data(LANE_WINDOW_BYTES_MAX);
    let mut stream = link.accept_part().await?;
    let mut received = 0;
    let mut piece = BytesMut::with_capacity(PIECE_BYTES);
    loop {
        piece.clear();
        match stream.recv(&mut (&mut piece).limit(PIECE_BYTES)).await? {
            0 => break,
            bytes => received += bytes as u64,
        }
    }
    link.closed().await;
    Ok(received)
}

async fn send(bytes: u64, invited: &Invited) -> Outcome {
    let ticket = &invited.ticket;
    let identity = Identity::generate(Role::Sender)?;
    let dialer = Dialer::new(&identity, Trust::Pinned(ticket.receiver))?;
    let link = dialer.connect(&ticket.addresses).await?;
    let mut stream = link.open_part(PartIndex(0)).await?;
    let piece = Bytes::from(vec![0x5a; PIECE_BYTES]);
    let mut left = bytes;
    while left > 0 {
        let mut part = piece.slice(..left.min(PIECE_BYTES as u64) as usize);
        left -= part.len() as u64;
        stream.send(&mut part).await?;
    }
    stream.finish()?;
    stream.delivered().await;
    link.close(Code::Done);
    link.wait_idle().await;
    Ok(())
}
