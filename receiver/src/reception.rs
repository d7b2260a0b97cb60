//! Who is heard: the first sender that makes a good offer. Exchanges run side by side, so that a sender that died after it
//! had connected does not keep the next one waiting.

use futures_util::{StreamExt, stream::FuturesUnordered};
use quinn::Connection;
use sealift_agent::{
    acceptor::Acceptor,
    clock::{now_seconds, utc_text},
    failure::{Failure, Outcome},
    identity::SpiffeId,
    link::{ControlReader, ControlWriter, Link, accept_control},
};
use sealift_protocol::{
    close::Code,
    error::Error,
    message::Message,
    receive::{Judging, Listening},
};
use tokio::sync::mpsc;

/// Exchanges at once.
const EXCHANGES_MAX: usize = 8;
/// Of one sender: its oldest makes room for its newest, so that one which draws its exchanges out keeps nobody else waiting.
const EXCHANGES_EACH_MAX: usize = 3;

/// A good offer, and where it came from.
pub struct Offered {
    pub link: Link,
    pub judging: Judging,
    pub writer: ControlWriter,
    pub control: ControlReader,
}

/// What comes from a sender before anything is agreed.
pub enum Heard {
    Offer(Box<Offered>),
    /// It says that there will be no transfer.
    CalledOff(Box<CalledOff>),
}

/// Who called a transfer off. The link stands until that is done, so that the sender knows.
pub struct CalledOff {
    pub link: Link,
    pub failure: Failure,
}

impl CalledOff {
    /// Whether it is to end although something of it is here.
    pub fn is_final(&self) -> bool {
        self.failure.code == Code::Abandoned
    }
}

/// Hears everybody who connects, and hands on good offers. Whoever connects and goes away without one is forgotten.
/// Returns when the endpoint is closed.
pub async fn receive_offers(
    acceptor: &mut Acceptor<'_>,
    listening: impl Fn(&Link) -> Listening,
    heard: &mpsc::Sender<Heard>,
) -> Failure {
    let mut exchanges = FuturesUnordered::new();
    let mut heard_now: Vec<(SpiffeId, Connection)> = Vec::new();
    loop {
        tokio::select! {
            link = acceptor.next(), if exchanges.len() < EXCHANGES_MAX => match link {
                Ok(link) => {
                    make_room(&heard_now, &link.peer.id);
                    heard_now.push((link.peer.id.clone(), link.connection.clone()));
                    let (listening, of) = (&listening, link.connection.stable_id());
                    exchanges.push(async move {
                        hear(link, listening, heard).await;
                        of
                    });
                }
                Err(failure) => return failure,
            },
            Some(of) = exchanges.next() => heard_now.retain(|(_, connection)| connection.stable_id() != of),
        }
    }
}

/// Ends the oldest exchange of a sender that has as many as it may.
fn make_room(heard_now: &[(SpiffeId, Connection)], sender: &SpiffeId) {
    let mut own = heard_now.iter().filter(|(other, _)| other == sender).map(|(_, connection)| connection);
    if own.clone().count() >= EXCHANGES_EACH_MAX
        && let Some(oldest) = own.next()
    {
        oldest.close(u32::from(Code::TransferBusy.number()).into(), b"");
    }
}

async fn hear(link: Link, listening: &impl Fn(&Link) -> Listening, heard: &mpsc::Sender<Heard>) {
    let (writer, mut control) = match accept_control(&link).await {
        Ok(streams) => streams,
        Err(failure) => {
            tracing::warn!(code = failure.code.word(), "connection without an exchange");
            link.close(failure.code);
            return;
        }
    };
    let judged = match control.first().await {
        Ok(Message::Offer(offer)) => {
            let (theirs, own) = (offer.now_seconds, now_seconds());
            let judged = listening(&link).handle_offer(offer, &link.channel, own);
            judged.map_err(|error| with_clocks(error, theirs, own))
        }
        Ok(Message::Refuse(refuse)) => {
            let failure = control.refused(refuse);
            let _ = heard.send(Heard::CalledOff(Box::new(CalledOff { link, failure }))).await;
            return;
        }
        Ok(_) => Err(Error::new(Code::ProtocolViolation, "Offer").into()),
        Err(failure) => Err(failure),
    };
    match judged {
        Ok(judging) => {
            let _ = heard.send(Heard::Offer(Box::new(Offered { link, judging, writer, control }))).await;
        }
        Err(failure) => {
            tracing::warn!(code = failure.code.word(), what = failure.what, "offer refused");
            link.refuse(writer, &failure).await;
        }
    }
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

/// While a connection of a transfer stands, whoever else offers it is told that it is taken (fault-matrix N13). Returns when
/// the transfer is called off for good.
pub async fn turn_away(heard: &mut mpsc::Receiver<Heard>) -> Outcome<Box<CalledOff>> {
    let mut farewells = FuturesUnordered::new();
    loop {
        tokio::select! {
            more = heard.recv(), if farewells.len() < EXCHANGES_MAX => match more {
                Some(Heard::Offer(offered)) => farewells.push(say_busy(offered)),
                Some(Heard::CalledOff(called_off)) if called_off.is_final() => return Ok(called_off),
                Some(Heard::CalledOff(_)) => {}
                None => return Err(Failure::new(Code::Interrupted, "the endpoint was closed", "")),
            },
            Some(()) = farewells.next() => {}
        }
    }
}

async fn say_busy(offered: Box<Offered>) {
    tracing::warn!("second connection of a transfer");
    offered.link.refuse(offered.writer, &Error::new(Code::TransferBusy, "connection").into()).await;
}
