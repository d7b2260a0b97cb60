//! Streams of QUIC.

use bytes::Bytes;
use quinn::{ReadError, WriteError};
use sealift_protocol::close::Code;
use tokio::io::AsyncReadExt;

use super::{end_of, number};
use crate::link::{
    end::Broken,
    transport::{Bounded, RecvStream, SendStream},
};

pub(in crate::link) struct QuicSend(pub(super) quinn::SendStream);

pub(in crate::link) struct QuicReceive(pub(super) quinn::RecvStream);

impl SendStream for QuicSend {
    async fn send(&mut self, bytes: &mut Bytes) -> Result<(), Broken> {
        while !bytes.is_empty() {
            // It takes off what it has sent.
            let written = self.0.write_chunks(std::slice::from_mut(bytes)).await;
            written.map_err(|error| match error {
                WriteError::ConnectionLost(lost) => Broken::Lost(end_of(&lost)),
                WriteError::Stopped(_) | WriteError::ClosedStream | WriteError::ZeroRttRejected => Broken::Stopped,
            })?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Broken> {
        self.0.finish().map_err(|_| Broken::Stopped)
    }

    async fn delivered(&mut self) {
        let _ = self.0.stopped().await;
    }

    fn reset(&mut self, code: Code) {
        // Fails only for a stream that has ended already.
        let _ = self.0.reset(number(code));
    }
}

impl RecvStream for QuicReceive {
    /// Takes all that has arrived at once: piece by piece, every packet would lock the connection
    /// again.
    async fn recv(&mut self, into: &mut Bounded<'_>) -> Result<usize, Broken> {
        // As an `AsyncRead`, a stream wraps its own error.
        self.0.read_buf(into).await.map_err(|error| match error.downcast() {
            Ok(ReadError::ConnectionLost(lost)) => Broken::Lost(end_of(&lost)),
            Ok(_) | Err(_) => Broken::Reset,
        })
    }
}
