//! Assembling rows from the chunks of a part, or passing on the pieces of a long one.

use bytes::{Buf, Bytes, BytesMut};

use super::{malformed, peek_length};
use crate::{
    close::Code,
    error::{Error, Result},
};

/// Takes the rows of a part as they are assembled.
pub trait RowConsumer {
    /// Why a row is not taken.
    type Failure: From<Error>;

    /// A whole row.
    fn row(&mut self, row: &[u8]) -> std::result::Result<(), Self::Failure>;

    /// So much of a row that is longer than [`LONG_ROW_HEAD_BYTES`] has come, `row_bytes` in all.
    /// Whether the rest is taken in pieces, as it comes; otherwise the row is assembled.
    fn begin_long_row(&mut self, _head: &[u8], _row_bytes: usize) -> std::result::Result<bool, Self::Failure> {
        Ok(false)
    }

    /// The next piece of the row that is taken in pieces, and whether it ends with that.
    fn long_row_piece(&mut self, _piece: &[u8], _is_last: bool) -> std::result::Result<(), Self::Failure> {
        Ok(())
    }
}

/// How much of a long row is assembled before it is asked whether the rest is taken in pieces: most
/// columns come before a large one.
pub const LONG_ROW_HEAD_BYTES: usize = 64 << 10;

/// Assembles rows from the chunks of a part. It holds at most one row, and of that one copy.
pub struct RowReader {
    /// The beginning of a row that is not complete, with the prefix.
    held: BytesMut,
    row_bytes_max: usize,
    long: Long,
}

/// What is known about the row that is held.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Long {
    /// Nothing was asked yet.
    NotAsked,
    /// It is assembled.
    Assembled,
    /// So many of its bytes are to be passed on in pieces, and none is held.
    InPieces { left: usize },
}

/// The encoding of a row with its prefix.
#[derive(Clone, Copy)]
struct Extent {
    prefix: usize,
    whole: usize,
}

impl Extent {
    /// Up to where it is held before it is asked whether the rest is taken in pieces.
    fn head(self) -> usize {
        self.whole.min(self.prefix + LONG_ROW_HEAD_BYTES)
    }
}

/// Calls a function with each row, assembled.
struct Assembled<F>(F);

impl<E: From<Error>, F: FnMut(&[u8]) -> std::result::Result<(), E>> RowConsumer for Assembled<F> {
    type Failure = E;

    fn row(&mut self, row: &[u8]) -> std::result::Result<(), E> {
        (self.0)(row)
    }
}

impl RowReader {
    /// A reader for one part that refuses rows of more than `row_bytes_max` encoded bytes.
    pub fn new(row_bytes_max: usize) -> Self {
        Self { held: BytesMut::new(), row_bytes_max, long: Long::NotAsked }
    }

    /// Calls `on_row` with the bytes of each row that `plain` completes, without the length prefix.
    /// Fails with `LimitExceeded`, `RowMalformed` or the error of `on_row`.
    pub fn feed<E: From<Error>>(
        &mut self,
        plain: Bytes,
        on_row: impl FnMut(&[u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        self.feed_into(plain, &mut Assembled(on_row))
    }

    /// Gives `consumer` each row that `plain` completes, without the length prefix, and the pieces
    /// of one that it takes in pieces. Fails with `LimitExceeded`, `RowMalformed` or as `consumer`
    /// does.
    pub fn feed_into<C: RowConsumer>(&mut self, plain: Bytes, consumer: &mut C) -> std::result::Result<(), C::Failure> {
        let mut rest = plain;
        while !rest.is_empty() {
            if let Long::InPieces { left } = self.long {
                let piece = rest.split_to(left.min(rest.len()));
                let left = left - piece.len();
                self.long = if left == 0 { Long::NotAsked } else { Long::InPieces { left } };
                consumer.long_row_piece(&piece, left == 0)?;
            } else if !self.held.is_empty() {
                self.hold(&mut rest, consumer)?;
            } else if let Some(extent) = self.extent(&rest)? {
                if rest.len() < extent.whole {
                    // Grow once to what the row needs, not by doubling.
                    self.held.reserve(extent.head());
                    self.held.extend_from_slice(&rest.split_to(extent.prefix));
                } else {
                    consumer.row(&rest[extent.prefix..extent.whole])?;
                    rest.advance(extent.whole);
                }
            } else {
                self.held.extend_from_slice(&rest.split_to(1));
            }
        }
        Ok(())
    }

    /// Moves bytes of `rest` to the row that is held, and no more than are its own.
    fn hold<C: RowConsumer>(&mut self, rest: &mut Bytes, consumer: &mut C) -> std::result::Result<(), C::Failure> {
        let Some(extent) = self.extent(&self.held)? else {
            self.held.extend_from_slice(&rest.split_to(1));
            return Ok(());
        };
        let Extent { prefix, whole } = extent;
        let wanted = if self.long == Long::NotAsked { extent.head() } else { whole };
        let missing = wanted.saturating_sub(self.held.len());
        self.held.reserve(missing);
        self.held.extend_from_slice(&rest.split_to(missing.min(rest.len())));
        if self.held.len() < wanted {
            return Ok(());
        }
        if wanted == whole {
            let row = std::mem::take(&mut self.held);
            self.long = Long::NotAsked;
            return consumer.row(&row[prefix..]);
        }
        self.long = if consumer.begin_long_row(&self.held[prefix..], whole - prefix)? {
            self.held = BytesMut::new();
            Long::InPieces { left: whole - wanted }
        } else {
            Long::Assembled
        };
        Ok(())
    }

    /// How long the row at the front is; `None` if more bytes are needed to know.
    fn extent(&self, bytes: &[u8]) -> Result<Option<Extent>> {
        let Some((length, prefix)) = peek_length(bytes)? else { return Ok(None) };
        if length > self.row_bytes_max {
            return Err(Error::new(Code::LimitExceeded, "row over the limit"));
        }
        Ok(Some(Extent { prefix, whole: prefix + length }))
    }

    /// How long the row is that is being assembled, as far as is known.
    pub fn incomplete_row_bytes(&self) -> usize {
        self.extent(&self.held).ok().flatten().map_or(self.held.len(), |extent| extent.whole)
    }

    /// Whether every row so far is complete.
    pub fn is_between_rows(&self) -> bool {
        self.held.is_empty() && self.long == Long::NotAsked
    }

    /// Ends the part. Fails with `RowMalformed` inside a row.
    pub fn finish(self) -> Result<()> {
        if self.is_between_rows() { Ok(()) } else { Err(malformed("part ends inside a row")) }
    }
}
