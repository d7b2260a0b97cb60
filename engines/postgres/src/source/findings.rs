//! What there is to be said of a source before anything is sent. What this version does not move
//! exactly is an error, by a name of its own.

use sealift_engine_api::{Finding, Severity};
use sealift_protocol::failure::Outcome;

use super::{catalogue::Catalogue, left_out::LeftOut};
use crate::{
    client::{At, Connection, End, Result},
    document::Table,
    names::listed,
    preflight::server,
    sql::Names,
};

/// From this version on, a name in escapes is converted into any encoding.
const ESCAPES_SINCE: u32 = 130_000;

/// Extensions that keep rows where their own hooks alone find them.
const UNMOVED_EXTENSIONS: &[&str] = &["citus", "citus_columnar", "pg_dirtyread", "timescaledb", "timescaledb_toolkit"];

/// A query for objects that all have the same finding: their names, and of those that are
/// relations the OID.
struct Look {
    name: &'static str,
    severity: Severity,
    what: &'static str,
    hint: &'static str,
    sql: &'static str,
}

/// The findings that name large objects.
const OF_LARGE_OBJECTS: [&str; 2] = ["large-objects", "security-labels"];

const LOOKS: &[Look] = &[
    Look {
        name: "large-objects",
        severity: Severity::Error,
        what: "this role may not read these large objects",
        hint: "Grant it SELECT ON LARGE OBJECT, or give their owner or a superuser.",
        sql: "SELECT m.oid::pg_catalog.text, NULL::pg_catalog.oid FROM pg_catalog.pg_largeobject_metadata m \
              WHERE pg_catalog.current_setting('lo_compat_privileges') = 'off' \
                AND NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) \
                AND NOT EXISTS (SELECT FROM pg_catalog.aclexplode( \
                        COALESCE(m.lomacl, pg_catalog.acldefault('L', m.lomowner))) AS acl \
                    WHERE acl.privilege_type = 'SELECT' AND CASE acl.grantee WHEN 0 THEN true \
                        ELSE pg_catalog.pg_has_role(acl.grantee, 'USAGE') END) \
              ORDER BY m.oid",
    },
    Look {
        name: "security-labels",
        severity: Severity::Warning,
        what: "the security labels of these large objects are not moved",
        hint: "Give them in the target with SECURITY LABEL ON LARGE OBJECT.",
        sql: "SELECT DISTINCT objoid::pg_catalog.text, NULL::pg_catalog.oid FROM pg_catalog.pg_seclabel \
              WHERE classoid = 'pg_catalog.pg_largeobject'::pg_catalog.regclass ORDER BY 1",
    },
    Look {
        name: "access-methods",
        severity: Severity::Error,
        what: "tables that another access method than the server's own heap stores are not moved",
        hint: "Change their access method, or move this database with exec:pg_dump and exec:psql (docs/operations.md).",
        sql: "SELECT n.nspname || '.' || c.relname, c.oid FROM pg_catalog.pg_class c \
              JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN pg_catalog.pg_am a ON a.oid = c.relam \
              WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' \
                AND a.amhandler <> 'pg_catalog.heap_tableam_handler'::pg_catalog.regproc ORDER BY 1",
    },
    Look {
        name: "user-mappings",
        severity: Severity::Error,
        what: "user mappings with options may hold passwords, and pg_dump would carry them",
        hint: "Drop the user mappings of this database, and make them again in the target.",
        // The table itself is shown to superusers alone.
        sql: "SELECT DISTINCT srvname::pg_catalog.text, NULL::pg_catalog.oid FROM pg_catalog.pg_user_mappings ORDER BY 1",
    },
    Look {
        name: "row-level-security",
        severity: Severity::Error,
        what: "row-level security hides rows of these tables from this role",
        hint: "Give a role with BYPASSRLS, or the owner of the tables.",
        sql: "SELECT n.nspname || '.' || c.relname, c.oid FROM pg_catalog.pg_class c \
              JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
              WHERE c.relkind IN ('r', 'p') AND pg_catalog.row_security_active(c.oid) ORDER BY 1",
    },
    Look {
        name: "subscriptions",
        severity: Severity::Warning,
        what: "subscriptions are not moved: their connection strings may hold passwords",
        hint: "Make them again in the target.",
        sql: "SELECT s.subname::pg_catalog.text, NULL::pg_catalog.oid FROM pg_catalog.pg_subscription s \
              JOIN pg_catalog.pg_database d ON d.oid = s.subdbid AND d.datname = pg_catalog.current_database() ORDER BY 1",
    },
    Look {
        name: "foreign-tables",
        severity: Severity::Warning,
        what: "the rows of foreign tables stay on their servers; their definitions are moved",
        hint: "Check that the target can reach those servers.",
        sql: "SELECT n.nspname || '.' || c.relname, c.oid FROM pg_catalog.pg_class c \
              JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'f' ORDER BY 1",
    },
    Look {
        name: "unlogged-tables",
        severity: Severity::Note,
        what: "unlogged tables are moved with their rows, and stay unlogged",
        hint: "",
        sql: "SELECT n.nspname || '.' || c.relname, c.oid FROM pg_catalog.pg_class c \
              JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
              WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'u' ORDER BY 1",
    },
];

