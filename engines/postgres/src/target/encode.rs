//! Rows as `COPY ... FROM STDIN` takes them.
//!
//! A row of the wire has the stored columns, those that are generated among them; these are left
//! out here, since the target computes them itself.

use bytes::{BufMut, BytesMut};
use sealift_protocol::{
    close::Code,
    error::{Error, Result},
    row::{CellPart, CellReader, read_cells},
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
    /// Of the row that is encoded in pieces.
    long: Option<(CellReader, Fields)>,
}

/// Where in a row it is.
#[derive(Clone, Copy, Default)]
struct Fields {
    /// Cells that have begun.
    begun: usize,
    /// Fields that have: those of them that are loaded.
    written: usize,
    /// Whether the last of them is.
    is_loaded: bool,
}

impl Encoder {
    pub fn new(table: &Table) -> Self {
        let loaded: Vec<bool> = table.columns.iter().map(|column| column.generated == Generated::No).collect();
        // At most `COLUMNS_MAX`, which the document was checked against.
        let fields = loaded.iter().filter(|loaded| **loaded).count() as i16;
        Self { format: table.format, loaded, fields, long: None }
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
        let mut fields = Fields::default();
        self.begin_row(out);
        read_cells(row, self.loaded.len(), |cell| {
            self.put(CellPart::Begin { format: cell.format, bytes: cell.bytes.len() }, &mut fields, out)?;
            self.put(CellPart::Bytes(cell.bytes), &mut fields, out)
        })?;
        self.end_row(out);
        Ok(())
    }

    /// Begins a row that is encoded as it comes, so that it is never whole in memory.
    pub fn begin_long_row(&mut self, out: &mut BytesMut) {
        self.begin_row(out);
        self.long = Some((CellReader::new(self.loaded.len()), Fields::default()));
    }

    /// Appends what comes next of it. Fails with `RowMalformed` as [`Encoder::row`] does.
    pub fn long_row_piece(&mut self, piece: &[u8], is_last: bool, out: &mut BytesMut) -> Result<()> {
        let Some((mut reader, mut fields)) = self.long.take() else { return Ok(()) };
        reader.feed(piece, |part| self.put(part, &mut fields, out))?;
        if is_last {
            reader.finish()?;
            self.end_row(out);
        } else {
            self.long = Some((reader, fields));
        }
        Ok(())
    }

    fn begin_row(&self, out: &mut BytesMut) {
        if self.format == Format::Binary {
            out.put_i16(self.fields);
        }
    }

    fn end_row(&self, out: &mut BytesMut) {
        if self.format == Format::Text {
            out.put_u8(b'\n');
        }
    }

    fn put(&self, part: CellPart<'_>, fields: &mut Fields, out: &mut BytesMut) -> Result<()> {
        match part {
            CellPart::Begin { format, bytes } => {
                let is_null = format == 0;
                if !is_null && format != self.format.number() {
                    return Err(Error::new(Code::RowMalformed, "format of a cell"));
                }
                fields.is_loaded = self.loaded.get(fields.begun) == Some(&true);
                fields.begun += 1;
                if !fields.is_loaded {
                    return Ok(());
                }
                match self.format {
                    Format::Binary => put_length(is_null, bytes, out)?,
                    Format::Text => put_separator(fields.written == 0, is_null, out),
                }
                fields.written += 1;
            }
            CellPart::Bytes(_) if !fields.is_loaded => {}
            CellPart::Bytes(bytes) if self.format == Format::Text => put_escaped(bytes, out),
            CellPart::Bytes(bytes) => out.put_slice(bytes),
        }
        Ok(())
    }
}

fn put_length(is_null: bool, bytes: usize, out: &mut BytesMut) -> Result<()> {
    let length = i32::try_from(bytes).map_err(|_| Error::new(Code::RowMalformed, "length of a cell"))?;
    out.put_i32(if is_null { BINARY_NULL } else { length });
    Ok(())
}

fn put_separator(is_first: bool, is_null: bool, out: &mut BytesMut) {
    if !is_first {
        out.put_u8(b'\t');
    }
    if is_null {
        out.put_slice(b"\\N");
    }
}

/// Encodings of a server have no byte below 0x80 within a character, so that bytes can be escaped
/// whatever the encoding is, and wherever they are cut.
fn put_escaped(mut bytes: &[u8], out: &mut BytesMut) {
    while let Some(place) = bytes.iter().position(|&byte| escape(byte).is_some()) {
        out.put_slice(&bytes[..place]);
        out.put_slice(&[b'\\', escape(bytes[place]).unwrap_or(bytes[place])]);
        bytes = &bytes[place + 1..];
    }
    out.put_slice(bytes);
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
    use sealift_protocol::row::{Cell, put_cell};

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
            condition: None,
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
        let mut encoder = Encoder::new(table);
        let mut out = BytesMut::new();
        encoder.begin(&mut out);
        rows.iter().try_for_each(|row| encoder.row(row, &mut out))?;
        encoder.end(&mut out);
        for cut in 1..4 {
            let mut pieces = BytesMut::new();
            encoder.begin(&mut pieces);
            rows.iter().try_for_each(|row| encode_pieces(&mut encoder, row, cut, &mut pieces))?;
            encoder.end(&mut pieces);
            assert_eq!(pieces, out);
        }
        Ok(out.to_vec())
    }

    fn encode_pieces(encoder: &mut Encoder, row: &[u8], cut: usize, out: &mut BytesMut) -> Result<()> {
        encoder.begin_long_row(out);
        let last = row.chunks(cut).count() - 1;
        let mut pieces = row.chunks(cut).enumerate();
        pieces.try_for_each(|(place, piece)| encoder.long_row_piece(piece, place == last, out))
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
