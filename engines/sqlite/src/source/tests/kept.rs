//! What the tests of both sources share: a database to read, and a sink that keeps what was read.

use std::{
    io::{self, Read},
    path::PathBuf,
};

use rusqlite::Connection;
use sealift_engine_api::RowSink;
use sealift_protocol::failure::{Failure, Outcome};

/// Keeps what it is given.
pub struct Kept {
    pub rows: Vec<Vec<u8>>,
    pub bytes: Vec<u8>,
    /// How many of the rows were read in pieces.
    pub long_rows: usize,
    row_bytes_max: usize,
}

impl Kept {
    pub fn new(row_bytes_max: usize) -> Self {
        Self { rows: Vec::new(), bytes: Vec::new(), long_rows: 0, row_bytes_max }
    }
}

impl RowSink for Kept {
    fn row_bytes_max(&self) -> usize {
        self.row_bytes_max
    }

    fn row(&mut self, pieces: &[&[u8]]) -> Outcome {
        self.rows.push(pieces.concat());
        Ok(())
    }

    fn long_row(&mut self, row_bytes: usize, row: &mut dyn Read, failed: &dyn Fn(io::Error) -> Failure) -> Outcome {
        let mut kept = Vec::new();
        row.read_to_end(&mut kept).map_err(failed)?;
        assert_eq!(kept.len(), row_bytes);
        self.long_rows += 1;
        self.rows.push(kept);
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Outcome {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn read_from(&mut self, _reader: &mut dyn Read, _failed: &dyn Fn(io::Error) -> Failure) -> Outcome {
        panic!("a database is not read through a reader");
    }
}

/// A folder for one database.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> PathBuf {
        self.0.path().join("source.db")
    }

    /// A database made by `sql`; the connection that made it.
    pub fn database(&self, sql: &str) -> Connection {
        let connection = Connection::open(self.path()).unwrap();
        connection.execute_batch(sql).unwrap();
        connection
    }
}
