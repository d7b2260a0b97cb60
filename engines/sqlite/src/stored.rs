//! Reading the rows of a table as they are stored: at the source, and again in the target.
//!
//! A row without a long value is read by a scan, with its values where SQLite has them. Before
//! SQLite takes memory for a long one, its limit on the length of a value ends the scan; that row
//! is read in pieces ([`LongRow`]), and the scan continues behind it. Rows of
//! ordinary length pay nothing for that.

mod long_row;

use bytes::BytesMut;
use rusqlite::{Connection, ErrorCode, Row, Rows, Statement, limits::Limit};
use sealift_protocol::failure::{Failure, Outcome};

use self::long_row::LongRows;
pub use self::long_row::{LongRow, error_of};
use crate::{
    Value,
    document::{Table, TextEncoding},
    statement::RowidRange,
    value::EncodedRow,
};

/// Values of more bytes are not taken into memory where SQLite can read them in pieces. Opening one
/// for that costs as much as reading some ten KiB.
const LONG_VALUE_BYTES: usize = 1 << 20;

/// What is done with the rows of a table as they are read.
pub trait RowVisitor {
    /// May refuse a value before it is encoded, known by its place in the row. A value that is
    /// read in pieces is not checked.
    fn check(&mut self, _place: usize, _value: Value<'_>) -> Outcome {
        Ok(())
    }

    /// Whether the values at this place have to be checked whole, however long they are.
    fn checks_whole(&self, _place: usize) -> bool {
        false
    }

    /// The encoding of a row, in pieces that follow each other.
    fn row(&mut self, pieces: &[&[u8]]) -> Outcome;

    /// A row that is read in pieces.
    fn long_row(&mut self, row: &mut LongRow<'_>) -> Outcome;

    /// What an error of SQLite means.
    fn failure(&self, error: rusqlite::Error) -> Failure;
}

/// A table that is read, or a range of it.
#[derive(Clone, Copy)]
pub struct Scan<'a> {
    pub connection: &'a Connection,
    pub table: &'a Table,
    pub range: Option<RowidRange>,
    pub encoding: TextEncoding,
}

impl Scan<'_> {
    /// Gives `visitor` each row, in the order of their keys.
    pub fn read_rows(&self, visitor: &mut impl RowVisitor) -> Outcome {
        let long_rows = LongRows::of(self).map_err(|error| visitor.failure(error))?;
        let mut range = long_rows.as_ref().map(LongRows::range).or(self.range);
        let selects = self.table.selects(range, self.encoding);
        let statements = selects.iter().map(|select| self.connection.prepare(select));
        let mut statements =
            statements.collect::<rusqlite::Result<Vec<_>>>().map_err(|error| visitor.failure(error))?;
        let mut copied = BytesMut::new();
        loop {
            let limit = long_rows.as_ref().map(|_| LengthLimit::set(self.connection));
            let limit = limit.transpose().map_err(|error| visitor.failure(error))?;
            let mut cursors = Cursors::begin(&mut statements, range, self.encoding, &*visitor)?;
            while cursors.next(&mut copied, visitor)? {}
            let Cursors { read_up_to, too_long, .. } = cursors;
            drop(limit);
            let Some(error) = too_long else { return Ok(()) };
            let (Some(long_rows), Some(range)) = (&long_rows, &mut range) else { return Err(visitor.failure(error)) };
            // No rowid is behind the last, and a row is.
            range.first = read_up_to.map_or(range.first, |rowid| rowid.saturating_add(1));
            let rowid = long_rows.read(*range, visitor)?;
            match rowid.checked_add(1).filter(|next| *next <= range.last) {
                Some(next) => range.first = next,
                None => return Ok(()),
            }
        }
    }
}

/// The statements of one table, stepped side by side.
pub struct Cursors<'a> {
    rows: Vec<Rows<'a>>,
    cells: Vec<usize>,
    encoding: TextEncoding,
    /// Whether each statement begins with the rowid.
    with_rowid: bool,
    /// The rowid of the row before.
    read_up_to: Option<i64>,
    /// The next row has a value over the limit, which SQLite has not taken into memory.
    too_long: Option<rusqlite::Error>,
}

impl<'a> Cursors<'a> {
    /// Before the first row, or the first of a range.
    pub fn begin(
        statements: &'a mut [Statement<'_>],
        range: Option<RowidRange>,
        encoding: TextEncoding,
        visitor: &impl RowVisitor,
    ) -> Outcome<Self> {
        let cells = statements.iter().map(Statement::column_count).collect();
        let mut rows = Vec::with_capacity(statements.len());
        for statement in statements {
            if let Some(RowidRange { first, last, .. }) = range {
                let bound = statement.raw_bind_parameter(1, first);
                bound.and_then(|()| statement.raw_bind_parameter(2, last)).map_err(|error| visitor.failure(error))?;
            }
            rows.push(statement.raw_query());
        }
        Ok(Self { rows, cells, encoding, with_rowid: range.is_some(), read_up_to: None, too_long: None })
    }

    /// Steps to the next row and gives it to `visitor`, with what has to be copied of it in
    /// `copied`. `false` after the last, and before one with a value over the limit.
    pub fn next(&mut self, copied: &mut BytesMut, visitor: &mut impl RowVisitor) -> Outcome<bool> {
        let mut encoded = EncodedRow::new(copied);
        let mut rowid = None;
        let mut place = 0;
        for (rows, &cells) in self.rows.iter_mut().zip(&self.cells) {
            let row = match rows.next() {
                Ok(Some(row)) => row,
                Ok(None) => return Ok(false),
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::TooBig) => {
                    self.too_long = Some(error);
                    return Ok(false);
                }
                Err(error) => return Err(visitor.failure(error)),
            };
            let mut first = 0;
            if self.with_rowid {
                rowid = Some(row.get(0).map_err(|error| visitor.failure(error))?);
                first = 1;
            }
            for at in (first..cells).step_by(self.encoding.cells_per_value()) {
                let value = value_at(row, at, self.encoding).map_err(|error| visitor.failure(error))?;
                visitor.check(place, value)?;
                encoded.put(value);
                place += 1;
            }
        }
        encoded.with_pieces(|pieces| visitor.row(pieces))?;
        // Not before: the value over the limit may be one of a later statement.
        self.read_up_to = rowid;
        Ok(true)
    }
}

/// The value of which the cells of one of [`Table::selects`] begin at `at`.
fn value_at<'a>(row: &'a Row<'_>, at: usize, encoding: TextEncoding) -> rusqlite::Result<Value<'a>> {
    Ok(match Value::from(row.get_ref(at)?) {
        Value::Blob(bytes) if encoding != TextEncoding::Utf8 && row.get::<_, bool>(at + 1)? => Value::Text(bytes),
        value => value,
    })
}

/// The limit on the length of a value that SQLite takes into memory, while a table is scanned.
struct LengthLimit<'a> {
    connection: &'a Connection,
    before: i32,
}

impl<'a> LengthLimit<'a> {
    fn set(connection: &'a Connection) -> rusqlite::Result<Self> {
        let before = connection.limit(Limit::SQLITE_LIMIT_LENGTH)?;
        connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, before.min(LONG_VALUE_BYTES as i32))?;
        Ok(Self { connection, before })
    }
}

impl Drop for LengthLimit<'_> {
    fn drop(&mut self) {
        // It fails for a limit that does not exist alone.
        let _ = self.connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, self.before);
    }
}

#[cfg(test)]
mod tests;
