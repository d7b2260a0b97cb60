//! Where a large table is divided.
//!
//! A rowid table is a b-tree, whose interior pages hold rowids that lie between its leaves. The
//! boundaries of ranges are taken from them, so that no row is read to find them. How much lies
//! between two of them is estimated from single leaves, by the lengths that they state of their
//! rows: what is on overflow pages counts.
//!
//! The format is that of "B-tree Pages" in SQLite's file format. The pages are read through
//! `sqlite_dbpage` in the transaction in which the rows are read. The same pages always give the
//! same boundaries.
//!
//! Whatever the pages say, ranges between rising rowids hold every row once: a damaged page makes
//! worse ranges, or none, and is found when the rows are read.

use std::collections::HashMap;

use rusqlite::{Connection, Statement};

/// What a range holds, as far as is known: large enough that starting a part costs nothing, small
/// enough that losing one does not either.
pub const RANGE_BYTES: u64 = 128 << 20;

/// Ranges of all tables. Of a larger database they hold more.
const RANGES_MAX: usize = 4096;

/// The last range holds no less of a range than this, or goes to the one before.
const LAST_SHARE: u64 = 2;

/// What is estimated at once is at most such a share of a range, and what is estimated by the leaf
/// of a neighbour at most the other.
const UNIT_SHARE: u64 = 4;
const NEIGHBOUR_SHARE: u64 = 16;

/// Nor by that of one that is further away: some rows may have large values.
const NEIGHBOURS_MAX: u64 = 64;

/// As deep as SQLite descends.
const DEPTH_MAX: usize = 20;

/// Pages that are read for one page of the file, and for the smallest file. A tree that leads back
/// into itself ends here.
const READS_A_PAGE: u64 = 4;
const READS_MIN: u64 = 64;

const INTERIOR: u8 = 0x05;
const LEAF: u8 = 0x0d;

/// What divides the tables of one database.
pub struct Divider<'a> {
    pages: Statement<'a>,
    /// Of every table, by its name.
    roots: HashMap<String, u32>,
    range_bytes: u64,
    /// Boundaries that may still be given.
    boundaries_left: usize,
    reads_left: u64,
}

impl<'a> Divider<'a> {
    /// Gives at most so many boundaries for all tables. `None` where no table can be large.
    pub fn new(connection: &'a Connection, range_bytes: u64, boundaries_max: usize) -> rusqlite::Result<Option<Self>> {
        let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let pages = pragma("page_count")?.unsigned_abs();
        let file_bytes = pages.saturating_mul(pragma("page_size")?.unsigned_abs());
        let boundaries_max = boundaries_max.min(RANGES_MAX);
        if file_bytes <= range_bytes || boundaries_max == 0 {
            return Ok(None);
        }
        let mut tables = connection
            .prepare("SELECT name, rootpage FROM main.sqlite_schema WHERE type = 'table' AND rootpage > 1")?;
        let roots = tables.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
        Ok(Some(Self {
            pages: connection.prepare("SELECT data FROM sqlite_dbpage('main') WHERE pgno = ?1")?,
            roots,
            range_bytes: range_bytes.max(file_bytes / boundaries_max as u64),
            boundaries_left: boundaries_max,
            reads_left: pages.saturating_mul(READS_A_PAGE).max(READS_MIN),
        }))
    }

    /// The first rowid of each range of a rowid table but the first, in order.
    pub fn boundaries(&mut self, table: &str) -> rusqlite::Result<Vec<i64>> {
        let Some(&root) = self.roots.get(table) else { return Ok(Vec::new()) };
        let mut ranges = Ranges { boundaries: Vec::new(), bytes: 0 };
        let is_sound = self.divide(root, None, DEPTH_MAX, &mut ranges)?;
        let Ranges { mut boundaries, bytes } = ranges;
        if bytes < self.range_bytes / LAST_SHARE {
            boundaries.pop();
        }
        if !is_sound || !boundaries.is_sorted_by(|one, next| one < next) || boundaries.len() > self.boundaries_left {
            return Ok(Vec::new());
        }
        self.boundaries_left -= boundaries.len();
        Ok(boundaries)
    }

