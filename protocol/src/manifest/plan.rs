//! What is to be sent: the tables, which are the unit of proof, and the parts, which are the unit
//! of sending, acknowledgement and resumption.

use minicbor::{Decode, Encode};

use super::Engine;
use crate::{
    close::Code,
    codec,
    error::{Error, Result},
    id::{PartIndex, TableIndex},
    limits::{NAME_BYTES_MAX, PARTS_MAX, PLAN_BYTES_MAX, TABLES_MAX},
};

/// What a part holds. All parts of one section are loaded before the next, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Section {
    /// Definitions that must exist before the rows.
    #[n(0)]
    PreData,
    /// Rows of one table.
    #[n(1)]
    Data,
    /// Definitions that come after the rows: indexes, triggers, views.
    #[n(2)]
    PostData,
    /// Bytes of a dump, a file or a program, whose meaning Sealift does not know. Such a part is
    /// the only one.
    #[n(3)]
    Opaque,
}

impl Section {
    /// The number of sections, which bounds the list in a declaration.
    pub const COUNT: usize = 4;
}

/// One table whose rows are moved: the unit of proof.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PlannedTable {
    /// The table's schema, if the engine has schemas; at most [`NAME_BYTES_MAX`] bytes.
    #[n(0)]
    pub schema: Option<String>,
    /// The table's name, which may be empty; at most [`NAME_BYTES_MAX`] bytes.
    #[n(1)]
    pub name: String,
    /// Whether it is a table of the engine's own, such as one of statistics. A database that has
    /// only such tables has nothing to move.
    #[n(2)]
    pub internal: bool,
    /// Whether some of its rows may be missing because the sender's operator chose so. The
    /// condition itself is never in a plan: it may hold values.
    #[n(3)]
    pub filtered: Option<Filtered>,
}

/// The rows of a table were chosen by a condition of the sender's operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Filtered {
    /// Rows that do not meet it stay where they are.
    #[n(0)]
    ByCondition,
}

/// A range of a table's rows by their place in the table. The engine defines places: the block of a
/// heap, for example, or the number of a boundary between keys. They are never values of a key,
/// since the plan is in the receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Range {
    /// The first place in the range.
    #[n(0)]
    pub from: u64,
    /// The first place after the range, or `None` up to the end of the table.
    #[n(1)]
    pub to: Option<u64>,
}

/// One part: the unit of scheduling, retry and commit.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PlannedPart {
    /// What the part holds.
    #[n(0)]
    pub section: Section,
    /// The table whose rows it holds, in the section data and in no other.
    #[n(1)]
    pub table: Option<TableIndex>,
    /// The range of the table, if it is not the whole table.
    #[n(2)]
    pub range: Option<Range>,
    /// An estimate of the number of rows, if the source has one; used for progress only.
    #[n(3)]
    pub rows_estimate: Option<u64>,
    /// An estimate of the bytes of plaintext, if the source has one; used for progress only.
    #[n(4)]
    pub bytes_estimate: Option<u64>,
}

/// What the sender's operator has allowed about an empty source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Empty {
    /// There may be nothing to move.
    #[n(0)]
    Allowed,
}

/// What a transfer consists of. Part `n` of the transfer is `parts[n]`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Plan {
    /// The engine that both ends must have.
    #[n(0)]
    pub engine: Engine,
    /// The tables whose rows are moved, at most [`TABLES_MAX`].
    #[n(1)]
    #[cbor(decode_with = "codec::bounded::<_, _, TABLES_MAX>")]
    pub tables: Vec<PlannedTable>,
    /// 1 to [`PARTS_MAX`] parts, in the order of their sections.
    #[n(2)]
    #[cbor(decode_with = "codec::bounded::<_, _, PARTS_MAX>")]
    pub parts: Vec<PlannedPart>,
    /// Whether the source may be empty: otherwise a receiver does not publish an empty load.
    #[n(3)]
    pub empty: Option<Empty>,
    /// How many tables of the source are not moved because the sender's operator chose so; never
    /// zero. Neither their rows nor their definitions are in the target.
    #[n(4)]
    pub left_out: Option<u32>,
    /// Whether the sender's operator chose to move no rows.
    #[n(5)]
    pub rows: Option<RowsMoved>,
}

