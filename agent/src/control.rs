//! The control stream of a connection: the proof of the ticket, then messages, each with its time and its bound.

use std::time::{Duration, Instant};

use quinn::{Chunk, ReadError, ReadExactError, RecvStream, SendStream};
use sealift_protocol::{
    close::Code,
    error::Error,
    frame::control_length,
    limits::{CONTROL_BYTES_MAX, OFFER_BYTES_MAX},
    message::{Message, Offer, Refuse},
    ticket_proof::{TICKET_PROOF_BYTES, TicketProof},
};
use tokio::time::{timeout, timeout_at};

use crate::{
    clock::now_seconds,
    door::Slot,
    failure::{Failure, Outcome, refused_by_peer},
    identity::Role,
    link::{FAREWELL_TIMEOUT, Link, from_connection},
};

/// For each whole message of the exchange before data flows, and for one that has begun later (fault-matrix X15); besides, as
/// long as its bytes take at the least rate, counted as they come and not as they are announced.
pub const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// The slowest link that is served, 64 kbit/s, less what its overhead takes.
const BYTES_PER_SECOND_MIN: u64 = 4 << 10;

/// From the end of the handshake to the last byte of a ticket's proof, which is short.
pub const PROOF_TIMEOUT: Duration = Duration::from_secs(5);

fn patience(bytes: usize) -> Duration {
    MESSAGE_TIMEOUT + Duration::from_secs(bytes as u64 / BYTES_PER_SECOND_MIN)
}

/// The one clock of a message. It does not start again inside it, and a peer gains time by what it sends alone.
#[derive(Clone, Copy)]
struct Clock {
    since: Instant,
    /// Of what the message answers: a slow link takes as long to deliver that.
    asked_bytes: usize,
}

impl Clock {
    fn start(asked_bytes: usize) -> Self {
        Self { since: Instant::now(), asked_bytes }
    }

    /// When the next byte has to be here, after so many.
    fn due(&self, received_bytes: usize) -> Instant {
        self.since + patience(self.asked_bytes + received_bytes)
    }
}

/// The most that is taken from a stream at once.
const PIECE_BYTES: usize = 64 << 10;

/// Of a control message's length.
const PREFIX_BYTES: usize = 4;

/// Sends control messages.
pub struct ControlWriter {
    stream: SendStream,
    role: Role,
}

/// Receives control messages.
pub struct ControlReader {
    stream: RecvStream,
    role: Role,
}

/// Opens the control stream (the sender does), with the proof of the ticket before anything else.
pub async fn open_control(link: &Link, proof: &TicketProof) -> Outcome<(ControlWriter, ControlReader)> {
    let role = Role::Sender;
    let (mut send, receive) = link.connection.open_bi().await.map_err(|error| from_connection(role, &error))?;
    let written = timeout(MESSAGE_TIMEOUT, send.write_all(&proof.to_bytes())).await;
    written.map_err(|_| too_slow(role))?.map_err(|error| broken_write(role, error))?;
    Ok((ControlWriter { stream: send, role }, ControlReader { stream: receive, role }))
}

/// Waits for the control stream and the proof of a ticket on it (the receiver does), both within [`PROOF_TIMEOUT`].
pub async fn accept_control(link: &Link) -> Outcome<(ControlWriter, ControlReader, TicketProof)> {
    let role = Role::Receiver;
    let accepting = async {
        let (send, mut receive) = link.connection.accept_bi().await.map_err(|error| from_connection(role, &error))?;
        let mut bytes = [0; TICKET_PROOF_BYTES];
        let read = receive.read_exact(&mut bytes).await;
        read.map_err(|error| broken_read(role, error))?;
        Ok((send, receive, TicketProof::from_bytes(&bytes)?))
    };
    let accepted: Outcome<_> = timeout(PROOF_TIMEOUT, accepting).await.map_err(|_| too_slow(role))?;
    let (send, receive, proof) = accepted?;
    Ok((ControlWriter { stream: send, role }, ControlReader { stream: receive, role }, proof))
}

fn too_slow(role: Role) -> Failure {
    let what = format!("the {} took too long to hear or to answer", role.peer());
    Failure::new(Code::TooSlow, what, "Try again; if it repeats, look at the link's delay and loss.")
}

impl ControlWriter {
    /// Returns the bytes written. A peer that takes none of them for too long is not waited for: it could keep a transfer, or
    /// the word that it is over, for ever. Not cancel-safe: part of the message may have been written.
    pub async fn send(&mut self, message: &Message) -> Outcome<usize> {
        let frame = message.to_frame()?;
        let written = timeout(patience(frame.len()), self.stream.write_all(&frame)).await;
        written.map_err(|_| too_slow(self.role))?.map_err(|error| broken_write(self.role, error))?;
        Ok(frame.len())
    }

