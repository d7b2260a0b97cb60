//! The streams of a link: what each transport's streams can do ([`SendStream`], [`RecvStream`]),
//! and the streams that the agents hold ([`StreamOut`], [`StreamIn`]), which are of whichever
//! transport the link is and report what breaks them as a [`crate::failure::Failure`].

use std::future::Future;

use bytes::{Bytes, BytesMut, buf::Limit};
use sealift_protocol::close::Code;

use super::{
    end::{Broken, StreamKind, stream_failure},
    quic,
};
use crate::{failure::Outcome, role::Role};

/// A buffer with a bound on what it takes.
pub type Bounded<'a> = Limit<&'a mut BytesMut>;

/// The sending half of a stream of one transport.
pub trait SendStream {
    /// Sends all of `bytes`, and waits while the peer or the transport takes no more. Cancel-safe:
    /// what is left in `bytes` has not been sent.
    fn send(&mut self, bytes: &mut Bytes) -> impl Future<Output = Result<(), Broken>>;

    /// Ends the stream: nothing follows what was sent.
    fn finish(&mut self) -> Result<(), Broken>;

    /// Resolves once the peer has received everything up to the end, or will not. Cancel-safe.
    fn delivered(&mut self) -> impl Future<Output = ()>;

    /// Gives the stream up, including what was sent and has not arrived.
    fn reset(&mut self, code: Code);
}

/// The receiving half of a stream of one transport.
pub trait RecvStream {
    /// Appends what has arrived, as far as `into` has room; returns how many bytes that were, 0 at
    /// the end of the stream. Waits if nothing has arrived. Cancel-safe.
    fn recv(&mut self, into: &mut Bounded<'_>) -> impl Future<Output = Result<usize, Broken>>;
}

/// Which transport the sending half is of.
pub(super) enum Sending {
    Quic(quic::QuicSend),
}

/// Which transport the receiving half is of.
pub(super) enum Receiving {
    Quic(quic::QuicReceive),
}

/// The sending half of a stream.
pub struct StreamOut {
    pub(super) stream: Sending,
    pub(super) role: Role,
    pub(super) kind: StreamKind,
}

/// The receiving half of a stream.
pub struct StreamIn {
    pub(super) stream: Receiving,
    pub(super) role: Role,
    pub(super) kind: StreamKind,
}

impl StreamOut {
    /// As [`SendStream::send`]. Cancel-safe: what is left in `bytes` has not been sent.
    pub async fn send(&mut self, bytes: &mut Bytes) -> Outcome {
        let sent = match &mut self.stream {
            Sending::Quic(stream) => stream.send(bytes).await,
        };
        sent.map_err(|broken| stream_failure(self.role, self.kind, &broken))
    }

    /// As [`SendStream::finish`].
    pub fn finish(&mut self) -> Outcome {
        let finished = match &mut self.stream {
            Sending::Quic(stream) => stream.finish(),
        };
        finished.map_err(|broken| stream_failure(self.role, self.kind, &broken))
    }

    /// As [`SendStream::delivered`]. Cancel-safe.
    pub async fn delivered(&mut self) {
        match &mut self.stream {
            Sending::Quic(stream) => stream.delivered().await,
        }
    }

    /// As [`SendStream::reset`].
    pub fn reset(&mut self, code: Code) {
        match &mut self.stream {
            Sending::Quic(stream) => stream.reset(code),
        }
    }
}

impl StreamIn {
    /// As [`RecvStream::recv`]. Cancel-safe.
    pub async fn recv(&mut self, into: &mut Bounded<'_>) -> Outcome<usize> {
        let received = match &mut self.stream {
            Receiving::Quic(stream) => stream.recv(into).await,
        };
        received.map_err(|broken| stream_failure(self.role, self.kind, &broken))
    }
}
