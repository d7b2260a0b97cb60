//! The rows of each table as its parts are read, until the count of the engine is compared with
//! them.

use sealift_protocol::{
    id::{PartIndex, TableIndex},
    manifest::Plan,
};

/// The rows that were read, by part and by table.
pub struct TableRows {
    parts: Vec<PartRows>,
    tables: Vec<RowsOfTable>,
}

struct PartRows {
    table: Option<TableIndex>,
    /// Once it was read to its end.
    rows: Option<u64>,
}

#[derive(Clone, Copy, Default)]
struct RowsOfTable {
    parts_left: usize,
    rows: u64,
}

impl TableRows {
    /// Of a plan of which nothing is read.
    pub fn of(plan: &Plan) -> Self {
        let mut tables = vec![RowsOfTable::default(); plan.tables.len()];
        let parts = plan.parts.iter().map(|part| {
            if let Some(table) = part.table.and_then(|table| tables.get_mut(table.0 as usize)) {
                table.parts_left += 1;
            }
            PartRows { table: part.table, rows: None }
        });
        Self { parts: parts.collect(), tables }
    }

    /// A part was read to its end, once more perhaps. Returns its table and the rows of that, if
    /// all parts of it were read.
    pub fn handle_read(&mut self, part: PartIndex, rows: u64) -> Option<(TableIndex, u64)> {
        let part = self.parts.get_mut(part.0 as usize)?;
        let index = part.table?;
        let table = self.tables.get_mut(index.0 as usize)?;
        match part.rows.replace(rows) {
            Some(before) => table.rows -= before,
            None => table.parts_left -= 1,
        }
        table.rows += rows;
        (table.parts_left == 0).then_some((index, table.rows))
    }
}
