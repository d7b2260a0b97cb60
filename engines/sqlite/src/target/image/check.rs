//! What the engine says of an image whose pages are those that were sent.
//!
//! The pages come from an untrusted peer, and the engine is made to read them: read-only, with
//! `trusted_schema` off, without extensions, and with nothing of the schema that this program asks
//! for by name but counts of ordinary tables. Views, triggers and virtual tables are not read;
//! CHECK constraints are not evaluated.
//!
//! What the engine cannot do is no damage. An application brings collations, functions and modules
//! of its own, and another release may compute the key of an index otherwise:
//!
//! | tried | where the one before cannot run, over | covers |
//! |---|---|---|
//! | `integrity_check` | everything | structure, values, contents of indexes |
//! | `quick_check`, with a stand-in for every unknown collation | everything | structure, values |
//! | `quick_check` of one table after the other | what can be read | structure of those tables |
//!
//! A damaged structure is the source's, since the pages are: it is refused. What is found in values
//! and indexes is counted.

use std::{fmt::Write, os::unix::ffi::OsStrExt, path::Path};

use rusqlite::{Connection, ErrorCode, OpenFlags, limits::Limit};
use sealift_protocol::{
    close::Code,
    failure::{Failure, Outcome},
    limits::{IMAGE_CHECKS_BYTES_MAX, NAME_BYTES_MAX, PARTS_MAX},
    manifest::{Checked, CountedTable, ImageChecks},
};

use super::super::{Turn, failure::failed, load::guard};
use crate::{document::is_internal, quote};

/// Page cache for reading once.
const CACHE_KIB: i32 = 8 << 10;

/// So many findings are counted. The engine puts what it finds in the structure first, into one
/// text of so many lines.
const FINDINGS_MAX: u32 = 1000;

/// Tables, indexes, views and triggers that the engine is let hold in memory: the widest schemas
/// known have a tenth.
const OBJECTS_MAX: i32 = 1 << 16;

/// A table in the receipt has at most so many bytes beside its name.
const COUNTED_TABLE_BYTES_MAX: usize = 20;

/// How `integrity_check` begins what it found in the structure, as opposed to values and contents
/// of indexes. The engine is part of this program: its words change with it alone, and a test has
/// them.
const DAMAGE: [&str; 2] = ["*** in database", "wrong # of entries in index"];

const STAGING: &str = "the staging file";

/// Checks the database in the staging file and counts its tables.
pub fn check(turn: &Turn<'_>, page_bytes: u32, pages: u64) -> Outcome<ImageChecks> {
    let connection =
        open(turn.shared.staging.file(), turn.shared.row_bytes_max).map_err(|error| failed(&error, STAGING))?;
    turn.interruptible_by(connection.get_interrupt_handle())?;
    let is_understood = understand(&connection)?;
    // Not before: the engine would read the catalogue for it.
    connection.pragma_update(None, "cache_size", -CACHE_KIB).map_err(|error| failed(&error, STAGING))?;
    let names = tables(&connection)?;
    let (checked, findings) = match is_understood {
        true => check_everything(&connection)?,
        false => (Checked::SomeTables, 0),
    };
    let mut checks =
        ImageChecks { page_bytes, pages, checked, findings, tables: Vec::new(), tables_left_out: names.left_out };
    if checked == Checked::SomeTables
        && let Ran::Through(findings) = run(&connection, &one_table("sqlite_schema"))?
    {
        checks.findings = findings;
    }
    for name in names.listed {
        turn.shared.check_stop()?;
        checks.tables.push(look_at(&connection, name, &mut checks.findings, checked)?);
    }
    Ok(checks)
}

/// As immutable: without locks, and without a `-wal` or `-shm` file whatever the header says.
fn open(file: &Path, row_bytes_max: usize) -> rusqlite::Result<Connection> {
    let mut uri = "file:".to_owned();
    for byte in file.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => uri.push(char::from(*byte)),
            _ => drop(write!(uri, "%{byte:02X}")),
        }
    }
    uri += "?mode=ro&immutable=1";
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(uri, flags)?;
    guard(&connection, row_bytes_max)?;
    connection.set_limit(Limit::SQLITE_LIMIT_SCHEMA, OBJECTS_MAX)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "ignore_check_constraints", true)?;
    Ok(connection)
}

/// Makes the engine read the catalogue. `false` where it holds a definition that this release does
/// not understand; that one is passed over from here on.
fn understand(connection: &Connection) -> Outcome<bool> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    // Without the catalogue: the header, and the length of the file.
    number("PRAGMA schema_version").map_err(|error| whose(&error))?;
    let read = "SELECT count(*) FROM main.sqlite_schema";
    match number(read) {
        Ok(_) => return Ok(true),
        Err(error) if is_fatal(&error) => return Err(failed(&error, STAGING)),
        Err(_) => {}
    }
    connection.pragma_update(None, "writable_schema", true).map_err(|error| failed(&error, STAGING))?;
    // The first statement still fails for what was not understood. The next is prepared with what
    // was.
    let _ = connection.prepare(read);
    number(read).map_err(|error| whose(&error))?;
    Ok(false)
}

struct Names {
    listed: Vec<String>,
    left_out: u64,
}

