//! Rows of a table as PostgreSQL's COPY has them, and as they travel.
//!
//! Both ends read a table by the same statement under the same settings ([`crate::session`]), and
//! encode what it prints by the same code, so that both digest the same bytes: the source what it
//! sends, the target what it holds. `docs/postgres.md` describes the form.

use std::ops::Range as Span;

use bytes::{Bytes, BytesMut};
use sealift_protocol::{
    failure::{Failure, Outcome},
    manifest::Range,
    row::{Cell, put_cell, put_cell_head},
};

use crate::{
    client::{Connection, Error},
    document::{Column, Format, Rows, Table},
    sql::Names,
};

/// Values from this length on are not copied. Less would cost more than it saves: a row in several
/// pieces is hashed by a hasher that takes some time to set up.
const BORROWED_BYTES_MIN: usize = 64 << 10;

/// What a binary COPY begins with (PostgreSQL's documentation, COPY, Binary Format), before its
/// flags and the length of its header's extension.
const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";
const HEADER_BYTES: usize = SIGNATURE.len() + 8;

/// The number of fields in the trailer of a binary COPY.
const TRAILER: i16 = -1;

/// Where the rows of a table are put as they are read, and what the errors mean that can occur.
pub struct RowsOut<'a> {
    /// The longest row.
    pub row_bytes_max: usize,
    /// A row, encoded, in pieces that follow each other.
    pub on_row: &'a mut dyn FnMut(&[&[u8]]) -> Outcome,
    pub failed: &'a dyn Fn(Error) -> Failure,
    pub unreadable: &'a dyn Fn(Unreadable) -> Failure,
}

impl RowsOut<'_> {
    /// Takes what a COPY prints, which are rows of `table`. Returns how many.
    pub fn copy(&mut self, connection: &mut Connection, table: &Table, statement: &str) -> Outcome<u64> {
        let mut encoder = RowEncoder::new(table, self.row_bytes_max);
        let mut rows = 0;
        let mut copy = connection.copy_out(statement).map_err(self.failed)?;
        while let Some(message) = copy.message().map_err(self.failed)? {
            encoder.row(&message, self.unreadable, |pieces| {
                rows += 1;
                (self.on_row)(pieces)
            })?;
        }
        encoder.finish(self.unreadable)?;
        Ok(rows)
    }
}

/// The statement that prints all rows of a table, or those in a range of its blocks, in the order
/// in which they lie. Large objects are read by others.
pub fn copy_out(table: &Table, range: Option<Range>, names: Names) -> String {
    copy_out_where(table, range, None, names)
}

/// As [`copy_out`], of the rows alone that meet this condition, which is one expression.
pub fn copy_out_where(table: &Table, range: Option<Range>, filter: Option<&str>, names: Names) -> String {
    // The output function of an xml leaves its declaration out; the cast gives what is stored.
    let selected = |column: &Column| match column.type_name.as_str() {
        "xml" => format!("{}::pg_catalog.text", names.quote(&column.name)),
        _ => names.quote(&column.name),
    };
    let columns: Vec<_> = table.columns.iter().map(selected).collect();
    let only = match table.rows {
        Rows::OfPartitions => "",
        Rows::Own | Rows::Configuration | Rows::LargeObjects => "ONLY ",
    };
    let from = names.qualified(&table.schema, &table.name);
    // A table with a condition is never divided.
    let condition = table.condition.as_ref().map(|condition| format!(" {condition}"));
    let mut within = condition.or_else(|| range.map(within)).unwrap_or_default();
    if let Some(filter) = filter {
        let joins = if within.is_empty() { "WHERE" } else { "AND" };
        // A comment at its end ends with the line.
        within += &format!(" {joins} (\n{filter}\n)");
    }
    let format = match table.format {
        Format::Text => "text",
        Format::Binary => "binary",
    };
    format!("COPY (SELECT {} FROM {only}{from}{within}) TO STDOUT (FORMAT {format})", columns.join(", "))
}

