//! Running definitions that come from an untrusted database.
//!
//! Each is one statement, prepared under an authorizer that knows what kind of object of what name
//! it should make and refuses everything else: other statements, other names, other databases, a
//! query, a function that acts. Names are compared as SQLite compares them, whatever the case of
//! ASCII letters.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use rusqlite::{
    Connection, Error, ErrorCode,
    hooks::{AuthAction, AuthContext, Authorization},
};

use crate::document::{Definition, LEDGER_TABLE, SEQUENCE_TABLE, VIRTUAL_MODULES};

/// What a definition is to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Table,
    Index,
    View,
    Trigger,
}

impl Kind {
    /// As `sqlite_schema.type` has it.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Table => "table",
            Kind::Index => "index",
            Kind::View => "view",
            Kind::Trigger => "trigger",
        }
    }
}

/// A definition that was not entered.
#[derive(Debug)]
pub struct Refused {
    pub name: String,
    pub cause: Cause,
}

#[derive(Debug)]
pub enum Cause {
    /// It would do more than define the one object of its name.
    DoesMore,
    /// The engine does not understand it: it may need a function, collation or module of the
    /// application that made it.
    NotUnderstood,
    /// The engine makes other catalogue entries of it than the source has.
    MakesOther,
    /// The engine failed.
    Engine(Error),
}

impl Refused {
    pub fn new(name: &str, cause: Cause) -> Self {
        Self { name: name.to_owned(), cause }
    }

    pub fn engine(name: &str, error: Error) -> Self {
        Self::new(name, Cause::from(error))
    }
}

impl From<Error> for Cause {
    fn from(error: Error) -> Self {
        match error {
            Error::MultipleStatement | Error::InvalidQuery => Cause::DoesMore,
            Error::SqlInputError { .. } => Cause::NotUnderstood,
            error => match error.sqlite_error_code() {
                Some(ErrorCode::AuthorizationForStatementDenied) => Cause::DoesMore,
                Some(ErrorCode::Unknown) => Cause::NotUnderstood,
                _ => Cause::Engine(error),
            },
        }
    }
}

/// Functions that do something beyond returning a value. The engine keeps them out of schemas
/// already (`trusted_schema=OFF`); this does not rely on it.
const ACTING_FUNCTIONS: [&str; 3] = ["load_extension", "fts3_tokenizer", "writefile"];

/// Runs the definition. `table` is what it belongs to: itself for a table.
pub fn define(connection: &mut Connection, kind: Kind, name: &str, sql: &str, table: &str) -> Result<(), Cause> {
    let own = name.to_owned();
    let table = table.to_owned();
    let makes = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&makes);
    let authorize = move |context: AuthContext<'_>| {
        seen.fetch_or(is_creation(kind, &context.action), Ordering::Relaxed);
        verdict(allows(kind, &own, &table, context))
    };
    let run = |connection: &mut Connection| -> rusqlite::Result<()> {
        connection.authorizer(Some(authorize))?;
        let mut statement = connection.prepare(sql)?;
        // A statement that makes nothing, gives rows or takes values is no definition.
        if !makes.load(Ordering::Relaxed) || statement.column_count() > 0 || statement.parameter_count() > 0 {
            return Err(Error::InvalidQuery);
        }
        statement.raw_execute().map(drop)
    };
    let outcome = run(connection);
    trust(connection)?;
    Ok(outcome?)
}