/// The ordinary tables of the catalogue, as many as the receipt has room for.
fn tables(connection: &Connection) -> Outcome<Names> {
    let sql = "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND rootpage > 0 ORDER BY rowid";
    let mut statement = connection.prepare(sql).map_err(|error| whose(&error))?;
    let mut rows = statement.raw_query();
    let mut names = Names { listed: Vec::new(), left_out: 0 };
    let mut bytes = 4 * COUNTED_TABLE_BYTES_MAX;
    while let Some(row) = rows.next().map_err(|error| whose(&error))? {
        let name = row.get_ref(0).ok().and_then(|name| name.as_bytes().ok().map(<[u8]>::to_vec));
        let name = name.and_then(|name| String::from_utf8(name).ok()).filter(|name| name.len() <= NAME_BYTES_MAX);
        match name {
            Some(name)
                if names.listed.len() < PARTS_MAX
                    && bytes + name.len() + COUNTED_TABLE_BYTES_MAX <= IMAGE_CHECKS_BYTES_MAX =>
            {
                bytes += name.len() + COUNTED_TABLE_BYTES_MAX;
                names.listed.push(name);
            }
            _ => names.left_out += 1,
        }
    }
    Ok(names)
}

/// The widest check that can run, and what it found.
fn check_everything(connection: &Connection) -> Outcome<(Checked, u64)> {
    if let Ran::Through(findings) = run(connection, &format!("PRAGMA main.integrity_check({FINDINGS_MAX})"))? {
        return Ok((Checked::Everything, findings));
    }
    // With a stand-in, indexes are not in order; `quick_check` does not look at that.
    connection.collation_needed(stand_in).map_err(|error| failed(&error, STAGING))?;
    if let Ran::Through(findings) = run(connection, &format!("PRAGMA main.quick_check({FINDINGS_MAX})"))? {
        return Ok((Checked::Structure, findings));
    }
    Ok((Checked::SomeTables, 0))
}

fn stand_in(connection: &Connection, name: &str) -> rusqlite::Result<()> {
    connection.create_collation(name, |one: &str, two: &str| one.cmp(two))
}

fn one_table(name: &str) -> String {
    format!("PRAGMA main.quick_check({})", quote(name))
}

/// Counts one table, and checks it where not all of them were.
fn look_at(connection: &Connection, name: String, findings: &mut u64, checked: Checked) -> Outcome<CountedTable> {
    let is_checked = match checked {
        Checked::Everything | Checked::Structure => true,
        Checked::SomeTables => match run(connection, &one_table(&name))? {
            Ran::Through(found) => {
                *findings = findings.saturating_add(found);
                true
            }
            Ran::Not => false,
        },
    };
    // Of the table itself: an index may need a collation.
    let sql = format!("SELECT count(*) FROM main.{} NOT INDEXED", quote(&name));
    let rows = match connection.query_row(&sql, [], |row| row.get::<_, i64>(0)) {
        Ok(rows) => Some(rows.unsigned_abs()),
        Err(error) if is_fatal(&error) => return Err(failed(&error, STAGING)),
        Err(error) if is_damage(&error) => return Err(damaged()),
        Err(_) => None,
    };
    let internal = is_internal(&name);
    Ok(CountedTable { name, rows, checked: is_checked, internal })
}

/// What a check came to.
enum Ran {
    /// It ran through and found so much in values and indexes.
    Through(u64),
    /// It needs something of an application, or of another release.
    Not,
}

fn run(connection: &Connection, pragma: &str) -> Outcome<Ran> {
    let mut statement = match connection.prepare(pragma) {
        Ok(statement) => statement,
        Err(error) if is_fatal(&error) => return Err(failed(&error, STAGING)),
        Err(_) => return Ok(Ran::Not),
    };
    let mut rows = statement.raw_query();
    let mut findings = 0;
    loop {
        let row = match rows.next() {
            Ok(Some(row)) => row,
            Ok(None) => return Ok(Ran::Through(findings)),
            Err(error) if is_fatal(&error) => return Err(failed(&error, STAGING)),
            Err(error) if is_damage(&error) => return Err(damaged()),
            Err(_) => return Ok(Ran::Not),
        };
        let text = row.get_ref(0).ok().and_then(|text| text.as_bytes().ok()).unwrap_or_default();
        if text == b"ok" {
            continue;
        }
        if DAMAGE.iter().any(|damage| text.starts_with(damage.as_bytes())) {
            return Err(damaged());
        }
        findings += 1;
    }
}

/// An error of the disk or of memory, or a stop: it says nothing about the pages.
fn is_fatal(error: &rusqlite::Error) -> bool {
    let fatal = [
        ErrorCode::OperationInterrupted,
        ErrorCode::OutOfMemory,
        ErrorCode::SystemIoFailure,
        ErrorCode::CannotOpen,
        ErrorCode::DiskFull,
    ];
    error.sqlite_error_code().is_some_and(|code| fatal.contains(&code))
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

fn whose(error: &rusqlite::Error) -> Failure {
    if is_damage(error) { damaged() } else { failed(error, STAGING) }
}

fn damaged() -> Failure {
    let what = "the source is damaged: its pages arrived as they are, and SQLite's integrity_check finds their structure broken";
    let next = "Run `PRAGMA integrity_check` on the source, repair it or restore it from a backup, and start again. Nothing \
                was loaded.";
    Failure::new(Code::LoadImpossible, what, next)
}
