//! Reading the catalogue of a database, and checking whether everything in it can be moved exactly.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::{
    Connection, ErrorCode, Row, Statement,
    hooks::{AuthAction, AuthContext, Authorization},
};
use sealift_protocol::{
    failure::{Failure, Outcome},
    limits::NAME_BYTES_MAX,
};

use super::{
    affinity::Affinity,
    failure::{failed, unsuitable},
};
use crate::{Cause, MOVE_IMAGE, Refused, has_computed_index, has_foreign_entries, rehearse};
use crate::{
    document::{
        Definition, FinishDocument, LEDGER_TABLE, RowidName, SEQUENCE_TABLE, SchemaDocument, Table, TextEncoding,
        VIRTUAL_MODULES, internal_sql, is_internal,
    },
    quote,
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
    /// What its indexes hold, or their order, depends on what the engine computes.
    pub has_computed_indexes: bool,
    /// Identifiers of its VIRTUAL generated columns.
    pub virtual_columns: Vec<String>,
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
        let storage = Storage::read(connection).map_err(engine)?;
        let mut claimed = Claimed::of(objects(connection, file)?)?;
        // AUTOINCREMENT's counters last: loading any other table may change them.
        claimed.tables.sort_by_key(|table: &Definition| (is_internal(&table.name), table.name == SEQUENCE_TABLE));
        let shapes = Shapes::read(connection).map_err(engine)?;
        let mut columns = connection.prepare(COLUMNS).map_err(engine)?;
        let mut tables = Vec::new();
        for definition in std::mem::take(&mut claimed.tables) {
            let key = definition.name.to_ascii_lowercase();
            let indexes = claimed.indexes.remove(&key).unwrap_or_default();
            let automatic_indexes = claimed.automatic_of(&definition.name)?;
            let table = |error| failed(&error, &format!("table {}", definition.name));
            let columns = Column::all(&mut columns, &definition.name).map_err(table)?;
            tables.push(shapes.table(connection, definition, columns, indexes, automatic_indexes)?);
        }
        claimed.check_empty()?;
        let Storage { encoding, page_bytes, auto_vacuum, application_id, user_version, wal, default_cache_size } =
            storage;
        let encoding = TextEncoding::from_name(&encoding)
            .ok_or_else(|| unsuitable(format!("{file} has an unknown text encoding"), MOVE_IMAGE))?;
        let schema = SchemaDocument {
            encoding,
            page_bytes,
            auto_vacuum,
            application_id,
            user_version,
            tables: tables.iter().map(|table| table.table.clone()).collect(),
            virtual_tables: claimed.virtual_tables,
            wal,
            default_cache_size,
        };
        let finish = FinishDocument { views: claimed.views, triggers: claimed.triggers };
        rehearse(&schema, &finish).map_err(definition_refused)?;
        Ok(Self { schema, finish, tables })
    }
}

/// What the file's header says that is moved with it.
struct Storage {
    encoding: String,
    page_bytes: u32,
    auto_vacuum: u8,
    application_id: i32,
    user_version: i32,
    wal: bool,
    default_cache_size: u32,
}

impl Storage {
    fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
        Ok(Self {
            encoding: connection.pragma_query_value(None, "encoding", |row| row.get(0))?,
            page_bytes: connection.pragma_query_value(None, "page_size", |row| row.get(0))?,
            auto_vacuum: connection.pragma_query_value(None, "auto_vacuum", |row| row.get(0))?,
            application_id: connection.pragma_query_value(None, "application_id", |row| row.get(0))?,
            user_version: connection.pragma_query_value(None, "user_version", |row| row.get(0))?,
            wal: mode.eq_ignore_ascii_case("wal"),
            // Where none was set, the engine tells its own, which is negative.
            default_cache_size: u32::try_from(pragma("default_cache_size")?).unwrap_or(0),
        })
    }
}

