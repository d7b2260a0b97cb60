//! The control stream of a connection: the proof of the ticket, then messages, each with its time
//! and its bound.

use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
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
    failure::{Failure, Outcome},
    link::{
        FAREWELL_TIMEOUT, IDLE_TIMEOUT, Link,
        end::exchange_ended,
        stream::{StreamIn, StreamOut},
    },
    refused::refused_by_peer,
    role::Role,
};

/// For each whole message of the exchange before data flows, and for one that has begun later
/// (fault X15); besides, as long as its bytes take at the least rate, counted as they come and not
/// as they are announced.
pub const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);
// A dead link is noticed as such, and not taken for a slow peer.
const _: () = assert!(IDLE_TIMEOUT.as_secs() < MESSAGE_TIMEOUT.as_secs());

/// The slowest link that is served, 64 kbit/s, less what its overhead takes.
const BYTES_PER_SECOND_MIN: u64 = 4 << 10;

/// From the end of the handshake to the last byte of a ticket's proof, which is short.
pub const PROOF_TIMEOUT: Duration = Duration::from_secs(5);

fn patience(bytes: usize) -> Duration {
    MESSAGE_TIMEOUT + Duration::from_secs(bytes as u64 / BYTES_PER_SECOND_MIN)
}

/// The one clock of a message. It does not start again inside it, and a peer gains time by what it
/// sends alone.
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

/// The most that is taken from a stream at once, and what a message may take of memory before that
/// is counted.
const PIECE_BYTES: usize = 16 << 10;

/// Of a control message's length.
const PREFIX_BYTES: usize = 4;

/// Sends control messages.
pub struct ControlWriter {
    stream: StreamOut,
    /// What is left of a message whose sending was cancelled. It goes first, or the peer would take
    /// the next message for its end.
    unsent: Bytes,
    role: Role,
}

/// Receives control messages.
pub struct ControlReader {
    stream: StreamIn,
    role: Role,
}

/// Opens the control stream (the sender does), with the proof of the ticket before anything else.
/// Not cancel-safe: part of the proof may have been sent.
pub async fn open_control(link: &Link, proof: &TicketProof) -> Outcome<(ControlWriter, ControlReader)> {
    let role = link.role();
    let (mut out, answers) = link.open_control().await?;
    let mut proof = Bytes::copy_from_slice(&proof.to_bytes());
    timeout(MESSAGE_TIMEOUT, out.send(&mut proof)).await.map_err(|_| too_slow(role))??;
    Ok((ControlWriter::new(out, role), ControlReader { stream: answers, role }))
}

/// Waits for the control stream and the proof of a ticket on it (the receiver does), both within
/// [`PROOF_TIMEOUT`]. Not cancel-safe: received bytes of the proof are lost.
pub async fn accept_control(link: &Link) -> Outcome<(ControlWriter, ControlReader, TicketProof)> {
    let role = link.role();
    let accepting = async {
        let (out, mut requests) = link.accept_control().await?;
        let proof = recv_proof(&mut requests).await?;
        Ok((out, requests, proof))
    };
    let accepted: Outcome<_> = timeout(PROOF_TIMEOUT, accepting).await.map_err(|_| too_slow(role))?;
    let (out, requests, proof) = accepted?;
    Ok((ControlWriter::new(out, role), ControlReader { stream: requests, role }, proof))
}

/// Bytes that are no proof are refused when they come, and not when the time is over; so is an end
/// before the last of them. Not cancel-safe: received bytes are lost.
async fn recv_proof(requests: &mut StreamIn) -> Outcome<TicketProof> {
    let no_proof = || Error::new(Code::ProtocolViolation, "proof of a ticket");
    let mut bytes = BytesMut::with_capacity(TICKET_PROOF_BYTES);
    while bytes.len() < TICKET_PROOF_BYTES {
        let wanted = TICKET_PROOF_BYTES - bytes.len();
        let received = requests.recv(&mut (&mut bytes).limit(wanted)).await?;
        if received == 0 || !TicketProof::may_begin_with(&bytes) {
            return Err(no_proof().into());
        }
    }
    let bytes = bytes.as_ref().try_into().map_err(|_| no_proof())?;
    Ok(TicketProof::from_bytes(bytes)?)
}

fn too_slow(role: Role) -> Failure {
    let what = format!("the {} took too long to hear or to answer", role.peer());
    Failure::new(Code::TooSlow, what, "Try again; if it repeats, look at the link's delay and loss.")
}

impl ControlWriter {
    fn new(stream: StreamOut, role: Role) -> Self {
        Self { stream, unsent: Bytes::new(), role }
    }

