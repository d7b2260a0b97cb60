//! Reading the rows of a table as they are stored: at the source, and again in the target.

use bytes::BytesMut;
use rusqlite::{Connection, Rows, Statement};
use sealift_protocol::failure::{Failure, Outcome};

use crate::{
    Value,
    document::{Table, TextEncoding},
    statement::RowidRange,
    value::{EncodedRow, put_values},
};

/// Calls `row` with the encoding of each row of `table`, or of a range of it, in pieces. `check`
/// may refuse a value before it is encoded, known by its place in the row; `engine` says what an
/// error of the engine means.
pub fn read_rows(
    connection: &Connection,
    table: &Table,
    range: Option<RowidRange>,
    encoding: TextEncoding,
    mut check: impl FnMut(usize, Value<'_>) -> Outcome,
    mut row: impl FnMut(&[&[u8]]) -> Outcome,
    engine: impl Fn(rusqlite::Error) -> Failure,
) -> Outcome {
    let selects = table.selects(range, encoding);
    let statements = selects.iter().map(|select| connection.prepare(select)).collect::<Result<Vec<_>, _>>();
    let mut statements = statements.map_err(&engine)?;
    if let Some(RowidRange { first, last, .. }) = range {
        for statement in &mut statements {
            statement.raw_bind_parameter(1, first).map_err(&engine)?;
            statement.raw_bind_parameter(2, last).map_err(&engine)?;
        }
    }
    let cells: Vec<usize> = statements.iter().map(Statement::column_count).collect();
    let mut cursors: Vec<Rows<'_>> = statements.iter_mut().map(Statement::raw_query).collect();
    let mut copied = BytesMut::new();
    while let Some(encoded) = next_row(&mut cursors, &cells, encoding, &mut check, &engine, &mut copied)? {
        encoded.with_pieces(&mut row)?;
    }
    Ok(())
}

/// Steps all cursors to the next row and encodes it, as far as it is copied, into `copied`; `None`
/// after the last. A value that is refused ends that.
pub fn next_row<'a>(
    cursors: &'a mut [Rows<'_>],
    cells: &[usize],
    encoding: TextEncoding,
    mut check: impl FnMut(usize, Value<'_>) -> Outcome,
    engine: impl Fn(rusqlite::Error) -> Failure,
    copied: &'a mut BytesMut,
) -> Outcome<Option<EncodedRow<'a>>> {
    let mut encoded = EncodedRow::new(copied);
    let mut first = 0;
    for (cursor, &cells) in cursors.iter_mut().zip(cells) {
        let Some(row) = cursor.next().map_err(&engine)? else { return Ok(None) };
        let cell = |index| row.get_ref(index).map(Value::from).map_err(&engine);
        put_values(&mut encoded, encoding, cells, cell, |place, value| check(first + place, value))?;
        first += cells / encoding.cells_per_value();
    }
    Ok(Some(encoded))
}