/// The findings that matter only where rows are moved.
const OF_ROWS: [&str; 2] = ["large-objects", "row-level-security"];

/// What there is to be said of the objects of the snapshot.
pub fn all(
    connection: &mut Connection,
    catalogue: &Catalogue,
    left_out: &LeftOut,
    definitions_only: bool,
) -> Outcome<Vec<Finding>> {
    let what = "looking at the source";
    let mut findings: Vec<Finding> =
        server::standby(connection, End::Source).at(End::Source, what)?.into_iter().collect();
    findings.extend(of_objects(connection, left_out, definitions_only).at(End::Source, what)?);
    findings.extend(unwritable_names(connection.server_version(), catalogue));
    Ok(findings)
}

/// What needs no snapshot: a preflight says it, too.
pub fn of_objects(connection: &mut Connection, left_out: &LeftOut, definitions_only: bool) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for look in LOOKS.iter().filter(|look| !definitions_only || !OF_ROWS.contains(&look.name)) {
        findings.extend(look.find(connection, left_out)?);
    }
    findings.extend(left_out.findings(connection)?);
    findings.extend(extensions(connection)?);
    Ok(findings)
}

/// A statement in another encoding than UTF-8 has such names as escapes, which older servers do not
/// convert.
fn unwritable_names(server_version: u32, catalogue: &Catalogue) -> Option<Finding> {
    let names_of = |table: &Table| {
        let columns = table.columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>();
        [table.schema.clone(), table.name.clone()].into_iter().chain(columns)
    };
    let is_escaped = Names::in_encoding(&catalogue.database.encoding) == Names::Escaped;
    let names = catalogue.tables.iter().flat_map(|table| names_of(&table.table));
    let names: Vec<_> = names.filter(|name| !name.is_ascii()).collect();
    if server_version >= ESCAPES_SINCE || !is_escaped || names.is_empty() {
        return None;
    }
    let what = format!(
        "before version 13, names outside of ASCII cannot be read from a database in {}: {}",
        catalogue.database.encoding,
        listed(&names)
    );
    Some(Finding::error("names", what, "Upgrade the server, or move this database with exec:pg_dump and exec:psql."))
}

impl Look {
    fn find(&self, connection: &mut Connection, left_out: &LeftOut) -> Result<Option<Finding>> {
        let mut names = Vec::new();
        for row in connection.query(self.sql, &[])? {
            let relation: Option<u32> = row.try_get(1)?;
            if !relation.is_some_and(|oid| left_out.has(oid)) {
                names.push(row.try_get(0)?);
            }
        }
        if left_out.large_objects && OF_LARGE_OBJECTS.contains(&self.name) {
            return Ok(None);
        }
        if names.is_empty() {
            return Ok(None);
        }
        let what = format!("{}: {}", self.what, listed(&names));
        Ok(Some(Finding::new(self.severity, self.name, what, self.hint)))
    }
}

fn names(connection: &mut Connection, sql: &str) -> Result<Vec<String>> {
    connection.query(sql, &[])?.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Extensions that are not moved.
fn extensions(connection: &mut Connection) -> Result<Option<Finding>> {
    let installed = names(connection, "SELECT extname::pg_catalog.text FROM pg_catalog.pg_extension ORDER BY 1")?;
    let unmoved: Vec<_> = installed.into_iter().filter(|name| UNMOVED_EXTENSIONS.contains(&name.as_str())).collect();
    let finding = || {
        let what = format!("databases with these extensions are not moved: {}", listed(&unmoved));
        Finding::error("extensions", what, "Use the extension's own way to move or replicate it.")
    };
    Ok((!unmoved.is_empty()).then(finding))
}
