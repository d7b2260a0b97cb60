//! What the snapshot has: everything but the rows.

use std::collections::{BTreeMap, BTreeSet};

use sealift_protocol::failure::Outcome;

use super::{
    columns::Types,
    database, large_objects,
    left_out::LeftOut,
    moment::{Moment, Relation, Relations},
    views,
};
use crate::{
    client::{At, Connection, End, Result, Row},
    document::{
        Column, Database, Extension, Format, Generated, LargeObjects, MaterializedView, Persistence, Rows, Sequence,
        Table,
    },
    extensions,
    sql::{literal, quote_qualified},
};

/// Sequences that one statement reads.
const SEQUENCES_AT_ONCE: usize = 100;

/// Everything that is moved but the rows, and what only the source needs to know.
pub struct Catalogue {
    pub database: Database,
    /// In the order of the plan: the biggest first.
    pub tables: Vec<SourceTable>,
    pub sequences: Vec<Sequence>,
    pub materialized_views: Vec<MaterializedView>,
    pub extensions: Vec<Extension>,
    pub large_objects: Vec<LargeObjects>,
}

/// A table of the document, and where its rows lie.
pub struct SourceTable {
    pub table: Table,
    /// The tables that have rows of it, with where those are stored: itself, or its partitions.
    pub stored: Vec<(u32, Option<u32>)>,
    pub places: Places,
    /// Of its rows and what is stored out of line of them.
    pub bytes: u64,
    pub rows_estimate: Option<u64>,
}

/// By what a table is divided into ranges.
pub enum Places {
    /// The number of its blocks.
    Blocks(u64),
    /// The OIDs of all large objects, in order.
    LargeObjects(Vec<u32>),
}

/// A table as `pg_class` has it.
struct FoundTable {
    oid: u32,
    persistence: String,
    heap_bytes: u64,
    toast_bytes: u64,
    rows_estimate: Option<u64>,
    parent: Option<u32>,
}

const TABLES: &str = "\
    SELECT c.oid, c.relpersistence::pg_catalog.text, \
           COALESCE(pg_catalog.pg_relation_size(c.oid), 0), \
           COALESCE(pg_catalog.pg_relation_size(NULLIF(c.reltoastrelid, 0)), 0), \
           c.reltuples::pg_catalog.float8, \
           (SELECT i.inhparent FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid AND c.relispartition) \
    FROM pg_catalog.pg_class c WHERE c.oid = ANY ($1)";

const COLUMNS: &str = "\
    SELECT a.attrelid, a.attname::pg_catalog.text, pg_catalog.format_type(a.atttypid, a.atttypmod), a.atttypid, \
           a.attgenerated::pg_catalog.text \
    FROM pg_catalog.pg_attribute a WHERE a.attrelid = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped \
    ORDER BY a.attrelid, a.attnum";

/// The types of the keys of tables that are partitioned by hash, and the collations of those keys:
/// an expression, whose type is not looked for, has none.
const HASH_KEYS: &str = "\
    SELECT p.partrelid, a.atttypid \
    FROM pg_catalog.pg_partitioned_table p \
    CROSS JOIN LATERAL pg_catalog.unnest(p.partattrs::pg_catalog.int2[]) AS key(attnum) \
    LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = key.attnum AND key.attnum <> 0 \
    WHERE p.partstrat = 'h' AND p.partrelid = ANY ($1)";

const SEQUENCES: &str = "\
    SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' \
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass \
          AND d.objid = c.oid AND d.deptype = 'e' \
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_extension e WHERE c.oid = ANY (e.extconfig))) \
    ORDER BY 1, 2";

impl Catalogue {
    /// `connection` is at the snapshot.
    pub fn read(connection: &mut Connection, moment: &Moment) -> Outcome<Self> {
        let Moment { relations, left_out, .. } = moment;
        let what = "reading the catalogue";
        let database = database::read(connection).at(End::Source, what)?;
        let block_bytes = block_bytes(connection).at(End::Source, what)?;
        let mut tables = tables(connection, relations, block_bytes).at(End::Source, what)?;
        let extensions = extensions::read(connection).at(End::Source, what)?;
        configuration(connection, &mut tables).at(End::Source, "reading the tables of extensions")?;
        let large_objects = match left_out.large_objects {
            true => Vec::new(),
            false => large_objects::properties(connection).at(End::Source, "listing the large objects")?,
        };
        tables.extend(large_objects::table(connection, &large_objects).at(End::Source, "listing the large objects")?);
        sort(&mut tables);
        let sequences = sequences(connection, left_out).at(End::Source, "reading the sequences")?;
        let materialized_views = views::read(connection).at(End::Source, what)?;
        Ok(Self { database, tables, sequences, materialized_views, extensions, large_objects })
    }

