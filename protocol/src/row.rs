//! Rows of a table as bytes of a part (`docs/protocol.md`, section 6.1).
//!
//! A row is a length and that many bytes of cells, in the order of the table's columns. A row may
//! begin in one chunk and end in a later one. Lengths are unsigned LEB128, at most 5 bytes.
//!
//! | cell | bytes |
//! |---|---|
//! | NULL | the byte 0 |
//! | any other | its format, a byte from 1 to 255; a length; as many bytes |
//!
//! The engine defines the formats. It gives each value one encoding, since rows are digested as
//! they are encoded.

mod cell_reader;
mod reader;

use bytes::{Buf, BufMut, BytesMut};

pub use self::{
    cell_reader::{CellPart, CellReader},
    reader::{LONG_ROW_HEAD_BYTES, RowConsumer, RowReader},
};
use crate::{
    close::Code,
    error::{Error, Result},
    limits::COLUMNS_MAX,
};

/// One value of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell<'a> {
    /// The engine's number for the format of the bytes; 0 for NULL.
    pub format: u8,
    /// Empty for NULL.
    pub bytes: &'a [u8],
}

const FORMAT_NULL: u8 = 0;

impl Cell<'_> {
    /// The cell that stands for SQL's NULL.
    pub const NULL: Cell<'static> = Cell { format: FORMAT_NULL, bytes: &[] };

    /// Whether the format is 0.
    pub fn is_null(&self) -> bool {
        self.format == FORMAT_NULL
    }

    /// The length of its encoding.
    pub fn encoded_bytes(&self) -> usize {
        let length = self.bytes.len();
        let length_bytes = (usize::BITS - length.leading_zeros()).div_ceil(7).max(1) as usize;
        if self.is_null() { 1 } else { 1 + length_bytes + length }
    }
}

/// A LEB128 length below 2^35 has at most this many bytes.
const LENGTH_BYTES_MAX: usize = 5;

/// Appends a cell's encoding.
pub fn put_cell(out: &mut BytesMut, cell: Cell<'_>) {
    put_cell_head(out, cell.format, cell.bytes.len());
    out.put_slice(cell.bytes);
}

/// Appends what is in a cell's encoding before its bytes, which are so many.
pub fn put_cell_head(out: &mut BytesMut, format: u8, bytes: usize) {
    out.put_u8(format);
    if format != FORMAT_NULL {
        put_length(out, bytes);
    }
}

/// Appends a length as unsigned LEB128.
pub fn put_length(out: &mut BytesMut, mut length: usize) {
    while length >= 0x80 {
        out.put_u8(length as u8 | 0x80);
        length >>= 7;
    }
    out.put_u8(length as u8);
}

/// Decodes the length at the front, and how many bytes it takes: `None` if more bytes are needed,
/// `RowMalformed` if it is not in its shortest form.
fn peek_length(bytes: &[u8]) -> Result<Option<(usize, usize)>> {
    let mut length = 0usize;
    for (place, &byte) in bytes.iter().take(LENGTH_BYTES_MAX).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            if byte == 0 && place > 0 {
                return Err(malformed("length is not in its shortest form"));
            }
            return Ok(Some((length, place + 1)));
        }
    }
    if bytes.len() >= LENGTH_BYTES_MAX { Err(malformed("length over 5 bytes")) } else { Ok(None) }
}

fn malformed(check: &'static str) -> Error {
    Error::new(Code::RowMalformed, check)
}

/// Decodes one row and passes each cell to `on_cell`. Fails with `RowMalformed` unless the row has
/// exactly `columns` cells, or with the error of `on_cell`.
pub fn read_cells<'a>(
    mut row: &'a [u8],
    columns: usize,
    mut on_cell: impl FnMut(Cell<'a>) -> Result<()>,
) -> Result<()> {
    debug_assert!(columns <= COLUMNS_MAX);
    for _ in 0..columns {
        on_cell(take_cell(&mut row)?)?;
    }
    if row.is_empty() { Ok(()) } else { Err(malformed("more cells than columns")) }
}

/// A cell of which only the beginning is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongCell {
    /// Its format; not that of NULL.
    pub format: u8,
    /// Where its bytes begin in the row.
    pub at: usize,
    /// How many they are.
    pub bytes: usize,
}

/// Decodes the beginning of a row of `columns` cells, and passes all cells but the last to
/// `on_cell`. Returns what is known of the last, or `None` if more of the row is needed for that,
/// or the last is NULL. Fails with `RowMalformed`, or with the error of `on_cell`.
pub fn read_head<'a>(
    head: &'a [u8],
    columns: usize,
    mut on_cell: impl FnMut(Cell<'a>) -> Result<()>,
) -> Result<Option<LongCell>> {
    let mut rest = head;
    for _ in 1..columns {
        // What is malformed is found again once the row is whole.
        let Ok(cell) = take_cell(&mut rest) else { return Ok(None) };
        on_cell(cell)?;
    }
    let Some((&format, after)) = rest.split_first().filter(|(format, _)| **format != FORMAT_NULL) else {
        return Ok(None);
    };
    let Some((bytes, prefix)) = peek_length(after)? else { return Ok(None) };
    Ok(Some(LongCell { format, at: head.len() - after.len() + prefix, bytes }))
}

fn take_cell<'a>(row: &mut &'a [u8]) -> Result<Cell<'a>> {
    let format = row.try_get_u8().map_err(|_| malformed("fewer cells than columns"))?;
    if format == FORMAT_NULL {
        return Ok(Cell::NULL);
    }
    let (length, prefix) = peek_length(row)?.ok_or(malformed("cell cut short"))?;
    let rest = &row[prefix..];
    let (bytes, rest) = rest.split_at_checked(length).ok_or(malformed("cell cut short"))?;
    *row = rest;
    Ok(Cell { format, bytes })
}

#[cfg(test)]
mod tests;
