//! What the role may do beyond what a transfer needs, and what it lacks.

use sealift_engine_api::Finding;

use super::survey::Survey;
use crate::{
    client::{Connection, End, Result},
    names::listed,
    source::LeftOut,
};

/// Attributes of a role, with the words of a message. A target needs CREATEDB, which is looked at
/// by itself, and a source whose policies hide rows BYPASSRLS.
const ATTRIBUTES: [(&str, &str); 5] = [
    ("rolsuper", "SUPERUSER"),
    ("rolcreaterole", "CREATEROLE"),
    ("rolcreatedb", "CREATEDB"),
    ("rolreplication", "REPLICATION"),
    ("rolbypassrls", "BYPASSRLS"),
];

/// Roles of the server's own whose members may do on its host, or to its data, what no transfer
/// needs.
const POWERFUL: &str = "'pg_execute_server_program', 'pg_write_server_files', 'pg_read_server_files', \
    'pg_write_all_data', 'pg_signal_backend', 'pg_maintain', 'pg_create_subscription', 'rds_superuser', 'cloudsqlsuperuser', \
    'azure_pg_admin'";

/// Tables that people made.
const USER_TABLES: &str = "pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relpersistence <> 't' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'";

/// What it may do beyond reading, or beyond making one database.
pub fn beyond_need(survey: &mut Survey<'_>) -> Result {
    let columns = ATTRIBUTES.map(|(column, _)| column).join(", ");
    let sql = format!("SELECT {columns} FROM pg_catalog.pg_roles WHERE rolname = current_user");
    let row = survey.connection.query_one(&sql, &[])?;
    let mut beyond: Vec<String> = Vec::new();
    for (place, (column, word)) in ATTRIBUTES.into_iter().enumerate() {
        let is_needed = match survey.end {
            End::Source => column == "rolbypassrls" && has_row_security(survey)?,
            End::Target => column == "rolcreatedb",
        };
        if row.try_get::<_, bool>(place)? && !is_needed {
            beyond.push(word.to_owned());
        }
    }
    // A superuser is a member of all of them.
    if !survey.is_superuser {
        let sql = format!(
            "SELECT rolname::pg_catalog.text FROM pg_catalog.pg_roles WHERE rolname IN ({POWERFUL}) \
             AND pg_catalog.pg_has_role(oid, 'MEMBER') ORDER BY 1"
        );
        beyond.extend(survey.names(&sql)?.into_iter().map(|role| format!("membership in {role}")));
        if survey.end == End::Source {
            beyond.extend(writable(survey)?);
        }
    }
    if !beyond.is_empty() {
        let what =
            format!("the {}'s role may do more than a transfer needs: {}", survey.end.as_str(), beyond.join(", "));
        let next = match survey.end {
            End::Source => {
                "Use a role of its own that may read these tables and nothing else, for as long as the transfer runs."
            }
            End::Target => {
                "Use a role with CREATEDB, which is member of the owners of objects, unless the definitions need more."
            }
        };
        survey.push(Finding::warning("privileges-beyond-need", what, next));
    }
    Ok(())
}

fn has_row_security(survey: &mut Survey<'_>) -> Result<bool> {
    let sql = format!("SELECT EXISTS (SELECT FROM {USER_TABLES} AND c.relrowsecurity)");
    Ok(survey.connection.query_one(&sql, &[])?.try_get(0)?)
}

/// Tables that the role may write, and those that it owns.
fn writable(survey: &mut Survey<'_>) -> Result<Vec<String>> {
    let sql = format!(
        "SELECT pg_catalog.count(*) FILTER (WHERE NOT owned AND writable), pg_catalog.count(*) FILTER (WHERE owned) FROM ( \
            SELECT pg_catalog.pg_has_role(c.relowner, 'USAGE') AS owned, \
                   pg_catalog.has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE') AS writable \
            FROM {USER_TABLES} AND c.relkind IN ('r', 'p')) AS tables"
    );
    let row = survey.connection.query_one(&sql, &[])?;
    let (written, owned): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    let counted = [(written, "writing to"), (owned, "owning")];
    Ok(counted.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{what} {count} tables")).collect())
}

/// What the role cannot read: `pg_dump` and COPY would fail.
pub fn unreadable(connection: &mut Connection, left_out: &LeftOut) -> Result<Option<Finding>> {
    let sql = format!(
        "SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text, c.oid FROM {USER_TABLES} AND c.relkind IN ('r', 'p', 'S') \
           AND (NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE') \
                OR CASE c.relkind WHEN 'S' THEN NOT pg_catalog.has_sequence_privilege(c.oid, 'SELECT') \
                   ELSE NOT pg_catalog.has_table_privilege(c.oid, 'SELECT') END) \
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass \
               AND d.objid = c.oid AND d.deptype = 'e') ORDER BY 1, 2"
    );
    let mut names = Vec::new();
    for row in connection.query(&sql, &[])? {
        let (schema, name): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        if !left_out.has(row.try_get(2)?) && !left_out.has_sequence(&schema, &name) {
            names.push(format!("{schema}.{name}"));
        }
    }
    let finding = || {
        let what = format!("this role may not read these tables and sequences: {}", listed(&names));
        let next = "GRANT USAGE on their schemas and SELECT on them, or membership in pg_read_all_data (from version 14 on). \
                    Tables that are left out need neither: --exclude.";
        Finding::error("unreadable", what, next)
    };
    Ok((!names.is_empty()).then(finding))
}

/// A load is a database of its own.
pub fn createdb(survey: &mut Survey<'_>) -> Result {
    let sql = "SELECT rolcreatedb OR rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user";
    if !survey.connection.query_one(sql, &[])?.try_get::<_, bool>(0)? {
        let next = "Give the target's role the attribute CREATEDB, or use another role.";
        survey.push(Finding::error("createdb", "the target's role cannot create a database", next));
    }
    Ok(())
}
