//! Parts that share a commit.
//!
//! A commit waits for the disk two or three times, which takes longer than writing a small table. A
//! part of one chunk is therefore written into the transaction that is open, behind a savepoint of
//! its own, and its transaction stays open for the next part if one comes at once; rows and ledger
//! lines of all of them become durable together. Parts of another rank, and large parts, find
//! everything before them committed. No part counts as finished before its commit.

use std::time::Duration;

use rusqlite::{Connection, Error, ffi};
use sealift_protocol::id::PartIndex;

/// What a crash may cost: so much is sent and written again.
const PARTS_MAX: usize = 256;
const BYTES_MAX: u64 = 4 << 20;

/// How long a transaction waits for another part. One that has arrived takes a fraction of it;
/// without one it is of the order of the commit that it may save.
pub const WAIT_MAX: Duration = Duration::from_millis(5);

/// The parts that are written, each with its line in the ledger, and not committed.
#[derive(Default)]
pub struct Group {
    parts: Vec<PartIndex>,
    bytes: u64,
    /// A part is being written behind its savepoint.
    writing: bool,
}

impl Group {
    pub fn parts(&self) -> &[PartIndex] {
        &self.parts
    }

    fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    pub fn has_room(&self) -> bool {
        self.parts.len() < PARTS_MAX && self.bytes < BYTES_MAX
    }

    /// Begins a part in the transaction that is open, or in a new one.
    pub fn begin_part(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        if self.is_empty() {
            connection.execute_batch("BEGIN IMMEDIATE")?;
        } else if connection.is_autocommit() {
            // Some errors undo a whole transaction. A savepoint outside one would commit by itself.
            return Err(Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_ABORT_ROLLBACK), None));
        }
        connection.execute_batch("SAVEPOINT part")?;
        self.writing = true;
        Ok(())
    }

    /// The part is whole, and so is its line in the ledger.
    pub fn end_part(&mut self, connection: &Connection, part: PartIndex, bytes: u64) -> rusqlite::Result<()> {
        connection.execute_batch("RELEASE part")?;
        self.writing = false;
        self.parts.push(part);
        self.bytes = self.bytes.saturating_add(bytes);
        Ok(())
    }

    /// Commits all of them; when this returns, they are on the disk.
    pub fn commit(&mut self, connection: &Connection) -> rusqlite::Result<Vec<PartIndex>> {
        if self.is_empty() {
            return Ok(Vec::new());
        }
        connection.execute_batch("COMMIT")?;
        self.bytes = 0;
        Ok(std::mem::take(&mut self.parts))
    }

    /// Undoes the part that was being written, and nothing of those before it, for which the
    /// transaction stays open.
    pub fn undo_part(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let is_writing = std::mem::take(&mut self.writing);
        match (self.is_empty(), is_writing) {
            (true, _) => roll_back(connection),
            (false, true) => connection.execute_batch("ROLLBACK TO part; RELEASE part"),
            (false, false) => Ok(()),
        }
    }

    /// Undoes everything that is not committed.
    pub fn roll_back(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        *self = Self::default();
        roll_back(connection)
    }
}

fn roll_back(connection: &Connection) -> rusqlite::Result<()> {
    if connection.is_autocommit() { Ok(()) } else { connection.execute_batch("ROLLBACK") }
}

#[cfg(test)]
mod tests;