    /// Definitions alone are moved.
    pub fn leave_out_rows(&mut self) {
        self.tables.clear();
        self.sequences.clear();
        self.large_objects.clear();
    }
}

fn block_bytes(connection: &mut Connection) -> Result<u64> {
    let sql = "SELECT pg_catalog.current_setting('block_size')::pg_catalog.int8";
    Ok(connection.query_one(sql, &[])?.try_get::<_, i64>(0)?.unsigned_abs())
}

fn tables(connection: &mut Connection, relations: &Relations, block_bytes: u64) -> Result<Vec<SourceTable>> {
    let oids: Vec<u32> = relations.keys().copied().collect();
    let found = connection.query(TABLES, &[&oids])?.iter().map(found).collect::<Result<Vec<_>>>()?;
    let types = Types::read(connection)?;
    let mut columns = columns(connection, &oids, &types)?;
    let roots = Roots::read(connection, &found, &oids, &types)?;
    let mut tables: BTreeMap<u32, SourceTable> = BTreeMap::new();
    for found in found {
        let Some(relation) = relations.get(&found.oid) else { continue };
        let root = roots.of(found.oid);
        if root.is_none() && relation.kind == "p" {
            continue;
        }
        let loaded = root.unwrap_or(found.oid);
        let Some(named) = relations.get(&loaded) else { continue };
        let rows = if root.is_some() { Rows::OfPartitions } else { Rows::Own };
        let table = tables.entry(loaded).or_insert_with(|| {
            let (columns, format) = columns.remove(&loaded).unwrap_or((Vec::new(), Format::Binary));
            source_table(named, columns, format, rows)
        });
        table.add(&found, relation, block_bytes);
    }
    Ok(tables.into_values().collect())
}

/// The biggest first: what begins last is then short.
fn sort(tables: &mut [SourceTable]) {
    tables.sort_by(|one, next| {
        let name = |table: &SourceTable| (table.table.schema.clone(), table.table.name.clone());
        next.bytes.cmp(&one.bytes).then_with(|| name(one).cmp(&name(next)))
    });
}

/// Says of the tables that hold an extension's configuration which of their rows are moved, and
/// leaves out those that have none: the target's version of the extension may lack the table.
fn configuration(connection: &mut Connection, tables: &mut Vec<SourceTable>) -> Result {
    let configuration = extensions::configuration(connection)?;
    let conditions: BTreeMap<u32, &Option<String>> =
        configuration.iter().map(|table| (table.oid, &table.condition)).collect();
    let mut without_rows = BTreeSet::new();
    for table in tables.iter_mut() {
        let Some((oid, _)) = table.stored.first() else { continue };
        let Some(condition) = conditions.get(oid) else { continue };
        table.table.rows = Rows::Configuration;
        table.table.condition = (*condition).clone();
        // The condition is text of the extension's script, which `pg_dump` uses, too.
        let from = quote_qualified(&table.table.schema, &table.table.name);
        let sql = format!("SELECT EXISTS (SELECT FROM ONLY {from} {})", condition.as_deref().unwrap_or_default());
        if !connection.query_one(&sql, &[])?.try_get::<_, bool>(0)? {
            without_rows.insert(*oid);
        }
    }
    tables.retain(|table| table.stored.first().is_none_or(|(oid, _)| !without_rows.contains(oid)));
    Ok(())
}

fn found(row: &Row) -> Result<FoundTable> {
    let estimate: f64 = row.try_get(4)?;
    Ok(FoundTable {
        oid: row.try_get(0)?,
        persistence: row.try_get(1)?,
        heap_bytes: row.try_get::<_, i64>(2)?.unsigned_abs(),
        toast_bytes: row.try_get::<_, i64>(3)?.unsigned_abs(),
        // -1, or 0 in older versions, where it was never counted.
        rows_estimate: (estimate > 0.0).then_some(estimate as u64),
        parent: row.try_get(5)?,
    })
}