/// Which rows of a database with tables are moved, if not all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum RowsMoved {
    /// None: the plan has definitions and no table.
    #[n(0)]
    None,
}

impl PlannedTable {
    /// A table without a schema.
    pub fn named(name: &str) -> Self {
        Self { schema: None, name: name.to_owned(), internal: false, filtered: None }
    }

    fn check(&self) -> Result<()> {
        // A name may be empty: SQLite has tables of that name.
        let fits = |name: &str| name.len() <= NAME_BYTES_MAX;
        match fits(&self.name) && self.schema.as_deref().is_none_or(fits) {
            true => Ok(()),
            false => Err(Error::new(Code::PlanRefused, "length of a table's name")),
        }
    }

    /// `schema.name`, or the name alone. It is ambiguous if a name has a dot, and so only for
    /// display.
    pub fn full_name(&self) -> String {
        self.schema.as_ref().map_or_else(|| self.name.clone(), |schema| format!("{schema}.{}", self.name))
    }
}

impl PlannedPart {
    /// A part that holds no rows of a table.
    pub fn of_section(section: Section) -> Self {
        Self { section, table: None, range: None, rows_estimate: None, bytes_estimate: None }
    }

    /// A part that holds all rows of a table.
    pub fn of_table(table: TableIndex) -> Self {
        Self { table: Some(table), ..Self::of_section(Section::Data) }
    }
}

/// How much of a table is covered by the parts so far.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Covered {
    /// Up to this place.
    UpTo(u64),
    All,
}

impl Covered {
    /// The ranges of a table follow each other without a gap, and the last has no end. A table that
    /// is not divided has one part without a range, so that a plan has one encoding.
    fn add(self, range: Option<Range>) -> Option<Self> {
        match (self, range) {
            (Self::UpTo(0), None) => Some(Self::All),
            (Self::UpTo(place), Some(Range { from, to: Some(to) })) if from == place && from < to => {
                Some(Self::UpTo(to))
            }
            (Self::UpTo(place), Some(Range { from, to: None })) if from == place && from > 0 => Some(Self::All),
            _ => None,
        }
    }
}

impl Plan {
    /// The plan of one opaque part.
    pub fn opaque(engine: Engine, bytes_estimate: Option<u64>) -> Self {
        let part = PlannedPart { bytes_estimate, ..PlannedPart::of_section(Section::Opaque) };
        Self { engine, tables: Vec::new(), parts: vec![part], empty: None, left_out: None, rows: None }
    }

    /// Checks the rules of every plan (`docs/protocol.md`, section 5.2): it is bounded and not
    /// empty, its sections are in order and declared by the engine, and its parts cover each table
    /// exactly once. Fails with `PlanRefused`.
    pub fn check(&self) -> Result<()> {
        let refused = |check| Err(Error::new(Code::PlanRefused, check));
        self.engine.check()?;
        if self.parts.is_empty() || self.parts.len() > PARTS_MAX || self.tables.len() > TABLES_MAX {
            return refused("number of parts");
        }
        self.tables.iter().try_for_each(PlannedTable::check)?;
        if codec::encode(self).len() > PLAN_BYTES_MAX {
            return refused("length of the plan");
        }
        if !self.parts.is_sorted_by_key(|part| part.section) {
            return refused("order of parts");
        }
        let capabilities = &self.engine.capabilities;
        if !self.parts.iter().all(|part| capabilities.has(part.section)) {
            return refused("a section that the engine does not have");
        }
        if capabilities.has(Section::Opaque) && self.parts.len() != 1 {
            return refused("number of parts");
        }
        self.check_choice()?;
        self.check_tables()
    }

    /// What the operator chose can be chosen of an engine with tables, and is written in one way.
    fn check_choice(&self) -> Result<()> {
        let has_tables = self.engine.capabilities.has(Section::Data);
        let is_filtered = self.tables.iter().any(|table| table.filtered.is_some());
        let is_chosen = self.left_out.is_some() || self.rows.is_some() || is_filtered;
        let contradicts = self.rows == Some(RowsMoved::None) && !self.tables.is_empty();
        match is_chosen && !has_tables || self.left_out == Some(0) || contradicts {
            true => Err(Error::new(Code::PlanRefused, "what was left out")),
            false => Ok(()),
        }
    }

