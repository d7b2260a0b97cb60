//! Rows as `COPY ... FROM STDIN` takes them.
//!
//! A row of the wire has the stored columns, those that are generated among them; these are left
//! out here, since the target computes them itself.

use bytes::{BufMut, BytesMut};
use sealift_protocol::{
    close::Code,
    error::{Error, Result},
    row::{Cell, read_cells},
};

use crate::document::{Format, Generated, Table};

/// The signature, no flags, and no header extension.
const BINARY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// In place of a number of fields: no row follows.
const BINARY_TRAILER: [u8; 2] = (-1i16).to_be_bytes();

/// The length of a field that is NULL.
const BINARY_NULL: i32 = -1;

/// Encodes the rows of one table.
pub struct Encoder {
    format: Format,
    /// For each column, whether it is loaded.
    loaded: Vec<bool>,
    /// How many of them are.
    fields: i16,
}

impl Encoder {
    pub fn new(table: &Table) -> Self {
        let loaded: Vec<bool> = table.columns.iter().map(|column| column.generated == Generated::No).collect();
        // At most `COLUMNS_MAX`, which the document was checked against.
        let fields = loaded.iter().filter(|loaded| **loaded).count() as i16;
        Self { format: table.format, loaded, fields }
    }

    /// What comes before the first row.
    pub fn begin(&self, out: &mut BytesMut) {
        if self.format == Format::Binary {
            out.put_slice(BINARY_HEADER);
        }
    }

    /// What comes after the last one.
    pub fn end(&self, out: &mut BytesMut) {
        if self.format == Format::Binary {
            out.put_slice(&BINARY_TRAILER);
        }
    }

    /// Appends one row. Fails with `RowMalformed` if it is none of the table.
    pub fn row(&self, row: &[u8], out: &mut BytesMut) -> Result<()> {
        if self.format == Format::Binary {
            out.put_i16(self.fields);
        }
        let mut loaded = self.loaded.iter();
        let mut is_first = true;
        read_cells(row, self.loaded.len(), |cell| {
            if !cell.is_null() && cell.format != self.format.number() {
                return Err(Error::new(Code::RowMalformed, "format of a cell"));
            }
            if loaded.next() != Some(&true) {
                return Ok(());
            }
            match self.format {
                Format::Binary => put_binary(cell, out)?,
                Format::Text => {
                    if !std::mem::take(&mut is_first) {
                        out.put_u8(b'\t');
                    }
                    put_text(cell, out);
                }
            }
            Ok(())
        })?;
        if self.format == Format::Text {
            out.put_u8(b'\n');
        }
        Ok(())
    }
}

fn put_binary(cell: Cell<'_>, out: &mut BytesMut) -> Result<()> {
    if cell.is_null() {
        out.put_i32(BINARY_NULL);
        return Ok(());
    }
    let length = i32::try_from(cell.bytes.len()).map_err(|_| Error::new(Code::RowMalformed, "length of a cell"))?;
    out.put_i32(length);
    out.put_slice(cell.bytes);
    Ok(())
}

/// Encodings of a server have no byte below 0x80 within a character, so that bytes can be escaped
/// whatever the encoding is.
fn put_text(cell: Cell<'_>, out: &mut BytesMut) {
    if cell.is_null() {
        out.put_slice(b"\\N");
        return;
    }
    let mut rest = cell.bytes;
    while let Some(place) = rest.iter().position(|&byte| escape(byte).is_some()) {
        out.put_slice(&rest[..place]);
        out.put_slice(&[b'\\', escape(rest[place]).unwrap_or(rest[place])]);
        rest = &rest[place + 1..];
    }
    out.put_slice(rest);
}

/// What stands after the backslash for a byte that does not stand for itself.
fn escape(byte: u8) -> Option<u8> {
    Some(match byte {
        b'\\' => b'\\',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0b => b'v',
        0x0c => b'f',
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use sealift_protocol::row::put_cell;

    use super::*;
    use crate::document::{Column, Persistence, Rows};

    fn table(format: Format) -> Table {
        let column = |name: &str, generated| Column { name: name.into(), type_name: "text".into(), generated };
        Table {
            schema: "public".into(),
            name: "t".into(),
            columns: vec![column("a", Generated::No), column("b", Generated::Stored), column("c", Generated::No)],
            format,
            persistence: Persistence::Permanent,
            rows: Rows::Own,
        }
    }

    fn row(cells: &[Option<&[u8]>], format: u8) -> BytesMut {
        let mut row = BytesMut::new();
        for cell in cells {
            put_cell(&mut row, cell.map_or(Cell::NULL, |bytes| Cell { format, bytes }));
        }
        row
    }

    fn encode(table: &Table, rows: &[BytesMut]) -> Result<Vec<u8>> {
        let encoder = Encoder::new(table);
        let mut out = BytesMut::new();
        encoder.begin(&mut out);
        rows.iter().try_for_each(|row| encoder.row(row, &mut out))?;
        encoder.end(&mut out);
        Ok(out.to_vec())
    }

    /// D3: what means something to COPY arrives as a value.
    #[test]
    fn text_is_escaped_and_generated_columns_are_left_out() {
        let rows = [
            row(&[Some(b"a\tb\\.\r\n"), Some(b"generated"), None], 1),
            row(&[Some(b"\\N"), None, Some(b"")], 1),
            row(&[Some("é\u{8}\u{b}\u{c}".as_bytes()), None, Some(b"\\.")], 1),
        ];
        let expected = "a\\tb\\\\.\\r\\n\t\\N\n\\\\N\t\né\\b\\v\\f\t\\\\.\n";
        assert_eq!(encode(&table(Format::Text), &rows).unwrap(), expected.as_bytes());
    }

    #[test]
    fn binary_has_lengths() {
        let rows = [row(&[Some(b"xy"), Some(b"z"), None], 2)];
        let expected = [BINARY_HEADER, b"\0\x02\0\0\0\x02xy\xff\xff\xff\xff", b"\xff\xff"].concat();
        assert_eq!(encode(&table(Format::Binary), &rows).unwrap(), expected);
    }

    #[test]
    fn what_is_no_row_of_the_table_is_refused() {
        let refused = |row: BytesMut| encode(&table(Format::Text), &[row]).map_err(|error| error.code);
        assert_eq!(refused(row(&[Some(b"a"), None, Some(b"c")], 2)), Err(Code::RowMalformed));
        assert_eq!(refused(row(&[None, None], 1)), Err(Code::RowMalformed));
        assert_eq!(refused(row(&[None, None, None, None], 1)), Err(Code::RowMalformed));
    }
}