fn source_table(named: &Relation, columns: Vec<Column>, format: Format, rows: Rows) -> SourceTable {
    let table = Table {
        schema: named.schema.clone(),
        name: named.name.clone(),
        columns,
        format,
        persistence: Persistence::Permanent,
        rows,
        condition: None,
    };
    SourceTable { table, stored: Vec::new(), places: Places::Blocks(0), bytes: 0, rows_estimate: Some(0) }
}

impl SourceTable {
    /// Adds the rows that `relation` stores.
    fn add(&mut self, found: &FoundTable, relation: &Relation, block_bytes: u64) {
        if relation.kind != "r" {
            return;
        }
        if found.persistence == "u" {
            self.table.persistence = Persistence::Unlogged;
        }
        self.stored.push((found.oid, relation.filenode));
        if let Places::Blocks(blocks) = &mut self.places {
            *blocks += found.heap_bytes / block_bytes.max(1);
        }
        self.bytes += found.heap_bytes + found.toast_bytes;
        let empty = found.heap_bytes == 0;
        let estimate = if empty { Some(0) } else { found.rows_estimate };
        self.rows_estimate = self.rows_estimate.zip(estimate).map(|(rows, more)| rows.saturating_add(more));
    }
}

type Columns = BTreeMap<u32, (Vec<Column>, Format)>;

fn columns(connection: &mut Connection, oids: &[u32], types: &Types) -> Result<Columns> {
    let mut found: BTreeMap<u32, (Vec<Column>, Vec<u32>)> = BTreeMap::new();
    for row in connection.query(COLUMNS, &[&oids])? {
        let generated: &str = row.try_get(4)?;
        // A virtual one is computed when it is read.
        if generated == "v" {
            continue;
        }
        let generated = if generated.is_empty() { Generated::No } else { Generated::Stored };
        let (columns, column_types) = found.entry(row.try_get(0)?).or_default();
        columns.push(Column { name: row.try_get(1)?, type_name: row.try_get(2)?, generated });
        column_types.push(row.try_get(3)?);
    }
    let formatted = |(oid, (columns, column_types)): (u32, (Vec<Column>, Vec<u32>))| {
        let format = types.format(&column_types);
        (oid, (columns, format))
    };
    Ok(found.into_iter().map(formatted).collect())
}

/// The tables whose rows are moved as those of a table above them.
struct Roots {
    parents: BTreeMap<u32, u32>,
    /// Partitioned by the hash of a key whose hash may be another on another server.
    hashed: BTreeSet<u32>,
}

impl Roots {
    fn read(connection: &mut Connection, found: &[FoundTable], oids: &[u32], types: &Types) -> Result<Self> {
        let parents = found.iter().filter_map(|found| Some((found.oid, found.parent?))).collect();
        let mut hashed = BTreeSet::new();
        for row in connection.query(HASH_KEYS, &[&oids])? {
            let key: Option<u32> = row.try_get(1)?;
            if !key.is_some_and(|key| types.is_hashed_alike(key)) {
                hashed.insert(row.try_get(0)?);
            }
        }
        Ok(Self { parents, hashed })
    }

    /// The highest table above, or the table itself, that is partitioned by such a hash.
    fn of(&self, oid: u32) -> Option<u32> {
        let mut root = None;
        let mut next = Some(oid);
        for _ in 0..=self.parents.len() {
            let Some(table) = next else { break };
            if self.hashed.contains(&table) {
                root = Some(table);
            }
            next = self.parents.get(&table).copied();
        }
        root
    }
}

fn sequences(connection: &mut Connection, left_out: &LeftOut) -> Result<Vec<Sequence>> {
    let mut names = Vec::new();
    for row in connection.query(SEQUENCES, &[])? {
        names.push((row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?));
    }
    names.retain(|(schema, name)| !left_out.has_sequence(schema, name));
    let mut sequences = Vec::with_capacity(names.len());
    for names in names.chunks(SEQUENCES_AT_ONCE) {
        let select = |(schema, name): &(String, String)| {
            let from = quote_qualified(schema, name);
            let schema = literal(schema);
            let name = literal(name);
            format!("SELECT {schema}::pg_catalog.text, {name}::pg_catalog.text, last_value, is_called FROM {from}")
        };
        let selects: Vec<_> = names.iter().map(select).collect();
        for row in connection.query(&selects.join(" UNION ALL "), &[])? {
            sequences.push(Sequence {
                schema: row.try_get(0)?,
                name: row.try_get(1)?,
                last_value: row.try_get(2)?,
                is_called: row.try_get(3)?,
            });
        }
    }
    Ok(sequences)
}
