//! Rows of a table as bytes of a part.
//!
//! A row is a length and that many bytes of values; a value is a tag and its content. Lengths are unsigned LEB128, at
//! most 5 bytes. A row may begin in one chunk and end in a later one.
//!
//! | tag | value | content |
//! |---|---|---|
//! | 0 | NULL | |
//! | 1 | integer | 8 bytes, two's complement, big-endian |
//! | 2 | real | 8 bytes, IEEE 754 binary64, big-endian; every bit pattern |
//! | 3 | text | length, then bytes as the source stores them (not necessarily UTF-8) |
//! | 4 | blob | length, then bytes |

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{
    close::Code,
    error::{Error, Result},
    limits::COLUMNS_MAX,
};

/// One value, borrowed from where it lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    Null,
    Integer(i64),
    Real(f64),
    Text(&'a [u8]),
    Blob(&'a [u8]),
}

const TAG_NULL: u8 = 0;
const TAG_INTEGER: u8 = 1;
const TAG_REAL: u8 = 2;
const TAG_TEXT: u8 = 3;
const TAG_BLOB: u8 = 4;

/// A LEB128 length below 2^35 has at most this many bytes.
const LENGTH_BYTES_MAX: usize = 5;

/// Appends a value's encoding.
pub fn put_value(out: &mut BytesMut, value: Value<'_>) {
    match value {
        Value::Null => out.put_u8(TAG_NULL),
        Value::Integer(integer) => {
            out.put_u8(TAG_INTEGER);
            out.put_i64(integer);
        }
        Value::Real(real) => {
            out.put_u8(TAG_REAL);
            out.put_u64(real.to_bits());
        }
        Value::Text(bytes) => put_bytes(out, TAG_TEXT, bytes),
        Value::Blob(bytes) => put_bytes(out, TAG_BLOB, bytes),
    }
}

/// How long a value's encoding is.
pub fn value_bytes(value: Value<'_>) -> usize {
    let length_bytes = |length: usize| (usize::BITS - length.leading_zeros()).div_ceil(7).max(1) as usize;
    match value {
        Value::Null => 1,
        Value::Integer(_) | Value::Real(_) => 9,
        Value::Text(bytes) | Value::Blob(bytes) => 1 + length_bytes(bytes.len()) + bytes.len(),
    }
}

fn put_bytes(out: &mut BytesMut, tag: u8, bytes: &[u8]) {
    out.put_u8(tag);
    put_length(out, bytes.len());
    out.put_slice(bytes);
}

/// Appends a length.
pub fn put_length(out: &mut BytesMut, mut length: usize) {
    while length >= 0x80 {
        out.put_u8(length as u8 | 0x80);
        length >>= 7;
    }
    out.put_u8(length as u8);
}

/// Reads a length off the front: `None` if more bytes are needed, an error if no encoder writes this.
fn peek_length(bytes: &[u8]) -> Result<Option<(usize, usize)>> {
    let mut length = 0usize;
    for (place, &byte) in bytes.iter().take(LENGTH_BYTES_MAX).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            if byte == 0 && place > 0 {
                return Err(malformed("length is spelt too long"));
            }
            return Ok(Some((length, place + 1)));
        }
    }
    if bytes.len() >= LENGTH_BYTES_MAX { Err(malformed("length over 5 bytes")) } else { Ok(None) }
}

fn malformed(check: &'static str) -> Error {
    Error::new(Code::RowMalformed, check)
}

/// Decodes the values of one row into `values`, which must come out exactly `columns` long.
pub fn read_values<'a>(mut row: &'a [u8], columns: usize, values: &mut Vec<Value<'a>>) -> Result<()> {
    debug_assert!(columns <= COLUMNS_MAX);
    values.clear();
    for _ in 0..columns {
        values.push(take_value(&mut row)?);
    }
    if row.is_empty() { Ok(()) } else { Err(malformed("more values than columns")) }
}

/// Whether a row is exactly `columns` values.
pub fn check_values(mut row: &[u8], columns: usize) -> Result<()> {
    for _ in 0..columns {
        take_value(&mut row)?;
    }
    if row.is_empty() { Ok(()) } else { Err(malformed("more values than columns")) }
}

fn take_value<'a>(row: &mut &'a [u8]) -> Result<Value<'a>> {
    let tag = row.try_get_u8().map_err(|_| malformed("fewer values than columns"))?;
    let short = |_| malformed("value cut short");
    Ok(match tag {
        TAG_NULL => Value::Null,
        TAG_INTEGER => Value::Integer(row.try_get_i64().map_err(short)?),
        TAG_REAL => Value::Real(f64::from_bits(row.try_get_u64().map_err(short)?)),
        TAG_TEXT => Value::Text(take_bytes(row)?),
        TAG_BLOB => Value::Blob(take_bytes(row)?),
        _ => return Err(malformed("unknown value tag")),
    })
}

fn take_bytes<'a>(row: &mut &'a [u8]) -> Result<&'a [u8]> {
    let (length, prefix) = peek_length(row)?.ok_or(malformed("value cut short"))?;
    let rest = &row[prefix..];
    let (bytes, rest) = rest.split_at_checked(length).ok_or(malformed("value cut short"))?;
    *row = rest;
    Ok(bytes)
}

/// Gathers whole rows out of the chunks of a part. Holds at most one row and one chunk.
pub struct RowReader {
    held: BytesMut,
    row_bytes_max: usize,
}

