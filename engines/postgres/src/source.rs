//! A database as a source.
//!
//! One session holds the snapshot: it locks every table that is to be read, in the mode that keeps
//! out TRUNCATE and rewrites alone, takes its snapshot when it has the locks, and exports it.
//! `pg_dump` and the readers use that snapshot, each in a session of its own. For a transfer, that
//! session belongs to a process of its own ([`crate::snapshot_holder`]), which a sender that was
//! killed leaves behind, with what was planned.

mod catalogue;
mod columns;
mod database;
mod dump;
pub(crate) mod findings;
mod keeper;
mod kept_plan;
mod large_objects;
mod left_out;
pub(crate) mod moment;
mod parts;
mod pattern;
mod reader;
mod recompute;
mod row_filters;
mod views;

use std::{num::NonZero, sync::Arc};

use minicbor::bytes::ByteVec;
use sealift_engine_api::{
    Filter, Finding, KeepSnapshot, PartReader, Planned, Snapshot, SnapshotAge, Source, StopToken, refuse_errors,
};
use sealift_protocol::{
    close::Code,
    failure::{Failure, Outcome},
    limits::{PARTS_MAX, TABLES_MAX},
    manifest::{Filtered, Plan, PlannedPart, PlannedTable, RowsMoved, Section},
};

use self::{
    catalogue::{Catalogue, SourceTable},
    keeper::Keeper,
    kept_plan::{KeptPlan, Stored},
    parts::{Part, Sizes},
    reader::SnapshotReader,
    row_filters::Conditions,
};
pub(crate) use self::{left_out::LeftOut, moment::Moment};
use crate::{
    client::{Address, At, Connection, End, Interrupts, Result},
    document::{DOCUMENT_BYTES_MAX, FinishDocument, SchemaDocument, Table},
    engine, inventory,
    preflight::{
        self,
        server::{VERSION_END, VERSION_MIN},
    },
    session,
    sql::{Names, literal},
};

/// Sessions that read at once. More would keep more of the source's processors busy than a host
/// that is in use can spare.
const READERS_MAX: NonZero<u16> = NonZero::new(8).expect("8 is not 0");

/// A row of a catalogue: a definition, or the bounds of a partition.
const CATALOGUE_ROW_BYTES_MAX: usize = 32 << 20;

/// A source that reads `postgres://...`.
pub struct PostgresSource {
    address: Address,
    sizes: Sizes,
    filter: Filter,
    keep: Option<KeepSnapshot>,
    readers_max: NonZero<u16>,
}

impl PostgresSource {
    /// Connects to nothing yet.
    pub fn new(address: Address) -> Self {
        Self { address, sizes: Sizes::default(), filter: Filter::default(), keep: None, readers_max: READERS_MAX }
    }

    /// Not all tables are moved.
    pub fn with_filter(self, filter: Filter) -> Self {
        Self { filter, ..self }
    }

    /// The snapshot is held by a process of its own, or there is one already.
    pub fn with_kept_snapshot(self, keep: Option<KeepSnapshot>) -> Self {
        Self { keep, ..self }
    }

    /// So many sessions read at once.
    pub fn with_readers(self, readers_max: Option<NonZero<u16>>) -> Self {
        Self { readers_max: readers_max.unwrap_or(self.readers_max), ..self }
    }

    /// Tables of more than so many bytes are read in ranges of about as many.
    pub fn with_range_bytes(self, range_bytes: u64) -> Self {
        Self { sizes: Sizes { range_bytes }, ..self }
    }
}

impl Source for PostgresSource {
    fn check(&self, stop: Arc<dyn StopToken>) -> Outcome<Vec<Finding>> {
        let interrupts = Interrupts::default();
        let raised = interrupts.clone();
        stop.wakes(Box::new(move || raised.interrupt()));
        let found = open(&self.address, &interrupts)
            .and_then(|mut connection| preflight::source::look(&mut connection, &self.filter));
        stop.check()?;
        found
    }

    fn plan(self: Box<Self>, stop: Arc<dyn StopToken>) -> Outcome<Planned> {
        let interrupts = Interrupts::default();
        let raised = interrupts.clone();
        stop.wakes(Box::new(move || raised.interrupt()));
        let planned = self.look(interrupts, &*stop);
        // What the interruption made of it is not the reason.
        stop.check()?;
        planned
    }
}