/// Ends the authorizer: what follows is Sealift's own.
fn trust(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.authorizer(None::<fn(AuthContext<'_>) -> Authorization>)
}

fn verdict(allowed: bool) -> Authorization {
    if allowed { Authorization::Allow } else { Authorization::Deny }
}

fn is_creation(kind: Kind, action: &AuthAction<'_>) -> bool {
    match action {
        AuthAction::CreateTable { .. } => kind == Kind::Table,
        AuthAction::CreateIndex { .. } => kind == Kind::Index,
        AuthAction::CreateView { .. } => kind == Kind::View,
        AuthAction::CreateTrigger { .. } => kind == Kind::Trigger,
        _ => false,
    }
}

fn allows(kind: Kind, name: &str, table: &str, context: AuthContext<'_>) -> bool {
    if context.database_name.is_some_and(|database| database != "main") {
        return false;
    }
    let is_catalogue = |table: &str| matches!(table, "sqlite_master" | "sqlite_schema");
    match context.action {
        AuthAction::CreateTable { table_name } => {
            kind == Kind::Table && (table_name.eq_ignore_ascii_case(name) || table_name == SEQUENCE_TABLE)
        }
        AuthAction::CreateIndex { index_name, table_name } => match kind {
            // Those of its own UNIQUE and PRIMARY KEY.
            Kind::Table => table_name.eq_ignore_ascii_case(table),
            Kind::Index => index_name.eq_ignore_ascii_case(name) && table_name.eq_ignore_ascii_case(table),
            _ => false,
        },
        AuthAction::CreateView { view_name } => kind == Kind::View && view_name.eq_ignore_ascii_case(name),
        AuthAction::CreateTrigger { trigger_name, table_name } => {
            let own = kind == Kind::Trigger && trigger_name.eq_ignore_ascii_case(name);
            own && !table_name.eq_ignore_ascii_case(LEDGER_TABLE)
        }
        AuthAction::Reindex { index_name } => kind == Kind::Index && index_name.eq_ignore_ascii_case(name),
        // The engine's own book-keeping, and the columns that expressions name.
        AuthAction::Insert { table_name } | AuthAction::Update { table_name, .. } => is_catalogue(table_name),
        AuthAction::Read { table_name, .. } => {
            is_catalogue(table_name) || (kind != Kind::View && table_name.eq_ignore_ascii_case(table))
        }
        AuthAction::Function { function_name } => {
            !ACTING_FUNCTIONS.iter().any(|acting| acting.eq_ignore_ascii_case(function_name))
        }
        _ => false,
    }
}

/// Enters a virtual table into the catalogue without running its module, as `.dump` of SQLite's own
/// shell does. Its shadow tables are made and filled like any other; a module's code first runs
/// when the target is used.
pub fn define_virtual(connection: &mut Connection, definition: &Definition) -> Result<(), Cause> {
    let permitted = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&permitted);
    let name = definition.name.clone();
    connection.authorizer(Some(move |context: AuthContext<'_>| match context.action {
        AuthAction::CreateVtable { table_name, module_name } => {
            let known = VIRTUAL_MODULES.iter().any(|module| module.eq_ignore_ascii_case(module_name));
            let own = table_name.eq_ignore_ascii_case(&name) && context.database_name == Some("main");
            seen.store(known && own, Ordering::Relaxed);
            verdict(known && own)
        }
        AuthAction::Insert { .. } | AuthAction::Update { .. } | AuthAction::Read { .. } => Authorization::Allow,
        _ => Authorization::Deny,
    }))?;
    let prepared = connection.prepare(&definition.sql).map(drop);
    trust(connection)?;
    prepared?;
    // What does not begin so, SQLite would not read from a catalogue.
    let begins = definition.sql.get(..7).is_some_and(|word| word.eq_ignore_ascii_case("CREATE "));
    if !permitted.load(Ordering::Relaxed) || !begins {
        return Err(Cause::DoesMore);
    }
    let sql = "INSERT INTO main.sqlite_schema(type, name, tbl_name, rootpage, sql) VALUES('table', ?1, ?1, 0, ?2)";
    with_writable_schema(connection, |connection| {
        connection.execute(sql, [&definition.name, &definition.sql]).map(drop)
    })?;
    Ok(())
}

