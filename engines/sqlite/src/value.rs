//! SQLite's values as cells of a row.
//!
//! | format | storage class | bytes |
//! |---|---|---|
//! | 0 | NULL | |
//! | 1 | INTEGER | 1 to 8: two's complement, big-endian, as few as hold it |
//! | 2 | REAL | 8: IEEE 754 binary64, big-endian; every bit pattern |
//! | 3 | TEXT | as the database stores them, in its encoding, valid in it or not |
//! | 4 | BLOB | as they are |

use bytes::BytesMut;
use rusqlite::types::ValueRef;
use sealift_protocol::{
    close::Code,
    error::{Error, Result},
    row::{Cell, put_cell, put_cell_head, read_cells},
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

const FORMAT_INTEGER: u8 = 1;
const FORMAT_REAL: u8 = 2;
pub const FORMAT_TEXT: u8 = 3;
pub const FORMAT_BLOB: u8 = 4;

impl<'a> Value<'a> {
    /// Calls `with` with the cell that holds it.
    fn as_cell<T>(self, with: impl FnOnce(Cell<'_>) -> T) -> T {
        match self {
            Value::Null => with(Cell::NULL),
            Value::Integer(integer) => {
                let bytes = integer.to_be_bytes();
                with(Cell { format: FORMAT_INTEGER, bytes: &bytes[spare_bytes(bytes)..] })
            }
            Value::Real(real) => with(Cell { format: FORMAT_REAL, bytes: &real.to_bits().to_be_bytes() }),
            Value::Text(bytes) => with(Cell { format: FORMAT_TEXT, bytes }),
            Value::Blob(bytes) => with(Cell { format: FORMAT_BLOB, bytes }),
        }
    }

    pub fn from_cell(cell: Cell<'a>) -> Result<Self> {
        Ok(match cell.format {
            _ if cell.is_null() => Value::Null,
            FORMAT_INTEGER => Value::Integer(integer(cell.bytes)?),
            FORMAT_REAL => {
                let bytes = cell.bytes.try_into().map_err(|_| malformed("length of a REAL"))?;
                Value::Real(f64::from_bits(u64::from_be_bytes(bytes)))
            }
            FORMAT_TEXT => Value::Text(cell.bytes),
            FORMAT_BLOB => Value::Blob(cell.bytes),
            _ => return Err(malformed("unknown format of a cell")),
        })
    }
}

impl<'a> From<ValueRef<'a>> for Value<'a> {
    fn from(value: ValueRef<'a>) -> Self {
        match value {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(integer) => Value::Integer(integer),
            ValueRef::Real(real) => Value::Real(real),
            ValueRef::Text(bytes) => Value::Text(bytes),
            ValueRef::Blob(bytes) => Value::Blob(bytes),
        }
    }
}

/// How many leading bytes only repeat the sign.
fn spare_bytes(bytes: [u8; 8]) -> usize {
    let integer = i64::from_be_bytes(bytes);
    let repeated_bits = if integer < 0 { integer.leading_ones() } else { integer.leading_zeros() };
    // One of them is the sign.
    (repeated_bits - 1) as usize / 8
}

fn integer(bytes: &[u8]) -> Result<i64> {
    let first = *bytes.first().ok_or(malformed("length of an INTEGER"))?;
    let fill = if first & 0x80 == 0 { 0 } else { 0xff };
    let mut whole = [fill; 8];
    let spare = 8usize.checked_sub(bytes.len()).ok_or(malformed("length of an INTEGER"))?;
    whole[spare..].copy_from_slice(bytes);
    // Rows are digested as they are encoded: there is one encoding.
    if spare_bytes(whole) == spare { Ok(i64::from_be_bytes(whole)) } else { Err(malformed("length of an INTEGER")) }
}

fn malformed(check: &'static str) -> Error {
    Error::new(Code::RowMalformed, check)
}

/// Appends a value's encoding.
pub fn put_value(out: &mut BytesMut, value: Value<'_>) {
    value.as_cell(|cell| put_cell(out, cell));
}

/// How long a value's encoding is.
pub fn value_bytes(value: Value<'_>) -> usize {
    value.as_cell(|cell| cell.encoded_bytes())
}

/// Decodes the values of one row into `values`, which must come out exactly `columns` long.
pub fn read_values<'a>(row: &'a [u8], columns: usize, values: &mut Vec<Value<'a>>) -> Result<()> {
    values.clear();
    read_cells(row, columns, |cell| {
        values.push(Value::from_cell(cell)?);
        Ok(())
    })
}