    fn check_tables(&self) -> Result<()> {
        let refused = |check, part| Err(Error::new(Code::PlanRefused, check).at_part(part));
        let mut covered = vec![Covered::UpTo(0); self.tables.len()];
        for (part, index) in self.parts.iter().zip(0..) {
            let index = PartIndex(index);
            let table = match (part.section == Section::Data, part.table) {
                (true, Some(table)) => table,
                (false, None) if part.range.is_none() => continue,
                _ => return refused("table of a part", index),
            };
            if part.range.is_some() && !self.engine.capabilities.ranges {
                return refused("a range that the engine does not have", index);
            }
            let Some(covered) = covered.get_mut(table.0 as usize) else { return refused("no such table", index) };
            match covered.add(part.range) {
                Some(more) => *covered = more,
                None => return refused("range of a part", index),
            }
        }
        match covered.iter().all(|covered| *covered == Covered::All) {
            true => Ok(()),
            false => Err(Error::new(Code::PlanRefused, "a table whose parts are not all there")),
        }
    }

    /// Whether nothing is moved: no table but the engine's own or, without tables, not one byte.
    /// Definitions are something where nothing else was to be moved.
    pub fn moves_nothing(&self, plain_bytes: u64) -> bool {
        match self.engine.capabilities.has(Section::Data) {
            true => self.rows.is_none() && self.tables.iter().all(|table| table.internal),
            false => plain_bytes == 0,
        }
    }

    /// The section of a part, or `None` if the plan has no such part.
    pub fn section(&self, part: PartIndex) -> Option<Section> {
        self.parts.get(part.0 as usize).map(|planned| planned.section)
    }

    /// The table whose rows a part holds, if it holds rows.
    pub fn table_of(&self, part: PartIndex) -> Option<&PlannedTable> {
        let table = self.parts.get(part.0 as usize)?.table?;
        self.tables.get(table.0 as usize)
    }

    /// The hash by which a manifest and a resumed transfer refer to this plan. Estimates are left
    /// out.
    pub fn hash(&self) -> [u8; 32] {
        let mut bare = self.clone();
        for part in &mut bare.parts {
            part.rows_estimate = None;
            part.bytes_estimate = None;
        }
        blake3::derive_key("sealift/1 2026-11 plan hash", &codec::encode(&bare))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Capabilities, CheckKind, ReadBack};

    /// An engine that has everything.
    fn engine() -> Engine {
        let sections = vec![Section::PreData, Section::Data, Section::PostData];
        let capabilities =
            Capabilities { sections, ranges: true, read_back: ReadBack::Rows, checks: vec![CheckKind::Catalogue] };
        Engine { name: "test-1".into(), format: 1, capabilities }
    }

    fn part(table: u32, from: u64, to: Option<u64>) -> PlannedPart {
        PlannedPart { range: Some(Range { from, to }), ..PlannedPart::of_table(TableIndex(table)) }
    }

    /// Two tables, of which one is divided, and their ranges mixed.
    fn plan() -> Plan {
        let tables =
            vec![PlannedTable::named("a"), PlannedTable { schema: Some("s".into()), ..PlannedTable::named("b") }];
        let parts = vec![
            PlannedPart::of_section(Section::PreData),
            part(1, 0, Some(8)),
            PlannedPart::of_table(TableIndex(0)),
            part(1, 8, Some(12)),
            part(1, 12, None),
            PlannedPart::of_section(Section::PostData),
        ];
        Plan { engine: engine(), tables, parts, empty: None, left_out: None, rows: None }
    }

    type Change = fn(&mut Plan);