    /// Ends this side of the stream and waits until the peer has all of it, or has gone, but not for long.
    pub async fn finish(mut self) {
        let _ = self.stream.finish();
        let _ = timeout(FAREWELL_TIMEOUT, self.stream.stopped()).await;
    }
}

impl ControlReader {
    /// The first message of an exchange, which may be a refusal: a sender that cannot even begin says so. Its clock began
    /// at `since`, with the connection; what it takes of memory comes out of what all offers may take together.
    pub async fn first(&mut self, since: Instant, slot: &Slot) -> Outcome<Message> {
        let clock = Clock { since, asked_bytes: 0 };
        let hold = |bytes| slot.hold_bytes(Offer::memory_bytes(bytes));
        self.message(Some(clock), OFFER_BYTES_MAX, hold).await?.ok_or_else(|| self.ended())
    }

    /// The answer to a message of `asked_bytes`, which must be whole within the time of the exchange.
    pub async fn expect(&mut self, asked_bytes: usize) -> Outcome<Message> {
        self.not_refused(Some(Clock::start(asked_bytes))).await?.ok_or_else(|| self.ended())
    }

    /// The next message, or `None` at the clean end of the stream. A refusal by the peer is an error. Not cancel-safe.
    pub async fn next(&mut self) -> Outcome<Option<Message>> {
        self.not_refused(None).await
    }

    async fn not_refused(&mut self, clock: Option<Clock>) -> Outcome<Option<Message>> {
        match self.message(clock, CONTROL_BYTES_MAX, |_| Ok(())).await? {
            Some(Message::Refuse(refuse)) => Err(self.refused(refuse)),
            message => Ok(message),
        }
    }

    /// What a refusal by the peer means here.
    pub fn refused(&self, refuse: Refuse) -> Failure {
        refused_by_peer(self.role.peer().name(), refuse, now_seconds())
    }

    /// Without a clock, it starts with the first byte. `hold` is called with each piece before it is kept.
    async fn message(
        &mut self,
        mut clock: Option<Clock>,
        bytes_max: usize,
        hold: impl Fn(usize) -> Outcome,
    ) -> Outcome<Option<Message>> {
        let mut prefix = Vec::with_capacity(PREFIX_BYTES);
        while prefix.len() < PREFIX_BYTES {
            let Some(piece) = self.piece(PREFIX_BYTES - prefix.len(), clock, prefix.len()).await? else {
                return if prefix.is_empty() { Ok(None) } else { Err(self.ended()) };
            };
            prefix.extend_from_slice(&piece.bytes);
            clock = clock.or_else(|| Some(Clock::start(0)));
        }
        let body_bytes = control_length([prefix[0], prefix[1], prefix[2], prefix[3]])?;
        if body_bytes > bytes_max {
            return Err(Error::new(Code::LimitExceeded, "length of the first message").into());
        }
        // Grows with what comes: an announcement takes nothing.
        let mut body = Vec::new();
        while body.len() < body_bytes {
            let wanted = PIECE_BYTES.min(body_bytes - body.len());
            let piece = self.piece(wanted, clock, body.len()).await?.ok_or_else(|| self.ended())?;
            hold(body.len() + piece.bytes.len())?;
            body.extend_from_slice(&piece.bytes);
        }
        Ok(Some(Message::from_bytes(&body)?))
    }

    /// What is there of the stream, `wanted` bytes at most; `None` at its end. `received` bytes of the message came before.
    async fn piece(&mut self, wanted: usize, clock: Option<Clock>, received: usize) -> Outcome<Option<Chunk>> {
        let reading = self.stream.read_chunk(wanted, true);
        let read = match clock {
            Some(clock) => {
                let due = clock.due(received);
                timeout_at(due.into(), reading).await.map_err(|_| too_slow(self.role))?
            }
            None => reading.await,
        };
        match read {
            Ok(chunk) => Ok(chunk),
            Err(ReadError::ConnectionLost(lost)) => Err(from_connection(self.role, &lost)),
            Err(_) => Err(self.ended()),
        }
    }

    fn ended(&self) -> Failure {
        ended(self.role)
    }
}

fn ended(role: Role) -> Failure {
    Failure::new(Code::Interrupted, format!("the {} ended the exchange", role.peer()), "")
}

fn broken_read(role: Role, error: ReadExactError) -> Failure {
    match error {
        ReadExactError::ReadError(quinn::ReadError::ConnectionLost(lost)) => from_connection(role, &lost),
        _ => ended(role),
    }
}

fn broken_write(role: Role, error: quinn::WriteError) -> Failure {
    match error {
        quinn::WriteError::ConnectionLost(lost) => from_connection(role, &lost),
        _ => Failure::new(Code::ProtocolViolation, "the control stream was closed", ""),
    }
}