impl PostgresSource {
    fn look(&self, interrupts: Interrupts, stop: &dyn StopToken) -> Outcome<Planned> {
        let mut keeper = Keeper::open(&self.address, &self.filter, self.keep.as_ref(), &interrupts, stop)?;
        if let Some(planned) = keeper.planned.take() {
            let kept = KeptPlan::from_bytes(&planned)?;
            let findings = vec![Finding::note("snapshot-held", resumed(keeper.age()))];
            return self.planned(kept, findings, None, keeper, interrupts);
        }
        let mut connection = at_snapshot(&self.address, &keeper.moment.exported, &interrupts)?;
        let (kept, findings) = self.look_at(&mut connection, &keeper.moment, stop)?;
        let refusal = refuse_errors(&findings).err();
        if refusal.is_none() {
            keeper.keep(kept.to_bytes())?;
        }
        self.planned(kept, findings, refusal, keeper, interrupts)
    }

    /// Reads the catalogue, and plans what there is.
    fn look_at(
        &self,
        connection: &mut Connection,
        moment: &Moment,
        stop: &dyn StopToken,
    ) -> Outcome<(KeptPlan, Vec<Finding>)> {
        let server_version = connection.server_version();
        let left_out = &moment.left_out;
        let mut catalogue = Catalogue::read(connection, moment)?;
        recompute::leave_out(connection, &moment.relations, &self.filter.recompute, &mut catalogue.tables)?;
        if self.filter.definitions_only {
            catalogue.leave_out_rows();
        }
        let mut findings = findings::all(connection, &catalogue, left_out, self.filter.definitions_only)?;
        let encoding = catalogue.database.encoding.clone();
        let conditions = row_filters::find(connection, &self.filter.rows, moment, &catalogue.tables, &encoding)?;
        findings.append(&mut row_filters::findings(connection, &catalogue.tables, &conditions)?);
        let parts = parts::divide(&catalogue, self.sizes, server_version);
        let listing = "listing the objects of the database";
        let mut objects = inventory::read(connection).at(End::Source, listing)?;
        left_out.retain_moved(connection, &mut objects).at(End::Source, listing)?;
        // The schema of a source that is refused need not be dumped.
        let archive = match refuse_errors(&findings) {
            Ok(()) => dump::schema(&self.address, server_version, &moment.exported, left_out, stop)?,
            Err(_) => Vec::new(),
        };
        let plan = Plan {
            left_out: u32::try_from(left_out.count()).ok().filter(|count| *count > 0),
            rows: self.filter.definitions_only.then_some(RowsMoved::None),
            ..plan(&catalogue, &parts, &conditions)
        };
        check_size(&plan)?;
        let stored = catalogue.tables.iter().map(|table| table.stored.clone()).collect();
        let tables = catalogue.tables.into_iter().map(|table| table.table).collect();
        let Catalogue { database, extensions, .. } = catalogue;
        let schema = SchemaDocument { server_version, database, tables, archive, extensions };
        let finish = FinishDocument {
            sequences: catalogue.sequences,
            materialized_views: catalogue.materialized_views,
            objects,
            large_objects: catalogue.large_objects,
        };
        let schema = bounded(schema.to_bytes())?;
        let finish = bounded(finish.to_bytes())?;
        Ok((KeptPlan { plan, schema, finish, stored, conditions }, findings))
    }

    fn planned(
        &self,
        kept: KeptPlan,
        findings: Vec<Finding>,
        refusal: Option<Failure>,
        keeper: Keeper,
        interrupts: Interrupts,
    ) -> Outcome<Planned> {
        let KeptPlan { plan, schema, finish, stored, conditions } = kept;
        let SchemaDocument { tables, database, .. } = SchemaDocument::from_bytes(&schema)?;
        let names = Names::in_encoding(&database.encoding);
        let parts = plan.parts.iter().filter(|part| part.section == Section::Data).cloned().collect();
        let snapshot = HeldSnapshot {
            address: self.address.clone(),
            readers_max: self.readers_max,
            interrupts,
            schema: schema.into(),
            finish: finish.into(),
            read: ToRead { names, encoding: database.encoding, parts, tables, stored, conditions },
            refusal,
            keeper,
        };
        Ok(Planned { plan, findings, snapshot: Arc::new(PostgresSnapshot(Arc::new(snapshot))) })
    }
}

fn resumed(SnapshotAge { age, .. }: SnapshotAge) -> String {
    format!("the snapshot of the earlier run is still held, and is read on: it is {} s old", age.as_secs())
}

/// A session at a snapshot that another one has exported.
fn at_snapshot(address: &Address, exported: &str, interrupts: &Interrupts) -> Outcome<Connection> {
    let mut connection = open(address, interrupts)?;
    let begin =
        format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}", literal(exported));
    match connection.batch(&begin) {
        Ok(()) => Ok(connection),
        // The server has no such snapshot.
        Err(error) if matches!(error.sqlstate(), Some("22023" | "42704")) => Err(keeper::gone()),
        Err(error) => Err(error.at(End::Source, "sharing the snapshot of the source")),
    }
}

