//! Making a schema in memory, as the receiver will make it in the target.
//!
//! Both agents have the same engine. What it would refuse at the target (a function of an
//! application, a definition that does more than define, an entry that comes out otherwise), it
//! refuses here, before a row is sent.

use std::collections::HashMap;

use rusqlite::{Connection, config::DbConfig, limits::Limit};

use crate::document::{Definition, FinishDocument, SchemaDocument, Table, TextEncoding, is_internal};
use crate::{
    define::{Cause, Refused, define_virtual},
    loading::{begin_loading, end_loading},
    make::{make_index, make_table, make_trigger, make_view},
};

/// Objects in one database. With each table SQLite looks through the whole catalogue; opening a
/// database costs less than that with a few hundred.
const BATCH: usize = 128;

const DATABASE: &str = "a database in memory";

/// Fails with the first object that the engine would not make as the source has it.
pub fn rehearse(schema: &SchemaDocument, finish: &FinishDocument) -> Result<(), Refused> {
    let mut triggers = triggers_by_table(finish);
    let tables: Vec<&Table> = schema.tables.iter().filter(|table| !is_internal(&table.name)).collect();
    for tables in tables.chunks(BATCH) {
        let mut scratch = scratch(schema.encoding)?;
        for table in tables {
            make_table(&mut scratch, table)?;
            for index in &table.indexes {
                make_index(&mut scratch, index, &table.name)?;
            }
        }
        begin_loading(&scratch, tables)?;
        end_loading(&scratch, tables)?;
        make_triggers(&mut scratch, &mut triggers, tables.iter().map(|table| table.name.as_str()))?;
    }
    for views in finish.views.chunks(BATCH) {
        let mut scratch = scratch(schema.encoding)?;
        views.iter().try_for_each(|view| make_view(&mut scratch, view))?;
        make_triggers(&mut scratch, &mut triggers, views.iter().map(|view| view.name.as_str()))?;
    }
    for tables in schema.virtual_tables.chunks(BATCH) {
        let mut scratch = scratch(schema.encoding)?;
        for table in tables {
            define_virtual(&mut scratch, table).map_err(|cause| Refused::new(&table.name, cause))?;
        }
    }
    match triggers.into_values().flatten().next() {
        Some(trigger) => Err(Refused::new(&trigger.name, Cause::MakesOther)),
        None => Ok(()),
    }
}

fn triggers_by_table(finish: &FinishDocument) -> HashMap<String, Vec<&Definition>> {
    let mut triggers: HashMap<_, Vec<_>> = HashMap::new();
    for trigger in &finish.triggers {
        triggers.entry(trigger.table().to_ascii_lowercase()).or_default().push(trigger);
    }
    triggers
}

fn make_triggers<'a>(
    scratch: &mut Connection,
    triggers: &mut HashMap<String, Vec<&Definition>>,
    mut owners: impl Iterator<Item = &'a str>,
) -> Result<(), Refused> {
    owners.try_for_each(|owner| {
        let own = triggers.remove(&owner.to_ascii_lowercase()).unwrap_or_default();
        own.into_iter().try_for_each(|trigger| make_trigger(scratch, trigger))
    })
}

fn scratch(encoding: TextEncoding) -> Result<Connection, Refused> {
    let open = || {
        let connection = Connection::open_in_memory()?;
        connection.pragma_update(None, "encoding", encoding.name())?;
        distrust(&connection)?;
        connection.execute_batch("BEGIN")?;
        Ok(connection)
    };
    open().map_err(|error| Refused::engine(DATABASE, error))
}

/// What every connection keeps to that meets definitions of an untrusted database.
pub fn distrust(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
    // A name that is no column is then an error and never a string.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
    connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    connection.set_limit(Limit::SQLITE_LIMIT_WORKER_THREADS, 0).map(drop)
}