/// The encoding of one row, whose large values stay where the engine has them.
pub struct EncodedRow<'a> {
    /// All but the bytes of large values.
    copied: &'a mut BytesMut,
    borrowed: Vec<Borrowed<'a>>,
}

/// The bytes of a large value, and how much of what was copied comes before them.
struct Borrowed<'a> {
    at: usize,
    bytes: &'a [u8],
}

/// Values from this length on are not copied. Less would cost more than it saves: a row in several
/// pieces is hashed by a hasher that takes some time to set up.
const BORROWED_BYTES_MIN: usize = 64 << 10;

impl<'a> EncodedRow<'a> {
    /// A row without values, which will be in `copied`.
    pub fn new(copied: &'a mut BytesMut) -> Self {
        copied.clear();
        Self { copied, borrowed: Vec::new() }
    }

    /// Appends a value.
    pub fn put(&mut self, value: Value<'a>) {
        match value {
            Value::Text(bytes) | Value::Blob(bytes) if bytes.len() >= BORROWED_BYTES_MIN => {
                value.as_cell(|cell| put_cell_head(self.copied, cell.format, bytes.len()));
                self.borrowed.push(Borrowed { at: self.copied.len(), bytes });
            }
            _ => put_value(self.copied, value),
        }
    }

    /// Calls `with` with the pieces of the encoding, in their order.
    pub fn with_pieces<T>(&self, with: impl FnOnce(&[&[u8]]) -> T) -> T {
        if self.borrowed.is_empty() {
            return with(&[self.copied]);
        }
        let mut pieces = Vec::with_capacity(2 * self.borrowed.len() + 1);
        let mut copied_to = 0;
        for Borrowed { at, bytes } in &self.borrowed {
            pieces.push(&self.copied[copied_to..*at]);
            pieces.push(*bytes);
            copied_to = *at;
        }
        pieces.push(&self.copied[copied_to..]);
        with(&pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(value: Value<'_>) -> Vec<u8> {
        let mut row = BytesMut::new();
        put_value(&mut row, value);
        row.to_vec()
    }

    #[test]
    fn integers_take_as_few_bytes_as_hold_them() {
        for (integer, bytes) in [
            (0, 1),
            (127, 1),
            (128, 2),
            (-128, 1),
            (-129, 2),
            (-1, 1),
            (32767, 2),
            (32768, 3),
            (i64::from(i32::MIN), 4),
            (1 << 55, 8),
            ((1 << 55) - 1, 7),
            (i64::MAX, 8),
            (i64::MIN, 8),
        ] {
            let row = encode(Value::Integer(integer));
            assert_eq!(row.len(), 2 + bytes, "{integer}");
            let mut values = Vec::new();
            read_values(&row, 1, &mut values).unwrap();
            assert_eq!(values, [Value::Integer(integer)]);
        }
    }

    #[test]
    fn each_value_has_one_encoding() {
        let refused = |row: &[u8]| read_values(row, 1, &mut Vec::new()).unwrap_err().check;
        assert_eq!(refused(&[1, 0]), "length of an INTEGER");
        assert_eq!(refused(&[1, 2, 0, 1]), "length of an INTEGER");
        assert_eq!(refused(&[1, 2, 0xff, 0x80]), "length of an INTEGER");
        assert_eq!(refused(&[1, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0]), "length of an INTEGER");
        assert_eq!(refused(&[2, 4, 0, 0, 0, 0]), "length of a REAL");
        assert_eq!(refused(&[5, 0]), "unknown format of a cell");
    }

    #[test]
    fn values_survive_and_their_lengths_are_known() {
        let long = vec![7; 20_000];
        let values =
            [Value::Null, Value::Integer(-70_000), Value::Real(-0.0), Value::Text(b"\xff\0"), Value::Blob(&long)];
        let mut row = BytesMut::new();
        values.iter().for_each(|&value| put_value(&mut row, value));
        assert_eq!(row.len(), values.iter().map(|&value| value_bytes(value)).sum::<usize>());
        let mut read = Vec::new();
        read_values(&row, values.len(), &mut read).unwrap();
        assert_eq!(read, values);
        assert!(matches!(read[2], Value::Real(real) if real.is_sign_negative()));
    }
}
