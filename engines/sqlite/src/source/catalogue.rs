//! Reading the catalogue of a database, and checking whether everything in it can be moved exactly.

mod objects;
mod table;

use rusqlite::Connection;
use sealift_protocol::failure::{Failure, Outcome};

pub use self::table::SourceTable;
use self::{
    objects::Claimed,
    table::{COLUMNS, Column, Shapes},
};
use super::failure::{failed, unsuitable};
use crate::{
    Cause, MOVE_IMAGE, Refused,
    document::{Definition, FinishDocument, SEQUENCE_TABLE, SchemaDocument, TextEncoding, is_internal},
    rehearse,
};

/// Everything but the rows.
pub struct Catalogue {
    pub schema: SchemaDocument,
    pub finish: FinishDocument,
    /// The tables of `schema` with what only the source needs to know.
    pub tables: Vec<SourceTable>,
}

impl Catalogue {
    pub fn read(connection: &Connection, file: &str) -> Outcome<Self> {
        let engine = |error: rusqlite::Error| failed(&error, file);
        let storage = Storage::read(connection).map_err(engine)?;
        let mut claimed = Claimed::read(connection, file)?;
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
