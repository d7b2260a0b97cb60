//! The entries of the catalogue, and whether each is of a kind that can be moved.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::{
    Connection, Row,
    hooks::{AuthAction, AuthContext, Authorization},
};
use sealift_protocol::{
    failure::{Failure, Outcome},
    limits::NAME_BYTES_MAX,
};

use crate::{
    MOVE_IMAGE,
    document::{Definition, LEDGER_TABLE, VIRTUAL_MODULES, internal_sql, is_internal},
    source::failure::{failed, unsuitable},
};

/// A line of `sqlite_schema`.
struct Object {
    kind: String,
    name: String,
    table: String,
    is_virtual: bool,
    sql: Option<String>,
}

/// Every entry of the catalogue, each in its place. Indexes are kept by their table's name in small
/// letters.
#[derive(Default)]
pub struct Claimed {
    pub tables: Vec<Definition>,
    pub virtual_tables: Vec<Definition>,
    pub views: Vec<Definition>,
    pub triggers: Vec<Definition>,
    pub indexes: HashMap<String, Vec<Definition>>,
    automatic_indexes: HashMap<String, Vec<AutomaticIndex>>,
}

/// An index of a constraint, and its table as the entry spells it.
struct AutomaticIndex {
    name: String,
    table: String,
}

impl Claimed {
    pub fn read(connection: &Connection, file: &str) -> Outcome<Self> {
        let mut claimed = Self::default();
        for object in objects(connection, file)? {
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
    pub fn automatic_of(&mut self, table: &str) -> Outcome<Vec<String>> {
        let indexes = self.automatic_indexes.remove(&table.to_ascii_lowercase()).unwrap_or_default();
        // How else an entry spells its table is not carried.
        match indexes.iter().find(|index| index.table != table) {
            Some(index) => Err(unclaimed("index", &index.name)),
            None => Ok(indexes.into_iter().map(|index| index.name).collect()),
        }
    }

    /// That every index was of some table.
    pub fn check_empty(&self) -> Outcome {
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
