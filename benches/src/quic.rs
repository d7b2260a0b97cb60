//! A raw transfer over QUIC on loopback, set up exactly as the agents set it up: what the link alone costs.

use std::{net::UdpSocket, thread};

use bytes::Bytes;
use sealift_agent::{
    acceptor::{Acceptor, Arrived},
    door::Door,
    endpoint::{bind, client_config, server_config},
    failure::Outcome as AgentOutcome,
    identity::{Identity, Role},
    link::connect,
    process::runtime,
    trust::Trust,
};
use sealift_tests::invited::Invited;

use crate::{
    Outcome,
    measure::{Usage, own},
};

/// What is handed to the stream at once: about a sealed chunk.
const PIECE_BYTES: usize = 1 << 20;

/// Moves `bytes` over one stream, each end on a thread and a runtime of its own, and returns what both ends took.
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
    let config = server_config(&invited.identity, Trust::AnyKey)?;
    let endpoint = bind(socket, Some(config.clone()))?;
    let door = Door::default();
    let Arrived { link, slot } = Acceptor::new(&endpoint, config, &invited.identity, &door).next().await?;
    slot.accept();
    link.open_data();
    let mut stream = link.connection.accept_uni().await?;
    let mut received = 0;
    while let Some(piece) = stream.read_chunk(PIECE_BYTES, true).await? {
        received += piece.bytes.len() as u64;
    }
    link.connection.closed().await;
    Ok(received)
}

async fn send(bytes: u64, invited: &Invited) -> Outcome {
    let ticket = &invited.ticket;
    let identity = Identity::generate(Role::Sender)?;
    let endpoint_for = |_| -> AgentOutcome<quinn::Endpoint> {
        let socket = UdpSocket::bind("127.0.0.1:0").map_err(|error| {
            let code = sealift_protocol::close::Code::Preflight;
            sealift_agent::failure::Failure::io(code, "no UDP socket", &error, "")
        })?;
        let trust = Trust::Pinned(ticket.receiver);
        let mut endpoint = bind(socket, None)?;
        endpoint.set_default_client_config(client_config(&identity, trust)?);
        Ok(endpoint)
    };
    let (endpoint, link) = connect(endpoint_for, &ticket.addresses, &identity).await?;
    let mut stream = link.connection.open_uni().await?;
    let piece = Bytes::from(vec![0x5a; PIECE_BYTES]);
    let mut left = bytes;
    while left > 0 {
        let part = piece.slice(..left.min(PIECE_BYTES as u64) as usize);
        left -= part.len() as u64;
        stream.write_chunk(part).await?;
    }
    stream.finish()?;
    stream.stopped().await?;
    link.connection.close(0u32.into(), b"");
    endpoint.wait_idle().await;
    Ok(())
}
