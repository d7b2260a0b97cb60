//! The extensions of a database, and the tables whose rows are their configuration.

use std::collections::BTreeMap;

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

const CONFIGURATION: &str = "\
    SELECT config.oid, NULLIF(config.condition, '') \
    FROM pg_catalog.pg_extension e \
    CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(e.extconfig), pg_catalog.unnest(e.extcondition)) AS config(oid, condition) \
    JOIN pg_catalog.pg_class c ON c.oid = config.oid AND c.relkind = 'r'";

/// The tables that extensions have marked as their configuration (`pg_extension_config_dump`), and
/// the condition that tells their rows that people have made from those of the script.
pub fn configuration(connection: &mut Connection) -> Result<BTreeMap<u32, Option<String>>> {
    connection.query(CONFIGURATION, &[])?.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}
