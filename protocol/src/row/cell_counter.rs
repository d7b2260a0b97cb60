//! Checking the cells of a row that is not assembled.

use super::{FORMAT_NULL, LENGTH_BYTES_MAX, malformed, peek_length};
use crate::error::Result;

/// Checks that a row, given in pieces, has exactly so many cells. It holds none of their bytes.
pub struct CellCounter {
    cells_left: usize,
    /// Bytes that are left of the cell before.
    skip: usize,
    /// What has come of a cell before its bytes: the format, and some of the length.
    head: Vec<u8>,
}

impl CellCounter {
    /// For a row of so many cells, of which nothing has come.
    pub fn new(cells: usize) -> Self {
        Self { cells_left: cells, skip: 0, head: Vec::with_capacity(1 + LENGTH_BYTES_MAX) }
    }

    /// Takes the next piece. Fails with `RowMalformed` for a cell too many, or a length in another
    /// than its shortest form.
    pub fn feed(&mut self, mut piece: &[u8]) -> Result<()> {
        loop {
            let skipped = self.skip.min(piece.len());
            self.skip -= skipped;
            let Some((&next, rest)) = piece[skipped..].split_first() else { return Ok(()) };
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
                self.skip = bytes;
                self.cells_left -= 1;
                self.head.clear();
            }
        }
    }

    /// Ends the row. Fails with `RowMalformed` before the end of its last cell.
    pub fn finish(self) -> Result<()> {
        match self.cells_left == 0 && self.skip == 0 {
            true => Ok(()),
            false => Err(malformed("fewer cells than columns")),
        }
    }
}
