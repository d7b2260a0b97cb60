//! The parts of a plan: the documents, the tables, and the ranges of large tables.

use rusqlite::Connection;
use sealift_protocol::{
    id::TableIndex,
    limits::PARTS_MAX,
    manifest::{PlannedPart, Range, Section},
};

use super::{catalogue::SourceTable, divide::Divider};
use crate::{document::is_internal, quote, statement::RowidRange};

/// The parts beside those of rows: what comes before and after them.
const DOCUMENTS: usize = 2;

/// A part of the section data.
pub struct RowsPart {
    pub planned: PlannedPart,
    /// The place of its table.
    pub table: usize,
    /// The whole table, if there is none. It stays here: the plan has the numbers of boundaries.
    pub rowids: Option<RowidRange>,
}

/// The plan's parts with rows. The estimates are for progress alone: the span of rowids, and the
/// file's size in that proportion.
pub fn rows_parts(
    connection: &Connection,
    tables: &[SourceTable],
    range_bytes: u64,
) -> rusqlite::Result<Vec<RowsPart>> {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let file_bytes = pragma("page_count")?.unsigned_abs().saturating_mul(pragma("page_size")?.unsigned_abs());
    let boundaries_max = PARTS_MAX.saturating_sub(tables.len() + DOCUMENTS);
    let mut divider = Divider::new(connection, range_bytes, boundaries_max)?;
    let mut parts = Vec::with_capacity(tables.len());
    for (place, table) in tables.iter().enumerate() {
        let boundaries = match &mut divider {
            Some(divider) if may_be_divided(table) => divider.boundaries(&table.table.name)?,
            _ => Vec::new(),
        };
        let span = rowid_span(connection, table)?;
        parts.extend(parts_of(place, table, &boundaries, |first, last| rows_estimate(span, first, last, file_bytes)));
    }
    let rows_total = parts.iter().filter_map(|part| part.planned.rows_estimate).fold(0u64, u64::saturating_add);
    let share = |rows: u64| (u128::from(file_bytes) * u128::from(rows) / u128::from(rows_total.max(1))) as u64;
    for part in &mut parts {
        part.planned.bytes_estimate = part.planned.rows_estimate.map(share);
    }
    Ok(parts)
}

/// A table WITHOUT ROWID is not divided: its b-tree has keys of any type. Nor is one of the
/// engine's own, which is small, and is cleared before its first row is loaded.
fn may_be_divided(table: &SourceTable) -> bool {
    table.rowid_name.is_some() && !is_internal(&table.table.name)
}

fn parts_of(
    place: usize,
    table: &SourceTable,
    boundaries: &[i64],
    rows_estimate: impl Fn(i64, i64) -> Option<u64>,
) -> Vec<RowsPart> {
    let whole = PlannedPart::of_table(TableIndex(place as u32));
    let (Some(rowid), false) = (table.rowid_name, boundaries.is_empty()) else {
        let planned = PlannedPart { rows_estimate: rows_estimate(i64::MIN, i64::MAX), ..whole };
        return vec![RowsPart { planned, table: place, rowids: None }];
    };
    let ranges = 0..=boundaries.len();
    let part = |number: usize| {
        let first = number.checked_sub(1).map_or(i64::MIN, |before| boundaries[before]);
        let last = boundaries.get(number).map_or(i64::MAX, |next| next - 1);
        let to = boundaries.get(number).map(|_| number as u64 + 1);
        let range = Some(Range { from: number as u64, to });
        let planned = PlannedPart { range, rows_estimate: rows_estimate(first, last), ..whole.clone() };
        RowsPart { planned, table: place, rowids: Some(RowidRange { rowid, first, last }) }
    };
    ranges.map(part).collect()
}

/// All parts, in their order.
pub fn planned_parts(rows: &[RowsPart]) -> Vec<PlannedPart> {
    let first = PlannedPart::of_section(Section::PreData);
    let last = PlannedPart::of_section(Section::PostData);
    let rows = rows.iter().map(|part| part.planned.clone());
    [first].into_iter().chain(rows).chain([last]).collect()
}

/// The lowest and the highest rowid of a table.
#[derive(Clone, Copy)]
enum Span {
    /// It has no rowid.
    Unknown,
    /// It has no row.
    Empty,
    Rowids(i64, i64),
}

/// Counting would be a scan; the highest and lowest rowid are two look-ups.
fn rowid_span(connection: &Connection, table: &SourceTable) -> rusqlite::Result<Span> {
    let Some(rowid) = table.rowid_name else { return Ok(Span::Unknown) };
    let (rowid, name) = (rowid.name(), quote(&table.table.name));
    // Two subqueries, since SQLite makes a look-up of min or max only where it stands alone.
    let sql = format!("SELECT (SELECT min({rowid}) FROM main.{name}), (SELECT max({rowid}) FROM main.{name})");
    let span: (Option<i64>, Option<i64>) = connection.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(match span {
        (Some(lowest), Some(highest)) => Span::Rowids(lowest, highest),
        _ => Span::Empty,
    })
}

fn rows_estimate(span: Span, first: i64, last: i64, file_bytes: u64) -> Option<u64> {
    let (lowest, highest) = match span {
        Span::Unknown => return None,
        Span::Empty => return Some(0),
        Span::Rowids(lowest, highest) => (lowest, highest),
    };
    // A row takes at least four bytes of its page: a wider span has gaps and says nothing.
    if highest.abs_diff(lowest).saturating_add(1) > file_bytes / 4 {
        return None;
    }
    let (first, last) = (first.max(lowest), last.min(highest));
    Some(if first > last { 0 } else { last.abs_diff(first).saturating_add(1) })
}
