//! A database as a source.
//!
//! One session holds the snapshot: it locks every table that is to be read, in the mode that keeps
//! out TRUNCATE and rewrites alone, takes its snapshot when it has the locks, and exports it.
//! `pg_dump` and the readers use that snapshot, each in a session of its own.

mod catalogue;
mod columns;
mod database;
mod dump;
mod findings;
mod holder;
mod large_objects;
mod left_out;
mod parts;
mod pattern;
mod reader;
mod views;

use std::sync::{Arc, Mutex, PoisonError};

use sealift_engine_api::{Filter, PartReader, Planned, Snapshot, Source, StopToken, refuse_errors};
use sealift_protocol::{
    close::Code,
    failure::{Failure, Outcome},
    limits::{PARTS_MAX, TABLES_MAX},
    manifest::{Plan, PlannedPart, PlannedTable, Section},
};

use self::{
    catalogue::Catalogue,
    holder::Holder,
    parts::{Part, Sizes},
    reader::SnapshotReader,
};
use crate::{
    client::{Address, At, Connection, End, Interrupts, Result},
    document::{DOCUMENT_BYTES_MAX, FinishDocument, SchemaDocument},
    engine, inventory, session,
    sql::Names,
};

/// The oldest server that is read: all that a part of rows needs is there from 12 on.
const SERVER_VERSION_MIN: u32 = 120_000;
/// The newest whose catalogue this version knows, and the first that it does not.
const SERVER_VERSION_END: u32 = 190_000;

/// Sessions that read at once. More would keep more of the source's processors busy than a host
/// that is in use can spare.
const READERS_MAX: usize = 8;

/// A row of a catalogue: a definition, or the bounds of a partition.
const CATALOGUE_ROW_BYTES_MAX: usize = 32 << 20;

/// A source that reads `postgres://...`.
pub struct PostgresSource {
    address: Address,
    sizes: Sizes,
    filter: Filter,
}

impl PostgresSource {
    /// Connects to nothing yet.
    pub fn new(address: Address) -> Self {
        Self { address, sizes: Sizes::default(), filter: Filter::default() }
    }

    /// Not all tables are moved.
    pub fn with_filter(self, filter: Filter) -> Self {
        Self { filter, ..self }
    }

    /// Tables of more than so many bytes are read in ranges of about as many.
    pub fn with_range_bytes(self, range_bytes: u64) -> Self {
        Self { sizes: Sizes { range_bytes }, ..self }
    }
}

impl Source for PostgresSource {
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
        let connection = open(&self.address, &interrupts)?;
        check_version(connection.server_version())?;
        let mut holder = Holder::take(connection, &self.filter)?;
        let catalogue = Catalogue::read(&mut holder)?;
        let findings = findings::all(&mut holder.connection, &catalogue, &holder.left_out)?;
        let refusal = refuse_errors(&findings).err();
        let parts = parts::divide(&catalogue, self.sizes, holder.connection.server_version());
        let listing = "listing the objects of the database";
        let mut objects = inventory::read(&mut holder.connection).at(End::Source, listing)?;
        holder.left_out.retain_moved(&mut holder.connection, &mut objects).at(End::Source, listing)?;
        // The schema of a source that is refused need not be dumped.
        let archive = match refusal {
            None => {
                let version = holder.connection.server_version();
                dump::schema(&self.address, version, &holder.exported, &holder.left_out, stop)?
            }
            Some(_) => Vec::new(),
        };
        let names = Names::in_encoding(&catalogue.database.encoding);
        let server_version = holder.connection.server_version();
        let plan = plan(&catalogue, &parts);
        let read = ToRead { names, parts, tables: catalogue.tables, encoding: catalogue.database.encoding.clone() };
        let tables = read.tables.iter().map(|table| table.table.clone()).collect();
        let Catalogue { database, extensions, .. } = catalogue;
        let schema = SchemaDocument { server_version, database, tables, archive, extensions };
        let schema_bytes = schema.to_bytes();
        let finish = FinishDocument {
            sequences: catalogue.sequences,
            materialized_views: catalogue.materialized_views,
            objects,
            large_objects: catalogue.large_objects,
        };
        let snapshot = HeldSnapshot {
            address: self.address.clone(),
            exported: holder.exported.clone(),
            interrupts,
            schema: bounded(schema_bytes)?,
            finish: bounded(finish.to_bytes())?,
            read,
            refusal,
            holder: Mutex::new(holder),
        };
        check_size(&plan)?;
        Ok(Planned { plan, findings, snapshot: Arc::new(PostgresSnapshot(Arc::new(snapshot))) })
    }
}