/// No row has the number 0 in its block.
fn within(Range { from, to }: Range) -> String {
    let to = to.map(|to| format!(" AND ctid < '({to},0)'::pg_catalog.tid")).unwrap_or_default();
    format!(" WHERE ctid >= '({from},0)'::pg_catalog.tid{to}")
}

/// Why a message of a COPY is no row to be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// It is not what a server sends for this statement.
    Malformed,
    /// The row is longer than is allowed.
    TooLong,
}

/// Encodes the rows of one COPY, each from the message that it came in.
pub struct RowEncoder {
    format: Format,
    columns: usize,
    row_bytes_max: usize,
    /// Of a binary COPY: the header was seen.
    begun: bool,
    /// Of a binary COPY: the trailer was seen.
    ended: bool,
    /// The encoding, but for the bytes of large values.
    copied: BytesMut,
    /// A text without its backslashes.
    plain: Vec<u8>,
    borrowed: Vec<Borrowed>,
    borrowed_bytes: usize,
}

/// A large value: where its bytes lie, and how much of the encoding is before it.
struct Borrowed {
    at: usize,
    bytes: Span<usize>,
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Message,
    Plain,
}

impl RowEncoder {
    /// For a statement of [`copy_out`] for this table.
    pub fn new(table: &Table, row_bytes_max: usize) -> Self {
        Self {
            format: table.format,
            columns: table.columns.len(),
            row_bytes_max,
            begun: false,
            ended: false,
            copied: BytesMut::new(),
            plain: Vec::new(),
            borrowed: Vec::new(),
            borrowed_bytes: 0,
        }
    }

    /// Calls `on_row` with the encoding of the row in `message`, in pieces that follow each other.
    /// A message with no row in it, such as the trailer, is passed over.
    pub fn row(
        &mut self,
        message: &Bytes,
        unreadable: impl Fn(Unreadable) -> Failure,
        on_row: impl FnOnce(&[&[u8]]) -> Outcome,
    ) -> Outcome {
        self.copied.clear();
        self.plain.clear();
        self.borrowed.clear();
        self.borrowed_bytes = 0;
        let encoded = match self.format {
            Format::Binary => self.encode_binary(message),
            Format::Text => self.encode_text(message).map(|()| true),
        };
        match encoded.map_err(unreadable)? {
            true => self.with_pieces(message, on_row),
            false => Ok(()),
        }
    }

    /// Fails unless the COPY was whole.
    pub fn finish(self, unreadable: impl Fn(Unreadable) -> Failure) -> Outcome {
        match self.format == Format::Text || self.ended {
            true => Ok(()),
            false => Err(unreadable(Unreadable::Malformed)),
        }
    }

    /// Whether the message has a row.
    fn encode_binary(&mut self, message: &[u8]) -> Result<bool, Unreadable> {
        let mut at = 0;
        if !self.begun {
            // Flags that this reader does not know, or an extension of the header, are refused.
            let header = message.split_at_checked(HEADER_BYTES).ok_or(Unreadable::Malformed)?.0;
            if !header.starts_with(SIGNATURE) || header[SIGNATURE.len()..] != [0; 8] {
                return Err(Unreadable::Malformed);
            }
            self.begun = true;
            at = HEADER_BYTES;
        }
        if at == message.len() {
            return Ok(false);
        }
        let fields = i16::from_be_bytes(take(message, &mut at)?);
        if fields == TRAILER && at == message.len() && !self.ended {
            self.ended = true;
            return Ok(false);
        }
        if self.ended || usize::try_from(fields) != Ok(self.columns) {
            return Err(Unreadable::Malformed);
        }
        for _ in 0..self.columns {
            let length = i32::from_be_bytes(take(message, &mut at)?);
            if length == -1 {
                self.put_null()?;
                continue;
            }
            let length = usize::try_from(length).map_err(|_| Unreadable::Malformed)?;
            let bytes = message.get(at..at.saturating_add(length)).ok_or(Unreadable::Malformed)?;
            let span = at..at + length;
            at = span.end;
            self.put(bytes, span, Place::Message)?;
        }
        if at == message.len() { Ok(true) } else { Err(Unreadable::Malformed) }
    }

