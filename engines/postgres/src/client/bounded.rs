//! A bound on the messages of a server.
//!
//! The protocol gives each message a length of up to 2 GB, and the client library gathers a message
//! before it gives it out. This wrapper reads the lengths on their way and fails before one over
//! the limit is gathered. It stands between TLS, if there is any, and the library.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsStream};

/// A message is a byte of kind and four of length, which counts itself and not the kind.
const HEAD_BYTES: usize = 5;

/// The kind of message that ends a command, with a tag that says what it did.
const COMMAND_COMPLETE: u8 = b'C';

/// Longer than any tag.
const TAG_BYTES_MAX: usize = 64;
/// The message that begins with the number of the server process, in four bytes.
const BACKEND_KEY_DATA: u8 = b'K';
const PID_BYTES: usize = 4;

/// The longest message that a connection takes, which its owner may change.
#[derive(Clone)]
pub struct MessageLimit(Arc<Limit>);

struct Limit {
    bytes_max: AtomicUsize,
    was_exceeded: AtomicBool,
    /// Rows of the last COPY, as the server has counted them.
    copied: AtomicU64,
    /// The server process that the connection says it has, 0 if it has not said so.
    backend_pid: AtomicI32,
}

impl MessageLimit {
    pub fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Limit {
            bytes_max: AtomicUsize::new(bytes_max),
            was_exceeded: AtomicBool::new(false),
            copied: AtomicU64::new(0),
            backend_pid: AtomicI32::new(0),
        }))
    }

    pub fn set(&self, bytes_max: usize) {
        self.0.bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    /// Whether a message was over it. The connection is lost then, and this is why.
    pub fn was_exceeded(&self) -> bool {
        self.0.was_exceeded.load(Ordering::Relaxed)
    }

    /// How many rows the last COPY has had, by the tag with which the server ended it: counted
    /// apart from those that have arrived.
    pub fn copied(&self) -> u64 {
        self.0.copied.load(Ordering::Relaxed)
    }

    /// A command has ended with this tag, such as `COPY 12` and a zero byte.
    fn handle_tag(&self, tag: &[u8]) {
        let count = tag.strip_prefix(b"COPY ").and_then(|rest| rest.strip_suffix(b"\0"));
        if let Some(rows) = count.and_then(|count| std::str::from_utf8(count).ok()?.parse().ok()) {
            self.0.copied.store(rows, Ordering::Relaxed);
        }
    }

    /// The server process whose statements a request to cancel ends, as the other end has said
    /// (`BackendKeyData`).
    pub fn backend_pid(&self) -> i32 {
        self.0.backend_pid.load(Ordering::Relaxed)
    }

    /// Whether a message of this length is taken.
    fn takes(&self, bytes: usize) -> bool {
        let takes = bytes <= self.0.bytes_max.load(Ordering::Relaxed);
        if !takes {
            self.0.was_exceeded.store(true, Ordering::Relaxed);
        }
        takes
    }
}

/// A stream of messages that have at most so many bytes.
pub struct Bounded<S> {
    stream: S,
    binding: Option<Vec<u8>>,
    lengths: Lengths,
}

impl<S> Bounded<S> {
    /// A stream that was not encrypted.
    pub fn new(stream: S, limit: MessageLimit) -> Self {
        Self { stream, binding: None, lengths: Lengths::new(limit) }
    }

