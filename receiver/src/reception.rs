//! Who is heard: the first sender that makes a good offer. Exchanges run side by side, so that a sender that died after it
//! had connected does not keep the next one waiting.

use futures_util::{StreamExt, stream::FuturesUnordered};
use sealift_agent::{
    acceptor::Acceptor,
    failure::{Failure, Outcome},
    link::{ControlReader, ControlWriter, Link, accept_control},
};
use sealift_protocol::{
    close::Code,
    error::Error,
    message::Message,
    receive::{Judging, Listening},
};
use time::OffsetDateTime;

/// Exchanges at once: all of them come from holders of the one ticket.
const EXCHANGES_MAX: usize = 8;

/// A good offer, and where it came from.
pub struct Offered {
    pub link: Link,
    pub judging: Judging,
    pub writer: ControlWriter,
    pub control: ControlReader,
}

/// Waits for the first good offer, or for a sender that says that there will be none. Whoever connects and goes away
/// without either is forgotten.
pub async fn first_offer(acceptor: &mut Acceptor<'_>, listening: impl Fn(&Link) -> Listening) -> Outcome<Offered> {
    let mut exchanges = FuturesUnordered::new();
    loop {
        tokio::select! {
            link = acceptor.next(), if exchanges.len() < EXCHANGES_MAX => exchanges.push(hear(link?, &listening)),
            Some(heard) = exchanges.next() => if let Some(outcome) = heard {
                return outcome;
            },
        }
    }
}

async fn hear(link: Link, listening: &impl Fn(&Link) -> Listening) -> Option<Outcome<Offered>> {
    let (writer, mut control) = match accept_control(&link).await {
        Ok(streams) => streams,
        Err(failure) => {
            tracing::warn!(code = failure.code.word(), "connection without an exchange");
            link.close(failure.code);
            return None;
        }
    };
    let judged = match control.first().await {
        Ok(Message::Offer(offer)) => {
            let now = OffsetDateTime::now_utc().unix_timestamp() as u64;
            listening(&link).handle_offer(offer, &link.channel, now).map_err(Failure::from)
        }
        Ok(Message::Refuse(refuse)) => return Some(Err(control.refused(refuse))),
        Ok(_) => Err(Error::new(Code::ProtocolViolation, "Offer").into()),
        Err(failure) => Err(failure),
    };
    match judged {
        Ok(judging) => Some(Ok(Offered { link, judging, writer, control })),
        Err(failure) => {
            tracing::warn!(code = failure.code.word(), "offer refused");
            link.refuse(writer, &failure).await;
            None
        }
    }
}

/// While a transfer runs, whoever else holds its ticket is told that it is taken (fault-matrix N13).
pub async fn turn_away(acceptor: &mut Acceptor<'_>) -> Failure {
    let mut farewells = FuturesUnordered::new();
    loop {
        tokio::select! {
            link = acceptor.next(), if farewells.len() < EXCHANGES_MAX => match link {
                Ok(link) => farewells.push(say_busy(link)),
                Err(failure) => return failure,
            },
            Some(()) = farewells.next() => {}
        }
    }
}

async fn say_busy(link: Link) {
    tracing::warn!("second connection with the ticket");
    match accept_control(&link).await {
        Ok((writer, _)) => link.refuse(writer, &Error::new(Code::TransferBusy, "ticket").into()).await,
        Err(_) => link.close(Code::TransferBusy),
    }
}