/// Every entry of the catalogue, each in its place. Indexes are kept by their table's name in small
/// letters.
#[derive(Default)]
struct Claimed {
    tables: Vec<Definition>,
    virtual_tables: Vec<Definition>,
    views: Vec<Definition>,
    triggers: Vec<Definition>,
    indexes: HashMap<String, Vec<Definition>>,
    automatic_indexes: HashMap<String, Vec<AutomaticIndex>>,
}

/// An index of a constraint, and its table as the entry spells it.
struct AutomaticIndex {
    name: String,
    table: String,
}

impl Claimed {
    fn of(objects: Vec<Object>) -> Outcome<Self> {
        let mut claimed = Self::default();
        for object in objects {
            let Object { kind, name, table, is_virtual, sql } = object;
            let key = table.to_ascii_lowercase();
            let belongs_to_itself = table == name;
            let table = Some(table).filter(|_| !belongs_to_itself);
            match (kind.as_str(), sql) {
                ("table", Some(sql)) if is_virtual && belongs_to_itself => {
                    let definition = Definition { name, sql, table };
                    check_module(&definition)?;
                    claimed.virtual_tables.push(definition);
                }
                ("table", Some(sql)) if belongs_to_itself => claimed.tables.push(Definition { name, sql, table }),
                ("view", Some(sql)) if belongs_to_itself => claimed.views.push(Definition { name, sql, table }),
                ("trigger", Some(sql)) => claimed.triggers.push(Definition { name, sql, table }),
                ("index", Some(sql)) => {
                    claimed.indexes.entry(key).or_default().push(Definition { name, sql, table });
                }
                // Without a text of its own, an index belongs to a constraint of its table.
                ("index", None) => {
                    let table = table.unwrap_or_else(|| name.clone());
                    claimed.automatic_indexes.entry(key).or_default().push(AutomaticIndex { name, table });
                }
                _ => return Err(unclaimed(&kind, &name)),
            }
        }
        Ok(claimed)
    }

    /// The indexes of the constraints of a table.
    fn automatic_of(&mut self, table: &str) -> Outcome<Vec<String>> {
        let indexes = self.automatic_indexes.remove(&table.to_ascii_lowercase()).unwrap_or_default();
        // How else an entry spells its table is not carried.
        match indexes.iter().find(|index| index.table != table) {
            Some(index) => Err(unclaimed("index", &index.name)),
            None => Ok(indexes.into_iter().map(|index| index.name).collect()),
        }
    }

    /// That every index was of some table.
    fn check_empty(&self) -> Outcome {
        let mut indexes = self.indexes.values().flatten().map(|index| &index.name);
        match indexes.next().or_else(|| self.automatic_indexes.values().flatten().map(|index| &index.name).next()) {
            Some(name) => Err(unclaimed("index", name)),
            None => Ok(()),
        }
    }
}

/// An entry that would not be in the target.
fn unclaimed(kind: &str, name: &str) -> Failure {
    let what = format!("the catalogue's entry of the {kind} {name} belongs to nothing that could be moved");
    unsuitable(what, format!("It was written by another program than SQLite. {MOVE_IMAGE}"))
}

