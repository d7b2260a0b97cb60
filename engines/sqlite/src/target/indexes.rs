//! The indexes of one table while its rows are loaded.
//!
//! An index that is built once the rows are there is sorted, which is faster than growing it row by
//! row. With `temp_store=MEMORY` SQLite holds all that it sorts in memory, one index at a time:
//! each entry in an allocation of its own, so that of short entries the allocator's share is the
//! larger one. Past a bound, counted as the rows come, an index is built and grows with the rows
//! that follow, slower and in the page cache's memory alone.

use rusqlite::Connection;

use super::failure::{definition_failed, failed};
use crate::{
    Value,
    document::{Definition, Table},
    make_index, quote,
};
use sealift_protocol::failure::Outcome;

/// What SQLite may hold to sort one index: with its page cache and what is under way to it, within
/// 128 MiB.
const SORT_BYTES_MAX: u64 = 48 << 20;

/// A table's indexes that are not there yet.
pub struct Waiting {
    table: String,
    indexes: Vec<Index>,
}

struct Index {
    definition: Definition,
    /// Which values of a row are in an entry.
    places: Vec<usize>,
    /// What sorting the entries of the rows so far would take.
    sort_bytes: u64,
}

impl Waiting {
    /// Drops the indexes that may wait, in the transaction that brings the rows: the table is still
    /// empty.
    pub fn begin(connection: &Connection, table: &Table) -> Outcome<Self> {
        let mut indexes = Vec::new();
        for definition in &table.indexes {
            let engine = |error: rusqlite::Error| failed(&error, &definition.name);
            if let Some(places) = sorted_places(connection, definition, table).map_err(engine)? {
                connection.execute_batch(&format!("DROP INDEX main.{}", quote(&definition.name))).map_err(engine)?;
                indexes.push(Index { definition: definition.clone(), places, sort_bytes: 0 });
            }
        }
        Ok(Self { table: table.name.clone(), indexes })
    }

    /// The table has rows already: its indexes are all there.
    pub fn none(table: &Table) -> Self {
        Self { table: table.name.clone(), indexes: Vec::new() }
    }

    /// Whether an index that is not there yet will sort this value of each row.
    pub fn sorts(&self, place: usize) -> bool {
        self.indexes.iter().any(|index| index.places.contains(&place))
    }

    /// Takes note of a row.
    pub fn count(&mut self, values: &[Value<'_>]) {
        for index in &mut self.indexes {
            index.sort_bytes += sort_bytes(index.places.iter().map(|&place| values[place]));
        }
    }

    /// Builds the indexes that must not wait any longer.
    pub fn build_large(&mut self, connection: &mut Connection) -> Outcome {
        let large = self.indexes.extract_if(.., |index| index.sort_bytes > SORT_BYTES_MAX);
        build(large, &self.table, connection)
    }

    /// The rows are there: builds the rest.
    pub fn build_all(&mut self, connection: &mut Connection) -> Outcome {
        build(self.indexes.drain(..), &self.table, connection)
    }
}

fn build(mut indexes: impl Iterator<Item = Index>, table: &str, connection: &mut Connection) -> Outcome {
    indexes.try_for_each(|index| make_index(connection, &index.definition, table).map_err(definition_failed))
}

/// Which values of a row an index sorts, if those bound what it takes: if each entry is made of
/// columns that rows carry, each at most once, and not of expressions or VIRTUAL columns, which may
/// be of any length. Nor one whose entry has another name than its text, by which SQLite would drop
/// it.
fn sorted_places(connection: &Connection, index: &Definition, table: &Table) -> rusqlite::Result<Option<Vec<usize>>> {
    let named = "SELECT EXISTS(SELECT 1 FROM pragma_index_list(?1, 'main') WHERE name = ?2)";
    if !connection.query_row(named, [&table.name, &index.name], |row| row.get::<_, bool>(0))? {
        return Ok(None);
    }
    let mut statement = connection.prepare("SELECT cid, name FROM pragma_index_xinfo(?1, 'main')")?;
    let mut rows = statement.query([&index.name])?;
    let mut places = Vec::new();
    while let Some(row) = rows.next()? {
        let (column, name): (i32, Option<String>) = (row.get(0)?, row.get(1)?);
        let place = table.columns.iter().position(|carried| name.as_ref() == Some(carried));
        match place.map(|place| place + usize::from(table.rowid.is_some())) {
            // The rowid.
            _ if column == -1 => {}
            Some(place) if column >= 0 && !places.contains(&place) => places.push(place),
            _ => return Ok(None),
        }
    }
    Ok(Some(places))
}

/// What the sorter takes for one entry, at most.
fn sort_bytes<'a>(values: impl Iterator<Item = Value<'a>>) -> u64 {
    // The length of the record's header, and the rowid.
    const RECORD_BYTES: u64 = 1 + 9;
    // SQLite's heads of an entry and of an allocation, the allocator's own, and what they round up
    // by.
    const ALLOCATED_BYTES: u64 = 16 + 8 + 8;
    const ALIGNMENT_BYTES: u64 = 16;
    let values: u64 = values.map(value_bytes).sum();
    (RECORD_BYTES + values + ALLOCATED_BYTES).next_multiple_of(ALIGNMENT_BYTES)
}

/// What a value takes in an SQLite record, at most: a type of a byte or as long as a length in
/// five, and itself.
fn value_bytes(value: Value<'_>) -> u64 {
    match value {
        Value::Null => 1,
        Value::Integer(integer) => 1 + integer_bytes(integer),
        Value::Real(_) => 1 + 8,
        Value::Text(bytes) | Value::Blob(bytes) if bytes.len() < 58 => 1 + bytes.len() as u64,
        Value::Text(bytes) | Value::Blob(bytes) => 5 + bytes.len() as u64,
    }
}

fn integer_bytes(integer: i64) -> u64 {
    match 65 - integer.unsigned_abs().leading_zeros() {
        ..=32 => 4,
        33..=48 => 6,
        _ => 8,
    }
}
