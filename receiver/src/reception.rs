//! Offers from senders. Exchanges run side by side, so that a sender that died after it had
//! connected does not keep the next one waiting.

use std::time::Instant;

use futures_util::{StreamExt, stream::FuturesUnordered};
use sealift_agent::{
    admission::Stage,
    audit::{AuditLog, entry::Entry},
    clock::{now_seconds, utc_text},
    control::{ControlReader, ControlWriter, accept_control},
    door::{Door, Slot},
    failure::{Failure, Outcome},
    identity::Identity,
    link::{Acceptor, Arrived, Link},
    refusals::{Counts, REPORT_EVERY},
};
use sealift_protocol::{
    close::Code,
    error::Error,
    id::TransferId,
    message::Message,
    receive::{Deciding, Listening},
};
use tokio::sync::mpsc;

use crate::ticket_book::{Proven, TicketBook};

/// A good offer, and where it came from.
pub struct Offered {
    pub link: Link,
    pub slot: Slot,
    pub deciding: Deciding,
    pub writer: ControlWriter,
    pub control: ControlReader,
}

impl Offered {
    /// Sends the failure to the sender, within its slot, so that one that does not read it delays
    /// no other. What it had offered is dropped before.
    pub fn refuse(self, failure: Failure) -> impl Future<Output = ()> + use<> {
        let Self { link, slot, writer, .. } = self;
        let held = slot.hold_bytes(0);
        async move {
            // It may have been evicted.
            if held.is_ok() {
                writer.refuse(&link, &failure).await;
            }
        }
    }
}

/// What comes from a sender before anything is agreed.
pub enum Incoming {
    Offer(Box<Offered>),
    /// It says that there will be no transfer.
    Withdrawal(Box<Withdrawal>),
}

/// Who called a transfer off: the sender that it is bound to. The link stands until that is done,
/// so that the sender knows.
pub struct Withdrawal {
    pub transfer: TransferId,
    pub link: Link,
    pub slot: Slot,
    pub failure: Failure,
}

impl Withdrawal {
    /// Whether it is to end although something of it is here.
    pub fn is_final(&self) -> bool {
        self.failure.code == Code::Abandoned
    }
}

/// What a proof is checked against.
#[derive(Clone, Copy)]
pub struct Proofs<'a> {
    pub book: &'a TicketBook,
    pub identity: &'a Identity,
}

/// Accepts connections, and passes good offers to `incoming`. A connection that ends without one
/// leaves nothing behind. Returns when the endpoint is closed. Not cancel-safe: the connections of
/// exchanges under way are closed.
pub async fn receive_offers(
    acceptor: &mut Acceptor<'_>,
    proofs: Proofs<'_>,
    listening: impl Fn(&Link, Proven) -> Listening,
    incoming: &mpsc::Sender<Incoming>,
) -> Failure {
    // As many as there are slots: a new one takes that of the oldest.
    let mut exchanges = FuturesUnordered::new();
    loop {
        tokio::select! {
            arrived = acceptor.next() => match arrived {
                Ok(arrived) => exchanges.push(receive_offer(arrived, proofs, &listening, incoming)),
                Err(failure) => return failure,
            },
            Some(()) = exchanges.next() => {}
        }
    }
}

