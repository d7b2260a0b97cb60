//! The locale of the database, and whether the host's library still orders texts as it did when
//! indexes were built.

use sealift_engine_api::Finding;

use super::survey::Survey;
use crate::{client::Result, names::listed};

/// From this version on, a database has a provider, and records the version of its collation.
const RECORDED_SINCE: u32 = 150_000;

const REFRESH: &str = "Rebuild its indexes on texts (REINDEX), then ALTER DATABASE ... REFRESH COLLATION VERSION. The rows are \
    moved as they are, and the target builds its own indexes.";

/// Of the database of this session.
pub fn locale(survey: &mut Survey<'_>) -> Result {
    let (provider, versions) = match survey.version() >= RECORDED_SINCE {
        true => (
            "CASE datlocprovider WHEN 'c' THEN 'libc' WHEN 'i' THEN 'icu' ELSE 'builtin' END",
            "datcollversion, pg_catalog.pg_database_collation_actual_version(oid)",
        ),
        false => ("'libc'", "NULL::pg_catalog.text, NULL::pg_catalog.text"),
    };
    let sql = format!(
        "SELECT {provider}, datcollate::pg_catalog.text, datctype::pg_catalog.text, {versions} \
         FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()"
    );
    let row = survey.connection.query_one(&sql, &[])?;
    let (provider, collate, ctype): (String, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let (recorded, actual): (Option<String>, Option<String>) = (row.try_get(3)?, row.try_get(4)?);
    let version = actual.as_ref().map(|actual| format!(", version {actual}")).unwrap_or_default();
    survey.push(Finding::fact("locale", format!("provider {provider}, collate {collate}, ctype {ctype}{version}")));
    let mut differing = Vec::new();
    if let (Some(recorded), Some(actual)) = (&recorded, &actual)
        && recorded != actual
    {
        differing.push(format!("the database itself ({recorded}, now {actual})"));
    }
    let sql = "SELECT n.nspname || '.' || c.collname FROM pg_catalog.pg_collation c \
               JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace \
               WHERE c.collversion <> pg_catalog.pg_collation_actual_version(c.oid) \
                 AND EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attcollation = c.oid AND a.attnum > 0) ORDER BY 1";
    differing.extend(survey.names(sql)?);
    if !differing.is_empty() {
        let what = format!(
            "collations of another version than their indexes were built with, which may miss rows: {}",
            listed(&differing)
        );
        survey.push(Finding::warning("collation-versions", what, REFRESH));
    }
    Ok(())
}

/// Of template0, from which the database of a load is made: a server refuses to copy a database
/// whose collation has another version than it records.
pub fn template(survey: &mut Survey<'_>) -> Result {
    if survey.version() < RECORDED_SINCE {
        return Ok(());
    }
    let sql = "SELECT datcollversion, pg_catalog.pg_database_collation_actual_version(oid) FROM pg_catalog.pg_database \
               WHERE datname = 'template0'";
    let row = survey.connection.query_one(sql, &[])?;
    let (recorded, actual): (Option<String>, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
    if let (Some(recorded), Some(actual)) = (recorded, actual)
        && recorded != actual
    {
        let what =
            format!("template0 records version {recorded} of its collation, and the host's library has {actual}");
        let next = "Run ALTER DATABASE template0 REFRESH COLLATION VERSION as a superuser: no database is made from it before.";
        survey.push(Finding::error("template-collation", what, next));
    }
    Ok(())
}
