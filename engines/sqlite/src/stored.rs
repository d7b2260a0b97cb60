//! Reading the rows of a table as they are stored: at the source, and again in the target.

use bytes::BytesMut;
use rusqlite::{Connection, Rows, Statement};
use sealift_protocol::failure::{Failure, Outcome};

use crate::{
    Value,
    document::{Table, TextEncoding},
    put_values,
};

/// Calls `row` with the encoding of each row of `table`. `check` may refuse a value before it is
/// encoded, known by its place in the row; `engine` says what an error of the engine means.
pub fn read_rows(
    connection: &Connection,
    table: &Table,
    encoding: TextEncoding,
    mut check: impl FnMut(usize, Value<'_>) -> Outcome,
    mut row: impl FnMut(&[u8]) -> Outcome,
    engine: impl Fn(rusqlite::Error) -> Failure,
) -> Outcome {
    let selects = table.selects(encoding);
    let statements = selects.iter().map(|select| connection.prepare(select)).collect::<Result<Vec<_>, _>>();
    let mut statements = statements.map_err(&engine)?;
    let cells: Vec<usize> = statements.iter().map(Statement::column_count).collect();
    let mut cursors: Vec<Rows<'_>> = statements.iter_mut().map(Statement::raw_query).collect();
    let mut encoded = BytesMut::new();
    while next_row(&mut cursors, &cells, encoding, &mut check, &engine, &mut encoded)? {
        row(&encoded)?;
    }
    Ok(())
}

/// Steps all cursors to the next row and encodes it into `out`; `false` after the last. A value
/// that is refused ends that.
pub fn next_row(
    cursors: &mut [Rows<'_>],
    cells: &[usize],
    encoding: TextEncoding,
    mut check: impl FnMut(usize, Value<'_>) -> Outcome,
    engine: impl Fn(rusqlite::Error) -> Failure,
    out: &mut BytesMut,
) -> Outcome<bool> {
    out.clear();
    let mut first = 0;
    for (cursor, &cells) in cursors.iter_mut().zip(cells) {
        let Some(row) = cursor.next().map_err(&engine)? else { return Ok(false) };
        let cell = |index| row.get_ref(index).map(Value::from).map_err(&engine);
        put_values(out, encoding, cells, cell, |place, value| check(first + place, value))?;
        first += cells / encoding.cells_per_value();
    }
    Ok(true)
}