    /// Returns the bytes written. A peer that takes none of them for too long is not waited for: it
    /// could keep a transfer, or the word that it is over, for ever. Cancel-safe: what is left of
    /// the message is sent before the next one.
    pub async fn send(&mut self, message: &Message) -> Outcome<usize> {
        let mut frame = Bytes::from(message.to_frame()?);
        let frame_bytes = frame.len();
        let sending = async {
            self.stream.send(&mut self.unsent).await?;
            std::mem::swap(&mut self.unsent, &mut frame);
            self.stream.send(&mut self.unsent).await
        };
        let sent = timeout(patience(frame_bytes), sending).await;
        sent.map_err(|_| too_slow(self.role))??;
        Ok(frame_bytes)
    }

    /// Ends this side of the stream and waits until the peer has all of it, or has gone, but not
    /// for long.
    pub async fn finish(mut self) {
        let _ = self.stream.finish();
        let _ = timeout(FAREWELL_TIMEOUT, self.stream.delivered()).await;
    }

    /// Ends the exchange on `link` with a failure: sends it to the peer, unless it came from there,
    /// and waits until that has arrived, since a connection that is closed at once may not carry
    /// the message any more. Not cancel-safe: the peer may not get the code.
    pub async fn refuse(mut self, link: &Link, failure: &Failure) {
        if !failure.raised_by.is_peer() {
            let refuse = Refuse {
                part: failure.part,
                chunk: failure.chunk,
                now_seconds: failure.code.is_of_clock().then(now_seconds),
                bound: failure.bound.as_deref().copied(),
                ..Refuse::new(failure.code)
            };
            // A few bytes: a peer that takes none of them by then is not waited for.
            if let Ok(Ok(_)) = timeout(FAREWELL_TIMEOUT, self.send(&Message::Refuse(refuse))).await {
                self.finish().await;
            }
        }
        link.close(failure.code);
    }
}

impl ControlReader {
    /// The first message of an exchange, which may be a refusal: a sender that cannot even begin
    /// says so. Its clock began at `since`, with the connection; what it takes of memory comes out
    /// of what all offers may take together. Not cancel-safe: received bytes are lost.
    pub async fn first(&mut self, since: Instant, slot: &Slot) -> Outcome<Message> {
        let clock = Clock { since, asked_bytes: 0 };
        let hold = |bytes| slot.hold_bytes(Offer::memory_bytes(bytes));
        self.message(Some(clock), OFFER_BYTES_MAX, hold).await?.ok_or_else(|| exchange_ended(self.role))
    }

    /// The answer to a message of `asked_bytes`, which must be whole within the time of the
    /// exchange. Not cancel-safe: received bytes are lost.
    pub async fn expect(&mut self, asked_bytes: usize) -> Outcome<Message> {
        self.not_refused(Some(Clock::start(asked_bytes))).await?.ok_or_else(|| exchange_ended(self.role))
    }

    /// The next message, or `None` at the clean end of the stream. A refusal by the peer is an
    /// error. Not cancel-safe.
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

    /// Without a clock, it starts with the first byte. `hold` is called as the message grows. Not
    /// cancel-safe: received bytes are lost.
    async fn message(
        &mut self,
        mut clock: Option<Clock>,
        bytes_max: usize,
        hold: impl Fn(usize) -> Outcome,
    ) -> Outcome<Option<Message>> {
        let mut prefix = BytesMut::with_capacity(PREFIX_BYTES);
        while prefix.len() < PREFIX_BYTES {
            if self.piece(PREFIX_BYTES, &mut prefix, clock).await? == 0 {
                return if prefix.is_empty() { Ok(None) } else { Err(exchange_ended(self.role)) };
            }
            clock = clock.or_else(|| Some(Clock::start(0)));
        }
        let body_bytes = control_length([prefix[0], prefix[1], prefix[2], prefix[3]])?;
        if body_bytes > bytes_max {
            return Err(Error::new(Code::LimitExceeded, "length of the first message").into());
        }
        // Grows with what comes: an announcement takes no more than a piece.
        let mut body = BytesMut::new();
        while body.len() < body_bytes {
            if self.piece(body_bytes, &mut body, clock).await? == 0 {
                return Err(exchange_ended(self.role));
            }
            hold(body.len())?;
        }
        Ok(Some(Message::from_bytes(&body)?))
    }

    /// Appends what is there of the stream, until `into` has `bytes_max` at most; returns how many
    /// bytes, 0 at the end. Cancel-safe: what was received is in `into`.
    async fn piece(&mut self, bytes_max: usize, into: &mut BytesMut, clock: Option<Clock>) -> Outcome<usize> {
        let received_bytes = into.len();
        let wanted = PIECE_BYTES.min(bytes_max - received_bytes);
        into.reserve(wanted);
        let mut into = into.limit(wanted);
        let receiving = self.stream.recv(&mut into);
        match clock {
            Some(clock) => {
                let due = clock.due(received_bytes);
                timeout_at(due.into(), receiving).await.map_err(|_| too_slow(self.role))?
            }
            None => receiving.await,
        }
    }
}
