//! Writing the rows of one table, or of a range of it.

use bytes::Bytes;
use sealift_engine_api::{PartSink, WrittenChunks, out_of_order, row_over_limit};
use sealift_protocol::{
    chunk::VerifiedChunk,
    close::Code,
    failure::{Failure, Outcome},
    id::PartIndex,
    manifest::Range,
    receive::WholePart,
    row::{RowConsumer, RowReader},
};

use super::{
    Shared, Turn,
    failure::{failed, row_failed},
    indexes::Waiting,
    insert::Insert,
    ledger::Line,
    load::Load,
    long_blob::LongBlob,
    long_row::{Head, open_inserted, takes_pieces},
};
use crate::{
    Value,
    document::{SEQUENCE_TABLE, Table},
    fail_point::{PART_SHARED, hit},
    read_values,
};

/// How much of a chunk is written between two looks at what its indexes would take to sort: tiny
/// rows take ten times their own bytes.
const PIECE_BYTES: usize = 256 << 10;

/// A part of one chunk lets its indexes grow with its rows while it has no more bytes than this, or
/// than this for each table of the database: for each index that is dropped or made, the engine
/// reads its whole catalogue, which takes longer than a few rows where tables are many.
const GROWING_BYTES_MAX: usize = 16 << 10;
const GROWING_BYTES_A_TABLE: usize = 64;

/// Binds and inserts rows as they arrive.
pub struct RowsLoad<'a> {
    /// The BLOB that is being written into its row. Before the connection, which it belongs to.
    long: Option<LongBlob>,
    turn: Turn<'a>,
    part: PartIndex,
    /// Place of the table in the schema document.
    table: usize,
    range: Option<Range>,
    insert: String,
    values: usize,
    reader: RowReader,
    rows: u64,
    transaction: Transaction,
    /// Its indexes that are made after the rows.
    waiting: Waiting,
    written: WrittenChunks,
    spare: Vec<Value<'static>>,
}

/// The one that a part is written in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Transaction {
    /// Before the first chunk.
    None,
    Own,
    /// With other parts.
    Shared,
}

impl<'a> RowsLoad<'a> {
    pub fn begin(mut turn: Turn<'a>, part: PartIndex) -> Outcome<Self> {
        let reader = RowReader::new(turn.shared.row_bytes_max);
        let planned = turn.shared.plan.parts.get(part.0 as usize).ok_or_else(out_of_order)?;
        let (table, range) = (planned.table.ok_or_else(out_of_order)?.0 as usize, planned.range);
        let load = turn.load()?;
        let definition = load.schema.tables.get(table).ok_or_else(out_of_order)?;
        let (insert, values) = (definition.insert(load.schema.encoding), definition.values());
        let waiting = Waiting::none(definition);
        Ok(Self {
            long: None,
            turn,
            part,
            table,
            range,
            insert,
            values,
            reader,
            rows: 0,
            transaction: Transaction::None,
            waiting,
            written: WrittenChunks::default(),
            spare: Vec::new(),
        })
    }

    /// The first chunk is here: says which transaction the part is written in, and which indexes
    /// wait for the rows.
    fn begin_transaction(&mut self, chunk: &VerifiedChunk) -> Outcome {
        // A range is large, however few rows there are in it now.
        if chunk.is_last() && self.range.is_none() {
            self.turn.load()?.begin_shared()?;
            self.transaction = Transaction::Shared;
        } else {
            self.turn.commit_shared()?;
            self.turn.load()?.begin()?;
            self.transaction = Transaction::Own;
        }
        if self.range.is_some_and(|range| range.from > 0) {
            // The indexes are there, and grow: the range before was committed with them.
            return Ok(());
        }
        let load = self.turn.load.as_ref().ok_or_else(out_of_order)?;
        let definition = &load.schema.tables[self.table];
        if definition.name == SEQUENCE_TABLE {
            // Loading the other tables has counted here.
            let sql = "DELETE FROM main.sqlite_sequence";
            load.connection.execute(sql, []).map_err(|error| failed(&error, SEQUENCE_TABLE))?;
        }
        let growing_bytes_max = GROWING_BYTES_MAX.max(load.schema.tables.len() * GROWING_BYTES_A_TABLE);
        if !chunk.is_last() || chunk.plain().len() > growing_bytes_max {
            self.waiting = Waiting::begin(&load.connection, definition)?;
        }
        Ok(())
    }

    fn end(&mut self, whole: &WholePart) -> Outcome {
        self.written.check_whole(self.part, whole)?;
        self.turn.shared.check_stop()?;
        std::mem::replace(&mut self.reader, RowReader::new(0)).finish()?;
        let line = Line { part: whole, rows: self.rows, document: None };
        let load = self.turn.load()?;
        self.waiting.build_all(&mut load.connection)?;
        if self.transaction == Transaction::Shared {
            return self.end_shared(&line);
        }
        load.commit(&line)?;
        self.turn.note_committed(&[self.part]);
        Ok(())
    }

