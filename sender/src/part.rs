//! Cutting a part into chunks.

use std::{
    io::{self, Read},
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::BytesMut;
use sealift_agent::failure::{Failure, Outcome};
use sealift_engine_api::{PartReader, RowSink, row_cut_short, row_too_long};
use sealift_protocol::{
    chunk::{Chunk, ChunkBuffer},
    digest::{MultisetDigest, RowsDigest},
    id::{ChunkIndex, PartIndex},
    limits::CHUNK_PLAIN_BYTES,
    row::put_length,
};

use crate::nothing::holds_nothing;

/// Takes a part's bytes or rows from a source and emits chunks. Blocks while what follows is busy:
/// this is how a slow loader slows the dump.
pub struct PartWriter<'a> {
    part: PartIndex,
    next: ChunkIndex,
    buffer: ChunkBuffer,
    rows: MultisetDigest,
    emit: &'a mut dyn FnMut(Chunk) -> Outcome,
    row_bytes_max: usize,
    /// Of all but the last.
    chunk_bytes: usize,
    passed: Option<PartRowsPassed<'a>>,
}

/// Rows that were emitted, of all parts. Those of a part that is read again count once.
pub struct RowsPassed {
    all: AtomicU64,
    of_parts: Vec<AtomicU64>,
}

/// The same for one of the parts.
pub struct PartRowsPassed<'a> {
    all: &'a AtomicU64,
    of_part: Option<&'a AtomicU64>,
}

impl RowsPassed {
    /// Of so many parts, none yet.
    pub fn of(parts: usize) -> Self {
        Self { all: AtomicU64::new(0), of_parts: (0..parts).map(|_| AtomicU64::new(0)).collect() }
    }

    pub fn count(&self) -> u64 {
        self.all.load(Ordering::Relaxed)
    }

    pub fn of_part(&self, part: PartIndex) -> PartRowsPassed<'_> {
        PartRowsPassed { all: &self.all, of_part: self.of_parts.get(part.0 as usize) }
    }
}

impl PartRowsPassed<'_> {
    /// So many rows of the part have passed, since it was begun for the last time.
    fn set(&self, rows: u64) {
        let before = self.of_part.map_or(0, |of_part| of_part.fetch_max(rows, Ordering::Relaxed));
        self.all.fetch_add(rows.saturating_sub(before), Ordering::Relaxed);
    }
}

impl<'a> PartWriter<'a> {
    pub fn new(
        part: PartIndex,
        rows: MultisetDigest,
        row_bytes_max: usize,
        emit: &'a mut dyn FnMut(Chunk) -> Outcome,
    ) -> Self {
        let (next, buffer, passed) = (ChunkIndex(0), ChunkBuffer::with_room(), None);
        Self { part, next, buffer, rows, emit, row_bytes_max, chunk_bytes: CHUNK_PLAIN_BYTES, passed }
    }

    /// Cuts chunks of another size.
    pub fn cutting(self, chunk_bytes: usize) -> Self {
        Self { chunk_bytes, buffer: ChunkBuffer::for_bytes(chunk_bytes), ..self }
    }

    /// Counts rows as they are emitted.
    pub fn counting(self, passed: PartRowsPassed<'a>) -> Self {
        Self { passed: Some(passed), ..self }
    }

    /// Whether nothing was appended, or what a compressor makes of nothing.
    pub fn is_empty(&self) -> bool {
        self.next.0 == 0 && holds_nothing(self.buffer.plain())
    }

    fn flush(&mut self) -> Outcome {
        self.emit_buffer(false)
    }

    fn emit_buffer(&mut self, last: bool) -> Outcome {
        let fresh = if last { ChunkBuffer::from([]) } else { ChunkBuffer::for_bytes(self.chunk_bytes) };
        let chunk = Chunk::new(self.part, self.next, last, std::mem::replace(&mut self.buffer, fresh));
        self.next.0 += 1;
        if let Some(passed) = &self.passed {
            passed.set(self.rows.rows());
        }
        (self.emit)(chunk)
    }

