//! Reading the rows of a table, as both ends do: the source to send them, the target to prove them.
//!
//! `COPY ... TO STDOUT` sends each row in a message of its own, whose values become the cells of a
//! row of [`sealift_protocol::row`].

use bytes::{Buf, BufMut, Bytes, BytesMut};
use sealift_protocol::row::{Cell, put_cell};

use crate::{
    client::{Connection, Error, Result},
    document::{Format, Rows, Table},
    sql::{literal, quote, quote_qualified},
};

/// The signature of a binary COPY.
const BINARY_SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// Flags and the length of a header extension, of which there is none.
const BINARY_HEADER_REST: &[u8] = &[0; 8];

/// In place of a number of fields: no row follows.
const BINARY_END: i16 = -1;

/// The statement that reads all rows of a table, in the document's encoding and order of columns.
/// `condition` is what follows `WHERE`, for a range of them.
pub fn copy_statement(table: &Table, encoding: &str, condition: Option<&str>) -> String {
    let columns: Vec<String> = table.columns.iter().map(|column| quote(&column.name)).collect();
    let only = match table.rows {
        Rows::Own => "ONLY ",
        Rows::OfPartitions => "",
    };
    let from = quote_qualified(&table.schema, &table.name);
    let condition = condition.map(|condition| format!(" WHERE {condition}")).unwrap_or_default();
    let options = match table.format {
        Format::Binary => "FORMAT binary".to_owned(),
        Format::Text => format!("FORMAT text, ENCODING {}", literal(encoding)),
    };
    format!("COPY (SELECT {} FROM {only}{from}{condition}) TO STDOUT ({options})", columns.join(", "))
}

/// Runs a statement of [`copy_statement`], and calls `on_row` with each row, encoded and without
/// its length.
pub fn read_rows<E: From<Error>>(
    connection: &mut Connection,
    table: &Table,
    statement: &str,
    mut on_row: impl FnMut(&[u8]) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let mut messages = connection.copy_out(statement)?;
    let mut decoder = Decoder::new(table);
    while let Some(message) = messages.next()? {
        if let Some(row) = decoder.row(message)? {
            on_row(row)?;
        }
    }
    Ok(decoder.end()?)
}

/// Decodes the messages of one COPY.
pub struct Decoder {
    format: Format,
    columns: usize,
    has_begun: bool,
    has_ended: bool,
    row: BytesMut,
    /// An unescaped value.
    value: Vec<u8>,
}

impl Decoder {
    pub fn new(table: &Table) -> Self {
        Self {
            format: table.format,
            columns: table.columns.len(),
            has_begun: false,
            has_ended: false,
            row: BytesMut::new(),
            value: Vec::new(),
        }
    }

    /// The row in a message, encoded and without its length; `None` if it has none.
    pub fn row(&mut self, message: Bytes) -> Result<Option<&[u8]>> {
        self.row.clear();
        match self.format {
            Format::Text => self.text(&message)?,
            Format::Binary => {
                if !self.binary(message)? {
                    return Ok(None);
                }
            }
        }
        Ok(Some(&self.row))
    }

    /// Ends the COPY: its trailer has arrived, if it has one.
    pub fn end(self) -> Result {
        match self.format {
            Format::Binary if !self.has_ended => Err(Error::Protocol),
            _ => Ok(()),
        }
    }

    fn text(&mut self, line: &[u8]) -> Result {
        let mut rest = line.strip_suffix(b"\n").ok_or(Error::Protocol)?;
        if rest.contains(&b'\n') {
            return Err(Error::Protocol);
        }
        if self.columns == 0 {
            return if rest.is_empty() { Ok(()) } else { Err(Error::Protocol) };
        }
        for column in 0..self.columns {
            let is_last = column + 1 == self.columns;
            let end = rest.iter().position(|&byte| byte == b'\t');
            let field = match (is_last, end) {
                (true, None) => std::mem::take(&mut rest),
                (false, Some(end)) => {
                    let field = &rest[..end];
                    rest = &rest[end + 1..];
                    field
                }
                _ => return Err(Error::Protocol),
            };
            self.text_field(field)?;
        }
        Ok(())
    }

    fn text_field(&mut self, field: &[u8]) -> Result {
        let format = self.format.number();
        if field == b"\\N" {
            put_cell(&mut self.row, Cell::NULL);
        } else if field.contains(&b'\\') {
            self.value.clear();
            unescape(field, &mut self.value)?;
            put_cell(&mut self.row, Cell { format, bytes: &self.value });
        } else {
            put_cell(&mut self.row, Cell { format, bytes: field });
        }
        Ok(())
    }

