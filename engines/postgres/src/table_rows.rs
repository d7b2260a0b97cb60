//! Reading the rows of a table of the plan, by both ends.

use sealift_protocol::{failure::Outcome, manifest::Range};

use crate::{
    client::Connection,
    copy_rows::{RowsOut, copy_out},
    document::{Rows, Table},
    large_objects,
    sql::Names,
};

/// Reads all rows of a table, or those in a range of it.
pub fn read(
    connection: &mut Connection,
    table: &Table,
    range: Option<Range>,
    names: Names,
    out: &mut RowsOut<'_>,
) -> Outcome {
    match table.rows {
        Rows::LargeObjects => large_objects::read(connection, range, out),
        _ => out.copy(connection, table, &copy_out(table, range, names)).map(drop),
    }
}
