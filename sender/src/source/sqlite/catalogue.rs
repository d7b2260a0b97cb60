//! Reading the catalogue of a database, and judging whether everything in it can be moved exactly.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::{
    Connection, Row,
    hooks::{AuthAction, AuthContext, Authorization},
};
use sealift_agent::failure::{Failure, Outcome};
use sealift_protocol::{
    limits::NAME_BYTES_MAX,
    sqlite::{
        Definition, FinishDocument, LEDGER_TABLE, RowidName, SEQUENCE_TABLE, SchemaDocument, Table, TextEncoding,
        VIRTUAL_MODULES, internal_sql, is_internal,
    },
};

use super::{
    affinity::Affinity,
    failure::{failed, unsuitable},
};

/// Everything but the rows.
pub struct Catalogue {
    pub schema: SchemaDocument,
    pub finish: FinishDocument,
    /// The tables of `schema` with what only the source needs to know.
    pub tables: Vec<SourceTable>,
}

/// A table as it is read.
pub struct SourceTable {
    pub table: Table,
    /// A name for its rowid, whether or not it is carried.
    pub rowid_name: Option<RowidName>,
    /// One for each value of a row.
    pub affinities: Vec<Affinity>,
}

/// A line of `sqlite_schema`.
struct Object {
    kind: String,
    name: String,
    table: String,
    is_virtual: bool,
    sql: Option<String>,
}

impl Catalogue {
    pub fn read(connection: &Connection, file: &str) -> Outcome<Self> {
        let engine = |error: rusqlite::Error| failed(&error, file);
        let storage = storage(connection).map_err(engine)?;
        let (mut tables, mut virtual_tables, mut views, mut triggers) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut indexes: HashMap<String, Vec<Definition>> = HashMap::new();
        for object in objects(connection, file)? {
            // Without a definition of its own, an index belongs to a constraint of its table.
            let Some(sql) = object.sql else { continue };
            let definition = Definition { name: object.name, sql };
            match object.kind.as_str() {
                "table" if object.is_virtual => {
                    check_module(&definition)?;
                    virtual_tables.push(definition);
                }
                "table" => tables.push(definition),
                "index" => indexes.entry(object.table).or_default().push(definition),
                "view" => views.push(definition),
                "trigger" => triggers.push(definition),
                _ => return Err(unsuitable(format!("{} is of an unknown kind", definition.name), UNKNOWN_NEXT)),
            }
        }
        // AUTOINCREMENT's counters last: loading any other table may change them.
        tables.sort_by_key(|table: &Definition| (is_internal(&table.name), table.name == SEQUENCE_TABLE));
        let shapes = Shapes::read(connection).map_err(engine)?;
        let tables = tables
            .into_iter()
            .map(|definition| {
                let indexes = indexes.remove(&definition.name).unwrap_or_default();
                shapes.table(connection, definition, indexes)
            })
            .collect::<Outcome<Vec<_>>>()?;
        let (encoding, page_bytes, auto_vacuum, application_id, user_version) = storage;
        let encoding = TextEncoding::from_name(&encoding)
            .ok_or_else(|| unsuitable(format!("{file} has an unknown text encoding"), UNKNOWN_NEXT))?;
        let schema = SchemaDocument {
            encoding,
            page_bytes,
            auto_vacuum,
            application_id,
            user_version,
            tables: tables.iter().map(|table| table.table.clone()).collect(),
            virtual_tables,
        };
        Ok(Self { schema, finish: FinishDocument { views, triggers }, tables })
    }
}

const UNKNOWN_NEXT: &str = "The file was written by a version of SQLite that Sealift does not know.";

fn storage(connection: &Connection) -> rusqlite::Result<(String, u32, u8, i32, i32)> {
    connection.query_row(
        "SELECT encoding, page_size, auto_vacuum, application_id, user_version FROM pragma_encoding, pragma_page_size, \
         pragma_auto_vacuum, pragma_application_id, pragma_user_version",
        [],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)),
    )
}

fn objects(connection: &Connection, file: &str) -> Outcome<Vec<Object>> {
    let engine = |error: rusqlite::Error| failed(&error, file);
    let sql = "SELECT type, name, tbl_name, rootpage, sql FROM main.sqlite_schema ORDER BY rowid";
    let mut statement = connection.prepare(sql).map_err(engine)?;
    let mut rows = statement.raw_query();
    let mut objects = Vec::new();
    while let Some(row) = rows.next().map_err(engine)? {
        let object = object(row).map_err(|_| {
            unsuitable(
                format!("a name or definition in {file} is not valid text"),
                "Rename the object, or move the database as a dump.",
            )
        })?;
        check_name(&object)?;
        objects.push(object);
    }
    Ok(objects)
}

fn object(row: &Row<'_>) -> rusqlite::Result<Object> {
    let rootpage: Option<i64> = row.get(3)?;
    Ok(Object {
        kind: row.get(0)?,
        name: row.get(1)?,
        table: row.get(2)?,
        is_virtual: rootpage.unwrap_or(0) == 0,
        sql: row.get(4)?,
    })
}

fn check_name(object: &Object) -> Outcome {
    let name = &object.name;
    if name.eq_ignore_ascii_case(LEDGER_TABLE) {
        let next = "This database looks like the remains of an unfinished load. Move the one it came from.";
        return Err(unsuitable(format!("the source has a table of Sealift's own, {name}"), next));
    }
    if object.kind == "table" && is_internal(name) && internal_sql(name) != object.sql.as_deref() {
        return Err(unsuitable(format!("{name} is a table that SQLite keeps for itself"), UNKNOWN_NEXT));
    }
    if name.len() > NAME_BYTES_MAX {
        let what = format!("a table, index, view or trigger has a name of {} bytes", name.len());
        return Err(unsuitable(what, format!("Rename it; up to {NAME_BYTES_MAX} bytes can be moved.")));
    }
    Ok(())
}