impl RowReader {
    pub fn new(row_bytes_max: usize) -> Self {
        Self { held: BytesMut::new(), row_bytes_max }
    }

    /// Calls `on_row` with the bytes of each row that `plain` completes, length prefix not included.
    pub fn feed<E: From<Error>>(
        &mut self,
        plain: Bytes,
        mut on_row: impl FnMut(&[u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let mut rest = plain;
        if !self.held.is_empty() {
            self.held.extend_from_slice(&rest);
            // A row of many chunks is gathered in place; it is looked at again only when it is whole.
            if self.row_is_incomplete()? {
                return Ok(());
            }
            rest = std::mem::take(&mut self.held).freeze();
        }
        while let Some((length, prefix)) = peek_length(&rest)? {
            if length > self.row_bytes_max {
                return Err(Error::new(Code::LimitExceeded, "row over the limit").into());
            }
            if rest.len() < prefix + length {
                // Grow once to what the row needs, not by doubling.
                self.held.reserve(prefix + length);
                break;
            }
            on_row(&rest[prefix..prefix + length])?;
            rest.advance(prefix + length);
        }
        self.held.extend_from_slice(&rest);
        Ok(())
    }

    fn row_is_incomplete(&self) -> Result<bool> {
        Ok(match peek_length(&self.held)? {
            None => true,
            Some((length, _)) if length > self.row_bytes_max => {
                return Err(Error::new(Code::LimitExceeded, "row over the limit"));
            }
            Some((length, prefix)) => self.held.len() < prefix + length,
        })
    }

    /// Whether nothing is left of what was fed: the last row is whole.
    pub fn is_between_rows(&self) -> bool {
        self.held.is_empty()
    }

    /// The part is over: nothing may be left.
    pub fn finish(self) -> Result<()> {
        if self.held.is_empty() { Ok(()) } else { Err(malformed("part ends inside a row")) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(values: &[Value<'_>]) -> BytesMut {
        let mut row = BytesMut::new();
        values.iter().for_each(|&value| put_value(&mut row, value));
        row
    }

    fn any_value() -> impl Strategy<Value = (u8, i64, Vec<u8>)> {
        (0u8..5, any::<i64>(), proptest::collection::vec(any::<u8>(), 0..300))
    }

    fn borrow((kind, integer, bytes): &(u8, i64, Vec<u8>)) -> Value<'_> {
        match kind {
            0 => Value::Null,
            1 => Value::Integer(*integer),
            2 => Value::Real(f64::from_bits(*integer as u64)),
            3 => Value::Text(bytes),
            _ => Value::Blob(bytes),
        }
    }

    proptest! {
        /// Rows come out as they went in, wherever the chunks are cut.
        #[test]
        fn rows_survive_any_cut(
            rows in proptest::collection::vec(proptest::collection::vec(any_value(), 0..6), 0..12),
            cut in 1usize..200,
        ) {
            let encoded: Vec<BytesMut> =
                rows.iter().map(|row| encode(&row.iter().map(borrow).collect::<Vec<_>>())).collect();
            let mut stream = BytesMut::new();
            for row in &encoded {
                put_length(&mut stream, row.len());
                stream.extend_from_slice(row);
            }
            let mut reader = RowReader::new(ROW_BYTES_MAX_IN_TEST);
            let mut got = Vec::new();
            for piece in stream.chunks(cut) {
                reader.feed(Bytes::copy_from_slice(piece), |row| -> Result<()> { got.push(row.to_vec()); Ok(()) })?;
            }
            reader.finish()?;
            prop_assert_eq!(&got, &encoded);
            for (bytes, row) in got.iter().zip(&rows) {
                let mut values = Vec::new();
                read_values(bytes, row.len(), &mut values)?;
                prop_assert_eq!(encode(&values), bytes.as_slice());
                prop_assert!(read_values(bytes, row.len() + 1, &mut values).is_err());
            }
        }

        #[test]
        fn garbage_is_an_error_or_rows_but_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut values = Vec::new();
            let _ = read_values(&bytes, 3, &mut values);
            let mut reader = RowReader::new(ROW_BYTES_MAX_IN_TEST);
            let _ = reader.feed(Bytes::from(bytes), |_| -> Result<()> { Ok(()) });
        }
    }

    #[test]
    fn lengths_are_known_before_the_encoding() {
        let bytes = vec![7; 1 << 21];
        let blobs = [0, 1, 127, 128, (1 << 14) - 1, 1 << 14, (1 << 21) - 1, 1 << 21].map(|length| &bytes[..length]);
        let blobs = blobs.map(Value::Blob).into_iter().chain(blobs.map(Value::Text));
        for value in blobs.chain([Value::Null, Value::Integer(-1), Value::Real(0.5)]) {
            assert_eq!(value_bytes(value), encode(&[value]).len());
        }
    }

    const ROW_BYTES_MAX_IN_TEST: usize = 1 << 16;

    #[test]
    fn a_row_over_the_limit_is_refused_before_it_is_gathered() {
        let mut stream = BytesMut::new();
        put_length(&mut stream, ROW_BYTES_MAX_IN_TEST + 1);
        let got = RowReader::new(ROW_BYTES_MAX_IN_TEST).feed(stream.freeze(), |_| -> Result<()> { Ok(()) });
        assert_eq!(got.map_err(|error| error.code), Err(Code::LimitExceeded));
    }
}
