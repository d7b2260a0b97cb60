//! The streams that the agents hold: of whichever transport the link is. They report what breaks
//! them as a [`crate::failure::Failure`].

use bytes::Bytes;
use sealift_protocol::close::Code;

use super::{
    end::{StreamKind, stream_failure},
    quic,
    transport::{Bounded, RecvStream, SendStream},
};
use crate::{failure::Outcome, role::Role};

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