/// Refuses a virtual table whose content is not all in this file's ordinary tables.
fn check_module(definition: &Definition) -> Outcome {
    let module = module_of(&definition.sql).map_err(|error| failed(&error, &definition.name))?;
    if module.as_deref().is_some_and(|module| VIRTUAL_MODULES.iter().any(|known| known.eq_ignore_ascii_case(module))) {
        return Ok(());
    }
    let what = match module {
        Some(module) => format!("table {} is a virtual table of the module {module}", definition.name),
        None => format!("the definition of the virtual table {} cannot be understood", definition.name),
    };
    Err(unsuitable(what, "Sealift moves fts3, fts4, fts5 and rtree. Drop the table in a copy, or move a dump."))
}

/// The module that a CREATE VIRTUAL TABLE names, as SQLite's own parser has it: it asks for permission before anything
/// is made, in an empty database where it gets none.
fn module_of(sql: &str) -> rusqlite::Result<Option<String>> {
    let mut scratch = Connection::open_in_memory()?;
    let found = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&found);
    scratch.authorizer(Some(move |context: AuthContext<'_>| match context.action {
        AuthAction::CreateVtable { module_name, .. } => {
            *seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(module_name.to_owned());
            Authorization::Deny
        }
        // Asked for on the way there.
        AuthAction::Insert { .. } => Authorization::Allow,
        _ => Authorization::Deny,
    }))?;
    // The refusal that this always ends with is not of interest.
    let _ = scratch.prepare(sql);
    drop(scratch);
    let module = found.lock().unwrap_or_else(PoisonError::into_inner).take();
    Ok(module)
}

/// WITHOUT ROWID and STRICT of each table by name.
struct Shapes(HashMap<String, (bool, bool)>);

/// A line of `PRAGMA table_xinfo`.
struct Column {
    name: String,
    declared: String,
    key_place: u32,
    /// 2 and 3 are generated columns.
    hidden: u32,
}

impl Shapes {
    fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let mut statement =
            connection.prepare("SELECT name, wr, strict FROM pragma_table_list WHERE schema = 'main'")?;
        let shapes = statement.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?;
        shapes.collect::<rusqlite::Result<_>>().map(Self)
    }

    fn table(&self, connection: &Connection, definition: Definition, indexes: Vec<Definition>) -> Outcome<SourceTable> {
        let Definition { name, sql } = definition;
        let engine = |error: rusqlite::Error| failed(&error, &format!("table {name}"));
        let columns = columns(connection, &name).map_err(engine)?;
        let &(without_rowid, strict) = self
            .0
            .get(&name)
            .ok_or_else(|| unsuitable(format!("table {name} cannot be found by its name"), UNKNOWN_NEXT))?;
        let rowid_name = RowidName::ALL
            .into_iter()
            .find(|rowid| !columns.iter().any(|column| column.name.eq_ignore_ascii_case(rowid.name())))
            .filter(|_| !without_rowid);
        let has_alias = has_rowid_alias(connection, &name, &columns).map_err(engine)?;
        let rowid = rowid_name.filter(|_| !has_alias);
        let stored = || columns.iter().filter(|column| !matches!(column.hidden, 2 | 3));
        let affinities = rowid
            .iter()
            .map(|_| Affinity::None)
            .chain(stored().map(|column| Affinity::of(&column.declared, strict)))
            .collect();
        let columns = stored().map(|column| column.name.clone()).collect();
        Ok(SourceTable { table: Table { name, sql, rowid, columns, indexes }, rowid_name, affinities })
    }
}

fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<Column>> {
    let mut statement =
        connection.prepare("SELECT name, type, pk, hidden FROM pragma_table_xinfo(?1, 'main') ORDER BY cid")?;
    let columns = statement.query_map([table], |row| {
        Ok(Column { name: row.get(0)?, declared: row.get(1)?, key_place: row.get(2)?, hidden: row.get(3)? })
    })?;
    columns.collect()
}

/// Whether a column is another name of the rowid: the only column of the primary key, of type INTEGER, and without the
/// index that SQLite makes where it is not (as for `INTEGER PRIMARY KEY DESC`).
fn has_rowid_alias(connection: &Connection, table: &str, columns: &[Column]) -> rusqlite::Result<bool> {
    let mut key = columns.iter().filter(|column| column.key_place > 0);
    let (Some(column), None) = (key.next(), key.next()) else { return Ok(false) };
    if !column.declared.eq_ignore_ascii_case("INTEGER") {
        return Ok(false);
    }
    let sql = "SELECT NOT EXISTS(SELECT 1 FROM pragma_index_list(?1, 'main') WHERE origin = 'pk')";
    connection.query_row(sql, [table], |row| row.get(0))
}

impl SourceTable {
    /// A value was met that would change on its way into the target.
    pub fn unstable(&self, value: usize) -> Failure {
        let table = &self.table;
        let column = &table.columns[value - usize::from(table.rowid.is_some())];
        let what =
            format!("column {column} of table {} holds a value that its declared type would convert", table.name);
        let next = "SQLite would store another value in the target. On the source, set the column to itself \
                    (UPDATE table SET column = column), look at the result, and start again.";
        unsuitable(what, next)
    }
}
