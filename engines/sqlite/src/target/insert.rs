//! The statement that inserts rows, whose values are bound where they lie.
//!
//! One of the modules of this crate with unsafe code. What
//! rusqlite binds SQLite copies (`SQLITE_TRANSIENT`), so that a large value would be in memory once
//! more. Here it only borrows it (`SQLITE_STATIC`), until the statement has run and its bindings
//! are cleared.
#![allow(unsafe_code)]

use std::{ffi::c_int, marker::PhantomData, ptr};

use rusqlite::{Connection, Error, Result, ffi};

use crate::{Value, document::TextEncoding};

/// An INSERT of one table.
pub struct Insert<'c> {
    statement: *mut ffi::sqlite3_stmt,
    /// The statement belongs to the connection, which must not be closed or used by another thread
    /// meanwhile; the pointer above makes this type neither `Send` nor `Sync`.
    connection: PhantomData<&'c Connection>,
}

impl<'c> Insert<'c> {
    pub fn prepare(connection: &'c Connection, sql: &str) -> Result<Self> {
        let sql_bytes = c_int::try_from(sql.len()).map_err(|_| Error::SqliteFailure(too_big(), None))?;
        let mut statement = ptr::null_mut();
        // SAFETY: the handle is that of an open connection, which is borrowed for as long as the
        // statement lives; the text is as long as is said.
        let code = unsafe {
            let text = sql.as_ptr().cast();
            ffi::sqlite3_prepare_v3(connection.handle(), text, sql_bytes, 0, &raw mut statement, ptr::null_mut())
        };
        check(code)?;
        Ok(Self { statement, connection: PhantomData })
    }

