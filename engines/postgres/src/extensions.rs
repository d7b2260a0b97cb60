//! The extensions of a database, and the tables whose rows are their configuration.

use crate::{
    client::{Connection, Result},
    document::Extension,
};

/// All of them, by name.
pub fn read(connection: &mut Connection) -> Result<Vec<Extension>> {
    let sql = "SELECT extname::pg_catalog.text, extversion FROM pg_catalog.pg_extension ORDER BY 1";
    let extension = |row: &crate::client::Row| Ok(Extension { name: row.try_get(0)?, version: row.try_get(1)? });
    connection.query(sql, &[])?.iter().map(extension).collect()
}

/// A table that an extension has marked as its configuration (`pg_extension_config_dump`).
pub struct Configuration {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    /// What tells its rows that people have made from those of the script.
    pub condition: Option<String>,
}

const CONFIGURATION: &str = "\
    SELECT config.oid, n.nspname::pg_catalog.text, c.relname::pg_catalog.text, NULLIF(config.condition, '') \
    FROM pg_catalog.pg_extension e \
    CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(e.extconfig), pg_catalog.unnest(e.extcondition)) AS config(oid, condition) \
    JOIN pg_catalog.pg_class c ON c.oid = config.oid AND c.relkind = 'r' \
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace";

/// The tables that hold the configuration of extensions.
pub fn configuration(connection: &mut Connection) -> Result<Vec<Configuration>> {
    let configuration = |row: &crate::client::Row| {
        Ok(Configuration {
            oid: row.try_get(0)?,
            schema: row.try_get(1)?,
            name: row.try_get(2)?,
            condition: row.try_get(3)?,
        })
    };
    connection.query(CONFIGURATION, &[])?.iter().map(configuration).collect()
}