/// Runs Sealift's own statement with the catalogue open to it.
pub fn with_writable_schema(
    connection: &Connection,
    run: impl FnOnce(&Connection) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    connection.pragma_update(None, "writable_schema", true)?;
    let outcome = run(connection);
    connection.pragma_update(None, "writable_schema", false)?;
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(&format!(
                "CREATE TABLE t(a, b); INSERT INTO t VALUES(1, 2); CREATE TABLE {LEDGER_TABLE}(x);"
            ))
            .unwrap();
        connection
    }

    fn definition(name: &str, sql: &str) -> Definition {
        Definition { name: name.into(), sql: sql.into(), table: None }
    }

    #[test]
    fn definitions_are_run() {
        let mut connection = connection();
        let mut run = |kind, name, sql, table| define(&mut connection, kind, name, sql, table).unwrap();
        run(
            Kind::Table,
            "u",
            "CREATE TABLE u(a INTEGER PRIMARY KEY AUTOINCREMENT, b TEXT UNIQUE DEFAULT (lower('X')), c CHECK(length(c) > 2), \
             d AS (a + 1) STORED, FOREIGN KEY(b) REFERENCES t(a))",
            "u",
        );
        run(Kind::Index, "i", "CREATE UNIQUE INDEX i ON t(a, b + 1 DESC) WHERE abs(b) > 0", "t");
        run(
            Kind::View,
            "v",
            "CREATE VIEW v AS WITH w AS (SELECT * FROM t) SELECT a, (SELECT max(a) FROM w) FROM w",
            "v",
        );
        run(Kind::Trigger, "x", "CREATE TRIGGER x AFTER INSERT ON t BEGIN DELETE FROM u; SELECT load(1); END", "x");
        run(Kind::Trigger, "y", "CREATE TRIGGER y INSTEAD OF UPDATE ON v BEGIN INSERT INTO t SELECT 1, 2; END", "y");
        define_virtual(&mut connection, &definition("f", "CREATE VIRTUAL TABLE f USING fts5(a)")).unwrap();
        let count: u32 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).unwrap();
        assert_eq!(count, 10);
    }

    /// Faults D2, D10: a definition defines, and does nothing else.
    #[test]
    fn hostile_definitions_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("attached").display().to_string();
        let refused = |kind, sql: &str| {
            let mut connection = connection();
            let cause = define(&mut connection, kind, "x", sql, "t").expect_err(&format!("{kind:?}: {sql}"));
            assert!(matches!(cause, Cause::DoesMore | Cause::NotUnderstood), "{sql}: {cause:?}");
            let count: u32 = connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
            assert_eq!(count, 1, "{sql}");
        };
        for kind in [Kind::Table, Kind::Index, Kind::View, Kind::Trigger] {
            refused(kind, &format!("ATTACH '{file}' AS x"));
            refused(kind, &format!("VACUUM INTO '{file}'"));
            refused(kind, "PRAGMA journal_mode=OFF");
            refused(kind, "DELETE FROM t");
            refused(kind, "DROP TABLE t");
            refused(kind, "ALTER TABLE t ADD COLUMN x");
            refused(kind, "SELECT load_extension('x')");
            refused(kind, "INSERT INTO sqlite_schema VALUES(1, 2, 3, 4, 5)");
            refused(kind, "UPDATE sqlite_schema SET sql = ''");
            refused(kind, "COMMIT");
            refused(kind, "CREATE TABLE y(a)");
            refused(kind, "CREATE TEMP TABLE x(a)");
            refused(kind, "CREATE TABLE x AS SELECT * FROM t");
            refused(kind, "CREATE VIRTUAL TABLE x USING fts5(a)");
            refused(kind, "CREATE TEMP TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; END");
            refused(kind, &format!("CREATE TRIGGER x AFTER INSERT ON {LEDGER_TABLE} BEGIN DELETE FROM t; END"));
            refused(kind, "CREATE TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; END; DELETE FROM t");
            refused(kind, "REINDEX");
            refused(kind, "ANALYZE");
            refused(kind, "");
            refused(kind, "-- nothing");
        }
        refused(Kind::Table, "CREATE TABLE x(a CHECK(load_extension('x')))");
        refused(Kind::Table, "CREATE TABLE x(a CHECK(a IN (SELECT a FROM t)))");
        refused(Kind::Index, "CREATE INDEX x ON t(load_extension(a))");
        refused(Kind::Index, &format!("CREATE INDEX x ON {LEDGER_TABLE}(x)"));
        assert!(!std::path::Path::new(&file).exists());
    }

    #[test]
    fn hostile_virtual_tables_are_refused() {
        let refused = |sql: &str| {
            let cause = define_virtual(&mut connection(), &definition("f", sql)).unwrap_err();
            assert!(matches!(cause, Cause::DoesMore | Cause::NotUnderstood), "{sql}: {cause:?}");
        };
        refused("CREATE VIRTUAL TABLE f USING dbstat");
        refused("CREATE VIRTUAL TABLE g USING fts5(a)");
        refused("CREATE VIRTUAL TABLE temp.f USING fts5(a)");
        refused("CREATE VIRTUAL TABLE f USING fts5(a); DELETE FROM t");
        refused("CREATE TABLE f(a)");
        refused("DELETE FROM t");
        refused("/* */ CREATE VIRTUAL TABLE f USING fts5(a)");
    }
}