    /// One over TLS, with the hash of the server's certificate, to which SCRAM binds the login.
    pub fn with_binding(stream: S, limit: MessageLimit, binding: Option<Vec<u8>>) -> Self {
        Self { binding, ..Self::new(stream, limit) }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Bounded<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.binding.clone().map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if let Poll::Ready(Ok(())) = polled
            && !this.lengths.pass(&buffer.filled()[before..])
        {
            return Poll::Ready(Err(io::ErrorKind::FileTooLarge.into()));
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// Follows the messages in a stream of bytes.
struct Lengths {
    limit: MessageLimit,
    head: [u8; HEAD_BYTES],
    head_filled: usize,
    /// Of the body of the message at hand.
    body_left: usize,
    /// The body of a message that ends a command, as far as it has arrived.
    tag: Option<Vec<u8>>,
    /// The number of a server process, of the message that has one.
    pid: [u8; PID_BYTES],
    pid_filled: usize,
}

impl Lengths {
    fn new(limit: MessageLimit) -> Self {
        Self {
            limit,
            head: [0; HEAD_BYTES],
            head_filled: 0,
            body_left: 0,
            tag: None,
            pid: [0; PID_BYTES],
            pid_filled: PID_BYTES,
        }
    }

    /// Whether every message that begins in `bytes` is within the limit.
    fn pass(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let skipped = self.body_left.min(bytes.len());
            self.take_pid(&bytes[..skipped]);
            self.body_left -= skipped;
            if let Some(tag) = &mut self.tag {
                tag.extend_from_slice(&bytes[..skipped]);
                if self.body_left == 0 {
                    self.limit.handle_tag(tag);
                    self.tag = None;
                }
            }
            bytes = &bytes[skipped..];
            let taken = (HEAD_BYTES - self.head_filled).min(bytes.len());
            self.head[self.head_filled..][..taken].copy_from_slice(&bytes[..taken]);
            self.head_filled += taken;
            bytes = &bytes[taken..];
            if self.head_filled < HEAD_BYTES {
                continue;
            }
            let [kind, length @ ..] = self.head;
            let length = u32::from_be_bytes(length) as usize;
            if !self.limit.takes(length) {
                return false;
            }
            self.head_filled = 0;
            // Shorter than itself: the library refuses it.
            self.body_left = length.saturating_sub(length.min(4));
            self.tag = (kind == COMMAND_COMPLETE && self.body_left <= TAG_BYTES_MAX).then(Vec::new);
            if kind == BACKEND_KEY_DATA {
                self.pid_filled = 0;
            }
        }
        true
    }

    fn take_pid(&mut self, body: &[u8]) {
        let taken = (PID_BYTES - self.pid_filled).min(body.len());
        if taken == 0 {
            return;
        }
        self.pid[self.pid_filled..][..taken].copy_from_slice(&body[..taken]);
        self.pid_filled += taken;
        if self.pid_filled == PID_BYTES {
            self.limit.0.backend_pid.store(i32::from_be_bytes(self.pid), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: usize) -> Vec<u8> {
        let mut bytes = vec![b'd'];
        bytes.extend((body as u32 + 4).to_be_bytes());
        bytes.resize(HEAD_BYTES + body, 7);
        bytes
    }

    #[test]
    fn the_count_of_a_copy_is_read_however_it_is_cut() {
        let tag = |text: &str| {
            let mut bytes = vec![COMMAND_COMPLETE];
            bytes.extend((text.len() as u32 + 5).to_be_bytes());
            bytes.extend(text.bytes().chain([0]));
            bytes
        };
        let bytes = [message(20), tag("COPY 1234567"), message(3), tag("SELECT 1"), tag("BEGIN")].concat();
        for cut in 1..40 {
            let limit = MessageLimit::new(100);
            let mut lengths = Lengths::new(limit.clone());
            assert!(bytes.chunks(cut).all(|piece| lengths.pass(piece)));
            assert_eq!(limit.copied(), 1_234_567, "{cut}");
        }
    }

    #[test]
    fn the_server_process_is_read_however_it_is_cut() {
        let key = [&[BACKEND_KEY_DATA, 0, 0, 0, 12][..], &7_654_321_i32.to_be_bytes(), &[1, 2, 3, 4]].concat();
        let stream = [message(3), key, message(3)].concat();
        for cut in 1..20 {
            let mut lengths = Lengths::new(MessageLimit::new(100));
            assert!(stream.chunks(cut).all(|piece| lengths.pass(piece)));
            assert_eq!(lengths.limit.backend_pid(), 7_654_321, "{cut}");
        }
    }

    #[test]
    fn a_message_over_the_limit_is_found_by_its_head_however_it_is_cut() {
        let good = [message(0), message(96), message(3), message(96)].concat();
        let bad = [good.clone(), message(97)[..HEAD_BYTES].to_vec()].concat();
        for cut in 1..40 {
            let mut lengths = Lengths::new(MessageLimit::new(100));
            assert!(good.chunks(cut).all(|piece| lengths.pass(piece)), "{cut}");
            let mut lengths = Lengths::new(MessageLimit::new(100));
            assert!(!bad.chunks(cut).all(|piece| lengths.pass(piece)), "{cut}");
        }
    }
}
