//! Writing the rows of one table, or of a range of it.

use bytes::Bytes;
use sealift_engine_api::PartSink;
use sealift_protocol::{
    chunk::VerifiedChunk,
    close::Code,
    failure::{Failure, Outcome},
    id::PartIndex,
    manifest::Range,
    receive::WholePart,
    row::RowReader,
};

use super::{
    Turn,
    failure::{failed, row_failed, row_too_long},
    indexes::Waiting,
    insert::Insert,
    ledger::Line,
    load::check_whole,
    out_of_order,
};
use crate::{
    Value,
    document::SEQUENCE_TABLE,
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
    chunks: u64,
    ended: bool,
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
            chunks: 0,
            ended: false,
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
        check_whole(whole, self.part, self.chunks, self.ended)?;
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
        let Self { turn, table, insert, values: count, reader, rows, waiting, spare, .. } = self;
        let shared = turn.shared;
        let load = turn.load.as_ref().ok_or_else(out_of_order)?;
        let encoding = load.schema.encoding;
        let name = &load.schema.tables[*table].name;
        let engine = |error: rusqlite::Error| row_failed(&error, &format!("table {name}"));
        let mut statement = Insert::prepare(&load.connection, insert).map_err(engine)?;
        reader
            .feed(piece, |row| {
                shared.check_stopped()?;
                let mut values = recycle(std::mem::take(spare));
                read_values(row, *count, &mut values)?;
                waiting.count(&values);
                statement.execute(&values, encoding).map_err(engine)?;
                *rows += 1;
                *spare = recycle(values);
                Ok(())
            })
            .map_err(|failure: Failure| match failure.code {
                Code::LimitExceeded => row_too_long(shared.row_bytes_max),
                _ => failure,
            })
    }

    fn write_piece(&mut self, piece: Bytes) -> Outcome {
        self.insert(piece)?;
        self.waiting.build_large(&mut self.turn.load()?.connection)
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
        self.chunks += 1;
        self.ended = chunk.is_last();
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

/// The same allocation, empty, for values of another lifetime.
fn recycle<'b>(mut values: Vec<Value<'_>>) -> Vec<Value<'b>> {
    values.clear();
    // Collecting in place keeps the buffer; of no elements, none is converted.
    values.into_iter().map(|_| Value::Null).collect()
}