    /// Appends what comes before a row of so many bytes. Rows that fit a chunk are never split over
    /// two.
    fn begin_row(&mut self, encoded_bytes: usize) -> Outcome {
        if encoded_bytes > self.row_bytes_max {
            return Err(row_too_long(self.row_bytes_max).at_part(self.part));
        }
        let mut prefix = BytesMut::with_capacity(8);
        put_length(&mut prefix, encoded_bytes);
        let row_bytes = prefix.len() + encoded_bytes;
        if self.buffer.plain_bytes() + row_bytes > self.chunk_bytes && row_bytes <= self.chunk_bytes {
            self.flush()?;
        }
        self.bytes(&prefix)
    }

    /// Has `reader` read the part, and returns which rows it had. Of a dump with nothing in it this
    /// fails as `refuse_empty` says, before its last chunk: without that no loader sees the end of
    /// its input.
    pub fn read(mut self, reader: &mut dyn PartReader, refuse_empty: Option<fn() -> Failure>) -> Outcome<RowsDigest> {
        let part = self.part;
        reader.read(part, &mut self).map_err(|failure| failure.at_part(part))?;
        if let Some(is_empty) = refuse_empty.filter(|_| self.is_empty()) {
            return Err(is_empty());
        }
        self.finish()
    }

    /// Emits the last chunk, and returns which rows the part had. A part without it is never
    /// complete, whatever else arrived.
    pub fn finish(mut self) -> Outcome<RowsDigest> {
        self.emit_buffer(true)?;
        Ok(self.rows.digest())
    }
}

impl RowSink for PartWriter<'_> {
    fn row_bytes_max(&self) -> usize {
        self.row_bytes_max
    }

    fn row(&mut self, pieces: &[&[u8]]) -> Outcome {
        self.begin_row(pieces.iter().map(|piece| piece.len()).sum())?;
        self.rows.add_pieces(pieces);
        pieces.iter().try_for_each(|piece| self.bytes(piece))
    }

    fn long_row(&mut self, row_bytes: usize, row: &mut dyn Read, failed: &dyn Fn(io::Error) -> Failure) -> Outcome {
        self.begin_row(row_bytes)?;
        let mut hasher = self.rows.begin_row();
        let mut left = row_bytes;
        while left > 0 {
            if self.buffer.plain_bytes() == self.chunk_bytes {
                self.flush()?;
            }
            let held = self.buffer.plain_bytes();
            let wanted = left.min(self.chunk_bytes - held);
            let read = self.buffer.read_from(&mut *row, wanted).map_err(failed)?;
            hasher.update(&self.buffer.plain()[held..]);
            left -= read;
            if read < wanted {
                return Err(row_cut_short(row_bytes, left).at_part(self.part));
            }
        }
        self.rows.add_row(hasher);
        Ok(())
    }

    fn bytes(&mut self, mut bytes: &[u8]) -> Outcome {
        while !bytes.is_empty() {
            // Only here, with more to come, is it sure that a full chunk is not the last.
            if self.buffer.plain_bytes() == self.chunk_bytes {
                self.flush()?;
            }
            let taken = bytes.len().min(self.chunk_bytes - self.buffer.plain_bytes());
            self.buffer.extend(&bytes[..taken]);
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    fn read_from(&mut self, reader: &mut dyn Read, failed: &dyn Fn(io::Error) -> Failure) -> Outcome {
        loop {
            let room = self.chunk_bytes - self.buffer.plain_bytes();
            self.buffer.read_from(&mut *reader, room).map_err(failed)?;
            if self.buffer.plain_bytes() < self.chunk_bytes {
                return Ok(());
            }
            // One byte more shows whether this chunk is the last.
            let mut probe = Vec::new();
            reader.take(1).read_to_end(&mut probe).map_err(failed)?;
            if probe.is_empty() {
                return Ok(());
            }
            self.bytes(&probe)?;
        }
    }
}
