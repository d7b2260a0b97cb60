//! A row with long values, which are read from the database piece by piece (`sqlite3_blob`), so
//! that none of them is in memory.
//!
//! SQLite reads so what is in the columns of a rowid table without generated columns, whether it is
//! a BLOB or a text, in the database's encoding.

use std::{
    collections::VecDeque,
    io::{self, Read},
};

use bytes::BytesMut;
use rusqlite::{Connection, MAIN_DB, Row, blob::Blob, limits::Limit, types::ValueRef};
use sealift_protocol::{failure::Outcome, row::put_cell_head};

use super::{LONG_VALUE_BYTES, RowVisitor, Scan};
use crate::{
    Value,
    document::{RowidName, Table},
    put_value, quote,
    statement::{RowidRange, SELECT_CELLS_MAX},
    value::{FORMAT_BLOB, FORMAT_TEXT},
};

/// Result columns of a long row for each of its values: its type, its length, and the value unless
/// it is long.
const CELLS_A_VALUE: usize = 3;

/// The long rows of a table, or of a range of it.
pub struct LongRows<'a> {
    connection: &'a Connection,
    table: &'a Table,
    range: RowidRange,
}

impl<'a> LongRows<'a> {
    /// `None` for a table from which SQLite reads whole values alone, and where it is to take none
    /// into memory that is long.
    pub fn of(scan: &Scan<'a>) -> rusqlite::Result<Option<Self>> {
        let Scan { connection, table, range, .. } = *scan;
        if connection.limit(Limit::SQLITE_LIMIT_LENGTH)? <= LONG_VALUE_BYTES as i32 {
            return Ok(None);
        }
        let mut columns = connection.prepare("SELECT name, hidden FROM pragma_table_xinfo(?1, 'main')")?;
        let columns = columns.query_map([&table.name], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let columns = columns.collect::<rusqlite::Result<Vec<(String, u8)>>>()?;
        if columns.iter().any(|(_, hidden)| *hidden != 0) {
            return Ok(None);
        }
        let is_free = |rowid: &RowidName| columns.iter().all(|(name, _)| !name.eq_ignore_ascii_case(rowid.name()));
        let Some(rowid) = RowidName::ALL.into_iter().find(is_free) else { return Ok(None) };
        // A table WITHOUT ROWID has no such column.
        if connection.prepare(&format!("SELECT {} FROM main.{}", rowid.name(), quote(&table.name))).is_err() {
            return Ok(None);
        }
        let range = range.unwrap_or(RowidRange { rowid, first: i64::MIN, last: i64::MAX });
        Ok(Some(Self { connection, table, range }))
    }

    pub fn range(&self) -> RowidRange {
        self.range
    }

    /// Gives `visitor` the first row of a range, and returns its rowid.
    pub fn read(&self, range: RowidRange, visitor: &mut impl RowVisitor) -> Outcome<i64> {
        let rowid = self.first_rowid(range).map_err(|error| visitor.failure(error))?;
        let mut segments = VecDeque::from([Segment::Encoded(BytesMut::new())]);
        let mut place = 0;
        for select in self.selects(visitor) {
            let mut select = self.connection.prepare(&select).map_err(|error| visitor.failure(error))?;
            let cells = select.column_count();
            let mut rows = select.query([rowid]).map_err(|error| visitor.failure(error))?;
            let row = rows.next().and_then(|row| row.ok_or(rusqlite::Error::QueryReturnedNoRows));
            let row = row.map_err(|error| visitor.failure(error))?;
            for at in (0..cells).step_by(CELLS_A_VALUE) {
                match StoredValue::of(row, at).map_err(|error| visitor.failure(error))? {
                    StoredValue::Short(value) => {
                        visitor.check(place, value)?;
                        put_value(encoded(&mut segments), value);
                    }
                    StoredValue::Long { format, bytes } => {
                        put_cell_head(encoded(&mut segments), format, bytes);
                        segments.push_back(Segment::Stored { place, bytes });
                    }
                }
                place += 1;
            }
        }
        let (connection, table) = (self.connection, self.table);
        let row_bytes = segments.iter().map(Segment::bytes).sum();
        visitor.long_row(&mut LongRow {
            connection,
            table,
            rowid,
            row_bytes,
            segments,
            reading: Box::new(io::empty()),
        })?;
        Ok(rowid)
    }

    fn first_rowid(&self, RowidRange { rowid, first, last }: RowidRange) -> rusqlite::Result<i64> {
        let (rowid, table) = (rowid.name(), quote(&self.table.name));
        let sql = format!("SELECT min({rowid}) FROM main.{table} WHERE {rowid}>=?1 AND {rowid}<=?2");
        self.connection.query_row(&sql, [first, last], |row| row.get(0))
    }

    /// The statements that read one row. Type and length of a value are in the row's head, so that
    /// a long one is not read for them.
    fn selects(&self, visitor: &impl RowVisitor) -> Vec<String> {
        let cell = |(place, name): (usize, String)| {
            let long = if visitor.checks_whole(place) { i32::MAX as usize } else { LONG_VALUE_BYTES };
            format!(
                "typeof({name}),octet_length({name}),\
                 CASE WHEN octet_length({name})>{long} THEN NULL WHEN typeof({name})='text' THEN CAST({name} AS BLOB) \
                 ELSE {name} END"
            )
        };
        let cells: Vec<String> = self.table.identifiers().enumerate().map(cell).collect();
        let (rowid, table) = (self.range.rowid.name(), quote(&self.table.name));
        cells
            .chunks(SELECT_CELLS_MAX / CELLS_A_VALUE)
            .map(|cells| format!("SELECT {} FROM main.{table} WHERE {rowid}=?1", cells.join(",")))
            .collect()
    }
}

/// A value of a row that has long ones.
enum StoredValue<'a> {
    Short(Value<'a>),
    Long { format: u8, bytes: usize },
}

impl<'a> StoredValue<'a> {
    /// That whose cells begin at `at`.
    fn of(row: &'a Row<'_>, at: usize) -> rusqlite::Result<Self> {
        let is_text = row.get_ref(at)? == ValueRef::Text(b"text");
        let bytes: Option<u32> = row.get(at + 1)?;
        Ok(match (Value::from(row.get_ref(at + 2)?), bytes) {
            (Value::Null, Some(bytes)) => {
                Self::Long { format: if is_text { FORMAT_TEXT } else { FORMAT_BLOB }, bytes: bytes as usize }
            }
            (Value::Blob(bytes), _) if is_text => Self::Short(Value::Text(bytes)),
            (value, _) => Self::Short(value),
        })
    }
}

/// What follows in the encoding of a row.
enum Segment {
    /// What was encoded.
    Encoded(BytesMut),
    /// The bytes of the value at this place.
    Stored { place: usize, bytes: usize },
}

impl Segment {
    fn bytes(&self) -> usize {
        match self {
            Self::Encoded(encoded) => encoded.len(),
            Self::Stored { bytes, .. } => *bytes,
        }
    }
}

/// Where the next cell is encoded.
fn encoded(segments: &mut VecDeque<Segment>) -> &mut BytesMut {
    if !matches!(segments.back(), Some(Segment::Encoded(_))) {
        segments.push_back(Segment::Encoded(BytesMut::new()));
    }
    match segments.back_mut() {
        Some(Segment::Encoded(encoded)) => encoded,
        _ => unreachable!("it was just pushed"),
    }
}

/// One row as it is read. An error of it is one of [`rusqlite::Error`].
pub struct LongRow<'a> {
    connection: &'a Connection,
    table: &'a Table,
    rowid: i64,
    row_bytes: usize,
    segments: VecDeque<Segment>,
    reading: Box<dyn Read + 'a>,
}

impl LongRow<'_> {
    /// The length of the whole encoding.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }
}

impl<'a> LongRow<'a> {
    fn open(&self, place: usize) -> rusqlite::Result<Blob<'a>> {
        let column = place.checked_sub(usize::from(self.table.rowid.is_some()));
        let column = column.and_then(|column| self.table.columns.get(column)).map_or("", String::as_str);
        self.connection.blob_open(MAIN_DB, &*self.table.name, column, self.rowid, true)
    }
}

impl Read for LongRow<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.reading.read(out)?;
            if read > 0 || out.is_empty() {
                return Ok(read);
            }
            self.reading = match self.segments.pop_front() {
                None => return Ok(0),
                Some(Segment::Encoded(encoded)) => Box::new(io::Cursor::new(encoded)),
                Some(Segment::Stored { place, .. }) => Box::new(self.open(place).map_err(io::Error::other)?),
            };
        }
    }
}

/// The error of SQLite in one of reading a row.
pub fn error_of(error: io::Error) -> rusqlite::Error {
    error.downcast().unwrap_or_else(|_| rusqlite::Error::InvalidQuery)
}