    /// Adds what is below `page`, of which `last` is the highest rowid, to the ranges. `false` if
    /// the tree is not what it should be.
    fn divide(&mut self, page: u32, last: Option<i64>, depth: usize, ranges: &mut Ranges) -> rusqlite::Result<bool> {
        let children = match self.page(page)? {
            Some(Page::Leaf(rows)) => {
                rows.iter().for_each(|row| ranges.add(row.bytes, Some(row.rowid), self.range_bytes));
                return Ok(true);
            }
            Some(Page::Interior(children)) if depth > 0 => children,
            _ => return Ok(false),
        };
        let mut at = 0;
        while let Some(child) = children.get(at) {
            let Some(bytes) = self.estimate(child.page, depth - 1)? else { return Ok(false) };
            if bytes > self.range_bytes / UNIT_SHARE {
                if !self.divide(child.page, child.last.or(last), depth - 1, ranges)? {
                    return Ok(false);
                }
                at += 1;
                continue;
            }
            // Its neighbours are taken to be like it.
            let alike = (self.range_bytes / NEIGHBOUR_SHARE / bytes.max(1)).clamp(1, NEIGHBOURS_MAX);
            let alike = (alike as usize).min(children.len() - at);
            at += alike;
            ranges.add(bytes.saturating_mul(alike as u64), children[at - 1].last.or(last), self.range_bytes);
        }
        Ok(true)
    }

    /// The bytes of the rows below `page`, by those of one leaf in its middle.
    fn estimate(&mut self, page: u32, depth: usize) -> rusqlite::Result<Option<u64>> {
        let children = match self.page(page)? {
            Some(Page::Leaf(rows)) => return Ok(Some(rows.iter().fold(0, |sum, row| sum.saturating_add(row.bytes)))),
            Some(Page::Interior(children)) if depth > 0 => children,
            _ => return Ok(None),
        };
        let Some(child) = children.get(children.len() / 2) else { return Ok(None) };
        let bytes = self.estimate(child.page, depth - 1)?;
        Ok(bytes.map(|bytes| bytes.saturating_mul(children.len() as u64)))
    }

    fn page(&mut self, number: u32) -> rusqlite::Result<Option<Page>> {
        let Some(left) = self.reads_left.checked_sub(1) else { return Ok(None) };
        self.reads_left = left;
        let mut rows = self.pages.query([number])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        Ok(row.get_ref(0)?.as_blob().ok().and_then(Page::parse))
    }
}

/// The ranges of one table so far.
struct Ranges {
    boundaries: Vec<i64>,
    /// In the range that is not at its end.
    bytes: u64,
}

impl Ranges {
    /// Adds rows of which `last` is the highest rowid; behind the last of all there is no boundary.
    fn add(&mut self, bytes: u64, last: Option<i64>, range_bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes >= range_bytes
            && let Some(boundary) = last.and_then(|last| last.checked_add(1))
        {
            self.boundaries.push(boundary);
            self.bytes = 0;
        }
    }
}

/// A page of a table's b-tree.
enum Page {
    Interior(Vec<Child>),
    Leaf(Vec<StoredRow>),
}

struct Child {
    page: u32,
    /// No rowid below it is higher; `None` for the rightmost.
    last: Option<i64>,
}

struct StoredRow {
    rowid: i64,
    bytes: u64,
}

impl Page {
    /// `None` for a page of another kind, or one that is damaged.
    fn parse(page: &[u8]) -> Option<Self> {
        let cells = u16_at(page, 3)?;
        let cell = |header_bytes: usize, index: u16| {
            let at = u16_at(page, header_bytes + 2 * usize::from(index))?;
            page.get(usize::from(at)..)
        };
        match *page.first()? {
            INTERIOR => {
                let child = |index| {
                    let cell = cell(12, index)?;
                    let (last, _) = varint(cell.get(4..)?)?;
                    Some(Child { page: u32_at(cell, 0)?, last: Some(last.cast_signed()) })
                };
                let rightmost = Child { page: u32_at(page, 8)?, last: None };
                let children = (0..cells).map(child).collect::<Option<Vec<_>>>()?;
                Some(Self::Interior(children.into_iter().chain([rightmost]).collect()))
            }
            LEAF => {
                let row = |index| {
                    let cell = cell(8, index)?;
                    let (bytes, length) = varint(cell)?;
                    let (rowid, _) = varint(cell.get(length..)?)?;
                    Some(StoredRow { rowid: rowid.cast_signed(), bytes })
                };
                (0..cells).map(row).collect::<Option<_>>().map(Self::Leaf)
            }
            _ => None,
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// SQLite's integer of 1 to 9 bytes, and how many it has: seven bits in each, all eight in the
/// ninth.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut number = 0u64;
    for (place, &byte) in bytes.iter().take(8).enumerate() {
        number = number << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((number, place + 1));
        }
    }
    Some((number << 8 | u64::from(*bytes.get(8)?), 9))
}