    fn encode_text(&mut self, message: &[u8]) -> Result<(), Unreadable> {
        let line = message.strip_suffix(b"\n").ok_or(Unreadable::Malformed)?;
        if self.columns == 0 {
            return if line.is_empty() { Ok(()) } else { Err(Unreadable::Malformed) };
        }
        let mut at = 0;
        let mut fields = 0;
        for field in line.split(|&byte| byte == b'\t') {
            let span = at..at + field.len();
            at = span.end + 1;
            fields += 1;
            if field == b"\\N" {
                self.put_null()?;
            } else if field.contains(&b'\\') {
                let begin = self.plain.len();
                unescape(field, &mut self.plain)?;
                let plain = std::mem::take(&mut self.plain);
                let put = self.put(&plain[begin..], begin..plain.len(), Place::Plain);
                self.plain = plain;
                put?;
            } else {
                self.put(field, span, Place::Message)?;
            }
        }
        if fields == self.columns { Ok(()) } else { Err(Unreadable::Malformed) }
    }

    fn put_null(&mut self) -> Result<(), Unreadable> {
        put_cell(&mut self.copied, Cell::NULL);
        self.check_length(0)
    }

    fn put(&mut self, bytes: &[u8], span: Span<usize>, place: Place) -> Result<(), Unreadable> {
        let cell = Cell { format: self.format.number(), bytes };
        if bytes.len() < BORROWED_BYTES_MIN {
            self.check_length(cell.encoded_bytes())?;
            put_cell(&mut self.copied, cell);
            return Ok(());
        }
        put_cell_head(&mut self.copied, cell.format, cell.bytes.len());
        self.borrowed_bytes += bytes.len();
        self.borrowed.push(Borrowed { at: self.copied.len(), bytes: span, place });
        self.check_length(0)
    }

    /// Whether so many more bytes may be copied.
    fn check_length(&self, more: usize) -> Result<(), Unreadable> {
        let so_far = self.copied.len() + self.borrowed_bytes;
        if so_far.saturating_add(more) > self.row_bytes_max { Err(Unreadable::TooLong) } else { Ok(()) }
    }

    fn with_pieces(&self, message: &[u8], on_row: impl FnOnce(&[&[u8]]) -> Outcome) -> Outcome {
        if self.borrowed.is_empty() {
            return on_row(&[&self.copied]);
        }
        let mut pieces = Vec::with_capacity(2 * self.borrowed.len() + 1);
        let mut copied_to = 0;
        for Borrowed { at, bytes, place } in &self.borrowed {
            let from = match place {
                Place::Message => message,
                Place::Plain => &self.plain,
            };
            pieces.push(&self.copied[copied_to..*at]);
            pieces.push(&from[bytes.clone()]);
            copied_to = *at;
        }
        pieces.push(&self.copied[copied_to..]);
        on_row(&pieces)
    }
}

fn take<const N: usize>(message: &[u8], at: &mut usize) -> Result<[u8; N], Unreadable> {
    let bytes = message.get(*at..).and_then(|rest| rest.first_chunk()).ok_or(Unreadable::Malformed)?;
    *at += N;
    Ok(*bytes)
}

/// Appends a field of a text COPY without its backslashes. A server writes these sequences and no
/// others.
fn unescape(field: &[u8], out: &mut Vec<u8>) -> Result<(), Unreadable> {
    out.reserve(field.len());
    let mut rest = field;
    while let Some(at) = rest.iter().position(|&byte| byte == b'\\') {
        out.extend_from_slice(&rest[..at]);
        out.push(match rest.get(at + 1) {
            Some(b'\\') => b'\\',
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'b') => 0x08,
            Some(b'f') => 0x0c,
            Some(b'v') => 0x0b,
            _ => return Err(Unreadable::Malformed),
        });
        rest = &rest[at + 2..];
    }
    out.extend_from_slice(rest);
    Ok(())
}

#[cfg(test)]
mod tests;
