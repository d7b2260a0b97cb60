//! Writing the rows of one part: the ledger's line, `COPY ... FROM STDIN` and the rest of the line
//! in one transaction.

use bytes::{Bytes, BytesMut};
use sealift_engine_api::{PartSink, WrittenChunks, row_over_limit};
use sealift_protocol::{
    chunk::VerifiedChunk,
    close::Code,
    failure::{Failure, Outcome},
    id::PartIndex,
    receive::WholePart,
    row::{RowConsumer, RowReader},
};

use super::{document_sink::Repeated, doubt, encode::Encoder, ledger, read_back, session::Session, shared::SharedLoad};
use crate::{
    client::{At, CopyIn, End},
    document::{Format, Generated, Rows, Table},
    sql::{literal, quote, quote_qualified},
    target::session::Backend,
};

/// Encoded rows that are sent at once.
const SEND_BYTES: usize = 64 << 10;

/// The tables of an extension have their triggers and foreign keys from the beginning, and their
/// rows arrive in any order: for the transaction at hand, neither applies to them, if the role is a
/// superuser. For another role, they do.
const WITHOUT_TRIGGERS: &str = "SELECT pg_catalog.set_config('session_replication_role', 'replica', true) \
    FROM pg_catalog.pg_roles WHERE rolname = current_user AND rolsuper";

/// Loads the rows of one part.
pub struct RowsSink<'a> {
    shared: &'a SharedLoad,
    part: PartIndex,
    /// For messages.
    what: String,
    copy: CopyIn,
    backend: Backend,
    encoder: Encoder,
    reader: RowReader,
    buffer: BytesMut,
    rows: u64,
    written: WrittenChunks,
}

impl<'a> RowsSink<'a> {
    pub fn begin(
        shared: &'a SharedLoad,
        part: PartIndex,
        table: &Table,
        encoding: &str,
    ) -> Outcome<Box<dyn PartSink + 'a>> {
        let what = format!("loading table {}.{}", table.schema, table.name);
        let Session { mut connection, backend } = shared.session()?;
        if ledger::begin(&mut connection, part).at(End::Target, &what)? {
            shared.note_committed(part);
            shared.give_back(Session { connection, backend });
            return Ok(Box::new(Repeated { part }));
        }
        if table.rows == Rows::Configuration {
            connection.batch(WITHOUT_TRIGGERS).at(End::Target, &what)?;
        }
        let freezes = is_frozen(shared, part, table);
        if freezes {
            let name = quote_qualified(&table.schema, &table.name);
            connection.batch(&format!("TRUNCATE ONLY {name}")).at(End::Target, &what)?;
        }
        let copy = connection.into_copy_in(&copy_statement(table, encoding, freezes)).at(End::Target, &what)?;
        let encoder = Encoder::new(table);
        let mut buffer = BytesMut::with_capacity(2 * SEND_BYTES);
        encoder.begin(&mut buffer);
        let reader = RowReader::new(shared.row_bytes_max);
        Ok(Box::new(Self {
            shared,
            part,
            what,
            copy,
            backend,
            encoder,
            reader,
            buffer,
            rows: 0,
            written: WrittenChunks::default(),
        }))
    }

    fn insert(&mut self, piece: Bytes) -> Outcome {
        let Self { shared, what, copy, encoder, reader, buffer, rows, .. } = self;
        let mut sending = Sending { what, copy, encoder, buffer, rows };
        reader.feed_into(piece, &mut sending).map_err(|failure: Failure| match failure.code {
            Code::LimitExceeded => row_over_limit(shared.row_bytes_max),
            _ => failure,
        })
    }

    fn end(self, whole: &WholePart) -> Outcome {
        let Self { shared, part, what, mut copy, backend, encoder, reader, mut buffer, rows, written } = self;
        written.check_whole(part, whole)?;
        reader.finish()?;
        shared.check_stop()?;
        encoder.end(&mut buffer);
        copy.send(buffer.freeze()).at(End::Target, &what)?;
        let (connection, loaded) = copy.finish().at(End::Target, &what)?;
        if loaded != rows {
            let what = format!("{what}: {rows} rows were sent, and the server says that it has {loaded}");
            let next = "Look for triggers, and for other programs that change the staging database.";
            return Err(Failure::new(Code::TargetMismatch, what, next));
        }
        doubt::complete(shared, Session { connection, backend }, whole, rows, &what)
    }
}

