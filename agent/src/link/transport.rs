//! What the streams of each transport can do.

use std::future::Future;

use bytes::{Bytes, BytesMut, buf::Limit};
use sealift_protocol::close::Code;

use super::end::Broken;

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