/// A session that reads, under the settings that both ends share.
fn open(address: &Address, interrupts: &Interrupts) -> Outcome<Connection> {
    let opened = || -> Result<Connection> {
        let mut connection = Connection::open(address, End::Source, CATALOGUE_ROW_BYTES_MAX)?;
        interrupts.add(connection.interrupt()?);
        connection.batch(&session::set_up(connection.server_version()))?;
        Ok(connection)
    };
    opened().at(End::Source, &format!("connecting to {}", address.shown()))
}

fn check_version(version: u32) -> Outcome {
    if (SERVER_VERSION_MIN..SERVER_VERSION_END).contains(&version) {
        return Ok(());
    }
    let what = format!("the source is a server of version {}, and this program moves 12 to 18", version / 10_000);
    Err(Failure::new(Code::SourceUnsuitable, what, "Upgrade the server, or this program."))
}

fn plan(catalogue: &Catalogue, parts: &[Part]) -> Plan {
    let table = |schema: &str, name: &str| PlannedTable { schema: Some(schema.into()), ..PlannedTable::named(name) };
    let tables = catalogue.tables.iter().map(|found| table(&found.table.schema, &found.table.name)).collect();
    let first = PlannedPart::of_section(Section::PreData);
    let last = PlannedPart::of_section(Section::PostData);
    let data = parts.iter().map(Part::planned);
    Plan {
        engine: engine::engine(),
        tables,
        parts: [first].into_iter().chain(data).chain([last]).collect(),
        empty: None,
    }
}

fn check_size(plan: &Plan) -> Outcome {
    if plan.tables.len() <= TABLES_MAX && plan.parts.len() <= PARTS_MAX {
        return Ok(());
    }
    let what = format!("the source has {} tables, and a transfer has room for {}", plan.tables.len(), PARTS_MAX - 2);
    Err(Failure::new(Code::SourceUnsuitable, what, "Move it by pg_dump, with exec:."))
}

fn bounded(document: Vec<u8>) -> Outcome<Vec<u8>> {
    if document.len() <= DOCUMENT_BYTES_MAX {
        return Ok(document);
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
    parts: Vec<Part>,
    tables: Vec<catalogue::SourceTable>,
}

/// A snapshot and all that follows from it.
struct HeldSnapshot {
    address: Address,
    exported: String,
    interrupts: Interrupts,
    schema: Vec<u8>,
    finish: Vec<u8>,
    read: ToRead,
    /// Why nothing of it is read.
    refusal: Option<Failure>,
    holder: Mutex<Holder>,
}

impl HeldSnapshot {
    /// Everything was read: that what the locks keep out did not happen, and that they were held.
    fn check_unchanged(&self) -> Outcome {
        let mut holder = self.holder.lock().unwrap_or_else(PoisonError::into_inner);
        holder.check_held()?;
        let mut now = open(&self.address, &self.interrupts)?;
        holder.check_relations(&mut now)
    }
}

struct PostgresSnapshot(Arc<HeldSnapshot>);

impl Snapshot for PostgresSnapshot {
    fn readers_max(&self) -> usize {
        READERS_MAX
    }

    fn can_repeat(&self) -> bool {
        true
    }

    fn reader(&self) -> Outcome<Box<dyn PartReader>> {
        match &self.0.refusal {
            None => Ok(Box::new(SnapshotReader::open(Arc::clone(&self.0))?)),
            Some(failure) => Err(failure.clone()),
        }
    }
}