/// Sends rows as they come. None of them is whole in memory if it is long.
struct Sending<'a> {
    what: &'a str,
    copy: &'a mut CopyIn,
    encoder: &'a mut Encoder,
    buffer: &'a mut BytesMut,
    rows: &'a mut u64,
}

impl Sending<'_> {
    fn send_if_full(&mut self) -> Outcome {
        if self.buffer.len() < SEND_BYTES {
            return Ok(());
        }
        self.copy.send(self.buffer.split().freeze()).at(End::Target, self.what)
    }
}

impl RowConsumer for Sending<'_> {
    type Failure = Failure;

    fn row(&mut self, row: &[u8]) -> Outcome {
        self.encoder.row(row, self.buffer)?;
        *self.rows += 1;
        self.send_if_full()
    }

    fn begin_long_row(&mut self, head: &[u8], _row_bytes: usize) -> Outcome<bool> {
        self.encoder.begin_long_row(self.buffer);
        self.long_row_piece(head, false)?;
        Ok(true)
    }

    fn long_row_piece(&mut self, piece: &[u8], is_last: bool) -> Outcome {
        self.encoder.long_row_piece(piece, is_last, self.buffer)?;
        *self.rows += u64::from(is_last);
        self.send_if_full()
    }
}

impl PartSink for RowsSink<'_> {
    fn write(&mut self, chunk: &VerifiedChunk) -> Outcome {
        self.shared.check_stop()?;
        let written = self.insert(chunk.plain().clone());
        written.map_err(|failure| self.shared.reason(failure).at_part(self.part))?;
        self.written.add(chunk);
        Ok(())
    }

    fn rows(&self) -> u64 {
        self.rows
    }

    fn finish(self: Box<Self>, whole: &WholePart) -> Outcome<Vec<PartIndex>> {
        let (shared, part) = (self.shared, self.part);
        self.end(whole).map_err(|failure| shared.reason(failure).at_part(part))?;
        Ok(vec![part])
    }
}

/// Whether the rows of a part are written as frozen, so that neither the proof nor the first
/// queries write every page again to note that its rows are committed. The server allows it in a
/// table that the same transaction has made empty, so the part has to be its only one.
fn is_frozen(shared: &SharedLoad, part: PartIndex, table: &Table) -> bool {
    let Some(planned) = shared.plan.parts.get(part.0 as usize) else { return false };
    table.rows == Rows::Own
        && planned.range.is_none()
        && planned.table.is_some_and(|table| read_back::is_large(&shared.plan, table))
}

/// The `COPY` that takes the rows of a table. A generated column cannot be given; nor can an empty
/// list of columns, which stands for all.
fn copy_statement(table: &Table, encoding: &str, freezes: bool) -> String {
    let loaded = table.columns.iter().filter(|column| column.generated == Generated::No);
    let columns: Vec<String> = loaded.map(|column| quote(&column.name)).collect();
    let columns = if columns.is_empty() { String::new() } else { format!(" ({})", columns.join(", ")) };
    let options = match table.format {
        Format::Binary => "FORMAT binary".to_owned(),
        Format::Text => format!("FORMAT text, ENCODING {}", literal(encoding)),
    };
    let freeze = if freezes { ", FREEZE" } else { "" };
    format!("COPY {}{columns} FROM STDIN ({options}{freeze})", quote_qualified(&table.schema, &table.name))
}