/// A session that reads, under the settings that both ends share.
pub(crate) fn open(address: &Address, interrupts: &Interrupts) -> Outcome<Connection> {
    let opened = || -> Result<Connection> {
        let mut connection = Connection::open(address, End::Source, CATALOGUE_ROW_BYTES_MAX)?;
        interrupts.add(connection.interrupt()?);
        connection.batch(&session::set_up(connection.server_version()))?;
        Ok(connection)
    };
    opened().at(End::Source, &format!("connecting to {}", address.shown()))
}

/// Whether this program knows servers of this version.
pub(crate) fn check_version(version: u32) -> Outcome {
    if (VERSION_MIN..VERSION_END).contains(&version) {
        return Ok(());
    }
    let what = format!("the source is a server of version {}, and this program moves 12 to 18", version / 10_000);
    Err(Failure::new(Code::SourceUnsuitable, what, "Upgrade the server, or this program."))
}

fn plan(catalogue: &Catalogue, parts: &[Part], conditions: &Conditions) -> Plan {
    let table = |(SourceTable { table, .. }, condition): (&SourceTable, &Option<String>)| PlannedTable {
        schema: Some(table.schema.clone()),
        filtered: condition.as_ref().map(|_| Filtered::ByCondition),
        ..PlannedTable::named(&table.name)
    };
    let tables = catalogue.tables.iter().zip(conditions).map(table).collect();
    let first = PlannedPart::of_section(Section::PreData);
    let last = PlannedPart::of_section(Section::PostData);
    let data = parts.iter().map(Part::planned);
    Plan {
        engine: engine::engine(),
        tables,
        parts: [first].into_iter().chain(data).chain([last]).collect(),
        empty: None,
        left_out: None,
        rows: None,
    }
}

fn check_size(plan: &Plan) -> Outcome {
    if plan.tables.len() <= TABLES_MAX && plan.parts.len() <= PARTS_MAX {
        return Ok(());
    }
    let what = format!("the source has {} tables, and a transfer has room for {}", plan.tables.len(), PARTS_MAX - 2);
    Err(Failure::new(Code::SourceUnsuitable, what, "Move it by pg_dump, with exec:."))
}

fn bounded(document: Vec<u8>) -> Outcome<ByteVec> {
    if document.len() <= DOCUMENT_BYTES_MAX {
        return Ok(document.into());
    }
    let what = format!(
        "the schema of the source has {} bytes, and a transfer has room for {DOCUMENT_BYTES_MAX}",
        document.len()
    );
    Err(Failure::new(Code::SourceUnsuitable, what, "Move it by pg_dump, with exec:."))
}

/// What the readers read.
struct ToRead {
    names: Names,
    encoding: String,
    /// Those of the section data.
    parts: Vec<PlannedPart>,
    tables: Vec<Table>,
    stored: Vec<Stored>,
    conditions: Conditions,
}

/// A snapshot and all that follows from it.
struct HeldSnapshot {
    address: Address,
    readers_max: NonZero<u16>,
    interrupts: Interrupts,
    schema: Vec<u8>,
    finish: Vec<u8>,
    read: ToRead,
    /// Why nothing of it is read.
    refusal: Option<Failure>,
    keeper: Keeper,
}

impl HeldSnapshot {
    /// A session at the snapshot.
    fn session(&self) -> Outcome<Connection> {
        at_snapshot(&self.address, &self.keeper.moment.exported, &self.interrupts).map_err(|failure| self.why(failure))
    }

    /// Everything was read: that what the locks keep out did not happen, and that they were held.
    fn check_unchanged(&self) -> Outcome {
        // Locks and snapshot end together.
        drop(self.session()?);
        let mut now = open(&self.address, &self.interrupts)?;
        self.keeper.moment.check_relations(&mut now)
    }

    /// If the snapshot is lost, that is why reading failed.
    fn why(&self, failure: Failure) -> Failure {
        self.keeper.lost().unwrap_or(failure)
    }
}

struct PostgresSnapshot(Arc<HeldSnapshot>);

impl Snapshot for PostgresSnapshot {
    fn readers_max(&self) -> usize {
        self.0.readers_max.get().into()
    }

    fn can_repeat(&self) -> bool {
        true
    }

    fn age(&self) -> Option<SnapshotAge> {
        Some(self.0.keeper.age())
    }

    fn reader(&self) -> Outcome<Box<dyn PartReader>> {
        match &self.0.refusal {
            None => Ok(Box::new(SnapshotReader::open(Arc::clone(&self.0))?)),
            Some(failure) => Err(failure.clone()),
        }
    }
}
