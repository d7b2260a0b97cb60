//! Reading the cells of a row that is not assembled.

use super::{FORMAT_NULL, LENGTH_BYTES_MAX, malformed, peek_length};
use crate::error::Result;

/// What comes next in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CellPart<'a> {
    /// A cell begins. Its bytes follow, in as many pieces as they come in.
    Begin {
        /// The engine's number for the format of the bytes; 0 for NULL.
        format: u8,
        /// How many bytes follow; 0 for NULL.
        bytes: usize,
    },
    /// The next bytes of the cell that has begun.
    Bytes(&'a [u8]),
}

/// Reads the cells of one row that is given in pieces. It holds none of their bytes.
pub struct CellReader {
    cells_left: usize,
    /// Bytes that are left of the cell that has begun.
    bytes_left: usize,
    /// What has come of a cell before its bytes: the format, and some of the length.
    head: Vec<u8>,
}

impl CellReader {
    /// For a row of so many cells, of which nothing has come.
    pub fn new(cells: usize) -> Self {
        Self { cells_left: cells, bytes_left: 0, head: Vec::with_capacity(1 + LENGTH_BYTES_MAX) }
    }

    /// Takes the next piece of the row, and passes what is in it to `on_part`. Fails with
    /// `RowMalformed` for a cell too many, or a length in another than its shortest form, or with
    /// the error of `on_part`.
    pub fn feed<'a>(&mut self, mut piece: &'a [u8], mut on_part: impl FnMut(CellPart<'a>) -> Result<()>) -> Result<()> {
        loop {
            let (bytes, rest) = piece.split_at(self.bytes_left.min(piece.len()));
            if !bytes.is_empty() {
                self.bytes_left -= bytes.len();
                on_part(CellPart::Bytes(bytes))?;
            }
            let Some((&next, rest)) = rest.split_first() else { return Ok(()) };
            piece = rest;
            if self.cells_left == 0 {
                return Err(malformed("more cells than columns"));
            }
            self.head.push(next);
            let bytes = match self.head[..] {
                [FORMAT_NULL] => Some(0),
                [_] => None,
                _ => peek_length(&self.head[1..])?.map(|(bytes, _)| bytes),
            };
            if let Some(bytes) = bytes {
                on_part(CellPart::Begin { format: self.head[0], bytes })?;
                self.bytes_left = bytes;
                self.cells_left -= 1;
                self.head.clear();
            }
        }
    }

    /// Ends the row. Fails with `RowMalformed` before the end of its last cell.
    pub fn finish(self) -> Result<()> {
        match self.cells_left == 0 && self.bytes_left == 0 {
            true => Ok(()),
            false => Err(malformed("fewer cells than columns")),
        }
    }
}