    /// Whether there is a row in the message. The header comes before the first one.
    fn binary(&mut self, mut message: Bytes) -> Result<bool> {
        if !std::mem::replace(&mut self.has_begun, true) {
            let header = BINARY_SIGNATURE.len() + BINARY_HEADER_REST.len();
            if message.len() < header || message.split_to(header) != [BINARY_SIGNATURE, BINARY_HEADER_REST].concat() {
                return Err(Error::Protocol);
            }
            if message.is_empty() {
                return Ok(false);
            }
        }
        let fields = message.try_get_i16().map_err(|_| Error::Protocol)?;
        if fields == BINARY_END && message.is_empty() && !self.has_ended {
            self.has_ended = true;
            return Ok(false);
        }
        if usize::try_from(fields) != Ok(self.columns) || self.has_ended {
            return Err(Error::Protocol);
        }
        for _ in 0..self.columns {
            let length = message.try_get_i32().map_err(|_| Error::Protocol)?;
            match usize::try_from(length) {
                Ok(length) if length <= message.len() => {
                    let bytes = message.split_to(length);
                    put_cell(&mut self.row, Cell { format: self.format.number(), bytes: &bytes });
                }
                Err(_) if length == -1 => put_cell(&mut self.row, Cell::NULL),
                _ => return Err(Error::Protocol),
            }
        }
        if message.is_empty() { Ok(true) } else { Err(Error::Protocol) }
    }
}

fn unescape(field: &[u8], value: &mut Vec<u8>) -> Result {
    let mut rest = field;
    while let Some(place) = rest.iter().position(|&byte| byte == b'\\') {
        value.put_slice(&rest[..place]);
        let escaped = rest.get(place + 1).ok_or(Error::Protocol)?;
        value.push(match escaped {
            b'\\' => b'\\',
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0b,
            _ => return Err(Error::Protocol),
        });
        rest = &rest[place + 2..];
    }
    value.put_slice(rest);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Column, Generated, Persistence};

    fn table(format: Format, columns: usize) -> Table {
        let column = |place| Column { name: format!("c{place}"), type_name: "text".into(), generated: Generated::No };
        Table {
            schema: "a".into(),
            name: "b\"".into(),
            columns: (0..columns).map(column).collect(),
            format,
            persistence: Persistence::Permanent,
            rows: Rows::Own,
        }
    }

    fn decode(format: Format, columns: usize, messages: &[&[u8]]) -> Result<Vec<Vec<u8>>> {
        let mut decoder = Decoder::new(&table(format, columns));
        let mut rows = Vec::new();
        for message in messages {
            rows.extend(decoder.row(Bytes::copy_from_slice(message))?.map(<[u8]>::to_vec));
        }
        decoder.end()?;
        Ok(rows)
    }

    #[test]
    fn a_table_is_read_without_what_inherits_from_it() {
        let text = copy_statement(&table(Format::Text, 2), "LATIN1", None);
        let expected = "COPY (SELECT \"c0\", \"c1\" FROM ONLY \"a\".\"b\"\"\") TO STDOUT (FORMAT text, ENCODING E'LATIN1')";
        assert_eq!(text, expected);
        let binary = copy_statement(&table(Format::Binary, 0), "UTF8", Some("true"));
        assert_eq!(binary, "COPY (SELECT  FROM ONLY \"a\".\"b\"\"\" WHERE true) TO STDOUT (FORMAT binary)");
    }

    /// D3, D12.
    #[test]
    fn text_is_unescaped() {
        let rows = decode(Format::Text, 2, &[b"a\\t\\\\N\t\\N\n", b"\t\\b\\v\\f\\r\\nx\n"]).unwrap();
        assert_eq!(rows, [b"\x01\x04a\t\\N\0".to_vec(), b"\x01\0\x01\x06\x08\x0b\x0c\r\nx".to_vec()]);
        assert_eq!(decode(Format::Text, 0, &[b"\n", b"\n"]).unwrap(), [[0u8; 0]; 2]);
    }

    #[test]
    fn binary_is_read() {
        let header = [BINARY_SIGNATURE, BINARY_HEADER_REST].concat();
        let row = b"\0\x02\0\0\0\x02xy\xff\xff\xff\xff";
        let first = [&header[..], row].concat();
        let rows = decode(Format::Binary, 2, &[&first, row, b"\xff\xff"]).unwrap();
        assert_eq!(rows, [b"\x02\x02xy\0", b"\x02\x02xy\0"]);
        assert_eq!(decode(Format::Binary, 2, &[&header, b"\xff\xff"]).unwrap(), [[0u8; 0]; 0]);
        assert!(decode(Format::Binary, 2, &[&first]).is_err(), "no end");
    }

    /// D10: a hostile server sends what is no row of the table.
    #[test]
    fn what_is_no_row_is_refused() {
        for line in [&b"a\tb\tc\n"[..], b"a\n", b"a\tb", b"a\tb\\\n", b"a\t\\x41\n", b"a\tb\na\tb\n", b""] {
            assert!(decode(Format::Text, 2, &[line]).is_err(), "{line:?}");
        }
        let header = [BINARY_SIGNATURE, BINARY_HEADER_REST].concat();
        for row in [&b"\0\x01\0\0\0\x01x"[..], b"\0\x02\0\0\0\x09xy", b"\0\x02\xff\xff\xff\xfe\0\0\0\0", b"\0\x02"] {
            assert!(decode(Format::Binary, 2, &[&[&header[..], row].concat(), b"\xff\xff"]).is_err(), "{row:?}");
        }
        assert!(decode(Format::Binary, 2, &[b"PGCOPY", b"\xff\xff"]).is_err());
    }
}