    #[test]
    fn a_plan_covers_each_table_once() {
        assert_eq!(plan().check(), Ok(()));
        let cases: [(&str, &str, Change); 13] = [
            ("a table without a part", "a table whose parts are not all there", |plan| {
                plan.parts.remove(2);
            }),
            ("a table without its last range", "a table whose parts are not all there", |plan| {
                plan.parts.remove(4);
            }),
            ("a gap", "range of a part", |plan| plan.parts[3] = part(1, 9, Some(12))),
            ("an overlap", "range of a part", |plan| plan.parts[3] = part(1, 7, Some(12))),
            ("ranges out of order", "range of a part", |plan| plan.parts.swap(1, 3)),
            ("an empty range", "range of a part", |plan| plan.parts.insert(3, part(1, 8, Some(8)))),
            ("more behind the end", "range of a part", |plan| plan.parts.insert(5, part(1, 13, None))),
            ("a table twice", "range of a part", |plan| plan.parts.insert(3, PlannedPart::of_table(TableIndex(0)))),
            ("one range of everything", "range of a part", |plan| plan.parts[2] = part(0, 0, None)),
            ("a table that is not there", "no such table", |plan| plan.parts[2].table = Some(TableIndex(2))),
            ("data of no table", "table of a part", |plan| plan.parts[2].table = None),
            ("a table of definitions", "table of a part", |plan| plan.parts[0].table = Some(TableIndex(0))),
            ("a range of definitions", "table of a part", |plan| {
                plan.parts[0].range = Some(Range { from: 0, to: None });
            }),
        ];
        refuse(&cases);
    }

    #[test]
    fn a_plan_keeps_to_what_its_engine_declares() {
        let cases: [(&str, &str, Change); 12] = [
            ("ranges", "a range that the engine does not have", |plan| plan.engine.capabilities.ranges = false),
            ("a section", "a section that the engine does not have", |plan| {
                plan.engine.capabilities.sections = vec![Section::Data];
            }),
            ("sections out of order", "capabilities of the engine", |plan| {
                plan.engine.capabilities.sections.swap(0, 1);
            }),
            ("bytes beside tables", "capabilities of the engine", |plan| {
                plan.engine.capabilities.sections.push(Section::Opaque);
            }),
            ("no section", "capabilities of the engine", |plan| plan.engine.capabilities.sections.clear()),
            ("tables that are not read back", "capabilities of the engine", |plan| {
                plan.engine.capabilities.read_back = ReadBack::None;
            }),
            ("bytes of tables", "capabilities of the engine", |plan| {
                plan.engine.capabilities.read_back = ReadBack::Bytes;
            }),
            ("the checks of an image", "capabilities of the engine", |plan| {
                plan.engine.capabilities.checks = vec![CheckKind::Image];
            }),
            ("no name", "name or format of the engine", |plan| plan.engine.name.clear()),
            ("a name for a terminal", "name or format of the engine", |plan| plan.engine.name.push('\u{1b}')),
            ("a long name", "name or format of the engine", |plan| plan.engine.name = "x".repeat(33)),
            ("no format", "name or format of the engine", |plan| plan.engine.format = 0),
        ];
        refuse(&cases);
    }

    fn refuse(cases: &[(&str, &str, Change)]) {
        for (name, check, change) in cases {
            let mut plan = plan();
            change(&mut plan);
            let refused = plan.check().expect_err(name);
            assert_eq!((refused.code, refused.check), (Code::PlanRefused, *check), "{name}");
        }
    }

    #[test]
    fn opaque_bytes_are_one_part() {
        let mut engine = engine();
        engine.capabilities =
            Capabilities { sections: vec![Section::Opaque], ranges: false, read_back: ReadBack::None, checks: vec![] };
        let mut plan = Plan::opaque(engine, None);
        assert_eq!(plan.check(), Ok(()));
        plan.parts.push(PlannedPart::of_section(Section::Opaque));
        assert_eq!(plan.check().map_err(|error| error.check), Err("number of parts"));
    }

    #[test]
    fn another_version_of_an_engine_is_told_apart() {
        let differs = |change: fn(&mut Engine)| {
            let mut peer = engine();
            change(&mut peer);
            engine().check_same(&peer).map_err(|error| error.check)
        };
        assert_eq!(differs(|_| ()), Ok(()));
        assert_eq!(differs(|peer| peer.name.push('x')), Err("another engine"));
        assert_eq!(differs(|peer| peer.format = 2), Err("another version of the engine's format"));
        assert_eq!(differs(|peer| peer.capabilities.ranges = false), Err("other capabilities of the engine"));
    }
}