    fn end_shared(&mut self, line: &Line<'_>) -> Outcome {
        let has_room = self.turn.load()?.end_shared(line)?;
        if has_room && self.turn.is_followed(self.part)? {
            hit(PART_SHARED);
            return Ok(());
        }
        self.turn.commit_shared()
    }

    fn insert(&mut self, piece: Bytes) -> Outcome {
        let Self { turn, table, insert, values: count, reader, rows, waiting, spare, long, .. } = self;
        let shared = turn.shared;
        let load = turn.load.as_ref().ok_or_else(out_of_order)?;
        let table = &load.schema.tables[*table];
        let engine = |error: rusqlite::Error| row_failed(&error, &format!("table {}", table.name));
        let statement = Insert::prepare(&load.connection, insert).map_err(engine)?;
        let mut inserting = Inserting { shared, load, table, statement, count: *count, rows, waiting, spare, long };
        reader.feed_into(piece, &mut inserting).map_err(|failure: Failure| match failure.code {
            Code::LimitExceeded => row_over_limit(shared.row_bytes_max),
            _ => failure,
        })
    }

    fn write_piece(&mut self, piece: Bytes) -> Outcome {
        self.insert(piece)?;
        // An index that is built changes the catalogue, and with that an open BLOB is lost.
        match self.long {
            Some(_) => Ok(()),
            None => self.waiting.build_large(&mut self.turn.load()?.connection),
        }
    }
}

impl PartSink for RowsLoad<'_> {
    fn write(&mut self, chunk: &VerifiedChunk) -> Outcome {
        let plain = chunk.plain();
        if self.transaction == Transaction::None {
            self.begin_transaction(chunk).map_err(|failure| failure.at_part(self.part))?;
        }
        for start in (0..plain.len()).step_by(PIECE_BYTES) {
            let piece = plain.slice(start..plain.len().min(start + PIECE_BYTES));
            self.write_piece(piece).map_err(|failure| failure.at_part(self.part))?;
        }
        self.written.add(chunk);
        Ok(())
    }

    fn rows(&self) -> u64 {
        self.rows
    }

    fn finish(mut self: Box<Self>, whole: &WholePart) -> Outcome<Vec<PartIndex>> {
        let part = self.part;
        self.end(whole).map_err(|failure| failure.at_part(part))?;
        Ok(self.turn.take_finished())
    }
}

/// Inserts the rows of one piece.
struct Inserting<'l> {
    shared: &'l Shared,
    load: &'l Load,
    table: &'l Table,
    statement: Insert<'l>,
    /// Values of a row.
    count: usize,
    rows: &'l mut u64,
    waiting: &'l mut Waiting,
    spare: &'l mut Vec<Value<'static>>,
    long: &'l mut Option<LongBlob>,
}

impl Inserting<'_> {
    fn failed(&self, error: &rusqlite::Error) -> Failure {
        row_failed(error, &format!("table {}", self.table.name))
    }
}

impl RowConsumer for Inserting<'_> {
    type Failure = Failure;

    fn row(&mut self, row: &[u8]) -> Outcome {
        self.shared.check_stopped()?;
        let mut values = recycle(std::mem::take(self.spare));
        read_values(row, self.count, &mut values)?;
        self.waiting.count(&values);
        let inserted = self.statement.execute(&values, self.load.schema.encoding);
        inserted.map_err(|error| self.failed(&error))?;
        *self.rows += 1;
        *self.spare = recycle(values);
        Ok(())
    }

    fn begin_long_row(&mut self, head: &[u8], row_bytes: usize) -> Outcome<bool> {
        self.shared.check_stopped()?;
        let Some(Head { values, blob_at, blob_bytes }) = Head::read(head, self.count, row_bytes)? else {
            return Ok(false);
        };
        let Load { connection, schema, .. } = self.load;
        let takes_pieces = takes_pieces(connection, self.table, schema.encoding, self.waiting);
        if !takes_pieces.map_err(|error| self.failed(&error))? {
            return Ok(false);
        }
        self.waiting.count(&values);
        let opened = self.statement.execute_with_room(&values, blob_bytes);
        let opened = opened.and_then(|()| open_inserted(connection, self.table));
        let mut blob = opened.map_err(|error| self.failed(&error))?;
        blob.write(&head[blob_at..]).map_err(|error| self.failed(&error))?;
        *self.long = Some(blob);
        Ok(true)
    }

    fn long_row_piece(&mut self, piece: &[u8], is_last: bool) -> Outcome {
        self.shared.check_stopped()?;
        let blob = self.long.as_mut().ok_or_else(out_of_order)?;
        let written = blob.write(piece);
        written.map_err(|error| self.failed(&error))?;
        if is_last {
            *self.long = None;
            *self.rows += 1;
        }
        Ok(())
    }
}

/// The same allocation, empty, for values of another lifetime.
fn recycle<'b>(mut values: Vec<Value<'_>>) -> Vec<Value<'b>> {
    values.clear();
    // Collecting in place keeps the buffer; of no elements, none is converted.
    values.into_iter().map(|_| Value::Null).collect()
}