/// One exchange up to its offer. Not cancel-safe: the connection is closed.
async fn receive_offer(
    arrived: Arrived,
    proofs: Proofs<'_>,
    listening: &impl Fn(&Link, Proven) -> Listening,
    incoming: &mpsc::Sender<Incoming>,
) {
    let Arrived { link, slot } = arrived;
    let since = Instant::now();
    let (writer, mut control, proof) = match accept_control(&link).await {
        Ok(accepted) => accepted,
        Err(failure) => {
            slot.refuse(failure.code);
            link.close(failure.code);
            return;
        }
    };
    let proven = match proofs.book.admit(proof, &link, proofs.identity, now_seconds()).await {
        Ok(proven) => proven,
        Err(failure) => {
            if slot.count_refusal(failure.code) {
                tracing::warn!(code = failure.code.as_str(), "proof of a ticket refused");
            }
            writer.refuse(&link, &failure).await;
            return;
        }
    };
    slot.advance(Stage::Proven, link.peer.0);
    let decided = match control.first(since, &slot).await {
        Ok(Message::Offer(offer)) => {
            let (theirs, own) = (offer.now_seconds, now_seconds());
            let decided = listening(&link, proven).handle_offer(offer, &link.channel, own);
            decided.map_err(|error| with_clocks(error, theirs, own))
        }
        Ok(Message::Refuse(refuse)) => {
            let failure = control.refused(refuse);
            let withdrawal = Withdrawal { transfer: proven.transfer, link, slot, failure };
            let _ = incoming.send(Incoming::Withdrawal(Box::new(withdrawal))).await;
            return;
        }
        Ok(_) => Err(Error::new(Code::ProtocolViolation, "Offer").into()),
        Err(failure) => Err(failure),
    };
    match decided {
        Ok(deciding) => {
            let _ = incoming.send(Incoming::Offer(Box::new(Offered { link, slot, deciding, writer, control }))).await;
        }
        Err(failure) => {
            if slot.count_refusal(failure.code) {
                tracing::warn!(code = failure.code.as_str(), what = failure.what, "offer refused");
            }
            writer.refuse(&link, &failure).await;
        }
    }
}

/// Puts what was refused into the audit log: counts, now and then, however many there are. Returns
/// if that cannot be done. Cancel-safe: counts are recorded before the next wait.
pub async fn record_refusals(door: &Door, audit: &AuditLog) -> Failure {
    let mut ticks = tokio::time::interval(REPORT_EVERY / 4);
    loop {
        ticks.tick().await;
        if let Some(counts) = door.report()
            && let Err(failure) = record(counts, audit)
        {
            return failure;
        }
    }
}

/// The same, when nothing more comes.
pub fn record_last_refusals(door: &Door, audit: &AuditLog) -> Outcome {
    door.last_report().map_or(Ok(()), |counts| record(counts, audit))
}

fn record(counts: Counts, audit: &AuditLog) -> Outcome {
    if counts.exceeds_lines() {
        let Counts { total, causes, addresses, elsewhere } = &counts;
        tracing::warn!(total, ?causes, ?addresses, elsewhere, "connections refused");
    }
    audit.append(None, &Entry::connections_refused(counts))
}

/// Both clocks, where one of them decided.
fn with_clocks(error: Error, senders_seconds: u64, own_seconds: u64) -> Failure {
    let mut failure = Failure::from(error);
    if failure.code.is_of_clock() {
        let (own, senders) = (utc_text(own_seconds), utc_text(senders_seconds));
        failure.what += &format!("; this host's clock says {own}, the sender's {senders}");
    }
    failure
}

/// While a connection of a transfer stands, other offers of it are refused as busy (fault N13).
/// Returns when its sender has abandoned the transfer. Cancel-safe, except that refusals on their
/// way are dropped.
pub async fn refuse_others(incoming: &mut mpsc::Receiver<Incoming>) -> Outcome<Box<Withdrawal>> {
    let mut farewells = FuturesUnordered::new();
    loop {
        tokio::select! {
            more = incoming.recv() => match more {
                Some(Incoming::Offer(offered)) => {
                    offered.slot.refuse(Code::TransferBusy);
                    farewells.push(offered.refuse(Error::new(Code::TransferBusy, "connection").into()));
                }
                Some(Incoming::Withdrawal(withdrawal)) if withdrawal.is_final() => return Ok(withdrawal),
                Some(Incoming::Withdrawal(_)) => {}
                None => return Err(Failure::new(Code::Interrupted, "the endpoint was closed", "")),
            },
            Some(()) = farewells.next() => {}
        }
    }
}