/// The engine would not make the object in the target.
fn definition_refused(refused: Refused) -> Failure {
    let Refused { name, cause } = refused;
    let what = match cause {
        Cause::DoesMore => format!("the definition of {name} would do more than define it"),
        Cause::NotUnderstood => format!(
            "the definition of {name} needs a function, collation or syntax that SQLite itself does not have; the \
             application that made it has added to SQLite"
        ),
        Cause::MakesOther => format!("SQLite makes something else of the definition of {name} than the catalogue has"),
        Cause::Engine(error) => return failed(&error, &format!("the definition of {name}")),
    };
    unsuitable(what, MOVE_IMAGE)
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
                format!("Rename the object. {MOVE_IMAGE}"),
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
        let next = "This database looks like the remains of an unfinished load: move the one it came from.";
        return Err(unsuitable(
            format!("the source has a table of Sealift's own, {name}"),
            format!("{next} {MOVE_IMAGE}"),
        ));
    }
    if object.kind == "table" && is_internal(name) && internal_sql(name) != object.sql.as_deref() {
        let what = format!("{name} is a table that SQLite keeps for itself, of a shape that Sealift does not know");
        return Err(unsuitable(what, MOVE_IMAGE));
    }
    if name.len() > NAME_BYTES_MAX {
        let what = format!("a table, index, view or trigger has a name of {} bytes", name.len());
        return Err(unsuitable(what, format!("Rename it; up to {NAME_BYTES_MAX} bytes can be moved. {MOVE_IMAGE}")));
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
    Err(unsuitable(what, format!("Row by row Sealift moves fts3, fts4, fts5, geopoly and rtree. {MOVE_IMAGE}")))
}

/// The module that a CREATE VIRTUAL TABLE names, as SQLite's own parser has it: it asks for
/// permission before anything is made, in an empty database where it gets none.
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

/// WITHOUT ROWID and STRICT of each table by its name in small letters.
struct Shapes(HashMap<String, (bool, bool)>);

/// A line of `PRAGMA table_xinfo`.
struct Column {
    name: String,
    declared: String,
    key_place: u32,
    hidden: u32,
}

/// The columns of a table. Prepared once: that takes longer than to ask.
const COLUMNS: &str = "SELECT name, type, pk, hidden FROM pragma_table_xinfo(?1, 'main') ORDER BY cid";

impl Column {
    /// By the prepared statement [`COLUMNS`].
    fn all(statement: &mut Statement<'_>, table: &str) -> rusqlite::Result<Vec<Self>> {
        let columns = statement.query_map([table], |row| {
            Ok(Self { name: row.get(0)?, declared: row.get(1)?, key_place: row.get(2)?, hidden: row.get(3)? })
        })?;
        columns.collect()
    }
}

/// `hidden` of a VIRTUAL generated column, which nothing stores.
const HIDDEN_VIRTUAL: u32 = 2;

impl Shapes {
    fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let mut statement =
            connection.prepare("SELECT name, wr, strict FROM pragma_table_list WHERE schema = 'main'")?;
        let shapes = statement.query_map([], |row| {
            let name: String = row.get(0)?;
            Ok((name.to_ascii_lowercase(), (row.get(1)?, row.get(2)?)))
        })?;
        shapes.collect::<rusqlite::Result<_>>().map(Self)
    }

    fn table(
        &self,
        connection: &Connection,
        definition: Definition,
        columns: Vec<Column>,
        indexes: Vec<Definition>,
        automatic_indexes: Vec<String>,
    ) -> Outcome<SourceTable> {
        let Definition { name, sql, .. } = definition;
        let engine = |error: rusqlite::Error| failed(&error, &format!("table {name}"));
        let &(without_rowid, strict) = self
            .0
            .get(&name.to_ascii_lowercase())
            .ok_or_else(|| unsuitable(format!("table {name} cannot be found by its name"), MOVE_IMAGE))?;
        let rowid_name = RowidName::ALL
            .into_iter()
            .find(|rowid| !columns.iter().any(|column| column.name.eq_ignore_ascii_case(rowid.name())))
            .filter(|_| !without_rowid);
        // Most databases of very many tables have hardly an index, and each question takes a while.
        let has_indexes = without_rowid || !indexes.is_empty() || !automatic_indexes.is_empty();
        let has_key_index = has_indexes && has_key_index(connection, &name).map_err(engine)?;
        let has_alias = is_integer_key(&columns) && !has_key_index;
        let rowid = rowid_name.filter(|_| !has_alias);
        let stored = || columns.iter().filter(|column| column.hidden != HIDDEN_VIRTUAL);
        let affinities = rowid
            .iter()
            .map(|_| Affinity::None)
            .chain(stored().map(|column| Affinity::of(&column.declared, strict)))
            .collect();
        let virtual_columns = columns.iter().filter(|column| column.hidden == HIDDEN_VIRTUAL);
        let virtual_columns = virtual_columns.map(|column| quote(&column.name)).collect();
        let columns = stored().map(|column| column.name.clone()).collect();
        let has_computed_indexes = has_indexes
            && has_computed_index(connection, &name)
                .and_then(|computed| Ok(computed || has_collated_index(connection, &name)?))
                .map_err(engine)?;
        let table = Table { name, sql, rowid, columns, indexes, automatic_indexes };
        Ok(SourceTable { table, rowid_name, affinities, has_computed_indexes, virtual_columns })
    }
}

