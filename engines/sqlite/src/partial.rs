//! Whether a partial index holds the rows that its condition selects, and no other.
//!
//! `PRAGMA integrity_check` finds rows that are missing in an index. Entries of rows for which the
//! condition does not hold it finds in other indexes alone, by their number. They are there where
//! another release, or another function of the application, had computed the condition; an index
//! that is rebuilt would not have them.

use rusqlite::{Connection, config::DbConfig};

use crate::loading::text_behind_columns;
use crate::{document::Definition, quote};

/// Whether an index whose rows are all there has more entries than there are rows for it. Takes an
/// index without a condition for right.
pub fn has_foreign_entries(connection: &Connection, table: &str, index: &Definition) -> rusqlite::Result<bool> {
    let Some(condition) = text_behind_columns(&index.sql) else { return Ok(false) };
    let entries: i64 = connection.query_row(
        "SELECT coalesce(sum(ncell), 0) FROM dbstat('main') WHERE name = ?1",
        [&index.name],
        |row| row.get(0),
    )?;
    let sql = format!("SELECT count(*) FROM main.{} NOT INDEXED {condition}", quote(table));
    // As in the definition, a name in double quotes that is no column is a string.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, true)?;
    let rows = connection.query_row(&sql, [], |row| row.get::<_, i64>(0));
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
    Ok(entries > rows?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Issue 9, B2; fault E14.
    #[test]
    fn entries_that_the_condition_does_not_select_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let application = Connection::open(&path).unwrap();
        let definitions = [
            ("plain", "CREATE INDEX plain ON t(a)", false),
            ("every", "CREATE INDEX every ON t(a /* ) */, \"b)\") -- where\n WhErE \"b)\" <> \"text\" -- end", false),
            ("other", "CREATE UNIQUE INDEX other ON t(a) WHERE a = 'x'", true),
        ];
        application.execute_batch("CREATE TABLE t(a, \"b)\")").unwrap();
        let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 5000) INSERT INTO t SELECT 'A' || i, i FROM n";
        application.execute_batch(rows).unwrap();
        for (_, sql, _) in definitions {
            application.execute_batch(&sql.replace("a = 'x'", "a <> 'x'")).unwrap();
        }
        // As if another function had answered when the rows were written.
        let edit = "PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql = replace(sql, 'a <> ''x', 'a = ''x')";
        application.execute_batch(edit).unwrap();
        drop(application);
        let source = Connection::open(&path).unwrap();
        for (name, sql, foreign) in definitions {
            let definition = Definition { name: name.into(), sql: sql.into(), table: Some("t".into()) };
            assert_eq!(has_foreign_entries(&source, "t", &definition), Ok(foreign), "{name}");
        }
        // What the check of SQLite itself does not see.
        let checked: String = source.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(checked, "ok");
    }
}
