//! The properties of the database itself.

use crate::{
    client::{Connection, Error, Result},
    document::{Database, LocaleProvider, Setting},
};

const SETTINGS: &str = "\
    SELECT r.rolname::pg_catalog.text, setting \
    FROM pg_catalog.pg_db_role_setting s \
    JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase AND d.datname = pg_catalog.current_database() \
    LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole \
    CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) AS setting \
    ORDER BY 1 NULLS FIRST, 2";

pub fn read(connection: &mut Connection) -> Result<Database> {
    let version = connection.server_version();
    let since = |since: u32, column: &'static str| if version >= since { column } else { "NULL" };
    let provider = since(150_000, "d.datlocprovider::pg_catalog.text");
    let collation_version = since(150_000, "d.datcollversion");
    let locale = if version >= 170_000 { "d.datlocale" } else { since(150_000, "d.daticulocale") };
    let rules = since(160_000, "d.daticurules");
    let sql = format!(
        "SELECT pg_catalog.pg_encoding_to_char(d.encoding)::pg_catalog.text, {provider}, \
                d.datcollate::pg_catalog.text, d.datctype::pg_catalog.text, {locale}::pg_catalog.text, \
                {rules}::pg_catalog.text, {collation_version}::pg_catalog.text, \
                pg_catalog.pg_get_userbyid(d.datdba)::pg_catalog.text, d.datconnlimit, \
                pg_catalog.shobj_description(d.oid, 'pg_database'), d.datacl::pg_catalog.text, \
                t.spcname::pg_catalog.text \
         FROM pg_catalog.pg_database d JOIN pg_catalog.pg_tablespace t ON t.oid = d.dattablespace \
         WHERE d.datname = pg_catalog.current_database()"
    );
    let row = connection.query_one(&sql, &[])?;
    let provider: Option<String> = row.try_get(1)?;
    Ok(Database {
        encoding: row.try_get(0)?,
        provider: match provider.as_deref() {
            None | Some("c") => LocaleProvider::Libc,
            Some("i") => LocaleProvider::Icu,
            Some("b") => LocaleProvider::Builtin,
            Some(_) => return Err(Error::Protocol),
        },
        collate: row.try_get(2)?,
        ctype: row.try_get(3)?,
        locale: row.try_get(4)?,
        icu_rules: row.try_get(5)?,
        collation_version: row.try_get(6)?,
        owner: row.try_get(7)?,
        connection_limit: row.try_get(8)?,
        comment: row.try_get(9)?,
        acl: row.try_get(10)?,
        tablespace: row.try_get(11)?,
        settings: settings(connection)?,
    })
}

fn settings(connection: &mut Connection) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    for row in connection.query(SETTINGS, &[])? {
        let setting: &str = row.try_get(1)?;
        let (name, value) = setting.split_once('=').ok_or(Error::Protocol)?;
        settings.push(Setting { role: row.try_get(0)?, name: name.into(), value: value.into() });
    }
    Ok(settings)
}
