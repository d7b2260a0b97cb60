//! The statements with which both ends read and write a table.
//!
//! Text is carried as the bytes that the database stores, in the database's encoding, so that text
//! which is not valid in that encoding survives. In UTF-8 the engine hands out and takes those
//! bytes as they are. In UTF-16 it would convert, and lose what does not convert; there each value
//! is selected as a pair, the stored bytes and whether they are text, and inserted by a cast, which
//! relabels bytes without looking at them.

use crate::document::{RowidName, Table, TextEncoding};

/// Result columns of one SELECT: SQLite's compiled-in SQLITE_MAX_COLUMN. A table of as many columns
/// and a rowid, or one read in pairs, needs more than one statement.
pub const SELECT_CELLS_MAX: usize = 2000;

/// Rows of a table by their rowids, both ends included.
#[derive(Clone, Copy, Debug)]
pub struct RowidRange {
    /// A name of the table's rowid, whether or not it is carried.
    pub rowid: RowidName,
    pub first: i64,
    pub last: i64,
}

/// A name as an identifier that is never anything else. A doubled quote is the only escape SQL
/// knows in it.
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl TextEncoding {
    /// Result columns, or parameters, that stand for one value.
    pub fn cells_per_value(self) -> usize {
        if self == TextEncoding::Utf8 { 1 } else { 2 }
    }
}

impl Table {
    /// The statements that read the table. Each scans it whole in the order of its own b-tree (`NOT
    /// INDEXED`), so that stepped side by side in one transaction they give the pieces of the same
    /// row. Of a range, their parameters are its first and last rowid, and the first result column
    /// of each is the row's.
    pub fn selects(&self, range: Option<RowidRange>, encoding: TextEncoding) -> Vec<String> {
        let (rowid, within) = range.map_or_else(Default::default, |RowidRange { rowid, .. }| {
            let rowid = rowid.name();
            (format!("{rowid},"), format!(" WHERE {rowid}>=?1 AND {rowid}<=?2 ORDER BY {rowid}"))
        });
        let cells: Vec<String> = self
            .identifiers()
            .map(|name| match encoding {
                TextEncoding::Utf8 => name,
                _ => format!(
                    "CASE typeof({name}) WHEN 'text' THEN CAST({name} AS BLOB) ELSE {name} END,typeof({name})='text'"
                ),
            })
            .collect();
        cells
            .chunks((SELECT_CELLS_MAX - usize::from(range.is_some())) / encoding.cells_per_value())
            .map(|cells| {
                let (cells, table) = (cells.join(","), quote(&self.name));
                format!("SELECT {rowid}{cells} FROM main.{table} NOT INDEXED{within}")
            })
            .collect()
    }

    /// The statement that writes a row; its parameters are the row's cells.
    pub fn insert(&self, encoding: TextEncoding) -> String {
        let names: Vec<String> = self.identifiers().collect();
        let cells: Vec<String> = (0..self.values())
            .map(|index| match encoding {
                TextEncoding::Utf8 => format!("?{}", index + 1),
                _ => {
                    let (value, is_text) = (2 * index + 1, 2 * index + 2);
                    format!("CASE ?{is_text} WHEN 1 THEN CAST(?{value} AS TEXT) ELSE ?{value} END")
                }
            })
            .collect();
        format!("INSERT INTO main.{}({}) VALUES({})", quote(&self.name), names.join(","), cells.join(","))
    }

    /// The names of the values of a row, as they stand in a statement.
    pub fn identifiers(&self) -> impl Iterator<Item = String> {
        // A rowid's name is not quoted: quoted, it would be a string where it is no column.
        let rowid = self.rowid.map(|rowid| rowid.name().to_owned());
        rowid.into_iter().chain(self.columns.iter().map(|column| quote(column)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::RowidName;

    fn table(columns: usize, rowid: Option<RowidName>) -> Table {
        let columns = (0..columns).map(|index| format!("c{index}")).collect();
        let name = "a\"b".into();
        Table { name, sql: String::new(), rowid, columns, indexes: Vec::new(), automatic_indexes: Vec::new() }
    }

    /// Fault D2.
    #[test]
    fn names_stay_names() {
        assert_eq!(quote("x\"; DROP TABLE t; --"), "\"x\"\"; DROP TABLE t; --\"");
        assert_eq!(
            table(1, None).selects(None, TextEncoding::Utf8),
            ["SELECT \"c0\" FROM main.\"a\"\"b\" NOT INDEXED"]
        );
        let insert = table(1, Some(RowidName::Oid)).insert(TextEncoding::Utf8);
        assert_eq!(insert, "INSERT INTO main.\"a\"\"b\"(oid,\"c0\") VALUES(?1,?2)");
    }

    /// Fault D12.
    #[test]
    fn wide_tables_are_read_by_several_statements() {
        let count = |columns, rowid, encoding| table(columns, rowid).selects(None, encoding).len();
        assert_eq!(count(2000, None, TextEncoding::Utf8), 1);
        assert_eq!(count(2000, Some(RowidName::Rowid), TextEncoding::Utf8), 2);
        assert_eq!(count(2000, Some(RowidName::Rowid), TextEncoding::Utf16le), 3);
    }
}