/// Whether an index compares by a collation that an application can replace: any but BINARY.
fn has_collated_index(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS(SELECT 1 FROM pragma_index_list(?1, 'main') AS i, pragma_index_xinfo(i.name, 'main') AS x
        WHERE x.key AND x.coll <> 'BINARY' COLLATE NOCASE)";
    connection.query_row(sql, [table], |row| row.get(0))
}

/// Whether the primary key is one column of type INTEGER: another name of the rowid, unless the key
/// has an index (as for `INTEGER PRIMARY KEY DESC`).
fn is_integer_key(columns: &[Column]) -> bool {
    let mut key = columns.iter().filter(|column| column.key_place > 0);
    let (Some(column), None) = (key.next(), key.next()) else { return false };
    column.declared.eq_ignore_ascii_case("INTEGER")
}

fn has_key_index(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS(SELECT 1 FROM pragma_index_list(?1, 'main') WHERE origin = 'pk')";
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
        unsuitable(what, format!("{next} {MOVE_IMAGE}"))
    }

    /// That the indexes hold what this engine makes of the rows, so that those which are built in
    /// the target hold the same. Another release, another collation of the same name, or a function
    /// that the application has replaced makes others.
    pub fn check_indexes(&self, connection: &Connection) -> Outcome {
        if !self.has_computed_indexes {
            return Ok(());
        }
        let name = &self.table.name;
        let sql = "SELECT NOT EXISTS(SELECT 1 FROM pragma_integrity_check(?1, 'main') WHERE integrity_check <> 'ok')";
        let engine = |error: rusqlite::Error| failed(&error, &format!("table {name}"));
        let mut agree = connection.query_row(sql, [name], |row| row.get::<_, bool>(0)).map_err(engine)?;
        for index in &self.table.indexes {
            agree = agree && !has_foreign_entries(connection, name, index).map_err(engine)?;
        }
        if agree {
            return self.check_virtual_columns(connection);
        }
        let what = format!("the indexes of table {name} do not hold what this release of SQLite makes of its rows");
        let next = "Another release wrote them, or the application has replaced a function or a collation of SQLite's; or the \
                    database is damaged (PRAGMA integrity_check, in the application, tells).";
        Err(unsuitable(what, format!("{next} {MOVE_IMAGE}")))
    }

    /// That the VIRTUAL columns can be computed for every row: where an index may depend on them,
    /// writing a row does so.
    fn check_virtual_columns(&self, connection: &Connection) -> Outcome {
        let name = &self.table.name;
        // As many at once as a statement surely takes.
        for columns in self.virtual_columns.chunks(100) {
            let counts: Vec<String> = columns.iter().map(|column| format!("count({column})")).collect();
            let sql = format!("SELECT {} FROM main.{} NOT INDEXED", counts.join(","), quote(name));
            match connection.query_row(&sql, [], |_| Ok(())) {
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::Unknown) => {
                    let what = format!("a generated column of table {name} cannot be computed for a row");
                    return Err(unsuitable(what, format!("Correct the row. {MOVE_IMAGE}")));
                }
                counted => counted.map_err(|error| failed(&error, &format!("table {name}")))?,
            }
        }
        Ok(())
    }
}
