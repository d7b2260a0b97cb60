//! Those who have a ticket and do nothing with it, beside somebody who wants to be served.

use std::{fs, path::Path, time::Duration};

use nix::sys::signal::Signal;
use quinn::SendStream;
use sealift_agent::{
    identity::{Identity, Role},
    link::{Dialer, Link},
    ticket::Ticket,
    trust::Trust,
};
use sealift_protocol::limits::OFFER_BYTES_MAX;
use sealift_receiver::serve::DRAIN_TIMEOUT;
use sealift_sender::transfer::proof_of;
use sealift_tests::exit;

use crate::place::{Place, WITHIN, wait_for_events};

const MEMORY_BYTES_MAX: u64 = 128 << 20;

/// Each announces the longest offer that there is, sends nearly all of it, and then a byte now and
/// then.
const CONNECTIONS_EACH: usize = 12;
const DRIP_EVERY: Duration = Duration::from_millis(100);

async fn connected(ticket: &Ticket, identity: &Identity) -> Link {
    Dialer::new(identity, Trust::Pinned(ticket.receiver)).unwrap().connect(&ticket.addresses).await.unwrap()
}

/// Goes on until its connection is closed, and then begins again.
async fn dribble(ticket: &Ticket, identity: &Identity) {
    loop {
        let link = connected(ticket, identity).await;
        let Ok((mut out, _answers)) = link.quic().open_bi().await else { continue };
        let proof = proof_of(ticket, identity, &link).to_bytes();
        if out.write_all(&proof).await.is_ok() {
            let _ = drip(&mut out).await;
        }
    }
}

async fn drip(out: &mut SendStream) -> Result<(), quinn::WriteError> {
    let body_bytes = OFFER_BYTES_MAX as u32;
    out.write_all(&body_bytes.to_be_bytes()).await?;
    out.write_all(&vec![0; OFFER_BYTES_MAX - 1000]).await?;
    loop {
        out.write_all(&[0]).await?;
        tokio::time::sleep(DRIP_EVERY).await;
    }
}

/// C1: two holders of tickets, one of them spent, with connections that announce as much as they
/// may and dribble: a third sender is served, and memory stays bounded.
#[test]
fn c1_offers_that_dribble_neither_shut_a_service_nor_fill_it() {
    let targets = ["a", "b", "c"].map(|name| (name, "discard:"));
    let place = Place::new("transfers_max = 2\nmemory = \"64MiB\"", &targets);
    let mut receiver = place.serve();
    let source = place.dump("dump");
    let tickets = ["a", "b", "c"].map(|name| place.ticket(name));
    let push = |ticket: &Path| place.push(&format!("file:{}", source.display()), ticket).wait(WITHIN);
    push(&tickets[0]).assert_code(exit::DONE);
    let read = |path: &Path| Ticket::from_text(&fs::read_to_string(path).unwrap()).unwrap();
    let (spent, unused) = (read(&tickets[0]), read(&tickets[1]));
    let identity = Identity::generate(Role::Sender).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let attack = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let holders = [&spent, &unused].into_iter().flat_map(|ticket| (0..CONNECTIONS_EACH).map(move |_| ticket));
            let attackers = futures_util::future::join_all(holders.map(|ticket| dribble(ticket, &identity)));
            tokio::select! {
                _ = attackers => {}
                _ = stopped => {}
            }
        });
    });
    std::thread::sleep(Duration::from_secs(3));
    let honest = push(&tickets[2]);
    honest.assert_code(exit::DONE);
    assert_eq!(honest.number("retries"), 0, "{}", honest.stderr());
    wait_for_events(&mut receiver, "ended", 2);
    drop(stop);
    attack.join().unwrap();
    // Whoever proved it first is the one that it is good for.
    push(&tickets[1]).assert_code(exit::REFUSED);
    receiver.signal(Signal::SIGTERM);
    let receiver = receiver.wait(DRAIN_TIMEOUT + Duration::from_secs(10));
    receiver.assert_code(exit::DONE);
    assert!(receiver.peak_memory_bytes < MEMORY_BYTES_MAX, "{} bytes", receiver.peak_memory_bytes);
    let refused = receiver.stderr().lines().filter(|line| line.contains("refused")).count();
    assert!(refused <= 20, "{}", receiver.stderr());
}