    /// Inserts one row. When this returns, SQLite holds nothing of `values`.
    pub fn execute(&mut self, values: &[Value<'_>], encoding: TextEncoding) -> Result<()> {
        let bound = self.bind_all(values, encoding);
        self.run(bound)
    }

    /// The same for a row whose last value is a BLOB of so many bytes, all 0. The encoding is
    /// UTF-8.
    pub fn execute_with_room(&mut self, values: &[Value<'_>], blob_bytes: usize) -> Result<()> {
        let bound = self.bind_all(values, TextEncoding::Utf8).and_then(|()| self.bind_room(values.len(), blob_bytes));
        self.run(bound)
    }

    fn bind_room(&mut self, values_before: usize, blob_bytes: usize) -> Result<()> {
        let place = c_int::try_from(values_before + 1).map_err(|_| Error::SqliteFailure(too_big(), None))?;
        // SAFETY: the statement was prepared and is not finalized; nothing is borrowed.
        check(unsafe { ffi::sqlite3_bind_zeroblob64(self.statement, place, blob_bytes as u64) })
    }

    /// Runs the statement, if all is bound, and clears what is.
    fn run(&mut self, bound: Result<()>) -> Result<()> {
        let inserted = bound.and_then(|()| self.step());
        // SAFETY: the statement was prepared and is not finalized. Neither call reads a binding.
        unsafe {
            // What it returns is the error of the step before.
            ffi::sqlite3_reset(self.statement);
            ffi::sqlite3_clear_bindings(self.statement);
        }
        inserted
    }

    /// Binds each value: as itself, or in UTF-16 as the pair of its bytes and whether they are
    /// text.
    fn bind_all(&mut self, values: &[Value<'_>], encoding: TextEncoding) -> Result<()> {
        let mut place = 0;
        let mut next_place = || {
            place += 1;
            place
        };
        for value in values {
            if encoding == TextEncoding::Utf8 {
                self.bind(next_place(), *value)?;
                continue;
            }
            let (stored, is_text) = match *value {
                Value::Text(bytes) => (Value::Blob(bytes), true),
                value => (value, false),
            };
            self.bind(next_place(), stored)?;
            self.bind(next_place(), Value::Integer(is_text.into()))?;
        }
        Ok(())
    }

    fn bind(&mut self, place: c_int, value: Value<'_>) -> Result<()> {
        let statement = self.statement;
        let borrowed = ffi::SQLITE_STATIC();
        // SAFETY: the statement was prepared and is not finalized. What is borrowed outlives
        // `execute`, whose `run` clears the bindings before it returns; nothing in between panics.
        check(unsafe {
            match value {
                Value::Null => ffi::sqlite3_bind_null(statement, place),
                Value::Integer(integer) => ffi::sqlite3_bind_int64(statement, place, integer),
                Value::Real(real) => ffi::sqlite3_bind_double(statement, place, real),
                Value::Text(bytes) => {
                    let start = start_of(bytes).cast();
                    let utf8 = ffi::SQLITE_UTF8 as u8;
                    ffi::sqlite3_bind_text64(statement, place, start, bytes.len() as u64, borrowed, utf8)
                }
                Value::Blob(bytes) => {
                    ffi::sqlite3_bind_blob64(statement, place, start_of(bytes).cast(), bytes.len() as u64, borrowed)
                }
            }
        })
    }

    fn step(&mut self) -> Result<()> {
        // SAFETY: as in `bind`: all that is bound is still borrowed.
        match unsafe { ffi::sqlite3_step(self.statement) } {
            ffi::SQLITE_DONE => Ok(()),
            code => Err(Error::SqliteFailure(ffi::Error::new(code), None)),
        }
    }
}

impl Drop for Insert<'_> {
    fn drop(&mut self) {
        // SAFETY: the statement is finalized once, here.
        unsafe { ffi::sqlite3_finalize(self.statement) };
    }
}

/// Where the bytes begin. An empty slice points nowhere, and SQLite is given an address that it may
/// read.
fn start_of(bytes: &[u8]) -> *const u8 {
    if bytes.is_empty() { c"".as_ptr().cast() } else { bytes.as_ptr() }
}

fn check(code: c_int) -> Result<()> {
    if code == ffi::SQLITE_OK { Ok(()) } else { Err(Error::SqliteFailure(ffi::Error::new(code), None)) }
}

fn too_big() -> ffi::Error {
    ffi::Error::new(ffi::SQLITE_TOOBIG)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(connection: &Connection) -> Vec<(String, String)> {
        let mut select = connection.prepare("SELECT typeof(a), quote(a) FROM t ORDER BY rowid").unwrap();
        let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.collect::<Result<Vec<_>>>().unwrap()
    }

    #[test]
    fn every_value_is_stored_as_it_is() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE t(a)").unwrap();
        let mut insert = Insert::prepare(&connection, "INSERT INTO t VALUES(?1)").unwrap();
        let values = [
            (Value::Null, "null", "NULL"),
            (Value::Integer(i64::MIN), "integer", "-9223372036854775808"),
            (Value::Real(1.5), "real", "1.5"),
            (Value::Text(b""), "text", "''"),
            (Value::Text(b"it's"), "text", "'it''s'"),
            (Value::Blob(b""), "blob", "X''"),
            (Value::Blob(b"\0\xff"), "blob", "X'00FF'"),
        ];
        for (value, ..) in values {
            insert.execute(&[value], TextEncoding::Utf8).unwrap();
        }
        let expected: Vec<_> = values.iter().map(|(_, kind, text)| (kind.to_string(), text.to_string())).collect();
        assert_eq!(stored(&connection), expected);
    }

    /// A row that is refused keeps nothing of itself bound, and the next one is inserted.
    #[test]
    fn a_refused_row_leaves_the_statement_usable() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE t(a UNIQUE)").unwrap();
        let mut insert = Insert::prepare(&connection, "INSERT INTO t VALUES(?1)").unwrap();
        for row in ["one", "one", "two"] {
            let row = row.to_owned();
            let inserted = insert.execute(&[Value::Text(row.as_bytes())], TextEncoding::Utf8);
            let refused = inserted.map_err(|error| error.sqlite_error().unwrap().extended_code);
            assert!(refused.is_ok() || refused == Err(ffi::SQLITE_CONSTRAINT_UNIQUE));
            drop(row);
        }
        assert_eq!(stored(&connection).len(), 2);
        assert!(Insert::prepare(&connection, "INSERT INTO nothing VALUES(1)").is_err());
    }
}
