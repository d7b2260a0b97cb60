//! Where a source puts the bytes and the rows of a part.

use std::io::{self, Read};

use sealift_protocol::{
    close::Code,
    failure::{Failure, Outcome},
};

/// Takes the content of one part, in order. Every method blocks while what follows is busy: this is
/// how a slow target slows the source.
pub trait RowSink {
    /// The longest row in bytes that is moved. A source checks it while it makes a row, so that it
    /// bounds memory.
    fn row_bytes_max(&self) -> usize;

    /// Appends one encoded row of a table, in pieces that follow each other: a large value is taken
    /// from where the source has it.
    fn row(&mut self, pieces: &[&[u8]]) -> Outcome;

    /// Appends one encoded row of `row_bytes`, which `row` reads from where the source has it, so
    /// that no more than a chunk of it is in memory. `failed` says what an error in it means.
    fn long_row(&mut self, row_bytes: usize, row: &mut dyn Read, failed: &dyn Fn(io::Error) -> Failure) -> Outcome;

    /// Appends bytes that are no rows: a document of the engine's own, or those of a dump.
    fn bytes(&mut self, bytes: &[u8]) -> Outcome;

    /// Appends all that `reader` has, up to its end; `failed` says what an error in it means.
    fn read_from(&mut self, reader: &mut dyn Read, failed: &dyn Fn(io::Error) -> Failure) -> Outcome;
}

/// A row of `row_bytes` from which nothing more comes, though there should be `left` bytes.
pub fn row_cut_short(row_bytes: usize, left: usize) -> Failure {
    let what = format!("a row of {row_bytes} bytes ended {left} bytes early as it was read");
    Failure::new(Code::SourceFailed, what, "Check the disk and the database of the source, and start again.")
}

/// What was read of a table is not all that the engine counts in it, or more.
pub fn rows_not_as_counted(read: u64, counted: u64) -> Failure {
    let what = format!("{read} rows of a table were read, and it has {counted}");
    let next = "Check the source database for corruption, a damaged index above all. If it is sound, this is a fault of this \
                program: report it.";
    Failure::new(Code::SourceFailed, what, next)
}

/// A row that is not moved, since both sides would have to hold it whole.
pub fn row_too_long(row_bytes_max: usize) -> Failure {
    let what = format!("a row is over the limit of {row_bytes_max} bytes");
    let next = "Give both sides a higher --row-bytes-max; each then needs that much memory besides.";
    Failure::new(Code::SourceUnsuitable, what, next)
}
