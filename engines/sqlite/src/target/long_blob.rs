//! A BLOB that is written piece by piece, where it lies in its row (`sqlite3_blob`). rusqlite has
//! the same, but borrows the connection for as long as it is open, which is from chunk to chunk.
//!
//! One of the modules of this crate with unsafe code.
#![allow(unsafe_code)]

use std::{
    ffi::{CString, c_int},
    ptr,
};

use rusqlite::{Connection, Error, Result, ffi};

/// An open BLOB, and how much of it is written.
pub struct LongBlob {
    blob: *mut ffi::sqlite3_blob,
    written: c_int,
}

impl LongBlob {
    /// Opens a BLOB that is in its row already, with the length that it will keep. The connection
    /// must not be closed before this is dropped; if it is, SQLite refuses that.
    pub fn open(connection: &Connection, table: &str, column: &str, rowid: i64) -> Result<Self> {
        let (table, column) = (CString::new(table)?, CString::new(column)?);
        let mut blob = ptr::null_mut();
        // SAFETY: the handle is that of an open connection, and each name ends with 0.
        check(unsafe {
            let (table, column) = (table.as_ptr(), column.as_ptr());
            ffi::sqlite3_blob_open(connection.handle(), c"main".as_ptr(), table, column, rowid, 1, &raw mut blob)
        })?;
        Ok(Self { blob, written: 0 })
    }

    /// Writes the next piece. Fails if it does not fit.
    pub fn write(&mut self, piece: &[u8]) -> Result<()> {
        let bytes = c_int::try_from(piece.len()).map_err(|_| too_big())?;
        // SAFETY: the BLOB is open until `drop`, and the piece is as long as is said. SQLite copies
        // it, and checks that it lies within the BLOB.
        check(unsafe { ffi::sqlite3_blob_write(self.blob, piece.as_ptr().cast(), bytes, self.written) })?;
        self.written += bytes;
        Ok(())
    }
}

impl Drop for LongBlob {
    fn drop(&mut self) {
        // SAFETY: it is closed once, here. What it returns is the error of the write before.
        unsafe { ffi::sqlite3_blob_close(self.blob) };
    }
}

fn check(code: c_int) -> Result<()> {
    if code == ffi::SQLITE_OK { Ok(()) } else { Err(Error::SqliteFailure(ffi::Error::new(code), None)) }
}

fn too_big() -> Error {
    Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_TOOBIG), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_written_in_place() {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch("CREATE TABLE \"a \"\"b\"(x, \"y z\"); INSERT INTO \"a \"\"b\" VALUES(1, zeroblob(5))")
            .unwrap();
        let open = |column| LongBlob::open(&connection, "a \"b", column, 1);
        let mut blob = open("y z").unwrap();
        blob.write(b"abc").unwrap();
        blob.write(b"").unwrap();
        assert!(blob.write(b"def").is_err(), "longer than the BLOB");
        blob.write(b"de").unwrap();
        drop(blob);
        let stored: Vec<u8> = connection.query_row("SELECT \"y z\" FROM \"a \"\"b\"", [], |row| row.get(0)).unwrap();
        assert_eq!(stored, b"abcde");
        assert!(open("x").is_err() && open("nothing").is_err());
    }
}
