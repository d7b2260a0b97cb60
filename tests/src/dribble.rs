//! Holders of tickets that announce as much as they may, and dribble it.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use quinn::SendStream;
use sealift_agent::{
    identity::Identity,
    link::{Dialer, Link},
    role::Role,
    ticket::Ticket,
    trust::Trust,
};
use sealift_protocol::limits::OFFER_BYTES_MAX;
use sealift_sender::transfer::proof_of;
use tokio::sync::oneshot;

const DRIP_EVERY: Duration = Duration::from_millis(100);

/// They go on until this is dropped.
pub struct Dribblers {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Dribblers {
    /// So many connections for each ticket. Each announces the longest offer that there is, sends
    /// nearly all of it, and then a byte now and then; closed, it begins again.
    pub fn start(tickets: Vec<Ticket>, connections_each: usize) -> Self {
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let identity = Arc::new(Identity::generate(Role::Sender).unwrap());
                for ticket in tickets {
                    let ticket = Arc::new(ticket);
                    for _ in 0..connections_each {
                        tokio::spawn(dribble(ticket.clone(), identity.clone()));
                    }
                }
                let _ = stopped.await;
            });
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Dribblers {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn connected(ticket: &Ticket, identity: &Identity) -> Option<Link> {
    Dialer::new(identity, Trust::Pinned(ticket.receiver)).unwrap().connect(&ticket.addresses).await.ok()
}

async fn dribble(ticket: Arc<Ticket>, identity: Arc<Identity>) {
    loop {
        let Some(link) = connected(&ticket, &identity).await else { continue };
        let Ok((mut out, _answers)) = link.quic().open_bi().await else { continue };
        let proof = proof_of(&ticket, &identity, &link).to_bytes();
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
