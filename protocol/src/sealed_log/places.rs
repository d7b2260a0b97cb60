//! Finding places in a log by heads alone.

use std::{convert::Infallible, ops::Range};

use super::{
    chain::{HEAD_MAGIC, Head},
    record::RecordType,
};
use crate::limits::{LOG_HEAD_BYTES, LOG_HEADER_BYTES};

/// Bytes read at once when searching for a head.
const WINDOW_BYTES: usize = 64 << 10;

/// The bytes of a log with random access: a file, or a slice.
pub trait LogBytes {
    /// Why bytes cannot be read.
    type Error;

    /// The length, which must not change while the log is read.
    fn bytes(&self) -> u64;

    /// Fills `out` with the bytes from `offset` on. The caller stays within [`LogBytes::bytes`].
    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), Self::Error>;
}

impl LogBytes for &[u8] {
    type Error = Infallible;

    fn bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), Infallible> {
        out.copy_from_slice(&self[offset as usize..][..out.len()]);
        Ok(())
    }
}

/// The first place at or after `from` with a head that `accept` takes.
pub(super) fn find_head<S: LogBytes, T>(
    source: &S,
    mut from: u64,
    accept: impl Fn(&[u8; LOG_HEAD_BYTES]) -> Option<T>,
) -> Result<Option<(u64, T)>, S::Error> {
    let mut buffer = vec![0; WINDOW_BYTES];
    loop {
        let window = &mut buffer[..source.bytes().saturating_sub(from).min(WINDOW_BYTES as u64) as usize];
        if window.len() < LOG_HEAD_BYTES {
            return Ok(None);
        }
        source.read_at(from, window)?;
        for (at, bytes) in (from..).zip(window.windows(LOG_HEAD_BYTES)) {
            if bytes[..4] == HEAD_MAGIC
                && let Some(bytes) = bytes.first_chunk()
                && let Some(found) = accept(bytes)
            {
                return Ok(Some((at, found)));
            }
        }
        from += (window.len() - LOG_HEAD_BYTES + 1) as u64;
    }
}

/// Iterates over the places of the bodies of epoch records, so that they can be destroyed first.
/// Only heads are needed: the log may be torn, corrupt or half destroyed. Places come in order, and
/// may overlap if a length is wrong, so that rather too much of such a log is destroyed than too
/// little.
pub struct EnvelopePlaces<S> {
    source: S,
    next: u64,
}

impl<S: LogBytes> EnvelopePlaces<S> {
    /// Searches from the end of the header on.
    pub fn new(source: S) -> Self {
        Self { source, next: LOG_HEADER_BYTES as u64 }
    }

    fn find(&mut self) -> Result<Option<Range<u64>>, S::Error> {
        while let Some((at, head)) = find_head(&self.source, self.next, Head::from_bytes)? {
            let body = at + LOG_HEAD_BYTES as u64;
            let end = at + head.record_bytes();
            // A length is trusted only if it leads to a head, or to the end.
            self.next = if end == self.source.bytes() || self.is_head(end)? { end } else { body };
            if head.kind == RecordType::Epoch {
                return Ok(Some(body..(body + u64::from(head.body_bytes)).min(self.source.bytes())));
            }
        }
        Ok(None)
    }

    fn is_head(&self, at: u64) -> Result<bool, S::Error> {
        let mut bytes = [0; LOG_HEAD_BYTES];
        if at + LOG_HEAD_BYTES as u64 > self.source.bytes() {
            return Ok(false);
        }
        self.source.read_at(at, &mut bytes)?;
        Ok(Head::from_bytes(&bytes).is_some())
    }
}

impl<S: LogBytes> Iterator for EnvelopePlaces<S> {
    type Item = Result<Range<u64>, S::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.find().transpose()
    }
}
